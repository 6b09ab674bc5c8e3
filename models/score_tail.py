"""Counts of recent scores in fixed bins, older ones counting less: how many lie above a threshold.

The bins are equally wide in the logarithm of the odds, to about 1.5 %, and are read off the bits of the odds
as a double: no logarithm whose last bit depends on the machine, and an edge is an exact number. Two sketches
merge by adding. Like DDSketch (Masson, Rim, Lee, VLDB 2019), with relative error in the odds on both sides of
one half.
"""

from __future__ import annotations

import numpy as np

from models.arrays import Floats, Ints

#: Odds from 2^-20 to 2^20 (probabilities from 1e-6 to 1 - 1e-6) are told apart, 64 bins for every doubling.
_OCTAVES = 20
_SHIFT = np.int64(52 - 6)
_LOWEST = np.int64((1023 - _OCTAVES) << 6)
BINS = 2 * _OCTAVES * 64
_MOST_ODDS = 2.0**_OCTAVES


def bins_of(scores: Floats) -> Ints:
    """The bin i64[n] of each score f64[n] in [0, 1]."""
    odds = scores / np.maximum(1.0 - scores, 1.0 / (2.0 * _MOST_ODDS))
    bins = (odds.view(np.int64) >> _SHIFT) - _LOWEST
    held: Ints = np.minimum(np.maximum(bins, 0), BINS - 1)
    return held


def score_of(edge: int) -> float:
    """The lowest score of a bin: of what is at or above it, all is in that bin or a higher one.

    0 for the lowest bin; 1 for ``BINS``, above which nothing is.
    """
    if edge <= 0:
        return 0.0
    if edge >= BINS:
        return 1.0
    odds = float(np.array((edge + int(_LOWEST)) << int(_SHIFT), np.int64).view(np.float64))
    score = odds / (1.0 + odds)
    # The division may round to just below the edge.
    while int(bins_of(np.array([score]))[0]) < edge:
        score = float(np.nextafter(score, 1.0))
    return score


class ScoreTail:
    """A decayed histogram: counts of the present step, whole numbers, and those of earlier steps, decayed.

    They are apart so that sums are exact however a step is cut into batches.

    :ivar before: f64[BINS], decayed.
    :ivar present: i64[BINS].
    """

    def __init__(self) -> None:
        self.before: Floats = np.zeros(BINS)
        self.present: Ints = np.zeros(BINS, np.int64)

    def add(self, bins: Ints) -> None:
        """Count scores in these bins."""
        np.add.at(self.present, bins, 1)

    def fold(self, decay: float) -> None:
        """The step is over: what was before counts ``decay`` times as much."""
        self.before = self.before * decay + self.present
        self.present = np.zeros(BINS, np.int64)

    def above(self) -> Floats:
        """f64[BINS + 1]: how many of the earlier steps' scores lie in each bin or above it; 0 at the end."""
        tail = np.zeros(BINS + 1)
        tail[:BINS] = np.cumsum(self.before[::-1])[::-1]
        return tail

    def merge(self, other: ScoreTail) -> None:
        """Add what another sketch, folded at the same steps, has counted."""
        self.before = self.before + other.before
        self.present = self.present + other.present
