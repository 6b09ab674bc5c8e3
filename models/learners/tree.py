"""Hoeffding tree."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray
from river.tree import HoeffdingTreeClassifier

from models.learners.base import Learner
from models.learners.forest import bounded
from models.learners.freezing import freeze_tree
from models.sampling import correct_prior
from models.scorers.forest import ForestScorer


class TreeLearner(Learner):
    """River's Hoeffding tree: one tree, cheap, and readable by people.

    :param leaf_prediction: mc, nb or nba, as in ``ForestLearner``.
    :param max_depth: bounds the size: the tree has fewer than 2 ** (max_depth + 1) nodes.
    """

    kind: ClassVar[str] = "hoeffding_tree"

    def __init__(
        self,
        names: Sequence[str],
        keep_one_in: int = 20,
        leaf_prediction: str = "mc",
        max_depth: int = 16,
        grace_period: int = 200,
        delta: float = 1e-5,
    ) -> None:
        super().__init__(names, keep_one_in)
        self._model = HoeffdingTreeClassifier(
            leaf_prediction=leaf_prediction, max_depth=max_depth, grace_period=grace_period, delta=delta
        )

    def _learn(self, x: NDArray[np.float64], fraud: bool, weight: float) -> None:
        self._model.learn_one(bounded(self.names, x), fraud, w=weight)

    def _score(self, x: NDArray[np.float64]) -> float:
        p = self._model.predict_proba_one(bounded(self.names, x)).get(True, 0.0)
        return float(correct_prior(np.array([min(p, 1.0)]), self.keep_one_in)[0])

    def freeze(self) -> ForestScorer:
        """The tree as a forest of one."""
        return freeze_tree(self._model, self.names, self.keep_one_in)
