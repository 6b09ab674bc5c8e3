"""Boosted trees: frozen as LightGBM predicts, refitted at fixed points whatever a fit takes."""

from __future__ import annotations

import threading
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from models.learners import boosted, boosting, checkpoint
from models.learners.boosted import FIRST_FIT, BoostedLearner
from models.learners.drift_aware import DriftAwareLearner
from models.scorers.base import ScorerArraysError
from models.scorers.boosted import BoostedScorer
from tests.models.learner_contract import NAMES, stream, teach, unseen

TERMS: dict[str, Any] = {
    "n_trees": 12,
    "leaves": 8,
    "learning_rate": 0.2,
    "min_rows": 5,
    "regularisation": 1.0,
    "feature_share": 1.0,
    "seed": 3,
}


def small(**options: int) -> BoostedLearner:
    terms: dict[str, Any] = {"window": 2000, "refit_every": 200, "n_trees": 5, "min_rows": 5, **options}
    return BoostedLearner(NAMES, keep_one_in=2, **terms)


class TestFrozenTrees:
    @given(
        seed=st.integers(0, 10**6),
        n=st.sampled_from([30, 300, 2000]),
        scale=st.sampled_from([1.0, 1e-6, 1e9, 1e20]),
        leaves=st.integers(2, 40),
        trees=st.integers(1, 30),
        share=st.sampled_from([0.3, 1.0]),
    )
    @settings(max_examples=25, deadline=None)
    def test_equal_lightgbm(
        self, seed: int, n: int, scale: float, leaves: int, trees: int, share: float
    ) -> None:
        """Whatever the data and the shape of the trees: LightGBM's probabilities, on thresholds too."""
        x, fraud = stream(n, seed)
        fraud[:2] = True, False
        terms = TERMS | {"leaves": leaves, "n_trees": trees, "feature_share": share, "seed": seed}
        text = boosting.fit((x * scale).astype(np.float32), fraud, np.where(fraud, 1.0, 7.0), **terms)
        rows = np.vstack([unseen(60, seed) * scale if scale < 1e9 else unseen(60, seed), x[:200] * scale])
        frozen = boosting.freeze(text, len(NAMES))
        on_edges = x[np.arange(len(frozen.threshold)) % n] * scale
        on_edges[np.arange(len(on_edges)), frozen.feature] = frozen.threshold
        near_zero = np.where(np.abs(on_edges) < 1e-34, -boosting.ZERO, on_edges)
        rows = np.vstack([rows, on_edges, near_zero, -near_zero])
        found = frozen.score(rows)
        np.testing.assert_allclose(found, [boosting.predict(text, row) for row in rows], rtol=0, atol=1e-12)
        assert ((found >= 0) & (found <= 1)).all()

    def test_a_fit_is_repeatable_to_the_letter(self) -> None:
        """The same rows give the same text: a restarted stage publishes the versions it would have."""
        x, fraud = stream(1500)
        rows, weights = x.astype(np.float32), np.ones(len(x))
        assert boosting.fit(rows, fraud, weights, **TERMS) == boosting.fit(rows, fraud, weights, **TERMS)

    def test_one_class_gives_no_trees(self) -> None:
        """Without a fraud, or without anything else, there is nothing to tell apart."""
        rows = stream(50)[0].astype(np.float32)
        for fraud in (np.zeros(50, np.bool_), np.ones(50, np.bool_)):
            assert boosting.fit(rows, fraud, np.ones(50), **TERMS) == ""

    def test_splits_on_anything_but_plain_numbers_are_refused(self) -> None:
        """A categorical split, or one that gives missing values a meaning, is refused, not approximated."""
        x, fraud = stream(500)
        text = boosting.fit(x.astype(np.float32), fraud, np.ones(500), **TERMS)
        for was, becomes in (("num_cat=0", "num_cat=1"), ("decision_type=2", "decision_type=10")):
            assert was in text
            with pytest.raises(ValueError, match="plain number"):
                boosting.freeze(text.replace(was, becomes, 1), len(NAMES))

    def test_a_circle_of_branches_is_refused(self) -> None:
        """Arrays that would send a row round for ever are refused."""
        header, arrays = teach(small()).freeze().to_arrays()
        for name in ("left", "right"):
            looped = {key: array.copy() for key, array in arrays.items()}
            looped[name][0] = 0
            with pytest.raises(ScorerArraysError, match="before"):
                BoostedScorer.from_arrays(header, looped)


