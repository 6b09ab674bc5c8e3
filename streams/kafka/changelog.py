"""Partition state on a compacted topic: a delta per batch, the whole state in a rolling checkpoint.

The state of a stage partition lives in memory. After every batch the stage appends one *delta* (what the
batch changed, a few columns) to the partition of its changelog. So that the log stays bounded, the state is
also written in *buckets*, one after another, as the deltas grow: when every bucket has been written anew, the
deltas from before that round are tombstoned and compaction removes them. Restoring reads the log once in
order: a delta is applied, a bucket replaces what it covers.

A bucket can be larger than a message, so it is cut into chunks. Its two latest versions alternate between two
sets of keys, so that a crash between two chunks, followed by compaction, leaves the older version whole.

Only one worker may own a partition, but an old one can still write: it was stopped and woken, or a send of
its was under way. Every restore therefore takes a new random *owner* id, appends a marker of it and reads
exactly up to that. Records carry their owner in the key, so owners never overwrite each other; readers pass
over what does not belong to the latest marker before it, and over a delta that they have applied. A marker
stays until nothing of its owner or an earlier one is left in the log.

Tombstones work whatever readers think of them, so an owner sends them only when what they replace is known to
stand before any later marker: it counts offsets, and looks at what others have written when there is a gap.

The value of a marker says what the state belongs to (`identity.py`). A restore looks at the first marker
before it appends its own, so that a worker with other settings is refused and leaves the log as it is.

Keys: `o/<owner>` for a marker, `d/<owner>/<sequence>` for a delta, `b/<owner>/<bucket>/<side>/<chunk>` for a
chunk.
"""

from __future__ import annotations

import os
from collections.abc import AsyncGenerator, AsyncIterator, Iterable, Iterator, Sequence
from contextlib import aclosing, asynccontextmanager
from dataclasses import dataclass, field
from typing import Protocol

import aiokafka
import msgspec

from streams.errors import StateMismatch, TopicMissing
from streams.kafka.connection import client_options
from streams.kafka.identity import Identity
from streams.kafka.outputs import Output, Outputs
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


class ChangelogFenced(ChangelogError):
    """Another worker has taken over the partition: nothing written since will be restored."""


class _Chunk(msgspec.Struct, array_like=True):
    version: int
    index: int
    count: int
    data: bytes


_encode_chunk = msgspec.msgpack.Encoder().encode
_decode_chunk = msgspec.msgpack.Decoder(_Chunk).decode


@dataclass(slots=True)
class _Owned:
    """What the log holds of one owner: deltas `first` to before `next`, and keys of chunks by bucket."""

    first: int = 0
    next: int = 0
    chunks: dict[int, set[str]] = field(default_factory=dict)


