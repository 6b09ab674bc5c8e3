"""Logistic regression over scaled features."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar, Self

import numpy as np
from numpy.typing import NDArray

from models.jit import kernel
from models.scorers.base import (
    Arrays,
    Floats,
    Header,
    ScorerArraysError,
    as_matrix,
    floats,
    header_float,
    header_int,
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
    logarithm: bool,
    mean: Floats,
    deviation: Floats,
    limit: float,
    weight: Floats,
    intercept: float,
) -> Floats:
    n, k = x.shape
    out = np.empty(n)
    for i in range(n):
        total = 0.0
        for j in range(k):
            # A feature that never varied says nothing; River scales it to 0.
            if deviation[j] == 0.0 or weight[j] == 0.0:
                continue
            v = x[i, j]
            if logarithm:
                v = math.copysign(math.log(1.0 + abs(v)), v)  # log1p costs twice as much
            v = (v - mean[j]) / deviation[j]
            v = min(max(v, -limit), limit)
            total += v * weight[j]
        out[i] = _sigmoid(total + intercept)
    return out


@dataclass(frozen=True, slots=True)
class LogisticScorer:
    """``sigmoid(weight · clip((f(x) - mean) / deviation, ±limit) + intercept)``.

    ``f`` is the signed logarithm ``sign(x) log(1 + |x|)`` or the identity. The clip keeps one absurd value
    from deciding alone.
    """

    kind: ClassVar[str] = "logistic"

    mean: Floats
    deviation: Floats
    weight: Floats
    intercept: float
    limit: float
    logarithm: bool

    @property
    def n_features(self) -> int:
        """Number of columns ``score`` expects."""
        return len(self.weight)

    @property
    def steps(self) -> int:
        """Most steps for a row: its features."""
        return len(self.weight)

    def score(self, x: Floats) -> Floats:
        """Fraud probabilities f64[n] of f64[n, n_features]; ValueError on another shape or values not
        finite.
        """
        x = as_matrix(x, self.n_features)
        result: Floats = _score(
            x, self.logarithm, self.mean, self.deviation, self.limit, self.weight, self.intercept
        )
        return result

    def to_arrays(self) -> tuple[dict[str, int | float | str], dict[str, NDArray[np.generic]]]:
        """Header and arrays for a snapshot."""
        header: dict[str, int | float | str] = {
            "intercept": self.intercept,
            "limit": self.limit,
            "logarithm": int(self.logarithm),
        }
        return header, {"mean": self.mean, "deviation": self.deviation, "weight": self.weight}

    @classmethod
    def from_arrays(cls, header: Header, arrays: Arrays) -> Self:
        """The inverse of ``to_arrays``; ScorerArraysError on anything else."""
        weight = floats(arrays, "weight", [None])
        deviation = floats(arrays, "deviation", [len(weight)])
        limit = header_float(header, "limit")
        if (deviation < 0).any() or limit <= 0:
            raise ScorerArraysError("deviations must not be negative and the limit must be positive")
        return cls(
            mean=floats(arrays, "mean", [len(weight)]),
            deviation=deviation,
            weight=weight,
            intercept=header_float(header, "intercept"),
            limit=limit,
            logarithm=bool(header_int(header, "logarithm")),
        )
