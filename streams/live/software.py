"""Rates and latency of a worker, from two readings of its metrics; pure."""

from __future__ import annotations

from collections import deque
from dataclasses import asdict, dataclass, field, fields
from operator import attrgetter

import numpy as np
import numpy.typing as npt

from monitoring.families import Counter, Gauge, bucket_quantile
from monitoring.metrics import END_TO_END_SECONDS, OUTCOMES, Metrics

#: Rates and latencies are those of the last so many seconds: stages work in batches, one second is too jumpy.
OVER_SECONDS = 5.0
#: Figures kept, one a second: what the charts show.
KEPT = 300


@dataclass(frozen=True, slots=True)
class Reading:
    """The counters at one time: `at` in seconds of a monotonic clock, `wall` in epoch milliseconds."""

    at: float
    wall: int
    outcomes: dict[str, float]
    alerts: float
    dead_letters: float
    latency: npt.NDArray[np.int64]
    lag_messages: float
    lag_seconds: float
    unaccounted: float


@dataclass(frozen=True, slots=True)
class Figures:
    """What a worker does; a figure is None while nothing can be said.

    Transactions and alerts a second, latency in milliseconds from the Kafka timestamp of a transaction to its
    acknowledged score, messages that wait and for how many seconds.
    """

    wall: int
    transactions_per_second: float | None = None
    alerts_per_second: float | None = None
    latency_p50_ms: float | None = None
    latency_p99_ms: float | None = None
    lag_messages: float = 0.0
    lag_seconds: float = 0.0


def read(metrics: Metrics, at: float, wall: int) -> Reading:
    """The counters now."""
    return Reading(
        at=at,
        wall=wall,
        outcomes={outcome: metrics.transactions.value(outcome) for outcome in OUTCOMES},
        alerts=metrics.alerts.total(),
        dead_letters=metrics.dead_letters.total(),
        latency=metrics.end_to_end.buckets(),
        lag_messages=sum(_values(metrics.lag_messages)),
        lag_seconds=max(_values(metrics.lag_seconds), default=0.0),
        unaccounted=sum(_values(metrics.unaccounted)),
    )


def _values(family: Counter | Gauge) -> list[float]:
    return [sample.value for sample in family.collect().samples]


def figures(before: Reading | None, now: Reading) -> Figures:
    """Rates and latencies between two readings."""
    plain = Figures(now.wall, lag_messages=now.lag_messages, lag_seconds=now.lag_seconds)
    if before is None or now.at <= before.at:
        return plain
    seconds = now.at - before.at
    passed = now.latency - before.latency
    p50, p99 = (bucket_quantile(END_TO_END_SECONDS, passed, q) * 1000 for q in (0.5, 0.99))
    return Figures(
        now.wall,
        (now.outcomes["scored"] - before.outcomes["scored"]) / seconds,
        (now.alerts - before.alerts) / seconds,
        p50 if passed.any() else None,
        p99 if passed.any() else None,
        now.lag_messages,
        now.lag_seconds,
    )


@dataclass(slots=True)
class Software:
    """The readings of the last seconds, and the figures they gave."""

    _readings: deque[Reading] = field(default_factory=deque)
    _figures: deque[Figures] = field(default_factory=lambda: deque(maxlen=KEPT))

    def add(self, reading: Reading) -> None:
        """Takes a reading, about once a second."""
        while len(self._readings) > 1 and reading.at - self._readings[1].at >= OVER_SECONDS:
            self._readings.popleft()
        before = self._readings[0] if self._readings else None
        self._readings.append(reading)
        self._figures.append(figures(before, reading))

    def clear(self) -> None:
        """Forgets everything: what was before a pause says nothing of now."""
        self._readings.clear()
        self._figures.clear()

    def document(self) -> dict[str, object]:
        """`now` the latest figures, `accounting` the counters, `history` a column for every figure."""
        if not self._readings:
            return {"now": None, "accounting": None, "history": {}}
        last = self._readings[-1]
        return {
            "now": asdict(self._figures[-1]),
            "accounting": {
                **last.outcomes,
                "alerts": last.alerts,
                "dead_letters": last.dead_letters,
                "unaccounted": last.unaccounted,
            },
            "history": {
                each.name: list(map(attrgetter(each.name), self._figures)) for each in fields(Figures)
            },
        }