@dataclass(slots=True)
class _Writer:
    """Where the log of one partition stands."""

    owner: str = ""
    #: The offset after the last record known to be of this owner or read by it.
    end: int = 0
    #: In order of their markers; the last one is the owner.
    owners: dict[str, _Owned] = field(default_factory=dict)
    #: Of each owner, the deltas that the running round over the buckets replaces.
    round_ends: dict[str, int] = field(default_factory=dict)
    next_bucket: int = 0
    bytes_since_bucket: int = 0
    state_bytes: int = 0
    versions: dict[int, int] = field(default_factory=dict)
    #: Buckets and rounds that have been handed out, and replace older records once they are known to stand.
    unsettled_buckets: list[int] = field(default_factory=list)
    unsettled_round: dict[str, int] = field(default_factory=dict)

    def begin_round(self) -> None:
        self.round_ends = {owner: owned.next for owner, owned in self.owners.items()}
        self.state_bytes = 0

    def replaced(self) -> Iterator[str]:
        """The keys that what has been handed out makes superfluous, in the order of their tombstones."""
        for owned in self.owners.values():
            for bucket in self.unsettled_buckets:
                yield from sorted(owned.chunks.pop(bucket, ()))
        for owner, end in self.unsettled_round.items():
            if owner in self.owners:
                owned = self.owners[owner]
                yield from (f"d/{owner}/{sequence}" for sequence in range(owned.first, end))
                owned.first = max(owned.first, end)
        self.unsettled_buckets, self.unsettled_round = [], {}
        # In order: a marker that goes before an earlier one would let late records of that one count.
        for owner, owned in list(self.owners.items()):
            if owner == self.owner or owned.chunks or owned.first < owned.next:
                return
            del self.owners[owner]
            yield f"o/{owner}"


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
        self._writers: dict[int, _Writer] = {}

    async def save(self, changes: Sequence[Change]) -> None:
        """Make the last steps of some partitions durable: their deltas and, when due, a bucket of each.

        Raises:
            ChangelogFenced: another worker owns a partition; its batches must not be finished.
            SendFailed: from the producer.
        """
        records = {change.partition: self._records(change) for change in changes}
        ends = await self._outputs.send(record for each in records.values() for record in each)
        tombstones: dict[int, list[Output]] = {}
        for partition, sent in records.items():
            writer, end = self._writers[partition], ends[self.topic, partition]
            if end == writer.end + len(sent):
                writer.end = end
            else:  # a stranger's records, or own ones twice
                await self._look_for_owners(partition, writer)
            if due := self._settled(partition):
                tombstones[partition] = due
        if tombstones:
            ends = await self._outputs.send(record for each in tombstones.values() for record in each)
            for partition, sent in tombstones.items():
                writer, end = self._writers[partition], ends[self.topic, partition]
                if end == writer.end + len(sent):
                    writer.end = end

    async def _look_for_owners(self, partition: int, writer: _Writer) -> None:
        async with self._reading(partition, writer.end) as consumer:
            async for records in self._fetched(consumer, partition, None):
                for record in records:
                    if _takes_over(record.key, record.value, writer.owner):
                        raise ChangelogFenced(
                            f"{self.topic}[{partition}] has been taken over by another worker"
                        )
                    writer.end = record.offset + 1

    def _records(self, change: Change) -> list[Output]:
        """The messages of one change, to be sent in this order."""
        partition, state = change.partition, change.state
        writer = self._writers[partition]
        if change.delta is None:
            return [each for _ in range(state.buckets) for each in self._checkpoint(partition, writer, state)]
        own = writer.owners[writer.owner]
        records = [self._output(partition, f"d/{writer.owner}/{own.next}", change.delta)]
        own.next += 1
        writer.bytes_since_bucket += len(change.delta)
        due = max(_MIN_BYTES_PER_BUCKET, writer.state_bytes * _DELTAS_PER_STATE / state.buckets)
        if writer.bytes_since_bucket >= due:
            writer.bytes_since_bucket = 0
            records += self._checkpoint(partition, writer, state)
        return records

    def _settled(self, partition: int) -> list[Output]:
        """The tombstones that are due once the messages handed out stand before any other owner's marker."""
        writer = self._writers[partition]
        if not writer.unsettled_buckets:
            return []
        return [self._output(partition, key, None) for key in writer.replaced()]

    def _checkpoint(self, partition: int, writer: _Writer, state: PartitionState) -> list[Output]:
        bucket = writer.next_bucket
        if bucket == 0:
            writer.begin_round()
        data = state.dump(bucket)
        writer.state_bytes += len(data)
        version = writer.versions.get(bucket, -1) + 1
        writer.versions[bucket] = version
        pieces = [data[i : i + CHUNK_BYTES] for i in range(0, len(data), CHUNK_BYTES)] or [b""]
        records = [
            self._output(
                partition,
                f"b/{writer.owner}/{bucket}/{version % 2}/{index}",
                _encode_chunk(_Chunk(version, index, len(pieces), piece)),
            )
            for index, piece in enumerate(pieces)
        ]
        writer.unsettled_buckets.append(bucket)
        writer.next_bucket = (bucket + 1) % state.buckets
        if writer.next_bucket == 0:
            writer.unsettled_round = writer.round_ends
        return records

    def _output(self, partition: int, key: str, value: bytes | None) -> Output:
        return Output(self.topic, partition, key.encode(), value)

    async def restore(self, partition: int, state: PartitionState, identity: Identity) -> Restored:
        """Take over the partition; read its log up to there into the empty `state`.

        Raises:
            ChangelogError: a message on the topic is not of this format.
            ChangelogFenced: yet another worker has taken over meanwhile.
            SendFailed: from the producer.
            StateMismatch: the log belongs to something else than `identity`; nothing has been written to it.
            TopicMissing: there is no such topic or partition.
        """
        owner = os.urandom(8).hex()
        reader = _Reader(state, identity, f"{self.topic}[{partition}]")
        async with self._reading(partition, None) as consumer:
            async with aclosing(self._fetched(consumer, partition, None)) as fetched:
                async for records in fetched:
                    reader.read_all(records)
                    if reader.owner is not None:
                        break
            marker = self._output(partition, f"o/{owner}", identity.encode())
            end = (await self._outputs.send([marker]))[self.topic, partition]
            async for records in self._fetched(consumer, partition, end):
                reader.read_all(records)
        if reader.owner != owner:
            raise ChangelogFenced(f"{self.topic}[{partition}] has been taken over by another worker")
        self._writers[partition] = reader.writer()
        self._writers[partition].end = end
        return Restored(reader.deltas, reader.loaded, reader.bytes)

    @asynccontextmanager
    async def _reading(self, partition: int, start: int | None) -> AsyncIterator[aiokafka.AIOKafkaConsumer]:
        """A consumer of the partition from offset `start` (None: the first) on."""
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
            yield consumer
        finally:
            await consumer.stop()

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


