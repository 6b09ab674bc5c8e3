"""The learn core: nothing before its time, the same versions however the clock moves."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from models.learners.logistic import LogisticLearner
from streams.stages.columns import Columns
from streams.stages.learn_core import LearnCore, LearnRules, LearnState

EVERY = 10
CORE = LearnCore(LearnRules(publish_every_ms=EVERY, spec_digest="0" * 16))


class Watched(LogisticLearner):
    """Notes what it learns."""

    def __init__(self) -> None:
        super().__init__(("known_at",))
        self.learned: list[int] = []
        self.weights: list[float] = []

    def learn(
        self, x: np.ndarray[tuple[int], np.dtype[np.float64]], fraud: bool, weight: float = 1.0
    ) -> None:
        super().learn(x, fraud, weight)
        self.learned.append(int(x[0]))
        self.weights.append(weight)


def outcomes(known_at: Sequence[int], first: int = 0) -> Columns:
    n = len(known_at)
    return Columns(
        {},
        {
            "transaction": np.arange(first, first + n, dtype=np.uint64) + np.uint64(1),
            "fraud": np.arange(n) % 2 == 0,
            "known_at": np.array(known_at, np.int64),
            "labelled_at": np.array(known_at, np.int64),
            "watermark": np.array(known_at, np.int64),
            "features": np.array(known_at, np.float64)[:, None],
            "alert": np.zeros(n, np.bool_),
            "control": np.zeros(n, np.bool_),
            "propensity": np.ones(n),
        },
        {"source": ["maturity"] * n},
    )


def advance(state: LearnState, clock: int) -> list[tuple[str, int, int, int]]:
    return [
        (snapshot.name, snapshot.version, snapshot.created_at_event_time, snapshot.n_learned)
        for snapshots in CORE.advance(state, clock)
        for snapshot in snapshots
    ]


def test_nothing_is_learned_before_the_clock_has_reached_it() -> None:
    """Outcomes wait for their `known_at` and are learned in its order."""
    learner = Watched()
    state = LearnState({"m": learner})
    CORE.take(state, outcomes([7, 3, 5]))
    advance(state, 2)
    assert learner.learned == []
    advance(state, 5)
    assert learner.learned == [3, 5]
    advance(state, 4)  # a clock does not go back
    assert learner.learned == [3, 5]
    advance(state, 7)
    assert learner.learned == [3, 5, 7]


def test_a_version_at_every_step_with_something_new() -> None:
    """A version holds what took effect before its step and bears the step's time; idle steps give none."""
    state = LearnState({"m": Watched()})
    CORE.take(state, outcomes([1, 9, 10, 11, 45]))
    assert advance(state, 60) == [("m", 1, 10, 2), ("m", 2, 20, 4), ("m", 3, 50, 5)]
    assert advance(state, 100) == []


def test_an_outcome_given_twice_is_learned_once_and_a_reversal_is_learned() -> None:
    """A label stage that was restarted may repeat an outcome; only another verdict is news."""
    learner = Watched()
    state = LearnState({"m": learner})
    CORE.take(state, outcomes([3]))
    advance(state, 5)
    CORE.take(state, outcomes([3]))
    advance(state, 6)
    assert learner.learned == [3]
    other = outcomes([8])
    other.arrays["fraud"] = ~other.bools("fraud")
    CORE.take(state, other)
    advance(state, 9)
    assert learner.learned == [3, 8]


class Busy(Watched):
    """Has to catch up before every outcome."""

    def __init__(self) -> None:
        super().__init__()
        self.asked = 0

    def ready(self, seconds: float) -> bool:
        self.asked += 1
        return self.asked % 3 == 0


def test_others_run_while_a_learner_catches_up() -> None:
    """A learner that is busy in the background holds up its own stage, never the process."""
    learner = Busy()
    state = LearnState({"m": learner})
    CORE.take(state, outcomes([3, 5]))
    breaths = sum(not snapshots for snapshots in CORE.advance(state, 6))
    assert (breaths, learner.learned) == (5, [3, 5])  # two before each outcome, and the first step's


