"""Subsampling of genuine outcomes, decided by the transaction's hash.

Frauds are all kept, of the genuine ones one in n. Which ones depends on nothing but the transaction, so that
a replay, a backtest and a second learner keep the same. What a learner makes of it so that its probabilities
stay those of the whole stream is its own affair: a weight of n for the genuine ones kept (unbiased
gradients), or ``correct_prior``.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

_GOLDEN = np.uint64(0x9E3779B97F4A7C15)


def keep_mask(hashes: NDArray[np.uint64], fraud: NDArray[np.bool_], keep_one_in: int) -> NDArray[np.bool_]:
    """Which outcomes to learn.

    :param hashes: u64[n], the hashes of the transaction ids.
    :param fraud: bool[n]; frauds are always kept.
    :param keep_one_in: n of "one in n genuine"; 1 keeps all.
    :returns: bool[n].
    :raises ValueError: ``keep_one_in`` below 1.
    """
    if keep_one_in < 1:
        raise ValueError(f"keep_one_in must be at least 1, not {keep_one_in}")
    if keep_one_in == 1:
        return np.ones(len(hashes), np.bool_)
    # Mixed once more (SplitMix64), so that neither keys placed by hash nor a poor hash bias the sample.
    z = hashes.astype(np.uint64) + _GOLDEN
    z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    z ^= z >> np.uint64(31)
    return np.asarray(fraud | (z % np.uint64(keep_one_in) == 0), np.bool_)


def correct_prior(p: NDArray[np.float64], keep_one_in: int) -> NDArray[np.float64]:
    """Probabilities for the whole stream from those of a model that saw one in ``keep_one_in`` genuine
    outcomes.

    Dal Pozzolo, Caelen, Johnson, Bontempi: Calibrating probability with undersampling for unbalanced
    classification, SSCI 2015: ``p / (p + n (1 - p))``. Keeps the order and the ends 0 and 1.
    """
    return np.asarray(p / (p + keep_one_in * (1.0 - p)), np.float64)
