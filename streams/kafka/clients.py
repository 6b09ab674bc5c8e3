"""Kafka clients of the commands: started within seconds or refused in one sentence, and whole-topic readers.

Readers belong to no consumer group: looking at a topic moves nobody's offsets.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Iterator, Mapping
from contextlib import aclosing, asynccontextmanager, contextmanager
from typing import Protocol

from aiokafka import AIOKafkaConsumer, ConsumerRecord, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.errors import KafkaError

from streams.errors import BrokerUnreachable, TopicMissing
from streams.kafka.connection import client_options
from streams.sections import Broker

CONNECT_SECONDS = 8.0
_MAX_FETCH = 16 * 1024 * 1024


class Client(Protocol):
    """What can be connected."""

    async def start(self) -> None: ...


async def connect(client: Client, close: Callable[[], Awaitable[None]], broker: Broker) -> None:
    """Start a client; `close` is awaited if that fails.

    Raises:
        BrokerUnreachable: no broker has let it in within 8 s.
    """
    try:
        with _quiet():
            async with asyncio.timeout(CONNECT_SECONDS):
                await client.start()
    except (KafkaError, OSError) as error:
        await close()
        raise _unreachable(broker, error) from error


def _unreachable(broker: Broker, error: BaseException) -> BrokerUnreachable:
    reason = "no answer" if isinstance(error, TimeoutError) else type(error).__name__
    return BrokerUnreachable(
        f"no broker lets us in at {broker.bootstrap} ({broker.security}): {reason}; "
        "start one (`fraudstream broker`), or correct [broker] in the settings or --broker"
    )


@contextmanager
def _quiet() -> Iterator[None]:
    """What aiokafka logs of a failed start is said again, in one line, by the error that follows."""
    log = logging.getLogger("aiokafka")
    before = log.level
    log.setLevel(max(logging.CRITICAL, log.getEffectiveLevel()))
    try:
        yield
    finally:
        log.setLevel(before)


@asynccontextmanager
async def admin_client(broker: Broker) -> AsyncIterator[AIOKafkaAdminClient]:
    """A started admin client.

    Raises:
        BrokerUnreachable: no broker answers.
    """
    admin = AIOKafkaAdminClient(**client_options(broker))
    await connect(admin, admin.close, broker)
    try:
        yield admin
    finally:
        await admin.close()


async def partitions_of(broker: Broker, topic: str) -> int:
    """How many partitions a topic has.

    Raises:
        BrokerUnreachable: no broker answers.
        TopicMissing: there is no such topic; it is not created by asking.
    """
    async with admin_client(broker) as admin:
        found = {each["topic"]: len(each["partitions"]) for each in await admin.describe_topics()}
    if not found.get(topic):
        raise _missing(broker, topic)
    return found[topic]


def _missing(broker: Broker, topic: str) -> TopicMissing:
    return TopicMissing(
        f"topic {topic} does not exist at {broker.bootstrap}; create it: `fraudstream topics create`"
    )


@asynccontextmanager
async def _reader(broker: Broker, topic: str) -> AsyncIterator[tuple[AIOKafkaConsumer, list[TopicPartition]]]:
    consumer = AIOKafkaConsumer(
        **client_options(broker),
        enable_auto_commit=False,
        auto_offset_reset="earliest",
        fetch_max_wait_ms=100,
        max_partition_fetch_bytes=_MAX_FETCH,
    )
    await connect(consumer, consumer.stop, broker)
    try:
        # aiokafka's consumer tells the names of all topics only; asked for one it would have it created.
        cluster = await consumer._client.fetch_all_metadata()
        count = len(cluster.partitions_for_topic(topic) or ())
        if not count:
            raise _missing(broker, topic)
        partitions = [TopicPartition(topic, number) for number in range(count)]
        consumer.assign(partitions)
        yield consumer, partitions
    finally:
        await consumer.stop()


async def count_records(broker: Broker, topic: str) -> int:
    """How many records the topic holds now; of a compacted one or with transactions, at most.

    Raises:
        BrokerUnreachable, TopicMissing: see `partitions_of`.
    """
    async with _reader(broker, topic) as (consumer, partitions):
        await consumer.seek_to_beginning(*partitions)
        starts = {tp: await consumer.position(tp) for tp in partitions}
        while unknown := [tp for tp in partitions if consumer.highwater(tp) is None]:
            await consumer.getmany(*unknown, timeout_ms=100, max_records=1)
        return sum(consumer.highwater(tp) - start for tp, start in starts.items())


async def read_all(
    broker: Broker, topic: str, ends: Mapping[int, int] | None = None
) -> AsyncGenerator[ConsumerRecord, None]:
    """Every record that is on the topic now, partition by partition interleaved; it ends where they end.

    Args:
        ends: partition -> offset to stop before; the ends at the start of reading if None.

    Raises:
        BrokerUnreachable, TopicMissing: see `partitions_of`.
    """
    async with _reader(broker, topic) as (consumer, partitions):
        await consumer.seek_to_beginning(*partitions)
        stops: dict[TopicPartition, int] = {}
        open_ = set(partitions)
        while open_:
            for tp, records in (await consumer.getmany(*open_, timeout_ms=100)).items():
                _note_end(consumer, tp, stops, ends)
                for record in records:
                    if record.offset < stops[tp]:
                        yield record
            for tp in list(open_):
                _note_end(consumer, tp, stops, ends)
                if tp in stops and await consumer.position(tp) >= stops[tp]:
                    open_.discard(tp)
                    consumer.pause(tp)


async def read_tail(broker: Broker, topic: str, records: int) -> list[ConsumerRecord]:
    """The last `records` records of every partition that are on the topic now.

    Raises:
        BrokerUnreachable, TopicMissing: see `partitions_of`.
    """
    async with _reader(broker, topic) as (consumer, partitions):
        await consumer.seek_to_end(*partitions)
        while any(consumer.highwater(tp) is None for tp in partitions):
            await consumer.getmany(timeout_ms=100)
        ends = {tp: consumer.highwater(tp) for tp in partitions}
        await consumer.seek_to_beginning(*partitions)
        firsts = {tp: await consumer.position(tp) for tp in partitions}
        for tp in partitions:
            consumer.seek(tp, max(firsts[tp], ends[tp] - records))
        found: list[ConsumerRecord] = []
        open_ = {tp for tp in partitions if ends[tp] > firsts[tp]}
        while open_:
            for tp, fetched in (await consumer.getmany(*open_, timeout_ms=100)).items():
                found += [record for record in fetched if record.offset < ends[tp]]
            for tp in list(open_):
                if await consumer.position(tp) >= ends[tp]:
                    open_.discard(tp)
                    consumer.pause(tp)
        return found


def _note_end(
    consumer: AIOKafkaConsumer,
    tp: TopicPartition,
    stops: dict[TopicPartition, int],
    ends: Mapping[int, int] | None,
) -> None:
    # The end is the high watermark of a fetch: the embedded broker's ListOffsets stops short of it.
    end = consumer.highwater(tp)
    if tp not in stops and end is not None:
        stops[tp] = end if ends is None else min(end, ends.get(tp.partition, 0))


@asynccontextmanager
async def arrivals(broker: Broker, topic: str) -> AsyncIterator[AsyncGenerator[ConsumerRecord, None]]:
    """Every record that comes to the topic after the block has been entered; of those before, maybe the last.

    Raises:
        BrokerUnreachable, TopicMissing: see `partitions_of`.
    """
    async with _reader(broker, topic) as (consumer, partitions):
        await consumer.seek_to_end(*partitions)
        async with aclosing(_arriving(consumer)) as records:
            yield records


async def _arriving(consumer: AIOKafkaConsumer) -> AsyncGenerator[ConsumerRecord, None]:
    while True:
        for records in (await consumer.getmany(timeout_ms=200)).values():
            for record in records:
                yield record


async def follow(broker: Broker, topic: str, *, from_beginning: bool) -> AsyncGenerator[ConsumerRecord, None]:
    """Every record of the topic, for ever: from the first one, or those after the broker's first answer.

    Raises:
        BrokerUnreachable, TopicMissing: see `partitions_of`.
    """
    async with _reader(broker, topic) as (consumer, partitions):
        if from_beginning:
            await consumer.seek_to_beginning(*partitions)
        else:
            await consumer.seek_to_end(*partitions)
        starts: dict[TopicPartition, int] = {}
        while True:
            fetched = await consumer.getmany(timeout_ms=200)
            for tp in partitions:
                end = consumer.highwater(tp)
                if tp not in starts and end is not None:
                    starts[tp] = 0 if from_beginning else end
            for tp, records in fetched.items():
                for record in records:
                    # The embedded broker's seek to the end stops before the last batch.
                    if record.offset >= starts[tp]:
                        yield record
