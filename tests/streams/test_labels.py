"""The label join: when a transaction becomes a fraud or genuine, and that its deltas give its state."""

from __future__ import annotations

from typing import NoReturn

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from streams.contract.records import Feedback, Label
from streams.stages.alignment import FOREVER, NEVER
from streams.stages.columns import Columns
from streams.stages.label_core import MOST_VERDICTS, LabelJoin, LabelPolicy
from streams.stages.label_state import LabelState, LabelStep, encode_step

MATURITY, EXPIRY = 100, 1000
Outcome = tuple[str, bool, int, str]


class Joined:
    """A join with its state, and a second state that is only told the deltas."""

    def __init__(self) -> None:
        self.join = LabelJoin(LabelPolicy(MATURITY, EXPIRY))
        self.state, self.follower = LabelState(), LabelState()
        self.log: list[tuple[int, Columns]] = []
        self.steps: list[bytes] = []
        self.position = 0
        #: by transaction with an outcome, when it was labelled
        self.labelled_at: dict[str, int] = {}

    def score(
        self, rows: dict[str, tuple[int, bool]], event_times: dict[str, int] | None = None
    ) -> list[Outcome]:
        """Rows by transaction: the watermark each was scored at and whether it was alerted."""
        watermarks = np.array([watermark for watermark, _ in rows.values()], np.int64)
        times = [(event_times or {}).get(name, watermark) for name, (watermark, _) in rows.items()]
        n = len(rows)
        message = Columns(
            {"score_partition": 0, "watermark": int(watermarks[-1]), "models": []},
            {
                "event_time": np.array(times, np.int64),
                "watermark": watermarks,
                "alert": np.array([alert for _, alert in rows.values()]),
                "control": np.zeros(n, np.bool_),
                "propensity": np.ones(n),
                "transaction": np.arange(n, dtype=np.uint64),
                "card": np.zeros(n, np.uint64),
                "hop": np.zeros(n, np.uint64),
                "features": watermarks[:, None].astype(np.float64),
                "champion": np.zeros(n),
                "arm": np.zeros(n, np.bool_),
                "shadows": np.zeros((n, 0)),
            },
            {"transaction_id": list(rows), "card_id": ["c"] * n},
        )
        self.log.append((len(self.log), message))
        step = LabelStep()
        return self._done(step, self.join.scored(self.state, step, message))

    def label(
        self,
        name: str,
        fraud: bool,
        at: int,
        source: str = "chargeback",
        revision: int = 0,
        card: str = "",
        believable: int = FOREVER,
    ) -> list[Outcome]:
        """A label; every transaction is of a card of its own unless said otherwise."""
        step = LabelStep()
        label = Label(name, card or f"card of {name}", fraud, source, at, revision)
        return self._done(step, self.join.labels(self.state, step, [label], believable=believable))

    def feedback(self, name: str, action: str, at: int) -> list[Outcome]:
        step = LabelStep()
        item = Feedback("a", name, "c", action, "x", at)  # type: ignore[arg-type]
        return self._done(step, self.join.feedback(self.state, step, [item]))

    def mature(self, ripe: int) -> list[Outcome]:
        """Everything scored at a watermark up to `ripe`."""
        step, outcomes = LabelStep(), []
        while self.position < len(self.log):
            offset, rows = self.log[self.position]
            given_, done = self.join.mature(self.state, step, rows, offset, ripe)
            outcomes += given_
            if not done:
                break
            self.position += 1
        return self._done(step, outcomes)

    def expire(self) -> int:
        step = LabelStep()
        count = self.join.expire(self.state, step)
        self._done(step, [])
        return count

    def _done(self, step: LabelStep, outcomes: list[Columns]) -> list[Outcome]:
        self.steps.append(encode_step(step))
        self.follower.apply(self.steps[-1])
        reloaded = LabelState()
        for bucket in range(LabelState.buckets):
            dumped = self.state.dump(bucket)
            assert self.follower.dump(bucket) == dumped
            reloaded.load(bucket, dumped)
        for bucket in range(LabelState.buckets):
            assert reloaded.dump(bucket) == self.state.dump(bucket)
        for name in ("verdict", "alert"):
            expected = getattr(self.state, f"oldest_{name}")()
            assert getattr(self.follower, f"oldest_{name}")() == expected
            assert getattr(reloaded, f"oldest_{name}")() == expected
        for rows in outcomes:
            given_at = rows.ints("labelled_at").tolist()
            self.labelled_at |= dict(zip(rows.strings["transaction_id"], given_at, strict=True))
        return [
            (name, bool(fraud), int(at), source)
            for rows in outcomes
            for name, fraud, at, source in zip(
                rows.strings["transaction_id"], rows.bools("fraud"), rows.ints("known_at"),
                rows.strings["source"], strict=True,
            )
        ]  # fmt: skip


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


def test_what_is_not_ripe_is_no_change() -> None:
    """Asked again, an unripe head, a watermark that stands and a label read twice leave nothing to save."""
    joined = Joined()
    joined.score({"s": (5, False), "t": (10, False)})
    joined.mature(5)
    joined.label("t", True, 50)
    offset, rows = joined.log[0]
    step = LabelStep()
    assert joined.join.mature(joined.state, step, rows, offset, 5) == ([], False)
    joined.join.scored(joined.state, step, rows)
    joined.join.labels(joined.state, step, [Label("t", "card of t", True, "chargeback", 50, 0)])
    assert joined.join.expire(joined.state, step) == 0
    assert step == LabelStep()