class TestRefits:
    def test_trees_take_over_at_a_fixed_outcome(self) -> None:
        """However early a fit is done, its trees score from a quarter of the gap to the next fit on."""
        learner = small()
        x, fraud = stream(FIRST_FIT + 100)
        adopted = []
        for i, (row, label) in enumerate(zip(x, fraud, strict=True), 1):
            while not learner.ready(1.0):
                pass
            learner.learn(row, bool(label))
            if i >= FIRST_FIT:
                learner._running().result(60) if learner._started >= 0 else None
            if len(learner.freeze().root):
                adopted.append(i)
        assert adopted[0] == FIRST_FIT + 50

    def test_not_ready_only_where_it_would_wait(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """While a fit takes long, outcomes are learned up to where its trees are due, and no further."""
        done, fitted = threading.Event(), boosting.fit

        def slow(*args: Any, **terms: Any) -> str:
            assert done.wait(60)
            return fitted(*args, **terms)

        monkeypatch.setattr(boosted, "fit", slow)
        learner = DriftAwareLearner(small)  # which passes the question on
        x, fraud = stream(FIRST_FIT + 200)
        learned = 0
        for row, label in zip(x, fraud, strict=True):
            if not learner.ready(0.0):
                break
            learner.learn(row, bool(label))
            learned += 1
        assert learned == FIRST_FIT + 49
        assert learner.freeze().to_arrays()[1]["root"].size == 0
        done.set()
        assert learner.ready(60)
        learner.learn(x[learned], bool(fraud[learned]))
        assert learner.freeze().to_arrays()[1]["root"].size == 5

    @pytest.mark.parametrize("at", [FIRST_FIT - 1, FIRST_FIT, FIRST_FIT + 20, FIRST_FIT + 51, 2300, 2900])
    def test_a_checkpoint_at_any_point_gives_the_same_trees(self, at: int) -> None:
        """Before, during and after a fit, with the ring filled and wrapped: as if nothing had happened."""
        learner = small(window=900)
        teach(learner, at)
        restored = checkpoint.load(checkpoint.dump(learner))
        assert checkpoint.dump(restored) == checkpoint.dump(learner)
        x = unseen()
        for more in (40, 700):  # the trees of a fit that was interrupted, and those after it
            for each in (learner, restored):
                teach(each, more, 4)
            np.testing.assert_array_equal(restored.freeze().score(x), learner.freeze().score(x))

    def test_only_the_window_counts(self) -> None:
        """What has left the window is forgotten: after as many outcomes of another kind, only these show."""
        learner, fresh = small(window=600), small(window=600)
        teach(learner, 800, 1)
        x, fraud = stream(2200, 2)
        for row, label in zip(x, ~fraud, strict=True):
            learner.learn(row, bool(label))
            fresh.learn(row, bool(label))
        found, expected = (each.freeze().score(x[-600:]) for each in (learner, fresh))
        assert found[~fraud[-600:]].mean() > found[fraud[-600:]].mean() + 0.05
        assert abs(found.mean() - expected.mean()) < 0.05

    def test_a_failed_fit_is_told_and_changes_nothing(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """The outcome at which the trees were due is refused; the next are learned, the old trees stay."""
        learner = teach(small(), FIRST_FIT + 100)
        assert isinstance(learner, BoostedLearner)
        before = learner.freeze().score(unseen())

        def fail(*_args: object, **_terms: object) -> str:
            raise RuntimeError("no memory")

        monkeypatch.setattr(boosted, "fit", fail)
        due = FIRST_FIT + 249  # fitted at 700, due a quarter of the gap to the next fit later
        for row, label in zip(*stream(due - FIRST_FIT - 100, 6), strict=True):
            learner.learn(row, bool(label))
        with pytest.raises(ValueError, match="no memory"):
            learner.learn(unseen()[0], True)
        teach(learner, 100, 7)
        np.testing.assert_array_equal(learner.freeze().score(unseen()), before)
