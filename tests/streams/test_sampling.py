"""Where consumed partitions stand, as metrics: lag, stalls, commits, and what is logged."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from dataclasses import replace

import pytest

from monitoring.metrics import Metrics
from streams.kafka.batches import PartitionProgress
from streams.sampling import PartitionSampler, counted_logging, time_event_loop

TOPIC = "fraud.transactions.v1"
PARTITION = PartitionProgress(
    topic=TOPIC, partition=0, position=10, finished=10, committed=10, highwater=10, in_flight=0,
    progressed_at=0.0, held=False, finished_timestamp=1_000_000,
)  # fmt: skip


class Sampled:
    """A sampler with one stage whose single partition is changed from sample to sample."""

    def __init__(self) -> None:
        self.metrics = Metrics()
        self.sampler = PartitionSampler(self.metrics)

    def at(self, now: float, stage: str = "card", **changes: object) -> None:
        progress = replace(PARTITION, **changes)  # type: ignore[arg-type]
        self.sampler.sample({stage: [progress]}, now, 1_000_000 + int(now * 1000))


def test_a_stall_is_the_time_without_progress_while_records_wait() -> None:
    """20 records wait for a minute, 5 get finished, then nothing for 30 s; without lag there is no stall."""
    sampled = Sampled()
    sampled.at(0, highwater=30)
    sampled.at(60, highwater=30)
    assert sampled.metrics.stalled.value(TOPIC, "0") == 60
    sampled.at(70, highwater=30, finished=15)
    assert sampled.metrics.stalled.value(TOPIC, "0") == 0
    sampled.at(100, highwater=30, finished=15)
    assert sampled.metrics.stalled.value(TOPIC, "0") == 30
    sampled.at(110, highwater=30, finished=30)
    assert sampled.metrics.stalled.value(TOPIC, "0") == 0


def test_an_idle_partition_is_not_stalled_when_its_next_record_comes() -> None:
    """An hour without records is no stall of an hour at the moment in which one arrives."""
    sampled = Sampled()
    sampled.at(0)
    sampled.at(3600)
    sampled.at(3601, highwater=11)
    assert sampled.metrics.stalled.value(TOPIC, "0") == 1


def test_lag_in_seconds_is_the_age_of_what_is_done() -> None:
    """40 s after the timestamp of the last finished record with records waiting: 40; with none waiting: 0."""
    sampled = Sampled()
    sampled.at(40, highwater=12)
    assert sampled.metrics.lag_seconds.value(TOPIC, "0") == 40
    assert sampled.metrics.lag_messages.value(TOPIC, "0") == 2
    sampled.at(41)
    assert sampled.metrics.lag_seconds.value(TOPIC, "0") == 0


def test_lag_after_a_restart_counts_from_the_assignment() -> None:
    """Before a first record is finished no timestamp is known; the wait since the assignment is."""
    sampled = Sampled()
    for now in (5, 12):
        sampled.at(now, finished=0, highwater=12, finished_timestamp=None)
    assert sampled.metrics.lag_seconds.value(TOPIC, "0") == 7


def test_a_topic_read_by_two_stages_shows_the_one_behind() -> None:
    """Stage learn is 4 records behind, observe none: the topic's lag is 4, the worker's 4."""
    sampled = Sampled()
    stages = {"learn": [replace(PARTITION, finished=6)], "observe": [PARTITION]}
    for seconds in (1, 3):
        sampled.sampler.sample(stages, seconds, 1_000_000 + seconds * 1000)
    assert sampled.metrics.lag_messages.value(TOPIC, "0") == 4
    assert sampled.metrics.lag_seconds.value(TOPIC, "0") == 3
    assert sampled.metrics.stalled.value(TOPIC, "0") == 2
    assert sampled.sampler.lag == {"learn": 4, "observe": 0}


def test_a_revoked_partition_disappears() -> None:
    """A gauge of a partition that another worker has now would stay for ever."""
    sampled = Sampled()
    sampled.at(0, highwater=12)
    sampled.sampler.sample({"card": []}, 1.0, 1_001_000)
    assert b'partition="0"' not in sampled.metrics.exposition()
    assert sampled.metrics.assigned_partitions.value() == 0


def test_commit_age_is_that_of_finished_work() -> None:
    """Finished to 10 and committed to 8 for 25 s is 25; records that wait to be worked on do not count."""
    sampled = Sampled()
    sampled.at(0, committed=8)
    sampled.at(25, committed=8, highwater=99)
    assert sampled.metrics.commit_age.value() == 25
    sampled.at(26, highwater=99)
    assert sampled.metrics.commit_age.value() == 0


def test_finished_records_are_counted_by_partition() -> None:
    """What was finished before the assignment belongs to another worker; 10 to 25 are this one's 15."""
    sampled = Sampled()
    sampled.at(0, highwater=30)
    sampled.at(1, highwater=30, finished=25)
    assert sampled.metrics.consumed.value("card", TOPIC, "0") == 15
    assert sampled.sampler.processed["card"] == 15


def test_warnings_and_errors_are_counted_by_source() -> None:
    """Also those of libraries; what heals by itself is a warning; the count ends with the worker."""
    metrics = Metrics()
    with counted_logging(metrics):
        logging.getLogger("aiokafka.cluster").warning("no broker")
        logging.getLogger("streams.stages.score").error("no champion")
        logging.getLogger("someone.else").error("odd")
        logging.getLogger("streams.worker").info("ready")
        # Faust says this of each of our threads when the process has stood still for two seconds.
        logging.getLogger("streams.kafka.batch_fetching").error(
            "[^--FetchThread]: Thread keepalive is not responding..."
        )
    logging.getLogger("aiokafka.cluster").warning("after the end")
    assert metrics.logged.value("kafka", "warning") == 1
    assert metrics.logged.value("fraudstream", "error") == 1
    assert metrics.logged.value("fraudstream", "warning") == 1
    assert metrics.logged.value("other", "error") == 1
    assert metrics.logged.total() == 4


def test_a_blocked_event_loop_is_measured(monkeypatch: pytest.MonkeyPatch) -> None:
    """A wait from which the loop comes back 0.3 s late is counted as 0.3 s of delay."""
    metrics = Metrics()
    now = 100.0

    async def measured() -> None:
        nonlocal now
        loop = asyncio.get_running_loop()
        waits = 0

        async def sleep(seconds: float) -> None:
            nonlocal now, waits
            now += seconds + 0.3
            waits += 1
            if waits == 2:
                raise asyncio.CancelledError

        monkeypatch.setattr(loop, "time", lambda: now)
        monkeypatch.setattr(asyncio, "sleep", sleep)
        try:
            with contextlib.suppress(asyncio.CancelledError):
                await time_event_loop(metrics)
        finally:
            monkeypatch.undo()

    asyncio.run(measured())
    assert metrics.loop_delay.count() == 1
    assert 0.25 < metrics.loop_delay.quantile(0.5) <= 0.5
