"""Weighted mean of two scorers' probabilities."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar, Self, TypeVar

import numpy as np
from numpy.typing import NDArray

from models.scorers.base import Arrays, Floats, FrozenScorer, Header, ScorerArraysError, header_float
from models.scorers.single import SINGLE

Value = TypeVar("Value")


@dataclass(frozen=True, slots=True)
class MeanScorer:
    """``weight · first + (1 - weight) · second``.

    In header and arrays what belongs to a scorer has its name and a dot before it; ``first.kind`` and
    ``second.kind`` say what they are. A mean of means there is not.
    """

    kind: ClassVar[str] = "mean"

    first: FrozenScorer
    second: FrozenScorer
    weight: float

    @property
    def n_features(self) -> int:
        """Number of columns ``score`` expects."""
        return self.second.n_features

    @property
    def steps(self) -> int:
        """Most steps for a row: those of both scorers."""
        return self.first.steps + self.second.steps

    def score(self, x: Floats) -> Floats:
        """Fraud probabilities f64[n] of f64[n, n_features]; ValueError on another shape or values not
        finite.
        """
        return self.weight * self.first.score(x) + (1.0 - self.weight) * self.second.score(x)

    def to_arrays(self) -> tuple[dict[str, int | float | str], dict[str, NDArray[np.generic]]]:
        """Header and arrays for a snapshot."""
        header: dict[str, int | float | str] = {"weight": self.weight}
        arrays: dict[str, NDArray[np.generic]] = {}
        for name, scorer in (("first", self.first), ("second", self.second)):
            own_header, own_arrays = scorer.to_arrays()
            header |= {f"{name}.kind": scorer.kind} | {f"{name}.{key}": own_header[key] for key in own_header}
            arrays |= {f"{name}.{key}": own_arrays[key] for key in own_arrays}
        return header, arrays

    @classmethod
    def from_arrays(cls, header: Header, arrays: Arrays) -> Self:
        """The inverse of ``to_arrays``; ScorerArraysError on anything else."""
        weight = header_float(header, "weight")
        if not 0.0 <= weight <= 1.0:
            raise ScorerArraysError(f"weight must lie between 0 and 1, not {weight}")
        first, second = (_part(name, header, arrays) for name in ("first", "second"))
        if first.n_features != second.n_features:
            raise ScorerArraysError(
                f"one scorer has {first.n_features} features, the other {second.n_features}"
            )
        return cls(first, second, weight)


def _part(name: str, header: Header, arrays: Arrays) -> FrozenScorer:
    kind = header.get(f"{name}.kind")
    if kind not in SINGLE:
        raise ScorerArraysError(f"{name}.kind is {kind!r}, known are {', '.join(sorted(SINGLE))}")
    return SINGLE[str(kind)].from_arrays(_of(name, header), _of(name, arrays))


def _of(name: str, values: Mapping[str, Value]) -> dict[str, Value]:
    start = f"{name}."
    return {key.removeprefix(start): value for key, value in values.items() if key.startswith(start)}
