"""Verdicts of analysts and delayed labels in the learn core: who is told what, when, and after a reversal.

transaction ──► verdict (analyst) ──► contradicted (chargeback) ──► matured
                feedback learner      feedback learner corrected    delayed learner, by what is known then
                plain learner         plain learner
"""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from models.learners.logistic import LogisticLearner
from streams.contract.records import Feedback, Label
from streams.stages import learn_core
from streams.stages.columns import Columns
from streams.stages.label_core import LabelJoin, LabelPolicy
from streams.stages.label_state import LabelState, LabelStep
from streams.stages.learn_core import LearnCore, LearnRules, LearnState
from tests.streams.learning_apart import MATURITY, Apart, Given, Told, outcomes
from tests.streams.test_learning import Watched

CORE = LearnCore(LearnRules(publish_every_ms=1000, spec_digest="0" * 16, maturity_ms=MATURITY))


def advance(state: LearnState, clock: int) -> None:
    for _ in CORE.advance(state, clock):
        pass


def both() -> tuple[LearnState, Apart, Watched]:
    apart, plain = Apart(), Watched()
    return LearnState({"apart": apart, "plain": plain}), apart, plain


def test_a_verdict_is_told_at_once_and_learned_when_the_transaction_has_matured() -> None:
    """Beside it a plain learner learns the same once, when it is known."""
    state, apart, plain = both()
    assert CORE.take(state, outcomes([(5, 20, "analyst", True), (6, 30, "analyst", False)])) == 2
    advance(state, 25)
    assert apart.told == [("feedback", 5, True, 1.0)]
    advance(state, 5 + MATURITY)
    assert apart.told[1:] == [("feedback", 6, False, 1.0), ("delayed", 5, True, 1.0)]
    advance(state, 6 + MATURITY)
    assert apart.told[3:] == [("delayed", 6, False, 1.0)]
    assert plain.learned == [5, 6]
    assert state.judged == {}


@pytest.mark.parametrize("source", ["chargeback", "maturity", "bank"])
@pytest.mark.parametrize("alert", [False, True])
def test_what_no_analyst_said_is_no_verdict(source: str, alert: bool) -> None:
    """It is learned once, when it is known, alert or not."""
    state, apart, _ = both()
    CORE.take(state, outcomes([(5, 20, source, True)], alert=alert))
    advance(state, 1000)
    assert apart.told == [("delayed", 5, True, 1.0)]


def test_an_analyst_s_label_without_an_alert_is_no_verdict() -> None:
    """Verdicts are about alerts; of others it comes at maturity, like every delayed label."""
    state, apart, _ = both()
    CORE.take(state, outcomes([(5, 5 + MATURITY, "analyst", True)], alert=False))
    advance(state, 1000)
    assert apart.told == [("delayed", 5, True, 1.0)]


def test_a_contradicted_verdict_is_corrected_and_the_truth_learned_once() -> None:
    """The chargeback corrects the feedback learner; the delayed one never hears of the analyst's error."""
    state, apart, plain = both()
    CORE.take(state, outcomes([(5, 20, "analyst", False)]))
    CORE.take(state, outcomes([(5, 60, "chargeback", True)]))
    advance(state, 1000)
    assert apart.told == [("feedback", 5, False, 1.0), ("feedback", 5, True, 1.0), ("delayed", 5, True, 1.0)]
    assert plain.learned == [5, 5]


def test_an_analyst_who_changes_his_mind_corrects_himself() -> None:
    """Both verdicts are told, also when both take effect at the same time; the last one is learned."""
    for second in (20, 40):
        state, apart, _ = both()
        CORE.take(state, outcomes([(5, 20, "analyst", True), (5, second, "analyst", False)]))
        advance(state, 1000)
        assert [fraud for what, _, fraud, _ in apart.told if what == "feedback"] == [True, False]
        assert [fraud for what, _, fraud, _ in apart.told if what == "delayed"] == [False]


def test_a_reversal_after_maturity_is_learned_like_any_other() -> None:
    """The verdict has been learned as delayed by then; what is said now is new to that learner."""
    state, apart, _ = both()
    CORE.take(state, outcomes([(5, 20, "analyst", False)]))
    advance(state, 6 + MATURITY)
    CORE.take(state, outcomes([(5, 10 + MATURITY, "chargeback", True)]))
    advance(state, 1000)
    assert apart.told[1:] == [("delayed", 5, False, 1.0), ("delayed", 5, True, 1.0)]


def test_given_twice_it_is_learned_once() -> None:
    """A restarted label stage repeats outcomes: before maturity and after it."""
    state, apart, _ = both()
    for clock in (10, 50, 500):
        CORE.take(state, outcomes([(5, 20, "analyst", True)]))
        advance(state, clock)
    assert [what for what, *_ in apart.told] == ["feedback", "delayed"]


