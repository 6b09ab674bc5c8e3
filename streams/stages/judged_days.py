"""Days whose outcomes are in: how good each model was, what labels were like, and what has changed."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec

from monitoring.concept import change_point, log_loss
from monitoring.funnel import ratio
from monitoring.limits import QUIET_DAYS
from monitoring.live_quality import DAY_MS, DAYS, DayQuality
from monitoring.tallies import Tally, add, total
from streams.stages.alignment import NEVER

#: Decided transactions are waited for so long by event time, should a partition of labels be silent.
_PATIENCE = DAY_MS


class DayJudged(msgspec.Struct, array_like=True, frozen=True):
    """What the evaluation of a day has decided: the alarms that are on, kind and name."""

    day: int
    raised: list[tuple[str, str]]


class _Saved(msgspec.Struct, array_like=True):
    tallies: dict[int, Tally]
    decided: dict[int, int]
    raised: list[tuple[str, str]]
    evaluated: int


class JudgedDays:
    """Tallies of outcomes by day, and the alarms that their change has raised.

    Args:
        maturity: event time after which a transaction is decided, ms.
    """

    def __init__(self, maturity: int) -> None:
        self._maturity = maturity
        self._tallies: dict[int, Tally] = {}
        #: by label partition, up to when it has decided
        self._decided: dict[int, int] = {}
        self._raised: set[tuple[str, str]] = set()
        self._evaluated = NEVER

    def add(self, day: int, tally: Mapping[str, int]) -> None:
        """More outcomes of a day, or some taken back."""
        add(self._tallies.setdefault(day, {}), tally)

    def decide(self, label_partition: int, until: int) -> None:
        """The partition has decided what matures up to then."""
        self._decided[label_partition] = max(until, self._decided.get(label_partition, NEVER))

    def due(self, reached: int) -> list[int]:
        """The days to be evaluated: everything of them is decided, or was long ago."""
        decided = max(min(self._decided.values(), default=NEVER), reached - _PATIENCE) - self._maturity
        return sorted(day for day in self._tallies if day > self._evaluated and (day + 1) * DAY_MS <= decided)

    def evaluate(
        self, day: int, quality: Mapping[int, Mapping[str, DayQuality]]
    ) -> tuple[DayJudged, dict[str, Any]]:
        """What is found at the end of this day, and its record.

        Args:
            quality: by day and role.
        """
        days = [each for each in sorted(self._tallies) if day - DAYS < each <= day]
        series = self._series(days, quality)
        chance = 1 / (QUIET_DAYS * len(series))
        changed = {
            key
            for key, values in series.items()
            # A model that has become better is no reason to wake anybody.
            if change_point(values, chance, rising=key[0] == "concept") is not None
        }
        fresh = sorted(changed - self._raised)
        return DayJudged(day, sorted(changed)), {
            "metric": "quality",
            "end": (day + 1) * DAY_MS,
            "models": {role: _model(each) for role, each in sorted(quality.get(day, {}).items())},
            "decisions": _decisions(total(self._tallies[each] for each in days)),
            "labels": _labels(self._tallies[day]),
            "alarms": [{"kind": kind, "name": name} for kind, name in fresh],
            "raised": [{"kind": kind, "name": name} for kind, name in sorted(changed)],
        }

    def found_last(self, quality: Mapping[int, Mapping[str, DayQuality]]) -> dict[str, Any] | None:
        """The record of the last day evaluated, without new alarms; None before the first."""
        return self.evaluate(self._evaluated, quality)[1] if self._evaluated > NEVER else None

    def go_on(self, judged: DayJudged) -> None:
        """The day has been evaluated, with that result."""
        self._evaluated, self._raised = judged.day, set(judged.raised)
        for old in [old for old in self._tallies if old <= judged.day - DAYS]:
            del self._tallies[old]

    def _series(
        self, days: list[int], quality: Mapping[int, Mapping[str, DayQuality]]
    ) -> dict[tuple[str, str], list[float]]:
        """What is watched, day by day, by kind of alarm and name."""
        tallies = [self._tallies[day] for day in days]
        roles = {role for day in days for role in quality.get(day, {})}
        series = {
            ("concept", role): [
                log_loss(quality[day][role].scores) for day in days if role in quality.get(day, {})
            ]
            for role in sorted(roles)
        }
        series["label", "base_rate"] = [ratio(t.get("frauds", 0), t.get("outcomes", 0)) for t in tallies]
        sources = {key.partition(":")[2] for t in tallies for key in t if key.startswith("labels@source:")}
        for source in sorted(sources):
            labels = [t.get(f"labels@source:{source}", 0) for t in tallies]
            delays = [t.get(f"label_ms@source:{source}", 0) for t in tallies]
            outcomes = [t.get("outcomes", 0) for t in tallies]
            series["label", f"coverage:{source}"] = [
                ratio(count, whole) for count, whole in zip(labels, outcomes, strict=True)
            ]
            series["label", f"delay:{source}"] = [
                ratio(delay, count) for delay, count in zip(delays, labels, strict=True)
            ]
        return series

    def dump(self) -> bytes:
        return msgspec.msgpack.encode(
            _Saved(self._tallies, self._decided, sorted(self._raised), self._evaluated)
        )

    def load(self, data: bytes) -> None:
        saved = _decode(data)
        self._tallies, self._decided = saved.tallies, saved.decided
        self._raised, self._evaluated = set(saved.raised), saved.evaluated


def _model(day: DayQuality) -> dict[str, Any]:
    return {
        "outcomes": day.scores.rows,
        "frauds": day.scores.frauds,
        "average_precision": day.scores.average_precision(),
        "roc_auc": day.scores.roc_auc(),
        "calibration_error": day.scores.calibration_error(),
        "log_loss": log_loss(day.scores),
    }


def _decisions(tally: Tally) -> dict[str, Any]:
    """Alerts, held back or not, beside the outcomes of these days."""
    outcomes, caught = tally.get("outcomes", 0), tally.get("caught", 0)
    alerts, frauds = tally.get("alerts_known", 0), tally.get("frauds", 0)
    return {
        "outcomes": outcomes,
        "agreement": ratio(outcomes - alerts - frauds + 2 * caught, outcomes),
        "precision": ratio(caught, alerts),
        "recall": ratio(caught, frauds),
    }


def _labels(tally: Tally) -> dict[str, Any]:
    outcomes = tally.get("outcomes", 0)
    found: dict[str, Any] = {"outcomes": outcomes, "base_rate": ratio(tally.get("frauds", 0), outcomes)}
    found["sources"] = {
        key.partition(":")[2]: {
            "count": count,
            "coverage": ratio(count, outcomes),
            "delay_seconds": ratio(tally.get(key.replace("labels@", "label_ms@"), 0), count) / 1000,
        }
        for key, count in sorted(tally.items())
        if key.startswith("labels@source:")
    }
    return found


_decode = msgspec.msgpack.Decoder(_Saved).decode
