"""A consumer that reads scored rows again, long after they were scored."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

import aiokafka

from streams.kafka.absence import patiently
from streams.kafka.connection import client_options
from streams.sections import Broker
from streams.stages import columns
from streams.stages.columns import Columns
from streams.stages.late_rows import LateRows

#: Messages held ahead, of all score partitions together, unless there are very many.
_MOST_MESSAGES = 128
_FETCHED_MESSAGES = 64
#: A score partition that has been passed over waits so long at most for one that has nothing new.
_FETCH_MS = 200


class LateReader:
    """Scored rows of one partition of cards, by score partition, read ahead outside the consumer group.

    Args:
        score_partitions: how many of them write to the partition; the key of a message is its number.
        on_news: called when messages of a score partition have come after there were none.
        on_lost: told how many messages were gone before they could be read.
        on_error: told of the exception that has ended the reading; must end the worker.
    """

    def __init__(
        self,
        topic: str,
        partition: int,
        score_partitions: int,
        broker: Broker,
        on_news: Callable[[], None],
        on_lost: Callable[[int], None],
        on_error: Callable[[BaseException], Awaitable[None]],
    ) -> None:
        self._tp = aiokafka.TopicPartition(topic, partition)
        self._most = max(4, _MOST_MESSAGES // score_partitions)
        self._on_news = on_news
        self._on_lost = on_lost
        self._on_error = on_error
        self._broker = broker
        self._consumer: aiokafka.AIOKafkaConsumer | None = None
        self._rows: LateRows[aiokafka.ConsumerRecord[Any, Any]] = LateRows({}, self._most)
        self._decoded: dict[int, tuple[int, Columns]] = {}
        self._room = asyncio.Event()
        self._task: asyncio.Task[None] | None = None

    async def start(self, places: Mapping[int, int]) -> None:
        """Connect, and read from the offset of each score partition; whatever keeps it from that, nothing
        stays open.

        Raises:
            BrokerUnreachable: no broker has let it in for half a minute.
        """
        self._consumer = consumer = await patiently(self._connected, self._broker.bootstrap)
        self._rows = LateRows(places, self._most)
        self._task = asyncio.create_task(self._read_ahead(consumer), name=f"late-{self._tp.partition}")

    async def _connected(self) -> aiokafka.AIOKafkaConsumer:
        consumer = aiokafka.AIOKafkaConsumer(
            **client_options(self._broker),
            enable_auto_commit=False,
            auto_offset_reset="earliest",
            fetch_max_wait_ms=_FETCH_MS,
        )
        try:
            await consumer.start()
            consumer.assign([self._tp])
        except BaseException:
            await consumer.stop()
            raise
        return consumer

    async def stop(self) -> None:
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
        if self._consumer is not None:
            await self._consumer.stop()

    def first(self, score_partition: int) -> tuple[int, Columns] | None:
        """The next message of the score partition and its offset, or None while none has come."""
        if score_partition not in self._decoded:
            record = self._rows.first(score_partition)
            if record is None:
                return None
            self._decoded[score_partition] = record.offset, columns.decode(record.value or b"")
        return self._decoded[score_partition]

    def drop(self, score_partition: int) -> None:
        """The message that `first` gave is done with."""
        del self._decoded[score_partition]
        self._rows.drop(score_partition)
        self._room.set()

    def place(self, score_partition: int) -> int:
        """The offset before which nothing of the score partition is left to be decided."""
        return self._rows.place(score_partition)

    async def _read_ahead(self, consumer: aiokafka.AIOKafkaConsumer) -> None:
        try:
            position = -1
            while True:
                self._room.clear()
                start = self._rows.wanted()
                if start is None:
                    await self._room.wait()
                    continue
                if start != position:
                    consumer.seek(self._tp, start)
                    position = start
                fetched = await consumer.getmany(
                    self._tp, timeout_ms=_FETCH_MS, max_records=_FETCHED_MESSAGES
                )
                for records in fetched.values():
                    # From the very start on there is nothing to miss: what came before was for another state.
                    if 0 < start < records[0].offset:
                        self._on_lost(records[0].offset - start)
                    position = records[-1].offset + 1
                    if self._rows.take(start, records):
                        self._on_news()
        except Exception as error:
            await self._on_error(error)
