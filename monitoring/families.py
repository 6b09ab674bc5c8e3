"""Metric families that are fed in bulk: one call per batch, not one per transaction.

Values live in plain dictionaries and are turned into the Prometheus exposition only when scraped. Every
family is bounded: label values beyond `limit` children are folded into one child whose labels are `other`.
"""

from __future__ import annotations

import threading
from bisect import bisect_left
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector

Kind = Literal["counter", "gauge", "histogram"]
Labels = tuple[str, ...]
OTHER = "other"


@dataclass(frozen=True, slots=True)
class Definition:
    """One metric: what it counts, in which unit, and which value means trouble.

    `children` are the label values of a counter or histogram known beforehand; they exist with the value 0
    from the start, so that `rate()` sees the first event. `limit` bounds the number of children.
    """

    name: str
    kind: Kind
    unit: str
    meaning: str
    bad: str
    labels: Labels = ()
    children: tuple[Labels, ...] = ()
    buckets: tuple[float, ...] = ()
    limit: int = 64

    @property
    def help(self) -> str:
        return f"{self.meaning} Bad: {self.bad}"


class _Family:
    def __init__(self, definition: Definition) -> None:
        self.definition = definition
        # Children are touched from the event loop and read by scrapes, which may run in another thread.
        self._lock = threading.Lock()

    def _bounded(self, labels: Labels, known: dict[Labels, float] | dict[Labels, _Buckets]) -> Labels:
        if labels in known:
            return labels
        if len(labels) != len(self.definition.labels):
            raise ValueError(
                f"{self.definition.name} takes the labels {self.definition.labels}, got {labels}"
            )
        return labels if len(known) < self.definition.limit else (OTHER,) * len(labels)


class Counter(_Family):
    """A sum that only grows, per child."""

    def __init__(self, definition: Definition) -> None:
        super().__init__(definition)
        self._values: dict[Labels, float] = dict.fromkeys(_initial(definition), 0.0)

    def add(self, amount: float = 1, *labels: str) -> None:
        if amount < 0:
            raise ValueError(f"{self.definition.name} is a counter and cannot fall by {-amount}")
        with self._lock:
            child = self._bounded(labels, self._values)
            self._values[child] = self._values.get(child, 0.0) + amount

    def value(self, *labels: str) -> float:
        """The present value of one child; 0 if it does not exist."""
        return self._values.get(labels, 0.0)

    def total(self) -> float:
        """The sum over all children."""
        return sum(self._values.values())

    def collect(self) -> Metric:
        family = CounterMetricFamily(
            self.definition.name, self.definition.help, labels=self.definition.labels
        )
        with self._lock:
            for labels, value in self._values.items():
                family.add_metric(labels, value)
        return family


class Gauge(_Family):
    """A present value, per child; none until it is set, for a worker that does not know it must not say 0."""

    def __init__(self, definition: Definition) -> None:
        super().__init__(definition)
        if definition.children:
            raise ValueError(f"{definition.name} is a gauge and has no children before they are set")
        self._values: dict[Labels, float] = {}

    def set(self, value: float, *labels: str) -> None:
        with self._lock:
            self._values[self._bounded(labels, self._values)] = float(value)

    def replace(self, values: Mapping[Labels, float]) -> None:
        """These children and no others: partitions that this worker has now."""
        with self._lock:
            self._values = {}
            for labels, value in values.items():
                self._values[self._bounded(labels, self._values)] = float(value)

    def value(self, *labels: str) -> float:
        """The present value of one child; NaN if it does not exist."""
        return self._values.get(labels, float("nan"))

    def forget(self, *prefix: str) -> None:
        """Removes the children whose first labels are `prefix`: a revoked partition, an old version."""
        with self._lock:
            for child in [child for child in self._values if child[: len(prefix)] == prefix]:
                del self._values[child]

    def collect(self) -> Metric:
        family = GaugeMetricFamily(self.definition.name, self.definition.help, labels=self.definition.labels)
        with self._lock:
            for labels, value in self._values.items():
                family.add_metric(labels, value)
        return family


class _Buckets:
    """Counts per bucket (not cumulative; the last one is above every edge) and the sum of the values."""

    __slots__ = ("counts", "sum")

    def __init__(self, edges: int) -> None:
        self.counts = np.zeros(edges + 1, dtype=np.int64)
        self.sum = 0.0