@pytest.mark.parametrize("stamp", [-(10**15), 10**15])
def test_an_odd_stamp_matures_with_what_came_beside_it(stamp: int) -> None:
    """Maturity is of the watermark at which the transaction was scored, whatever date it bears."""
    state, apart, _ = both()
    rows = outcomes([(5, 20, "analyst", True)])
    rows.arrays["event_time"] = np.array([stamp])
    CORE.take(state, rows)
    advance(state, 4 + MATURITY)
    assert [what for what, *_ in apart.told] == ["feedback"]
    advance(state, 5 + MATURITY)
    assert [what for what, *_ in apart.told] == ["feedback", "delayed"]


def test_a_verdict_and_its_contradiction_given_again_are_learned_once() -> None:
    """A restarted label stage repeats both, when both have been learned and the transaction has matured."""
    state, apart, plain = both()
    for clock in (60, 500, 1000):
        CORE.take(state, outcomes([(5, 20, "analyst", False), (5, 60, "chargeback", True)]))
        advance(state, clock)
    assert [(what, fraud) for what, _, fraud, _ in apart.told] == [
        ("feedback", False), ("feedback", True), ("delayed", True),
    ]  # fmt: skip
    assert plain.learned == [5, 5]


def test_verdicts_are_remembered_until_maturity(monkeypatch: pytest.MonkeyPatch) -> None:
    """However many others come between: a repeated one is no news, a reversal is known for one."""
    monkeypatch.setattr(learn_core, "REMEMBERED", 2)
    state, apart, _ = both()
    CORE.take(state, outcomes([(5, 20, "analyst", False)]))
    CORE.take(state, outcomes([(time, 21, "maturity", False) for time in range(10, 20)]))
    CORE.take(state, outcomes([(5, 22, "analyst", False), (5, 23, "chargeback", True)]))
    advance(state, 1000)
    assert [each for each in apart.told if each[1] == 5] == [
        ("feedback", 5, False, 1.0), ("feedback", 5, True, 1.0), ("delayed", 5, True, 1.0),
    ]  # fmt: skip


def test_verdicts_weigh_the_inverse_of_their_propensity() -> None:
    """With a control group an alert is left to analysts by a known chance; corrections weigh the same."""
    state, apart, _ = both()
    CORE.take(state, outcomes([(5, 20, "analyst", False), (5, 30, "chargeback", True)], propensity=0.8))
    CORE.take(state, outcomes([(6, 20, "analyst", True)], propensity=0.001))
    advance(state, 60)
    assert apart.told == [
        ("feedback", 5, False, 1.25),
        ("feedback", 6, True, 20.0),
        ("feedback", 5, True, 1.25),
    ]


def test_sampling_is_of_delayed_labels_only() -> None:
    """All verdicts are learned; of the genuine ones that have matured, one in four."""
    apart = Apart(keep_one_in=4)
    state = LearnState({"apart": apart})
    CORE.take(state, outcomes([(time, time + 5, "analyst", False) for time in range(1, 201)]))
    # Of those that turn out frauds all are learned.
    CORE.take(state, outcomes([(time, time + 50, "chargeback", True) for time in range(1, 41)]))
    advance(state, 1000)
    assert sum(what == "feedback" for what, *_ in apart.told) == 240
    delayed = [(time, fraud) for what, time, fraud, _ in apart.told if what == "delayed"]
    assert sum(fraud for _, fraud in delayed) == 40
    assert 20 < len(delayed) - 40 < 60


def test_a_correction_is_told_whatever_the_sampling() -> None:
    """An alert that was confirmed and turns out genuine is corrected, though no genuine one is sampled."""
    apart = Apart(keep_one_in=1_000_000)
    state = LearnState({"apart": apart})
    CORE.take(state, outcomes([(5, 20, "analyst", True)]))
    CORE.take(state, outcomes([(5, 60, "chargeback", False)]))
    advance(state, 1000)
    assert apart.told == [("feedback", 5, True, 1.0), ("feedback", 5, False, 1.0)]


def test_a_flood_of_verdicts_is_told_as_far_as_it_is_learned() -> None:
    """Verdicts beyond the bound on a source teach the learner of verdicts nothing, either."""
    core = LearnCore(LearnRules(1000, "0" * 16, maturity_ms=MATURITY, most_verdicts={"source": 3}))
    state, apart, plain = both()
    rows = outcomes([(time, 20, "analyst", True) for time in range(1, 9)])
    rows.arrays["card"] = rows.arrays["hop"] = np.ones(8, np.uint64)
    core.take(state, rows)
    for _ in core.advance(state, 1000):
        pass
    assert [what for what, *_ in apart.told] == ["feedback"] * 3 + ["delayed"] * 3
    assert len(plain.learned) == 3


