"""Partition state as a log of messages: a delta per batch, the whole state in a rolling checkpoint. Pure.

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
stand before any later marker. The value of a marker says what the state belongs to (`identity.py`).

Keys: `o/<owner>` for a marker, `d/<owner>/<sequence>` for a delta, `b/<owner>/<bucket>/<side>/<chunk>` for a
chunk.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Protocol

import msgspec

from streams.errors import StateMismatch
from streams.kafka.identity import Identity

CHUNK_BYTES = 512 * 1024
#: A round over all buckets starts when the deltas since the last one outweigh the state this many times over.
_DELTAS_PER_STATE = 1.0
#: Below this many bytes of deltas no bucket is written: small states restore from deltas alone.
_MIN_BYTES_PER_BUCKET = 256 * 1024

#: Key and value.
Message = tuple[bytes, bytes | None]


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
class _Owned:
    """What the log holds of one owner: deltas `first` to before `next`, and keys of chunks by bucket."""

    first: int = 0
    next: int = 0
    chunks: dict[int, set[str]] = field(default_factory=dict)


@dataclass(slots=True)
class Writer:
    """Where the log of one partition stands, and what to append to it next."""

    owner: str = ""
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

    def records(self, state: PartitionState, delta: bytes | None) -> list[Message]:
        """The messages that make a change durable, in order: its delta and, when due, a bucket.

        Args:
            state: has taken the delta in, and nothing after it.
            delta: None for the whole state at once.
        """
        if delta is None:
            return [message for _ in range(state.buckets) for message in self._checkpoint(state)]
        own = self.owners[self.owner]
        messages: list[Message] = [(f"d/{self.owner}/{own.next}".encode(), delta)]
        own.next += 1
        self.bytes_since_bucket += len(delta)
        due = max(_MIN_BYTES_PER_BUCKET, self.state_bytes * _DELTAS_PER_STATE / state.buckets)
        if self.bytes_since_bucket >= due:
            self.bytes_since_bucket = 0
            messages += self._checkpoint(state)
        return messages

    def settled(self) -> list[Message]:
        """The tombstones that are due once the messages handed out stand before any other owner's marker."""
        if not self.unsettled_buckets:
            return []
        return [(key.encode(), None) for key in self._replaced()]

    def _checkpoint(self, state: PartitionState) -> list[Message]:
        bucket = self.next_bucket
        if bucket == 0:
            self.begin_round()
        data = state.dump(bucket)
        self.state_bytes += len(data)
        version = self.versions.get(bucket, -1) + 1
        self.versions[bucket] = version
        pieces = [data[i : i + CHUNK_BYTES] for i in range(0, len(data), CHUNK_BYTES)] or [b""]
        self.unsettled_buckets.append(bucket)
        self.next_bucket = (bucket + 1) % state.buckets
        if self.next_bucket == 0:
            self.unsettled_round = self.round_ends
        return [
            (
                f"b/{self.owner}/{bucket}/{version % 2}/{index}".encode(),
                _encode_chunk(_Chunk(version, index, len(pieces), piece)),
            )
            for index, piece in enumerate(pieces)
        ]

    def _replaced(self) -> Iterator[str]:
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


def marker(owner: str, identity: Identity) -> Message:
    """What makes `owner` the owner."""
    return f"o/{owner}".encode(), identity.encode()


def takes_over(key: bytes | None, value: bytes | None, owner: str) -> bool:
    """Whether the record is the marker of an owner other than `owner`."""
    return value is not None and (key or b"").startswith(b"o/") and key != f"o/{owner}".encode()


class Reader:
    """Applies the messages of one partition, in order, to its state, if they are of that identity."""

    def __init__(self, state: PartitionState, identity: Identity, place: str) -> None:
        self.state = state
        self._identity = identity
        self._place = place
        self.owner: str | None = None
        self.deltas = 0
        self.loaded = 0
        self.bytes = 0
        self._writer = Writer()
        self._owners = self._writer.owners
        #: Of the present owner: versions of buckets that are loaded, and pieces of those that are not yet.
        self._versions: dict[int, int] = {}
        self._pieces: dict[tuple[int, int], list[bytes]] = {}

    def writer(self) -> Writer:
        """To go on with as the owner of the last marker."""
        self._writer.owner = self.owner or ""
        return self._writer

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
