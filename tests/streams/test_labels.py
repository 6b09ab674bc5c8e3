"""The label join: when a transaction becomes a fraud or genuine, whatever the order of what is read."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from streams.contract.records import Label
from streams.stages.alignment import NEVER
from streams.stages.label_core import LabelJoin, LabelPolicy
from streams.stages.label_state import LabelState, LabelStep
from tests.streams.joined import EXPIRY, MATURITY, Joined, Outcome


@pytest.mark.parametrize("alert", [False, True])
def test_contradicting_labels_are_counted(alert: bool) -> None:
    """By who contradicts, whether it counts for more or less, before its transaction has come and after;
    what says the same does not.
    """
    joined = Joined()
    joined.label("early", True, 9)
    joined.label("early", False, 10, revision=1)
    joined.score({"t": (10, alert)})
    joined.feedback("t", "dismissed", 11)
    joined.feedback("t", "dismissed", 12)
    assert joined.join.contradictions == {"chargeback": 1}
    joined.label("t", True, 13)
    joined.label("t", True, 13)
    assert joined.join.contradictions == {"chargeback": 2}
    joined.feedback("t", "dismissed", 14)
    joined.feedback("t", "confirmed", 15)
    assert joined.join.contradictions == {"chargeback": 2, "analyst": 1}


def test_without_a_label_a_transaction_is_genuine_at_maturity() -> None:
    """Nothing is said before maturity; then it is genuine, known at that time, once."""
    joined = Joined()
    assert joined.score({"t": (10, False)}) == []
    assert joined.mature(9) == []
    assert joined.mature(10) == [("t", False, 10 + MATURITY, "maturity")]
    assert joined.mature(500) == []


@pytest.mark.parametrize("label_first", [True, False])
def test_a_label_by_maturity_makes_it_a_fraud_then(label_first: bool) -> None:
    """Whether the label or the transaction comes first, it counts from maturity on."""
    joined = Joined()
    if label_first:
        assert joined.label("t", True, 50) == []
    joined.score({"t": (10, False), "u": (11, False)})
    if not label_first:
        assert joined.label("t", True, 50) == []
    assert joined.mature(20) == [("t", True, 110, "chargeback"), ("u", False, 111, "maturity")]
    assert joined.state.verdicts == {}


def test_an_outcome_says_when_its_label_was_given() -> None:
    """However much later it takes effect; without a label it is the maturity."""
    joined = Joined()
    joined.join = LabelJoin(LabelPolicy(MATURITY, EXPIRY, soonest_ms=20))
    joined.score({"t": (10, False), "u": (11, False), "a": (12, True)})
    joined.label("t", True, 50)
    joined.label("a", True, 13)
    joined.mature(20)
    assert joined.labelled_at == {"t": 50, "u": 111, "a": 13}


def test_a_label_after_maturity_changes_nothing_whenever_it_is_read() -> None:
    """A label given after maturity is not used, also if a slow reading has it in hand by then."""
    for in_hand in (True, False):
        joined = Joined()
        joined.score({"t": (10, False), "a": (10, True)})
        outcomes = []
        for name in "ta":
            if in_hand:
                outcomes += joined.label(name, True, 111)
        outcomes += joined.mature(10)
        if not in_hand:
            outcomes += joined.label("t", True, 111) + joined.label("a", True, 111)
        assert outcomes == [("t", False, 110, "maturity"), ("a", False, 110, "maturity")]
        joined.score({"z": (112 + EXPIRY, False)})
        assert joined.expire() == (0 if in_hand else 2)
        assert joined.state.verdicts == {}
        assert joined.join.counts["chargeback", "too_late" if in_hand else "unmatched"] == 2


def test_feedback_on_an_alert_is_an_outcome_at_once() -> None:
    """It is known when the analyst acts, and maturity does not say it again."""
    joined = Joined()
    joined.score({"t": (10, True)})
    assert joined.feedback("t", "opened", 20) == []
    assert joined.feedback("t", "confirmed", 30) == [("t", True, 30, "analyst")]
    assert joined.feedback("t", "confirmed", 31) == []
    assert joined.mature(10) == []
    assert joined.state.alerted == {}


def test_a_verdict_takes_effect_no_sooner_than_stated() -> None:
    """When it was given, but not within `soonest_ms` of its transaction, wherever scoring stands."""
    joined = Joined()
    joined.join = LabelJoin(LabelPolicy(MATURITY, EXPIRY, soonest_ms=20))
    joined.score({"t": (10, True), "u": (12, True), "v": (60, False)})
    assert joined.label("t", True, 11) == [("t", True, 30, "chargeback")]
    assert joined.label("u", True, 40) == [("u", True, 40, "chargeback")]


def test_scoring_is_told_how_far_it_may_go() -> None:
    """To before the first label on a transaction not yet scored, the next label, the next decision."""
    joined = Joined()
    joined.join = LabelJoin(LabelPolicy(MATURITY, EXPIRY, soonest_ms=20))

    def told(*, idle: bool = False) -> int:
        return joined.join.told(joined.state, 0, labels_idle=idle)

    joined.score({"t": (10, False)})
    joined.mature(0)
    joined.label("later", True, 70)
    assert told(idle=True) == 69
    joined.label("x", True, 80)
    assert told() == told(idle=True) == 69
    joined.label("y", True, 80)
    joined.score({"u": (55, False)})
    assert told() == 75
    joined.score({"later": (56, True), "x": (57, False), "y": (57, False)})
    assert told() == 79
    assert told(idle=True) == 9 + MATURITY


def test_contradictions_follow_authority_revision_and_time() -> None:
    """A chargeback overrules an analyst, a revision what it revises; weaker verdicts do nothing."""
    joined = Joined()
    joined.score({"t": (10, True)})
    assert joined.feedback("t", "dismissed", 20) == [("t", False, 20, "analyst")]
    assert joined.label("t", True, 30) == [("t", True, 30, "chargeback")]
    assert joined.feedback("t", "dismissed", 40) == []
    assert joined.label("t", True, 30) == []
    assert joined.label("t", False, 25, revision=1) == [("t", False, 25, "chargeback")]
    assert joined.label("t", True, 50) == []
    assert joined.mature(10) == []
    assert joined.join.counts["chargeback", "revised"] == 2


def test_a_stamp_from_the_future_holds_up_nothing() -> None:
    """A row stamped years ahead matures with the rows scored beside it."""
    joined = Joined()
    joined.score({"odd": (10, False), "t": (11, False)}, {"odd": 10**12})
    assert joined.mature(11) == [("odd", False, 110, "maturity"), ("t", False, 111, "maturity")]


def test_labels_whose_transaction_never_comes_expire() -> None:
    """They leave the state once scoring is past their expiry."""
    joined = Joined()
    joined.label("never", True, 50)
    joined.score({"t": (50 + EXPIRY, False)})
    assert joined.expire() == 0
    joined.score({"u": (51 + EXPIRY, False)})
    assert joined.expire() == 1
    assert joined.state.verdicts == {}


@st.composite
def stories(draw: st.DrawFn) -> list[tuple[int, str, bool, int]]:
    """Transactions 1 apart; for some a label at some time."""
    return [
        (
            position * draw(st.integers(0, 3)) + position,
            f"t{position}",
            draw(st.booleans()),
            draw(st.integers(-1, 150)),
        )
        for position in range(draw(st.integers(1, 12)))
    ]


@hypothesis_settings(max_examples=100, deadline=None)
@given(stories(), st.integers(1, 5))
def test_every_transaction_ends_as_its_labels_by_maturity_say(
    story: list[tuple[int, str, bool, int]], cut: int
) -> None:
    """The last outcome of each is fraud exactly if it was labelled by maturity, however rows are cut."""
    joined = Joined()
    outcomes: list[Outcome] = []
    story = sorted(story)
    for start in range(0, len(story), cut):
        outcomes += joined.score({name: (at, alert) for at, name, alert, _ in story[start : start + cut]})
    for label_at, name in sorted((at + delay, name) for at, name, _, delay in story if delay >= 0):
        outcomes += joined.label(name, True, label_at)
        outcomes += joined.mature(label_at - MATURITY - 1)
    outcomes += joined.mature(10**6)
    final = {name: fraud for name, fraud, _, _ in outcomes}
    assert final == {name: 0 <= delay <= MATURITY for _, name, _, delay in story}


@pytest.mark.parametrize("alert", [True, False])
@pytest.mark.parametrize("ahead", [True, False])
def test_a_verdict_after_maturity_replaces_none_in_time(alert: bool, ahead: bool) -> None:
    """A report and its reversal after maturity leave a fraud, also if both are read before the scoring."""
    joined = Joined()
    outcomes: list[Outcome] = []
    if not ahead:
        outcomes += joined.score({"t": (10, alert)})
    outcomes += joined.label("t", True, 50) + joined.label("t", False, 200, revision=1)
    if ahead:
        outcomes += joined.score({"t": (10, alert)})
    outcomes += joined.mature(10)
    assert outcomes == [("t", True, 50 if alert else 110, "chargeback")]
    assert joined.join.counts["chargeback", "too_late"] == 1
    assert joined.join.counts["chargeback", "unmatched"] == 0
    assert joined.state.verdicts == {}


@pytest.mark.parametrize("ahead", [True, False])
def test_held_verdicts_give_an_alert_all_that_was_said_of_it(ahead: bool) -> None:
    """Read before the alert or after, each change of mind by maturity is an outcome of its time."""
    joined = Joined()
    outcomes: list[Outcome] = []
    if not ahead:
        outcomes += joined.score({"t": (10, True), "u": (10, True)})
    outcomes += joined.feedback("t", "dismissed", 20) + joined.label("t", True, 60)
    outcomes += joined.label("t", False, 111, revision=1) + joined.label("u", True, 111)
    if ahead:
        outcomes += joined.score({"t": (10, True), "u": (10, True)})
    assert outcomes == [("t", False, 20, "analyst"), ("t", True, 60, "chargeback")]
    assert joined.mature(10) == [("u", False, 110, "maturity")]


verdicts = st.lists(
    st.tuples(
        st.booleans(), st.integers(90, 130), st.sampled_from(["analyst", "chargeback", "bank"]),
        st.integers(0, 1),
    ),
    max_size=6,
)  # fmt: skip


@hypothesis_settings(max_examples=300, deadline=None)
@given(verdicts, st.booleans(), st.data())
def test_the_order_in_which_verdicts_are_read_decides_nothing(
    said: list[tuple[bool, int, str, int]], alert: bool, data: st.DataObject
) -> None:
    """Any interleaving of labels and scoring ends as the highest rank given by maturity says."""
    joined = Joined()
    outcomes: list[Outcome] = []
    order = data.draw(st.permutations([*said, None]))
    for item in order:
        if item is None:
            outcomes += joined.score({"t": (10, alert)})
        else:
            fraud, at, source, revision = item
            outcomes += joined.label("t", fraud, at, source, revision)
    outcomes += joined.mature(10)
    authority = ["analyst", "chargeback", "bank"]
    timely = [(authority.index(source), rev, at, fraud) for fraud, at, source, rev in said if at <= 110]
    expected = max(timely)[3] if timely else False
    assert outcomes[-1][1] == expected
    if not alert:
        source = authority[max(timely)[0]] if timely else "maturity"
        assert outcomes == [("t", expected, 110, source)]
    assert joined.state.verdicts == {}


def test_nothing_is_decided_before_it_is_known_for_an_alert() -> None:
    """Of a history that is replayed labels are there long before, and the late reading may be ahead."""
    joined = Joined()
    joined.score({"a": (10, False)})
    joined.label("b", True, 12)
    joined.label("z", False, 12 + 5 * MATURITY)
    assert joined.join.ripe(joined.state, 0, labels_idle=False) == 10
    assert joined.join.ripe(joined.state, 0, labels_idle=True) == 10
    assert joined.join.ripe(joined.state, 1, labels_idle=False) == NEVER
    found = joined.score({"b": (11, True)})
    assert [(name, at) for name, _, at, *_ in found] == [("b", 12)]
    assert joined.join.ripe(joined.state, 0, labels_idle=False) == 11


def test_rows_that_are_sent_again_are_decided_once() -> None:
    """After a crash of the score stage, in other messages: the label that was used up with the first decides.
    It is so after a restart, too, and what the repeated alert has left behind goes.
    """
    joined = Joined()
    joined.score({"a": (10, False), "b": (11, False)}, settled=-1)
    joined.label("b", True, 12)
    assert [(name, fraud) for name, fraud, *_ in joined.mature(11)] == [("a", False), ("b", True)]
    joined.score({"b": (11, True), "c": (12, False)}, settled=-1, first=1)
    assert "b" in joined.state.alerted
    joined.state = LabelState()
    for bucket in range(LabelState.buckets):
        joined.state.load(bucket, joined.follower.dump(bucket))
    assert [(name, fraud) for name, fraud, *_ in joined.mature(12)] == [("c", False)]
    assert "b" not in joined.state.alerted
    joined.score({"d": (13, False)}, settled=2, first=3)
    joined.mature(13)
    assert [len(offsets) for _, offsets in joined.state.decided.dump().values()] == [8]


def test_outcomes_say_whether_they_have_matured() -> None:
    """Those decided by time; a verdict on an alert has come before."""
    joined = Joined()
    joined.score({"a": (10, False), "b": (11, False)})
    joined.score({"c": (12, False), "d": (13, True)})
    found: list[bool] = []
    for offset, rows in joined.log:
        outcomes, _done = joined.join.mature(joined.state, LabelStep(), rows, offset, 12)
        found += [matured for each in outcomes for matured in each.bools("matured").tolist()]
    verdict = Label("d", "card", True, "analyst", 14, 0)
    (given,) = joined.join.labels(joined.state, LabelStep(), [verdict])
    assert found == [True, True, True]
    assert given.bools("matured").tolist() == [False]
