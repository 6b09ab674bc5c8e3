"""The kinds of learner that hold no other, by the name configuration uses."""

from __future__ import annotations

from models.learners.base import Learner
from models.learners.binned import BinnedLearner
from models.learners.boosted import BoostedLearner
from models.learners.forest import ForestLearner
from models.learners.logistic import LogisticLearner
from models.learners.tree import TreeLearner

SINGLE: dict[str, type[Learner]] = {
    LogisticLearner.kind: LogisticLearner,
    BinnedLearner.kind: BinnedLearner,
    BoostedLearner.kind: BoostedLearner,
    ForestLearner.kind: ForestLearner,
    TreeLearner.kind: TreeLearner,
}
