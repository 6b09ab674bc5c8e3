"""The state of the label join: its bounds, what expires, and that a checkpoint with deltas gives it."""

from __future__ import annotations

from typing import NoReturn

from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from streams.contract.records import Label
from streams.stages.label_core import MOST_VERDICTS, LabelJoin, LabelPolicy
from streams.stages.label_state import LabelState, LabelStep
from tests.streams.joined import EXPIRY, MATURITY, Joined


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
