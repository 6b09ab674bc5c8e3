"""Frozen scorers against River's own predictions, and against arrays that lie."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from river import drift, forest, linear_model, metrics, optim, tree
from river.tree.nodes.branch import NumericBinaryBranch
from river.tree.splitter import ExhaustiveSplitter, HistogramSplitter

from models.learners.freezing import CannotFreezeError, freeze_forest, freeze_tree
from models.learners.registry import LEARNERS
from models.scorers.base import FrozenScorer, ScorerArraysError
from models.scorers.forest import ForestScorer
from models.scorers.linear import LogisticScorer
from models.scorers.registry import SCORERS
from models.scorers.rules import DEFAULT_RULES, Rule, RulesScorer
from models.spec import FeatureSpec
from tests.models.learner_contract import NAMES, stream, teach, unseen

Floats = NDArray[np.float64]

SCALES = st.sampled_from([1.0, 1e-6, 1e4, 1e9])


def learn(model: Any, n: int, seed: int, scale: float = 1.0, labels: str = "both") -> Any:
    x, fraud = stream(n, seed)
    for row, label in zip(x * scale, fraud, strict=True):
        y = bool(label) if labels == "both" else labels == "fraud"
        model.learn_one(dict(zip(NAMES, row.tolist(), strict=True)), y)
    return model


def expect_equal(model: Any, frozen: FrozenScorer, x: Floats) -> None:
    """Equal to 1e-12 wherever River answers, a probability wherever it raises."""
    scores = frozen.score(x)
    assert ((scores >= 0.0) & (scores <= 1.0)).all()
    answered = 0
    for row, score in zip(x, scores, strict=True):
        try:
            p = model.predict_proba_one(dict(zip(NAMES, row.tolist(), strict=True))).get(True, 0.0)
        except (OverflowError, AttributeError):  # far out; adaptive trees with a branch as alternate
            continue
        answered += 1
        assert abs(score - min(p, 1.0)) <= 1e-12  # River's votes may round to a sum above 1
    assert answered >= len(x) // 2


def rows(seed: int, scale: float) -> Floats:
    x = unseen(60, seed)
    x[30:35] /= 1e145  # 1e150 overflows River's naive Bayes; 1e5 does not
    x[36:38] = np.sign(x[36:38]) * 1e60
    return x * scale


class TestForest:
    @given(
        seed=st.integers(0, 10**6),
        n=st.sampled_from([1, 5, 200, 600]),
        leaf=st.sampled_from(["mc", "nb", "nba"]),
        scale=SCALES,
        weighted=st.booleans(),
        metric=st.sampled_from([metrics.Accuracy(), metrics.CohenKappa(), metrics.F1()]),
        drifting=st.booleans(),
        labels=st.sampled_from(["both", "both", "both", "fraud", "genuine"]),
        max_depth=st.sampled_from([None, 1, 3]),
    )
    @settings(max_examples=12, deadline=None)
    def test_equals_river(
        self,
        seed: int,
        n: int,
        leaf: str,
        scale: float,
        weighted: bool,
        metric: Any,
        drifting: bool,
        labels: str,
        max_depth: int | None,
    ) -> None:
        """A frozen forest gives River's probabilities, whatever its leaves, votes, detectors and data."""
        model = forest.ARFClassifier(
            n_models=3,
            seed=seed,
            leaf_prediction=leaf,
            metric=metric,
            disable_weighted_vote=not weighted,
            drift_detector=drift.ADWIN(delta=0.5) if drifting else drift.NoDrift(),
            warning_detector=drift.ADWIN(delta=0.9) if drifting else drift.NoDrift(),
            max_depth=max_depth,
            grace_period=20,
        )
        learn(model, n, seed, scale, labels)
        expect_equal(model, freeze_forest(model, NAMES), rows(seed + 1, scale))

    def test_never_trained(self) -> None:
        """A forest without trees votes for nothing, and freezing does not make it grow any."""
        model = forest.ARFClassifier(seed=1)
        frozen = freeze_forest(model, NAMES)
        assert len(model) == 0
        np.testing.assert_array_equal(frozen.score(unseen()), 0.0)

    def test_trees_replaced_by_drift_are_frozen(self) -> None:
        """After drifts the trees that vote are the replacements."""
        model = forest.ARFClassifier(n_models=3, seed=1, grace_period=20, leaf_prediction="nba")
        for part in range(4):
            x, fraud = stream(700, part)
            for row, label in zip(x, fraud, strict=True):
                model.learn_one(dict(zip(NAMES, row.tolist(), strict=True)), bool(label) ^ (part % 2 == 1))
        assert model.n_drifts_detected() > 0
        expect_equal(model, freeze_forest(model, NAMES), rows(5, 1.0))


