"""Drift in the merge: the shapes of hours, the reference, and an evaluation of every hour that is over."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import msgspec

from models.spec import FeatureSpec
from monitoring.drift_watch import (
    REFERENCE_HOURS,
    Alarms,
    Distance,
    Reference,
    build_reference,
    champion_of,
    distances,
    ranked,
)
from monitoring.shapes import Shape
from streams.stages.alignment import FOREVER, NEVER
from streams.stages.shape_parts import PackedShape, ShapePart, add_packed, pack, unpack
from streams.times import HOUR

#: An hour is evaluated once, so long after it is over.
GRACE = HOUR
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


class _Saved(msgspec.Struct, array_like=True):
    hours: dict[int, dict[int, tuple[int, PackedShape]]]
    reference: _Reference | None
    raised: list[tuple[str, str]]
    evaluated: int
    model: str
    since: int
    first: int


def filling(spec: FeatureSpec) -> tuple[int, ...]:
    """How long the windows behind each feature fill after the first transaction, ms."""
    entities = [entity.retention_ms for entity in spec.entities for _ in entity.names]
    return (*(0 for _ in spec.transaction_names), *entities)


class DriftState:
    """What drift is found from; the same parts and evaluations in the same order give the same.

    Args:
        features: names, in the order of the feature spec.
        filling: of each, how long its windows fill after the first transaction, ms. A reference from before
            that has no limits for it, nor for scores while the longest of them fill.
    """

    def __init__(self, features: tuple[str, ...], filling: tuple[int, ...] = ()) -> None:
        self._features = features
        self._filling = filling or (0,) * len(features)
        #: the first hour evaluated
        self._first = FOREVER
        #: by hour and partition: position and shape
        self._hours: dict[int, dict[int, tuple[int, PackedShape]]] = {}
        self._alarms = Alarms()
        #: the last hour evaluated
        self._evaluated = NEVER
        #: the champion of the last hours, and the first of them
        self._model, self._since = "", 0
        self.reference: Reference | None = None

    def take(self, part: ShapePart) -> None:
        """The shape of an hour in a partition; too late for its evaluation it still counts for the day."""
        held = self._hours.setdefault(part.slot, {})
        if part.position >= held.get(part.partition, (-1, None))[0]:
            held[part.partition] = part.position, part.shape

    def due(self, reached: int) -> list[int]:
        """The hours to be evaluated, in order."""
        return sorted(
            hour for hour in self._hours if self._evaluated < hour and hour + HOUR + GRACE <= reached
        )

    def evaluate(self, hour: int) -> dict[str, Any] | None:
        """Go on to the end of this hour; its record, or None while there is no reference."""
        self._evaluated = hour
        self._first = min(self._first, hour)
        now = self._shape(hour)
        model = champion_of(now)
        if model != self._model:
            self._model, self._since = model, hour
        self._learn(hour)
        record = None
        if self.reference is not None:
            found = {
                "1h": distances(self.reference, "1h", now),
                "24h": distances(self.reference, "24h", self.last_day()),
            }
            record = self._record(hour, found)
        self._forget(hour)
        return record

    def last_day(self) -> Shape:
        """The shape of the 24 hours up to the last one evaluated."""
        day = Shape.empty(len(self._features))
        for each in self._last(self._evaluated, _DAY_HOURS) if self._evaluated > NEVER else ():
            day.merge(each)
        return day

    def _learn(self, hour: int) -> None:
        """A reference for the present champion, once it has been one for long enough; and once more when all
        windows are filled.
        """
        start = hour - (REFERENCE_HOURS - 1) * HOUR
        if self._settled(start) or not self._model or start < self._since:
            return
        reference = build_reference(
            self._features, start, hour + HOUR, list(self._last(hour, REFERENCE_HOURS))
        )
        for limits in (reference.limits, reference.outside, reference.unseen):
            for window, held in limits.items():
                limits[window] = [
                    each if self._filled(start, number) else math.inf for number, each in enumerate(held)
                ]
        if not all(self._filled(start, number) for number in range(len(self._features))):
            reference.score_limits = {
                window: dict.fromkeys(held, math.inf) for window, held in reference.score_limits.items()
            }
        self.reference, self._alarms = reference, Alarms()

    def _settled(self, start: int) -> bool:
        """Whether the reference needs no other one that could start now."""
        held = self.reference
        if held is None or held.model != self._model:
            return False
        return all(
            self._filled(held.start, number) or not self._filled(start, number)
            for number in range(len(self._features))
        )

    def _filled(self, start: int, number: int) -> bool:
        """Whether the windows of the feature were filled at that time."""
        return start >= self._first + self._filling[number]

    def _record(self, hour: int, found: dict[str, list[Distance]]) -> dict[str, Any]:
        assert self.reference is not None
        fresh = self._alarms.update(found)
        factors = {each.name: each.factor for window in found.values() for each in window if each.factor}
        return {
            "metric": "drift",
            "end": hour + HOUR,
            "reference": {
                "model": self.reference.model,
                "start": self.reference.start,
                "end": self.reference.end,
            },
            "windows": {window: [_figures(each) for each in ranked(held)] for window, held in found.items()},
            "alarms": [{"kind": kind, "name": name, "factor": factors.get(name, 0)} for kind, name in fresh],
            "raised": [{"kind": kind, "name": name} for kind, name in sorted(self._alarms.raised)],
        }

    def _shape(self, hour: int) -> Shape:
        shape = Shape.empty(len(self._features))
        for _, packed in self._hours.get(hour, {}).values():
            add_packed(shape, packed)
        return shape

    def _last(self, hour: int, count: int) -> Iterator[Shape]:
        """The shapes of the hours up to this one that have any."""
        for each in range(hour - (count - 1) * HOUR, hour + HOUR, HOUR):
            if each in self._hours:
                yield self._shape(each)

    def _forget(self, hour: int) -> None:
        # All windows filled, and a reference from then: no other one is needed.
        kept = _DAY_HOURS if self._settled(FOREVER) else REFERENCE_HOURS
        for each in [each for each in self._hours if each <= hour - kept * HOUR]:
            del self._hours[each]

    def dump(self) -> bytes:
        reference = self.reference
        return msgspec.msgpack.encode(
            _Saved(
                self._hours,
                None
                if reference is None
                else _Reference(
                    reference.model,
                    reference.start,
                    reference.end,
                    pack(reference.shape),
                    reference.limits,
                    reference.score_limits,
                    reference.outside,
                    reference.unseen,
                ),
                sorted(self._alarms.raised),
                self._evaluated,
                self._model,
                self._since,
                self._first,
            )
        )

    def load(self, data: bytes) -> None:
        saved = _decode(data)
        self._hours, self._evaluated = saved.hours, saved.evaluated
        self._model, self._since, self._first = saved.model, saved.since, saved.first
        self._alarms = Alarms(set(saved.raised))
        self.reference = None
        if (held := saved.reference) is not None:
            self.reference = Reference(
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


_decode = msgspec.msgpack.Decoder(_Saved).decode
