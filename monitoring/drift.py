"""Distances between a reference distribution and the recent one, from counts in fixed bins.

Bins are quantiles of the reference, one more counts missing values (NaN). Sketches of the same bins merge by
addition, so partitions and slots of time can be counted apart.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from monitoring.event_windows import EventWindow

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]
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


def psi_expected(bins: int, reference_rows: int, recent_rows: int) -> tuple[float, float]:
    """Mean and standard deviation of the PSI of two independent samples of one distribution.

    PSI / (1/n + 1/m) is then chi-squared with `bins - 1` degrees of freedom. Yurdakul: Statistical Properties
    of the Population Stability Index (2018). Transactions of one card are not independent: take it as a lower
    bound.
    """
    scale = 1 / reference_rows + 1 / recent_rows
    return (bins - 1) * scale, float(np.sqrt(2 * (bins - 1))) * scale


def ks(reference: npt.NDArray[np.number], recent: npt.NDArray[np.number]) -> float:
    """Kolmogorov-Smirnov distance of two count vectors over the same ordered bins, at the bin edges; 0..1."""
    if not reference.sum() or not recent.sum():
        return NAN
    gap = np.cumsum(reference) / reference.sum() - np.cumsum(recent) / recent.sum()
    return float(np.abs(gap).max())


class Bins:
    """Bin edges per column: the distinct quantiles of a sample, shape (rows, columns)."""

    def __init__(self, sample: Floats, count: int = 20) -> None:
        probabilities = np.linspace(0, 1, count + 1)[1:-1]
        self.edges: list[Floats] = []
        for column in sample.T:
            known = column[np.isfinite(column)]
            quantiles = np.quantile(known, probabilities, method="lower") if len(known) else np.zeros(1)
            self.edges.append(np.unique(quantiles))

    @property
    def columns(self) -> int:
        return len(self.edges)


class Sketch:
    """Counts per column and bin of one stretch of time; the last one of a column counts missing values."""

    def __init__(self, bins: Bins) -> None:
        self._bins = bins
        self.rows = 0
        self.counts: list[Ints] = [np.zeros(len(edges) + 2, dtype=np.int64) for edges in bins.edges]

    def update(self, values: Floats) -> None:
        """Counts the rows of a (rows, columns) array. A value equal to an edge lies below it."""
        self.rows += len(values)
        for edges, counts, column in zip(self._bins.edges, self.counts, values.T, strict=True):
            index = np.searchsorted(edges, column, side="left")
            missing = np.isnan(column)
            if missing.any():
                index[missing] = len(edges) + 1
            counts += np.bincount(index, minlength=len(counts))

    def merge(self, other: Sketch) -> None:
        self.rows += other.rows
        for counts, more in zip(self.counts, other.counts, strict=True):
            counts += more


@dataclass(frozen=True, slots=True)
class Drift:
    """Distance of one column: `psi` >= 0, `ks` 0..1, and the PSI chance alone explains at three sigma."""

    name: str
    psi: float
    ks: float
    psi_by_chance: float


class DriftMonitor:
    """Compares the last `slots` slots of event time with a reference taken from the first rows.

    The first `sample_rows` rows fix the bins and, with all rows up to `reference_ms` after the first event
    time, are the reference; after that rows count as recent. Memory: the sample until the bins are fixed,
    then (slots + 1) x columns x bins counters.
    """

    def __init__(
        self,
        names: Sequence[str],
        reference_ms: int,
        slot_ms: int,
        slots: int,
        sample_rows: int = 10_000,
        bins: int = 20,
    ) -> None:
        self.names = tuple(names)
        self._reference_ms, self._slot_ms, self._slots = reference_ms, slot_ms, slots
        self._sample_rows, self._bin_count = sample_rows, bins
        self.restart()

    def restart(self) -> None:
        """Forgets the reference: the next rows become it (a promotion, a new feature spec)."""
        self._waiting: list[tuple[Ints, Floats]] = []
        self._waiting_rows = 0
        self._reference: Sketch | None = None
        self._recent: EventWindow[Sketch] | None = None
        self._reference_end: int | None = None

    def update(self, event_time: Ints, values: Floats, watermark: int | None = None) -> None:
        """Takes (rows,) epoch milliseconds and (rows, columns) values; NaN is a missing value.

        Rows later than `watermark` are left out: their time is not believed, and one far ahead would empty
        the window. Every n-th row is enough where there are many.
        """
        if watermark is not None and len(event_time) and event_time.max() > watermark:
            believed = event_time <= watermark
            event_time, values = event_time[believed], values[believed]
        if not len(event_time):
            return
        if self._reference_end is None:
            # The median, because single rows of the first batch may be very late.
            self._reference_end = int(np.median(event_time)) + self._reference_ms
        if self._reference is None:
            self._waiting.append((event_time.copy(), values.copy()))
            self._waiting_rows += len(event_time)
            if self._waiting_rows < self._sample_rows and int(event_time.max()) < self._reference_end:
                return
            self._fix_bins()
        else:
            self._count(event_time, values)

    def drifts(self) -> list[Drift]:
        """One entry per column; empty until there are reference and recent rows."""
        if self._reference is None or self._recent is None or not len(self._recent):
            return []
        recent = self._recent.merged()
        result = []
        pairs = zip(self.names, self._reference.counts, recent.counts, strict=True)
        for name, expected, actual in pairs:
            mean, deviation = psi_expected(len(expected), self._reference.rows, recent.rows)
            result.append(Drift(name, psi(expected, actual), ks(expected, actual), mean + 3 * deviation))
        return result

    def _fix_bins(self) -> None:
        waiting, self._waiting, self._waiting_rows = self._waiting, [], 0
        bins = Bins(np.concatenate([values for _, values in waiting]), self._bin_count)
        self._reference = Sketch(bins)
        self._recent = EventWindow(lambda: Sketch(bins), self._slot_ms, self._slots)
        for event_time, values in waiting:
            self._count(event_time, values)

    def _count(self, event_time: Ints, values: Floats) -> None:
        assert self._reference is not None
        assert self._recent is not None
        assert self._reference_end is not None
        early = event_time < self._reference_end
        if early.any():
            self._reference.update(values[early])
        late = ~early
        if late.any():
            values = values[late]
            for sketch, rows in self._recent.split(event_time[late]):
                sketch.update(values[rows])
