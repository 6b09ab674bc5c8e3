"""The changelog topic of a stage: sends what `state_log.py` appends, fetches what it reads.

An owner counts offsets. When others have written in between, it looks for a later marker before it goes on
and before anything is tombstoned. A restore looks at the first marker before it appends its own, so that a
worker with other settings is refused and leaves the log as it is.
"""

from __future__ import annotations

import os
from collections.abc import AsyncGenerator, AsyncIterator, Coroutine, Mapping, Sequence
from contextlib import aclosing, asynccontextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any

import aiokafka

from streams.errors import TopicMissing
from streams.kafka.absence import patiently
from streams.kafka.connection import client_options
from streams.kafka.identity import Identity
from streams.kafka.outputs import Output, Outputs
from streams.kafka.state_log import (
    ChangelogError,
    Message,
    PartitionState,
    Reader,
    Writer,
    marker,
    takes_over,
)
from streams.sections import Broker


class ChangelogFenced(ChangelogError):
    """Another worker has taken over the partition: nothing written since will be restored."""


@dataclass(frozen=True, slots=True)
class Change:
    """What one step has changed in the state of a partition.

    Args:
        state: has taken the delta in, and nothing after it.
        delta: None for the whole state at once, if that is small or has no deltas.
    """

    partition: int
    state: PartitionState
    delta: bytes | None


@dataclass(frozen=True, slots=True)
class Restored:
    """What a restore has read."""

    deltas: int
    buckets: int
    bytes: int


@dataclass(slots=True)
class _Partition:
    """A partition that this worker owns; `end` is the offset after the last record that it wrote or read."""

    writer: Writer
    end: int


class Changelog:
    """The changelog topic of one stage.

    Args:
        topic: name of the compacted topic; its partitions are those of the stage.
        broker: how to reach the cluster.
        outputs: the producer; must be started before the first restore.
    """

    def __init__(self, topic: str, broker: Broker, outputs: Outputs) -> None:
        self.topic = topic
        self._broker = broker
        self._outputs = outputs
        self._partitions: dict[int, _Partition] = {}

    def save(self, changes: Sequence[Change]) -> Coroutine[Any, Any, None]:
        """Make the last steps of some partitions durable: their deltas and, when due, a bucket of each.

        What is written is taken from the states now, before they go on; to be awaited before the next save.

        Raises:
            ChangelogFenced: another worker owns a partition; its batches must not be finished.
            SendFailed: from the producer.
        """
        return self._save(
            {each.partition: self._writer(each).records(each.state, each.delta) for each in changes}
        )

    async def _save(self, messages: Mapping[int, Sequence[Message]]) -> None:
        tombstones = {}
        for partition, follows in (await self._append(messages)).items():
            if not follows:  # a stranger's records, or own ones twice
                await self._look_for_owners(partition)
            if due := self._partitions[partition].writer.settled():
                tombstones[partition] = due
        if tombstones:
            await self._append(tombstones)

    def _writer(self, change: Change) -> Writer:
        return self._partitions[change.partition].writer

    async def _append(self, messages: Mapping[int, Sequence[Message]]) -> dict[int, bool]:
        """Send; by partition, whether nothing stands between what is known of the log and the messages."""
        ends = await self._outputs.send(
            Output(self.topic, partition, *message)
            for partition, sent in messages.items()
            for message in sent
        )
        follow = {}
        for partition, sent in messages.items():
            known, end = self._partitions[partition], ends[self.topic, partition]
            follow[partition] = end == known.end + len(sent)
            if follow[partition]:
                known.end = end
        return follow

    async def _look_for_owners(self, partition: int) -> None:
        known = self._partitions[partition]
        async with self._reading(partition, known.end) as consumer:
            async for records in self._fetched(consumer, partition, None):
                for record in records:
                    if takes_over(record.key, record.value, known.writer.owner):
                        raise ChangelogFenced(
                            f"{self.topic}[{partition}] has been taken over by another worker"
                        )
                    known.end = record.offset + 1

    async def restore(self, partition: int, state: PartitionState, identity: Identity) -> Restored:
        """Take over the partition; read its log up to there into the empty `state`.

        Raises:
            BrokerUnreachable: no broker has let it in for half a minute.
            ChangelogError: a message on the topic is not of this format.
            ChangelogFenced: yet another worker has taken over meanwhile.
            SendFailed: from the producer.
            StateMismatch: the log belongs to something else than `identity`; nothing has been written to it.
            TopicMissing: there is no such topic or partition.
        """
        owner = os.urandom(8).hex()
        reader = Reader(state, identity, f"{self.topic}[{partition}]")
        async with self._reading(partition, None) as consumer:
            async with aclosing(self._fetched(consumer, partition, None)) as fetched:
                async for records in fetched:
                    _read(reader, records)
                    if reader.owner is not None:
                        break
            own = Output(self.topic, partition, *marker(owner, identity))
            end = (await self._outputs.send([own]))[self.topic, partition]
            async for records in self._fetched(consumer, partition, end):
                _read(reader, records)
        if reader.owner != owner:
            raise ChangelogFenced(f"{self.topic}[{partition}] has been taken over by another worker")
        self._partitions[partition] = _Partition(reader.writer(), end)
        return Restored(reader.deltas, reader.loaded, reader.bytes)

    @asynccontextmanager
    async def _reading(self, partition: int, start: int | None) -> AsyncIterator[aiokafka.AIOKafkaConsumer]:
        """A consumer of the partition from offset `start` (None: the first) on."""
        consumer = await patiently(partial(self._consumer, partition, start), self._broker.bootstrap)
        try:
            yield consumer
        finally:
            await consumer.stop()

    async def _consumer(self, partition: int, start: int | None) -> aiokafka.AIOKafkaConsumer:
        consumer = aiokafka.AIOKafkaConsumer(
            **client_options(self._broker),
            enable_auto_commit=False,
            auto_offset_reset="earliest",
            fetch_max_wait_ms=50,
            max_partition_fetch_bytes=8 * 1024 * 1024,
        )
        try:
            await consumer.start()
            # A consumer waits for ever for a partition that does not exist.
            known = self.topic in await consumer.topics()
            if not known or partition >= await self._outputs.partitions(self.topic):
                raise TopicMissing(
                    f"{self.topic}[{partition}] does not exist at {self._broker.bootstrap}; "
                    "create it: `fraudstream topics create`"
                )
            tp = aiokafka.TopicPartition(self.topic, partition)
            consumer.assign([tp])
            if start is None:
                await consumer.seek_to_beginning(tp)
            else:
                consumer.seek(tp, start)
        except BaseException:
            await consumer.stop()
            raise
        return consumer

    async def _fetched(
        self, consumer: aiokafka.AIOKafkaConsumer, partition: int, end: int | None
    ) -> AsyncGenerator[list[aiokafka.ConsumerRecord], None]:
        """The records that come, fetch by fetch, to before offset `end` (None: the present end)."""
        tp = aiokafka.TopicPartition(self.topic, partition)
        while end is None or await consumer.position(tp) < end:
            for records in (await consumer.getmany(tp, timeout_ms=200)).values():
                yield [record for record in records if end is None or record.offset < end]
            # The end is the high watermark of a fetch: the embedded broker's ListOffsets stops short.
            high = consumer.highwater(tp)
            if end is None and high is not None and await consumer.position(tp) >= high:
                return


def _read(reader: Reader, records: Sequence[aiokafka.ConsumerRecord]) -> None:
    for record in records:
        reader.read(record.key, record.value)
