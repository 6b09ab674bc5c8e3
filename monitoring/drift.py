"""Distances between a reference distribution and the recent one, from counts in the same bins."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

NAN = float("nan")


def psi(reference: npt.NDArray[np.number], recent: npt.NDArray[np.number]) -> float:
    """Population stability index of two count vectors over the same bins; 0 when equal, NaN when one is
    empty.

    Half a count is added to each bin, so that an empty one gives a large and not an infinite value. Siddiqi:
    Credit Risk Scorecards (2006): below 0.1 stable, above 0.25 shifted.
    """
    if not reference.sum() or not recent.sum():
        return NAN
    expected = (reference + 0.5) / (reference + 0.5).sum()
    actual = (recent + 0.5) / (recent + 0.5).sum()
    return float(((actual - expected) * np.log(actual / expected)).sum())


def ks(reference: npt.NDArray[np.number], recent: npt.NDArray[np.number]) -> float:
    """Kolmogorov-Smirnov distance of two count vectors over the same ordered bins, at the bin edges; 0..1."""
    if not reference.sum() or not recent.sum():
        return NAN
    gap = np.cumsum(reference) / reference.sum() - np.cumsum(recent) / recent.sum()
    return float(np.abs(gap).max())
