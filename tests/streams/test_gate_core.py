"""The figures behind the gates, and what is made of them."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.metrics import average_precision_score

from models.gates import Judgement, Limits, judge
from models.registry import Aliases, Move, Pin, Registry
from streams.stages.columns import Columns
from streams.stages.gate_core import GateCore, automatic_move, automatic_rollback
from streams.times import DAY
from tests.streams.made_up import START

A, B, NEW = Pin("a"), Pin("b"), Pin("new", 3)
ALIASES = Aliases(A, (B,), NEW, 10.0)
LIMITS = Limits(rows=100, outcomes=100, frauds=10, days=2)
FIRST = START // DAY


def rows(
    n: int, day: int, seed: int = 1, *, noise: float = 0.3, seconds: float = 1e-6, version: int = 3
) -> Columns:
    """Scored rows that are outcomes too: champion and canary know something, the shadow nothing."""
    random = np.random.default_rng(seed + day)
    fraud = random.random(n) < 0.2
    champion = np.clip(0.5 * fraud + 0.3 * random.random(n), 0, 1)
    canary = np.clip(0.5 * fraud + noise * random.random(n), 0, 1)
    models = [["champion", "a", 7], ["canary", "new", version], ["shadow", "b", 1]]
    return Columns(
        {
            "watermark": (FIRST + day + 1) * DAY - 1,
            "models": models,
            "row_seconds": [1e-6, seconds, 1e-6],
            "threshold": 0.5,
        },
        {
            "event_time": np.full(n, (FIRST + day) * DAY),
            "champion": champion,
            "shadows": np.stack([canary, random.random(n)], axis=1),
            "fraud": fraud,
        },
        {},
    )


def core(*, aliases: Aliases = ALIASES, maturity_ms: int = DAY) -> GateCore:
    made = GateCore(maturity_ms=maturity_ms)
    made.follow(aliases)
    return made


def test_figures_are_paired() -> None:
    """Alerts, times and label figures of both models on the same rows; of the shadow, too."""
    gates, days = core(), [rows(500, day) for day in range(4)]
    for each in days:
        gates.scored(each)
        gates.outcomes(each)
    evidence = gates.evidence(NEW)
    assert evidence is not None
    assert (evidence.candidate.rows, evidence.candidate.failures) == (2000, 0)
    assert evidence.champion.alerts == sum((each.floats("champion") >= 0.5).sum() for each in days)
    assert evidence.candidate.seconds_per_row == pytest.approx(1e-6)
    # The last day has not matured, and the one before by a millisecond.
    assert (evidence.outcomes, evidence.days, evidence.coverage) == (1000, 2, 1.0)
    truth, canary = (
        np.concatenate([each.bools("fraud") for each in days[:2]]),
        np.concatenate([each.floats("shadows")[:, 0] for each in days[:2]]),
    )
    assert evidence.frauds == truth.sum()
    expected = average_precision_score(truth, canary)
    assert evidence.candidate.average_precision == pytest.approx(expected, abs=0.01)
    budget = sum(int((each.floats("champion") >= 0.5).sum()) for each in days[:2])
    best = np.argsort(-canary)[:budget]
    assert evidence.candidate.precision == pytest.approx(truth[best].mean(), abs=0.02)
    beside = gates.evidence(B)
    assert beside is not None
    assert beside.outcomes == 1000
    assert beside.candidate.average_precision < 0.5


def test_early_verdicts_do_not_count() -> None:
    """Outcomes of a day that has not matured, which are of alerts, are no evidence yet."""
    gates = core(maturity_ms=7 * DAY)
    for day in range(5):
        gates.scored(rows(500, day))
        gates.outcomes(rows(500, day))
    evidence = gates.evidence(NEW)
    assert evidence is not None
    assert (evidence.outcomes, evidence.days) == (0, 0)
    assert np.isnan(evidence.coverage)


def test_rows_without_a_score_are_failures_and_uncovered() -> None:
    """Where the candidate gave nothing nothing is compared."""
    gates = core()
    for day in range(4):
        part = rows(500, day)
        part.floats("shadows")[:250, 0] = np.nan
        gates.scored(part)
        gates.outcomes(part)
    evidence = gates.evidence(NEW)
    assert evidence is not None
    assert evidence.candidate.failures == 1000
    assert (evidence.outcomes, evidence.coverage) == (500, 0.5)


def test_counting_starts_anew_with_another_champion_or_canary() -> None:
    """A shadow that becomes the canary has to show itself there; a larger share changes nothing."""
    gates = core(aliases=Aliases(A, (NEW, B)))
    gates.scored(rows(500, 0))
    for aliases, left in (
        (Aliases(A, (B,), NEW, 10.0), 0),
        (Aliases(A, (B,), NEW, 50.0), 500),
        (Aliases(B, (A,), NEW, 50.0), 0),
    ):
        gates.follow(aliases)
        evidence = gates.evidence(NEW)
        assert evidence is not None
        assert evidence.candidate.rows == left
        gates.scored(rows(500, 1))
    gates.follow(Aliases(A))
    assert gates.evidence(NEW) is None


def test_only_the_version_that_is_asked_for_counts() -> None:
    """A pinned candidate is that version; rows of another one, or under another champion, are not its."""
    gates = core()
    gates.scored(rows(500, 0, version=4))
    other = rows(500, 0)
    other.meta["models"] = [["champion", "x", 1], ["canary", "new", 3], ["shadow", "b", 1]]
    gates.scored(other)
    evidence = gates.evidence(NEW)
    assert evidence is not None
    assert evidence.candidate.rows == 0


def judged(noise: float = 0.3, seconds: float = 1e-6, days: int = 5) -> Judgement:
    gates = core()
    for day in range(days):
        gates.scored(rows(500, day, noise=noise, seconds=seconds))
        gates.outcomes(rows(500, day, noise=noise, seconds=seconds))
    evidence = gates.evidence(NEW)
    assert evidence is not None
    return judge(evidence, LIMITS)


def registry() -> Registry:
    made = Registry(Aliases(A, (B,)))
    made.take(Move(1, "canary", NEW, 10.0))
    return made


@pytest.mark.parametrize("promote", [False, True])
@pytest.mark.parametrize("abort", [False, True])
def test_the_canary_is_moved_where_configured(abort: bool, promote: bool) -> None:
    """Ended when it fails, promoted when it has passed everything, with the figures; else left alone."""
    how = {"abort": abort, "promote": promote, "now_ms": 5}
    slow = automatic_move(registry(), judged(seconds=1e-3), **how)  # type: ignore[arg-type]
    good = automatic_move(registry(), judged(), **how)  # type: ignore[arg-type]
    assert automatic_move(registry(), judged(days=1), **how) is None  # type: ignore[arg-type]
    if abort:
        assert slow is not None
        assert (slow.number, slow.kind, slow.model, slow.percent) == (2, "canary", NEW, 0.0)
        assert (slow.who, slow.reason) == ("gate", "failed: latency")
        assert slow.evidence["latency.candidate"] == pytest.approx(1e-3)
    else:
        assert slow is None
    if promote:
        assert good is not None
        assert (good.number, good.kind, good.model) == (2, "promote", NEW)
        assert good.evidence["average_precision"] == "passed"
    else:
        assert good is None


def promoted(at: int = 1_000, evidence: dict[str, float | int | str | None] | None = None) -> Registry:
    made = Registry(Aliases(A, (B,)))
    made.take(Move(1, "promote", NEW, at=at, evidence=evidence or {}))
    return made


def beside_the_former(*, stood_in: bool = False, noise: float = 0.3) -> Judgement:
    """The new champion, judged by rows on which the former one is a shadow."""
    gates = core(aliases=promoted().aliases)
    for day in range(5):
        part = rows(500, day, noise=noise)
        part.arrays["champion"], part.floats("shadows")[:, 0] = (
            part.floats("shadows")[:, 0].copy(),
            part.floats("champion"),
        )
        part.meta["models"] = [["champion", "new", 3], ["shadow", "a", 9], ["shadow", "b", 1]]
        part.meta["stood_in"] = stood_in
        gates.scored(part)
        gates.outcomes(part)
    evidence = gates.evidence(A)
    assert evidence is not None
    return judge(evidence.reversed(), LIMITS)


def test_a_promotion_that_was_a_mistake_is_rolled_back() -> None:
    """To the former champion, with the figures: when it is worse, and when the rules stand in for it."""
    assert automatic_rollback(promoted(), beside_the_former(), probation_ms=100, now_ms=1_050) is None
    for judgement, gate in (
        (beside_the_former(noise=50.0), "alert_rate"),
        (beside_the_former(stood_in=True), "failures"),
    ):
        move = automatic_rollback(promoted(), judgement, probation_ms=100, now_ms=1_050)
        assert move is not None
        assert (move.number, move.kind, move.model, move.who) == (2, "rollback", A, "gate")
        assert gate in move.reason
        log = promoted()
        log.take(move)
        assert log.aliases.champion == A
        assert automatic_rollback(log, judgement, probation_ms=100, now_ms=1_060) is None


def test_a_rollback_needs_a_promotion_on_probation() -> None:
    """Not after it, not where somebody has insisted, not where nobody was promoted."""
    bad = beside_the_former(stood_in=True)
    nobody = Registry(Aliases(A, (B,)))
    for registry, now in ((promoted(), 1_101), (promoted(evidence={"forced": 1}), 1_050), (nobody, 1_050)):
        assert automatic_rollback(registry, bad, probation_ms=100, now_ms=now) is None


def test_two_observers_move_once() -> None:
    """Both make the same move of the same state: the first counts, and neither sees anything to do then."""
    log = registry()
    moves = [
        automatic_move(registry(), judged(seconds=1e-3), abort=True, promote=True, now_ms=now)
        for now in (5, 9)
    ]
    assert all(moves)
    counted = 0
    for move in moves:
        assert move is not None
        try:
            log.take(move)
            counted += 1
        except ValueError:
            continue
    assert counted == 1
    assert log.aliases.canary is None
    assert automatic_move(log, judged(seconds=1e-3), abort=True, promote=True, now_ms=9) is None