def _takes_over(key: bytes | None, value: bytes | None, owner: str) -> bool:
    """Whether the record is the marker of an owner other than `owner`."""
    return value is not None and (key or b"").startswith(b"o/") and key != f"o/{owner}".encode()


class _Reader:
    """Applies the messages of one partition, in order, to its state, if they are of that identity."""

    def __init__(self, state: PartitionState, identity: Identity, place: str) -> None:
        self.state = state
        self._identity = identity
        self._place = place
        self.owner: str | None = None
        self.deltas = 0
        self.loaded = 0
        self.bytes = 0
        self._writer = _Writer()
        self._owners = self._writer.owners
        #: Of the present owner: versions of buckets that are loaded, and pieces of those that are not yet.
        self._versions: dict[int, int] = {}
        self._pieces: dict[tuple[int, int], list[bytes]] = {}

    def writer(self) -> _Writer:
        """To go on with as the owner of the last marker."""
        self._writer.owner = self.owner or ""
        return self._writer

    def read_all(self, records: Iterable[aiokafka.ConsumerRecord]) -> None:
        for record in records:
            self.read(record.key, record.value)

    def read(self, key: bytes | None, value: bytes | None) -> None:
        try:
            kind, owner, *numbers = (key or b"").decode().split("/")
            positions = [int(number) for number in numbers]
            if kind == "o" and not positions:
                self._marker(owner, value)
            elif kind == "d" and len(positions) == 1:
                self._delta(owner, positions[0], value)
            elif kind == "b" and len(positions) == 3:
                self._chunk(owner, positions[0], positions[2], (key or b"").decode(), value)
            else:
                raise ValueError("unknown kind of key")
        except (ValueError, msgspec.MsgspecError) as error:
            raise ChangelogError(f"changelog key {key!r}: {error}") from error
        self.bytes += len(value or b"")

    def _marker(self, owner: str, value: bytes | None) -> None:
        if value is None:
            owned = self._owners.get(owner)
            if owned is not None and not owned.chunks and owned.first == owned.next:
                del self._owners[owner]
        elif owner != self.owner:
            refusal = self._identity.refusal(value)
            if refusal is not None:
                raise StateMismatch(f"{self._place} {refusal}")
            self.owner = owner
            self._owners[owner] = self._owners.pop(owner, _Owned())
            self._versions, self._pieces = {}, {}

    def _delta(self, owner: str, sequence: int, value: bytes | None) -> None:
        owned = self._owners.get(owner)
        if value is None:
            if owned is not None:
                owned.first = max(owned.first, sequence + 1)
                owned.next = max(owned.next, sequence + 1)
            return
        if owned is None:  # its marker is gone: it comes too late, and is to be removed
            owned = self._owners[owner] = _Owned()
        if owned.first == owned.next:
            owned.first = owned.next = max(owned.next, sequence)
        if sequence < owned.next:
            return
        owned.next = sequence + 1
        if owner != self.owner:
            return
        self.state.apply(value)
        self.deltas += 1
        self._writer.bytes_since_bucket += len(value)

    def _chunk(self, owner: str, bucket: int, index: int, key: str, value: bytes | None) -> None:
        if value is None:
            keys = self._owners[owner].chunks.get(bucket) if owner in self._owners else None
            if keys is not None:
                keys.discard(key)
                if not keys:
                    del self._owners[owner].chunks[bucket]
            return
        chunk = _decode_chunk(value)
        self._owners.setdefault(owner, _Owned()).chunks.setdefault(bucket, set()).add(key)
        loaded = self._versions.get(bucket, -1)
        if owner != self.owner or chunk.version < loaded:
            return
        pieces = self._pieces.setdefault((bucket, chunk.version), [])
        if index != len(pieces):
            return  # a piece twice, or the rest of a version whose beginning has been compacted away
        pieces.append(chunk.data)
        if len(pieces) < chunk.count:
            return
        del self._pieces[bucket, chunk.version]
        data = b"".join(pieces)
        self.state.load(bucket, data)
        if chunk.version == loaded:
            # A request was repeated; compaction may have left only the second copy of the delta before it,
            # which has been applied to the bucket that covers it.
            return
        self.loaded += 1
        self._versions[bucket] = chunk.version
        writer = self._writer
        writer.next_bucket = (bucket + 1) % self.state.buckets
        if bucket == 0:
            writer.begin_round()
        writer.state_bytes += len(data)
        writer.bytes_since_bucket = 0
