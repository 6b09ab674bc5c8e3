from __future__ import annotations

import math

import numpy as np
import pytest

from monitoring.drift import Bins, DriftMonitor, Sketch, ks, psi, psi_expected

DAY = 86_400_000


def test_psi_and_ks_of_known_counts() -> None:
    """Both equal their textbook values on hand-made counts, up to the half count of smoothing."""
    reference, recent = np.array([50_000, 50_000]), np.array([75_000, 25_000])
    expected = 0.25 * math.log(0.75 / 0.5) - 0.25 * math.log(0.25 / 0.5)
    assert psi(reference, recent) == pytest.approx(expected, abs=1e-4)
    assert ks(reference, recent) == pytest.approx(0.25)
    assert psi(reference, 2 * reference) == pytest.approx(0.0, abs=1e-9)
    assert math.isnan(psi(reference, 0 * reference))
    assert math.isnan(ks(0 * reference, recent))


def test_psi_of_one_distribution_has_the_stated_mean_and_deviation() -> None:
    """Over many pairs of samples of one distribution PSI has the mean and deviation given for chance."""
    random = np.random.default_rng(0)
    weights = np.full(20, 1 / 20)
    values = [psi(random.multinomial(5000, weights), random.multinomial(2000, weights)) for _ in range(2000)]
    mean, deviation = psi_expected(20, 5000, 2000)
    assert np.mean(values) == pytest.approx(mean, rel=0.05)
    assert np.std(values) == pytest.approx(deviation, rel=0.1)


def test_sketch_merges_and_counts_missing_values_apart() -> None:
    """Two halves merged equal the whole, and NaN has a bin of its own."""
    values = np.random.default_rng(1).normal(size=(1000, 3))
    values[:100, 1] = np.nan
    bins = Bins(values, 10)
    whole, first, second = Sketch(bins), Sketch(bins), Sketch(bins)
    whole.update(values)
    first.update(values[:400])
    second.update(values[400:])
    first.merge(second)
    assert first.rows == whole.rows == 1000
    for merged, counted in zip(first.counts, whole.counts, strict=True):
        np.testing.assert_array_equal(merged, counted)
    assert whole.counts[1][-1] == 100
    assert whole.counts[0][-1] == 0
    assert whole.counts[0][:-1].min() >= 90


def test_a_constant_column_is_no_trouble() -> None:
    """A column of one value, or of none, has bins and no drift against itself."""
    values = np.column_stack([np.zeros(100), np.full(100, np.nan)])
    sketch = Sketch(Bins(values))
    sketch.update(values)
    for counts in sketch.counts:
        assert counts.sum() == 100
        assert psi(counts, counts) == 0.0


def feed(monitor: DriftMonitor, start_day: int, days: int, shift: float, seed: int) -> None:
    random = np.random.default_rng(seed)
    for day in range(start_day, start_day + days):
        times = np.sort(random.integers(day * DAY, (day + 1) * DAY, 2000))
        values = np.column_stack([random.normal(shift, 1, 2000), random.exponential(1, 2000)])
        for rows in np.array_split(np.arange(2000), 7):
            monitor.update(times[rows], values[rows])


def test_monitor_sees_the_shifted_column_only_and_only_while_it_lasts() -> None:
    """The shifted feature stands out, the other does not, and both are quiet when the shift has left."""
    monitor = DriftMonitor(("shifted", "steady"), reference_ms=7 * DAY, slot_ms=DAY, slots=5)
    feed(monitor, 0, 12, shift=0.0, seed=1)
    before = {drift.name: drift for drift in monitor.drifts()}
    assert before["shifted"].psi < before["shifted"].psi_by_chance < 0.02
    feed(monitor, 12, 5, shift=1.0, seed=2)
    during = {drift.name: drift for drift in monitor.drifts()}
    assert during["shifted"].psi > 0.5
    assert during["shifted"].ks == pytest.approx(0.38, abs=0.03)
    assert during["steady"].psi < during["steady"].psi_by_chance
    feed(monitor, 17, 5, shift=0.0, seed=3)
    assert all(drift.psi < 0.02 for drift in monitor.drifts())


def test_monitor_starts_with_the_reference_and_can_start_again() -> None:
    """There is no drift to report before there are recent rows; a restart takes a new reference."""
    monitor = DriftMonitor(("a", "b"), reference_ms=2 * DAY, slot_ms=DAY, slots=2, sample_rows=1000)
    feed(monitor, 0, 2, shift=0.0, seed=1)
    assert monitor.drifts() == []
    feed(monitor, 2, 2, shift=1.0, seed=2)
    assert monitor.drifts()[0].psi > 0.5
    monitor.restart()
    feed(monitor, 4, 4, shift=1.0, seed=3)
    assert monitor.drifts()[0].psi < 0.02


def test_late_rows_do_not_revive_dropped_slots() -> None:
    """A row older than the window changes nothing."""
    monitor = DriftMonitor(("a", "b"), reference_ms=DAY, slot_ms=DAY, slots=2)
    feed(monitor, 0, 10, shift=0.0, seed=1)
    before = monitor.drifts()
    monitor.update(np.full(5000, 4 * DAY), np.full((5000, 2), 9.0))
    assert monitor.drifts() == before


def test_rows_ahead_of_the_watermark_do_not_empty_the_window() -> None:
    """A row stamped years ahead is left out and the figures stay; without a watermark it would clear them."""
    monitor = DriftMonitor(("a", "b"), reference_ms=DAY, slot_ms=DAY, slots=3)
    feed(monitor, 0, 5, shift=0.0, seed=1)
    before = monitor.drifts()
    monitor.update(np.array([5000 * DAY]), np.zeros((1, 2)), watermark=5 * DAY)
    assert monitor.drifts() == before
    monitor.update(np.array([5000 * DAY]), np.zeros((1, 2)))
    assert monitor.drifts() != before


def test_a_late_first_row_does_not_shorten_the_reference() -> None:
    """The reference begins where most of the first batch lies."""
    monitor = DriftMonitor(("a", "b"), reference_ms=2 * DAY, slot_ms=DAY, slots=3, sample_rows=10)
    times = np.array([0, 100 * DAY, 100 * DAY + 1, 100 * DAY + 2])
    monitor.update(times, np.zeros((4, 2)))
    feed(monitor, 100, 1, shift=0.0, seed=1)
    assert monitor.drifts() == []
