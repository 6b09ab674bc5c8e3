"""Columnar records: what is encoded comes back, what is not one is refused."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from streams.kafka import identity
from streams.stages.columns import Columns, ColumnsError, concat, decode


def sample(n: int, seed: int = 0) -> Columns:
    random = np.random.default_rng(seed)
    return Columns(
        {"watermark": -(2**62), "models": [["champion", "m", 1]]},
        {
            "ints": random.integers(-(2**62), 2**62, n),
            "matrix": random.normal(size=(n, 3)),
            "bools": random.random(n) < 0.5,
            "words": random.integers(0, 2**63, n).astype(np.uint64),
            "codes": random.integers(0, 4, n).astype(np.uint8),
            "short": random.integers(0, 999, n).astype(np.uint16),
        },
        {"id": [f"ü{row}" for row in range(n)]},
    )


def same(one: Columns, other: Columns) -> bool:
    return (
        one.meta == other.meta
        and one.strings == other.strings
        and one.arrays.keys() == other.arrays.keys()
        and all(
            one.arrays[name].dtype == other.arrays[name].dtype
            and np.array_equal(one.arrays[name], other.arrays[name])
            for name in one.arrays
        )
    )


@pytest.mark.parametrize("n", [0, 1, 7])
def test_round_trip(n: int) -> None:
    """Encoding keeps values, types and shapes, of no rows too; what comes back can be written to."""
    back = decode(sample(n).encode())
    assert same(back, sample(n))
    assert all(array.flags.writeable for array in back.arrays.values())
    assert back.arrays["matrix"].shape == (n, 3)


@given(st.integers(0, 300))
def test_a_cut_message_is_refused(length: int) -> None:
    """No prefix of a message passes for one."""
    data = sample(5).encode()
    with pytest.raises(ColumnsError):
        decode(data[: min(length, len(data) - 1)])


def test_what_would_not_be_read_is_not_written() -> None:
    for array in (np.array(["a"]), np.array([None]), np.array([1 + 1j])):
        with pytest.raises(ColumnsError, match="odd"):
            Columns({}, {"odd": array}).encode()


def test_take_and_concat_are_inverse() -> None:
    """Rows taken apart by a mask and put together in order are the rows."""
    rows = sample(10)
    mask = np.arange(10) < 4
    assert same(concat([rows.take(mask), rows.take(~mask)]), rows)
    assert rows.take(np.array([3, 1])).strings["id"] == ["ü3", "ü1"]


def test_accessors_refuse_other_types() -> None:
    """A column is given only as what it is: no silent conversion, no missing column."""
    rows = sample(3)
    assert rows.ints("ints").dtype == np.int64
    assert rows.meta_int("watermark") == -(2**62)
    for wrong in (lambda: rows.floats("ints"), lambda: rows.ints("none"), lambda: rows.meta_int("models")):
        with pytest.raises(ColumnsError):
            wrong()


def test_splitting_keeps_every_row_once_in_order() -> None:
    """By destination; none for rows that are not there, and none at all for a batch without rows."""
    rows = Columns({"m": 1}, {"n": np.arange(5)}, {"s": list("abcde")})
    parts = rows.split(np.array([3, 0, 3, 1, 0]))
    assert {where: part.strings["s"] for where, part in parts.items()} == {
        0: ["b", "e"], 1: ["d"], 3: ["a", "c"],
    }  # fmt: skip
    assert [part.arrays["n"].tolist() for part in parts.values()] == [[1, 4], [3], [0, 2]]
    assert rows.take(np.arange(0)).split(np.zeros(0, np.int64)) == {}


def test_another_layout_has_another_number() -> None:
    """State on the log holds such records: unless both numbers rise with the layout, a worker that restores
    older state fails in place of refusing it with the cure.
    """
    packed = Columns({"m": 1}, {"x": np.arange(2, dtype=np.int64)}, {"s": ["a", "b"]}).encode()
    layout = "950381a16d0181a17892a33c69389102c4100000000000000000010000000000000081a17392a161a162"
    assert (packed.hex(), packed[1], identity.FORMAT) == (layout, 3, 6)
