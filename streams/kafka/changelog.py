"""Partition state on a compacted topic: a delta per batch, the whole state in a rolling checkpoint.

The state of a stage partition lives in memory. After every batch the stage appends one *delta* (what the
batch changed, a few columns) to the partition of its changelog. So that the log stays bounded, the state is
also written in *buckets*, one after another, as the deltas grow: when every bucket has been written anew, the
deltas from before that round are tombstoned and compaction removes them. Restoring reads the log once in
order: a delta is applied, a bucket replaces what it covers.

A bucket can be larger than a message, so it is cut into chunks. Its two latest versions alternate between two
sets of keys, so that a crash between two chunks, followed by compaction, leaves the older version whole.

Keys: `d/<sequence>` for a delta, `b/<bucket>/<side>/<chunk>` for a chunk.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Protocol

import aiokafka
import msgspec

from streams.kafka.connection import client_options
from streams.kafka.outputs import Output
from streams.sections import Broker

CHUNK_BYTES = 512 * 1024
#: A round over all buckets starts when the deltas since the last one outweigh the state this many times over.
_DELTAS_PER_STATE = 1.0
#: Below this many bytes of deltas no bucket is written: small states restore from deltas alone.
_MIN_BYTES_PER_BUCKET = 256 * 1024


class PartitionState(Protocol):
    """What a stage keeps for one partition; the same deltas in the same order give the same state."""

    @property
    def buckets(self) -> int:
        """Into how many pieces `dump` cuts the state."""

    def apply(self, delta: bytes) -> None: ...

    def dump(self, bucket: int) -> bytes: ...

    def load(self, bucket: int, data: bytes) -> None: ...


class ChangelogError(RuntimeError):
    """The changelog holds something that this version cannot restore from."""


class _Chunk(msgspec.Struct, array_like=True):
    version: int
    index: int
    count: int
    data: bytes


_encode_chunk = msgspec.msgpack.Encoder().encode
_decode_chunk = msgspec.msgpack.Decoder(_Chunk).decode


@dataclass(slots=True)
class _Writer:
    """Where the log of one partition stands."""

    sequence: int = 0
    oldest_delta: int = 0
    round_start: int = 0
    next_bucket: int = 0
    bytes_since_bucket: int = 0
    state_bytes: int = 0
    versions: dict[int, int] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Restored:
    """What a restore has read."""

    deltas: int
    buckets: int
    bytes: int


class Changelog:
    """The changelog topic of one stage.

    Args:
        topic: name of the compacted topic; its partitions are those of the stage.
        broker: how to reach the cluster.
    """

    def __init__(self, topic: str, broker: Broker) -> None:
        self.topic = topic
        self._broker = broker
        self._writers: dict[int, _Writer] = {}

    def records(self, partition: int, state: PartitionState, delta: bytes) -> list[Output]:
        """The messages that make the last batch durable: its delta and, when due, buckets and tombstones.

        `state` has already applied the delta. The messages must be sent in this order.
        """
        writer = self._writers[partition]
        records = [self._output(partition, f"d/{writer.sequence}", delta)]
        writer.sequence += 1
        writer.bytes_since_bucket += len(delta)
        due = max(_MIN_BYTES_PER_BUCKET, writer.state_bytes * _DELTAS_PER_STATE / state.buckets)
        if writer.bytes_since_bucket >= due:
            writer.bytes_since_bucket = 0
            records += self._checkpoint(partition, writer, state)
        return records

    def checkpoint(self, partition: int, state: PartitionState) -> list[Output]:
        """The messages that hold the whole state at once, for a state that is small or has no deltas."""
        writer = self._writers[partition]
        return [record for _ in range(state.buckets) for record in self._checkpoint(partition, writer, state)]

    def _checkpoint(self, partition: int, writer: _Writer, state: PartitionState) -> list[Output]:
        bucket = writer.next_bucket
        if bucket == 0:
            writer.round_start = writer.sequence
            writer.state_bytes = 0
        data = state.dump(bucket)
        writer.state_bytes += len(data)
        version = writer.versions.get(bucket, -1) + 1
        writer.versions[bucket] = version
        pieces = [data[i : i + CHUNK_BYTES] for i in range(0, len(data), CHUNK_BYTES)] or [b""]
        records = [
            self._output(
                partition,
                f"b/{bucket}/{version % 2}/{index}",
                _encode_chunk(_Chunk(version, index, len(pieces), piece)),
            )
            for index, piece in enumerate(pieces)
        ]
        writer.next_bucket = (bucket + 1) % state.buckets
        if writer.next_bucket == 0:
            records += [
                self._output(partition, f"d/{sequence}", None)
                for sequence in range(writer.oldest_delta, writer.round_start)
            ]
            writer.oldest_delta = writer.round_start
        return records

    def _output(self, partition: int, key: str, value: bytes | None) -> Output:
        return Output(self.topic, partition, key.encode(), value)

    async def restore(self, partition: int, state: PartitionState) -> Restored:
        """Read the partition's log from its beginning to its end into the empty `state`.

        Raises:
            ChangelogError: a message on the topic is not of this format.
        """
        reader = _Reader(state)
        consumer = aiokafka.AIOKafkaConsumer(
            **client_options(self._broker),
            enable_auto_commit=False,
            auto_offset_reset="earliest",
            fetch_max_wait_ms=50,
            max_partition_fetch_bytes=8 * 1024 * 1024,
        )
        await consumer.start()
        try:
            tp = aiokafka.TopicPartition(self.topic, partition)
            consumer.assign([tp])
            await consumer.seek_to_beginning(tp)
            # The end is the high watermark of a fetch: the embedded broker's ListOffsets stops short of it.
            while consumer.highwater(tp) is None or await consumer.position(tp) < consumer.highwater(tp):
                for records in (await consumer.getmany(tp, timeout_ms=200)).values():
                    for record in records:
                        reader.read(record.key, record.value)
        finally:
            await consumer.stop()
        self._writers[partition] = reader.writer
        return Restored(reader.deltas, reader.loaded, reader.bytes)


class _Reader:
    """Applies the messages of one partition, in order, to its state."""

    def __init__(self, state: PartitionState) -> None:
        self.state = state
        self.writer = _Writer()
        self.deltas = 0
        self.loaded = 0
        self.bytes = 0
        self._oldest: int | None = None
        self._chunks: dict[tuple[int, int], list[bytes]] = {}

    def read(self, key: bytes | None, value: bytes | None) -> None:
        try:
            kind, *numbers = (key or b"").decode().split("/")
            positions = [int(number) for number in numbers]
            if kind == "d" and len(positions) == 1:
                self._delta(positions[0], value)
            elif kind == "b" and len(positions) == 3:
                self._chunk(positions, value)
            else:
                raise ValueError("unknown kind of key")
        except (ValueError, msgspec.MsgspecError) as error:
            raise ChangelogError(f"changelog key {key!r}: {error}") from error
        self.bytes += len(value or b"")

    def _delta(self, sequence: int, value: bytes | None) -> None:
        self.writer.sequence = max(self.writer.sequence, sequence + 1)
        if value is None:
            self.writer.oldest_delta = max(self.writer.oldest_delta, sequence + 1)
            return
        if self._oldest is None:
            self._oldest = sequence
            self.writer.oldest_delta = max(self.writer.oldest_delta, sequence)
        self.state.apply(value)
        self.deltas += 1
        self.writer.bytes_since_bucket += len(value)

    def _chunk(self, positions: Sequence[int], value: bytes | None) -> None:
        bucket, _side, index = positions
        if value is None:
            return
        chunk = _decode_chunk(value)
        if index == 0:  # a version that a crash cut short begins anew under the same number
            self._chunks[bucket, chunk.version] = []
        pieces = self._chunks.get((bucket, chunk.version))
        if pieces is None or index != len(pieces):
            return  # the rest of a version whose beginning has been compacted away
        pieces.append(chunk.data)
        if len(pieces) < chunk.count:
            return
        del self._chunks[bucket, chunk.version]
        data = b"".join(pieces)
        self.state.load(bucket, data)
        self.loaded += 1
        self.writer.versions[bucket] = max(chunk.version, self.writer.versions.get(bucket, -1))
        self.writer.next_bucket = (bucket + 1) % self.state.buckets
        if bucket == 0:
            self.writer.round_start = self.writer.sequence
            self.writer.state_bytes = 0
        self.writer.state_bytes += len(data)
        self.writer.bytes_since_bucket = 0
