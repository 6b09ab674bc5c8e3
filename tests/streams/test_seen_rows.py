"""What has come before is known, and little has to be remembered for it."""

from __future__ import annotations

import numpy as np
import pytest

from streams.stages.seen_rows import SeenRows, join


def take(seen: SeenRows, source: str, offsets: list[int], settled: int) -> list[int]:
    """A message of the source; what is new in it."""
    rows = np.array(offsets, np.int64)
    fresh = rows[seen.unseen(source, rows)]
    seen.take({source: (settled, fresh.tobytes())})
    return [int(offset) for offset in fresh]


def test_what_is_sent_again_after_a_crash_is_known() -> None:
    """Cut otherwise and with more; also rows ahead of others, which had not settled."""
    seen = SeenRows()
    assert take(seen, "0", [3, 5, 9], -1) == [3, 5, 9]
    assert take(seen, "0", [3, 5], -1) == []
    assert take(seen, "0", [6, 9, 12], -1) == [6, 12]
    assert take(seen, "0", [14], 6) == [14]
    assert take(seen, "0", [3, 6, 9, 10, 12, 14, 15], 6) == [10, 15]


def test_sources_do_not_know_of_each_other() -> None:
    """The offsets of one card partition go to several score partitions."""
    seen = SeenRows()
    assert take(seen, "0", [7], 6) == [7]
    assert take(seen, "1", [2, 8], 1) == [2, 8]


def test_what_has_settled_is_not_remembered() -> None:
    """After a million rows there are those of the last message."""
    seen = SeenRows()
    for start in range(0, 1_000_000, 5000):
        seen.take({"0": (start - 1, np.arange(start, start + 5000).tobytes())})
    ((settled, offsets),) = seen.dump().values()
    assert settled == 994_999
    assert len(offsets) == 5000 * 8


@pytest.mark.parametrize("cut", [0, 3])
def test_steps_add_up_and_a_dump_goes_on(cut: int) -> None:
    """One step for many messages is the same as one for each."""
    messages = [([1, 4], -1), ([6], 4), ([5, 8], 4), ([9], 8)]
    one, many = SeenRows(), SeenRows()
    step: dict[str, tuple[int, bytes]] = {}
    for offsets, settled in messages[cut:]:
        join(step, {"0": (settled, np.array(offsets, np.int64).tobytes())})
        take(many, "0", offsets, settled)
    one.take(step)
    assert one.dump() == many.dump()
    again = SeenRows()
    again.load(one.dump())
    probe = np.arange(12)
    assert again.unseen("0", probe).tolist() == one.unseen("0", probe).tolist()
