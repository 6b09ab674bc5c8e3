"""Whether scores still mean what they meant, once labels are in, and what to expect before they are.

Days are the unit: transactions of one card are alike, and days are nearly independent, so that a day counts
as one observation whatever its rows.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from monitoring.limits import t_quantile
from monitoring.live_quality import BINS, LOGIT_RANGE, ScoreSketch
from monitoring.quality import NAN, ap_of_counts

Floats = npt.NDArray[np.float64]
#: Days at either side of a change, at least.
FEWEST_DAYS = 5
_CENTRES = 1 / (1 + np.exp(-((np.arange(BINS) + 0.5) * (2 * LOGIT_RANGE / BINS) - LOGIT_RANGE)))


def log_loss(sketch: ScoreSketch) -> float:
    """Mean negative log-likelihood of the outcomes under their scores; NaN without one."""
    genuine, fraud = sketch.counts[0], sketch.counts[1]
    rows = int(genuine.sum() + fraud.sum())
    if not rows:
        return NAN
    return float(-(fraud * np.log(_CENTRES) + genuine * np.log1p(-_CENTRES)).sum() / rows)


def change(values: Sequence[float], per_day: float, *, rising: bool = False) -> float:
    """How far the mean of a daily series has changed, as a multiple of what chance hardly passes.

    Every cut of the window into an older and a newer part is tried, as ADWIN does (Bifet, Gavaldà: Learning
    from Time-Changing Data with Adaptive Windowing, SDM 2007, its version without buckets). In place of its
    bound, which asks for independent rows within 0..1, the difference of the two means is measured by
    Student's t with a pooled variance, the chance of an error shared by all cuts.

    Args:
        values: one for each day, oldest first; 0 is given where there are too few.
        per_day: chance that a series without a change gives more than 1, at each look.
        rising: whether only what came after being larger is a change.
    """
    series = np.array([value for value in values if math.isfinite(value)])
    cuts = range(FEWEST_DAYS, len(series) - FEWEST_DAYS + 1)
    if not len(cuts):
        return 0.0
    most = 0.0
    for cut in cuts:
        before, after = series[:cut], series[cut:]
        squares = ((before - before.mean()) ** 2).sum() + ((after - after.mean()) ** 2).sum()
        deviation = math.sqrt(squares / (len(series) - 2) * (1 / len(before) + 1 / len(after)))
        rise = float(after.mean() - before.mean())
        gap = rise if rising else abs(rise)
        most = max(most, gap / deviation if deviation > 1e-12 else (math.inf if gap > 1e-12 else 0.0))
    return most / t_quantile(1 - per_day / (2 * len(cuts)), len(series) - 2)


def calibrated(sketch: ScoreSketch) -> Floats:
    """Share of frauds by score bin, f64[BINS]: isotonic regression on the outcomes, by pooling neighbours.

    Ayer et al.: An Empirical Distribution Function for Sampling with Incomplete Information (1955). Bins
    without outcomes take the value of the bin below.
    """
    rows = (sketch.counts[0] + sketch.counts[1]).astype(np.float64)
    frauds = sketch.counts[1].astype(np.float64)
    used = np.flatnonzero(rows)
    if not len(used):
        return np.zeros(BINS)
    pools: list[tuple[float, float, int]] = []
    for fraud, count in zip(frauds[used].tolist(), rows[used].tolist(), strict=True):
        pool = (fraud, count, 1)
        while pools and pools[-1][0] * pool[1] >= pool[0] * pools[-1][1]:
            last = pools.pop()
            pool = (last[0] + pool[0], last[1] + pool[1], last[2] + pool[2])
        pools.append(pool)
    rates = np.repeat([fraud / count for fraud, count, _ in pools], [width for _, _, width in pools])
    below = np.searchsorted(used, np.arange(BINS), side="right") - 1
    return np.asarray(rates[np.maximum(below, 0)], dtype=np.float64)


def expected_precision(counts: npt.NDArray[np.int64], outcomes: ScoreSketch) -> tuple[float, float]:
    """Share of frauds and average precision to be expected of scores whose outcomes are not known yet.

    An estimate: right as long as a score means what it meant for the outcomes, whatever happens to the
    distribution of scores. Confidence-based performance estimation: Kivimäki et al.: Confidence-based
    Estimators for Predictive Performance in Model Monitoring (2024).

    Args:
        counts: rows by bin of the score, in 1, 2, 4, … neighbouring bins of `ScoreSketch`.
        outcomes: of earlier scores of the same model.

    Returns:
        NaN where there are no scores, or no frauds among the outcomes.
    """
    total = counts.sum()
    if not total or not outcomes.frauds:
        return NAN, NAN
    rows = (outcomes.counts[0] + outcomes.counts[1]).reshape(len(counts), -1).astype(np.float64)
    rates = calibrated(outcomes).reshape(len(counts), -1)
    weight = np.where(rows.sum(axis=1, keepdims=True) > 0, rows, 1.0)
    chance = (rates * weight).sum(axis=1) / weight.sum(axis=1)
    frauds = counts * chance
    return float(frauds.sum() / total), ap_of_counts(counts - frauds, frauds)
