"""Outputs of a stage: sent in whole batches, returned from only when the broker has acknowledged all of them.

Faust's own sends swallow errors: the source offset is then committed over a lost output. Here a failed send
is an exception, and a stage that lets it through ends its process before anything is finished.

Breaks: nothing is retried after `SendFailed`; some of the records may be in the log already, and are sent
again by the replay. Two concurrent `send` calls to one partition may interleave; the records of one call keep
their order within a partition.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import logging
import math
import time
from collections import deque
from collections.abc import Iterable, Mapping, Sequence
from types import TracebackType
from typing import Any, Literal, Self

import msgspec
from aiokafka import AIOKafkaProducer
from aiokafka.errors import KafkaError, UnknownError
from aiokafka.partitioner import murmur2
from aiokafka.protocol.admin import ApiVersionRequest
from aiokafka.structs import RecordMetadata

from streams.errors import FraudstreamError

logger = logging.getLogger(__name__)

Compression = Literal["gzip", "snappy", "lz4", "zstd"]

#: What a record adds to its key, value and headers at most: lengths, timestamp, offset, attributes, and the
#: head of a batch.
_RECORD_OVERHEAD = 100

#: A broker that has answered nothing for so long is asked for a sign of life.
_QUIET_SECONDS = 1.0
#: How long it may take over that before another connection is asked.
_ANSWER_SECONDS = 3.0

_NO_HEADERS: list[tuple[str, bytes]] = []


class Output(msgspec.Struct, frozen=True, gc=False):
    """One record to send; `timestamp_ms` None means the time of sending. `value` None is a tombstone."""

    topic: str
    partition: int
    key: bytes | None
    value: bytes | None
    headers: tuple[tuple[str, bytes], ...] = ()
    timestamp_ms: int | None = None


class SendFailed(FraudstreamError):
    """Stop without finishing the batch: the broker has not acknowledged everything sent to `topic`,
    `partition`.
    """

    def __init__(self, topic: str, partition: int, cause: BaseException | str) -> None:
        self.topic = topic
        self.partition = partition
        self.cause = cause
        reason, kind = str(cause), type(cause).__name__
        if not isinstance(cause, str) and not reason.startswith(kind):  # aiokafka's say what they are
            reason = f"{kind}: {reason}".rstrip(": ")
        super().__init__(f"send to {topic}[{partition}] failed: {reason}")


class _Lane:
    """The way to one partition: what is handed in while a batch is under way goes together in the next one.

    aiokafka sends one batch of a partition after the other, each in a request of its own; small batches of
    several senders would queue for a round trip each.
    """

    def __init__(self, producer: AIOKafkaProducer, topic: str, partition: int) -> None:
        self._producer = producer
        self._topic = topic
        self._partition = partition
        self._waiting: deque[tuple[Sequence[Output], asyncio.Future[int]]] = deque()
        self._running: asyncio.Task[None] | None = None

    def send(self, records: Sequence[Output]) -> asyncio.Future[int]:
        """The offset after the last of `records`, once all of them are acknowledged."""
        acknowledged: asyncio.Future[int] = asyncio.get_running_loop().create_future()
        self._waiting.append((records, acknowledged))
        if self._running is None or self._running.done():
            self._running = asyncio.create_task(self._run())
        return acknowledged

    async def _run(self) -> None:
        while self._waiting:
            taken = list(self._waiting)
            self._waiting.clear()
            try:
                ends = await self._send([records for records, _ in taken])
            except BaseException as error:
                for _, acknowledged in taken:
                    if not acknowledged.done():
                        acknowledged.set_exception(error)
                if not isinstance(error, Exception):
                    raise
            else:
                for (_, acknowledged), end in zip(taken, ends, strict=True):
                    if not acknowledged.done():
                        acknowledged.set_result(end)

    async def _send(self, groups: Sequence[Sequence[Output]]) -> list[int]:
        """The offset after each group."""
        producer, topic, partition = self._producer, self._topic, self._partition
        if partition not in await producer.partitions_for(topic):
            raise SendFailed(topic, partition, "there is no such partition")
        sent: list[asyncio.Future[RecordMetadata]] = []
        ends: list[tuple[int, int]] = []  # of each group: the batch it ends in, and after how many records
        try:
            batch = producer.create_batch()
            for records in groups:
                for record in records:
                    headers = list(record.headers) if record.headers else _NO_HEADERS
                    while (
                        batch.append(
                            timestamp=record.timestamp_ms, key=record.key, value=record.value, headers=headers
                        )
                        is None
                    ):
                        sent.append(await producer.send_batch(batch, topic, partition=partition))
                        batch = producer.create_batch()
                ends.append((len(sent), batch.record_count()))
            sent.append(await producer.send_batch(batch, topic, partition=partition))
        finally:
            # Every batch is waited for, also after a failure: nothing may still be on its way then.
            results = await asyncio.gather(*sent, return_exceptions=True)
        for result in results:
            if isinstance(result, BaseException):
                raise result
        return [sent[batch_index].result().offset + count for batch_index, count in ends]


class Outputs:
    """A producer; `async with`, or `start` and `stop`.

    Args:
        broker: `host:port`, several separated by commas.
        max_batch_bytes: records of one partition are sent in batches of at most this many bytes before
            compression.
        max_record_bytes: a larger record is refused before anything is sent; keep it below the broker's
            `message.max.bytes`.
        compression: codec of the batches, None for none.
        idempotent: True to insist, False to do without, None to use it where the broker has it (the embedded
            one has not). With it a
            request repeated after a lost answer is not appended twice.
        security: `streams.kafka.connection.security_options`; None for a plain connection.
    """

    def __init__(
        self,
        broker: str,
        *,
        client_id: str = "fraudstream",
        max_batch_bytes: int = 512 * 1024,
        max_record_bytes: int = 1_000_000,
        compression: Compression | None = None,
        idempotent: bool | None = None,
        request_timeout_ms: int = 30_000,
        security: Mapping[str, Any] | None = None,
    ) -> None:
        self.max_record_bytes = max_record_bytes
        self._broker = broker
        self._client_id = client_id
        self._max_batch_bytes = max_batch_bytes
        self._compression = compression
        self._idempotent = idempotent
        self._request_timeout_ms = request_timeout_ms
        self._security = dict(security or {})
        self._started: AIOKafkaProducer | None = None
        self._asking: asyncio.Task[None] | None = None
        self._asked = 0
        self._lanes: dict[tuple[str, int], _Lane] = {}

    @property
    def silent_for(self) -> float:
        """Seconds since a broker has answered something; infinite without a connection."""
        # aiokafka keeps no public account of its connections.
        heard = [each._last_action for each in self._connections()]
        return time.monotonic() - max(heard) if heard else math.inf

    def look(self) -> None:
        """Ask a broker for a sign of life if there has been none for a while, and look for one where there is
        no connection: with nothing to send aiokafka would do so minutes later.
        """
        if self._started is None or self.silent_for < _QUIET_SECONDS:
            return
        if self._asking is None or self._asking.done():
            self._asking = asyncio.create_task(self._ask(self._started))

    async def _ask(self, producer: AIOKafkaProducer) -> None:
        if not (connections := self._connections()):
            await producer.client.force_metadata_update()
            return
        self._asked += 1
        with contextlib.suppress(KafkaError, OSError, TimeoutError):
            async with asyncio.timeout(_ANSWER_SECONDS):
                await connections[self._asked % len(connections)].send(ApiVersionRequest())

    def _connections(self) -> list[Any]:
        producer = self._started
        opened = () if producer is None else producer.client._conns.values()
        return [each for each in opened if each.connected()]

    @property
    def idempotent(self) -> bool:
        """Whether a repeated request is recognised by the broker; known after `start`."""
        return bool(self._idempotent)

    async def start(self) -> None:
        """Connect.

        Raises:
            KafkaError: no broker answers, or it has no idempotent producers and they were insisted on.
        """
        producer = self._producer(idempotent=self._idempotent is not False)
        # aiokafka logs the refusal of InitProducerId as an error; when it is only a question, it is none.
        noise = logging.getLogger("aiokafka.producer.sender")
        noise.disabled = self._idempotent is None
        try:
            await producer.start()
        except UnknownError:  # the embedded broker's answer to InitProducerId
            await producer.stop()
            if self._idempotent is not None:
                raise
            logger.info(
                "the broker at %s has no idempotent producers: a repeated request may append twice",
                self._broker,
            )
            self._idempotent = False
            producer = self._producer(idempotent=False)
            try:
                await producer.start()
            except BaseException:
                await producer.stop()
                raise
        except BaseException:
            await producer.stop()
            raise
        finally:
            noise.disabled = False
        self._idempotent = self._idempotent is not False
        self._started = producer
        # The connection of the start is closed again. Without this one a producer that has nothing to send
        # yet would be without one until its next look at the metadata, minutes later.
        await producer.client.force_metadata_update()

    async def stop(self) -> None:
        """Wait for what is under way, close the connections."""
        producer, self._started, self._lanes = self._started, None, {}
        if self._asking is not None:
            self._asking.cancel()
            await asyncio.gather(self._asking, return_exceptions=True)
        if producer is not None:
            await producer.stop()

    async def partitions(self, topic: str) -> int:
        """How many partitions `topic` has."""
        return len(await self._running().partitions_for(topic))

    async def send(self, records: Iterable[Output]) -> dict[tuple[str, int], int]:
        """Send `records`, wait until all in-sync replicas have all of them.

        Returns:
            per (topic, partition) the offset after the last record sent there.

        Raises:
            SendFailed: a record is too large (nothing has been sent then), or the broker refused or did not
            answer.
        """
        groups: dict[tuple[str, int], list[Output]] = {}
        limit = self.max_record_bytes
        for record in records:
            size = len(record.value or b"") + len(record.key or b"")
            if record.headers:
                size += sum(len(name) + len(value or b"") + 10 for name, value in record.headers)
            if size + _RECORD_OVERHEAD > limit:
                raise SendFailed(
                    record.topic,
                    record.partition,
                    f"a record of {size} bytes is above the limit of {limit} bytes",
                )
            destination = (record.topic, record.partition)
            group = groups.get(destination)
            if group is None:
                groups[destination] = [record]
            else:
                group.append(record)
        # Every partition is waited for, also after a failure: nothing may still be on its way when the caller
        # gets to know.
        results = await asyncio.gather(
            *(self._lane(*destination).send(group) for destination, group in groups.items()),
            return_exceptions=True,
        )
        ends: dict[tuple[str, int], int] = {}
        for destination, result in zip(groups, results, strict=True):
            if isinstance(result, BaseException):
                if isinstance(result, KafkaError | OSError | asyncio.TimeoutError):
                    raise SendFailed(*destination, result) from result
                raise result
            ends[destination] = result
        return ends

    def _lane(self, topic: str, partition: int) -> _Lane:
        lane = self._lanes.get((topic, partition))
        if lane is None:
            lane = self._lanes[topic, partition] = _Lane(self._running(), topic, partition)
        return lane

    def _running(self) -> AIOKafkaProducer:
        if self._started is None:
            raise RuntimeError("Outputs.start has not been awaited")
        return self._started

    def _producer(self, *, idempotent: bool) -> AIOKafkaProducer:
        return AIOKafkaProducer(
            bootstrap_servers=self._broker.split(","),
            client_id=self._client_id,
            acks="all",
            enable_idempotence=idempotent,
            compression_type=self._compression,
            max_batch_size=self._max_batch_bytes,
            # A request carries batches of many partitions; its own limit must not be reached before a
            # batch's.
            max_request_size=max(4 * self._max_batch_bytes, 2 * self.max_record_bytes),
            request_timeout_ms=self._request_timeout_ms,
            linger_ms=0,
            **self._security,
        )

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.stop()


@functools.lru_cache(maxsize=1 << 17)
def partition_for(key: bytes, partitions: int) -> int:
    """The Java client's partition of `key`: murmur2 without its sign bit, modulo `partitions`."""
    return int((murmur2(key) & 0x7FFFFFFF) % partitions)
