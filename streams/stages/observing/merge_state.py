"""What the merge of the observe stage holds: the latest parts, what outcomes say, what is to be published.

Parts replace each other, outcomes are counted once, and everything is a sum of whole numbers: the state
after all inputs does not depend on the order in which partitions were read.

A step says what is so from now on, never what is to be decided: while a changelog is restored, the buckets
that a decision would look at may not be there yet.
"""

from __future__ import annotations

from collections.abc import Iterator

import msgspec
import numpy as np

from models.gates import Evidence
from monitoring.decision_quality import DecisionQuality, Saved
from monitoring.live_quality import DAY_MS, DAYS, CardDay, DayQuality, ScoreSketch
from monitoring.tallies import Tally, Window, add, total
from streams.stages import columns
from streams.stages.alignment import FOREVER, NEVER
from streams.stages.observing import verdicts
from streams.stages.observing.days import DayJudged, JudgedDays
from streams.stages.observing.drift import HOUR_BUCKETS, DriftState, Evaluated
from streams.stages.observing.gate_figures import (
    PackedDay,
    Pair,
    PairDays,
    PairHours,
    commonest,
    evidence,
    output_figures,
)
from streams.stages.observing.reading import HOURS, MINUTES, SLOT_MS, ReadState, ReadStep
from streams.stages.observing.shapes import ShapesTold
from streams.stages.observing.state import Part
from streams.stages.observing.verdicts import Judged
from streams.stages.seen_rows import Packed
from streams.times import DAY, HOUR, MINUTE

#: The windows that are published, by the kind of slots they are made of.
WINDOWS = {
    MINUTES: (Window("1m", MINUTE, MINUTE, MINUTE), Window("1h", MINUTE, HOUR, 5 * MINUTE)),
    HOURS: (Window("24h", HOUR, DAY, HOUR),),
}
BY_NAME = {window.name: (kind, window) for kind, windows in WINDOWS.items() for window in windows}
#: In place of a partition of cards: what outcomes say of a slot.
OUTCOMES = -1
#: Alerted transactions whose verdict may yet be revised; the oldest go first.
MOST_JUDGED = 200_000
_BUCKETS = 16
#: The buckets after those: one each, then the hours of drift.
_HEAD, _DECISIONS, _GATES, _DRIFT, _FIRST_HOURS = range(_BUCKETS, _BUCKETS + 5)

#: Name and end of a window.
Due = tuple[str, int]


class MergeStep(ReadStep, msgspec.Struct, array_like=True):
    """What was read and published, as the changelog keeps it.

    Watermarks are by partition of cards; outcomes that have been seen by label and score partition.

    Args:
        tallies: of outcomes, by hour.
        outcomes: the same, by day.
        due: windows that have changed.
        scores: outcomes to be counted by model, as columns (`MergeState.count_scores`).
        published: windows that have been published as they are.
        evaluated, days: what the evaluation of hours and of days has decided.
        decided: up to when a label partition has decided what matures.
        gone: by kind, slots that start before this are no longer kept; `days_gone` for days.
        judged_gone: verdicts on these transactions are no longer kept.
    """

    parts: list[Part] = []
    tallies: dict[int, Tally] = {}
    outcomes: dict[int, Tally] = {}
    due: set[Due] = set()
    scores: list[bytes] = []
    judged: list[tuple[int, Judged]] = []
    published: list[Due] = []
    shapes: list[ShapesTold] = []
    evaluated: list[Evaluated] = []
    decided: dict[int, int] = {}
    days: list[DayJudged] = []
    gone: dict[str, int] = {}
    days_gone: int = NEVER
    judged_gone: list[int] = []


class _Quality(msgspec.Struct, array_like=True):
    counts: bytes
    cards: dict[int, tuple[float, int]]


class _Bucket(msgspec.Struct, array_like=True):
    parts: dict[str, dict[int, dict[int, tuple[int, Tally]]]]
    quality: dict[int, dict[str, _Quality]]
    judged: verdicts.Packed
    due: list[Due]


class _Head(msgspec.Struct, array_like=True):
    positions: dict[str, int]
    watermarks: dict[int, int]
    seen: dict[str, Packed]
    days: bytes


