"""Seeded outcomes for learners: feature rows of realistic scale and a truth that is learnable but not
linear."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]


def draw(names: Sequence[str], rows: int, fraud_share: float, seed: int) -> tuple[Floats, NDArray[np.bool_]]:
    """Rows f64[rows, len(names)] and their truth bool[rows].

    Amount-like columns are log-normal, counts and times exponential, shares beta; frauds shift a third of
    the columns, each fraud by one of two patterns, so that trees have something to split on.
    """
    rng = np.random.default_rng(seed)
    fraud = rng.random(rows) < fraud_share
    x = np.empty((rows, len(names)))
    for column, name in enumerate(names):
        x[:, column] = _column(rng, name, rows)
    pattern = rng.integers(0, 2, rows)
    for column in range(0, len(names), 3):
        hit = fraud & (pattern == (column // 3) % 2)
        x[hit, column] = x[hit, column] * rng.uniform(1.5, 4.0, hit.sum()) + x[:, column].std() * 0.5
    return x, fraud


def _column(rng: np.random.Generator, name: str, rows: int) -> Floats:
    if "risk" in name and "count" not in name:
        return rng.beta(1.0, 60.0, rows)
    if "seconds" in name:
        return rng.exponential(40_000.0, rows)
    if "count" in name or "distinct" in name or "frauds" in name:
        return np.floor(rng.exponential(8.0, rows))
    if "over" in name:
        return rng.lognormal(0.0, 0.6, rows)
    if name in {"weekend", "night"}:
        return rng.integers(0, 2, rows).astype(np.float64)
    return rng.lognormal(3.8, 0.8, rows)
