"""The decision, alert ids, and reasons."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from models.policy import ThresholdPolicy
from models.reasons import contributions, explain
from models.scorers.linear import LogisticScorer
from models.scorers.rules import Rule, RulesScorer


def test_at_the_threshold_is_an_alert() -> None:
    """Scores at or above the threshold are alerts."""
    alerts = ThresholdPolicy(0.5).decide(np.array([0.0, 0.4999, 0.5, 1.0]))
    assert alerts.tolist() == [False, False, True, True]


@pytest.mark.parametrize("threshold", [-0.1, 1.1, float("nan"), float("inf")])
def test_threshold_must_be_a_probability(threshold: float) -> None:
    """A threshold outside [0, 1] is an error at once."""
    with pytest.raises(ValueError, match="threshold"):
        ThresholdPolicy(threshold)


def test_alert_id_is_fixed() -> None:
    """The id of an alert is the same in every process and version: downstream systems deduplicate by it."""
    assert ThresholdPolicy(0.5, "v1").alert_id("tx-1") == "c8c144f32d32448e67b06fe3dcba5b34"


@given(st.text(min_size=1), st.text(), st.text(min_size=1), st.text())
def test_alert_ids_differ(version: str, transaction: str, version2: str, transaction2: str) -> None:
    """Another transaction or another policy gives another id; surrogates aside, whatever the texts."""
    try:
        version.encode(), transaction.encode(), version2.encode(), transaction2.encode()
    except UnicodeEncodeError:
        return
    one = ThresholdPolicy(0.5, version).alert_id(transaction)
    two = ThresholdPolicy(0.5, version2).alert_id(transaction2)
    assert (one == two) == ((version, transaction) == (version2, transaction2))


def test_alert_id_depends_on_the_threshold() -> None:
    """Without a version of its own a policy is named by its threshold."""
    assert ThresholdPolicy(0.5).alert_id("t") != ThresholdPolicy(0.6).alert_id("t")
    assert ThresholdPolicy(0.5).alert_id("t") == ThresholdPolicy(0.5).alert_id("t")


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
