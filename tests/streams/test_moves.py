"""Events of the control topic as bytes: what is taken for a move, and what is not."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from models.registry import Move, Pin
from streams.contract.moves import MAX_BYTES, MoveUnusable, decode_move, encode_move

KEY, OTHER = b"k" * 32, b"o" * 32
AT = 1_735_689_600_000
MOVE = Move(
    3, "canary", Pin("forest", 12), 12.5, "ada", AT, "AP is up", {"average_precision": 0.71, "labels": 900}
)


def altered(**fields: Any) -> bytes:
    return json.dumps(json.loads(encode_move(MOVE, "control", b"")) | fields).encode()


@pytest.mark.parametrize("key", [b"", KEY])
@pytest.mark.parametrize(
    "move", [MOVE, Move(1, "promote", Pin("a"), who="x", at=AT), Move(2, "hold-alerts", who="x", at=AT)]
)
def test_moves_survive_the_topic(move: Move, key: bytes) -> None:
    """Signed or not, with and without a version, a share, a model."""
    assert decode_move(encode_move(move, "control", key), "control", key) == move


def test_only_the_key_signs() -> None:
    """Unsigned, signed with another key, signed for another topic, changed afterwards: none is a move."""
    signed = encode_move(MOVE, "control", KEY)
    for value in (
        encode_move(MOVE, "control", b""),
        encode_move(MOVE, "control", OTHER),
        encode_move(MOVE, "elsewhere", KEY),
        signed.replace(b"12.5", b"13.5"),
        signed.replace(b"forest", b"fores1"),
    ):
        with pytest.raises(MoveUnusable, match="sign"):
            decode_move(value, "control", KEY)
    fields = json.loads(signed)
    written_otherwise = json.dumps(dict(reversed(fields.items())), indent=1).encode()
    assert decode_move(written_otherwise, "control", KEY) == MOVE


@pytest.mark.parametrize(
    "value",
    [
        None,
        b"",
        b"{",
        b"[]",
        b"\x80\x04\x95cposix\nsystem\n",
        b'"' + b"x" * MAX_BYTES + b'"',
        altered(id=0),
        altered(id=True),
        altered(id=2**60),
        altered(kind="delete"),
        altered(name="../../etc/passwd"),
        altered(name="http://169.254.169.254/latest"),
        altered(name="a" * 41),
        altered(name=""),
        altered(version=0),
        altered(version="1" * 1_000_000),
        altered(percent=-1),
        altered(percent=101),
        altered(percent=float("nan")),
        altered(percent="5"),
        altered(who=""),
        altered(who="a\nlevel=info"),
        altered(reason="x" * 501),
        altered(at=AT // 1000),
        altered(evidence={"a": [1]}),
        altered(evidence={str(n): 1 for n in range(65)}),
        altered(uri="file:///tmp/model"),
        altered(kind="hold-alerts"),
    ],
)
def test_what_is_no_move_is_refused(value: bytes | None) -> None:
    """Nothing but a move in its form, whatever the bytes: they name a model, never a place."""
    with pytest.raises(MoveUnusable):
        decode_move(value, "control", b"")


@given(st.data())
def test_mutilated_events_are_moves_or_unusable(data: st.DataObject) -> None:
    """Bytes cut, changed or doubled somewhere give a move or `MoveUnusable`; signed, only the move itself."""
    value = bytearray(encode_move(MOVE, "control", KEY))
    for _ in range(data.draw(st.integers(1, 4))):
        place = data.draw(st.integers(0, len(value) - 1))
        value[place : place + data.draw(st.integers(0, 2))] = data.draw(st.binary(max_size=2))
    try:
        assert decode_move(bytes(value), "control", KEY) == MOVE
    except MoveUnusable:
        return


def test_what_readers_would_refuse_is_not_written() -> None:
    """The writer is told."""
    with pytest.raises(MoveUnusable, match="reason"):
        encode_move(Move(1, "promote", Pin("a"), who="x", at=AT, reason="x" * 501), "control", KEY)
