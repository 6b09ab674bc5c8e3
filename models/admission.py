"""Admission of transactions to one partition: duplicates, the watermark, late and future rows.

Every row gets one status, decided in this order:

* DUPLICATE: its transaction id is remembered. Nothing changes.
* FUTURE: stamped more than `future_tolerance_ms` ahead of its Kafka record timestamp. The watermark stays.
* LATE: below watermark - `lateness_ms`.
* ACCEPTED: anything else; the watermark may move.

The id of every row that is not a duplicate is remembered until the watermark is more than `horizon_ms` past
what it was after the row (ids that came before the watermark was first set, or set anew, count from there),
or until `max_ids` newer ones have come. The watermark is the largest believable event time of accepted rows:

* A row up to `jump_ms` ahead moves it at once.
* A row further ahead is a claim; the watermark waits. A row of another card that is also further ahead
  confirms it: the watermark moves to the smaller of the two times, and the larger is judged again from
  there. A row that moves the watermark in the ordinary way shows the stream to be alive where it is and
  voids the claim, so two odd stamps months apart confirm nothing.
* The first accepted row sets it, on probation: if the next row is more than `jump_ms` behind, one of the two
  stamps is wrong, and the watermark is set anew by the earlier one, from which two cards can lift it. This is
  the only time the watermark steps back. (Live, the future rule has refused a first row ahead of the clock;
  in a replay of old data that rule cannot see it.)
"""

from __future__ import annotations

import struct
from collections.abc import Sequence

import numpy as np

from models.arrays import Bytes, Ints, Words
from models.jit import kernel

ACCEPTED, LATE, FUTURE, DUPLICATE = 0, 1, 2, 3

NO_WATERMARK = -(1 << 62)
"""The watermark before the first accepted row."""

# Entries of `state`. The ids wait for expiry in a ring: _FIRST is the place of the oldest, _HELD their count.
_WATERMARK, _PROBATION, _CLAIM, _CLAIM_CARD, _CLAIMED, _FIRST, _HELD, _FORGOTTEN = 0, 1, 2, 3, 4, 5, 6, 7
_STATE_SIZE = 8
# Entries of `limits`.
_LATENESS, _TOLERANCE, _JUMP, _HORIZON, _MAX_IDS = 0, 1, 2, 3, 4

_MIX = np.uint64(0x9E3779B97F4A7C15)
_HALF = np.uint64(32)
_NO_ID = np.uint64(0)
_STAND_IN = np.uint64(0x5851F42D4C957F2D)  # an id of 0, which marks free places, is kept as this

_BLOCK = 8192
_MAGIC = b"FSA1"
_HEADER = struct.Struct("<4sIQ")


