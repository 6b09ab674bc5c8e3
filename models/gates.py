"""Whether a candidate may go on deciding, or may decide at all: figures of it beside those of the champion.

Each gate compares one figure of the candidate with that of the champion on the same rows, and says that it is
passed, failed, or that there is too little to say so. Only a failed gate takes a candidate out, and only all
of them passed let one in: missing data never moves a model.

Figures are paired: both models have scored every row that counts. The label figures are those of outcomes
that have matured, so that the early ones, which are of alerts only, do not tell them alone.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace
from typing import Literal

Result = Literal["passed", "failed", "unknown"]
NAN = float("nan")


@dataclass(frozen=True, slots=True)
class Figures:
    """What is known of one model.

    :ivar rows: rows that it was to score, ``failures`` of them without getting a probability.
    :ivar seconds_per_row: mean time it took.
    :ivar alerts: rows scored at or above the threshold.
    :ivar commonest: share of the rows in the commonest of many narrow bins of the score.
    :ivar average_precision: over the matured outcomes, as are the two below.
    :ivar precision: among as many of the riskiest outcomes as the champion alerts.
    :ivar calibration_error: expected calibration error.
    """

    rows: int = 0
    failures: int = 0
    seconds_per_row: float = NAN
    alerts: int = 0
    commonest: float = NAN
    average_precision: float = NAN
    precision: float = NAN
    calibration_error: float = NAN


@dataclass(frozen=True, slots=True)
class Evidence:
    """Candidate and champion on the same rows.

    :ivar outcomes: matured outcomes that both have scored, ``frauds`` of them frauds.
    :ivar coverage: share of the matured outcomes that both have scored.
    :ivar days: of event time that the matured outcomes span.
    """

    candidate: Figures
    champion: Figures
    outcomes: int = 0
    frauds: int = 0
    coverage: float = NAN
    days: float = 0.0

    def reversed(self) -> Evidence:
        """The champion as a candidate for its place, beside the model that would take it."""
        return replace(self, candidate=self.champion, champion=self.candidate)


@dataclass(frozen=True, slots=True)
class Limits:
    """How far a candidate may fall behind, and how much must be known before that is asked.

    :ivar rows: fewest rows for the gates on software and output.
    :ivar failures: largest share of rows without a score.
    :ivar seconds_per_row: longest mean time.
    :ivar alert_ratio: most alerts for one of the champion's, and the other way round.
    :ivar commonest: largest share of equal scores where the champion's is below.
    :ivar average_precision: largest loss; ``precision`` and ``calibration_error`` likewise.
    """

    rows: int = 2_000
    outcomes: int = 2_000
    frauds: int = 50
    coverage: float = 0.9
    days: float = 7.0
    failures: float = 0.001
    seconds_per_row: float = 200e-6
    alert_ratio: float = 3.0
    commonest: float = 0.98
    average_precision: float = 0.05
    precision: float = 0.05
    calibration_error: float = 0.02


@dataclass(frozen=True, slots=True)
class Finding:
    """What one gate says, and the figures it says it by."""

    gate: str
    result: Result
    candidate: float = NAN
    champion: float = NAN


@dataclass(frozen=True, slots=True)
class Judgement:
    """What all gates say."""

    findings: tuple[Finding, ...]
    evidence: Evidence = field(compare=False)

    @property
    def failed(self) -> tuple[Finding, ...]:
        return tuple(each for each in self.findings if each.result == "failed")

    @property
    def all_passed(self) -> bool:
        return all(each.result == "passed" for each in self.findings)

    def as_evidence(self) -> dict[str, float | int | str | None]:
        """The figures for the record of a move."""
        plain: dict[str, float | int | str | None] = {
            "rows": self.evidence.candidate.rows,
            "outcomes": self.evidence.outcomes,
            "frauds": self.evidence.frauds,
            "coverage": _plain(self.evidence.coverage),
            "days": _plain(self.evidence.days),
        }
        for each in self.findings:
            plain[each.gate] = each.result
            plain[f"{each.gate}.candidate"] = _plain(each.candidate)
            plain[f"{each.gate}.champion"] = _plain(each.champion)
        return plain


def judge(evidence: Evidence, limits: Limits) -> Judgement:
    """Ask every gate."""
    new, old = evidence.candidate, evidence.champion
    seen = new.rows >= limits.rows
    known = (
        evidence.outcomes >= limits.outcomes
        and evidence.frauds >= limits.frauds
        and evidence.coverage >= limits.coverage
    )
    share = new.failures / new.rows if new.rows else NAN
    new_alerts, old_alerts = (_rate(each) for each in (new, old))
    findings = (
        _finding("failures", seen, share <= limits.failures, share, NAN),
        _finding(
            "latency",
            seen,
            new.seconds_per_row <= max(limits.seconds_per_row, 2 * old.seconds_per_row),
            new.seconds_per_row,
            old.seconds_per_row,
        ),
        _finding("alert_rate", seen, _alike(new, old, limits.alert_ratio), new_alerts, old_alerts),
        _finding(
            "score_shape",
            seen,
            new.commonest <= max(limits.commonest, old.commonest),
            new.commonest,
            old.commonest,
        ),
        _finding(
            "average_precision",
            known,
            new.average_precision >= old.average_precision - limits.average_precision,
            new.average_precision,
            old.average_precision,
        ),
        _finding(
            "precision",
            known,
            new.precision >= old.precision - limits.precision,
            new.precision,
            old.precision,
        ),
        _finding(
            "calibration",
            known,
            new.calibration_error <= old.calibration_error + limits.calibration_error,
            new.calibration_error,
            old.calibration_error,
        ),
        # Time is no fault of a candidate: too little of it keeps one from being let in, and nothing else.
        Finding("horizon", "passed" if known and evidence.days >= limits.days else "unknown", evidence.days),
    )
    return Judgement(findings, evidence)


def _finding(gate: str, enough: bool, good: bool, candidate: float, champion: float) -> Finding:
    if not enough or math.isnan(candidate):
        return Finding(gate, "unknown", candidate, champion)
    if math.isnan(champion) and gate != "failures":
        return Finding(gate, "unknown", candidate, champion)
    return Finding(gate, "passed" if good else "failed", candidate, champion)


def _rate(figures: Figures) -> float:
    scored = figures.rows - figures.failures
    return figures.alerts / scored if scored else NAN


def _alike(new: Figures, old: Figures, ratio: float) -> bool:
    """Whether neither alerts more than `ratio` times as often, beyond what chance does to so few alerts.

    The difference of two Poisson counts has their sum as its variance.
    """
    few, many = sorted((new.alerts, old.alerts))
    return many <= ratio * few or many - few <= 4 * math.sqrt(few + many)


def _plain(figure: float) -> float | None:
    return figure if math.isfinite(figure) else None
