"""A topic of one partition that every worker reads as a whole, outside of any group, and then follows.

While the cluster cannot be reached what has been read stays; any other failure must end the worker, which
would otherwise go on with old news for ever.
"""

from __future__ import annotations

import asyncio
import logging
from abc import ABC, abstractmethod
from collections.abc import Awaitable, Callable

import aiokafka
from aiokafka.errors import KafkaError

from streams.kafka.connection import client_options
from streams.sections import Broker

logger = logging.getLogger(__name__)

_FIRST_RETRY_SECONDS = 0.5
_LONGEST_RETRY_SECONDS = 30.0


class Broadcast(ABC):
    """Follows a topic.

    Args:
        topic: of one partition.
        broker: how to reach the cluster.
        what: is on it, for the log.

    Attributes:
        on_error: told of the exception that has ended the following; must end the worker.
        loaded: whether what was on the topic at the start has been read.
    """

    def __init__(self, topic: str, broker: Broker, what: str) -> None:
        self.on_error: Callable[[BaseException], Awaitable[None]] | None = None
        self.loaded = False
        self.topic = topic
        self._broker = broker
        self._what = what
        self._task: asyncio.Task[None] | None = None
        self._consumer: aiokafka.AIOKafkaConsumer | None = None

    @abstractmethod
    def take(self, key: bytes | None, value: bytes | None) -> None:
        """One record of the topic; the records come in order."""

    async def start(self) -> None:
        """Read the topic to its end, then follow it; whatever keeps it from that, nothing stays open."""
        consumer = self._consumer = aiokafka.AIOKafkaConsumer(
            **client_options(self._broker),
            enable_auto_commit=False,
            auto_offset_reset="earliest",
            fetch_max_wait_ms=100,
            max_partition_fetch_bytes=16 * 1024 * 1024,
        )
        try:
            await consumer.start()
            tp = aiokafka.TopicPartition(self.topic, 0)
            consumer.assign([tp])
            await consumer.seek_to_beginning(tp)
            while consumer.highwater(tp) is None or await consumer.position(tp) < consumer.highwater(tp):
                await self._read(timeout_ms=200)
        except BaseException:
            await consumer.stop()
            raise
        self.loaded = True
        self._task = asyncio.create_task(self._follow(), name=self._what)

    async def stop(self) -> None:
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
        if self._consumer is not None:
            await self._consumer.stop()

    async def _follow(self) -> None:
        pause = _FIRST_RETRY_SECONDS
        while True:
            try:
                await self._read(timeout_ms=1000)
                pause = _FIRST_RETRY_SECONDS
            except KafkaError as error:
                logger.warning("%s cannot be read, again in %g s: %s", self._what, pause, error)
                await asyncio.sleep(pause)
                pause = min(2 * pause, _LONGEST_RETRY_SECONDS)
            except Exception as error:
                logger.exception("following the %s topic failed", self._what)
                if self.on_error is not None:
                    await self.on_error(error)
                raise

    async def _read(self, *, timeout_ms: int) -> None:
        assert self._consumer is not None
        for records in (await self._consumer.getmany(timeout_ms=timeout_ms)).values():
            for record in records:
                self.take(record.key, record.value)
