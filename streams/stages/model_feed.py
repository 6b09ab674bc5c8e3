"""The models topic as every worker sees it: all versions still on the topic, kept up to date.

Models are broadcast, not partitioned: each worker reads the whole compacted topic by itself, outside of any
consumer group. A version that cannot be used is counted and left out; it never disturbs scoring. While the
cluster cannot be reached the versions at hand stay; any other failure ends the worker, which would otherwise
score with old models for ever.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from contextlib import aclosing

import aiokafka
from aiokafka.errors import KafkaError

from models.snapshot import Snapshot, SnapshotError, decode
from streams.kafka.clients import read_all
from streams.kafka.connection import client_options
from streams.sections import Broker

logger = logging.getLogger(__name__)

_FIRST_RETRY_SECONDS = 0.5
_LONGEST_RETRY_SECONDS = 30.0


def model_key(name: str, version: int) -> bytes:
    """Key of a version on the models topic."""
    return f"{name}/{version}".encode()


def key_of(key: bytes | None) -> tuple[str, int] | None:
    """Name and version of a key on the models topic; None for a key of another form."""
    name, _, version = (key or b"").decode(errors="replace").rpartition("/")
    return (name, int(version)) if name and version.isascii() and version.isdigit() else None


async def highest_versions(broker: Broker, topic: str) -> dict[str, int]:
    """By model name the highest version that the topic tells of, usable or not, or deleted since.

    Raises:
        BrokerUnreachable: no broker answers.
        TopicMissing: there is no such topic.
    """
    highest: dict[str, int] = {}
    async with aclosing(read_all(broker, topic)) as records:
        async for record in records:
            if (found := key_of(record.key)) is not None:
                highest[found[0]] = max(found[1], highest.get(found[0], 0))
    return highest


class ModelFeed:
    """Follows the models topic.

    Args:
        topic: the models topic, one partition.
        broker: how to reach the cluster.
        spec_digest: versions learned on another feature spec are left out.
        on_new: told of every usable version that was not on the topic at the start.
        on_refused: told of the name of every model of which a version was refused.

    Attributes:
        on_error: told of the exception that has ended the following; must end the worker.
    """

    def __init__(
        self,
        topic: str,
        broker: Broker,
        spec_digest: str,
        on_new: Callable[[Snapshot], None] = lambda _: None,
        on_refused: Callable[[str], None] = lambda _: None,
    ) -> None:
        self.on_error: Callable[[BaseException], Awaitable[None]] | None = None
        self._topic = topic
        self._broker = broker
        self._spec_digest = spec_digest
        self._on_new = on_new
        self._on_refused = on_refused
        self._versions: dict[tuple[str, int], Snapshot] = {}
        self._latest: dict[str, Snapshot] = {}
        self._loaded = False
        self._task: asyncio.Task[None] | None = None
        self._consumer: aiokafka.AIOKafkaConsumer | None = None
        self.refused = 0

    @property
    def latest(self) -> dict[str, Snapshot]:
        """The highest version of each name."""
        return self._latest

    def version(self, name: str, version: int) -> Snapshot | None:
        """That version, if it is still on the topic."""
        return self._versions.get((name, version))

    async def start(self) -> None:
        """Read the topic to its end, then follow it."""
        self._consumer = aiokafka.AIOKafkaConsumer(
            **client_options(self._broker),
            enable_auto_commit=False,
            auto_offset_reset="earliest",
            fetch_max_wait_ms=100,
            max_partition_fetch_bytes=16 * 1024 * 1024,
        )
        await self._consumer.start()
        tp = aiokafka.TopicPartition(self._topic, 0)
        self._consumer.assign([tp])
        await self._consumer.seek_to_beginning(tp)
        while self._consumer.highwater(tp) is None or (
            await self._consumer.position(tp) < self._consumer.highwater(tp)
        ):
            await self._read(timeout_ms=200)
        self._loaded = True
        self._task = asyncio.create_task(self._follow(), name="models")

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
                logger.warning("models cannot be read, again in %g s: %s", pause, error)
                await asyncio.sleep(pause)
                pause = min(2 * pause, _LONGEST_RETRY_SECONDS)
            except Exception as error:
                logger.exception("following the models topic failed")
                if self.on_error is not None:
                    await self.on_error(error)
                raise

    async def _read(self, *, timeout_ms: int) -> None:
        assert self._consumer is not None
        for records in (await self._consumer.getmany(timeout_ms=timeout_ms)).values():
            for record in records:
                self._take(record.key, record.value)

    def _take(self, key: bytes | None, value: bytes | None) -> None:
        if value is None:
            if (gone := key_of(key)) is not None:
                self._versions.pop(gone, None)
            return
        try:
            snapshot = decode(value, self._spec_digest)
        except SnapshotError as error:
            self.refused += 1
            self._on_refused((key or b"").decode(errors="replace").rpartition("/")[0])
            logger.warning("model %r refused: %s: %s", key, type(error).__name__, error)
            return
        self._versions[snapshot.name, snapshot.version] = snapshot
        if snapshot.name not in self._latest or self._latest[snapshot.name].version < snapshot.version:
            self._latest[snapshot.name] = snapshot
        if self._loaded:
            self._on_new(snapshot)
