"""What the harness does at the broker: topics, seeding, counting what has arrived."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Mapping, Sequence

from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient, NewTopic
from aiokafka.errors import TopicAlreadyExistsError, for_code
from aiokafka.partitioner import murmur2

from benchmarks.workload import Message

#: Stated, since Quix Streams derives its changelog's from it and the embedded broker tells no defaults.
KEEP_A_WEEK = {"cleanup.policy": "delete", "retention.ms": "604800000", "retention.bytes": "-1"}


def partition_of(key: bytes, partitions: int) -> int:
    """The partition every Kafka client's default partitioner gives to a key."""
    return int((murmur2(key) & 0x7FFFFFFF) % partitions)


async def create_topics(
    broker: str, topics: Iterable[str], partitions: int, config: Mapping[str, str] = KEEP_A_WEEK
) -> None:
    """Create the topics that do not exist; any other refusal of the broker is raised."""
    admin = AIOKafkaAdminClient(bootstrap_servers=broker)
    await admin.start()
    try:
        response = await admin.create_topics(
            [NewTopic(topic, partitions, 1, topic_configs=dict(config)) for topic in topics]
        )
        for topic, code, *_ in response.topic_errors:
            error = for_code(code)
            if code and error is not TopicAlreadyExistsError:
                raise error(f"creating topic {topic}")
    finally:
        await admin.close()


async def seed(broker: str, topic: str, messages: Sequence[Message], partitions: int) -> None:
    """Publish the messages by key, in order within each partition, every batch acknowledged."""
    producer = AIOKafkaProducer(bootstrap_servers=broker, max_batch_size=1 << 18)
    await producer.start()
    try:
        lanes: list[list[Message]] = [[] for _ in range(partitions)]
        for message in messages:
            lanes[partition_of(message.key, partitions)].append(message)
        await asyncio.gather(*(_send(producer, topic, index, lane) for index, lane in enumerate(lanes)))
    finally:
        await producer.stop()


async def _send(producer: AIOKafkaProducer, topic: str, partition: int, lane: list[Message]) -> None:
    batch = producer.create_batch()
    for message in lane:
        if batch.append(key=message.key, value=message.value, timestamp=None) is None:
            await (await producer.send_batch(batch, topic, partition=partition))
            batch = producer.create_batch()
            batch.append(key=message.key, value=message.value, timestamp=None)
    if batch.record_count():
        await (await producer.send_batch(batch, topic, partition=partition))


class Watermarks:
    """Counts the records of a topic without reading them: the high watermarks of fetch responses.

    ListOffsets is not asked, because the embedded broker answers it with the start of the last batch. Each
    probe fetches from the last known watermark, at most one small batch a partition, and seeks on.
    """

    def __init__(self, broker: str, topic: str, partitions: int) -> None:
        self._partitions = [TopicPartition(topic, index) for index in range(partitions)]
        self._consumer = AIOKafkaConsumer(
            bootstrap_servers=broker,
            enable_auto_commit=False,
            auto_offset_reset="earliest",
            fetch_max_wait_ms=20,
            max_partition_fetch_bytes=1,
            check_crcs=False,
        )
        self._marks = dict.fromkeys(self._partitions, 0)

    async def start(self) -> None:
        """Connect and begin at offset 0 of every partition."""
        await self._consumer.start()
        self._consumer.assign(self._partitions)
        for partition in self._partitions:
            self._consumer.seek(partition, 0)

    async def total(self) -> int:
        """The records the topic holds now, as of the last fetch of each partition."""
        await self._consumer.getmany(timeout_ms=20, max_records=1)
        for partition in self._partitions:
            mark = self._consumer.highwater(partition)
            if mark is not None and mark > self._marks[partition]:
                self._marks[partition] = mark
                self._consumer.seek(partition, mark)
        return sum(self._marks.values())

    async def stop(self) -> None:
        """Disconnect."""
        await self._consumer.stop()