def test_alerts_that_are_left_alone_speak_for_those_that_are_not() -> None:
    """The control group counts by its chance; silence about other alerts is not learned, verdicts on them
    are.
    """
    learner = Watched()
    state = LearnState({"m": learner})
    rows = outcomes([1, 2, 3, 4])
    rows.arrays["alert"] = np.array([False, True, True, True])
    rows.arrays["control"] = np.array([False, True, False, False])
    rows.arrays["propensity"] = np.array([1.0, 0.25, 0.75, 0.75])
    rows.strings["source"] = ["maturity", "maturity", "maturity", "analyst"]
    assert CORE.take(state, rows) == 3
    advance(state, 5)
    assert learner.learned == [1, 2, 4]
    assert learner.weights == [1.0, 4.0, 1.0]


def test_an_outcome_that_cannot_be_learned_is_counted() -> None:
    """Features that are not finite are refused by the learner and do not stop the stage."""
    state = LearnState({"m": Watched()})
    rows = outcomes([1, 2])
    rows.arrays["features"] = np.array([[np.nan], [2.0]])
    CORE.take(state, rows)
    advance(state, 5)
    assert (state.refused["m"], state.learners["m"].n_learned) == (1, 1)


@hypothesis_settings(max_examples=60, deadline=None)
@given(st.lists(st.integers(1, 60), min_size=1, max_size=25), st.sets(st.integers(1, 70), max_size=12))
def test_versions_do_not_depend_on_how_the_clock_moves(known_at: list[int], clocks: set[int]) -> None:
    """Many small steps or one leap: the same versions of the same times, learned in the same order."""
    whole, parts = Watched(), Watched()
    one, other = LearnState({"m": whole}), LearnState({"m": parts})
    CORE.take(one, outcomes(known_at))
    at_once = advance(one, 80)
    step_by_step = []
    previous = 0
    for clock in [*sorted(clocks), 80]:
        # They arrive at the latest when the clock stands just before them.
        due = [position for position, at in enumerate(known_at) if previous < at <= clock]
        CORE.take(other, outcomes(known_at).take(np.array(due, np.intp)))
        step_by_step += advance(other, clock)
        previous = clock
    assert step_by_step == at_once
    assert parts.learned == whole.learned


@pytest.mark.parametrize(
    ("least", "frauds", "first"), [(0, 0, 10), (6, 0, 30), (0, 3, 50), (6, 3, 50), (99, 0, None)]
)
def test_no_version_before_enough_has_been_learned(least: int, frauds: int, first: int | None) -> None:
    """The first version bears the first step with both minima reached, and holds all that was learned."""
    core = LearnCore(LearnRules(EVERY, "0" * 16, min_outcomes=least, min_frauds=frauds))
    known_at = [1, 2, 3, 12, 13, 25, 41, 42]
    rows = outcomes(known_at)
    rows.arrays["fraud"] = np.isin(known_at, [2, 12, 41])
    state = LearnState({"m": Watched()})
    core.take(state, rows)
    found = [each for snapshots in core.advance(state, 60) for each in snapshots]
    assert (found[0].created_at_event_time if found else None) == first
    assert [each.version for each in found] == list(range(1, len(found) + 1))
    if first is not None:
        assert found[0].n_learned == sum(at < first for at in known_at)


def test_a_sampled_outcome_counts_for_those_it_stands_for() -> None:
    """One genuine outcome in ten learned is ten seen, so that sampling keeps no model back."""
    sampled, whole = LogisticLearner(("a",), 10), LogisticLearner(("a",))
    rules = LearnRules(EVERY, "0" * 16, min_outcomes=31, min_frauds=1)
    for learner in (sampled, whole):
        for fraud in (True, False, False, False):
            learner.learn(np.zeros(1), fraud)
    assert rules.suffices(sampled)
    assert not rules.suffices(whole)
