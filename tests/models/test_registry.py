"""Aliases as a function of the moves on a log: what counts, what does not, and what a move does."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from models.registry import (
    FORMER_KEPT,
    MOST_SHADOWS,
    NOWHERE,
    Aliases,
    Move,
    MoveIgnored,
    MoveRefused,
    Pin,
    Registry,
    Slots,
    StaleMove,
    moved,
    resolved,
)

A, B, C = Pin("a"), Pin("b"), Pin("c")
START = Aliases(A, (B, C))
PINS = st.builds(Pin, st.sampled_from("abcd"), st.none() | st.integers(1, 3))
MOVES = st.one_of(
    st.builds(
        Move,
        number=st.just(0),
        kind=st.sampled_from(["promote", "rollback", "shadow-add", "shadow-remove"]),
        model=PINS,
    ),
    st.builds(
        Move,
        number=st.just(0),
        kind=st.just("canary"),
        model=PINS,
        percent=st.sampled_from([0.0, 5.0, 50.0, 100.0]),
    ),
    st.builds(Move, number=st.just(0), kind=st.sampled_from(["hold-alerts", "release-alerts"])),
)


def after(*moves: Move, start: Aliases = START) -> Aliases:
    for move in moves:
        start = moved(start, move)
    return start


def promote(pin: Pin) -> Move:
    return Move(0, "promote", pin)


def rollback(pin: Pin) -> Move:
    return Move(0, "rollback", pin)


def canary(pin: Pin, percent: float) -> Move:
    return Move(0, "canary", pin, percent)


def read(moves: Sequence[Move]) -> Registry:
    """A registry that has been shown the moves, whether they count or not."""
    registry = Registry(START)
    for move in moves:
        try:
            registry.take(move)
        except MoveIgnored:
            continue
    return registry


@given(st.lists(MOVES, max_size=12), st.data())
def test_repeated_old_and_foreign_numbers_change_nothing(moves: list[Move], data: st.DataObject) -> None:
    """Whatever is replayed between the moves of a log, at any place after it first stood there, and whatever
    comes with a number that is not the next one: the aliases and the history are those of the log alone."""
    numbered = [replace(move, number=number) for number, move in enumerate(moves, start=1)]
    noisy: list[Move] = []
    for place, move in enumerate(numbered):
        noisy.append(move)
        if place:
            noisy += data.draw(st.lists(st.sampled_from(numbered[: place + 1]), max_size=3))
        ahead = data.draw(st.integers(place + 3, 10**9))
        noisy.append(replace(move, number=ahead))
    alone, disturbed = read(numbered), read(noisy)
    assert disturbed.aliases == alone.aliases
    assert disturbed.history == alone.history
    assert alone.last == len(numbered)


@given(st.lists(MOVES, max_size=20))
def test_a_name_is_in_one_slot(moves: list[Move]) -> None:
    """However models are moved: shadows have names of their own, neither champion nor canary among them, and
    there is a canary exactly while it has a share."""
    registry = read([replace(move, number=number) for number, move in enumerate(moves, start=1)])
    for entry in registry.history:
        aliases = entry.aliases
        shadows = [pin.name for pin in aliases.shadows]
        above = [pin.name for pin in (aliases.champion, aliases.canary) if pin is not None]
        assert len({*shadows, *above}) == len(shadows) + len(set(above))
        assert aliases.canary != aliases.champion
        assert (aliases.canary is None) == (aliases.percent == 0.0)
        assert set(aliases.pins()) == {aliases.champion, *aliases.shadows} | (
            {aliases.canary} if aliases.canary else set()
        )


def test_of_two_moves_made_at_the_same_time_the_first_counts() -> None:
    """Both bear the next number; whoever comes second is told."""
    registry = Registry(START)
    registry.take(replace(promote(B), number=1))
    with pytest.raises(StaleMove, match="it is move 1, the next one is 2"):
        registry.take(replace(promote(C), number=1))
    assert registry.aliases.champion == B


def test_a_senseless_move_uses_its_number_up() -> None:
    """It changes nothing, and those after it count all the same: numbers depend on the log alone."""
    registry = Registry(START)
    with pytest.raises(MoveRefused):
        registry.take(Move(1, "shadow-remove", Pin("nobody")))
    registry.take(replace(promote(B), number=2))
    assert registry.aliases.champion == B
    assert [bool(entry.refused) for entry in registry.history] == [True, False]


def test_promotion_changes_places() -> None:
    """The former champion scores on as a shadow, and so does a canary that was on."""
    assert after(promote(B)) == Aliases(B, (C, A), former=(A,))
    assert after(canary(C, 10), promote(B)) == Aliases(B, (A, C), former=(A,))
    assert after(canary(C, 10), promote(C)) == Aliases(C, (B, A), former=(A,))


def test_a_version_beside_the_newest_of_its_model() -> None:
    """Pins of one model are different models to a promotion; a shadow of the name goes."""
    assert after(promote(Pin("b", 3))) == Aliases(Pin("b", 3), (C, A), former=(A,))
    assert after(rollback(Pin("a", 7))) == Aliases(Pin("a", 7), (B, C), former=(A,))
    assert after(canary(Pin("a", 7), 5)).canary == Pin("a", 7)


def test_rollback_is_the_same_move_back() -> None:
    """Back and back again; a champion that was never in office before is taken for a move forward."""
    back = after(promote(B), promote(C), rollback(B))
    assert (back.champion, back.former) == (B, (A,))
    assert after(rollback(A), start=back) == Aliases(A, (C, B), former=())
    assert after(promote(B), rollback(C)).former == (A, B)


def test_the_canary_ramp() -> None:
    """It leaves the shadows for its time, moves by percent, and returns."""
    on = after(canary(B, 10))
    assert on == Aliases(A, (C,), B, 10)
    assert after(canary(B, 50), start=on).percent == 50
    assert after(canary(B, 0), start=on) == Aliases(A, (C, B))


@pytest.mark.parametrize(
    ("moves", "because"),
    [
        ([promote(A)], "the champion already"),
        ([canary(A, 5)], "the champion"),
        ([canary(B, float("nan"))], "share in percent"),
        ([canary(B, 100.5)], "share in percent"),
        ([canary(B, 5), canary(B, 5)], "already"),
        ([canary(B, 5), canary(C, 5)], "end it first"),
        ([canary(B, 0)], "no canary"),
        ([Move(0, "shadow-add", A)], "champion or canary"),
        ([Move(0, "shadow-add", B)], "a shadow already"),
        ([Move(0, "shadow-remove", Pin("d"))], "no shadow"),
        ([Move(0, "release-alerts")], "published already"),
        ([Move(0, "hold-alerts"), Move(0, "hold-alerts")], "held back already"),
        ([Move(0, "promote")], "of no model"),
    ],
)
def test_senseless_moves_are_refused(moves: list[Move], because: str) -> None:
    """With the reason."""
    with pytest.raises(MoveRefused, match=because):
        after(*moves)


def test_what_is_kept_is_bounded() -> None:
    """Shadows are refused beyond the limit; former champions are forgotten."""
    full = replace(START, shadows=tuple(Pin(f"s{number}") for number in range(MOST_SHADOWS)))
    with pytest.raises(MoveRefused, match="the most"):
        after(Move(0, "shadow-add", B), start=full)
    many = after(*(promote(Pin("b", number)) for number in range(1, FORMER_KEPT + 5)))
    assert len(many.former) == FORMER_KEPT


def test_pins_become_versions() -> None:
    """A pin without a version is at the newest one, or at the rules before the first; others stay."""
    registry = read([Move(1, "canary", Pin("b", 2), 25), Move(2, "hold-alerts")])
    assert resolved(registry, {"a": 4, "b": 9}) == Slots(
        champion=("a", 4),
        shadows=(("c", 0),),
        canary=("b", 2),
        canary_name="b/2",
        percent=25,
        alerts_held=True,
        move=2,
    )
    unheard = resolved(read([Move(1, "promote", Pin("nobody"))]), {"a": 4})
    assert unheard.champion == ("nobody", NOWHERE)
    assert registry.names("b", 2)
    assert not registry.names("b", 9)