class TestTree:
    @given(
        seed=st.integers(0, 10**6),
        n=st.sampled_from([0, 1, 5, 300, 900]),
        leaf=st.sampled_from(["mc", "nb", "nba"]),
        kind=st.sampled_from(
            [
                tree.HoeffdingTreeClassifier,
                tree.HoeffdingAdaptiveTreeClassifier,
                tree.ExtremelyFastDecisionTreeClassifier,
            ]
        ),
        scale=SCALES,
        nb_threshold=st.sampled_from([0, 50]),
        labels=st.sampled_from(["both", "both", "both", "fraud", "genuine"]),
        max_size=st.sampled_from([100.0, 0.02]),
    )
    @settings(max_examples=25, deadline=None)
    def test_equals_river(
        self,
        seed: int,
        n: int,
        leaf: str,
        kind: Any,
        scale: float,
        nb_threshold: int,
        labels: str,
        max_size: float,
    ) -> None:
        """Frozen Hoeffding trees of three kinds give River's probabilities, disabled leaves included."""
        more = {"seed": seed} if kind is tree.HoeffdingAdaptiveTreeClassifier else {}
        model = kind(
            grace_period=20,
            delta=0.1,
            leaf_prediction=leaf,
            nb_threshold=nb_threshold,
            max_size=max_size,
            memory_estimate_period=100,
            **more,
        )
        learn(model, n, seed, scale, labels)
        expect_equal(model, freeze_tree(model, NAMES), rows(seed + 1, scale))

    def test_values_at_a_threshold_go_where_river_sends_them(self) -> None:
        """A value equal to a threshold belongs to the left."""
        model = tree.HoeffdingTreeClassifier(grace_period=20, delta=0.1, leaf_prediction="mc")
        frozen = freeze_tree(learn(model, 900, 3), NAMES)
        branches = np.flatnonzero(frozen.feature >= 0)
        x = np.repeat(stream(20, 4)[0], len(branches), axis=0)
        for i, row in enumerate(x):
            branch = branches[i % len(branches)]
            row[frozen.feature[branch]] = frozen.threshold[branch]
        assert len(branches) > 0
        expect_equal(model, frozen, x)

    def test_far_out_the_last_bit_decides(self) -> None:
        """Log likelihoods of millions that nearly cancel between the classes still agree to 1e-12."""
        rng = np.random.default_rng(0)
        model = tree.HoeffdingTreeClassifier(leaf_prediction="nb", grace_period=10**9)
        for value in rng.normal(size=40):
            for shift in (0.0, 1e-9):  # two classes that differ by next to nothing
                model.learn_one({"f0": value + shift}, shift > 0.0)
        x = np.zeros((5000, 1))
        x[:, 0] = 10.0 ** rng.uniform(2, 6, 5000) * rng.choice([-1, 1], 5000)
        frozen = freeze_tree(model, ["f0"])
        scores = frozen.score(x)
        expected = [min(model.predict_proba_one({"f0": v})[True], 1.0) for v in x[:, 0].tolist()]
        np.testing.assert_allclose(scores, expected, rtol=0.0, atol=1e-12)
        assert ((scores > 0.01) & (scores < 0.99)).sum() > 50

    def test_a_class_of_weight_zero_votes_as_in_river(self) -> None:
        """A class that a split left with weight zero has a log vote of zero in naive Bayes leaves."""
        model = learn(tree.HoeffdingTreeClassifier(leaf_prediction="nb", grace_period=10**9), 60, 0)
        for label in (False, True):
            kept = model._root.stats[label]
            model._root.stats[label] = 0.0
            expect_equal(model, freeze_tree(model, NAMES), stream(60, 1)[0])
            model._root.stats[label] = kept

    def test_alternate_trees_vote(self) -> None:
        """While an adaptive tree grows an alternate, both vote, as in River."""
        model = tree.HoeffdingAdaptiveTreeClassifier(grace_period=20, delta=0.1, seed=1, leaf_prediction="mc")
        learn(model, 1500, 1)
        with_alternate = 0
        x, fraud = stream(1500, 2)
        for i, (row, label) in enumerate(zip(x, fraud, strict=True)):
            model.learn_one(dict(zip(NAMES, row.tolist(), strict=True)), not label)
            frozen = freeze_tree(model, NAMES)
            if i % 10 == 0 and (frozen.alternate >= 0).any():
                with_alternate += 1
                scores = frozen.score(x[:20])
                for each, score in zip(x[:20], scores, strict=True):
                    try:
                        p = model.predict_proba_one(dict(zip(NAMES, each.tolist(), strict=True)))[True]
                    except AttributeError:
                        continue
                    assert abs(score - p) <= 1e-12
        assert with_alternate > 0

    def test_deep_trees_do_not_overflow_the_stack(self) -> None:
        """A chain of branches far deeper than Python's recursion limit freezes and scores."""
        model = tree.HoeffdingTreeClassifier(leaf_prediction="mc", grace_period=10**9)
        learn(model, 10, 0)
        leaf = model._root
        node = leaf
        for i in range(3000):
            node = NumericBinaryBranch({}, "f0", -float(i), 0, node, leaf)
        model._root = node
        frozen = freeze_tree(model, NAMES)
        assert len(frozen.feature) == 6001
        assert math.isfinite(frozen.score(np.zeros((1, 6)))[0])

    @pytest.mark.parametrize("splitter", [HistogramSplitter(), ExhaustiveSplitter()])
    def test_naive_bayes_over_other_observers_is_refused(self, splitter: Any) -> None:
        """An observer whose arithmetic the scorer does not know is refused, not approximated."""
        model = learn(tree.HoeffdingTreeClassifier(leaf_prediction="nb", splitter=splitter), 50, 0)
        with pytest.raises(CannotFreezeError, match="naive Bayes"):
            freeze_tree(model, NAMES)

    def test_nominal_splits_are_refused(self) -> None:
        """A branch the scorer does not know is refused."""
        model = tree.HoeffdingTreeClassifier(
            leaf_prediction="mc", grace_period=20, delta=0.5, nominal_attributes=["f1"], tau=1.0
        )
        x, _ = stream(400)
        for row in x:
            values = dict(zip(NAMES, row.tolist(), strict=True))
            model.learn_one(values, values["f1"] > 2)
        with pytest.raises(CannotFreezeError, match="node"):
            freeze_tree(model, NAMES)

    def test_other_classes_are_refused(self) -> None:
        """Labels other than booleans are refused."""
        model = tree.HoeffdingTreeClassifier()
        model.learn_one({"f0": 1.0}, "fraud")
        with pytest.raises(CannotFreezeError, match="classes"):
            freeze_tree(model, NAMES)


