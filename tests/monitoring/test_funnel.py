from __future__ import annotations

import math

from monitoring.funnel import AlertFunnel


def test_ctr_and_precision_over_distinct_alerts() -> None:
    """Repeated actions count once, and rates are over distinct alerts."""
    funnel = AlertFunnel(window_ms=1000)
    for alert in ("a", "b", "c", "d"):
        funnel.observe(alert, "shown", 10)
    for alert in ("a", "a", "b"):
        funnel.observe(alert, "opened", 20)
    funnel.observe("a", "confirmed", 30)
    funnel.observe("b", "dismissed", 30)
    assert funnel.counts() == {"shown": 4, "opened": 2, "confirmed": 1, "dismissed": 1}
    assert funnel.ctr() == 0.5
    assert funnel.precision() == 0.5


def test_the_latest_decision_holds() -> None:
    """An analyst who changes her mind counts once, with the later decision, in whatever order they arrive."""
    funnel = AlertFunnel(window_ms=1000)
    funnel.observe("a", "dismissed", 50)
    funnel.observe("a", "confirmed", 40)
    assert funnel.precision() == 0.0
    funnel.observe("a", "confirmed", 60)
    assert funnel.precision() == 1.0


def test_alerts_leave_with_the_window() -> None:
    """An alert without an action in the window is forgotten; a late event cannot bring it back."""
    funnel = AlertFunnel(window_ms=1000)
    funnel.observe("old", "shown", 0)
    funnel.observe("new", "shown", 900)
    funnel.advance(1500)
    assert funnel.counts()["shown"] == 1
    funnel.observe("old", "opened", 400)
    assert funnel.counts() == {"shown": 1, "opened": 0, "confirmed": 0, "dismissed": 0}


def test_a_wrong_clock_neither_empties_the_window_nor_stays() -> None:
    """An action stamped far ahead counts at the watermark: the others stay, and it leaves as they do."""
    funnel = AlertFunnel(window_ms=1000)
    funnel.observe("a", "shown", 100)
    funnel.advance(200)
    funnel.observe("b", "shown", 10**15)
    assert funnel.counts()["shown"] == 2
    funnel.advance(1201)
    assert funnel.counts()["shown"] == 0


def test_memory_is_bounded() -> None:
    """At the capacity the alert untouched for longest makes room."""
    funnel = AlertFunnel(window_ms=10**9, capacity=10)
    for number in range(100):
        funnel.observe(str(number), "shown", number)
    assert funnel.counts()["shown"] == 10


def test_an_empty_funnel_has_no_rates() -> None:
    """Without alerts or decisions the rates are undefined, not zero."""
    funnel = AlertFunnel(window_ms=1000)
    assert math.isnan(funnel.ctr())
    funnel.observe("a", "shown", 1)
    assert funnel.ctr() == 0.0
    assert math.isnan(funnel.precision())
