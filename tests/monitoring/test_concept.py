"""Concept and label drift from daily figures, and quality before labels."""

from __future__ import annotations

import math

import numpy as np
import pytest
from sklearn.isotonic import IsotonicRegression

from monitoring.concept import calibrated, change, expected_precision, log_loss
from monitoring.live_quality import BINS, ScoreSketch, logit_bins
from monitoring.quality import average_precision


def scored(seed: int, rows: int, shift: float = 0.0) -> tuple[np.ndarray, np.ndarray]:
    """Outcomes drawn with the probability of their score."""
    random = np.random.default_rng(seed)
    score = 1 / (1 + np.exp(-random.normal(-4 + shift, 1.5, rows)))
    return random.random(rows) < score, score


def sketch(truth: np.ndarray, score: np.ndarray) -> ScoreSketch:
    result = ScoreSketch()
    result.update(truth, score)
    return result


def test_log_loss_is_that_of_the_rows() -> None:
    """Up to the width of a bin."""
    truth, score = scored(1, 5000)
    exact = -np.mean(np.where(truth, np.log(score), np.log1p(-score)))
    assert log_loss(sketch(truth, score)) == pytest.approx(exact, rel=1e-3)
    assert math.isnan(log_loss(ScoreSketch()))


def test_a_change_is_beyond_the_limit() -> None:
    """Three standard deviations more are, half of one is not, nor are too few days."""
    random = np.random.default_rng(2)
    series = random.normal(0, 1, 28)
    half, three = series.copy(), series.copy()
    half[20:] += 0.5
    three[20:] += 3
    assert 0 < change(half.tolist(), 0.01) < 1 < change(three.tolist(), 0.01) < 10
    assert change([*series[:20].tolist(), math.nan], 0.01) < 1
    assert change([1.0] * 9, 0.01) == change([1.0] * 28, 0.01) == 0
    for rising in (False, True):
        assert change([1.0] * 10 + [2.0] * 10, 0.01, rising=rising) == math.inf
    assert change([2.0] * 10 + [1.0] * 10, 0.01) == math.inf
    assert change([2.0] * 10 + [1.0] * 10, 0.01, rising=True) == 0


def test_a_quiet_series_is_alarmed_as_seldom_as_declared() -> None:
    """Of one look in a hundred, whatever the length of the window; days need not be normal."""
    random = np.random.default_rng(3)
    trials = 3000
    for days in (14, 28):
        alarms = sum(change(random.gamma(4.0, 1.0, days).tolist(), 0.01) > 1 for _ in range(trials))
        assert alarms / trials <= 0.013


def test_calibration_is_isotonic_regression() -> None:
    """The same as scikit-learn's on the bins that have outcomes."""
    truth, score = scored(4, 20_000)
    held = sketch(truth, score)
    rows = held.counts[0] + held.counts[1]
    used = rows > 0
    bins = np.flatnonzero(used)
    regression = IsotonicRegression().fit(bins, held.counts[1][used] / rows[used], rows[used])
    expected = regression.predict(bins)
    np.testing.assert_allclose(calibrated(held)[used], expected, atol=1e-12)
    assert len(calibrated(held)) == BINS


def test_quality_is_estimated_before_labels() -> None:
    """Scores that have moved, whose labels are not in: share of frauds and AP are those that come out."""
    outcomes = sketch(*scored(5, 200_000))
    truth, score = scored(6, 100_000, shift=0.7)
    counts = np.bincount(logit_bins(score) // 8, minlength=BINS // 8)
    share, precision = expected_precision(counts, outcomes)
    assert share == pytest.approx(truth.mean(), rel=0.05)
    assert precision == pytest.approx(average_precision(truth, score), abs=0.02)
    assert math.isnan(expected_precision(counts * 0, outcomes)[0])
    assert math.isnan(expected_precision(counts, ScoreSketch())[1])