class Histogram(_Family):
    """A distribution over the definition's bucket edges, per child; whole arrays at a time."""

    def __init__(self, definition: Definition) -> None:
        super().__init__(definition)
        self._edges = np.array(definition.buckets, dtype=np.float64)
        if not len(self._edges) or np.any(np.diff(self._edges) <= 0):
            raise ValueError(f"{definition.name}: bucket edges must be given and rise")
        self._children = {labels: _Buckets(len(self._edges)) for labels in _initial(definition)}

    def observe(self, values: npt.NDArray[np.float64], *labels: str) -> None:
        """Counts every finite value of a one-dimensional array; NaN and infinities are left out.

        A value below 0 is counted as 0: times between two machines can be, and a sum that falls is a restart
        to Prometheus.
        """
        finite = np.maximum(values[np.isfinite(values)], 0.0)
        counts = np.bincount(
            np.searchsorted(self._edges, finite, side="left"), minlength=len(self._edges) + 1
        )
        with self._lock:
            child = self._child(labels)
            child.counts += counts
            child.sum += float(finite.sum())

    def observe_repeated(self, value: float, times: int = 1, *labels: str) -> None:
        """Counts one value `times` times: what every row of a batch has in common."""
        with self._lock:
            child = self._child(labels)
            child.counts[bisect_left(self.definition.buckets, value)] += times
            child.sum += value * times

    def count(self, *labels: str) -> int:
        child = self._children.get(labels)
        return int(child.counts.sum()) if child else 0

    def quantile(self, q: float, *labels: str) -> float:
        """The q-quantile, linear within its bucket as PromQL's `histogram_quantile`; NaN when empty."""
        child = self._children.get(labels)
        return float("nan") if child is None else bucket_quantile(self.definition.buckets, child.counts, q)

    def buckets(self, *labels: str) -> npt.NDArray[np.int64]:
        """Counts per bucket, the last one above every edge; zeros if the child does not exist."""
        with self._lock:
            child = self._children.get(labels) or _Buckets(len(self._edges))
            return child.counts.copy()

    def collect(self) -> Metric:
        family = HistogramMetricFamily(
            self.definition.name, self.definition.help, labels=self.definition.labels
        )
        names = [str(edge) for edge in self.definition.buckets] + ["+Inf"]
        with self._lock:
            for labels, child in self._children.items():
                cumulative = np.cumsum(child.counts).tolist()
                family.add_metric(labels, list(zip(names, map(float, cumulative), strict=True)), child.sum)
        return family

    def _child(self, labels: Labels) -> _Buckets:
        bounded = self._bounded(labels, self._children)
        child = self._children.get(bounded)
        if child is None:
            child = self._children[bounded] = _Buckets(len(self._edges))
        return child


class Families(Collector):
    """All families of a table as one Prometheus collector."""

    def __init__(self, definitions: Sequence[Definition]) -> None:
        self._definitions: dict[str, Definition] = {}
        for definition in definitions:
            if definition.name in self._definitions:
                raise ValueError(f"metric {definition.name} is defined twice")
            self._definitions[definition.name] = definition
        self._families: dict[str, Counter | Gauge | Histogram] = {}

    def counter(self, name: str) -> Counter:
        family = self._families[name] = Counter(self._take(name, "counter"))
        return family

    def gauge(self, name: str) -> Gauge:
        family = self._families[name] = Gauge(self._take(name, "gauge"))
        return family

    def histogram(self, name: str) -> Histogram:
        family = self._families[name] = Histogram(self._take(name, "histogram"))
        return family

    def unbound(self) -> list[str]:
        """Names in the table that no family was made for."""
        return [name for name in self._definitions if name not in self._families]

    def collect(self) -> Iterator[Metric]:
        for family in self._families.values():
            yield family.collect()

    def _take(self, name: str, kind: Kind) -> Definition:
        definition = self._definitions[name]
        if definition.kind != kind or name in self._families:
            raise ValueError(f"{name} is a {definition.kind} and is bound once")
        return definition


def bucket_quantile(edges: Sequence[float], counts: npt.NDArray[np.int64], q: float) -> float:
    """The q-quantile of counts per bucket, linear within its bucket as PromQL's `histogram_quantile`.

    `counts` has an entry more than `edges`; what lies above the last edge counts as on it. NaN if empty.
    """
    if not counts.any():
        return float("nan")
    cumulative = np.cumsum(counts)
    rank = q * float(cumulative[-1])
    bucket = int(np.searchsorted(cumulative, rank, side="left"))
    if bucket == len(edges):
        return float(edges[-1])
    low = 0.0 if bucket == 0 else float(edges[bucket - 1])
    before = 0 if bucket == 0 else int(cumulative[bucket - 1])
    inside = int(counts[bucket])
    share = (rank - before) / inside if inside else 1.0
    return low + (float(edges[bucket]) - low) * share


def _initial(definition: Definition) -> Iterator[Labels]:
    return iter(definition.children if definition.labels else ((),))
