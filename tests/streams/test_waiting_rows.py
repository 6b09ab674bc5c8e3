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
from streams.stages.waiting_rows import WaitingRows


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
    """Rows of three card partitions: offsets with gaps, watermarks that do not fall."""
    whole = []
    for partition in range(3):
        n = draw(st.integers(0, 12))
        offsets = np.cumsum(draw(st.lists(st.integers(1, 3), min_size=n, max_size=n))).tolist()
        watermarks = np.cumsum(draw(st.lists(st.integers(0, 2), min_size=n, max_size=n))).tolist()
        cards = [card * 3 + partition for card in draw(st.lists(st.integers(0, 3), min_size=n, max_size=n))]
        whole.append(part(partition, offsets, watermarks, cards))
    return whole


def rows_of(chunks: list[Columns]) -> list[tuple[int, int]]:
    return [
        (partition, offset)
        for chunk in chunks
        for partition, offset in zip(
            chunk.ints("card_partition").tolist(), chunk.ints("offset").tolist(), strict=True
        )
    ]


@hypothesis_settings(max_examples=200, deadline=None)
@given(streams(), st.data())
def test_order_and_prefix_whatever_the_messages(whole: list[Columns], data: st.DataObject) -> None:
    """Rows come out sorted by watermark, card, offset, once each, however they were cut and repeated.

    What has been taken of a card partition is a prefix; a message is done exactly when its rows are taken.
    """
    expected = sorted(
        (int(w), int(c), int(o), p)
        for p, rows in enumerate(whole)
        for w, c, o in zip(rows.ints("watermark"), rows.words("card"), rows.ints("offset"), strict=True)
    )
    waiting: WaitingRows[int] = WaitingRows({})
    position = [0, 0, 0]
    holds: dict[int, set[tuple[int, int]]] = {}
    taken: list[tuple[int, int]] = []
    done: list[int] = []
    token = 0
    while any(position[p] < len(whole[p]) for p in range(3)):
        p = data.draw(st.sampled_from([p for p in range(3) if position[p] < len(whole[p])]))
        stop = data.draw(st.integers(position[p] + 1, len(whole[p])))
        start = data.draw(st.integers(0, position[p]))  # a restarted stage sends some rows again
        fresh = whole[p].take(np.arange(position[p], stop))
        holds[token] = {(p, int(offset)) for offset in fresh.ints("offset")}
        waiting.put([whole[p].take(np.arange(start, stop))], token)
        token += 1
        position[p] = stop
        # What every partition has reached may go: nothing below it can still come.
        frontier = min(
            int(whole[q].ints("watermark")[position[q] - 1]) - 1 if position[q] else NEVER
            for q in range(3)
            if position[q] < len(whole[q])
        ) if any(position[q] < len(whole[q]) for q in range(3)) else FOREVER  # fmt: skip
        taken += rows_of(list(waiting.take(frontier, 3)))
        done += waiting.done(frontier)
        for p in range(3):
            offsets = sorted(offset for q, offset in taken if q == p)
            assert offsets == whole[p].ints("offset")[: len(offsets)].tolist()
        assert all(holds[token] <= set(taken) for token in done)
    assert taken == [(p, o) for _, _, o, p in expected]
    assert done == sorted(holds)
    assert waiting.rows == 0


def test_a_chunk_ends_between_two_watermarks() -> None:
    """Rows of one watermark stay together, so that the last offsets saved are those of a prefix."""
    waiting: WaitingRows[str] = WaitingRows({})
    waiting.put([part(0, [0, 1, 2, 3, 4], [1, 2, 2, 2, 3], [5, 9, 8, 7, 5])], "a")
    assert [len(chunk) for chunk in waiting.take(FOREVER, 2)] == [4, 1]


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
