"""Cooldown, control group and budget over the threshold."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from models import decision
from models.alert_budget import BudgetPolicy
from models.control_group import ControlGroup
from models.decision import DecisionPolicy, DecisionState
from models.policy import ThresholdPolicy
from tests.models.decided import MINUTE, START, decide, scored

KEY = bytes(range(32))
HALF = ThresholdPolicy(0.5)
ROWS = st.lists(
    st.tuples(st.integers(0, 300), st.integers(0, 4), st.sampled_from([0.1, 0.5, 0.9])), max_size=40
)


@given(rows=ROWS, span=st.integers(1, 200), cuts=st.lists(st.integers(0, 40), max_size=5).map(sorted))
def test_cooldown_is_that_of_the_oracle(
    rows: list[tuple[int, int, float]], span: int, cuts: list[int]
) -> None:
    """Row by row: a would-be alert within the span after an alert on its card is none, in any batches.

    Time is the highest watermark seen: a row that comes with an earlier one counts as now.
    """
    policy = DecisionPolicy(HALF, cooldown_ms=span * MINUTE)
    sent = scored([s for *_, s in rows], minutes=[m for m, *_ in rows], cards=[c for _, c, _ in rows])
    outcome = decide(policy, sent, [min(cut, len(rows)) for cut in cuts])
    last: dict[int, int] = {}
    now, expected = -(10**9), []
    for minute, card, score in rows:
        now = max(now, minute)
        alert = score >= 0.5 and now >= last.get(card, -(10**9)) + span
        expected.append(alert)
        if alert:
            last[card] = now
    assert outcome.alert.tolist() == expected
    suppressed = sum(score >= 0.5 for *_, score in rows) - sum(expected)
    assert outcome.suppressed == ({"cooldown": suppressed} if suppressed else {})


def test_a_cooldown_in_words() -> None:
    """One card, six hours: alerts at 0, 6 and 13 h; those at 1, 5:59 and 12:59 are held back."""
    hours = [0, 60, 359, 360, 719, 779, 780]
    outcome = decide(
        DecisionPolicy(HALF, cooldown_ms=360 * MINUTE), scored([0.9] * 7, minutes=hours, cards=[1] * 7)
    )
    assert outcome.alert.tolist() == [True, False, False, True, False, True, False]
    assert outcome.suppressed == {"cooldown": 4}


def test_cooling_cards_are_forgotten_in_time_and_in_number(monkeypatch: pytest.MonkeyPatch) -> None:
    """Memory is bounded by the span, and by a number: then the oldest card may raise an alert again."""
    policy, state = DecisionPolicy(HALF, cooldown_ms=60 * MINUTE), DecisionState()
    decide(policy, scored([0.9] * 100, minutes=range(100)), state=state)
    assert len(state.cooling) == 60
    monkeypatch.setattr(decision, "MOST_COOLING", 10)
    decide(policy, scored([0.9] * 20, minutes=[100] * 20, cards=range(200, 220)), state=state)
    assert list(state.cooling) == list(range(210, 220))


def test_suppressed_rows_spend_no_budget() -> None:
    """What the cooldown holds back leaves the credit to others."""
    policy = DecisionPolicy(BudgetPolicy(4, 1, 0.5), cooldown_ms=60 * MINUTE)
    outcome = decide(policy, scored([0.9] * 5, cards=[1, 1, 1, 2, 3]))
    assert outcome.alert.tolist() == [True, False, False, True, False]
    assert outcome.suppressed == {"cooldown": 2, "budget": 1}


@given(share=st.floats(0.01, 0.99), key=st.binary(min_size=32, max_size=100))
def test_the_control_group_is_a_share_of_the_cards(share: float, key: bytes) -> None:
    """Within five standard deviations of a binomial draw, and always the same cards."""
    group, n = ControlGroup(share, key), 2000
    held = [group.holds(f"card {number}") for number in range(n)]
    assert abs(sum(held) - share * n) < 5 * (share * (1 - share) * n) ** 0.5
    assert [ControlGroup(share, key).holds(f"card {number}") for number in range(100)] == held[:100]


def test_another_key_draws_another_group_and_a_larger_share_keeps_the_smaller_group() -> None:
    """Without the key nobody knows the group; with it a ramp adds cards and drops none."""
    cards = [f"card {number}" for number in range(2000)]
    small, large, other = ControlGroup(0.1, KEY), ControlGroup(0.3, KEY), ControlGroup(0.1, KEY[::-1])
    held = {card for card in cards if small.holds(card)}
    assert held < {card for card in cards if large.holds(card)}
    assert len(held & {card for card in cards if other.holds(card)}) < len(held) / 3


def test_alerts_of_the_control_group_are_marked_with_their_chance() -> None:
    """Only alerts are; the chance is that of being treated as they are, and the alert itself stays."""
    group = ControlGroup(0.25, KEY)
    outcome = decide(DecisionPolicy(HALF, control=group), scored([0.9, 0.1] * 200, cards=[*range(200)] * 2))
    held = np.array([group.holds(f"c{number}") for number in range(200)] * 2)
    np.testing.assert_array_equal(outcome.alert, [True, False] * 200)
    np.testing.assert_array_equal(outcome.control, outcome.alert & held)
    expected = np.where(outcome.control, 0.25, np.where(outcome.alert, 0.75, 1.0))
    np.testing.assert_array_equal(outcome.propensity, expected)
    assert outcome.control.any()
    assert DecisionPolicy(HALF, control=group).decide(DecisionState(), scored([])).alert.tolist() == []


@pytest.mark.parametrize(("share", "key"), [(0.0, KEY), (1.0, KEY), (float("nan"), KEY), (0.5, b"")])
def test_impossible_control_groups_are_refused(share: float, key: bytes) -> None:
    """All or none are no group, and without a key anybody could draw it."""
    with pytest.raises(ValueError, match="control group"):
        ControlGroup(share, key)


def test_odd_stamps_do_not_start_or_end_a_cooldown() -> None:
    """Time is the watermark: it does not go back for a late row."""
    policy, state = DecisionPolicy(HALF, cooldown_ms=60 * MINUTE), DecisionState()
    decide(policy, scored([0.9], minutes=[100], cards=[1]), state=state)
    late = decide(policy, scored([0.9, 0.9], minutes=[10, 160], cards=[1, 1]), state=state)
    assert late.alert.tolist() == [False, True]
    assert state.clock == START + 160 * MINUTE
    decide(policy, scored([0.9], minutes=[20], cards=[3]), state=state)
    assert state.cooling[3] == START + 220 * MINUTE
