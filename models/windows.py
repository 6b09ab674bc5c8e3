"""Exact sliding windows per key in event time, with the known frauds of each key.

A window of length w at event time t holds the events with t - w < time <= t that were inserted before, and
the current event itself; docs/features.md has every rule. All state is in flat arrays that grow by
reallocation: about 32 bytes a key, and per event 16 bytes plus 8 per counted field (4 for fields with few
values), in chunks of 8 events of which the first and the last are partly used.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator

import numpy as np

from models import window_kernels as kernels
from models.arrays import Bools, Floats, Ints, Words
from models.spec import EntitySpec
from models.window_kernels import CHUNK, Events, Flat, Frauds, Plan, Rows, Scratch, Table

NO_WATERMARK = -(1 << 62)
"""The watermark before the first event."""

NARROW_FIELDS = frozenset({"country", "currency", "channel"})
"""Fields with so few values that 32 bits of their hash tell them apart: half the memory in each event."""

_BLOCK = 8192  # rows per compiled call; room for all of them is made before it
_MAGIC = b"FSW1"
_HEADER = struct.Struct("<4sIQQQq")
_KINDS = {
    "count": kernels.K_COUNT,
    "sum": kernels.K_SUM,
    "mean": kernels.K_MEAN,
    "std": kernels.K_STD,
    "max": kernels.K_MAX,
    "amount_over_mean": kernels.K_OVER_MEAN,
}


class WindowStore:
    """The windows of one entity over one partition.

    Args:
        entity: windows, aggregates and risk; its `names` are the columns of `update`.
        lateness_ms: how far below the watermark a row may be and still be inserted. An event that no such row
            can see any more is forgotten.
    """

    def __init__(self, entity: EntitySpec, *, lateness_ms: int) -> None:
        self.entity = entity
        self._plan = _plan(entity, lateness_ms)
        words = int(self._plan.words.sum())
        self._table = Table(np.zeros(1024, np.uint64), np.zeros((1024, 3), np.int32))
        self._events = Events(
            np.zeros((512, CHUNK), np.int64),
            np.zeros((512, CHUNK), np.float64),
            np.zeros((512, words, CHUNK), np.uint32),
            np.zeros(512, np.int32),
        )
        self._frauds = Frauds(
            np.zeros(64, np.int64), np.zeros(64, np.int64), np.zeros(64, np.uint64), np.zeros(64, np.int32)
        )
        size = 8
        while size < 2 * entity.max_events_per_key + 4:
            size *= 2
        tags = len(entity.tags)
        self._scratch = Scratch(np.zeros((tags, size), np.uint64), np.zeros((tags, size), np.int64))
        self._state = np.zeros(kernels.STATE_SIZE, np.int64)
        self._state[[kernels.FREE, kernels.FRAUD_FREE]] = -1
        self._state[kernels.WATERMARK] = NO_WATERMARK

    @property
    def n_keys(self) -> int:
        """Keys held, expired ones that no sweep has met yet included."""
        return int(self._state[kernels.KEYS])

    @property
    def truncated(self) -> int:
        """Events still wanted but dropped because their key had more than `max_events_per_key`.

        Counted when their memory is freed, eight at a time; no window sees them before that either.
        """
        return int(self._state[kernels.TRUNCATED])

    @property
    def frauds_dropped(self) -> int:
        """Known frauds not remembered because their key had `max_events_per_key` of them."""
        return int(self._state[kernels.FRAUDS_DROPPED])

    @property
    def nbytes(self) -> int:
        """Bytes of all arrays, the free room in them included."""
        groups = (self._table, self._events, self._frauds, self._scratch)
        return sum(array.nbytes for group in groups for array in group)

    def update(
        self, keys: Words, times: Ints, amounts: Floats, tags: Words, insert: Bools, watermarks: Ints
    ) -> Floats:
        """The features of each row, then its insertion where `insert` says so, in row order.

        Args:
            keys: u64[n], 0 for a row without this entity: it sees only itself and is not inserted.
            times: i64[n], event times in epoch ms.
            amounts: f64[n], major units; a non-finite one counts as 0.
            tags: u64[n, len(entity.tags)], hashes of the counted fields, 0 for "no value".
            insert: bool[n], False for late and future rows.
            watermarks: i64[n], the watermark after each row; not falling, but for a stream's first two rows.

        Returns:
            f64[n, len(entity.names)], finite.
        """
        out = np.empty((len(keys), len(self._plan.columns)), np.float64)
        for rows, part in self._blocks(keys, times, amounts, tags, insert, watermarks):
            self._process(rows, out[part])
        return out

    def insert(
        self, keys: Words, times: Ints, amounts: Floats, tags: Words, insert: Bools, watermarks: Ints
    ) -> None:
        """Leaves the state that `update` with the same arguments leaves, without computing features."""
        nothing = np.empty((0, len(self._plan.columns)), np.float64)
        for rows, _ in self._blocks(keys, times, amounts, tags, insert, watermarks):
            self._process(rows, nothing)

    def _process(self, rows: Rows, out: Floats) -> None:
        self._reserve(keys=len(rows.keys), chunks=len(rows.keys))
        kernels.process(
            self._table, self._events, self._frauds, self._plan, self._scratch, self._state, rows, out
        )

    def _blocks(
        self, keys: Words, times: Ints, amounts: Floats, tags: Words, insert: Bools, watermarks: Ints
    ) -> Iterator[tuple[Rows, slice]]:
        """The rows checked and cut into parts of `_BLOCK`."""
        n = len(keys)
        if tags.shape != (n, len(self.entity.tags)):
            raise ValueError(
                f"tags are {tags.shape}, expected {(n, len(self.entity.tags))}: {self.entity.tags}"
            )
        if not len(times) == len(amounts) == len(insert) == len(watermarks) == n:
            raise ValueError("columns differ in length")
        rows = Rows(
            np.ascontiguousarray(keys, np.uint64),
            np.ascontiguousarray(times, np.int64),
            np.ascontiguousarray(amounts, np.float64),
            np.ascontiguousarray(tags, np.uint64),
            np.ascontiguousarray(insert, np.bool_),
            np.ascontiguousarray(watermarks, np.int64),
        )
        if n <= _BLOCK:
            yield rows, slice(0, n)
            return
        for start in range(0, n, _BLOCK):
            part = slice(start, start + _BLOCK)
            columns = (column[part] for column in rows)
            yield Rows(*columns), part  # type: ignore[arg-type]  # slices of the columns, in their order

    def add_frauds(self, keys: Words, event_times: Ints, known_at: Ints, ids: Words, fraud: Bools) -> None:
        """Remember (fraud) or take back (not fraud) the transactions `ids` of `keys`, in row order.

        Args:
            keys: u64[n], 0 is skipped.
            event_times: i64[n], event times of the transactions, epoch ms.
            known_at: i64[n], when each became known; of two reports of one transaction the earlier counts.
            ids: u64[n], transaction hashes.
            fraud: bool[n].
        """
        self._reserve(keys=len(keys), frauds=len(keys))
        kernels.add_frauds(
            self._table,
            self._frauds,
            self._plan.limits,
            self._state,
            np.ascontiguousarray(keys, np.uint64),
            np.ascontiguousarray(event_times, np.int64),
            np.ascontiguousarray(known_at, np.int64),
            np.ascontiguousarray(ids, np.uint64),
            np.ascontiguousarray(fraud, np.bool_),
        )

    def sweep(self, watermark: int, limit: int) -> int:
        """Free the keys with nothing left to see among the next `limit` places of the table; returns how
        many.

        The table has up to two places a key. Changes no feature of a row whose watermark is not below this
        one.
        """
        return int(
            kernels.sweep(
                self._table, self._events, self._frauds, self._plan.limits, self._state, watermark, limit
            )
        )

    def dump(self, bucket: int, n_buckets: int) -> bytes:
        """All state of the keys with key % n_buckets == bucket; the same state gives the same bytes."""
        keys, slots = self._table
        places = np.flatnonzero(keys)
        places = places[keys[places] % np.uint64(n_buckets) == np.uint64(bucket)]
        places = places[np.argsort(keys[places])]
        counts = slots[places, kernels.COUNT].astype(np.int64)
        fraud_counts = kernels.count_frauds(self._table, self._frauds, places)
        flat = self._flat(keys[places], counts, fraud_counts)
        kernels.gather(self._table, self._events, self._frauds, places, flat)
        header = _HEADER.pack(
            _MAGIC,
            flat.tags.shape[1],
            len(flat.keys),
            len(flat.times),
            len(flat.fraud_ids),
            int(self._state[kernels.WATERMARK]),
        )
        return header + b"".join(part.tobytes() for part in flat)

    def load(self, bucket: int, n_buckets: int, data: bytes) -> None:
        """Replace the keys of a bucket by what `dump` gave; ValueError if it does not fit."""
        if len(data) < _HEADER.size or data[:4] != _MAGIC:
            raise ValueError("not a window dump")
        _, words, n_keys, n_events, n_frauds, watermark = _HEADER.unpack_from(data)
        if words != self._events.tags.shape[1]:
            raise ValueError(
                f"the dump has {words} words per event, this entity {self._events.tags.shape[1]}"
            )
        if len(data) != _HEADER.size + 24 * n_keys + (16 + 4 * words) * n_events + 24 * n_frauds:
            raise ValueError("the window dump is truncated")
        flat = _unpack(data, n_keys, n_events, n_frauds, words)
        if flat.counts.sum() != n_events or flat.fraud_counts.sum() != n_frauds:
            raise ValueError("the window dump contradicts itself")
        if np.any(flat.keys % np.uint64(n_buckets) != np.uint64(bucket)):
            raise ValueError(f"the window dump is not of bucket {bucket} of {n_buckets}")
        old = self._table.keys[self._table.keys != 0]
        old = old[old % np.uint64(n_buckets) == np.uint64(bucket)]
        kernels.discard(self._table, self._events, self._frauds, self._state, old)
        self._reserve(keys=n_keys, chunks=int(np.sum(-(-flat.counts // CHUNK))), frauds=n_frauds)
        kernels.scatter(self._table, self._events, self._frauds, self._state, flat)
        newest = int(self._state[kernels.WATERMARK])
        self._state[kernels.WATERMARK] = max(newest, watermark)

    def _flat(self, keys: Words, counts: Ints, fraud_counts: Ints) -> Flat:
        n_events, n_frauds = int(counts.sum()), int(fraud_counts.sum())
        return Flat(
            keys,
            counts,
            fraud_counts,
            np.empty(n_events, np.int64),
            np.empty(n_events, np.float64),
            np.empty((n_events, self._events.tags.shape[1]), np.uint32),
            np.empty(n_frauds, np.int64),
            np.empty(n_frauds, np.int64),
            np.empty(n_frauds, np.uint64),
        )

    def _reserve(self, *, keys: int = 0, chunks: int = 0, frauds: int = 0) -> None:
        """Make room, so that a compiled loop never has to.

        ndarray.resize reallocates in place where the system can; nothing but the named tuples refers to the
        arrays.
        """
        state = self._state
        if self.n_keys + keys > 0.75 * len(self._table.keys):
            capacity = max(int((self.n_keys + keys) / 0.75) + 1, len(self._table.keys) * 3 // 2)
            table = Table(np.zeros(capacity, np.uint64), np.zeros((capacity, 3), np.int32))
            kernels.rehash(self._table, table)
            self._table = table
        needed = int(state[kernels.USED]) + max(chunks - int(state[kernels.SPARE]), 0)
        held = len(self._events.prev)
        if needed > held:
            for array in self._events:
                array.resize((max(needed, held + held // 12), *array.shape[1:]), refcheck=False)
        needed = int(state[kernels.FRAUD_USED]) + max(frauds - int(state[kernels.FRAUD_SPARE]), 0)
        held = len(self._frauds.next)
        if needed > held:
            for column in self._frauds:
                column.resize(max(needed, held + held // 4), refcheck=False)


def _unpack(data: bytes, n_keys: int, n_events: int, n_frauds: int, words: int) -> Flat:
    """The arrays of a dump, copied so that they are aligned and writable."""
    sizes = (n_keys, n_keys, n_keys, n_events, n_events, n_events * words, n_frauds, n_frauds, n_frauds)
    widths = (8, 8, 8, 8, 8, 4, 8, 8, 8)
    parts = []
    at = _HEADER.size
    for size, width in zip(sizes, widths, strict=True):
        parts.append(np.frombuffer(data, np.uint8, size * width, at).copy())
        at += size * width
    keys, counts, fraud_counts, times, amounts, tags, fraud_times, fraud_known_at, fraud_ids = parts
    return Flat(
        keys.view(np.uint64),
        counts.view(np.int64),
        fraud_counts.view(np.int64),
        times.view(np.int64),
        amounts.view(np.float64),
        tags.view(np.uint32).reshape(n_events, words),
        fraud_times.view(np.int64),
        fraud_known_at.view(np.int64),
        fraud_ids.view(np.uint64),
    )


def _plan(entity: EntitySpec, lateness_ms: int) -> Plan:
    """The columns of an entity as the kernels read them."""
    columns: list[tuple[int, int, int]] = []
    reach = [-1] * len(entity.tags)
    for aggregate in entity.aggregates:
        if aggregate.kind == "seconds_since_last":
            columns.append((kernels.K_SINCE, 0, 0))
        for window in aggregate.windows:
            index = entity.windows.index(window)
            field = aggregate.distinct_field
            if field is None:
                columns.append((_KINDS[aggregate.kind], index, 0))
            else:
                tag = entity.tags.index(field)
                reach[tag] = max(reach[tag], index)
                columns.append((kernels.K_DISTINCT, index, tag))
    risk = entity.risk
    risk_windows = risk.windows if risk else ()
    known_windows = risk.known_windows if risk else ()
    if risk is not None:
        columns.extend((kernels.K_RISK, i, 0) for i in range(len(risk_windows)))
        if risk.counts:
            columns.extend((kernels.K_RISK_COUNT, i, 0) for i in range(len(risk_windows)))
        columns.extend((kernels.K_KNOWN, i, 0) for i in range(len(known_windows)))
        if risk.since_fraud:
            columns.append((kernels.K_SINCE_FRAUD, 0, 0))
        if risk.runs:
            columns.extend((kind, 0, 0) for kind in kernels.RUN_KINDS)
    limits = np.zeros(kernels.LIMITS_SIZE, np.int64)
    limits[kernels.LATENESS] = lateness_ms
    limits[kernels.RETENTION] = entity.retention_ms
    limits[kernels.KNOWN_RETENTION] = known_windows[-1] if known_windows else 0
    limits[kernels.CAP] = entity.max_events_per_key
    limits[kernels.DELAY] = risk.delay if risk else 0
    limits[kernels.SINCE_CAP] = entity.windows[-1]
    limits[kernels.SINCE_FRAUD_CAP] = known_windows[-1] if known_windows else 0
    limits[kernels.RUN_REACH] = risk.reach if risk is not None and risk.runs else 0
    return Plan(
        np.array(entity.windows, np.int64),
        np.array(risk_windows, np.int64),
        np.array(known_windows, np.int64),
        limits,
        np.array(columns, np.int64).reshape(-1, 3),
        np.array([1 if field in NARROW_FIELDS else 2 for field in entity.tags], np.int64),
        np.array(reach, np.int64),
    )
