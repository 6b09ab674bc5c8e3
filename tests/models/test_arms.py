"""The canary's cards: a share that grows card by card, the same in every process."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from models.arms import in_canary

CARDS = np.random.default_rng(1).integers(0, 2**64, 100_000, dtype=np.uint64)


@given(
    st.lists(st.integers(0, 2**64 - 1), max_size=20),
    st.floats(0, 100),
    st.floats(0, 100),
    st.text(max_size=50),
)
def test_a_card_that_is_in_stays_in(cards: list[int], one: float, other: float, name: str) -> None:
    """At every larger share; none is in at 0 percent, all are at 100."""
    words = np.array(cards, np.uint64)
    fewer, more = (in_canary(words, name, percent) for percent in sorted((one, other)))
    assert not (fewer & ~more).any()
    assert not in_canary(words, name, 0.0).any()
    assert in_canary(words, name, 100.0).all()


@pytest.mark.parametrize("percent", [1, 5, 10, 25, 50, 90])
def test_the_share_is_the_percentage(percent: float) -> None:
    """Within 4 standard deviations, for random cards and for cards numbered in a row."""
    n = len(CARDS)
    allowed = 4 * np.sqrt(n * percent / 100 * (1 - percent / 100))
    for cards in (CARDS, np.arange(n, dtype=np.uint64), np.arange(n, dtype=np.uint64) << np.uint64(32)):
        assert abs(in_canary(cards, "forest", percent).sum() - n * percent / 100) < allowed


def test_every_canary_has_cards_of_its_own() -> None:
    """The cards of two canaries overlap as much as chance has it."""
    arms = [in_canary(CARDS, name, 20) for name in ("forest", "forest/2", "logistic")]
    for one, other in itertools.combinations(arms, 2):
        assert abs((one & other).mean() - 0.04) < 0.004


def test_the_choice_is_that_of_any_process() -> None:
    """A card's arm must not change with the process, the Python or the version: these are fixed."""
    chosen = in_canary(np.arange(40, dtype=np.uint64), "forest", 25)
    assert np.flatnonzero(chosen).tolist() == PINNED


PINNED = [3, 11, 17, 18, 19, 22, 24, 25, 32, 34]
