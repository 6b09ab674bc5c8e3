"""Frozen scorers: read-only models as plain arrays that score a whole batch at once.

A scorer holds no River object, draws nothing at random and never learns. It is what travels in a snapshot and
what the score stage runs.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import ClassVar, Protocol, Self

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Ints = NDArray[np.int32]
Arrays = Mapping[str, NDArray[np.generic]]
Header = Mapping[str, int | float | str]


class ScorerArraysError(ValueError):
    """The arrays given to ``from_arrays`` do not describe a scorer: refuse the snapshot."""


class FrozenScorer(Protocol):
    """A model that gives fraud probabilities and cannot change."""

    kind: ClassVar[str]

    @property
    def n_features(self) -> int:
        """Number of columns ``score`` expects, in feature-spec order."""
        ...

    @property
    def steps(self) -> int:
        """Most steps that the score of one row takes, whatever the row: bounds its time by construction."""
        ...

    def score(self, x: Floats) -> Floats:
        """Fraud probabilities.

        :param x: f64[n, n_features], finite; never written to.
        :returns: f64[n] in [0, 1].
        :raises ValueError: wrong shape or dtype, or a value that is not finite.
        """
        ...

    def to_arrays(self) -> tuple[dict[str, int | float | str], dict[str, NDArray[np.generic]]]:
        """The scorer as a flat header and named arrays; ``from_arrays`` is the inverse."""
        ...

    @classmethod
    def from_arrays(cls, header: Header, arrays: Arrays) -> Self:
        """Build a scorer from what ``to_arrays`` gave, believing nothing.

        :raises ScorerArraysError: anything missing, of wrong dtype or shape, or pointing out of bounds.
        """
        ...


def as_matrix(x: Floats, n_features: int) -> Floats:
    """``x`` as a C-contiguous finite f64[n, n_features].

    :raises ValueError: it is not one.
    """
    if x.ndim != 2 or x.shape[1] != n_features or x.dtype != np.float64:
        raise ValueError(f"expected float64[n, {n_features}], got {x.dtype}{list(x.shape)}")
    if not np.isfinite(x).all():
        rows = int((~np.isfinite(x)).any(axis=1).sum())
        raise ValueError(f"{rows} rows have features that are not finite")
    return np.ascontiguousarray(x)


def check_keep_one_in(value: int) -> int:
    """A sampling rate "one of n" as an integer n of at least 1.

    :raises ScorerArraysError: it is not one.
    """
    if isinstance(value, bool) or not isinstance(value, int) or not 1 <= value <= 1_000_000:
        raise ScorerArraysError(f"keep_one_in must be an integer from 1 to 1,000,000, not {value!r}")
    return value


def header_int(header: Header, name: str) -> int:
    """An integer field of a header.

    :raises ScorerArraysError: missing or of another type.
    """
    value = header.get(name)
    if isinstance(value, bool) or not isinstance(value, int):
        raise ScorerArraysError(f"header field {name!r} must be an integer, not {value!r}")
    return value


def header_float(header: Header, name: str) -> float:
    """A finite float field of a header.

    :raises ScorerArraysError: missing, of another type, or not finite.
    """
    value = header.get(name)
    if isinstance(value, bool) or not isinstance(value, int | float) or not abs(value) < 2**1000:
        raise ScorerArraysError(f"header field {name!r} must be a finite number, not {value!r}")
    return float(value)


def floats(arrays: Arrays, name: str, shape: Sequence[int | None]) -> Floats:
    """The finite f64 array ``name`` with the given shape; None stands for any length.

    :raises ScorerArraysError: missing, or otherwise.
    """
    array = _take(arrays, name, np.dtype(np.float64), shape)
    if not np.isfinite(array).all():
        raise ScorerArraysError(f"array {name!r} has values that are not finite")
    return array.astype(np.float64, copy=False)


def ints(arrays: Arrays, name: str, shape: Sequence[int | None], low: int, high: int) -> Ints:
    """The i32 array ``name`` with the given shape and all values in [low, high).

    :raises ScorerArraysError: missing, or otherwise.
    """
    array = _take(arrays, name, np.dtype(np.int32), shape).astype(np.int32, copy=False)
    if array.size and (array.min() < low or array.max() >= high):
        raise ScorerArraysError(f"array {name!r} has values outside [{low}, {high})")
    return array


def _take(
    arrays: Arrays, name: str, dtype: np.dtype[np.generic], shape: Sequence[int | None]
) -> NDArray[np.generic]:
    array = arrays.get(name)
    if array is None:
        raise ScorerArraysError(f"array {name!r} is missing")
    fits = array.ndim == len(shape) and all(
        want is None or got == want for got, want in zip(array.shape, shape, strict=True)
    )
    if array.dtype != dtype or not fits:
        raise ScorerArraysError(
            f"array {name!r} must be {dtype}{list(shape)}, not {array.dtype}{list(array.shape)}"
        )
    return np.ascontiguousarray(array)
