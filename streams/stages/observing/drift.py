"""Drift in the merge: the shapes of hours, the reference, and an evaluation of every hour that is over.

The shapes of all partitions of an hour are one sum. Hours lie in records of their own in the changelog, apart
from what has been decided: an evaluation looks at many of them, which while a changelog is restored may not
all be there. So it gives what it has decided, and that is kept (`Evaluated`).
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import msgspec
import numpy as np

from models.spec import FeatureSpec
from monitoring.drift_alarms import Alarms
from monitoring.drift_watch import (
    REFERENCE_HOURS,
    Distance,
    Reference,
    build_reference,
    champion_of,
    distances,
    lacking,
    ranked,
    with_scores,
)
from monitoring.live_quality import role_of
from monitoring.shapes import SCORE_BINS, Ints, Shape
from streams.stages.alignment import FOREVER, NEVER
from streams.stages.observing.reading import reached
from streams.stages.observing.shapes import PackedShape, ShapesTold, add_scores, add_up, pack, unpack
from streams.stages.observing.state import PATIENCE
from streams.times import DAY, HOUR

#: Pieces that the hours are dumped in; a piece has four or five of the hours kept.
HOUR_BUCKETS = 42
_DAY_HOURS = 24


class _Reference(msgspec.Struct, array_like=True):
    model: str
    start: int
    end: int
    shape: PackedShape
    limits: dict[str, list[float]]
    score_limits: dict[str, dict[str, float]]
    outside: dict[str, list[float]]
    unseen: dict[str, list[float]]


class Evaluated(msgspec.Struct, array_like=True, frozen=True):
    """What the evaluation of an hour has decided.

    Args:
        hour: its start; it is the last one evaluated now.
        first: the first one ever.
        model, since: the champion of the last hours, and the first of them.
        raised: the alarms that are on, kind and name.
        oldest: hours that start before this are no longer needed.
        reference: a new one; None for the one there was.
        scoring: by model that has scored (`ROLE:NAME`), the first of the last hours in all of which it had
            when they were evaluated.
    """

    hour: int
    first: int
    model: str
    since: int
    raised: list[tuple[str, str]]
    oldest: int
    reference: _Reference | None = None
    scoring: dict[str, int] = {}


class _Saved(msgspec.Struct, array_like=True):
    told: dict[int, int]
    evaluated: Evaluated
    reference: _Reference | None


class _Hour(msgspec.Struct, array_like=True, frozen=True):
    """The sum of the shapes told; `partitions` has a bit for each that has."""

    partitions: bytes
    shape: PackedShape


def filling(spec: FeatureSpec) -> tuple[int, ...]:
    """How long the windows behind each feature fill after the first transaction, ms."""
    entities = [entity.retention_ms for entity in spec.entities for _ in entity.names]
    return (*(0 for _ in spec.transaction_names), *entities)


class DriftState:
    """What drift is found from; the same parts and evaluations in the same order give the same.

    Memory does not depend on how many partitions there are: at most the hours of a reference and of
    `PATIENCE`, 195 in all, each of up to 20 bytes for a bin that has rows (`PackedShape`): 8 MB where an hour
    has some hundred rows, 46 MB where 49 features fill all their bins.

    Args:
        features: names, in the order of the feature spec.
        filling: of each, how long its windows fill after the first transaction, ms. A reference from before
            that has no limits for it, nor for scores while the longest of them fill.
        partitions: of cards.
    """

    def __init__(
        self, features: tuple[str, ...], filling: tuple[int, ...] = (), *, partitions: int = 1
    ) -> None:
        #: by partition, the last hour that it has told of
        self._told = dict.fromkeys(range(partitions), NEVER)
        self._features = features
        self._filling = filling or (0,) * len(features)
        self._hours: dict[int, _Hour] = {}
        self._now = Evaluated(NEVER, FOREVER, "", 0, [], NEVER)
        self._day: Shape | None = None
        self.reference: Reference | None = None

    def wanted(self, told: ShapesTold) -> ShapesTold:
        """Of the hours those that are still needed; too late for its evaluation one counts for the day."""
        shapes = [(hour, shape) for hour, shape in told.shapes if hour >= self._now.oldest]
        return ShapesTold(told.partition, shapes, told.until)

    def take(self, told: ShapesTold) -> None:
        """The shapes of hours in a partition; the first one of an hour is all of it."""
        self._told[told.partition] = max(told.until, self._told.get(told.partition, NEVER))
        bit = 1 << told.partition
        for hour, shape in told.shapes:
            held = self._hours.get(hour)
            partitions = int.from_bytes(held.partitions if held else b"", "little")
            if not partitions & bit:
                partitions |= bit
                packed = partitions.to_bytes((partitions.bit_length() + 7) // 8, "little")
                self._hours[hour] = _Hour(packed, add_up([held.shape, shape]) if held else shape)
                self._day = None

    @property
    def hours(self) -> int:
        """How many are kept."""
        return len(self._hours)

    def due(self) -> list[int]:
        """The hours to be evaluated, in order: all partitions have told of them."""
        until = reached(self._told, PATIENCE)
        return sorted(hour for hour in self._hours if self._now.hour < hour <= until)

    def evaluate(self, hour: int) -> tuple[Evaluated, dict[str, Any] | None]:
        """What is found at the end of this hour, and its record; None while there is no reference."""
        now = self._shape(hour)
        first = min(self._now.first, hour)
        model, since = champion_of(now), self._now.since
        if model != self._now.model:
            since = hour
        start = hour - (REFERENCE_HOURS - 1) * HOUR
        scoring = {each: self._now.scoring.get(each, hour) for each in now.scores}
        before, alarms = self.reference, Alarms(set(self._now.raised))
        held = before
        if model and start >= since and not self._settled(held, model, first, start):
            held, alarms = self._build(model, first, start, hour), Alarms()
        elif held is not None and start >= first + max(self._filling, default=0):
            known, daily = held.score_limits["24h"], hour % DAY == 0
            late = [
                each
                for each in lacking(held, now)
                if start >= scoring[each] and (daily or each not in known) and self._in_all(each, start, hour)
            ]
            held = with_scores(held, late, list(self._last(hour, REFERENCE_HOURS))) if late else held
        record = None if held is None else self._record(hour, held, alarms, now)
        # All windows filled, and a reference from then for all that score: no other one is needed.
        settled = self._settled(held, model, first, FOREVER) and held is not None and not lacking(held, now)
        oldest = hour - ((_DAY_HOURS if settled else REFERENCE_HOURS) - 1) * HOUR
        fresh = None if held is None or held is before else _packed(held)
        return Evaluated(hour, first, model, since, sorted(alarms.raised), oldest, fresh, scoring), record

    def found_last(self) -> dict[str, Any] | None:
        """The record of the last hour evaluated, without new alarms; None while there is no reference."""
        return self.evaluate(self._now.hour)[1] if self._now.hour > NEVER else None

    def go_on(self, evaluated: Evaluated) -> None:
        """The hour has been evaluated, with that result."""
        self._now, self._day = msgspec.structs.replace(evaluated, reference=None), None
        if evaluated.reference is not None:
            self.reference = self._unpacked(evaluated.reference)
        for each in [each for each in self._hours if each < evaluated.oldest]:
            del self._hours[each]

    def last_day(self) -> Shape:
        """The shape of the 24 hours up to the last one evaluated."""
        if self._day is None:
            self._day = self._of_day(self._now.hour) if self._now.hour > NEVER else self._empty()
        return self._day

    def scoring(self) -> set[str]:
        """The models that were the last to have their role, `ROLE:NAME`, of the 24 hours up to the last one
        evaluated; none for a role that has changed hands in its last hour.
        """
        last: dict[str, set[str]] = {}
        for hour in range(self._now.hour - (_DAY_HOURS - 1) * HOUR, self._now.hour + HOUR, HOUR):
            found: dict[str, set[str]] = {}
            for model in self._hours[hour].shape.scores if hour in self._hours else ():
                found.setdefault(role_of(model), set()).add(model)
            last |= found
        return {model for models in last.values() if len(models) == 1 for model in models}

    def scores_after(self, hour: int, model: str) -> Ints:
        """Rows by bin of the score of a model (`ROLE:NAME`), of the hours kept that begin later."""
        counts = np.zeros(SCORE_BINS, dtype=np.int64)
        for each, held in self._hours.items():
            if each > hour and model in held.shape.scores:
                add_scores(counts, held.shape, model)
        return counts

    def _build(self, model: str, first: int, start: int, hour: int) -> Reference:
        """A reference of the hours from `start` to `hour`; what was still filling then has no limits."""
        hours = list(self._last(hour, REFERENCE_HOURS))
        reference = build_reference(model, self._features, start, hour + HOUR, hours)
        filled = [start >= first + each for each in self._filling]
        for limits in (reference.limits, reference.outside, reference.unseen):
            for window, held in limits.items():
                limits[window] = [each if full else math.inf for each, full in zip(held, filled, strict=True)]
        if not all(filled):
            reference.score_limits = {
                window: dict.fromkeys(held, math.inf) for window, held in reference.score_limits.items()
            }
        return reference

    def _settled(self, held: Reference | None, model: str, first: int, start: int) -> bool:
        """Whether this reference needs no other one that could start at `start`."""
        if held is None or held.model != model:
            return False
        return all(held.start >= first + each or start < first + each for each in self._filling)

    def _record(self, hour: int, held: Reference, alarms: Alarms, now: Shape) -> dict[str, Any]:
        found = {"1h": distances(held, "1h", now), "24h": distances(held, "24h", self._of_day(hour))}
        fresh = alarms.update(found)
        factors = {each.name: each.factor for window in found.values() for each in window if each.factor}
        return {
            "metric": "drift",
            "end": hour + HOUR,
            "reference": {"model": held.model, "start": held.start, "end": held.end},
            "windows": {window: [_figures(each) for each in ranked(held)] for window, held in found.items()},
            "alarms": [{"kind": kind, "name": name, "factor": factors.get(name, 0)} for kind, name in fresh],
            "raised": [{"kind": kind, "name": name} for kind, name in sorted(alarms.raised)],
        }

    def _empty(self) -> Shape:
        return Shape.empty(len(self._features))

    def _shape(self, hour: int) -> Shape:
        held = self._hours.get(hour)
        return unpack(held.shape) if held is not None else self._empty()

    def _of_day(self, hour: int) -> Shape:
        day = self._empty()
        for each in self._last(hour, _DAY_HOURS):
            day.merge(each)
        return day

    def _last(self, hour: int, count: int) -> Iterator[Shape]:
        """The shapes of the hours up to this one that have any."""
        for each in range(hour - (count - 1) * HOUR, hour + HOUR, HOUR):
            if each in self._hours:
                yield self._shape(each)

    def _in_all(self, model: str, start: int, hour: int) -> bool:
        """Whether a model (`ROLE:NAME`) has scored in all the hours kept from `start` to `hour`.

        Not told by `Evaluated.scoring` alone: an hour without it may have come too late for its evaluation.
        """
        return all(model in held.shape.scores for each, held in self._hours.items() if start <= each <= hour)

    def dump(self) -> bytes:
        """All but the hours."""
        reference = None if self.reference is None else _packed(self.reference)
        return _encode(_Saved(self._told, self._now, reference))

    def load(self, data: bytes) -> None:
        saved = _decode(data)
        self._told, self._now, self._day = saved.told, saved.evaluated, None
        self.reference = None if saved.reference is None else self._unpacked(saved.reference)

    def dump_hours(self, bucket: int) -> bytes:
        """One of `HOUR_BUCKETS` pieces of the hours."""
        return _encode({hour: held for hour, held in self._hours.items() if _bucket(hour) == bucket})

    def load_hours(self, bucket: int, data: bytes) -> None:
        self._day = None
        for hour in [hour for hour in self._hours if _bucket(hour) == bucket]:
            del self._hours[hour]
        self._hours |= _decode_hours(data)

    def _unpacked(self, held: _Reference) -> Reference:
        return Reference(
            held.model,
            held.start,
            held.end,
            self._features,
            unpack(held.shape),
            held.limits,
            held.score_limits,
            held.outside,
            held.unseen,
        )


def _bucket(hour: int) -> int:
    return hour // HOUR % HOUR_BUCKETS


def _packed(reference: Reference) -> _Reference:
    return _Reference(
        reference.model,
        reference.start,
        reference.end,
        pack(reference.shape),
        reference.limits,
        reference.score_limits,
        reference.outside,
        reference.unseen,
    )


def _figures(each: Distance) -> dict[str, Any]:
    return {
        "name": each.name,
        "psi": each.psi,
        "js": each.js,
        "ks": each.ks,
        "limit": each.limit,
        "effect": each.effect,
        "missing": each.missing,
        "out_of_range": each.out_of_range,
        "unseen": each.unseen,
        "kind": each.kind,
    }


_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(_Saved).decode
_decode_hours = msgspec.msgpack.Decoder(dict[int, _Hour]).decode
