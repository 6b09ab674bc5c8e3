"""Rows that wait: order, prefixes, duplicates, and when a message is done."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from streams.errors import StateMismatch
from streams.stages.alignment import FOREVER, NEVER
from streams.stages.columns import Columns
from streams.stages.score_core import ScoreState, ScoreStep
from streams.stages.waiting_rows import Chunk, WaitingRows
from tests.streams.made_up import SPEC


def part(partition: int, offsets: list[int], watermarks: list[int], cards: list[int]) -> Columns:
    return Columns(
        {"card_partition": partition},
        {
            "offset": np.array(offsets, np.int64),
            "watermark": np.array(watermarks, np.int64),
            "event_time": np.array(watermarks, np.int64) - 1,
            "card": np.array(cards, np.uint64),
        },
    )


@st.composite
def streams(draw: st.DrawFn) -> list[Columns]:
    """Rows of three card partitions: offsets with gaps, watermarks that rise after an odd beginning."""
    whole = []
    for partition in range(3):
        n = draw(st.integers(0, 12))
        offsets = np.cumsum(draw(st.lists(st.integers(1, 3), min_size=n, max_size=n))).tolist()
        watermarks = np.cumsum(draw(st.lists(st.integers(0, 2), min_size=n, max_size=n))).tolist()
        odd = draw(st.integers(0, 2)) if n > 2 else 0
        watermarks[:odd] = [100] * odd
        cards = [card * 3 + partition for card in draw(st.lists(st.integers(0, 3), min_size=n, max_size=n))]
        whole.append(part(partition, offsets, watermarks, cards))
    return whole


@st.composite
def logs(draw: st.DrawFn, whole: list[Columns]) -> list[Columns]:
    """The rows in messages, those of the partitions among each other; some rows are sent twice."""
    messages, position = [], [0, 0, 0]
    while left := [p for p in range(3) if position[p] < len(whole[p])]:
        p = draw(st.sampled_from(left))
        stop = draw(st.integers(position[p] + 1, len(whole[p])))
        start = draw(st.integers(0, position[p]))
        messages.append(whole[p].take(np.arange(start, stop)))
        position[p] = stop
    return messages


def frontier(whole: list[Columns], read: list[Columns]) -> int:
    """What every partition has reached: nothing below it can still come."""
    reached = []
    for partition, rows in enumerate(whole):
        offsets, watermarks = rows.ints("offset"), rows.ints("watermark")
        last = max(
            (int(each.ints("offset")[-1]) for each in read if each.meta["card_partition"] == partition),
            default=-1,
        )
        if len(rows) and last < offsets[-1]:
            at = int(np.searchsorted(offsets, last))
            settled = last >= 0 and watermarks[at] < 100
            reached.append(int(watermarks[at]) - 1 if settled else NEVER)
    return min(reached, default=FOREVER)


def expected_order(whole: list[Columns]) -> list[tuple[int, int]]:
    """Partition and offset by watermark, card, offset; no row has a higher watermark than those after it."""
    rows = []
    for p, each in enumerate(whole):
        watermarks = np.minimum.accumulate(each.ints("watermark")[::-1])[::-1].tolist()
        cards, offsets = each.words("card").tolist(), each.ints("offset").tolist()
        rows += [(*row, p) for row in zip(watermarks, cards, offsets, strict=True)]
    return [(p, o) for _, _, o, p in sorted(rows)]


def rows_of(chunk: Chunk) -> list[tuple[int, int]]:
    partitions, offsets = chunk.rows.ints("card_partition"), chunk.rows.ints("offset")
    return list(zip(partitions.tolist(), offsets.tolist(), strict=True))


@hypothesis_settings(max_examples=150, deadline=None)
@given(streams(), st.data())
def test_order_whatever_the_messages_and_the_crashes(whole: list[Columns], data: st.DataObject) -> None:
    """Rows come out sorted by watermark, card, offset, once each, however they were cut and repeated.

    Also when the worker dies after any chunk and reads again what it had not finished: the state says what
    has been scored, and nothing else. A message is done only when its rows have been taken.
    """
    log = data.draw(logs(whole))
    state = ScoreState(SPEC, lateness_ms=0)
    scored: list[tuple[int, int]] = []
    committed = 0
    for lives_left in range(3, -1, -1):
        waiting: WaitingRows[int] = WaitingRows(state.applied, ahead=state.ahead)
        at, dead = committed, False
        while (at < len(log) or not lives_left) and not dead:
            stop = data.draw(st.integers(at, len(log)))
            waiting.put(log[at:stop], stop)
            at = stop
            reached = frontier(whole, log[:at])
            for chunk in waiting.take(reached, 2):
                assert 0 < len(chunk.rows) <= 4
                saved = state.delta(None, None, ScoreStep(applied=chunk.applied, ahead=chunk.ahead))
                state.apply(saved)
                scored += rows_of(chunk)
                assert chunk.until == NEVER or all(
                    row in scored for row in expected_order(whole) if watermark_of(whole, row) <= chunk.until
                )
                if lives_left and data.draw(st.integers(0, 3)) == 0:
                    dead = True
                    break
            if not dead:
                for token in waiting.done(reached):
                    committed = token
                    held = {
                        (int(m.meta_int("card_partition")), int(o))
                        for m in log[:token]
                        for o in m.ints("offset")
                    }
                    assert held <= set(scored)
            if at == len(log) and not dead:
                break
        loaded = ScoreState(SPEC, lateness_ms=0)
        for bucket in range(state.buckets):
            loaded.load(bucket, state.dump(bucket))
        state = loaded
    assert scored == expected_order(whole)
    assert committed == len(log)
    assert waiting.rows == 0
    assert state.ahead == {}


def watermark_of(whole: list[Columns], row: tuple[int, int]) -> int:
    rows = whole[row[0]]
    watermarks = np.minimum.accumulate(rows.ints("watermark")[::-1])[::-1]
    return int(watermarks[np.searchsorted(rows.ints("offset"), row[1])])


def test_a_chunk_ends_between_two_watermarks() -> None:
    """Rows of one watermark stay together as long as they are no more than two chunks."""
    waiting: WaitingRows[str] = WaitingRows({})
    waiting.put([part(0, [0, 1, 2, 3, 4], [1, 2, 2, 2, 3], [5, 9, 8, 7, 5])], "a")
    chunks = list(waiting.take(FOREVER, 2))
    assert [(rows_of(chunk), chunk.until, chunk.applied, chunk.ahead) for chunk in chunks] == [
        ([(0, 0), (0, 3), (0, 2), (0, 1)], 2, {0: 3}, {}),
        ([(0, 4)], 3, {0: 4}, {}),
    ]


def test_a_long_run_of_one_watermark_is_cut() -> None:
    """By card and offset as ever; what is scored beyond the first row that waits is said."""
    waiting: WaitingRows[str] = WaitingRows({1: 2})
    waiting.put([part(0, list(range(6)), [7] * 6, [9, 1, 8, 2, 7, 3]), part(1, [3], [7], [0])], "a")
    chunks = list(waiting.take(FOREVER, 2))
    assert [rows_of(chunk) for chunk in chunks] == [
        [(1, 3), (0, 1)],
        [(0, 3), (0, 5)],
        [(0, 4), (0, 2), (0, 0)],
    ]
    assert [chunk.applied for chunk in chunks] == [{0: -1, 1: 3}, {0: -1}, {0: 5}]
    assert [{p: each.tolist() for p, each in chunk.ahead.items()} for chunk in chunks] == [
        {0: [1]},
        {0: [3, 5]},
        {},
    ]
    # Until the last of them is scored, not all rows of the watermark are.
    assert [chunk.until for chunk in chunks] == [6, 6, 7]


def test_a_first_row_with_an_odd_stamp_is_not_left_behind() -> None:
    """It waits no longer than the rows after it, and its message is done with theirs."""
    waiting: WaitingRows[str] = WaitingRows({})
    waiting.put([part(0, [0], [1000], [5])], "first")
    assert list(waiting.take(4, 10)) == []
    waiting.put([part(0, [1, 2], [5, 6], [4, 4])], "second")
    assert waiting.newest == 6
    assert [rows_of(chunk) for chunk in waiting.take(5, 10)] == [[(0, 1), (0, 0)]]
    assert waiting.done(5) == ["first"]


def test_card_partitions_are_live_or_not_as_a_whole() -> None:
    """By watermark, or by event time where that is behind; one odd stamp in a history is not enough."""
    waiting: WaitingRows[str] = WaitingRows({})
    history = part(0, [0, 1, 2], [100, 100, 101], [1, 2, 3])
    history.arrays["event_time"] = np.array([100, 9_990, 101])
    pause = part(1, [0, 1], [500, 500], [1, 2])
    pause.arrays["event_time"] = np.array([9_950, 10_050])
    late = part(2, [0], [9_980], [1])
    late.arrays["event_time"] = np.array([300])
    waiting.put([history, pause, late], "a")
    waiting.put([part(3, [0], [9_899], [1])], "b")
    assert waiting.live(10_000, 100) == (frozenset({1, 2}), 9_899)
    assert [rows_of(chunk) for chunk in waiting.take(100, 10, {1, 2})] == [
        [(0, 0), (0, 1), (1, 0), (1, 1), (2, 0)]
    ]
    assert waiting.done(100, {1, 2}) == []
    assert waiting.live(10_000, 100) == (frozenset(), 9_899)
    assert waiting.live(9_999, 100) == (frozenset({3}), 101)
    assert [rows_of(chunk) for chunk in waiting.take(101, 10)] == [[(0, 2)]]
    assert waiting.done(101, {1, 2}) == ["a"]


def test_rows_scored_before_a_restart_are_dropped() -> None:
    """Offsets up to the one applied do not come again; their message is done at once."""
    waiting: WaitingRows[str] = WaitingRows({0: 5})
    waiting.put([part(0, [4, 5], [1, 1], [1, 2])], "old")
    assert waiting.rows == 0
    assert waiting.done(NEVER) == ["old"]
    waiting.put([part(0, [5, 6], [1, 2], [1, 2])], "new")
    assert waiting.rows == 1
    assert waiting.done(1) == []
    assert waiting.oldest() == 1


def test_rows_of_another_spec_are_refused() -> None:
    """They would be scored on columns that mean something else; those of the own spec wait as ever."""
    waiting: WaitingRows[int] = WaitingRows({}, "0" * 16)
    own, other = part(0, [1], [5], [1]), part(0, [2], [6], [1])
    own.meta["spec"], other.meta["spec"] = "0" * 16, "f" * 16
    waiting.put([own], 1)
    with pytest.raises(StateMismatch, match=r"f{16}.*same features"):
        waiting.put([other], 2)
    assert waiting.rows == 1