class TestLogistic:
    @given(
        seed=st.integers(0, 10**6),
        n=st.sampled_from([0, 1, 300]),
        rate=st.sampled_from([1e-3, 0.1, 10.0]),
        labels=st.sampled_from(["both", "fraud", "genuine"]),
    )
    @settings(max_examples=30, deadline=None)
    def test_equals_river_without_scaling(self, seed: int, n: int, rate: float, labels: str) -> None:
        """With the identity for a scaling, the scorer is River's logistic regression."""
        model = linear_model.LogisticRegression(optimizer=optim.SGD(rate), clip_gradient=1e3)
        learn(model, n, seed, 1.0, labels)
        weights = np.array([model.weights.get(name, 0.0) for name in NAMES])
        assume(np.isfinite(weights).all())
        frozen = LogisticScorer(
            mean=np.zeros(6),
            deviation=np.ones(6),
            weight=weights,
            intercept=model.intercept,
            limit=1e300,
            logarithm=False,
        )
        x, _ = stream(100, seed + 1)
        expect_equal(model, frozen, x)

    def test_a_feature_that_never_varied_says_nothing(self) -> None:
        """Deviation 0 gives no contribution, as in River's scaler, and no division by zero."""
        scorer = LogisticScorer(np.zeros(1), np.zeros(1), np.ones(1), 0.0, 8.0, True)
        assert scorer.score(np.array([[5.0]]))[0] == 0.5


class TestRules:
    RULES = (Rule("a", 100.0, 2.0), Rule("a", 3.0, 1.0, divisor="b"), Rule("gone", 0.0, 9.0))

    def test_rules_add_up(self) -> None:
        """Every rule that fires adds its log odds; rules about absent features are left out."""
        scorer = RulesScorer.build(["a", "b"], self.RULES, base_rate=0.01)
        scores = scorer.score(
            np.array([[1.0, 1.0], [101.0, 50.0], [40.0, 10.0], [200.0, 10.0], [200.0, 0.0]])
        )
        base = math.log(0.01 / 0.99)
        expected = [base, base + 2, base + 1, base + 3, base + 2]
        np.testing.assert_allclose(scores, [1 / (1 + math.exp(-z)) for z in expected])

    def test_without_rules_the_base_rate(self) -> None:
        """Rules about nothing that is there give the base rate."""
        scores = RulesScorer.build(["x"], self.RULES, base_rate=0.01).score(np.zeros((3, 1)))
        np.testing.assert_allclose(scores, 0.01)

    def test_default_rules_fit_the_default_spec(self) -> None:
        """Every default rule is about a feature of the default spec, and a quiet row scores the base rate."""
        names = FeatureSpec.default().names
        scorer = RulesScorer.build(names)
        assert len(scorer.feature) == len(DEFAULT_RULES)
        quiet, loud = np.zeros((1, len(names))), np.full((1, len(names)), 1e3)
        assert scorer.score(quiet)[0] == pytest.approx(0.005)
        assert scorer.score(loud)[0] > 0.99

    @given(st.lists(st.floats(allow_nan=False, allow_infinity=False), min_size=2, max_size=2))
    def test_any_finite_row_gives_a_probability(self, row: list[float]) -> None:
        """No finite input overflows."""
        score = RulesScorer.build(["a", "b"], self.RULES).score(np.array([row]))[0]
        assert 0.0 < score < 1.0


