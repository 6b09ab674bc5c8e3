"""Quantile bins of features, fitted to a sample."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Bins:
    """Edges of one feature (ascending) and the coarse bin of every bin; bin = number of edges at or below the
    value.
    """

    edges: tuple[float, ...]
    coarse: tuple[int, ...]

    @property
    def n_coarse(self) -> int:
        """Number of coarse bins."""
        return self.coarse[-1] + 1

    def find(self, value: float) -> int:
        """The bin of a value."""
        return bisect_right(self.edges, value)

    def middles(self) -> list[float]:
        """A value inside every bin; the outer ones lie just outside the outer edges."""
        if not self.edges:
            return [0.0]
        e = self.edges
        halves = ((a, a / 2 + b / 2, b) for a, b in pairwise(e))
        inner = [
            m if a <= m < b else a for a, m, b in halves
        ]  # between neighbouring floats there is no middle
        return [float(np.nextafter(e[0], -np.inf)), *inner, e[-1]]


def fit(genuine: Floats, fraud: Floats, n_bins: int, n_coarse: int) -> Bins:
    """Bins of one feature.

    Edges are quantiles of the genuine values and, a quarter as many, of the fraudulent ones: these put
    resolution where the frauds are, where the genuine values are few. Values that occur often get a bin of
    their own.

    :param genuine: f64[n], sampled values of genuine outcomes.
    :param fraud: f64[m], values of frauds.
    :param n_bins: about how many bins to make.
    :param n_coarse: about how many coarse bins to make.
    """
    coarse_edges = _quantiles(genuine, n_coarse // 2) | _quantiles(fraud, n_coarse - n_coarse // 2)
    edges = sorted(coarse_edges | _quantiles(genuine, n_bins) | _quantiles(fraud, n_bins // 4))
    group, coarse = 0, [0]
    for edge in edges:
        group += edge in coarse_edges
        coarse.append(group)
    return Bins(tuple(edges), tuple(coarse))


def _quantiles(values: Floats, n: int) -> set[float]:
    """Edges that cut the values into about n parts, each just above a value that occurs."""
    if len(values) == 0 or n < 2:
        return set()
    ordered = np.sort(values)
    picked = ordered[(np.arange(1, n) * len(ordered)) // n]
    # An edge at the value begins a bin with it; the edge after it ends that bin when the value occurs often.
    often = picked[:-1][np.diff(picked) == 0]
    with np.errstate(over="ignore"):  # just above the largest float is infinity, dropped below
        edges = np.concatenate([picked, np.nextafter(often, np.inf)])
    low = ordered[0]
    return {float(e) for e in edges if e > low and np.isfinite(e)}


def layout(bins: Sequence[Bins], crosses: Sequence[tuple[int, int]]) -> tuple[list[int], list[int], int]:
    """Where the weights of features and crosses begin in one flat numbering, and its length."""
    starts, at = [], 0
    for b in bins:
        starts.append(at)
        at += len(b.coarse)
    cross_starts = []
    for i, j in crosses:
        cross_starts.append(at)
        at += bins[i].n_coarse * bins[j].n_coarse
    return starts, cross_starts, at
