"""Why a transaction was scored as it was: contributions of features by occlusion.

A feature's contribution is the score minus the score with that feature put to its reference value, the mean
over the outcomes the model learned from. It needs nothing of the scorer but ``score``, and costs n_features +
1 scores per explained row: meant for alerts, not for every transaction. Features that stand for the same
thing share the contribution or hide one another's; the order is a hint for an analyst, not an attribution
with axioms.

Zeiler, Fergus: Visualizing and understanding convolutional networks, ECCV 2014 (occlusion).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from models.scorers.base import FrozenScorer


@dataclass(frozen=True, slots=True)
class Reason:
    """One feature's part in a score: ``contribution`` is a difference of probabilities."""

    feature: str
    value: float
    contribution: float


def contributions(
    scorer: FrozenScorer, x: NDArray[np.float64], reference: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Contributions f64[n, k] of every feature to the scores of ``x`` f64[n, k]; ``reference`` is f64[k]."""
    n, k = x.shape
    occluded = np.repeat(x, k + 1, axis=0).reshape(n, k + 1, k)
    features = np.arange(k)
    occluded[:, features + 1, features] = reference
    scores = scorer.score(occluded.reshape(n * (k + 1), k)).reshape(n, k + 1)
    return np.asarray(scores[:, :1] - scores[:, 1:], np.float64)


def explain(
    scorer: FrozenScorer,
    x: NDArray[np.float64],
    reference: NDArray[np.float64],
    names: Sequence[str],
    top: int = 3,
) -> list[list[Reason]]:
    """For every row of ``x`` the at most ``top`` features that raised the score most, largest first.

    Features that did not raise it are left out; equal contributions keep the order of ``names``.
    """
    parts = contributions(scorer, x, reference)
    order = np.argsort(-parts, axis=1, kind="stable")[:, :top]
    return [
        [Reason(names[j], float(x[i, j]), float(parts[i, j])) for j in order[i].tolist() if parts[i, j] > 0.0]
        for i in range(len(x))
    ]
