"""Verdicts and delayed labels learned apart: each by its own learner, scored as their weighted mean."""

from __future__ import annotations

import functools
from itertools import product
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from models.learners import checkpoint
from models.learners.base import Learner
from models.learners.binned import BinnedLearner
from models.learners.boosted import BoostedLearner
from models.learners.drift_aware import DriftAwareLearner
from models.learners.feedback_delayed import FeedbackDelayedLearner
from models.learners.logistic import LogisticLearner
from models.learners.single import SINGLE
from models.scorers.base import ScorerArraysError
from models.scorers.mean import MeanScorer
from tests.models.learner_contract import NAMES, same_scores, stream, teach, unseen

SMALL: dict[str, dict[str, Any]] = {
    "boosted_trees": {"window": 500, "refit_every": 200, "n_trees": 4, "min_rows": 5},
    "adaptive_forest": {"n_trees": 2},
    "hoeffding_tree": {"delta": 0.05, "grace_period": 50},
}
LOGISTIC = {"kind": "logistic"}


def tell(learner: Learner, n: int, seed: int) -> Learner:
    for x, fraud in zip(*stream(n, seed), strict=True):
        learner.learn_feedback(x, bool(fraud), 1.5)
    return learner


@pytest.mark.parametrize(("feedback", "delayed"), [*product(SINGLE, SINGLE)])
def test_any_two_kinds_are_combined(feedback: str, delayed: str) -> None:
    """The score is the weighted mean of what two learners by themselves say, compiled to 1e-12."""
    first, second = ({"kind": kind, **SMALL.get(kind, {})} for kind in (feedback, delayed))
    learner = FeedbackDelayedLearner(NAMES, 3, first, second, feedback_weight=0.3)
    tell(teach(learner, 700, 2), 600, 5)
    alone = teach(SINGLE[delayed](NAMES, 3, **SMALL.get(delayed, {})), 700, 2)
    verdicts = SINGLE[feedback](NAMES, 1, **SMALL.get(feedback, {}))
    for x, fraud in zip(*stream(600, 5), strict=True):
        verdicts.learn(x, bool(fraud), 1.5)
    expected = [0.3 * verdicts.score(x) + 0.7 * alone.score(x) for x in unseen()]
    np.testing.assert_allclose(same_scores(learner, unseen()), expected, rtol=0, atol=1e-12)


@pytest.mark.parametrize(("weight", "least"), [(0.0, 0), (1.0, 0), (0.5, 40), (0.5, 41)])
def test_verdicts_have_weight_once_there_are_enough(weight: float, least: int) -> None:
    """All weight on one side is that learner alone; before the least number of verdicts the delayed one."""
    learner = FeedbackDelayedLearner(NAMES, 1, LOGISTIC, LOGISTIC, weight, least)
    tell(teach(learner, 500), 40, 3)
    delayed, feedback = teach(LogisticLearner(NAMES), 500), LogisticLearner(NAMES)
    for x, fraud in zip(*stream(40, 3), strict=True):
        feedback.learn(x, bool(fraud), 1.5)
    share = weight if least <= 40 else 0.0
    mean = [share * feedback.score(x) + (1 - share) * delayed.score(x) for x in unseen()]
    np.testing.assert_allclose(same_scores(learner, unseen()), mean, rtol=0, atol=1e-12)
    assert learner.figures() == {"feedback_learned": 40, "feedback_frauds": stream(40, 3)[1].sum()}


def test_verdicts_are_not_outcomes() -> None:
    """Numbers learned, the reference and the golden rows are those of delayed labels, which are of the whole
    stream.
    """
    told, plain = (teach(FeedbackDelayedLearner(NAMES), 30) for _ in range(2))
    tell(told, 20, 9)
    assert (told.n_learned, told.n_frauds) == (plain.n_learned, plain.n_frauds)
    np.testing.assert_array_equal(told.reference, plain.reference)
    np.testing.assert_array_equal(told.recent, plain.recent)


