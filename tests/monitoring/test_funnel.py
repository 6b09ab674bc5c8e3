"""The alert funnel, and what windows are made of."""

from __future__ import annotations

import itertools
import math

import pytest

from monitoring.funnel import Alert, Progress, funnel_change
from monitoring.tallies import MOST, Tally, Window, add, total
from monitoring.window_report import figures

ALERT = Alert(
    time=1000, model="m", arm="champion", amount=250, exponent=2, seconded={"other": False, "same": True}
)


def counted(*actions: tuple[str, int]) -> Tally:
    """The funnel after these actions, one after the other."""
    tally, progress = Tally(), Progress()
    for action, time in actions:
        after = progress.after(action, time)
        add(tally, funnel_change(ALERT, progress, after))
        progress = after
    return tally


def test_repeated_actions_count_once() -> None:
    """An alert is shown, opened and decided once, however often it is said."""
    tally = counted(("shown", 1), ("shown", 2), ("opened", 3), ("opened", 3), ("confirmed", 4000))
    assert {step: tally[step] for step in ("shown", "opened", "confirmed")} == {
        "shown": 1,
        "opened": 1,
        "confirmed": 1,
    }
    assert tally["decision_ms"] == 3000
    assert tally["confirmed_amount@exponent:2"] == 250
    assert tally["shown@by:m|champion"] == 1


def test_a_decision_implies_the_steps_before_it() -> None:
    """The event that said `shown` may be lost."""
    assert counted(("dismissed", 5))["shown"] == counted(("opened", 5))["shown"] == 1
    assert "opened" not in counted(("shown", 5))


def test_the_latest_decision_holds_in_any_order() -> None:
    """An analyst who changes her mind counts once, with the later decision."""
    actions = [("shown", 10), ("dismissed", 20), ("confirmed", 30), ("opened", 40), ("dismissed", 30)]
    results = [counted(*each) for each in itertools.permutations(actions)]
    assert all(result == results[0] for result in results)
    assert results[0]["dismissed"] == 1
    assert "confirmed" not in results[0]
    assert "confirmed_amount@exponent:2" not in results[0]


def test_shadows_agree_with_the_analyst_or_not() -> None:
    """One that would have raised the alert agrees with a confirmation, another with a dismissal."""
    confirmed, dismissed = counted(("confirmed", 5)), counted(("dismissed", 5))
    assert confirmed["agreed@shadow:same"] == dismissed["agreed@shadow:other"] == 1
    assert "agreed@shadow:other" not in confirmed
    assert confirmed["decided@shadow:other"] == 1


def test_sums_do_not_overflow_and_do_not_depend_on_the_order() -> None:
    """Sums stop where a 64-bit number can hold them."""
    parts = [{"a": MOST}, {"a": MOST, "b": 1}, {"a": 5}]
    results = [total(each) for each in itertools.permutations(parts)]
    assert all(result == {"a": MOST, "b": 1} for result in results)
    assert total([{"a": 1}, {"a": -1}]) == {}


@pytest.mark.parametrize(("length", "hop"), [(60, 60), (300, 100), (240, 60)])
def test_a_slot_is_in_the_windows_that_hold_it(length: int, hop: int) -> None:
    """The ends of a slot's windows are those whose slots hold it."""
    window = Window("w", 20, length, hop)
    for slot in range(0, 400, 20):
        held = [end for end in range(0, 2000, hop) if slot in window.slots(end)]
        assert list(window.ends(slot)) == held


def test_figures_are_ratios_of_counts() -> None:
    """Rates are of the step before; without anything they say nothing."""
    tally: Tally = {
        "transactions": 1000, "alerts": 10, "shown": 8, "opened": 4, "confirmed": 1, "dismissed": 2,
        "decision_ms": 9000, "alerts@by:m|canary": 3, "transactions@by:m|canary": 30, "outcomes": 500,
        "frauds": 5, "caught": 2, "alerts_known": 8, "amount@exponent:0": 7, "labels@source:chargeback": 2,
        "label_ms@source:chargeback": 4000, "compared@shadow:s": 10, "differs@shadow:s": 1,
        "gap_millionths@shadow:s": 5_000_000,
    }  # fmt: skip
    found = figures(tally)
    assert found["alert_rate"] == 0.01
    funnel = found["funnel"]
    assert (funnel["shown_rate"], funnel["ctr"], funnel["decided_rate"]) == (0.8, 0.5, 0.75)
    assert funnel["precision"] == pytest.approx(1 / 3)
    assert funnel["decision_seconds"] == 3.0
    assert [(each["model"], each["arm"], each["alert_rate"]) for each in found["models"]] == [
        ("m", "canary", 0.1)
    ]
    assert (found["precision"], found["recall"], found["base_rate"]) == (0.25, 0.4, 0.01)
    assert found["amount"] == {"0": 7}
    assert found["labels"] == {"chargeback": {"count": 2, "delay_seconds": 2.0}}
    assert found["shadows"]["s"]["disagreement"] == 0.1
    assert found["shadows"]["s"]["score_gap"] == 0.5
    assert math.isnan(figures({})["alert_rate"])
