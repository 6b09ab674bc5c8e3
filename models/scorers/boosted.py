"""Sum of gradient-boosted decision trees.

The trees lie in one set of arrays. A row goes to ``left`` when ``x[feature] <= threshold``, otherwise to
``right``; a link of 0 or more is a branch, ``-1 - i`` is leaf ``i``. Leaf values are log-odds and are added
up tree by tree, as LightGBM does, so that the probabilities agree to 1e-12.

Friedman: Greedy function approximation: a gradient boosting machine, Annals of Statistics 29, 2001.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, fields
from typing import ClassVar, Self

import numpy as np
from numpy.typing import NDArray

from models.jit import kernel
from models.scorers.base import (
    Arrays,
    Floats,
    Header,
    Ints,
    ScorerArraysError,
    as_matrix,
    floats,
    header_float,
    header_int,
    ints,
)


@kernel
def _score(
    x: Floats,
    root: Ints,
    feature: Ints,
    threshold: Floats,
    left: Ints,
    right: Ints,
    value: Floats,
    base: float,
) -> Floats:
    n = x.shape[0]
    total = np.zeros(n)
    for tree in range(len(root)):  # a tree stays in the first-level cache while all rows pass it
        for i in range(n):
            node = root[tree]
            while node >= 0:
                node = left[node] if x[i, feature[node]] <= threshold[node] else right[node]
            total[i] += value[-1 - node]
    for i in range(n):
        total[i] = 1.0 / (1.0 + math.exp(-(base + total[i])))
    return total


@kernel
def _longest(root: Ints, left: Ints, right: Ints) -> int:
    """Sum over the trees of the nodes on the longest way to a leaf."""
    nodes = np.empty(len(left), np.int64)
    for node in range(len(left) - 1, -1, -1):  # those below come after their branch
        below = 0
        if left[node] >= 0:
            below = nodes[left[node]]
        if right[node] >= 0:
            below = max(below, nodes[right[node]])
        nodes[node] = below + 1
    total = len(root)
    for tree in range(len(root)):
        if root[tree] >= 0:
            total += nodes[root[tree]]
    return total


@dataclass(frozen=True, slots=True)
class BoostedScorer:
    """``sigmoid(base + Σ leaf value of each tree)``.

    Shapes, with t trees, m branches and l leaves: ``root`` [t]; ``feature``, ``threshold``, ``left``,
    ``right`` [m]; ``value`` [l]. A branch comes before the branches below it.
    """

    kind: ClassVar[str] = "boosted"

    width: int
    base: float
    root: Ints
    feature: Ints
    threshold: Floats
    left: Ints
    right: Ints
    value: Floats

    @property
    def n_features(self) -> int:
        """Number of columns ``score`` expects."""
        return self.width

    @property
    def steps(self) -> int:
        """Most steps for a row: the longest way through each of the trees."""
        return int(_longest(self.root, self.left, self.right))

    def score(self, x: Floats) -> Floats:
        """Fraud probabilities f64[n] of f64[n, n_features]; ValueError on another shape or values not
        finite.
        """
        x = as_matrix(x, self.width)
        result: Floats = _score(
            x, self.root, self.feature, self.threshold, self.left, self.right, self.value, self.base
        )
        return result

    def to_arrays(self) -> tuple[dict[str, int | float | str], dict[str, NDArray[np.generic]]]:
        """Header and arrays for a snapshot."""
        return {"width": self.width, "base": self.base}, {name: getattr(self, name) for name in _ARRAYS}

    @classmethod
    def from_arrays(cls, header: Header, arrays: Arrays) -> Self:
        """The inverse of ``to_arrays``; ScorerArraysError on anything else."""
        width = header_int(header, "width")
        if width < 1:
            raise ScorerArraysError(f"width must be at least 1, not {width}")
        feature = ints(arrays, "feature", [None], 0, width)
        value = floats(arrays, "value", [None])
        m, leaves = len(feature), len(value)
        scorer = cls(
            width=width,
            base=header_float(header, "base"),
            root=ints(arrays, "root", [None], -leaves, m),
            feature=feature,
            threshold=floats(arrays, "threshold", [m]),
            left=ints(arrays, "left", [m], -leaves, m),
            right=ints(arrays, "right", [m], -leaves, m),
            value=value,
        )
        own = np.arange(m)
        for link in (scorer.left, scorer.right):
            # Branches after the one above them: no walk can go round in a circle.
            if ((link >= 0) & (link <= own)).any():
                raise ScorerArraysError("a branch must come before those below it")
        if len(scorer.root) and float(np.abs(value).max()) * len(scorer.root) > _MOST:
            raise ScorerArraysError("leaf values so large cannot be log-odds")
        return scorer


_MOST = 1e6
"""Log-odds beyond which a sum of trees is nonsense; far from overflow."""

_ARRAYS = tuple(f.name for f in fields(BoostedScorer) if f.name not in ("width", "base"))