def test_what_cannot_be_learned_is_refused_once_for_each_learner() -> None:
    """Features that are not finite stop nothing, as a verdict and as a delayed label."""
    state, _, _ = both()
    rows = outcomes([(5, 20, "analyst", True)])
    rows.arrays["features"] = np.array([[np.nan]])
    CORE.take(state, rows)
    advance(state, 1000)
    assert state.refused == {"apart": 2, "plain": 1}


times = st.integers(1, 60)
analysts = st.tuples(times, st.integers(1, 90), st.just("analyst"), st.booleans())
others = st.tuples(times, st.integers(1, 150), st.sampled_from(["chargeback", "maturity"]), st.booleans())


@hypothesis_settings(max_examples=80, deadline=None)
@given(st.lists(st.one_of(analysts, others), max_size=25), st.sets(st.integers(1, 250), max_size=12))
def test_versions_do_not_depend_on_how_the_clock_moves(given: list[Given], clocks: set[int]) -> None:
    """Many steps or one leap: each learner is told the same, and nothing is left over."""
    given = [(time, time + after, source, fraud) for time, after, source, fraud in given]
    whole = Apart()
    one = LearnState({"m": whole})
    CORE.take(one, outcomes(given))
    advance(one, 1000)
    other = LearnState({"m": Apart()})
    told: list[Told] = []
    previous = 0
    for clock in [*sorted(clocks), 1000]:
        due = [position for position, (_, at, *_) in enumerate(given) if previous < at <= clock]
        CORE.take(other, outcomes(given).take(np.array(due, np.intp)))
        advance(other, clock)
        previous = clock
    learner = other.learners["m"]
    assert isinstance(learner, Apart)
    told += learner.told
    assert told == whole.told
    assert (one.judged, one.waiting) == ({}, [])


def test_from_labels_and_feedback_to_the_two_learners() -> None:
    """Through the label join: a dismissed alert, its chargeback a day later, and what matures unheard of."""
    join = LabelJoin(LabelPolicy(maturity_ms=MATURITY, expiry_ms=1000))
    labels, apart = LabelState(), Apart()
    state = LearnState({"apart": apart})
    scored = Columns(
        {"score_partition": 0, "watermark": 12},
        {
            "event_time": np.array([10, 11, 12], np.int64),
            "watermark": np.array([10, 11, 12], np.int64),
            "transaction": np.array([10, 11, 12], np.uint64),
            "card": np.array([1, 2, 3], np.uint64),
            "hop": np.zeros(3, np.uint64),
            "features": np.array([[10.0], [11.0], [12.0]]),
            "champion": np.array([0.9, 0.9, 0.1]),
            "shadows": np.zeros((3, 0)),
            "arm": np.zeros(3, np.uint8),
            "alert": np.array([True, True, False]),
            "control": np.zeros(3, np.bool_),
            "propensity": np.ones(3),
        },
        {"transaction_id": ["t10", "t11", "t12"], "card_id": ["c1", "c2", "c3"]},
    )

    def take(found: list[Columns]) -> None:
        for each in found:
            CORE.take(state, each)

    take(join.scored(labels, LabelStep(), scored))
    feedback = [
        Feedback("a10", "t10", "c1", "dismissed", "ann", 20),
        Feedback("a11", "t11", "c2", "confirmed", "ann", 21),
    ]
    take(join.feedback(labels, LabelStep(), feedback))
    take(join.labels(labels, LabelStep(), [Label("t10", "c1", True, "chargeback", 50)]))
    take(join.labels(labels, LabelStep(), [Label("t10", "c1", True, "chargeback", 50)]))
    found, done = join.mature(labels, LabelStep(), scored, 0, 12)
    assert done
    take(found)
    advance(state, 1000)
    assert apart.told == [
        ("feedback", 10, False, 1.0),
        ("feedback", 11, True, 1.0),
        ("feedback", 10, True, 1.0),
        ("delayed", 10, True, 1.0),
        ("delayed", 11, True, 1.0),
        ("delayed", 12, False, 1.0),
    ]


def test_a_plain_learner_is_never_asked_to_learn_apart() -> None:
    """Where no learner learns apart nothing is kept of verdicts."""
    state = LearnState({"plain": LogisticLearner(("time",))})
    CORE.take(state, outcomes([(5, 20, "analyst", True)]))
    advance(state, 50)
    assert (state.judged, state.waiting, state.learners["plain"].n_learned) == ({}, [], 1)
