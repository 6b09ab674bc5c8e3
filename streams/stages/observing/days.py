"""Days whose outcomes are in: how good each model was, what labels were like, and what has changed.

A day is judged once, when every partition of labels has decided it; that raises its alarms. Outcomes that
come later change the figures of its record, which is told again, and of the days after it.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec

from monitoring.concept import change, log_loss
from monitoring.drift_alarms import RELEASE
from monitoring.funnel import ratio
from monitoring.limits import QUIET_DAYS
from monitoring.live_quality import DAY_MS, DAYS, DayQuality, by_role
from monitoring.tallies import Tally, add, total
from streams.stages.alignment import NEVER
from streams.stages.observing.reading import reached

#: A partition of labels is waited for until another one has decided so much more, in event time.
PATIENCE = DAY_MS


class DayJudged(msgspec.Struct, array_like=True, frozen=True):
    """What the evaluation of a day has decided.

    Args:
        raised: the alarms that are on, kind and name.
        alarms: those of them that are new.
        again: the day had been judged before: only its figures have changed.
    """

    day: int
    raised: list[tuple[str, str]]
    alarms: list[tuple[str, str]] = []
    again: bool = False


class _Saved(msgspec.Struct, array_like=True):
    tallies: dict[int, Tally]
    decided: dict[int, int]
    raised: list[tuple[str, str]]
    evaluated: int
    judged: list[DayJudged] = []
    changed: int | None = None


class JudgedDays:
    """Tallies of outcomes by day, and the alarms that their change has raised.

    Args:
        maturity: event time after which a transaction is decided, ms.
        partitions: of labels.
    """

    def __init__(self, maturity: int, partitions: int = 1) -> None:
        self._maturity = maturity
        self._tallies: dict[int, Tally] = {}
        #: by label partition, up to when it has decided
        self._decided = dict.fromkeys(range(partitions), NEVER)
        self._raised: set[tuple[str, str]] = set()
        self._evaluated = NEVER
        #: the last days judged
        self._judged: dict[int, DayJudged] = {}
        #: the first day judged whose figures have changed since they were told
        self._changed: int | None = None

    def add(self, day: int, tally: Mapping[str, int]) -> None:
        """More outcomes of a day, or some taken back."""
        add(self._tallies.setdefault(day, {}), tally)
        if day <= self._evaluated:
            self._changed = day if self._changed is None else min(day, self._changed)

    def decide(self, label_partition: int, until: int) -> None:
        """The partition has decided what matures up to then."""
        self._decided[label_partition] = max(until, self._decided.get(label_partition, NEVER))

    @property
    def decided(self) -> int:
        """Event time up to which transactions are decided, or a partition is not waited for any more."""
        return reached(self._decided, PATIENCE) - self._maturity

    def due(self) -> list[int]:
        """The days to be judged, in order: everything of them is decided, or a partition is `PATIENCE`
        behind another one that has decided them.
        """
        decided = self.decided
        return sorted(day for day in self._tallies if day > self._evaluated and (day + 1) * DAY_MS <= decided)

    def due_again(self) -> list[int]:
        """The days judged whose record is to be told again, in order."""
        if self._changed is None:
            return []
        first = max(self._changed, self._evaluated - DAYS + 1)
        return sorted(day for day in self._tallies if first <= day <= self._evaluated)

    def evaluate(
        self, day: int, quality: Mapping[int, Mapping[str, DayQuality]]
    ) -> tuple[DayJudged, dict[str, Any]]:
        """What is found at the end of this day, and its record.

        Args:
            quality: by day and model, `ROLE:NAME`.
        """
        series = self._series(self._last(day), quality)
        chance = 1 / (QUIET_DAYS * len(series))
        raised = {
            key
            for key, values in series.items()
            # A model that has become better is no reason to wake anybody. A change that is hardly one is
            # found on some days and not on others: it is one alarm, which ends as those of drift do.
            if change(values, chance, rising=key[0] == "concept") > (RELEASE if key in self._raised else 1)
        }
        judged = DayJudged(day, sorted(raised), sorted(raised - self._raised))
        return judged, self._record(judged, quality)

    def again(
        self, day: int, quality: Mapping[int, Mapping[str, DayQuality]]
    ) -> tuple[DayJudged, dict[str, Any]]:
        """A day that has been judged, and its record with the figures of now and the alarms of then."""
        judged = msgspec.structs.replace(self._judged.get(day, DayJudged(day, [])), again=True)
        return judged, self._record(judged, quality)

    def found_last(self, quality: Mapping[int, Mapping[str, DayQuality]]) -> dict[str, Any] | None:
        """The record of the last day judged, without new alarms; None before the first."""
        if self._evaluated == NEVER:
            return None
        return self._record(DayJudged(self._evaluated, sorted(self._raised)), quality)

    def go_on(self, judged: DayJudged) -> None:
        """The day has been evaluated, with that result."""
        if judged.again:
            self._changed = judged.day + 1 if judged.day < self._evaluated else None
            return
        self._evaluated, self._raised = judged.day, set(judged.raised)
        self._judged[judged.day] = judged
        # A day told again looks back as far as it did.
        for held, kept in ((self._tallies, 2 * DAYS), (self._judged, DAYS)):
            for old in [old for old in held if old <= judged.day - kept]:
                del held[old]

    def _last(self, day: int) -> list[int]:
        return [each for each in sorted(self._tallies) if day - DAYS < each <= day]

    def _record(self, judged: DayJudged, quality: Mapping[int, Mapping[str, DayQuality]]) -> dict[str, Any]:
        day = judged.day
        return {
            "metric": "quality",
            "end": (day + 1) * DAY_MS,
            "models": {role: _model(each) for role, each in sorted(by_role(quality.get(day, {})).items())},
            "decisions": _decisions(total(self._tallies[each] for each in self._last(day))),
            "labels": _labels(self._tallies[day]),
            "alarms": [{"kind": kind, "name": name} for kind, name in judged.alarms],
            "raised": [{"kind": kind, "name": name} for kind, name in judged.raised],
        }

    def _series(
        self, days: list[int], quality: Mapping[int, Mapping[str, DayQuality]]
    ) -> dict[tuple[str, str], list[float]]:
        """What is watched, day by day, by kind of alarm and name."""
        tallies = [self._tallies[day] for day in days]
        by_day = [by_role(quality.get(day, {})) for day in days]
        series = {
            ("concept", role): [log_loss(held[role].scores) for held in by_day if role in held]
            for role in sorted({role for held in by_day for role in held})
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
            _Saved(
                self._tallies,
                self._decided,
                sorted(self._raised),
                self._evaluated,
                list(self._judged.values()),
                self._changed,
            )
        )

    def load(self, data: bytes) -> None:
        saved = _decode(data)
        self._tallies, self._raised = saved.tallies, set(saved.raised)
        self._decided |= saved.decided
        self._evaluated, self._changed = saved.evaluated, saved.changed
        self._judged = {judged.day: judged for judged in saved.judged}


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
