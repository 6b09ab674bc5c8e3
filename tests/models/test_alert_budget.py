"""The alert budget: held over drifting scores, moves only on evidence, the same however batches are cut."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from models.alert_budget import STEP_MS, BudgetPolicy
from models.arrays import Floats
from models.decision import DecisionPolicy, DecisionState, ScoredRows
from tests.models.decided import DAY, HOUR, START, decide, part, scored

ROWS_A_DAY = 20_000
Shape = Callable[[np.random.Generator, Floats], Floats]


def steady(random: np.random.Generator, day: Floats) -> Floats:
    return random.beta(0.3, 8, len(day))


def creeping(random: np.random.Generator, day: Floats) -> Floats:
    """Every day 5 to 8 % higher in the logarithm: without moves alerts would double every two days."""
    return steady(random, day) ** (1 / (1 + 0.08 * day))


def jumping(random: np.random.Generator, day: Floats) -> Floats:
    """From the eighth day on three times as high, many of them 1."""
    scores = steady(random, day)
    return np.where(day >= 7, np.minimum(1.0, 3 * scores), scores)


def history(days: int, shape: Shape, seed: int = 3, rows_a_day: int = ROWS_A_DAY) -> ScoredRows:
    """Traffic with quiet nights."""
    random = np.random.default_rng(seed)
    day = np.sort(random.random(days * rows_a_day) * days)
    day -= 0.6 * np.sin(2 * np.pi * day) / (2 * np.pi)
    return scored(shape(random, day), watermark=START + (day * DAY).astype(np.int64))


def spread(rows: ScoredRows, partitions: int, weights: list[float]) -> list[ScoredRows]:
    """Rows of several sources, over partitions of these parts of the traffic."""
    random = np.random.default_rng(5)
    n = len(rows.scores)
    source, offset = random.integers(0, partitions, n), np.zeros(n, np.int64)
    for each in range(partitions):
        offset[source == each] = 1_000_000 * each + np.arange((source == each).sum())
    partition = random.choice(partitions, n, p=weights)
    together = replace(rows, source=source, offset=offset)
    return [part(together, np.flatnonzero(partition == each)) for each in range(partitions)]


def budget(alerts: float, partitions: int = 1, start: float = 0.2) -> DecisionPolicy:
    return DecisionPolicy(BudgetPolicy(alerts, partitions, start))


@pytest.mark.parametrize("shape", [steady, creeping, jumping], ids=lambda each: each.__name__)
@pytest.mark.parametrize(
    ("alerts", "weights"),
    [(100, [0.25] * 4), (100, [0.55, 0.25, 0.15, 0.05]), (20, [1.0]), (1000, [0.5, 0.5])],
)
def test_the_budget_is_held(shape: Shape, alerts: int, weights: list[float]) -> None:
    """Of any seven full days after the first one the alerts are within a tenth of the budget, however uneven
    the partitions are and whatever the scores do; and no days have more than a day's budget on top of theirs.
    """
    days, partitions = 16, len(weights)
    given_a_day = np.zeros(days)
    moves = 0
    for rows in spread(history(days, shape), partitions, weights):
        outcome = decide(budget(alerts, partitions), rows)
        given_a_day += np.bincount((rows.watermark[outcome.alert] - START) // DAY, minlength=days)
        moves += len(outcome.changes)
    for first in range(1, days - 6):
        assert given_a_day[first : first + 7].sum() == pytest.approx(7 * alerts, rel=0.1)
    for first in range(days):
        for last in range(first + 1, days + 1):
            assert given_a_day[first:last].sum() <= alerts * (last - first + 1) * 1.05
    # Hysteresis: of 24 steps a day in each partition most move nothing.
    assert 1 <= moves / partitions / days < 8


def test_an_uneven_partition_has_the_threshold_of_the_others() -> None:
    """The budget follows the traffic, so that alerts are as hard to get everywhere."""
    thresholds = []
    for rows in spread(history(10, steady), 3, [0.6, 0.3, 0.1]):
        outcome = decide(budget(300, 3), rows)
        late = rows.watermark > START + 5 * DAY
        thresholds.append(float(np.mean(outcome.threshold[late])))
    assert max(thresholds) - min(thresholds) < 0.03
    # An equal part of the budget in each would have given these.
    scores = steady(np.random.default_rng(3), np.zeros(200_000))
    equal = [np.quantile(scores, 1 - 100 / (ROWS_A_DAY * weight)) for weight in (0.6, 0.1)]
    assert equal[0] - equal[1] > 0.1


def test_the_threshold_moves_at_full_steps_only() -> None:
    """Within a step all rows have one threshold; every move is told, with what it stands on."""
    rows = history(4, steady)
    outcome = decide(budget(50), rows)
    moved = np.flatnonzero(np.diff(outcome.threshold)) + 1
    assert len(moved) == len(outcome.changes) > 2
    for row, change in zip(moved.tolist(), outcome.changes, strict=True):
        assert change.event_time % STEP_MS == 0
        assert rows.watermark[row - 1] < change.event_time <= rows.watermark[row]
        assert (change.former, change.threshold) == (outcome.threshold[row - 1], outcome.threshold[row])
        assert change.expected is not None
        assert (change.expected > change.budget) == (change.threshold > change.former) or change.version > 1
    assert [change.version for change in outcome.changes] == list(range(1, len(moved) + 1))


@given(cuts=st.lists(st.integers(0, 3000), max_size=12).map(sorted), seed=st.integers(0, 3))
def test_decisions_do_not_depend_on_batches(cuts: list[int], seed: int) -> None:
    """However the rows are cut: the same thresholds, alerts and moves."""
    rows = history(3, jumping if seed % 2 else steady, seed, rows_a_day=1000)
    whole, cut = decide(budget(20), rows), decide(budget(20), rows, cuts)
    np.testing.assert_array_equal(cut.threshold, whole.threshold)
    np.testing.assert_array_equal(cut.alert, whole.alert)
    assert (cut.changes, cut.suppressed) == (whole.changes, whole.suppressed)
    assert whole.changes


def test_a_flood_of_alerts_ends_with_the_credit() -> None:
    """A model that calls everything a fraud gives what the budget allows, and the rest is counted."""
    rows = scored(np.ones(50_000), watermark=START + np.arange(50_000) * (10 * DAY // 50_000))
    outcome = decide(budget(30), rows)
    assert 0.95 * 300 < outcome.alert.sum() <= 30 * 11
    assert outcome.suppressed == {"budget": 50_000 - outcome.alert.sum()}


def test_at_the_start_too_many_are_known_at_once_and_too_few_in_time() -> None:
    """A threshold far too low rises after the first step; one far too high falls within two days."""
    low, high = (
        decide(budget(50, start=0.0), history(2, steady)),
        decide(budget(50, start=1.0), history(3, steady)),
    )
    assert low.changes[0].event_time <= START + HOUR
    assert low.threshold[-1] > 0.1
    assert high.changes[0].event_time < START + 2 * DAY
    assert 0.1 < high.threshold[-1] < 0.9


def test_another_model_starts_anew() -> None:
    """Scores of another model are not judged by what the former one gave; the move says whose it is."""
    state, policy = DecisionState(), budget(50)
    decide(policy, history(2, steady), state=state)
    learned = policy.threshold(state)
    other = replace(history(2, steady), model="other")
    other = replace(other, scores=other.scores / 4)
    later = replace(other, watermark=other.watermark + 2 * DAY)
    outcome = decide(policy, later, state=state)
    assert learned != 0.2
    assert outcome.threshold[0] == 0.2
    (at,) = (i for i, change in enumerate(outcome.changes) if change.expected is None)
    former = outcome.changes[at - 1].threshold if at else learned
    handover = outcome.changes[at]
    assert (handover.model, handover.former, handover.threshold) == ("other", former, 0.2)
    assert {change.model for change in outcome.changes[at:]} == {"other"}
    assert outcome.changes[at + 1].threshold < 0.2


def test_a_stand_in_is_judged_by_the_settings_and_teaches_nothing() -> None:
    """While it scores, the threshold is the one of the settings; after it, the one from before goes on."""
    rows = history(6, steady)
    middle = (rows.watermark > START + 3 * DAY) & (rows.watermark < START + 4 * DAY)
    first, last = np.flatnonzero(middle)[[0, -1]].tolist()
    plain, state, policy = decide(budget(50), rows), DecisionState(), budget(50)
    before = decide(policy, part(rows, slice(0, first)), state=state)
    broken = replace(part(rows, slice(first, last)), scores=np.full(last - first, 0.99), stood_in=True)
    during = decide(policy, broken, range(100, last - first, 100), state=state)
    after = decide(policy, part(rows, slice(last, None)), state=state)
    assert set(during.threshold.tolist()) == {0.2}
    assert not during.changes
    assert 0 < during.alert.sum() <= 100
    np.testing.assert_array_equal(before.threshold, plain.threshold[:first])
    assert after.threshold[0] == before.threshold[-1]
    assert abs(after.threshold[-1] - plain.threshold[-1]) < 0.1


def test_an_outage_is_no_lack_of_alerts() -> None:
    """After two days without a row the threshold is what it was, and not what silence would call for."""
    rows = history(5, steady)
    state, policy = DecisionState(), budget(100)
    before = decide(policy, rows, state=state)
    later = replace(rows, watermark=rows.watermark + 7 * DAY, offset=rows.offset + len(rows.offset))
    after = decide(policy, part(later, slice(0, 500)), state=state)
    assert abs(after.threshold[0] - before.threshold[-1]) < 0.15
    assert after.threshold[0] > 0.2


@pytest.mark.parametrize(
    ("alerts", "partitions", "start"), [(3, 4, 0.2), (float("nan"), 1, 0.2), (10, 1, 1.5), (10, 0, 0.2)]
)
def test_impossible_budgets_are_refused(alerts: float, partitions: int, start: float) -> None:
    """Fewer alerts than one a day in each partition cannot be held by what recent scores say."""
    with pytest.raises(ValueError, match=r"alerts|threshold"):
        BudgetPolicy(alerts, partitions, start)
