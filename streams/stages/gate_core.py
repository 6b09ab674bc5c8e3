"""The figures that gates judge, from scored rows and outcomes; pure.

For every candidate (the canary, the shadows) the rows that it and the champion have scored are counted side
by side. They start anew with the worker, when the champion changes, and for a canary when it becomes one.

Outcomes count by the day of their transaction, and a day counts once it has matured as a whole: until then
only verdicts on alerts are in, which tell of one model's alerts and not of all transactions.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import msgspec
import numpy as np
import numpy.typing as npt

from models.gates import NAN, Evidence, Figures, Judgement
from models.registry import Aliases, Kind, Move, Pin, Registry
from monitoring.event_windows import EventWindow
from monitoring.live_quality import ScoreSketch
from streams.stages.alignment import NEVER
from streams.stages.columns import Columns
from streams.times import DAY

#: Days of matured outcomes kept.
MOST_DAYS = 28
Floats = npt.NDArray[np.float64]
Bools = npt.NDArray[np.bool_]
Ints = npt.NDArray[np.int64]


@dataclass(slots=True)
class _Output:
    """What one model has given since the pair began."""

    rows: int = 0
    failures: int = 0
    alerts: int = 0
    seconds: float = 0.0
    timed: int = 0
    sketch: ScoreSketch = field(default_factory=ScoreSketch)

    def add(self, scores: Floats, threshold: float, row_seconds: float) -> None:
        missing = np.isnan(scores)
        self.rows += len(scores)
        self.failures += int(missing.sum())
        self.alerts += int((scores >= threshold).sum())
        if not math.isnan(row_seconds):
            self.seconds += row_seconds * len(scores)
            self.timed += len(scores)
        self.sketch.update(np.zeros(len(scores), np.bool_), scores)


@dataclass(slots=True)
class _Day:
    """Outcomes of the transactions of one day that both models have scored, of `total` in all."""

    total: int = 0
    alerts: int = 0
    candidate: ScoreSketch = field(default_factory=ScoreSketch)
    champion: ScoreSketch = field(default_factory=ScoreSketch)

    def add(self, fraud: Bools, candidate: Floats, champion: Floats, threshold: float) -> None:
        both = ~(np.isnan(candidate) | np.isnan(champion))
        self.total += len(fraud)
        self.alerts += int((champion[both] >= threshold).sum())
        self.candidate.update(fraud[both], candidate[both])
        self.champion.update(fraud[both], champion[both])

    def merge(self, other: _Day) -> None:
        self.total += other.total
        self.alerts += other.alerts
        self.candidate.merge(other.candidate)
        self.champion.merge(other.champion)


class Pair:
    """A candidate beside the champion; `threshold` is the lowest score that is an alert."""

    def __init__(self) -> None:
        self.candidate = _Output()
        self.champion = _Output()
        self.days = EventWindow(_Day, DAY, MOST_DAYS)

    def scored(
        self,
        candidate: Floats,
        champion: Floats,
        threshold: float,
        row_seconds: tuple[float, float] = (NAN, NAN),
    ) -> None:
        """Scores of the same rows, NaN for none, and what a row took, NaN if that says nothing."""
        self.candidate.add(candidate, threshold, row_seconds[0])
        self.champion.add(champion, threshold, row_seconds[1])

    def outcomes(
        self, event_time: Ints, fraud: Bools, candidate: Floats, champion: Floats, threshold: float
    ) -> None:
        """Outcomes of rows that both were to score."""
        for day, rows in self.days.split(event_time):
            day.add(fraud[rows], candidate[rows], champion[rows], threshold)

    def evidence(self, matured_until: int) -> Evidence:
        """What is known, of outcomes those of the days that end by `matured_until`."""
        whole = _Day()
        matured = self.days.until(matured_until)
        for day in matured:
            whole.merge(day)
        rows = whole.candidate.rows
        return Evidence(
            candidate=_figures(self.candidate, whole.candidate, whole.alerts),
            champion=_figures(self.champion, whole.champion, whole.alerts),
            outcomes=rows,
            frauds=whole.candidate.frauds,
            coverage=rows / whole.total if whole.total else NAN,
            days=float(len(matured)),
        )


class GateCore:
    """Counts candidates beside the champion.

    Args:
        maturity_ms: from a transaction to when its outcome is certain.
    """

    def __init__(self, *, maturity_ms: int) -> None:
        self._maturity_ms = maturity_ms
        self._champion: Pin | None = None
        self._canary: Pin | None = None
        self._pairs: dict[Pin, Pair] = {}
        self._watermark = NEVER

    def follow(self, aliases: Aliases) -> None:
        """Count for these aliases; what belongs to others is forgotten."""
        if aliases.champion != self._champion:
            self._pairs = {}
        if aliases.canary is not None and aliases.canary != self._canary:
            self._pairs.pop(aliases.canary, None)
        self._champion, self._canary = aliases.champion, aliases.canary
        self._pairs = {pin: self._pairs.get(pin) or Pair() for pin in aliases.pins()[1:]}

    def scored(self, rows: Columns) -> None:
        """Scored rows as they leave the score stage."""
        self._watermark = max(self._watermark, rows.meta_int("watermark"))
        for pair, scores, champion, seconds in self._columns(rows):
            pair.scored(scores, champion, _threshold(rows), seconds)

    def outcomes(self, rows: Columns) -> None:
        """Outcomes as they leave the label stage."""
        if not len(rows):
            return
        for pair, scores, champion, _ in self._columns(rows):
            pair.outcomes(rows.ints("event_time"), rows.bools("fraud"), scores, champion, _threshold(rows))

    def evidence(self, candidate: Pin) -> Evidence | None:
        """What is known of a candidate; None for one that is not counted."""
        pair = self._pairs.get(candidate)
        return None if pair is None else pair.evidence(self._watermark - self._maturity_ms)

    def _columns(self, rows: Columns) -> list[tuple[Pair, Floats, Floats, tuple[float, float]]]:
        """Of every candidate that was in place: its scores, those of the champion, and what they took."""
        if not len(rows) or self._champion is None:
            return []
        models = msgspec.convert(rows.meta["models"], list[tuple[str, str, int]])
        seconds = msgspec.convert(rows.meta.get("row_seconds", []), list[float]) or [NAN] * len(models)
        if not _is(self._champion, models[0]):
            return []
        champion, found = rows.floats("champion"), []
        if rows.meta.get("stood_in"):
            champion = np.full(len(rows), np.nan)
        for place, model in enumerate(models[1:]):
            for pin, pair in self._pairs.items():
                if _is(pin, model):
                    scores = rows.floats("shadows")[:, place]
                    found.append((pair, scores, champion, (seconds[place + 1], seconds[0])))
        return found


def automatic_move(
    registry: Registry, canary: Judgement, *, abort: bool, promote: bool, now_ms: int
) -> Move | None:
    """What the gates do about the present canary, if anything.

    The move bears the number after the last one: where several observers come to the same end, or one comes
    to it again after a restart, one of the moves counts and the others are stale.

    Args:
        abort: whether a failed gate ends the canary.
        promote: whether one that has passed all of them becomes the champion.
    """
    model = registry.aliases.canary
    if model is None:
        return None
    if canary.failed:
        reason = f"failed: {', '.join(each.gate for each in canary.failed)}"
        kind: Kind = "canary"
    elif canary.all_passed:
        reason, kind = "passed every gate", "promote"
    else:
        return None
    if not (abort if canary.failed else promote):
        return None
    return Move(registry.last + 1, kind, model, 0.0, "gate", now_ms, reason, canary.as_evidence())


def automatic_rollback(
    registry: Registry, champion: Judgement, *, probation_ms: int, now_ms: int
) -> Move | None:
    """The way back from a promotion that turns out to be a mistake, if it does within its probation.

    Args:
        champion: the present champion, judged beside the former one.
    """
    promotion, former = registry.promotion, registry.aliases.former
    if promotion is None or not former or not champion.failed:
        return None
    if now_ms - promotion.at > probation_ms or promotion.evidence.get("forced"):
        return None
    reason = f"failed: {', '.join(each.gate for each in champion.failed)}"
    return Move(
        registry.last + 1, "rollback", former[-1], 0.0, "gate", now_ms, reason, champion.as_evidence()
    )


def _threshold(rows: Columns) -> float:
    """That of the last row of the batch; with costs others differ by their amount."""
    return msgspec.convert(rows.meta["threshold"], float)


def _is(pin: Pin, model: tuple[str, str, int]) -> bool:
    return pin.name == model[1] and pin.version in (None, model[2])


def _figures(output: _Output, outcomes: ScoreSketch, budget: int) -> Figures:
    counts = output.sketch.genuine
    return Figures(
        rows=output.rows,
        failures=output.failures,
        seconds_per_row=output.seconds / output.timed if output.timed else NAN,
        alerts=output.alerts,
        commonest=float(counts.max() / counts.sum()) if counts.sum() else NAN,
        average_precision=outcomes.average_precision(),
        precision=outcomes.precision(budget),
        calibration_error=outcomes.calibration_error(),
    )
