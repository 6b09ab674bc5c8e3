from __future__ import annotations

from collections import Counter

from streams.history.analysts import Analysts
from streams.times import HOUR


def test_the_same_alert_meets_the_same_fate() -> None:
    """Feedback depends on seed and alert only, so a replayed alert gets the feedback it got before."""
    frauds = {"t1"}
    first, second = Analysts(frauds, seed=1), Analysts(frauds, seed=1)
    for number in range(50):
        assert first.review(f"a{number}", "t1", "c1", 1000) == second.review(f"a{number}", "t1", "c1", 1000)


def test_decisions_are_right_at_the_stated_rate_and_in_order_of_time() -> None:
    """Most alerts are opened, most decisions are right, and every action comes after the one before."""
    analysts = Analysts({f"t{number}" for number in range(0, 4000, 2)}, opened=0.9, accuracy=0.95)
    actions: Counter[str] = Counter()
    right = 0
    for number in range(4000):
        feedback = analysts.review(f"a{number}", f"t{number}", "c1", 10_000)
        times = [each.action_time for each in feedback]
        assert times == sorted(set(times))
        assert times[0] > 10_000
        assert times[-1] < 10_000 + HOUR
        actions.update(each.action for each in feedback)
        right += feedback[-1].action == ("dismissed" if number % 2 else "confirmed")
    decided = actions["confirmed"] + actions["dismissed"]
    assert actions["shown"] == 4000
    assert 0.88 < decided / 4000 < 0.92
    assert actions["opened"] == decided
    assert 0.93 < right / decided < 0.97
