"""Distributions in fixed bins, which add up over slots of time, partitions and workers.

Features are binned by the inverse hyperbolic sine: linear near 0, logarithmic beyond, the same for every
feature and every model, so that a reference can be changed without counting anew. A factor of ten is
`DECADE` bins away from 0, which tells a change of unit from a change of shape.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from monitoring.live_quality import logit_bins

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]

#: Bins for a factor of ten.
DECADE = 12
#: Values up to about this are binned linearly.
NEAR_ZERO = 0.01
_HALF = 10 * DECADE
#: The bin of 0.
ZERO = _HALF
BINS = 2 * _HALF + 1
#: Groups of bins that distances are taken over, at most.
GROUPS = 20
#: Bins of a score, equally wide in the logit.
SCORE_BINS = 256
_FINER = 8
#: The champion's logits are summed in thousandths.
_UNIT = 1000.0
_LARGEST = 14.0


def feature_bins(values: Floats) -> Ints:
    """The bin of each value, 0..BINS - 1; what is not a number counts as 0."""
    scaled = np.arcsinh(np.nan_to_num(values) / NEAR_ZERO) * (DECADE / np.log(10))
    index: Ints = np.clip(np.rint(scaled), -_HALF, _HALF).astype(np.int64)
    return index + _HALF


@dataclass(slots=True)
class Shape:
    """What one slot of time looks like.

    Args:
        features: i64[2, F * BINS]: by feature and bin, rows and the sum of the champion's logits in
            thousandths.
        scores: by role, rows by bin of the score, i64[SCORE_BINS].
    """

    features: Ints
    scores: dict[str, Ints] = field(default_factory=dict)

    @classmethod
    def empty(cls, features: int) -> Shape:
        return cls(np.zeros((2, features * BINS), dtype=np.int64))

    def merge(self, other: Shape) -> None:
        self.features += other.features
        for role, counts in other.scores.items():
            if role in self.scores:
                self.scores[role] = self.scores[role] + counts
            else:
                self.scores[role] = counts.copy()

    def of_feature(self, number: int) -> Ints:
        """Rows by bin."""
        return self.features[0, number * BINS : (number + 1) * BINS]

    def logits(self, number: int) -> Ints:
        """Sum of the champion's logits by bin, in thousandths."""
        return self.features[1, number * BINS : (number + 1) * BINS]

    @property
    def rows(self) -> int:
        """Rows whose features are counted."""
        return int(self.of_feature(0).sum()) if self.features.shape[1] else 0


def shape_of(features: Floats, scores: dict[str, Floats], sampled: npt.NDArray[np.bool_]) -> Shape:
    """The shape of some rows.

    Args:
        features: (rows, F).
        scores: by role, the champion's first; NaN is left out.
        sampled: rows whose features are counted.
    """
    count = features.shape[1]
    index = (feature_bins(features[sampled]) + np.arange(count) * BINS).ravel()
    champion = next(iter(scores.values()))[sampled]
    clipped = np.clip(champion, 1e-6, 1 - 1e-6)
    logit = np.rint(np.clip(np.log(clipped / (1 - clipped)), -_LARGEST, _LARGEST) * _UNIT)
    rows = np.bincount(index, minlength=count * BINS)
    sums = np.bincount(index, np.repeat(logit, count), count * BINS)
    shape = Shape(np.stack([rows, sums.astype(np.int64)]))
    for role, values in scores.items():
        known = values[np.isfinite(values)]
        shape.scores[role] = np.bincount(logit_bins(known) // _FINER, minlength=SCORE_BINS)
    return shape


def jensen_shannon(first: npt.NDArray[np.number], second: npt.NDArray[np.number]) -> float:
    """Jensen-Shannon divergence of two count vectors over the same bins, in bits: 0 equal, 1 disjoint.

    Lin: Divergence Measures Based on the Shannon Entropy (IEEE Transactions on Information Theory, 1991). NaN
    when one is empty.
    """
    if not first.sum() or not second.sum():
        return float("nan")
    p, q = first / first.sum(), second / second.sum()
    middle = (p + q) / 2

    def divergence(part: Floats) -> float:
        used = part > 0
        return float((part[used] * np.log2(part[used] / middle[used])).sum())

    return max(0.0, (divergence(p) + divergence(q)) / 2)


def labels_of(reference: Ints) -> Ints:
    """The group of each bin, so that groups of neighbouring bins have about equal shares of the reference.

    The population stability index over bins that the reference hardly has would be noise.
    """
    share = np.cumsum(reference) - reference / 2
    label = np.minimum((share * GROUPS / max(1, int(reference.sum()))).astype(np.int64), GROUPS - 1)
    return np.unique(label, return_inverse=True)[1].astype(np.int64)


def grouped(reference: Ints, *others: Ints) -> list[Ints]:
    """All count vectors by the groups of the reference."""
    label = labels_of(reference)
    return [np.bincount(label, each).astype(np.int64) for each in (reference, *others)]
