"""The book of one partition: what of it is finished, in any order, with any gaps."""

from __future__ import annotations

import random

from hypothesis import given
from hypothesis import strategies as st

from streams.kafka.batches import PartitionBook, RecordBatch
from tests.streams.sources import Source


def _hand_out(book: PartitionBook, first: int, last: int, next_offset: int | None = None) -> RecordBatch:
    records = [Source(b"", offset=offset) for offset in range(first, last + 1)]
    return book.hand_out(records, last + 1 if next_offset is None else next_offset, 1000)


def _to_commit(book: PartitionBook) -> int | None:
    """What may be committed now; read through a call, since type checkers hold a property to be constant."""
    return book.committable


def test_nothing_is_committed_over_an_unfinished_head() -> None:
    """Finishing 2..5 while 0..1 is in flight commits nothing; finishing 0..1 then commits all of it."""
    book = PartitionBook("t", 0)
    head, tail = _hand_out(book, 0, 1), _hand_out(book, 2, 5)
    tail.finish()
    assert _to_commit(book) is None
    head.finish()
    assert _to_commit(book) == 6


def test_an_unfinished_batch_at_the_committed_offset_holds_it() -> None:
    """With 2585 committed and in flight, later finished batches leave the committed offset where it is."""
    book = PartitionBook("t", 0)
    book.committed = 2585
    _hand_out(book, 2585, 2585)
    _hand_out(book, 2586, 2588).finish()
    assert _to_commit(book) is None


def test_a_gap_in_the_middle_is_not_skipped_later() -> None:
    """12 stays in flight while 10..11 and 13..15 finish: 12 is committed, and again nothing after it."""
    book = PartitionBook("t", 0)
    first, held, last = _hand_out(book, 10, 11), _hand_out(book, 12, 12), _hand_out(book, 13, 15)
    last.finish()
    first.finish()
    assert _to_commit(book) == 12
    book.committed = 12
    assert _to_commit(book) is None
    held.finish()
    assert _to_commit(book) == 16


def test_control_markers_are_passed_in_one_commit() -> None:
    """A marker after every ten records, 200 transactions: one commit reaches the end, marker of the last one
    included.
    """
    book = PartitionBook("t", 0)
    for transaction in range(200):
        first = transaction * 11
        _hand_out(book, first, first + 9, next_offset=first + 11).finish()
    assert _to_commit(book) == 200 * 11


def test_offsets_removed_by_compaction_are_passed_in_one_commit() -> None:
    """Records 3, 90 and 91 are all that is left of 0..199: finishing them commits 200."""
    book = PartitionBook("t", 0)
    book.hand_out([Source(b"", offset=3), Source(b"", offset=90), Source(b"", offset=91)], 200, 200).finish()
    assert _to_commit(book) == 200


def test_a_marker_after_the_last_batch_waits_for_that_batch() -> None:
    """A position that moves without records is committed once what was handed out before it is finished."""
    book = PartitionBook("t", 0)
    batch = _hand_out(book, 0, 4)
    book.skip_to(6, 6)
    assert _to_commit(book) is None
    batch.finish()
    assert _to_commit(book) == 6
    book.skip_to(8, 8)
    assert _to_commit(book) == 8


def test_finishing_after_revocation_has_no_effect() -> None:
    """A batch of a partition that has been taken away is marked revoked and commits nothing."""
    book = PartitionBook("t", 0)
    batch = _hand_out(book, 0, 4)
    book.close()
    assert batch.revoked
    assert not batch.start()
    batch.finish()
    assert _to_commit(book) is None
    assert book.records_in_flight == 0


def test_reading_again_forgets_what_was_handed_out_and_keeps_the_commit() -> None:
    """After reading back to 2 with 5 committed, older batches are void and the commit moves only beyond 5."""
    book = PartitionBook("t", 0)
    _hand_out(book, 0, 4).finish()
    book.committed = book.committable
    stale = _hand_out(book, 5, 9)
    book.read_from(2)
    stale.finish()
    assert stale.revoked
    assert _to_commit(book) is None
    _hand_out(book, 2, 7).finish()
    assert _to_commit(book) == 8


def test_lag_counts_from_what_is_finished_to_the_fetched_end() -> None:
    """10 of 40 finished, 10 in flight: lag 30; at the end 0; unknown before anything is known."""
    book = PartitionBook("t", 0, clock=lambda: 5.0)
    assert book.progress().lag is None
    _hand_out(book, 0, 9).finish()
    _hand_out(book, 10, 19)
    progress = book.progress(highwater=40)
    assert (progress.lag, progress.in_flight, progress.position, progress.finished) == (30, 10, 20, 10)
    assert progress.progressed_at == 5.0


@given(
    gaps=st.lists(st.tuples(st.integers(1, 4), st.integers(0, 3)), min_size=1, max_size=30),
    order=st.randoms(use_true_random=False),
)
def test_the_commit_is_always_the_end_of_the_finished_prefix(
    gaps: list[tuple[int, int]], order: random.Random
) -> None:
    """Whatever the batch lengths, gaps and order of finishing, what may be committed is the end of the
    finished prefix.
    """
    book = PartitionBook("t", 0)
    handed, offset = [], 0
    for length, gap in gaps:
        handed.append(_hand_out(book, offset, offset + length - 1, next_offset=offset + length + gap))
        offset += length + gap
    waiting = list(handed)
    order.shuffle(waiting)
    for batch in waiting:
        batch.finish()
        prefix = 0
        for candidate in handed:
            if not candidate.finished:
                break
            prefix = candidate.next_offset
        assert (book.committable or 0) == prefix
    assert _to_commit(book) == offset
    assert book.batches_in_flight == book.records_in_flight == 0
