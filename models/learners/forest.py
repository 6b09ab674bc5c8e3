"""Adaptive random forest."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray
from river import drift
from river.forest import ARFClassifier

from models.learners.base import Learner
from models.learners.freezing import freeze_forest
from models.sampling import correct_prior
from models.scorers.forest import MAGNITUDE, ForestScorer


class ForestLearner(Learner):
    """River's adaptive random forest.

    River's forest knows no weights: an outcome of weight w is learned round(w) times, at least once. The
    sampling of genuine outcomes is made up for by the prior correction of the probabilities.

    :param leaf_prediction: mc (class shares), nb (naive Bayes) or nba (the better of the two, by leaf).
    :param detect_drift: ADWIN warning and drift detectors that replace trees; off, trees are never replaced.
    :param max_depth: bounds the size: a tree has fewer than 2 ** (max_depth + 1) nodes.
    """

    kind: ClassVar[str] = "adaptive_forest"

    def __init__(
        self,
        names: Sequence[str],
        keep_one_in: int = 20,
        n_trees: int = 10,
        leaf_prediction: str = "mc",
        detect_drift: bool = False,
        max_depth: int = 16,
        grace_period: int = 50,
        seed: int = 7,
    ) -> None:
        super().__init__(names, keep_one_in)
        self._model = ARFClassifier(
            n_models=n_trees,
            leaf_prediction=leaf_prediction,
            drift_detector=None if detect_drift else drift.NoDrift(),
            warning_detector=None if detect_drift else drift.NoDrift(),
            max_depth=max_depth,
            grace_period=grace_period,
            seed=seed,
        )

    def _learn(self, x: NDArray[np.float64], fraud: bool, weight: float) -> None:
        row = bounded(self.names, x)
        for _ in range(max(1, round(weight))):
            self._model.learn_one(row, fraud)

    def _score(self, x: NDArray[np.float64]) -> float:
        if self.n_learned == 0:  # River would create the trees
            return 0.0
        p = self._model.predict_proba_one(bounded(self.names, x)).get(True, 0.0)
        return float(correct_prior(np.array([min(p, 1.0)]), self.keep_one_in)[0])

    def freeze(self) -> ForestScorer:
        """All voting trees in one set of arrays."""
        return freeze_forest(self._model, self.names, self.keep_one_in)


def bounded(names: Sequence[str], x: NDArray[np.float64]) -> dict[str, float]:
    """``x`` as River's dict, values clipped to ±MAGNITUDE."""
    return dict(zip(names, np.clip(x, -MAGNITUDE, MAGNITUDE).tolist(), strict=True))