class NoScan(dict[str, object]):
    """A dictionary that may be asked for names, not for all of them."""

    def __iter__(self) -> NoReturn:
        raise AssertionError("looked at everything")

    keys = values = items = __iter__


def test_beyond_the_cap_the_oldest_go_and_are_counted() -> None:
    """Of verdicts the one given first, of alerts the one scored first, whatever the order they came in."""
    joined = Joined()
    joined.join = LabelJoin(LabelPolicy(MATURITY, EXPIRY, max_held=3))
    for name, at in (("c", 30), ("a", 10), ("d", 40), ("b", 20)):
        joined.label(name, True, at, source="bank")
    joined.label("a", True, 35, source="bank", revision=1)
    assert joined.expire() == 1
    assert set(joined.state.verdicts) == {"c", "a", "d"}
    assert joined.join.counts["bank", "dropped"] == 1
    joined.score({name: (at, True) for at, name in enumerate("stuv", 50)})
    assert joined.expire() == 0
    assert set(joined.state.alerted) == {"t", "u", "v"}
    assert joined.join.released == 1


def test_labels_stamped_far_ahead_do_not_drive_out_the_others() -> None:
    """They count as told when they came: the cap takes them in that order, and they expire."""
    joined = Joined()
    joined.join = LabelJoin(LabelPolicy(MATURITY, EXPIRY, max_held=3))
    joined.score({"x": (10, False)})
    for number in range(4):
        joined.label(f"far {number}", True, 10**12 + number, believable=10 + number)
    joined.label("near", True, 20, believable=25)
    joined.expire()
    assert set(joined.state.verdicts) == {"far 2", "far 3", "near"}
    joined.score({"y": (30 + EXPIRY, False)})
    joined.expire()
    assert joined.state.verdicts == {}


def test_an_alert_that_was_released_is_decided_at_maturity() -> None:
    """What is said of it afterwards waits like a verdict on any other transaction."""
    joined = Joined()
    joined.join = LabelJoin(LabelPolicy(MATURITY, EXPIRY, max_held=1))
    joined.score({"t": (10, True), "u": (11, True)})
    joined.expire()
    assert joined.label("t", True, 50) == []
    assert joined.label("u", True, 50) == [("u", True, 50, "chargeback")]
    assert joined.mature(11) == [("t", True, 110, "chargeback")]


def test_expiry_looks_at_what_is_due_only() -> None:
    """Whether or not something is due, the rest of what is held is not looked at."""
    joined = Joined()
    for number in range(50):
        joined.label(f"t{number}", True, 50 + number)
    joined.score({"x": (50 + EXPIRY + 2, False)})
    held, joined.state.verdicts = joined.state.verdicts, NoScan(joined.state.verdicts)  # type: ignore[assignment]
    assert joined.join.expire(joined.state, LabelStep()) == 2
    assert joined.join.expire(joined.state, LabelStep()) == 0
    assert len(joined.state.verdicts) == len(held) - 2


def test_changes_of_mind_about_one_transaction_are_bounded() -> None:
    """However often it is labelled, a few verdicts are kept, and no more times to wait for."""
    joined = Joined()
    for revision in range(100):
        joined.label("t", True, 50 + revision, revision=revision)
        joined.label("u", True, 50, revision=revision)
    assert len(joined.state.verdicts["t"]) == MOST_VERDICTS
    assert len(joined.state.verdicts["u"]) == 1
    assert len(joined.state._unscored_times) == MOST_VERDICTS + 1
    assert joined.join.counts["chargeback", "dropped"] == 100 - MOST_VERDICTS


moments = st.tuples(
    st.sampled_from(["score", "label", "mature", "expire", "dump"]), st.integers(0, 40), st.integers(0, 11),
    st.booleans(), st.integers(0, 2),
)  # fmt: skip


@hypothesis_settings(max_examples=150, deadline=None)
@given(st.lists(moments, max_size=40))
def test_a_checkpoint_taken_piece_by_piece_gives_the_state(
    story: list[tuple[str, int, int, bool, int]],
) -> None:
    """Each bucket is of another moment, and of the deltas only those since the first are left."""
    joined = Joined()
    joined.join = LabelJoin(LabelPolicy(MATURITY, EXPIRY, max_held=4))
    again, todo = LabelState(), list(range(LabelState.buckets))
    clock, begun = 0, False
    for kind, delay, number, fraud, revision in [*story, *[("dump", 0, 11, False, 0)] * 2]:
        clock += delay
        if kind == "score":
            joined.score({f"t{number}": (clock, fraud)})
        elif kind == "label":
            joined.label(f"t{number}", fraud, clock, revision=revision)
        elif kind == "mature":
            joined.mature(clock - MATURITY)
        elif kind == "expire":
            joined.expire()
        else:
            begun = True
            for bucket in todo[:number]:
                again.load(bucket, joined.state.dump(bucket))
            todo = todo[number:]
            continue
        if begun:
            again.apply(joined.steps[-1])
    for name in ("verdicts", "alerted", "scored", "undecided", "late", "labels_until"):
        assert getattr(again, name) == getattr(joined.state, name)
    assert again.oldest_verdict() == joined.state.oldest_verdict()
    assert again.oldest_alert() == joined.state.oldest_alert()


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
