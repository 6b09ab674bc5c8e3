"""River's Hoeffding trees and forests → arrays of ``ForestScorer``.

Reads River's nodes, which have no public form: written against River 0.26, whose arithmetic the scorer
follows. What it does not know it refuses instead of guessing.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from river.forest import ARFClassifier
from river.proba import Gaussian
from river.tree import HoeffdingAdaptiveTreeClassifier, HoeffdingTreeClassifier
from river.tree.nodes.branch import NumericBinaryBranch
from river.tree.nodes.hatc_nodes import AdaLeafClassifier
from river.tree.nodes.htc_nodes import LeafNaiveBayes, LeafNaiveBayesAdaptive
from river.tree.splitter import GaussianSplitter

from models.scorers.forest import ABSENT, OBSERVED, ZERO_WEIGHT, ForestScorer

_CLASSES = (False, True)


class CannotFreezeError(ValueError):
    """The River model has a node, a splitter or classes the scorer knows nothing of."""


def freeze_tree(tree: HoeffdingTreeClassifier, names: Sequence[str], keep_one_in: int = 1) -> ForestScorer:
    """A Hoeffding tree (also adaptive, or extremely fast) with classes False and True.

    :raises CannotFreezeError: nominal or multiway splits, other classes, other observers in naive Bayes
        leaves.
    """
    nodes = _Nodes({name: i for i, name in enumerate(names)})
    nodes.add_tree(tree, 1.0)
    return nodes.scorer(keep_one_in, normalise=isinstance(tree, HoeffdingAdaptiveTreeClassifier))


def freeze_forest(forest: ARFClassifier, names: Sequence[str], keep_one_in: int = 1) -> ForestScorer:
    """An adaptive random forest with classes False and True; background trees do not vote.

    :raises CannotFreezeError: as ``freeze_tree``.
    """
    nodes = _Nodes({name: i for i, name in enumerate(names)})
    for tree, metric in zip(
        forest, forest._metrics, strict=False
    ):  # a forest that never learned has no trees
        quality = metric.get()
        nodes.add_tree(tree, float(quality) if not forest.disable_weighted_vote and quality > 0.0 else 1.0)
    return nodes.scorer(keep_one_in, normalise=True)


@dataclass(slots=True)
class _Nodes:
    at: Mapping[str, int]
    root: list[int] = field(default_factory=list)
    tree_weight: list[float] = field(default_factory=list)
    feature: list[int] = field(default_factory=list)
    threshold: list[float] = field(default_factory=list)
    left: list[int] = field(default_factory=list)
    right: list[int] = field(default_factory=list)
    alternate: list[int] = field(default_factory=list)
    votes: list[tuple[float, float]] = field(default_factory=list)
    error: list[float] = field(default_factory=list)
    bayes: list[list[int]] = field(default_factory=list)
    prior: list[list[float]] = field(default_factory=list)
    first: list[int] = field(default_factory=list)
    last: list[int] = field(default_factory=list)
    nb_feature: list[int] = field(default_factory=list)
    nb_mean: list[list[float]] = field(default_factory=list)
    nb_divisor: list[list[float]] = field(default_factory=list)
    nb_offset: list[list[float]] = field(default_factory=list)

    def add_tree(self, tree: HoeffdingTreeClassifier, weight: float) -> None:
        if not tree.classes <= {False, True}:
            raise CannotFreezeError(f"classes must be False and True, not {tree.classes}")
        if tree._root is None:
            return  # votes for nothing
        self.root.append(len(self.feature))
        self.tree_weight.append(weight)
        # Breadth is walked with a list of its own: a tree may be deeper than Python's stack.
        waiting: list[tuple[Any, list[int] | None, int]] = [(tree._root, None, 0)]
        while waiting:
            node, parent_links, parent = waiting.pop()
            here = len(self.feature)
            if parent_links is not None:
                parent_links[parent] = here
            self._add_blank()
            if isinstance(node, NumericBinaryBranch):
                self.feature[here] = self.at[node.feature]
                self.threshold[here] = float(node.threshold)
                waiting.append((node.children[1], self.right, here))
                waiting.append((node.children[0], self.left, here))
                alternate = getattr(node, "_alternate_tree", None)
                if alternate is not None:
                    waiting.append((alternate, self.alternate, here))
            elif hasattr(node, "stats") and hasattr(node, "splitters") and not hasattr(node, "children"):
                self._fill_leaf(here, node, tree)
            else:
                raise CannotFreezeError(f"unknown node {type(node).__name__}")

    def _add_blank(self) -> None:
        self.feature.append(-1)
        self.threshold.append(0.0)
        for links in (self.left, self.right, self.alternate):
            links.append(-1)
        self.votes.append((0.0, 0.0))
        self.error.append(0.0)
        self.bayes.append([ABSENT, ABSENT])
        self.prior.append([0.0, 0.0])
        self.first.append(0)
        self.last.append(0)

    def _fill_leaf(self, here: int, leaf: Any, tree: HoeffdingTreeClassifier) -> None:
        stats: dict[bool, float] = leaf.stats
        total = sum(stats.values()) if stats else 0.0
        if isinstance(leaf, AdaLeafClassifier) and stats:
            # River divides the votes of an adaptive leaf by their sum times its squared error rate.
            self.error[here] = float(leaf._mean_error.get())
        if _by_naive_bayes(leaf, tree):
            if total == 0:
                return
            for c in _CLASSES:
                if c in stats:
                    positive = stats[c] > 0
                    self.bayes[here][c] = OBSERVED if positive else ZERO_WEIGHT
                    self.prior[here][c] = math.log(stats[c] / total) if positive else 0.0
            self.first[here] = len(self.nb_feature)
            for name, splitter in leaf.splitters.items():
                self._add_term(name, splitter)
            self.last[here] = len(self.nb_feature)
        else:
            scale = 1.0 if total == 0 or math.isnan(total) else 1.0 / total
            self.votes[here] = (stats.get(False, 0.0) * scale, stats.get(True, 0.0) * scale)

    def _add_term(self, name: str, splitter: Any) -> None:
        if not isinstance(splitter, GaussianSplitter):
            raise CannotFreezeError(f"naive Bayes over {type(splitter).__name__} is not known")
        self.nb_feature.append(self.at[name])
        mean, divisor, offset = [0.0, 0.0], [0.0, 0.0], [0.0, 0.0]
        for c in _CLASSES:
            observed: Gaussian | None = splitter._att_dist_per_class.get(c)
            if observed is None:
                continue
            var = observed._var
            if var.mean.n > var.ddof:
                variance = var._S / (var.mean.n - var.ddof)
                if 0.0 < variance < math.inf:
                    mean[c] = var.mean._mean
                    divisor[c] = -2.0 * variance
                    offset[c] = 0.5 * math.log(variance)
        self.nb_mean.append(mean)
        self.nb_divisor.append(divisor)
        self.nb_offset.append(offset)

    def scorer(self, keep_one_in: int, *, normalise: bool) -> ForestScorer:
        def i(values: Sequence[object], *shape: int) -> np.ndarray[Any, np.dtype[np.int32]]:
            return np.array(values, np.int32).reshape(len(values), *shape)

        def f(values: Sequence[object], *shape: int) -> np.ndarray[Any, np.dtype[np.float64]]:
            return np.array(values, np.float64).reshape(len(values), *shape)

        return ForestScorer(
            width=len(self.at),
            normalise=normalise,
            keep_one_in=keep_one_in,
            root=i(self.root),
            tree_weight=f(self.tree_weight),
            feature=i(self.feature),
            threshold=f(self.threshold),
            left=i(self.left),
            right=i(self.right),
            alternate=i(self.alternate),
            votes=f(self.votes, 2),
            error=f(self.error),
            bayes=i(self.bayes, 2),
            prior=f(self.prior, 2),
            first=i(self.first),
            last=i(self.last),
            nb_feature=i(self.nb_feature),
            nb_mean=f(self.nb_mean, 2),
            nb_divisor=f(self.nb_divisor, 2),
            nb_offset=f(self.nb_offset, 2),
        )


def _by_naive_bayes(leaf: Any, tree: HoeffdingTreeClassifier) -> bool:
    """Which of its two predictions River takes from this leaf."""
    if not leaf.is_active():
        return False
    if isinstance(tree, HoeffdingAdaptiveTreeClassifier):  # its leaves are of one class for all modes
        if tree.leaf_prediction == tree._MAJORITY_CLASS:
            return False
        if tree.leaf_prediction == tree._NAIVE_BAYES:
            return bool(leaf.total_weight >= tree.nb_threshold)
    if isinstance(leaf, LeafNaiveBayesAdaptive):
        return bool(leaf._nb_correct_weight >= leaf._mc_correct_weight)
    if isinstance(leaf, LeafNaiveBayes):
        return bool(leaf.total_weight >= tree.nb_threshold)
    return False
