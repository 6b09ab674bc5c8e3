"""What broker tests need of a Kafka client: topics of their own, records, committed offsets, running apps."""

from __future__ import annotations

import asyncio
import itertools
import os
import signal
import time
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager

import faust
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient, NewTopic

from streams.kafka.batching import BatchingOptions, create_app
from streams.kafka.hosting import run_apps
from streams.sections import TOPIC_KEYS

#: The shortest session the test brokers allow: joining a group takes half of it on the embedded one.
SESSION_TIMEOUT = 1.0

_names = itertools.count()


def unique(prefix: str) -> str:
    """A name nobody else uses on a broker that several runs may share."""
    return f"{prefix}-{os.getpid()}-{time.time_ns()}-{next(_names)}"


def topic_names(prefix: str) -> dict[str, str]:
    """Settings by which every topic, internal ones too, has a name that starts with the prefix."""
    return {f"topics.{key}": f"{prefix}.{key}" for key in (*TOPIC_KEYS, "internal_prefix")}


async def new_topic(broker: str, partitions: int) -> str:
    """Create a topic, return its name."""
    name = unique("topic")
    admin = AIOKafkaAdminClient(bootstrap_servers=broker)
    await admin.start()
    try:
        response = await admin.create_topics([NewTopic(name, partitions, 1)])
        assert [error for _, error, *_ in response.topic_errors] == [0]
    finally:
        await admin.close()
    return name


async def publish(
    broker: str, topic: str, values: Mapping[int, Sequence[bytes]], *, per_batch: int = 50
) -> None:
    """Append values to partitions, in record batches of at most `per_batch`."""
    async with AIOKafkaProducer(bootstrap_servers=broker, acks="all") as producer:
        for partition, records in values.items():
            for start in range(0, len(records), per_batch):
                batch = producer.create_batch()
                for value in records[start : start + per_batch]:
                    assert batch.append(key=None, value=value, timestamp=None) is not None
                await (await producer.send_batch(batch, topic, partition=partition))


def numbered(partitions: int, each: int) -> dict[int, list[bytes]]:
    """`each` numbered values for every partition."""
    return {partition: [b"%d" % number for number in range(each)] for partition in range(partitions)}


async def committed(broker: str, group: str, topic: str, partitions: int) -> list[int | None]:
    """The offsets a group has committed, by partition."""
    async with AIOKafkaConsumer(
        bootstrap_servers=broker, group_id=group, enable_auto_commit=False
    ) as consumer:
        tps = [TopicPartition(topic, partition) for partition in range(partitions)]
        return list(await asyncio.gather(*(consumer.committed(tp) for tp in tps)))


async def read(broker: str, topic: str, partition: int, count: int) -> list[bytes]:
    """The first `count` values of a partition."""
    tp = TopicPartition(topic, partition)
    async with AIOKafkaConsumer(bootstrap_servers=broker, auto_offset_reset="earliest") as consumer:
        consumer.assign([tp])
        values: list[bytes] = []
        async with asyncio.timeout(20):
            while len(values) < count:
                values += [record.value for record in (await consumer.getmany(timeout_ms=200)).get(tp, ())]
        return values


def new_app(broker: str, group: str, *, commit_interval: float = 0.1, **options: int) -> faust.App:
    """An app that joins fast and commits often."""
    return create_app(
        group,
        broker,
        session_timeout=SESSION_TIMEOUT,
        commit_interval=commit_interval,
        options=BatchingOptions(**options),  # type: ignore[arg-type]
    )


@asynccontextmanager
async def running(*apps: faust.App) -> AsyncIterator[asyncio.Task[signal.Signals | None]]:
    """Run `apps` during the block, stop them at its end; what ended them early is raised there."""
    stop = asyncio.Event()
    task = asyncio.create_task(run_apps(apps, stop=stop))
    try:
        yield task
    finally:
        stop.set()
        await task


async def until(
    condition: Callable[[], bool],
    *,
    watched: asyncio.Task[signal.Signals | None] | None = None,
    seconds: float = 20,
) -> None:
    """Wait for `condition`; the end of `watched` or of the time is an error."""
    async with asyncio.timeout(seconds):
        while not condition():
            if watched is not None and watched.done():
                watched.result()
                raise AssertionError("the apps ended by themselves")
            await asyncio.sleep(0.005)
