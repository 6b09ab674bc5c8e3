"""Messages of one log, read late in the order of each source."""

from __future__ import annotations

from dataclasses import dataclass

from hypothesis import given
from hypothesis import strategies as st

from streams.stages.late_rows import LateRows

MOST = 4


@dataclass(frozen=True)
class Record:
    offset: int
    source: int

    @property
    def key(self) -> bytes:
        return b"%d" % self.source


def read(late: LateRows[Record], log: list[Record], most: int) -> bool:
    """What one fetch does; whether anything came."""
    start = late.wanted()
    if start is None:
        return False
    found = [record for record in log if record.offset >= start][:most]
    late.take(start, found)
    return bool(found)


@given(
    sources=st.lists(st.integers(0, 2), max_size=60),
    gaps=st.lists(st.integers(1, 3), min_size=60, max_size=60),
    done=st.lists(st.tuples(st.integers(0, 2), st.integers(1, 9)), max_size=60),
    fetch=st.integers(1, 20),
    places=st.tuples(*[st.integers(0, 40)] * 3),
)
def test_every_source_gets_its_own_messages_in_order_and_none_waits_for_another(
    sources: list[int],
    gaps: list[int],
    done: list[tuple[int, int]],
    fetch: int,
    places: tuple[int, int, int],
) -> None:
    """Whatever is done with in whatever order; and never are more held than said."""
    offsets = [sum(gaps[: number + 1]) for number in range(len(sources))]
    log = [Record(offset, source) for offset, source in zip(offsets, sources, strict=True)]
    late: LateRows[Record] = LateRows(dict(enumerate(places)), MOST)
    got: dict[int, list[int]] = {0: [], 1: [], 2: []}
    # Whoever can take one more takes it in the end.
    for source, count in [*done, *[(each, 99) for each in range(3)]]:
        for _ in range(count):
            while read(late, log, fetch):
                assert all(len(held) <= MOST for held in late._held.values())
            if (first := late.first(source)) is None:
                break
            assert late.place(source) == first.offset
            got[source].append(first.offset)
            late.drop(source)
    for source, place in enumerate(places):
        assert got[source] == [each.offset for each in log if each.source == source and each.offset >= place]


def test_a_source_that_is_far_ahead_does_not_hide_those_behind_it() -> None:
    log = [Record(offset, 0) for offset in range(1000)] + [Record(1000, 1)]
    late: LateRows[Record] = LateRows({0: 0, 1: 0}, MOST)
    while late.first(1) is None:
        assert read(late, log, 64)
    assert late.first(1) == log[1000]
    assert late.first(0) == log[0]
    # All of the first source that has been passed over is read again when it is wanted.
    for offset in range(1000):
        assert late.first(0) == log[offset]
        late.drop(0)
        while late.first(0) is None and read(late, log, 64):
            pass
    assert late.first(0) is None
    assert late.place(0) == late.place(1) + 1 == 1001


def test_what_is_held_is_not_read_again_while_nobody_runs_short() -> None:
    log = [Record(offset, offset % 2) for offset in range(20)]
    late: LateRows[Record] = LateRows({0: 0, 1: 0}, MOST)
    while read(late, log, 64):
        pass
    assert late.wanted() is None
    late.drop(0)
    assert late.wanted() is None
    late.drop(0)
    assert late.wanted() == 8
