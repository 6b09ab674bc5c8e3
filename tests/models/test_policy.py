"""The decision, alert ids, and reasons."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from models.alert_budget import BudgetPolicy
from models.decision import DecisionPolicy, DecisionState
from models.policy import AlertNames, CostPolicy, ThresholdPolicy
from models.reasons import contributions, explain
from models.scorers.linear import LogisticScorer
from models.scorers.rules import Rule, RulesScorer
from tests.models.decided import scored


def test_at_the_threshold_is_an_alert() -> None:
    """Scores at or above the threshold are alerts."""
    decided = DecisionPolicy(ThresholdPolicy(0.5)).decide(DecisionState(), scored([0.0, 0.4999, 0.5, 1.0]))
    assert decided.alert.tolist() == [False, False, True, True]


@pytest.mark.parametrize("threshold", [-0.1, 1.1, float("nan"), float("inf")])
def test_threshold_must_be_a_probability(threshold: float) -> None:
    """A threshold outside [0, 1] is an error at once."""
    with pytest.raises(ValueError, match="threshold"):
        ThresholdPolicy(threshold)


def test_costs_alert_where_the_expected_loss_is_the_cost_of_an_investigation() -> None:
    """Score times amount reaches the cost in the row's currency; the others have the fixed threshold."""
    policy = CostPolicy({"EUR": 500, "JPY": 800}, 0.9)
    amounts = np.array([1000, 1000, 499, 1600, 1_000_000, 10, 0])
    currencies = ["EUR", "EUR", "EUR", "JPY", "EUR", "USD", "EUR"]
    thresholds = policy.thresholds(amounts, currencies)
    assert thresholds.tolist() == [0.5, 0.5, 500 / 499, 0.5, 0.0005, 0.9, 500.0]
    rows = scored([0.5, 0.4999, 1.0, 0.5, 0.0005, 0.89, 1.0], amount_minor=amounts, currency=currencies)
    alerts = DecisionPolicy(policy).decide(DecisionState(), rows).alert
    assert alerts.tolist() == [True, False, False, True, True, False, False]


@pytest.mark.parametrize("cost", [{}, {"EUR": 0}, {"EUR": 10, "USD": -1}])
def test_costs_must_be_positive(cost: dict[str, int]) -> None:
    """An investigation that costs nothing would make an alert of everything."""
    with pytest.raises(ValueError, match="minor unit"):
        CostPolicy(cost, 0.5)


def test_alert_id_is_fixed() -> None:
    """The id of an alert is the same in every process and version: downstream systems deduplicate by it."""
    assert AlertNames("v1")("tx-1") == "c8c144f32d32448e67b06fe3dcba5b34"


@given(st.text(min_size=1), st.text(), st.text(min_size=1), st.text())
def test_alert_ids_differ(version: str, transaction: str, version2: str, transaction2: str) -> None:
    """Another transaction or another policy gives another id; surrogates aside, whatever the texts."""
    try:
        version.encode(), transaction.encode(), version2.encode(), transaction2.encode()
    except UnicodeEncodeError:
        return
    one = AlertNames(version)(transaction)
    two = AlertNames(version2)(transaction2)
    assert (one == two) == ((version, transaction) == (version2, transaction2))


def test_the_name_of_a_policy_says_what_was_set() -> None:
    """So alerts of other settings have other ids, and those of a threshold that has moved the same."""
    names = [
        ThresholdPolicy(0.5).name,
        ThresholdPolicy(0.6).name,
        CostPolicy({"EUR": 500, "USD": 5}, 0.5).name,
        CostPolicy({"EUR": 5, "USD": 500}, 0.5).name,
        BudgetPolicy(100, 4, 0.5).name,
        BudgetPolicy(200, 4, 0.5).name,
    ]
    assert names[0] == "threshold-0.5"
    assert len(set(names)) == len(names)
    assert CostPolicy({"USD": 5, "EUR": 500}, 0.5).name == names[2]


NAMES = ["a", "b", "c"]


def linear() -> LogisticScorer:
    weight = np.array([1.0, -2.0, 0.0])
    return LogisticScorer(np.zeros(3), np.ones(3), weight, 0.0, 100.0, logarithm=False)


def test_contributions_are_differences_of_scores() -> None:
    """A contribution is the score minus the score with that feature at the reference, found one by one."""
    rng = np.random.default_rng(0)
    x, reference, scorer = rng.normal(size=(5, 3)), rng.normal(size=3), linear()
    found = contributions(scorer, x, reference)
    for i in range(5):
        for j in range(3):
            occluded = x[i].copy()
            occluded[j] = reference[j]
            expected = scorer.score(x[i : i + 1])[0] - scorer.score(occluded[None])[0]
            assert found[i, j] == pytest.approx(expected, abs=1e-15)


def test_reasons_are_the_largest_first() -> None:
    """Reasons come in order of contribution, with the value; features that lowered the score are left out."""
    x = np.array([[1.0, -3.0, 9.0], [0.5, 3.0, 9.0], [0.0, 0.0, 0.0]])
    reasons = explain(linear(), x, np.zeros(3), NAMES, top=2)
    assert [[(r.feature, r.value) for r in row] for row in reasons] == [
        [("b", -3.0), ("a", 1.0)],
        [("a", 0.5)],
        [],
    ]
    assert reasons[0][0].contribution > reasons[0][1].contribution > 0


def test_top_and_empty() -> None:
    """At most ``top`` reasons; no rows, no reasons; the input is left alone."""
    scorer = RulesScorer.build(NAMES, [Rule(n, 0.0, 1.0) for n in NAMES])
    x = np.ones((2, 3))
    x.flags.writeable = False
    assert [[r.feature for r in row] for row in explain(scorer, x, np.zeros(3), NAMES, 2)] == [["a", "b"]] * 2
    assert explain(scorer, x[:0], np.zeros(3), NAMES) == []
