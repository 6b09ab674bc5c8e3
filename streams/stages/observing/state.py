"""What the observe stage holds for one partition of cards: tallies by slot, alerts, actions without an alert.

The partition sums what it has seen of a slot; the *part* of a slot is that sum, sent whole whenever it has
changed (`merge_state.py`). So a part that is sent twice counts once. The shape of an hour is told once, when
nothing more counts in it, and is gone then.

A step says what is so from now on, never what is to be decided: while a changelog is restored, the buckets
that a decision would look at may not be there yet.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterator, Mapping

import msgspec

from monitoring.funnel import Progress
from monitoring.shapes import Shape
from monitoring.tallies import Tally, add
from streams.stages.alignment import NEVER
from streams.stages.observing.reading import HOURS, MINUTES, SLOT_MS, ReadState, ReadStep, reached
from streams.stages.observing.shapes import PackedShape, add_packed, pack, unpack
from streams.stages.seen_rows import Packed
from streams.times import DAY, HOUR

#: What comes within this time after an hour counts in its shape.
GRACE = HOUR
#: For shapes a partition is waited for that is no further behind the furthest one than this. Unlike windows
#: they are not corrected later; in a fast replay score partitions are hours of event time apart.
PATIENCE = DAY
#: What comes so late before a slot is dropped is not counted in it, so that it does not matter how far apart
#: inputs are read.
_MARGIN = DAY
#: Alerts held, and alerts whose actions wait for them; the oldest go first.
MOST_ALERTS = 100_000
MOST_WAITING = 10_000
#: Actions that wait for one alert.
MOST_ACTIONS = 16
_BUCKETS = 16

#: Tallies by kind of slot and start of the slot.
Tallies = dict[str, dict[int, Tally]]
Slot = tuple[str, int]
#: What a partition has read stays below this many records; positions of the next generation begin there.
_GENERATION = 1 << 43


class Held(msgspec.Struct, array_like=True, frozen=True):
    """An alert and how far it has come by what counts in each kind of slot (`monitoring/funnel.py`)."""

    time: int
    model: str
    arm: str
    amount: int
    exponent: int
    seconded: dict[str, bool]
    progress: dict[str, Progress] = {}
    live: bool = True


class Waiting(msgspec.Struct, array_like=True, frozen=True):
    """Actions on an alert that has not come yet, and the watermark when the first of them came."""

    since: int
    actions: list[tuple[str, int]]


class Part(msgspec.Struct, array_like=True, frozen=True):
    """What a partition has seen of a slot.

    Args:
        position: of the partition in its inputs, in the present generation; of two parts of a slot the one
            further on counts.
        watermark: how far the partition is in event time, in the last of the parts told at once; `NEVER` in
            those before it, so that nothing is too old before all of them are there.
    """

    kind: str
    slot: int
    partition: int
    position: int
    watermark: int
    tally: Tally


class ObserveStep(ReadStep, msgspec.Struct, array_like=True):
    """What was read and told, as the changelog keeps it; `watermarks` and `seen` are by score partition.

    Args:
        waiting: None for alerts for which nothing waits any more.
        told, shapes_told: what the merge has been told.
        gone: by kind, slots that start before this are no longer kept.
        alerts_gone: nor are these alerts.
        generation: 0 for the one there was.
    """

    tallies: Tallies = {}
    alerts: list[tuple[str, Held]] = []
    waiting: list[tuple[str, Waiting | None]] = []
    told: list[Slot] = []
    shapes: dict[int, PackedShape] = {}
    shapes_told: list[int] = []
    gone: dict[str, int] = {}
    alerts_gone: list[str] = []
    generation: int = 0


class _Bucket(msgspec.Struct, array_like=True):
    tallies: Tallies
    alerts: dict[str, Held]
    waiting: dict[str, Waiting]
    untold: list[Slot]


class _Head(msgspec.Struct, array_like=True):
    positions: dict[str, int]
    watermarks: dict[int, int]
    seen: dict[str, Packed]
    shapes: dict[int, PackedShape]
    generation: int = 0


class ObserveState(ReadState):
    """State of one partition of cards; a `PartitionState`.

    Args:
        partitions: of the score stage.
        maturity: event time after which a transaction is decided, ms.
    """

    buckets = _BUCKETS + 1

    def __init__(self, partitions: int, maturity: int = 7 * DAY) -> None:
        super().__init__(partitions, maturity)
        self.tallies: Tallies = {MINUTES: {}, HOURS: {}}
        #: by transaction, in the order in which they came
        self.alerts: dict[str, Held] = {}
        self.waiting: dict[str, Waiting] = {}
        #: slots whose part has changed since it was sent
        self.untold: set[Slot] = set()
        #: of hours in which more may count
        self.shapes: dict[int, Shape] = {}
        #: how many workers have taken the partition over
        self.generation = 0

    @property
    def watermark(self) -> int:
        """The latest event time that is believed."""
        return max(self.watermarks.values(), default=NEVER)

    @property
    def shapes_over(self) -> int:
        """The last hour in the shape of which nothing counts any more."""
        until = reached(self.watermarks, PATIENCE) - HOUR - GRACE
        return until - until % HOUR

    @property
    def position(self) -> int:
        """How far the partition is: by generation, then in its inputs together.

        Who takes over after a crash may read the inputs in another turn than the one before, and knows more
        of one of them while the sum is still lower.
        """
        return self.generation * _GENERATION + sum(self.positions.values())

    def next_generation(self) -> ObserveStep:
        """What makes everything told from now on newer than what was told before; to be kept first."""
        return ObserveStep(generation=self.generation + 1)

    def counts_until(self, kind: str) -> int:
        """How long after an alert an action counts in its slot of that kind, ms."""
        return self.kept[kind] - _MARGIN

    def apply(self, delta: bytes) -> None:
        self.take(_decode_step(delta))

    def take(self, step: ObserveStep) -> None:
        """Go on to where the step has led."""
        self.read(step)
        self.generation = max(self.generation, step.generation)
        for kind, slots in step.tallies.items():
            held = self.tallies[kind]
            for slot, tally in slots.items():
                add(held.setdefault(slot, {}), tally)
                self.untold.add((kind, slot))
        for hour, packed_shape in step.shapes.items():
            add_packed(self.shapes.setdefault(hour, Shape.empty(packed_shape.features)), packed_shape)
        for hour in step.shapes_told:
            self.shapes.pop(hour, None)
        for transaction, alert in step.alerts:
            self.alerts[transaction] = alert
        for transaction, waiting in step.waiting:
            if waiting is None:
                self.waiting.pop(transaction, None)
            else:
                self.waiting[transaction] = waiting
        self.untold.difference_update(step.told)
        for kind, oldest in step.gone.items():
            held = self.tallies[kind]
            for slot in [slot for slot in held if slot < oldest]:
                del held[slot]
        for transaction in step.alerts_gone:
            self.alerts.pop(transaction, None)

    def aged(self) -> ObserveStep:
        """What is too old, or too much, once everything has been told."""
        oldest = {kind: self.oldest(kind) for kind in self.tallies}
        step = ObserveStep(gone={kind: at for kind, at in oldest.items() if at > NEVER})
        excess = len(self.alerts) - MOST_ALERTS
        for number, (transaction, alert) in enumerate(self.alerts.items()):
            if alert.time >= oldest[HOURS] and number >= excess:
                break
            step.alerts_gone.append(transaction)
        excess = len(self.waiting) - MOST_WAITING
        for number, (transaction, waiting) in enumerate(self.waiting.items()):
            if waiting.since >= oldest[HOURS] and number >= excess:
                break
            step.waiting.append((transaction, None))
        return step

    def dump(self, bucket: int) -> bytes:
        if bucket == _BUCKETS:
            shapes = {hour: pack(shape) for hour, shape in self.shapes.items()}
            seen = self.seen.dump()
            return _encode(_Head(self.positions, self.watermarks, seen, shapes, self.generation))
        return _encode(
            _Bucket(
                {
                    kind: {slot: tally for slot, tally in held.items() if _cut(kind, slot) == bucket}
                    for kind, held in self.tallies.items()
                },
                {name: self.alerts[name] for name in _named(self.alerts, bucket)},
                {name: self.waiting[name] for name in _named(self.waiting, bucket)},
                sorted(each for each in self.untold if _cut(*each) == bucket),
            )
        )

    def load(self, bucket: int, data: bytes) -> None:
        if bucket == _BUCKETS:
            head = _decode_head(data)
            self.positions, self.watermarks = head.positions, head.watermarks
            self.seen.load(head.seen)
            self.shapes = {hour: unpack(packed) for hour, packed in head.shapes.items()}
            self.generation = head.generation
            return
        saved = _decode_bucket(data)
        for kind, held in self.tallies.items():
            for slot in [slot for slot in held if _cut(kind, slot) == bucket]:
                del held[slot]
            held.update(saved.tallies.get(kind, {}))
        self.untold = {each for each in self.untold if _cut(*each) != bucket} | set(saved.untold)
        for name in list(_named(self.alerts, bucket)):
            del self.alerts[name]
        for name in list(_named(self.waiting, bucket)):
            del self.waiting[name]
        self.alerts.update(saved.alerts)
        self.waiting.update(saved.waiting)
        # The order of age, which cutting by name has lost.
        self.alerts = dict(sorted(self.alerts.items(), key=lambda item: item[1].time))
        self.waiting = dict(sorted(self.waiting.items(), key=lambda item: item[1].since))


def _cut(kind: str, slot: int) -> int:
    return slot // SLOT_MS[kind] % _BUCKETS


def _named(names: Mapping[str, object], bucket: int) -> Iterator[str]:
    return (name for name in names if zlib.crc32(name.encode()) % _BUCKETS == bucket)


_encode = msgspec.msgpack.Encoder().encode
encode_step = _encode
encode_parts = _encode
decode_parts = msgspec.msgpack.Decoder(list[Part]).decode
_decode_step = msgspec.msgpack.Decoder(ObserveStep).decode
_decode_bucket = msgspec.msgpack.Decoder(_Bucket).decode
_decode_head = msgspec.msgpack.Decoder(_Head).decode
