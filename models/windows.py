"""Exact sliding windows per key in event time, with the known frauds of each key.

A window of length w at event time t holds the events with t - w < time <= t that were inserted before, and the current event itself. See
docs/features.md for every rule. All state is in flat arrays that grow by reallocation: about 36 bytes a key and, per event, 16 bytes plus 8
per counted field (4 for fields with few values), plus the unused rest of two chunks.
"""

from __future__ import annotations

import struct

import numpy as np

from models import window_kernels as kernels
from models.arrays import Bools, Floats, Ints, Words
from models.spec import EntitySpec
from models.window_kernels import CHUNK

NO_WATERMARK = -(1 << 62)
"""The watermark before the first event."""

NARROW_FIELDS = frozenset({"country", "currency", "channel"})
"""Fields with so few values that 32 bits of their hash tell them apart: half the memory in each event."""

_BLOCK = 8192  # rows per compiled call: what must be free before it
_MAGIC = b"FSW1"
_HEADER = struct.Struct("<4sIQQQQ")
_WINDOW_KINDS = {
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
        lateness_ms: how far below the watermark a row may be and still be inserted. Events no such row can see are forgotten.
    """

    def __init__(self, entity: EntitySpec, *, lateness_ms: int) -> None:
        self.entity = entity
        self._words = np.array([1 if field in NARROW_FIELDS else 2 for field in entity.tags], np.int64)
        risk = entity.risk
        known = risk.known_windows if risk else ()
        self._windows = np.array(entity.windows, np.int64)
        self._risk_windows = np.array(risk.windows if risk else (), np.int64)
        self._known_windows = np.array(known, np.int64)
        self._plan, self._reach = _plan(entity)
        known_reach = known[-1] if known else 0
        delay = risk.delay if risk else 0
        self._limits = np.array(
            [
                lateness_ms, entity.retention_ms, known_reach, entity.max_events_per_key,
                delay, entity.windows[-1], known_reach,
            ],
            np.int64,
        )  # fmt: skip
        self._reset()

    def _reset(self) -> None:
        words = int(self._words.sum())
        self._keys = np.zeros(1024, np.uint64)
        self._slots = np.zeros((1024, 3), np.int32)
        self._times = np.zeros((1024, CHUNK), np.int64)
        self._amounts = np.zeros((1024, CHUNK), np.float64)
        self._tags = np.zeros((1024, words, CHUNK), np.uint32)
        self._prev = np.zeros(1024, np.int32)
        self._fraud_event = np.zeros(256, np.int64)
        self._fraud_known = np.zeros(256, np.int64)
        self._fraud_id = np.zeros(256, np.uint64)
        self._fraud_next = np.zeros(256, np.int32)
        self._state = np.zeros(kernels.STATE_SIZE, np.int64)
        self._state[[kernels.FREE, kernels.FRAUD_FREE]] = -1
        self._state[kernels.NEWEST_WATERMARK] = NO_WATERMARK
        self._scratch = np.zeros(0, np.uint64)
        self._stamps = np.zeros(0, np.int64)
        self._size_scratch()

    @property
    def n_keys(self) -> int:
        """Keys held, expired ones that no sweep has met yet included."""
        return int(self._state[kernels.KEYS])

    @property
    def truncated(self) -> int:
        """Events dropped, still wanted, because a key had more than `max_events_per_key` (counted when their memory is freed)."""
        return int(self._state[kernels.TRUNCATED])

    @property
    def frauds_dropped(self) -> int:
        """Known frauds not remembered because a key had `max_events_per_key` of them."""
        return int(self._state[kernels.FRAUDS_DROPPED])

    @property
    def nbytes(self) -> int:
        """Bytes of all arrays, the free room in them included."""
        return sum(value.nbytes for value in vars(self).values() if isinstance(value, np.ndarray))

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
            watermarks: i64[n], the watermark after each row.

        Returns:
            f64[n, len(entity.names)], finite.
        """
        out = np.empty((len(keys), len(self._plan)), np.float64)
        self._process(keys, times, amounts, tags, insert, watermarks, True, out)
        return out

    def insert(
        self, keys: Words, times: Ints, amounts: Floats, tags: Words, insert: Bools, watermarks: Ints
    ) -> None:
        """Leaves the state that `update` with the same arguments leaves, without computing features."""
        out = np.empty((0, len(self._plan)), np.float64)
        self._process(keys, times, amounts, tags, insert, watermarks, False, out)

    def _process(
        self, keys: Words, times: Ints, amounts: Floats, tags: Words, insert: Bools, watermarks: Ints,
        compute: bool, out: Floats,
    ) -> None:  # fmt: skip
        n = len(keys)
        keys = np.ascontiguousarray(keys, np.uint64)
        times = np.ascontiguousarray(times, np.int64)
        amounts = np.ascontiguousarray(amounts, np.float64)
        tags = np.ascontiguousarray(tags, np.uint64)
        insert = np.ascontiguousarray(insert, np.bool_)
        watermarks = np.ascontiguousarray(watermarks, np.int64)
        if tags.shape != (n, len(self._words)):
            raise ValueError(f"tags have shape {tags.shape}, expected {(n, len(self._words))} for {self.entity.tags}")
        if not len(times) == len(amounts) == len(insert) == len(watermarks) == n:
            raise ValueError("columns differ in length")
        for start in range(0, n, _BLOCK):
            rows = slice(start, min(start + _BLOCK, n))
            size = rows.stop - rows.start
            self._reserve(keys=size, chunks=size)
            kernels.process(
                self._keys, self._slots, self._times, self._amounts, self._tags, self._prev,
                self._fraud_event, self._fraud_known, self._fraud_next, self._state, self._scratch, self._stamps,
                self._windows, self._risk_windows, self._known_windows, self._limits, self._plan, self._words, self._reach,
                keys[rows], times[rows], amounts[rows], tags[rows], insert[rows], watermarks[rows],
                compute, out[rows],
            )  # fmt: skip

    def add_frauds(self, keys: Words, event_times: Ints, known_at: Ints, ids: Words, fraud: Bools) -> None:
        """Remember (fraud) or take back (not fraud) the transactions `ids` of `keys`, in row order.

        Args:
            keys: u64[n], 0 is skipped.
            event_times: i64[n], event times of the transactions, epoch ms.
            known_at: i64[n], when each became known; of two reports of one transaction the earlier counts.
            ids: u64[n], transaction hashes.
            fraud: bool[n].
        """
        keys = np.ascontiguousarray(keys, np.uint64)
        self._reserve(keys=len(keys), frauds=len(keys))
        kernels.add_frauds(
            self._keys, self._slots,
            self._fraud_event, self._fraud_known, self._fraud_id, self._fraud_next, self._state, self._limits,
            keys, np.ascontiguousarray(event_times, np.int64), np.ascontiguousarray(known_at, np.int64),
            np.ascontiguousarray(ids, np.uint64), np.ascontiguousarray(fraud, np.bool_),
        )  # fmt: skip

    def sweep(self, watermark: int, limit: int) -> int:
        """Free the keys without anything left to see among the next `limit` places; returns how many.

        Costs about 10 ns a place. Changes no feature of any row that is still to come.
        """
        return kernels.sweep(
            self._keys, self._slots, self._times, self._prev,
            self._fraud_event, self._fraud_known, self._fraud_next, self._state, self._limits,
            watermark, limit,
        )  # fmt: skip

    def dump(self, bucket: int, n_buckets: int) -> bytes:
        """All state of the keys with key % n_buckets == bucket; the same state gives the same bytes."""
        chosen = np.flatnonzero(self._keys)
        chosen = chosen[self._keys[chosen] % np.uint64(n_buckets) == np.uint64(bucket)]
        chosen = chosen[np.argsort(self._keys[chosen])]
        counts = self._slots[chosen, kernels.COUNT].astype(np.int64)
        fraud_counts = kernels.count_frauds(self._slots, self._fraud_next, chosen)
        n_events, n_frauds = int(counts.sum()), int(fraud_counts.sum())
        words = self._tags.shape[1]
        times = np.empty(n_events, np.int64)
        amounts = np.empty(n_events, np.float64)
        tags = np.empty((n_events, words), np.uint32)
        fraud_times = np.empty((n_frauds, 2), np.int64)
        fraud_ids = np.empty(n_frauds, np.uint64)
        kernels.gather(
            self._slots, self._times, self._amounts, self._tags, self._prev,
            self._fraud_event, self._fraud_known, self._fraud_id, self._fraud_next,
            chosen, times, amounts, tags, fraud_times, fraud_ids,
        )  # fmt: skip
        header = _HEADER.pack(_MAGIC, words, len(chosen), n_events, n_frauds, self._watermark_word())
        parts = (self._keys[chosen], counts, fraud_counts, times, amounts, tags, fraud_times, fraud_ids)
        return header + b"".join(part.tobytes() for part in parts)

    def load(self, bucket: int, n_buckets: int, data: bytes) -> None:
        """Replace the keys of a bucket by what `dump` gave; ValueError if the data is not of this entity or bucket."""
        if len(data) < _HEADER.size or data[:4] != _MAGIC:
            raise ValueError("not a window dump")
        _, words, n_keys, n_events, n_frauds, watermark = _HEADER.unpack_from(data)
        if words != self._tags.shape[1]:
            raise ValueError(f"the dump has {words} words of tags per event, this entity {self._tags.shape[1]}")
        if len(data) != _HEADER.size + 24 * n_keys + (16 + 4 * words) * n_events + 24 * n_frauds:
            raise ValueError("the window dump is truncated")
        reader = _Reader(data, _HEADER.size)
        keys = reader.words(n_keys)
        counts = reader.ints(n_keys)
        fraud_counts = reader.ints(n_keys)
        times = reader.ints(n_events)
        amounts = reader.ints(n_events).view(np.float64)
        tags = reader.halves(n_events * words).reshape(n_events, words)
        fraud_times = reader.ints(2 * n_frauds).reshape(n_frauds, 2)
        fraud_ids = reader.words(n_frauds)
        if np.any(keys % np.uint64(n_buckets) != np.uint64(bucket)) or counts.sum() != n_events:
            raise ValueError(f"the window dump is not of bucket {bucket} of {n_buckets}")
        old = self._keys[self._keys != 0]
        old = old[old % np.uint64(n_buckets) == np.uint64(bucket)]
        kernels.discard(self._keys, self._slots, self._prev, self._fraud_next, self._state, old)
        self._reserve(keys=n_keys, chunks=int(np.sum(-(-counts // CHUNK))), frauds=n_frauds)
        kernels.scatter(
            self._keys, self._slots, self._times, self._amounts, self._tags, self._prev,
            self._fraud_event, self._fraud_known, self._fraud_id, self._fraud_next, self._state,
            keys, counts, fraud_counts, times, amounts, tags, fraud_times, fraud_ids,
        )  # fmt: skip
        self._state[kernels.NEWEST_WATERMARK] = max(
            int(self._state[kernels.NEWEST_WATERMARK]), watermark + NO_WATERMARK
        )

    def _watermark_word(self) -> int:
        return int(self._state[kernels.NEWEST_WATERMARK]) - NO_WATERMARK

    def _reserve(self, *, keys: int = 0, chunks: int = 0, frauds: int = 0) -> None:
        """Make room, so that a compiled call never has to."""
        state = self._state
        if self.n_keys + keys > 0.75 * len(self._keys):
            capacity = int(max((self.n_keys + keys) / 0.75 + 1, 1.5 * len(self._keys)))
            new_keys, new_slots = np.zeros(capacity, np.uint64), np.zeros((capacity, 3), np.int32)
            kernels.rehash(self._keys, self._slots, new_keys, new_slots)
            self._keys, self._slots = new_keys, new_slots
        needed = int(state[kernels.USED]) + max(chunks - int(state[kernels.SPARE]), 0)
        if needed > len(self._prev):
            # ndarray.resize reallocates in place where the system can; nothing else refers to these arrays.
            capacity = max(needed, len(self._prev) + len(self._prev) // 8)
            self._times.resize((capacity, CHUNK), refcheck=False)
            self._amounts.resize((capacity, CHUNK), refcheck=False)
            self._tags.resize((capacity, self._tags.shape[1], CHUNK), refcheck=False)
            self._prev.resize(capacity, refcheck=False)
        needed = int(state[kernels.FRAUD_USED]) + max(frauds - int(state[kernels.FRAUD_SPARE]), 0)
        if needed > len(self._fraud_next):
            capacity = max(needed, len(self._fraud_next) + len(self._fraud_next) // 4)
            for array in (self._fraud_event, self._fraud_known, self._fraud_id, self._fraud_next):
                array.resize(capacity, refcheck=False)

    def _size_scratch(self) -> None:
        """Room for the values of a full key and as much again: a power of two per counted field."""
        size = 16
        while size <= 2 * self.entity.max_events_per_key + 4:
            size *= 2
        if len(self._words):
            self._scratch = np.zeros(size * len(self._words), np.uint64)
            self._stamps = np.zeros(size * len(self._words), np.int64)


class _Reader:
    """Reads consecutive arrays of a dump."""

    def __init__(self, data: bytes, at: int) -> None:
        self._data = data
        self._at = at

    def _next(self, size: int) -> int:
        at = self._at
        self._at += size
        return at

    def ints(self, n: int) -> Ints:
        return np.frombuffer(self._data, np.int64, n, self._next(8 * n)).copy()

    def words(self, n: int) -> Words:
        return np.frombuffer(self._data, np.uint64, n, self._next(8 * n)).copy()

    def halves(self, n: int) -> kernels.Words32:
        return np.frombuffer(self._data, np.uint32, n, self._next(4 * n)).copy()


def _plan(entity: EntitySpec) -> tuple[Ints, Ints]:
    """The output columns as (kind, window index, tag index), and the last window wanted of each counted field."""
    plan: list[tuple[int, int, int]] = []
    reach = [-1] * len(entity.tags)
    for aggregate in entity.aggregates:
        field = aggregate.distinct_field
        if aggregate.kind == "seconds_since_last":
            plan.append((kernels.K_SINCE, 0, 0))
        for window in aggregate.windows:
            index = entity.windows.index(window)
            if field is None:
                plan.append((_WINDOW_KINDS[aggregate.kind], index, 0))
            else:
                tag = entity.tags.index(field)
                reach[tag] = max(reach[tag], index)
                plan.append((kernels.K_DISTINCT, index, tag))
    if entity.risk is not None:
        risk = entity.risk
        plan.extend((kernels.K_RISK, i, 0) for i in range(len(risk.windows)))
        if risk.counts:
            plan.extend((kernels.K_RISK_COUNT, i, 0) for i in range(len(risk.windows)))
        plan.extend((kernels.K_KNOWN, i, 0) for i in range(len(risk.known_windows)))
        if risk.since_fraud:
            plan.append((kernels.K_SINCE_FRAUD, 0, 0))
    return np.array(plan, np.int64).reshape(-1, 3), np.array(reach, np.int64)
