"""Admission: duplicates, watermark, late and future rows."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from models.admission import ACCEPTED, DUPLICATE, FUTURE, LATE, NO_WATERMARK, Admission
from models.spec_reading import HOUR, MINUTE
from tests.models.oracle import AdmissionOracle

CODES = {"accepted": ACCEPTED, "late": LATE, "future": FUTURE, "duplicate": DUPLICATE}
A, B, C = 1, 2, 3
T = 1_000 * HOUR


def admission(max_ids: int = 1000) -> Admission:
    return Admission(
        lateness_ms=HOUR,
        future_tolerance_ms=5 * MINUTE,
        jump_ms=2 * HOUR,
        horizon_ms=24 * HOUR,
        max_ids=max_ids,
    )


def admit(
    state: Admission, *rows: tuple[int, int, int], record_time: int | None = None
) -> list[tuple[int, int]]:
    """(id, card, time) each; returns (status, watermark) each. Records are stamped now unless said."""
    ids, cards, times = zip(*rows, strict=True)
    stamps = times if record_time is None else (record_time,) * len(rows)
    status, watermarks = state.admit(
        np.array(ids, np.uint64), np.array(cards, np.uint64), np.array(times), np.array(stamps)
    )
    return list(zip(status.tolist(), watermarks.tolist(), strict=True))


def test_the_watermark_follows_the_largest_time() -> None:
    """Rows in any order within the lateness are accepted and never move the watermark back."""
    rows = [(1, A, T), (2, A, T + 10), (3, B, T + 5), (4, B, T + 10 - HOUR), (5, B, T + 9 - HOUR)]
    assert admit(admission(), *rows) == [
        (ACCEPTED, T),
        (ACCEPTED, T + 10),
        (ACCEPTED, T + 10),
        (ACCEPTED, T + 10),
        (LATE, T + 10),  # one millisecond beyond the lateness
    ]


def test_a_future_stamp_never_moves_the_watermark() -> None:
    """More than the tolerance ahead of the record's own timestamp is future, exactly the tolerance is not."""
    state = admission()
    admit(state, (1, A, T))
    ahead = T + 5 * MINUTE
    assert admit(state, (2, A, ahead + 1), record_time=T) == [(FUTURE, T)]
    assert admit(state, (3, A, ahead), record_time=T) == [(ACCEPTED, ahead)]


def test_a_jump_needs_a_second_card() -> None:
    """One card far ahead moves nothing, however often it says so; another card far ahead confirms it."""
    day = 24 * HOUR
    rows = [(1, A, T), (2, A, T + day), (3, A, T + day + 1), (4, B, T + day + 2), (5, C, T + 2 * day)]
    assert [watermark for _, watermark in admit(admission(), *rows)] == [T, T, T, T + day + 2, T + day + 2]


def test_a_confirmed_jump_goes_to_the_smaller_time() -> None:
    """A wrong year beside a right hour: the hour wins and the year still waits for confirmation."""
    year, day = 365 * 24 * HOUR, 24 * HOUR
    rows = [(1, A, T), (2, A, T + year), (3, B, T + day), (4, B, T + day + 1), (5, C, T + year)]
    watermarks = [watermark for _, watermark in admit(admission(), *rows)]
    assert watermarks == [T, T, T + day, T + day + 1, T + day + 1]


def test_two_odd_stamps_far_apart_confirm_nothing() -> None:
    """An ordinary step in between shows that the stream did not jump."""
    year = 365 * 24 * HOUR
    rows = [(1, A, T), (2, A, T + year), (3, B, T + 1), (4, C, T + year)]
    assert [watermark for _, watermark in admit(admission(), *rows)] == [T, T, T + 1, T + 1]


def test_a_wrong_first_stamp_is_taken_back_by_the_second_row() -> None:
    """Otherwise every row of a replayed history would be late after one bad first row."""
    year = 365 * 24 * HOUR
    now = T + 10 * year
    assert admit(admission(), (1, A, T + year), (2, B, T), (3, C, T + 1), record_time=now) == [
        (ACCEPTED, T + year),
        (ACCEPTED, T),
        (ACCEPTED, T + 1),
    ]


def test_the_second_row_ends_the_probation_of_the_first() -> None:
    """After two rows that agree, a row far behind is late and changes nothing."""
    rows = [(1, A, T), (2, B, T + 1), (3, C, T - 100 * HOUR)]
    assert admit(admission(), *rows)[-1] == (LATE, T + 1)


def test_a_repeated_id_is_a_duplicate_and_changes_nothing() -> None:
    """Late and future rows are remembered too, and a duplicate does not extend its own memory."""
    state = admission()
    admit(state, (1, A, T), (2, A, T - 2 * HOUR + 1))
    admit(state, (3, A, T + HOUR), record_time=T)
    before = state.dump()
    again = admit(state, (1, B, T + 1), (2, B, T + HOUR), (3, B, T + 2))
    assert [status for status, _ in again] == [DUPLICATE] * 3
    assert state.dump() == before


