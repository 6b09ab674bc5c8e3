"""Additive model over bins of the features and over crosses of two features' bins."""

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
    ints,
)


@kernel
def _sigmoid(z: float) -> float:
    """River's sigmoid, with its cut at ±30."""
    if z < -30.0:
        return 0.0
    if z > 30.0:
        return 1.0
    return 1.0 / (1.0 + math.exp(-z))


@kernel
def _score(
    x: Floats,
    edges: Floats,
    start: Ints,
    weight: Floats,
    coarse: Ints,
    n_coarse: Ints,
    cross_a: Ints,
    cross_b: Ints,
    cross_start: Ints,
    cross_weight: Floats,
    intercept: float,
) -> Floats:
    n, k = x.shape
    out = np.empty(n)
    group = np.empty(k, np.int32)
    for i in range(n):
        total = 0.0
        for j in range(k):
            v = x[i, j]
            low, high = start[j], start[j + 1]
            while low < high:  # the bin is the number of edges at or below the value
                middle = (low + high) >> 1
                if edges[middle] <= v:
                    low = middle + 1
                else:
                    high = middle
            at = low + j
            total += weight[at]
            group[j] = coarse[at]
        for c in range(len(cross_a)):
            b = cross_b[c]
            total += cross_weight[cross_start[c] + group[cross_a[c]] * n_coarse[b] + group[b]]
        out[i] = _sigmoid(total + intercept)
    return out


@dataclass(frozen=True, slots=True)
class BinnedScorer:
    """``sigmoid(intercept + Σ weight[bin of feature] + Σ cross_weight[coarse bins of two features])``.

    With k features, e edges in all and c crosses: the edges of feature j are ``edges[start[j]:start[j + 1]]``
    (ascending), it has one bin more than edges, and its bins lie in ``weight`` and ``coarse`` from
    ``start[j] + j`` on. ``coarse`` maps a bin to one of ``n_coarse[j]`` coarse ones; cross ``i`` of features
    ``a`` and ``b`` has its ``n_coarse[a] * n_coarse[b]`` weights from ``cross_start[i]`` on.
    """

    kind: ClassVar[str] = "binned"

    edges: Floats
    start: Ints
    weight: Floats
    coarse: Ints
    n_coarse: Ints
    cross_a: Ints
    cross_b: Ints
    cross_start: Ints
    cross_weight: Floats
    intercept: float

    @property
    def n_features(self) -> int:
        """Number of columns ``score`` expects."""
        return len(self.n_coarse)

    @property
    def steps(self) -> int:
        """Most steps for a row: a binary search for each feature, and the crosses."""
        return len(self.n_coarse) * (len(self.edges).bit_length() + 1) + len(self.cross_a)

    def score(self, x: Floats) -> Floats:
        """Fraud probabilities f64[n] of f64[n, n_features]; ValueError on another shape or values not
        finite.
        """
        x = as_matrix(x, self.n_features)
        result: Floats = _score(
            x, self.edges, self.start, self.weight, self.coarse, self.n_coarse,
            self.cross_a, self.cross_b, self.cross_start, self.cross_weight, self.intercept,
        )  # fmt: skip
        return result

    def to_arrays(self) -> tuple[dict[str, int | float | str], dict[str, NDArray[np.generic]]]:
        """Header and arrays for a snapshot."""
        return {"intercept": self.intercept}, {name: getattr(self, name) for name in _ARRAYS}

    @classmethod
    def from_arrays(cls, header: Header, arrays: Arrays) -> Self:
        """The inverse of ``to_arrays``; ScorerArraysError on anything else."""
        edges = floats(arrays, "edges", [None])
        n_coarse = ints(arrays, "n_coarse", [None], 1, 1 << 16)
        k, e = len(n_coarse), len(edges)
        start = ints(arrays, "start", [k + 1], 0, e + 1)
        sizes = np.diff(start)
        if start[0] != 0 or start[-1] != e or (sizes < 0).any():
            raise ScorerArraysError("the starts of the edges must rise from 0 to their number")
        inner = np.ones(max(e - 1, 0), bool)
        inner[start[(start > 0) & (start < e)] - 1] = False
        if (np.diff(edges)[inner] <= 0).any():
            raise ScorerArraysError("the edges of a feature must rise")
        coarse = ints(arrays, "coarse", [e + k], 0, 1 << 16)
        if (coarse >= np.repeat(n_coarse, sizes + 1)).any():
            raise ScorerArraysError("a coarse bin is out of range")
        cross_a = ints(arrays, "cross_a", [None], 0, k)
        cross_b = ints(arrays, "cross_b", [len(cross_a)], 0, k)
        cross_weight = floats(arrays, "cross_weight", [None])
        cross_start = ints(arrays, "cross_start", [len(cross_a)], 0, len(cross_weight) + 1)
        ends = cross_start.astype(np.int64) + n_coarse[cross_a].astype(np.int64) * n_coarse[cross_b]
        if (ends > len(cross_weight)).any():
            raise ScorerArraysError("a cross reaches beyond its weights")
        return cls(
            edges=edges,
            start=start,
            weight=floats(arrays, "weight", [e + k]),
            coarse=coarse,
            n_coarse=n_coarse,
            cross_a=cross_a,
            cross_b=cross_b,
            cross_start=cross_start,
            cross_weight=cross_weight,
            intercept=header_float(header, "intercept"),
        )


_ARRAYS = tuple(f.name for f in fields(BinnedScorer) if f.name not in ("intercept",))