def frozen_of_each_kind() -> list[FrozenScorer]:
    learned = [teach(cls(NAMES), 900).freeze() for cls in LEARNERS.values()]
    return [*learned, RulesScorer.build(NAMES, [Rule("f0", 1.0, 1.0), Rule("f1", 1.0, 1.0, "f2")])]


FROZEN = frozen_of_each_kind()


@pytest.mark.parametrize("scorer", FROZEN, ids=lambda s: s.kind)
class TestEveryScorer:
    def test_batches_do_not_matter(self, scorer: FrozenScorer) -> None:
        """A row's score does not depend on the rows beside it; an empty batch is allowed."""
        x = unseen()
        whole = scorer.score(x)
        np.testing.assert_array_equal(np.concatenate([scorer.score(x[:7]), scorer.score(x[7:])]), whole)
        np.testing.assert_array_equal(scorer.score(np.asfortranarray(x)), whole)
        assert scorer.score(x[:0]).shape == (0,)

    def test_missing_arrays_are_refused(self, scorer: FrozenScorer) -> None:
        """Every array and every field of the header is needed."""
        header, arrays = scorer.to_arrays()
        for name in arrays:
            with pytest.raises(ScorerArraysError):
                SCORERS[scorer.kind].from_arrays(header, {k: v for k, v in arrays.items() if k != name})
        for name in header:
            with pytest.raises(ScorerArraysError):
                SCORERS[scorer.kind].from_arrays({k: v for k, v in header.items() if k != name}, arrays)

    @given(data=st.data())
    @settings(max_examples=60, deadline=None)
    def test_lies_are_refused_or_harmless(self, scorer: FrozenScorer, data: st.DataObject) -> None:
        """A changed number, length or type is refused, or is harmless: nothing is read out of bounds."""
        header, arrays = scorer.to_arrays()
        changed = {name: array.copy() for name, array in arrays.items()}
        name = data.draw(st.sampled_from(sorted(changed)))
        array = changed[name]
        what = data.draw(st.sampled_from(["value", "shorter", "type", "shape"]))
        if what == "value" and array.size:
            at = data.draw(st.integers(0, array.size - 1))
            if array.dtype == np.int32:
                array.reshape(-1)[at] = data.draw(
                    st.sampled_from([-2, -1, 0, 1, 3, 10**6, 2**31 - 1, -(2**31)])
                )
            else:
                array.reshape(-1)[at] = data.draw(st.sampled_from([np.nan, np.inf, -1.0, 0.0, 1e308, -1e308]))
        elif what == "shorter":
            changed[name] = array[:-1].copy()
        elif what == "type":
            changed[name] = array.astype(np.float32)
        else:
            changed[name] = array.reshape(1, *array.shape)
        try:
            liar = SCORERS[scorer.kind].from_arrays(header, changed)
        except ScorerArraysError:
            return
        assert liar.score(unseen()[:, : liar.n_features].copy() if liar.n_features <= 6 else
                          np.zeros((1, liar.n_features))).ndim == 1  # fmt: skip


def test_a_circle_of_nodes_is_refused() -> None:
    """Arrays that would send a row round for ever are refused."""
    forest_scorer = next(s for s in FROZEN if isinstance(s, ForestScorer) and (s.feature >= 0).any())
    header, arrays = forest_scorer.to_arrays()
    branch = int(np.flatnonzero(forest_scorer.feature >= 0)[0])
    for name in ("left", "right", "alternate"):
        looped = {k: v.copy() for k, v in arrays.items()}
        looped[name][branch] = branch
        with pytest.raises(ScorerArraysError, match="before"):
            ForestScorer.from_arrays(header, looped)
