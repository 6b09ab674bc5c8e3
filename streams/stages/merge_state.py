"""What the merge of the observe stage holds: the latest parts, what outcomes say, what is to be published.

Parts replace each other, outcomes are counted once, and everything is a sum of whole numbers: the state
after all inputs does not depend on the order in which partitions were read.
"""

from __future__ import annotations

from collections.abc import Iterator

import msgspec
import numpy as np
import numpy.typing as npt

from monitoring.decision_quality import DecisionQuality, Saved
from monitoring.live_quality import DAY_MS, DAYS, CardDay, DayQuality, ScoreSketch
from monitoring.tallies import Tally, Window, add, total
from streams.stages import columns
from streams.stages.alignment import NEVER
from streams.stages.drift_state import DriftState
from streams.stages.judged_days import JudgedDays
from streams.stages.observe_state import (
    AFTER_MATURITY,
    HOURS,
    MINUTES,
    MINUTES_KEPT,
    SLOT_MS,
    Part,
    oldest_slot,
    reached,
)
from streams.stages.shape_parts import ShapePart
from streams.times import DAY, HOUR, MINUTE

#: The windows that are published, by the kind of slots they are made of.
WINDOWS = {
    MINUTES: (Window("1m", MINUTE, MINUTE, MINUTE), Window("1h", MINUTE, HOUR, 5 * MINUTE)),
    HOURS: (Window("24h", HOUR, DAY, HOUR),),
}
BY_NAME = {window.name: (kind, window) for kind, windows in WINDOWS.items() for window in windows}
#: In place of a partition of cards: what outcomes say of a slot.
OUTCOMES = -1
#: Offsets remembered by label and score partition: more than a score partition may have sent twice.
_REMEMBERED = 1 << 15
#: Alerted transactions whose verdict may yet be revised; the oldest go first.
MOST_JUDGED = 200_000
_BUCKETS = 16

#: Name and end of a window.
Due = tuple[str, int]


class Judged(msgspec.Struct, array_like=True, frozen=True):
    """What was counted for an alerted transaction: to be taken back when its verdict is revised.

    Args:
        time: event time that places it, epoch ms.
        fraud: the verdict.
        row: the outcome, as columns of length one.
    """

    time: int
    fraud: bool
    tally: Tally
    row: bytes


class MergeStep(msgspec.Struct, array_like=True):
    """What was read and published, as the changelog keeps it.

    Args:
        tallies: of outcomes, by hour.
        scores: outcomes to be counted by model, as columns (`MergeState.count_scores`).
        places: last place of a decided row, by label partition.
        published: windows that have been published as they are.
        evaluated, days: hours whose drift, and days whose quality has been evaluated.
        decided: up to when a label partition has decided what matures.
    """

    positions: dict[str, int] = {}
    parts: list[Part] = []
    tallies: dict[int, Tally] = {}
    scores: list[bytes] = []
    places: dict[int, int] = {}
    offsets: dict[str, bytes] = {}
    judged: list[tuple[int, Judged]] = []
    published: list[Due] = []
    shapes: list[ShapePart] = []
    evaluated: list[int] = []
    decided: dict[int, int] = {}
    days: list[int] = []


class _Quality(msgspec.Struct, array_like=True):
    counts: bytes
    cards: dict[int, tuple[float, int]]


class _Bucket(msgspec.Struct, array_like=True):
    parts: dict[str, dict[int, dict[int, tuple[int, Tally]]]]
    quality: dict[int, dict[str, _Quality]]
    judged: dict[int, Judged]
    due: list[Due]


class _Head(msgspec.Struct, array_like=True):
    positions: dict[str, int]
    watermarks: dict[int, int]
    places: dict[int, int]
    offsets: dict[str, bytes]
    drift: bytes
    days: bytes
    decisions: Saved