class MergeState(ReadState):
    """The state of the merge; a `PartitionState`.

    Memory: of each partition its tallies, 48 hours of minutes, `maturity` and two days of hours, 1 to 2 KB a
    slot; of all together `DriftState`, 37 days of outcomes of 130 KB a model, up to `MOST_JUDGED` verdicts of
    300 bytes, and `PairDays`, for gates: 98 KB for each move, candidate and day, of 28 and of `maturity`.

    Args:
        partitions: of cards, and of labels.
        drift: empty, for the features of the spec.
        maturity: event time after which a transaction is decided, ms.
    """

    buckets = _FIRST_HOURS + HOUR_BUCKETS

    def __init__(self, partitions: int, drift: DriftState | None = None, maturity: int = 7 * DAY) -> None:
        super().__init__(partitions, maturity)
        self.drift = drift or DriftState(())
        self.days = JudgedDays(maturity, partitions)
        self.decisions = DecisionQuality()
        #: by kind, slot and partition: position and tally
        self.parts: dict[str, dict[int, dict[int, tuple[int, Tally]]]] = {kind: {} for kind in WINDOWS}
        #: by kind and slot, the sums of its parts as far as they have been asked for
        self._sums: dict[str, dict[int, Tally]] = {kind: {} for kind in WINDOWS}
        #: by day and model (`champion:NAME`)
        self.quality: dict[int, dict[str, DayQuality]] = {}
        self.judged: dict[int, Judged] = {}
        self.pair_days = PairDays(maturity)
        self._pair_hours = PairHours()
        #: hours whose parts have changed since those were asked for
        self._changed: set[int] = set()
        #: windows that have changed since they were published
        self.due: set[Due] = set()

    def tally(self, window: Window, kind: str, end: int) -> Tally:
        """What all partitions say of the window that ends at `end`."""
        slots, sums = self.parts[kind], self._sums[kind]
        for slot in window.slots(end):
            if slot in slots and slot not in sums:
                sums[slot] = total(tally for _, tally in slots[slot].values())
        return total(sums[slot] for slot in window.slots(end) if slot in sums)

    def evidence(self, pair: Pair, *, canary: bool) -> Evidence:
        """What is known of a candidate since the move of the pair, beside the champion.

        Of rows scored in the hours that are kept, and of days of outcomes that have been decided. Whether
        scores are all alike is told by whole hours, once they are told as shapes.
        """
        hours = self._pair_hours
        for hour in self._changed:
            hours.replace(hour, total(tally for _, tally in self.parts[HOURS].get(hour, {}).values()))
        self._changed.clear()
        first, role = hours.first(pair), "canary" if canary else "shadow"
        after = FOREVER if first is None else first
        output = output_figures(
            hours.figures(pair),
            (
                commonest(self.drift.scores_after(after, f"{role}:{pair.candidate}")),
                commonest(self.drift.scores_after(after, f"champion:{pair.champion}")),
            ),
        )
        return evidence(output, self.pair_days.until(pair, self.days.decided))

    def changed(self, kind: str, slot: int) -> Iterator[Due]:
        """The windows to be published when this slot changes: those of which everything is kept."""
        oldest = self.oldest(kind)
        for window in WINDOWS[kind]:
            yield from ((window.name, end) for end in window.ends(slot) if end - window.length >= oldest)

    def _touched(self, kind: str, slot: int) -> None:
        """The parts of the slot are others now."""
        self._sums[kind].pop(slot, None)
        if kind == HOURS:
            self._changed.add(slot)

    def apply(self, delta: bytes) -> None:
        self.take(_decode_step(delta))

    def take(self, step: MergeStep) -> None:
        """Go on to where the step has led."""
        self.read(step)
        for part in step.parts:
            self.parts[part.kind].setdefault(part.slot, {})[part.partition] = part.position, part.tally
            self._touched(part.kind, part.slot)
        for slot, tally in step.tallies.items():
            _, held = self.parts[HOURS].setdefault(slot, {}).setdefault(OUTCOMES, (0, {}))
            add(held, tally)
            self._touched(HOURS, slot)
        for day, tally in step.outcomes.items():
            self.days.add(day, tally)
        self.due |= step.due
        for shape in step.shapes:
            self.drift.take(shape)
        for evaluated in step.evaluated:
            self.drift.go_on(evaluated)
        for packed in step.scores:
            self.count_scores(packed)
        for label_partition, until in step.decided.items():
            self.days.decide(label_partition, until)
        for judged_day in step.days:
            self.days.go_on(judged_day)
        for transaction, judged in step.judged:
            self.judged[transaction] = judged
        self.due.difference_update(step.published)
        self._let_go(step)

    def _let_go(self, step: MergeStep) -> None:
        for kind, oldest in step.gone.items():
            slots = self.parts[kind]
            for slot in [slot for slot in slots if slot < oldest]:
                del slots[slot]
                self._touched(kind, slot)
        for day in [day for day in self.quality if day < step.days_gone]:
            del self.quality[day]
        for transaction in step.judged_gone:
            self.judged.pop(transaction, None)

    def aged(self) -> MergeStep:
        """What is too old, or too much; what a window to be published needs is not."""
        gone = {kind: min([self.oldest(kind), *self._needed(kind)]) for kind in self.parts}
        step = MergeStep(gone={kind: oldest for kind, oldest in gone.items() if oldest > NEVER})
        if self.reached > NEVER:
            step.days_gone = (self.reached - self.kept[HOURS]) // DAY_MS - DAYS
        oldest, excess = self.oldest(HOURS), len(self.judged) - MOST_JUDGED
        for number, (transaction, judged) in enumerate(self.judged.items()):
            if judged.time >= oldest and number >= excess:
                break
            step.judged_gone.append(transaction)
        return step

    def _needed(self, kind: str) -> Iterator[int]:
        """Where windows of that kind that are still to be published start."""
        lengths = {window.name: window.length for window in WINDOWS[kind]}
        return (end - lengths[name] for name, end in self.due if name in lengths)

    def count_scores(self, packed: bytes) -> None:
        """Count outcomes by day and model.

        Args:
            packed: `time` and `card` i8, `fraud`, `alert` and `control` bool, `propensity` and `threshold`
                f8, `scores` f8 (rows, models) with `models`, `move` and `stood_in` in the metadata; `sign` is
                -1 to take them back.
        """
        rows = columns.decode(packed)
        models = msgspec.convert(rows.meta["models"], list[str])
        sign = rows.meta_int("sign")
        days = rows.ints("time") // DAY_MS
        for day in np.unique(days).tolist():
            chosen = days == day
            held = self.quality.setdefault(day, {})
            for column, model in enumerate(models):
                held.setdefault(model, DayQuality()).update(
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
        self.pair_days.update(rows, models, sign)

    def dump(self, bucket: int) -> bytes:
        if bucket == _HEAD:
            seen, days = self.seen.dump(), self.days.dump()
            return _encode(_Head(self.positions, self.watermarks, seen, days))
        if bucket == _DECISIONS:
            return _encode(self.decisions.dump())
        if bucket == _GATES:
            return _encode(self.pair_days.dump())
        if bucket == _DRIFT:
            return self.drift.dump()
        if bucket >= _FIRST_HOURS:
            return self.drift.dump_hours(bucket - _FIRST_HOURS)
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
                verdicts.pack(
                    {name: each for name, each in self.judged.items() if name % _BUCKETS == bucket}
                ),
                sorted(each for each in self.due if _cut_due(each) == bucket),
            )
        )

    def load(self, bucket: int, data: bytes) -> None:
        if bucket == _HEAD:
            head = _decode_head(data)
            self.positions, self.watermarks = head.positions, head.watermarks
            self.seen.load(head.seen)
            self.days.load(head.days)
        elif bucket == _DECISIONS:
            self.decisions.load(_decode_decisions(data))
        elif bucket == _GATES:
            self.pair_days.load(_decode_pairs(data))
        elif bucket == _DRIFT:
            self.drift.load(data)
        elif bucket >= _FIRST_HOURS:
            self.drift.load_hours(bucket - _FIRST_HOURS, data)
        else:
            self._load(bucket, data)

    def _load(self, bucket: int, data: bytes) -> None:
        saved = _decode_bucket(data)
        for kind, slots in self.parts.items():
            for slot in [slot for slot in slots if _cut(kind, slot) == bucket]:
                del slots[slot]
                self._touched(kind, slot)
            slots.update(saved.parts.get(kind, {}))
            for slot in saved.parts.get(kind, {}):
                self._touched(kind, slot)
        for day in [day for day in self.quality if day % _BUCKETS == bucket]:
            del self.quality[day]
        for day, held in saved.quality.items():
            self.quality[day] = {role: _unpacked(each) for role, each in held.items()}
        kept = {name: each for name, each in self.judged.items() if name % _BUCKETS != bucket}
        self.judged = dict(
            sorted((kept | verdicts.unpack(saved.judged)).items(), key=lambda item: item[1].time)
        )
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
_decode_pairs = msgspec.msgpack.Decoder(dict[int, dict[str, PackedDay]]).decode
_decode_decisions = msgspec.msgpack.Decoder(Saved).decode
