"""Drift detectors: quiet on stationary streams of rare frauds, awake when frauds change."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from numpy.typing import NDArray

from models.learners.drift_detectors import (
    DETECTORS,
    LOSS_CAP,
    Adwin,
    Detector,
    DriftWatch,
    PageHinkley,
    log_loss,
)
from models.sampling import keep_mask

SHARE = 0.008
SEPARATION = 2.5
#: Outcome from which half of the frauds look genuine, in the streams that change.
CHANGE = 40_000


def scored(
    n: int, seed: int, keep_one_in: int = 1, changes: bool = False
) -> tuple[NDArray[np.float64], NDArray[np.bool_], NDArray[np.intp]]:
    """Probabilities that are exactly calibrated until the change, the truth, and the place in the stream, of
    the outcomes that the sampling keeps.
    """
    rng = np.random.default_rng(seed)
    fraud = rng.random(n) < SHARE
    evidence = rng.normal(size=n) + SEPARATION * fraud
    if changes:
        evidence[fraud & (np.arange(n) >= CHANGE) & (rng.random(n) < 0.5)] -= SEPARATION
    odds = SHARE / (1 - SHARE) * np.exp(SEPARATION * evidence - SEPARATION**2 / 2)
    ids = rng.integers(0, 2**63, n).astype(np.uint64)
    kept = np.flatnonzero(keep_mask(ids, fraud, keep_one_in))
    return (odds / (1 + odds))[kept], fraud[kept], kept


def found(detector: str, keep_one_in: int, n: int, seed: int) -> tuple[int, int]:
    """Warnings and alarms over a stationary stream."""
    watch, (p, fraud, _) = DriftWatch(detector, keep_one_in), scored(n, seed, keep_one_in)
    findings = [f for a, b in zip(p.tolist(), fraud.tolist(), strict=True) for f in watch.update(a, b)]
    return sum(not f.drift for f in findings), sum(f.drift for f in findings)


@pytest.mark.parametrize("keep_one_in", [1, 10])
def test_adwin_is_quiet_on_stationary_streams(keep_one_in: int) -> None:
    """300,000 outcomes, 2,400 frauds among them, three seeds: no alarm, at most one warning."""
    warnings, alarms = zip(*(found("adwin", keep_one_in, 100_000, seed) for seed in range(3)), strict=True)
    assert sum(alarms) == 0
    assert sum(warnings) <= 1


def test_page_hinkley_is_nearly_quiet_on_stationary_streams() -> None:
    """At most one alarm in 100,000 outcomes."""
    assert sum(found("page_hinkley", 1, 50_000, seed)[1] for seed in range(2)) <= 1


@pytest.mark.parametrize(("keep_one_in", "seed"), [(1, 0), (1, 1), (10, 2), (10, 3)])
def test_adwin_notices_frauds_that_look_genuine(keep_one_in: int, seed: int) -> None:
    """Half of the frauds change their looks, 0.4 % of all: noticed within 120 frauds, and not before."""
    watch = DriftWatch("adwin", keep_one_in)
    frauds = 0
    for p, fraud, place in zip(*scored(CHANGE + 25_000, seed, keep_one_in, changes=True), strict=True):
        frauds += bool(fraud) and place >= CHANGE
        if any(finding.drift for finding in watch.update(float(p), bool(fraud))):
            break
    assert 5 <= frauds <= 120


@pytest.mark.parametrize("make", [lambda: Adwin(0.001), lambda: PageHinkley(120.0)])
def test_a_change_is_told_with_its_direction(make: Callable[[], Detector]) -> None:
    """The first change found is the planted one, with the mean before it and which way it went."""
    rng = np.random.default_rng(0)
    noise = rng.normal(0.0, 0.1, 3400)
    for before, after in ((0.2, 0.5), (0.5, 0.2), (0.1, -0.4)):
        detector = make()
        values = noise + np.where(np.arange(len(noise)) < 3000, before, after)
        shifts = [(row, s) for row, s in enumerate(map(detector.update, values.tolist())) if s is not None]
        row, first = shifts[0]
        assert row >= 3000
        assert first.before == pytest.approx(before, abs=0.1)
        assert first.grew == (after > before) == (first.after > first.before)


def test_losses_that_fall_are_no_finding() -> None:
    """A learner that gets better is left alone; one that gets worse by as much is not."""
    for first, second, quiet in ((0.2, 0.9, True), (0.9, 0.2, False)):
        watch = DriftWatch("adwin")
        signals = [
            f.signal for row in range(4000) for f in watch.update(first if row < 2000 else second, True)
        ]
        assert ("fraud_loss" not in signals) == quiet


def test_calibration_is_that_of_the_sampled_stream() -> None:
    """The sampling is in the comparison: without it, one in ten kept looks like a tenfold fraud rate."""
    p, fraud, _ = scored(200_000, 1, keep_one_in=10)
    unaware = DriftWatch("adwin", 1)
    aware = DriftWatch("adwin", 10)
    for watch, off in ((aware, False), (unaware, True)):
        for a, b in zip(p.tolist(), fraud.tolist(), strict=True):
            watch.update(a, b)
        adwin = watch._levels["calibration"][1]
        assert isinstance(adwin, Adwin)
        assert (abs(adwin._adwin.estimation) > 0.02) == off


def test_log_loss_is_bounded() -> None:
    """Certainty that was wrong costs the cap, certainty that was right nothing."""
    assert [log_loss(p, True) for p in (0.0, 1.0)] == [LOSS_CAP, 0.0]
    assert [log_loss(p, False) for p in (0.0, 1.0)] == [0.0, LOSS_CAP]
    assert log_loss(0.25, True) == pytest.approx(np.log(4))


def test_an_unknown_detector_is_refused() -> None:
    """By name, with those that are known."""
    with pytest.raises(ValueError, match=", ".join(sorted(DETECTORS))):
        DriftWatch("ddm")
