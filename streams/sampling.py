"""Once a second: where the consumed partitions stand, and how late the event loop is."""

from __future__ import annotations

import asyncio
import logging
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass

from monitoring.metrics import LOG_LEVELS, LOG_SOURCES, Metrics
from streams.kafka.batches import PartitionProgress
from streams.logs import heals

_TICK_SECONDS = 0.1
#: By the first part of a logger's name.
_SOURCES = {
    "aiokafka": "kafka",
    "kafka": "kafka",
    "faust": "faust",
    "mode": "faust",
    "streams": "fraudstream",
    "monitoring": "fraudstream",
    "models": "fraudstream",
}


@dataclass(slots=True)
class _Seen:
    """Of one partition: where it stood, and since when it has stood there although more is to be done."""

    finished: int
    waiting_since: float
    uncommitted_since: float


class PartitionSampler:
    """Sets the metrics of consumed partitions from what the transports say.

    Topics that several stages of a worker read have one gauge, of the stage that is furthest behind.
    """

    def __init__(self, metrics: Metrics) -> None:
        self._metrics = metrics
        self._seen: dict[tuple[str, str, int], _Seen] = {}
        #: by stage, records finished since the start, and those that wait
        self.processed: Counter[str] = Counter()
        self.lag: Counter[str] = Counter()

    def sample(self, stages: Mapping[str, Iterable[PartitionProgress]], now: float, wall_ms: int) -> None:
        """Take the progress of every stage at `now`, monotonic seconds, and `wall_ms`, epoch milliseconds."""
        worst: dict[tuple[str, str], tuple[int, float, float]] = {}
        commit_age = 0.0
        self.lag.clear()
        before, self._seen = self._seen, {}
        for stage, partitions in stages.items():
            for progress in partitions:
                key = (stage, progress.topic, progress.partition)
                seen = self._seen[key] = self._follow(stage, progress, before.get(key), now)
                commit_age = max(commit_age, now - seen.uncommitted_since)
                if progress.lag is None:
                    continue
                self.lag[stage] += progress.lag
                stalled = now - seen.waiting_since
                behind = 0.0
                if progress.lag:
                    at = progress.finished_timestamp
                    behind = stalled if at is None else max(0.0, (wall_ms - at) / 1000)
                label = (progress.topic, str(progress.partition))
                others = worst.get(label, (0, 0.0, 0.0))
                worst[label] = (
                    max(progress.lag, others[0]),
                    max(behind, others[1]),
                    max(stalled, others[2]),
                )
        self._publish(worst)
        self._metrics.assigned_partitions.set(len(self._seen))
        self._metrics.commit_age.set(commit_age)

    def _follow(self, stage: str, progress: PartitionProgress, seen: _Seen | None, now: float) -> _Seen:
        finished = progress.finished or 0
        if seen is None:
            seen = _Seen(finished, now, now)
        if finished > seen.finished:
            self.processed[stage] += finished - seen.finished
            partition = str(progress.partition)
            self._metrics.consumed.add(finished - seen.finished, stage, progress.topic, partition)
        if not progress.lag or finished != seen.finished:
            seen.waiting_since = now
        seen.finished = finished
        if progress.finished is None or progress.committed == progress.finished:
            seen.uncommitted_since = now
        return seen

    def _publish(self, worst: Mapping[tuple[str, str], tuple[int, float, float]]) -> None:
        metrics = self._metrics
        for gauge, figure in ((metrics.lag_messages, 0), (metrics.lag_seconds, 1), (metrics.stalled, 2)):
            gauge.replace({label: values[figure] for label, values in worst.items()})


async def time_event_loop(metrics: Metrics) -> None:
    """Until cancelled: how much later than asked for the loop comes back."""
    loop = asyncio.get_running_loop()
    while True:
        due = loop.time() + _TICK_SECONDS
        await asyncio.sleep(_TICK_SECONDS)
        metrics.loop_delay.observe_repeated(max(0.0, loop.time() - due))


class _Counting(logging.Handler):
    def __init__(self, metrics: Metrics) -> None:
        super().__init__(logging.WARNING)
        self._metrics = metrics

    def emit(self, record: logging.LogRecord) -> None:
        source = _SOURCES.get(record.name.partition(".")[0], LOG_SOURCES[-1])
        level = LOG_LEVELS[record.levelno >= logging.ERROR and not heals(record)]
        self._metrics.logged.add(1, source, level)


@contextmanager
def counted_logging(metrics: Metrics) -> Iterator[None]:
    """Count warnings and errors, also those that are left out of the log because they repeat; an error that
    heals by itself is a warning.
    """
    handler = _Counting(metrics)
    logging.getLogger().addHandler(handler)
    try:
        yield
    finally:
        logging.getLogger().removeHandler(handler)
