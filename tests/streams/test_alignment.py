"""The event-time gate."""

from __future__ import annotations

from streams.stages.alignment import FOREVER, NEVER, EventTimeGate


def gate() -> EventTimeGate:
    return EventTimeGate("ab", idle_after_ms=50)


def test_rows_wait_for_the_slowest_input() -> None:
    """The frontier is the smallest watermark of the inputs behind the newest row."""
    g = gate()
    assert g.frontier(1000, 10_000) == NEVER
    g.advance("a", 900)
    g.advance("b", 400)
    assert g.frontier(1000, 10_000) == 400
    g.advance("b", 300)  # a watermark does not fall
    assert g.frontier(1000, 10_000) == 400


def test_inputs_that_are_ahead_do_not_hold_back() -> None:
    """When every input has passed the newest row, all rows go."""
    g = gate()
    g.advance("a", 1000)
    g.advance("b", 2000)
    assert g.frontier(1000, 10_000) == FOREVER


def test_an_idle_input_is_not_waited_for_until_it_moves() -> None:
    """Waiting begins when rows first wait for it, ends after the idle time, begins anew when it moves."""
    g = gate()
    g.advance("a", 5_000)
    assert g.frontier(1000, 100_000) == NEVER
    assert g.frontier(1000, 100_049) == NEVER
    assert g.frontier(1000, 100_050) == FOREVER
    g.advance("b", 500)
    assert g.frontier(1000, 100_060) == 500
    assert g.frontier(1000, 100_110) == FOREVER


def test_what_was_idle_is_waited_for_again_after_a_rest() -> None:
    """An input that ended a history behind is not idle in the next; a short pause changes nothing."""
    g = gate()
    g.advance("a", 1000)
    g.advance("b", 900)
    assert g.frontier(1000, 100_000) == 900
    assert g.frontier(1000, 100_050) == FOREVER
    g.rest(100_060)
    g.rest(100_100)
    assert g.frontier(1000, 100_110) == FOREVER
    g.rest(100_120)
    g.advance("a", 2_999)
    assert g.frontier(3_000, 100_171) == 900


def test_an_unknown_input_joins() -> None:
    """An input heard of for the first time is waited for like the others."""
    g = gate()
    for name in "abc":
        g.advance(name, {"c": 300}.get(name, 2000))
    assert g.frontier(1000, 10_000) == 300
