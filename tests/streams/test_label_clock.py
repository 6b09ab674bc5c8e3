"""The clock of labels, by which transactions mature: what moves it, and what one odd stamp cannot do."""

from __future__ import annotations

import numpy as np
from hypothesis import assume, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from streams.contract.records import Label
from streams.stages.alignment import NEVER
from streams.stages.label_core import LabelJoin, LabelPolicy
from streams.stages.label_state import LabelStep
from tests.streams.joined import EXPIRY, MATURITY, Joined, Outcome


def clocks(*labels: tuple[int, str], scored: int | None = None) -> list[int]:
    """The clock of labels after each label of a time and a card."""
    joined = Joined()
    joined.join = LabelJoin(LabelPolicy(MATURITY, EXPIRY, jump_ms=10))
    if scored is not None:
        joined.score({"s": (scored, False)})
    found = []
    for number, (at, card) in enumerate(labels):
        joined.label(f"t{number}", True, at, card=card)
        found.append(joined.state.labels_until)
    return found


def test_a_jump_of_the_clock_of_labels_needs_two_cards() -> None:
    """Steps within the jump are taken at once; further ones when another card is that far, too."""
    assert clocks((5, "a"), (15, "a"), (25, "a"), scored=0) == [5, 15, 25]
    assert clocks((11, "a"), (12, "a"), (12, "b"), scored=0) == [NEVER, NEVER, 12]
    assert clocks((5, "a"), (7, "b"), (9, "c")) == [NEVER, 7, 9]
    assert clocks((5, "a"), (40, "b"), (30, "c"), scored=0) == [5, 5, 40]
    assert clocks((5, "a"), (60, "b"), (30, "c"), (61, "d"), scored=0) == [5, 5, 30, 61]


def test_odd_stamps_apart_from_each_other_confirm_nothing() -> None:
    """An ordinary label between two of them has made the first one forgotten; side by side they count."""
    odd = 10**9
    assert clocks((5, "a"), (odd, "b"), (7, "c"), (odd, "d"), (8, "e"), scored=0) == [5, 5, 7, 7, 8]
    assert clocks((5, "a"), (odd, "b"), (odd, "d"), scored=0) == [5, 5, odd]


def test_a_stamp_beyond_what_is_believable_is_nothing_to_the_clock() -> None:
    """Neither a claim nor a confirmation."""
    joined = Joined()
    for number, at in enumerate((5, 900, 7, 800, 10**8)):
        step, label = LabelStep(), Label(f"t{number}", f"c{number}", True, "bank", at, 0)
        joined.join.labels(joined.state, step, [label], believable=100)
    assert joined.state.labels_until == 7


labelled_history = st.lists(
    st.tuples(st.integers(0, 60), st.booleans(), st.integers(0, MATURITY + 20), st.integers(0, 4)),
    min_size=1,
    max_size=14,
)


@hypothesis_settings(max_examples=300, deadline=None)
@given(
    labelled_history, st.integers(0, 14), st.integers(-(10**4), 10**6), st.integers(0, 5), st.booleans(),
    st.integers(0, 14),
)  # fmt: skip
def test_one_odd_stamp_changes_no_other_outcome(
    history: list[tuple[int, bool, int, int]], place: int, odd: int, card: int, fraud: bool, about: int
) -> None:
    """One label of any card and verdict, about any transaction, anywhere among labels in the order of their
    times and further ahead of them than the jump, or behind: every other transaction ends as without it.
    """

    def outcomes(said: list[tuple[int, str, int, bool, bool]]) -> list[Outcome]:
        joined = Joined()
        joined.join = LabelJoin(LabelPolicy(MATURITY, EXPIRY, jump_ms=3))
        scored = 0
        found: list[Outcome] = []
        for at, name, of_card, is_fraud, is_odd in said:
            due = [row for row in rows if scored <= row[0] <= at]
            if due and not is_odd:
                found += joined.score({f"t{number}": (when, alert) for when, number, alert in due})
                scored = at + 1
            found += joined.label(name, is_fraud, at, card=f"c{of_card}")
            found += joined.mature(joined.join.ripe(joined.state, 0, labels_idle=False))
        rest = [row for row in rows if row[0] >= scored]
        if rest:
            found += joined.score({f"t{number}": (when, alert) for when, number, alert in rest})
        return sorted(each for each in found + joined.mature(10**9) if each[0] != f"t{about}")

    times = np.cumsum([gap for gap, *_ in history]).tolist()
    numbered = [(number, at, *each[1:]) for number, (at, each) in enumerate(zip(times, history, strict=True))]
    rows = [(at, number, alert) for number, at, alert, _, _ in numbered]
    ordered = sorted(
        (at + delay, f"t{number}", of_card, True, False) for number, at, _, delay, of_card in numbered
    )
    place = min(place, len(ordered))
    assume(not any(0 < odd - at <= 3 for at in [*times, *(label[0] for label in ordered)]))
    disturbed = [*ordered[:place], (odd, f"t{about}", card, fraud, True), *ordered[place:]]
    assert outcomes(disturbed) == outcomes(ordered)
