"""What the records of the metrics topic say of models, drift and alerts; pure.

Records are read by their keys and nothing more: what is missing, unknown or of another type is left out, so
that a page of this version shows what it understands of the records of another.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import msgspec

#: Features shown, those furthest from their reference.
MOST_FEATURES = 12
#: Reports kept: what the chart of quality shows.
KEPT = 240
#: Events of learners shown: what they noticed of their own errors.
MOST_EVENTS = 5
#: Average precision over fewer frauds jumps about, and is not drawn.
FEWEST_FRAUDS = 10
#: Characters of a text shown.
MOST_TEXT = 64
#: Roles of which quality is shown.
MOST_ROLES = 16
_QUALITY = ("average_precision", "roc_auc", "calibration_error", "card_precision", "outcomes", "frauds")
_DRIFT = ("psi", "ks")
#: What outcomes say of the alerts: as they are, and corrected by the control group.
_OUTCOMES = {"precision": "outcome_precision", "recall": "outcome_recall"}
_DAY = "24h"
_WAYS = ("naive", "corrected")
_EVENT_NUMBERS = ("event_time", "before", "after")
_EVENT_TEXTS = ("model", "what", "signal")
_FUNNEL = ("shown", "opened", "confirmed", "dismissed")


@dataclass(slots=True)
class Statistics:
    """The latest figures of every kind, and the average precision over event time."""

    event_time: int | None = None
    quality: dict[str, dict[str, float | None]] = field(default_factory=dict)
    drift: list[dict[str, float | str | None]] = field(default_factory=list)
    score_drift: dict[str, float | None] = field(default_factory=dict)
    funnel: dict[str, float | None] = field(default_factory=dict)
    outcomes: dict[str, dict[str, float | None]] = field(default_factory=dict)
    events: deque[dict[str, float | str | None]] = field(default_factory=lambda: deque(maxlen=MOST_EVENTS))
    _ends: dict[str, float] = field(default_factory=dict)
    _history: deque[tuple[int, dict[str, float | None]]] = field(default_factory=lambda: deque(maxlen=KEPT))

    def take(self, value: bytes | None) -> None:
        """A record's value; what is no JSON object is left out."""
        try:
            record = msgspec.json.decode(value or b"")
        except msgspec.MsgspecError:
            return
        if isinstance(record, dict):
            if isinstance(record.get("what"), str):
                self.events.appendleft(
                    {name: _number(record.get(name)) for name in _EVENT_NUMBERS}
                    | {name: str(record.get(name, ""))[:MOST_TEXT] for name in _EVENT_TEXTS}
                )
            else:
                self._read(flat(record))

    def _read(self, record: Mapping[str, Any]) -> None:
        end = _number(record.get("end")) or 0
        if end < self._ends.get(str(record.get("metric")), 0):
            return  # an older window, published again for what has come late
        self._ends[str(record.get("metric"))] = end
        event_time = _number(record.get("event_time"))
        if event_time is not None and event_time > 0:
            self.event_time = int(event_time)
        quality = {
            role: {name: _number(each.get(name)) for name in _QUALITY}
            for role, each in list(_table(record, "quality").items())[:MOST_ROLES]
            if isinstance(each, dict)
        }
        if quality:
            self.quality = quality
            precision = {
                role: None if (each["frauds"] or 0) < FEWEST_FRAUDS else each["average_precision"]
                for role, each in quality.items()
            }
            if self.event_time is not None and any(value is not None for value in precision.values()):
                self._history.append((self.event_time, precision))
        drift: list[dict[str, float | str | None]] = [
            {"feature": name, **{measure: _number(each.get(measure)) for measure in _DRIFT}}
            for name, each in _table(record, "feature_drift").items()
            if isinstance(each, dict) and _number(each.get("psi")) is not None
        ]
        if drift:
            # Names break ties, so that rows of equal drift do not change places.
            self.drift = sorted(drift, key=lambda each: (-float(each["psi"] or 0.0), str(each["feature"])))
            del self.drift[MOST_FEATURES:]
        if scores := _table(record, "score_drift"):
            self.score_drift = {role: _number(value) for role, value in list(scores.items())[:MOST_ROLES]}
        if funnel := _table(record, "funnel"):
            self.funnel = {name: _number(funnel.get(name)) for name in _FUNNEL} | {
                "ctr": _number(funnel.get("ctr", record.get("alert_ctr"))),
                "precision": _number(funnel.get("precision", record.get("alert_precision"))),
            }

        for name, key in _OUTCOMES.items():
            if found := _table(record, key):
                self.outcomes[name] = {way: _number(found.get(way)) for way in _WAYS}

    def document(self) -> dict[str, object]:
        """Everything as plain values; `history` has a column of average precision for every role."""
        roles = sorted({role for _, precision in self._history for role in precision})
        return {
            "event_time": self.event_time,
            "quality": self.quality,
            "drift": self.drift,
            "score_drift": self.score_drift,
            "funnel": self.funnel,
            "outcomes": self.outcomes,
            "events": list(self.events),
            "history": {
                "event_time": [event_time for event_time, _ in self._history],
                "average_precision": {
                    role: [precision.get(role) for _, precision in self._history] for role in roles
                },
            },
        }


def flat(record: Mapping[str, Any]) -> dict[str, Any]:
    """A record as one flat report, whichever of the kinds it is that name themselves in `metric`.

    `window` (of those the day's), `drift` and `quality` are records of their own; one without `metric` is
    such a report already.
    """
    metric, end = record.get("metric"), record.get("end")
    # Not of the drift: it comes an hour after its end.
    plain: dict[str, Any] = {"metric": metric, "end": end, "event_time": end}
    if metric == "window" and record.get("window") == _DAY:
        outcomes = {key: {"naive": record.get(name)} for name, key in _OUTCOMES.items()}
        return {**plain, "funnel": record.get("funnel"), **outcomes}
    if metric == "quality":
        return {**plain, "quality": record.get("models")}
    if metric == "drift":
        day = _table(record, "windows").get(_DAY)
        entries = [each for each in day if isinstance(each, dict)] if isinstance(day, list) else []
        named = {str(each.get("name")): each for each in entries}
        scores = {
            name if name.startswith("shadow:") else name.partition(":")[0]: each.get("psi")
            for name, each in named.items()
            if ":" in name
        }
        features = {name: each for name, each in named.items() if ":" not in name}
        return {**plain, "event_time": None, "feature_drift": features, "score_drift": scores}
    return {} if "metric" in record else dict(record)


def _table(record: Mapping[str, Any], name: str) -> dict[str, Any]:
    found = record.get(name)
    return found if isinstance(found, dict) else {}


def _number(value: object) -> float | None:
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        return None
    return value