@given(
    steps=st.lists(st.sampled_from(["delayed", "feedback", "restart"]), max_size=60), seed=st.integers(0, 99)
)
@settings(max_examples=25, deadline=None)
def test_however_they_come_each_learns_its_own(steps: list[str], seed: int) -> None:
    """In any order, restored from a checkpoint anywhere: as two learners that know nothing of one another."""
    learner: Learner = FeedbackDelayedLearner(NAMES, 2, LOGISTIC, LOGISTIC, min_feedback=0)
    delayed, feedback = LogisticLearner(NAMES, 2), LogisticLearner(NAMES)
    for step, x, fraud in zip(steps, *stream(len(steps), seed), strict=True):
        if step == "restart":
            learner = checkpoint.load(checkpoint.dump(learner))
        elif step == "delayed":
            learner.learn(x, bool(fraud), 2.0)
            delayed.learn(x, bool(fraud), 2.0)
        else:
            learner.learn_feedback(x, bool(fraud), 3.0)
            feedback.learn(x, bool(fraud), 3.0)
    expected = [0.5 * feedback.score(x) + 0.5 * delayed.score(x) for x in unseen()]
    np.testing.assert_allclose(same_scores(learner, unseen()), expected, rtol=0, atol=1e-12)


def test_what_is_not_finite_is_refused_as_a_verdict() -> None:
    """The feature is named and nothing is learned."""
    learner = FeedbackDelayedLearner(NAMES)
    with pytest.raises(ValueError, match="f2"):
        learner.learn_feedback(np.array([0.0, 0.0, np.nan, 0.0, 0.0, 0.0]), True)
    assert learner.figures()["feedback_learned"] == 0


def test_a_learner_that_learns_all_alike_takes_no_verdicts() -> None:
    """It is told outcomes only; asking it to learn apart is a mistake."""
    assert not LogisticLearner(NAMES).apart
    with pytest.raises(NotImplementedError, match="logistic"):
        LogisticLearner(NAMES).learn_feedback(np.zeros(6), True)


@pytest.mark.parametrize("busy", ["_feedback", "_delayed"])
def test_waits_for_trees_on_either_side(busy: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The next outcome is taken when both can go on."""
    learner = FeedbackDelayedLearner(NAMES, 1, {"kind": "boosted_trees"}, {"kind": "boosted_trees"})
    assert learner.ready(0.0)
    part = getattr(learner, busy)
    assert isinstance(part, BoostedLearner)
    monkeypatch.setattr(part, "ready", lambda seconds: False)
    assert not learner.ready(0.0)


def test_watched_for_drift_both_learners_are_told() -> None:
    """The second learner, which may take over, knows the verdicts since it was started."""
    make = functools.partial(FeedbackDelayedLearner, NAMES, 1, LOGISTIC, LOGISTIC, min_feedback=0)
    watched, plain = DriftAwareLearner(make), make()
    assert watched.apart
    watched._second = make()
    for each in (watched, plain):
        tell(teach(each, 200), 50, 3)
    np.testing.assert_array_equal(watched.freeze().score(unseen()), plain.freeze().score(unseen()))
    assert watched._second.figures() == plain.figures()
    assert watched.figures().items() >= plain.figures().items()
    assert "drift_alarms" in watched.figures()


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"feedback_weight": 1.5}, "feedback_weight"),
        ({"feedback_weight": float("nan")}, "feedback_weight"),
        ({"min_feedback": -1}, "min_feedback"),
        ({"delayed": {"kind": "feedback_and_delayed"}}, "unknown kind 'feedback_and_delayed'"),
    ],
)
def test_what_cannot_be_meant_is_refused(options: dict[str, Any], said: str) -> None:
    """By name, and none within another."""
    with pytest.raises(ValueError, match=said):
        FeedbackDelayedLearner(NAMES, 1, **options)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"weight": 1.1}, "weight"),
        ({"first.kind": "mean"}, "first.kind is 'mean'"),
        ({"second.kind": 3}, "second.kind is 3"),
    ],
)
def test_a_mean_that_cannot_be_is_refused(changes: dict[str, Any], said: str) -> None:
    """Weights outside of 0 to 1, means of means and unknown kinds."""
    header, arrays = FeedbackDelayedLearner(NAMES, 1, LOGISTIC).freeze().to_arrays()
    with pytest.raises(ScorerArraysError, match=said):
        MeanScorer.from_arrays({**header, **changes}, arrays)


def test_a_mean_of_scorers_of_other_widths_is_refused() -> None:
    """Both score the same features."""
    one, other = LogisticLearner(NAMES).freeze(), BinnedLearner(NAMES[:4]).freeze()
    header, arrays = MeanScorer(one, other, 0.5).to_arrays()
    with pytest.raises(ScorerArraysError, match="6 features, the other 4"):
        MeanScorer.from_arrays(header, arrays)