class Admission:
    """Admission state of one partition; see the module for the rules.

    Args:
        lateness_ms: rows further below the watermark are late.
        future_tolerance_ms: rows stamped further ahead of their Kafka timestamp are future.
        jump_ms: a longer step of the watermark needs a second card.
        horizon_ms: how long, in event time, a transaction id is remembered.
        max_ids: ids remembered at most; 24 to 40 bytes each.
    """

    def __init__(
        self,
        *,
        lateness_ms: int,
        future_tolerance_ms: int,
        jump_ms: int,
        horizon_ms: int,
        max_ids: int = 1_000_000,
    ) -> None:
        if min(lateness_ms, future_tolerance_ms, jump_ms, horizon_ms) < 0 or max_ids < 1:
            raise ValueError("limits of admission are not negative, and max_ids is at least 1")
        self._limits = np.array([lateness_ms, future_tolerance_ms, jump_ms, horizon_ms, max_ids], np.int64)
        self._reset()

    def _reset(self) -> None:
        self._state = np.zeros(_STATE_SIZE, np.int64)
        self._state[_WATERMARK] = NO_WATERMARK
        self._ring_ids = np.zeros(1024, np.uint64)
        self._ring_stamps = np.zeros(1024, np.int64)
        self._table = np.zeros(2048, np.uint64)

    @property
    def watermark(self) -> int:
        """The watermark, epoch ms; `NO_WATERMARK` before the first accepted row."""
        return int(self._state[_WATERMARK])

    @property
    def settled_watermark(self) -> int:
        """The watermark once it can no longer step back, `NO_WATERMARK` before: what others may rely on."""
        return NO_WATERMARK if self._state[_PROBATION] == 1 else self.watermark

    @property
    def n_ids(self) -> int:
        """Transaction ids remembered."""
        return int(self._state[_HELD])

    @property
    def forgotten(self) -> int:
        """Ids forgotten before their time because of `max_ids`: their duplicates would go unnoticed."""
        return int(self._state[_FORGOTTEN])

    @property
    def nbytes(self) -> int:
        """Bytes of all arrays, the free room in them included."""
        return self._ring_ids.nbytes + self._ring_stamps.nbytes + self._table.nbytes

    def admit(self, ids: Words, cards: Words, event_times: Ints, record_times: Ints) -> tuple[Bytes, Ints]:
        """Decide on rows in order.

        Args:
            ids: u64[n], transaction hashes.
            cards: u64[n], card hashes.
            event_times: i64[n], epoch ms.
            record_times: i64[n], Kafka record timestamps, epoch ms.

        Returns:
            status u8[n], and the watermark after each row i64[n].
        """
        n = len(ids)
        ids = np.ascontiguousarray(ids, np.uint64)
        cards = np.ascontiguousarray(cards, np.uint64)
        event_times = np.ascontiguousarray(event_times, np.int64)
        record_times = np.ascontiguousarray(record_times, np.int64)
        if not n == len(cards) == len(event_times) == len(record_times):
            raise ValueError("columns differ in length")
        status = np.empty(n, np.uint8)
        watermarks = np.empty(n, np.int64)
        for start in range(0, n, _BLOCK):
            rows = slice(start, min(start + _BLOCK, n))
            self._reserve(rows.stop - rows.start)
            _admit(
                self._ring_ids, self._ring_stamps, self._table, self._state, self._limits,
                ids[rows], cards[rows], event_times[rows], record_times[rows], status[rows], watermarks[rows],
            )  # fmt: skip
        return status, watermarks

    def admit_again(
        self, limits: Sequence[int], ids: Words, cards: Words, event_times: Ints, record_times: Ints
    ) -> None:
        """Rows that were admitted under other limits, in order; as they were admitted then.

        Args:
            limits: what `time_limits` was.
        """
        today = self._limits
        self._limits = np.array([*limits, today[_MAX_IDS]], np.int64)
        try:
            self.admit(ids, cards, event_times, record_times)
        finally:
            self._limits = today

    @property
    def time_limits(self) -> list[int]:
        """Lateness, tolerance, jump and horizon, in milliseconds."""
        return [int(limit) for limit in self._limits[:_MAX_IDS]]

    def _reserve(self, rows: int) -> None:
        """Room for that many more ids, or for `max_ids`."""
        wanted = min(self.n_ids + rows, int(self._limits[_MAX_IDS]))
        if wanted > len(self._ring_ids):
            capacity = min(
                max(wanted, len(self._ring_ids) + len(self._ring_ids) // 4), int(self._limits[_MAX_IDS])
            )
            self._rebuild(*self._remembered(), capacity)

    def _remembered(self) -> tuple[Words, Ints]:
        """Ids and their stamps, oldest first."""
        places = (int(self._state[_FIRST]) + np.arange(self.n_ids)) % len(self._ring_ids)
        return self._ring_ids[places], self._ring_stamps[places]

    def _rebuild(self, ids: Words, stamps: Ints, capacity: int) -> None:
        self._ring_ids = np.zeros(capacity, np.uint64)
        self._ring_stamps = np.zeros(capacity, np.int64)
        self._ring_ids[: len(ids)] = ids
        self._ring_stamps[: len(ids)] = stamps
        self._table = np.zeros(capacity + capacity // 2 + 16, np.uint64)
        self._state[_FIRST] = 0
        self._state[_HELD] = len(ids)
        _fill(self._table, ids)

    def dump(self) -> bytes:
        """All state; the same state gives the same bytes. 16 bytes an id."""
        ids, stamps = self._remembered()
        state = self._state.copy()
        state[_FIRST] = 0
        return (
            _HEADER.pack(_MAGIC, _STATE_SIZE, len(ids)) + state.tobytes() + ids.tobytes() + stamps.tobytes()
        )

    def load(self, data: bytes) -> None:
        """Continue where `dump` was taken; ValueError if the data is not a dump."""
        if len(data) < _HEADER.size or data[:4] != _MAGIC:
            raise ValueError("not an admission dump")
        _, size, n = _HEADER.unpack_from(data)
        if size != _STATE_SIZE or len(data) != _HEADER.size + 8 * size + 16 * n:
            raise ValueError("the admission dump is truncated")
        state = np.frombuffer(data, np.int64, size, _HEADER.size)
        # Copied, because a compiled loop is compiled once more for arrays that cannot be written to.
        ids = np.frombuffer(data, np.uint64, n, _HEADER.size + 8 * size).copy()
        stamps = np.frombuffer(data, np.int64, n, _HEADER.size + 8 * size + 8 * n)
        kept = slice(max(n - int(self._limits[_MAX_IDS]), 0), n)  # the limit may have been lowered since
        self._state = state.copy()
        self._rebuild(
            ids[kept], stamps[kept], max(min(1024, int(self._limits[_MAX_IDS])), kept.stop - kept.start)
        )


@kernel
def _home(key: np.uint64, capacity: int) -> int:
    mixed = (key * _MIX) >> _HALF
    return int(np.int64((mixed * np.uint64(capacity)) >> _HALF))


@kernel
def _fill(table: Words, ids: Words) -> None:
    for i in range(ids.shape[0]):
        j = _home(ids[i], table.shape[0])
        while table[j] != _NO_ID:
            j += 1
            if j == table.shape[0]:
                j = 0
        table[j] = ids[i]


@kernel
def _forget_oldest(ring_ids: Words, table: Words, state: Ints) -> None:
    """Take the oldest id out of the ring and out of the table, closing the gap it leaves there."""
    first = state[_FIRST]
    key = ring_ids[first]
    state[_FIRST] = first + 1 if first + 1 < ring_ids.shape[0] else 0
    state[_HELD] -= 1
    capacity = table.shape[0]
    i = _home(key, capacity)
    while table[i] != key:
        i += 1
        if i == capacity:
            i = 0
    j = i
    while True:
        j += 1
        if j == capacity:
            j = 0
        if table[j] == _NO_ID:
            break
        h = _home(table[j], capacity)
        stays = (i < h <= j) if i < j else (h > i or h <= j)
        if not stays:
            table[i] = table[j]
            i = j
    table[i] = _NO_ID


@kernel
def _move_watermark(state: Ints, limits: Ints, card: int, time: int) -> None:
    """Let an accepted row move the watermark, as the module describes."""
    watermark = state[_WATERMARK]
    if watermark == NO_WATERMARK or time < watermark - limits[_JUMP]:
        state[_PROBATION] = 1 if watermark == NO_WATERMARK else 0
        state[_WATERMARK] = time
        return
    if time <= watermark:
        return
    if time <= watermark + limits[_JUMP]:
        state[_WATERMARK] = time
        state[_CLAIMED] = 0
        return
    if state[_CLAIMED] == 0 or card == state[_CLAIM_CARD]:
        state[_CLAIMED] = 1
        state[_CLAIM] = time
        state[_CLAIM_CARD] = card
        return
    smaller, larger, far_card = state[_CLAIM], time, card
    if larger < smaller:
        smaller, larger, far_card = larger, smaller, state[_CLAIM_CARD]
    state[_WATERMARK] = smaller
    state[_CLAIMED] = 0
    if larger > smaller + limits[_JUMP]:
        state[_CLAIMED] = 1
        state[_CLAIM] = larger
        state[_CLAIM_CARD] = far_card
    elif larger > smaller:
        state[_WATERMARK] = larger


@kernel
def _restamp(ring_stamps: Ints, state: Ints) -> None:
    """Let the ids held count from a watermark that did not step ahead: the ring stays sorted by stamp."""
    place = state[_FIRST]
    for _ in range(state[_HELD]):
        ring_stamps[place] = state[_WATERMARK]
        place = place + 1 if place + 1 < ring_stamps.shape[0] else 0


@kernel
def _admit(
    ring_ids: Words,
    ring_stamps: Ints,
    table: Words,
    state: Ints,
    limits: Ints,
    ids: Words,
    cards: Words,
    event_times: Ints,
    record_times: Ints,
    status: Bytes,
    watermarks: Ints,
) -> None:
    capacity = table.shape[0]
    for r in range(ids.shape[0]):
        key = ids[r]
        if key == _NO_ID:
            key = _STAND_IN
        while state[_HELD] > 0 and ring_stamps[state[_FIRST]] < state[_WATERMARK] - limits[_HORIZON]:
            _forget_oldest(ring_ids, table, state)
        i = _home(key, capacity)
        while table[i] != _NO_ID and table[i] != key:
            i += 1
            if i == capacity:
                i = 0
        if table[i] == key:
            status[r] = DUPLICATE
            watermarks[r] = state[_WATERMARK]
            continue
        time = event_times[r]
        if time > record_times[r] + limits[_TOLERANCE]:
            status[r] = FUTURE
        else:
            behind = state[_WATERMARK] - time if state[_WATERMARK] != NO_WATERMARK else 0
            set_anew = state[_PROBATION] == 1 and behind > limits[_JUMP]
            state[_PROBATION] = 0
            if behind > limits[_LATENESS] and not set_anew:
                status[r] = LATE
            else:
                status[r] = ACCEPTED
                first = state[_WATERMARK] == NO_WATERMARK
                if behind <= 0 or set_anew:
                    _move_watermark(state, limits, int(np.int64(cards[r])), time)
                if first or set_anew:
                    _restamp(ring_stamps, state)
        watermarks[r] = state[_WATERMARK]
        if state[_HELD] == limits[_MAX_IDS]:
            _forget_oldest(ring_ids, table, state)
            state[_FORGOTTEN] += 1
            i = _home(key, capacity)
            while table[i] != _NO_ID:
                i += 1
                if i == capacity:
                    i = 0
        table[i] = key
        place = state[_FIRST] + state[_HELD]
        if place >= ring_ids.shape[0]:
            place -= ring_ids.shape[0]
        ring_ids[place] = key
        ring_stamps[place] = state[_WATERMARK]
        state[_HELD] += 1