class MergeState:
    """The state of the merge; a `PartitionState`.

    Args:
        partitions: of cards.
        drift: empty, for the features of the spec.
        maturity: event time after which a transaction is decided, ms.
    """

    buckets = _BUCKETS + 1

    def __init__(self, partitions: int, drift: DriftState | None = None, maturity: int = 7 * DAY) -> None:
        self.drift = drift or DriftState(())
        self.days = JudgedDays(maturity)
        self.decisions = DecisionQuality()
        self.kept = {MINUTES: MINUTES_KEPT, HOURS: maturity + AFTER_MATURITY}
        #: the next offset of each input
        self.positions: dict[str, int] = {}
        #: by partition of cards
        self.watermarks = dict.fromkeys(range(partitions), NEVER)
        #: by kind, slot and partition: position and tally
        self.parts: dict[str, dict[int, dict[int, tuple[int, Tally]]]] = {kind: {} for kind in WINDOWS}
        #: by kind and slot, the sums of its parts as far as they have been asked for
        self._sums: dict[str, dict[int, Tally]] = {kind: {} for kind in WINDOWS}
        #: by day and role
        self.quality: dict[int, dict[str, DayQuality]] = {}
        self.judged: dict[int, Judged] = {}
        self.places: dict[int, int] = {}
        #: windows that have changed since they were published
        self.due: set[Due] = set()
        self._offsets: dict[str, npt.NDArray[np.int64]] = {}

    @property
    def reached(self) -> int:
        """Event time up to which windows are over."""
        return reached(self.watermarks)

    def oldest(self, kind: str) -> int:
        """Start of the oldest slot of that kind that is kept."""
        return oldest_slot(self.watermarks, kind, self.kept[kind])

    def tally(self, window: Window, kind: str, end: int) -> Tally:
        """What all partitions say of the window that ends at `end`."""
        slots, sums = self.parts[kind], self._sums[kind]
        for slot in window.slots(end):
            if slot in slots and slot not in sums:
                sums[slot] = total(tally for _, tally in slots[slot].values())
        return total(sums[slot] for slot in window.slots(end) if slot in sums)

    def unseen(self, source: str, offsets: npt.NDArray[np.int64]) -> npt.NDArray[np.bool_]:
        """Which of these offsets have not come from the source before."""
        seen = self._offsets.get(source)
        if seen is None or not len(offsets) or offsets.min() > seen.max():
            return np.ones(len(offsets), dtype=np.bool_)
        return ~np.isin(offsets, seen)

    def apply(self, delta: bytes) -> None:
        self.take(_decode_step(delta))

    def take(self, step: MergeStep) -> None:
        self.positions.update(step.positions)
        # By what was known before: a step may go further than slots are kept.
        oldest = {kind: self.oldest(kind) for kind in self.parts}
        for part in step.parts:
            self._part(part, oldest[part.kind])
        for shape in step.shapes:
            self.drift.take(shape)
        for hour in step.evaluated:
            self.drift.evaluate(hour)
        for slot, tally in step.tallies.items():
            self.days.add(slot, tally)
            if slot >= oldest[HOURS]:
                _, held = self.parts[HOURS].setdefault(slot, {}).setdefault(OUTCOMES, (0, {}))
                add(held, tally)
                self._changed(HOURS, slot, oldest[HOURS])
        for packed in step.scores:
            self.count_scores(packed)
        self.places.update(step.places)
        for label_partition, until in step.decided.items():
            self.days.decide(label_partition, until)
        for day in step.days:
            self.days.evaluate(day, self.quality)
        for source, packed in step.offsets.items():
            known = self._offsets.get(source, np.empty(0, np.int64))
            self._offsets[source] = np.concatenate([known, np.frombuffer(packed, np.int64)])[-_REMEMBERED:]
        for transaction, judged in step.judged:
            self.judged[transaction] = judged
        self.due.difference_update(step.published)
        if not step.published:
            self._forget()

    def _part(self, part: Part, oldest: int) -> None:
        self.watermarks[part.partition] = max(part.watermark, self.watermarks.get(part.partition, NEVER))
        if part.slot < oldest:
            return
        held = self.parts[part.kind].setdefault(part.slot, {})
        position, tally = held.get(part.partition, (-1, {}))
        # One that was restored from may still send what it knew then.
        if part.position < position:
            return
        held[part.partition] = part.position, part.tally
        if part.tally != tally:
            self._changed(part.kind, part.slot, oldest)

    def _changed(self, kind: str, slot: int, oldest: int) -> None:
        self._sums[kind].pop(slot, None)
        for window in WINDOWS[kind]:
            self.due.update((window.name, end) for end in window.ends(slot) if end - window.length >= oldest)

    def _needed(self, kind: str) -> Iterator[int]:
        """Where windows of that kind that are still to be published start."""
        lengths = {window.name: window.length for window in WINDOWS[kind]}
        return (end - lengths[name] for name, end in self.due if name in lengths)

    def count_scores(self, packed: bytes) -> None:
        """Count outcomes by day and role.

        Args:
            packed: `time` and `card` i8, `fraud`, `alert` and `control` bool, `propensity` f8, `scores` f8
                (rows, roles) with `roles` in the metadata; `sign` is -1 to take them back.
        """
        rows = columns.decode(packed)
        roles = msgspec.convert(rows.meta["roles"], list[str])
        sign = rows.meta_int("sign")
        days = rows.ints("time") // DAY_MS
        for day in np.unique(days).tolist():
            chosen = days == day
            held = self.quality.setdefault(day, {})
            for column, role in enumerate(roles):
                held.setdefault(role, DayQuality()).update(
                    rows.ints("card")[chosen],
                    rows.bools("fraud")[chosen],
                    rows.floats("scores")[chosen, column],
                    sign,
                )
        self.decisions.update(
            rows.ints("time"),
            rows.ints("card"),
            rows.bools("fraud"),
            rows.bools("alert"),
            rows.bools("control"),
            rows.floats("propensity"),
            sign,
        )

    def _forget(self) -> None:
        """Drop what is too old, or too much."""
        for kind, slots in self.parts.items():
            oldest = min([self.oldest(kind), *self._needed(kind)])
            for slot in [slot for slot in slots if slot < oldest]:
                del slots[slot]
                self._sums[kind].pop(slot, None)
        for day in [
            day for day in self.quality if day * DAY_MS < self.reached - self.kept[HOURS] - DAYS * DAY_MS
        ]:
            del self.quality[day]
        oldest = self.oldest(HOURS)
        while self.judged:
            first = next(iter(self.judged))
            if self.judged[first].time >= oldest and len(self.judged) <= MOST_JUDGED:
                break
            del self.judged[first]

    def dump(self, bucket: int) -> bytes:
        if bucket == _BUCKETS:
            packed = {source: offsets.tobytes() for source, offsets in self._offsets.items()}
            drift, days = self.drift.dump(), self.days.dump()
            decisions = self.decisions.dump()
            return _encode(
                _Head(self.positions, self.watermarks, self.places, packed, drift, days, decisions)
            )
        return _encode(
            _Bucket(
                {
                    kind: {slot: held for slot, held in slots.items() if _cut(kind, slot) == bucket}
                    for kind, slots in self.parts.items()
                },
                {
                    day: {role: _packed(each) for role, each in held.items()}
                    for day, held in self.quality.items()
                    if day % _BUCKETS == bucket
                },
                {name: each for name, each in self.judged.items() if name % _BUCKETS == bucket},
                sorted(each for each in self.due if _cut_due(each) == bucket),
            )
        )

    def load(self, bucket: int, data: bytes) -> None:
        if bucket == _BUCKETS:
            head = _decode_head(data)
            self.positions, self.watermarks, self.places = head.positions, head.watermarks, head.places
            self._offsets = {name: np.frombuffer(packed, np.int64) for name, packed in head.offsets.items()}
            self.drift.load(head.drift)
            self.days.load(head.days)
            self.decisions.load(head.decisions)
            return
        saved = _decode_bucket(data)
        for kind, slots in self.parts.items():
            for slot in [slot for slot in slots if _cut(kind, slot) == bucket]:
                del slots[slot]
            slots.update(saved.parts.get(kind, {}))
            self._sums[kind].clear()
        for day in [day for day in self.quality if day % _BUCKETS == bucket]:
            del self.quality[day]
        for day, held in saved.quality.items():
            self.quality[day] = {role: _unpacked(each) for role, each in held.items()}
        kept = {name: each for name, each in self.judged.items() if name % _BUCKETS != bucket}
        self.judged = dict(sorted((kept | saved.judged).items(), key=lambda item: item[1].time))
        self.due = {each for each in self.due if _cut_due(each) != bucket} | set(saved.due)


def _cut(kind: str, slot: int) -> int:
    return slot // SLOT_MS[kind] % _BUCKETS


def _cut_due(due: Due) -> int:
    return due[1] // MINUTE % _BUCKETS


def _packed(quality: DayQuality) -> _Quality:
    return _Quality(quality.scores.counts.tobytes(), quality.cards.cards)


def _unpacked(packed: _Quality) -> DayQuality:
    quality = DayQuality()
    counts = np.frombuffer(packed.counts, np.int64).reshape(3, -1).copy()
    quality.scores = ScoreSketch(counts)
    quality.cards = CardDay()
    quality.cards.cards = packed.cards
    return quality


_encode = msgspec.msgpack.Encoder().encode
encode_step = _encode
_decode_step = msgspec.msgpack.Decoder(MergeStep).decode
_decode_bucket = msgspec.msgpack.Decoder(_Bucket).decode
_decode_head = msgspec.msgpack.Decoder(_Head).decode