def test_an_id_is_remembered_for_the_horizon_of_event_time() -> None:
    """An id is known while the watermark is at most 24 h past what it was when the id came."""
    state = admission()
    admit(state, (1, A, T), *((10 + i, A, T + i * HOUR) for i in range(1, 25)))
    assert admit(state, (1, A, T + 24 * HOUR)) == [(DUPLICATE, T + 24 * HOUR)]
    admit(state, (90, A, T + 24 * HOUR + 1))
    assert admit(state, (1, A, T + 24 * HOUR + 1)) == [(ACCEPTED, T + 24 * HOUR + 1)]
    assert state.forgotten == 0


def test_memory_of_ids_is_capped_and_says_what_it_forgot() -> None:
    """Beyond `max_ids` the oldest go first, counted, and memory stops growing."""
    state = admission(max_ids=1000)
    ids = np.arange(1, 50_001, dtype=np.uint64)
    times = np.full(50_000, T)
    state.admit(ids[:2000], ids[:2000], times[:2000], times[:2000])
    size = state.nbytes
    state.admit(ids[2000:], ids[2000:], times[2000:], times[2000:])
    assert (state.n_ids, state.forgotten, state.nbytes) == (1000, 49_000, size)
    status, _ = state.admit(ids[[49_000, 48_999]], ids[:2], times[:2], times[:2])
    assert status.tolist() == [DUPLICATE, ACCEPTED]


def test_ids_that_came_before_the_watermark_are_remembered_too() -> None:
    """A future row at the very start, and a wrong first stamp, count from the first right watermark."""
    state = admission()
    now = T + 10_000 * HOUR
    admit(state, (1, A, T), record_time=0)
    admit(
        state,
        (2, A, T + 9000 * HOUR),
        (3, B, T),
        (4, C, T + 24 * HOUR),
        (5, B, T + 24 * HOUR),
        record_time=now,
    )
    again = admit(state, (1, A, T), (2, A, T), (3, B, T), record_time=now)
    assert [status for status, _ in again] == [DUPLICATE] * 3
    admit(state, (6, B, T + 24 * HOUR + 1), record_time=now)
    forgotten = admit(state, (1, A, T + 24 * HOUR), (2, A, T + 24 * HOUR), record_time=now)
    assert [status for status, _ in forgotten] == [ACCEPTED] * 2


def test_nothing_is_late_before_the_first_row() -> None:
    """A new partition has no watermark; future rows do not give it one."""
    state = admission()
    assert state.watermark == NO_WATERMARK
    assert admit(state, (1, A, T), record_time=0) == [(FUTURE, NO_WATERMARK)]
    assert admit(state, (2, A, 5)) == [(ACCEPTED, 5)]


rows = st.lists(
    st.tuples(st.integers(0, 30), st.integers(1, 3), st.integers(-40, 60), st.booleans()),
    min_size=1,
    max_size=80,
)


@settings(max_examples=200, deadline=None)
@given(rows, st.lists(st.integers(0, 80), max_size=4), st.integers(1, 12))
def test_admission_equals_its_definition(
    raw: list[tuple[int, int, int, bool]], restarts: list[int], max_ids: int
) -> None:
    """Against a list of everything that came, with restarts from dumps in between."""
    step = 10 * MINUTE
    state = admission(max_ids)
    judge = AdmissionOracle(HOUR, 5 * MINUTE, 2 * HOUR, 24 * HOUR, max_ids)
    for i, (row_id, card, offset, honest) in enumerate(raw):
        if i in restarts:
            dump = state.dump()
            state = admission(max_ids)
            state.load(dump)
            assert state.dump() == dump
        time = T + offset * step + i * MINUTE
        stamp = time if honest else time - HOUR
        expected = CODES[judge.admit(row_id, card, time, stamp)]
        assert admit(state, (row_id, card, time), record_time=stamp) == [(expected, judge.watermark)]


def test_a_lower_limit_keeps_the_newest_ids_of_a_dump() -> None:
    """A dump with more ids than the limit allows is cut at the old end."""
    state = admission()
    admit(state, *((i, A, T) for i in range(1, 101)))
    smaller = admission(max_ids=10)
    smaller.load(state.dump())
    assert [status for status, _ in admit(smaller, (91, A, T), (90, A, T))] == [DUPLICATE, ACCEPTED]


@pytest.mark.parametrize("data", [b"", b"XXXX" + bytes(100), admission().dump()[:-1]])
def test_a_damaged_dump_is_refused(data: bytes) -> None:
    """What is not a whole dump raises ValueError."""
    with pytest.raises(ValueError):
        admission().load(data)


def test_limits_must_make_sense() -> None:
    """Negative limits and no memory at all are errors at once."""
    with pytest.raises(ValueError):
        Admission(lateness_ms=-1, future_tolerance_ms=0, jump_ms=0, horizon_ms=0)
    with pytest.raises(ValueError):
        Admission(lateness_ms=0, future_tolerance_ms=0, jump_ms=0, horizon_ms=0, max_ids=0)
