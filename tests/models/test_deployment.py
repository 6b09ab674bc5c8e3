"""Deployment: the champion's result stands whatever the shadows do, and every row gets a score."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import ClassVar, cast

import numpy as np
import pytest
from numpy.typing import NDArray

from models.arms import in_canary
from models.deployment import Deployment, Shadow
from models.scorers.base import FrozenScorer
from models.scorers.rules import Rule, RulesScorer
from models.snapshot import Snapshot, make
from models.snapshot_document import SpecMismatchError

Floats = NDArray[np.float64]
SPEC = "spec"
X = np.random.default_rng(0).normal(size=(64, 2))


class Clock:
    """Seconds that pass only when told."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


@dataclass
class Scripted:
    """A scorer that does what a test says; a model gone wrong in production cannot be had otherwise."""

    kind: ClassVar[str] = "scripted"
    act: Callable[[Floats], Floats]
    n_features: int = 2

    def score(self, x: Floats) -> Floats:
        return self.act(x)


def snapshot(act: Callable[[Floats], Floats], name: str = "model", version: int = 1) -> Snapshot:
    return replace(rules(name, version), scorer=cast("FrozenScorer", Scripted(act)))


def rules(name: str = "rules", version: int = 0, odds: float = 1.0, spec: str = SPEC) -> Snapshot:
    scorer = RulesScorer.build(["a", "b"], [Rule("a", 0.0, odds)])
    return make(scorer, name=name, version=version, spec_digest=spec)


def deployment(*shadows: Snapshot, champion: Snapshot | None = None) -> Deployment:
    return Deployment(
        SPEC, champion or rules("champion", 1, 2.0), rules(), shadows=[Shadow(s) for s in shadows]
    )


def raises(x: Floats) -> Floats:
    raise RuntimeError("broken")


def writes(x: Floats) -> Floats:
    x[:] = 0.0
    return np.zeros(len(x))


def unlocks(x: Floats) -> Floats:
    x.flags.writeable = True
    x[:] = 0.0
    return np.zeros(len(x))


FAULTS: dict[str, Callable[[Floats], Floats]] = {
    "raises": raises,
    "writes to its input": writes,
    "too short": lambda x: np.zeros(len(x) - 1),
    "two columns": lambda x: np.zeros((len(x), 2)),
    "one NaN": lambda x: np.where(np.arange(len(x)) == 3, np.nan, 0.5),
    "infinite": lambda x: np.full(len(x), np.inf),
    "negative": lambda x: np.full(len(x), -0.001),
    "above one": lambda x: np.full(len(x), 1.001),
    "integers": lambda x: cast("Floats", np.zeros(len(x), np.int64)),
    "nothing": lambda x: cast("Floats", None),
    "true": lambda x: cast("Floats", np.ones(len(x), np.bool_)),
    "single precision": lambda x: cast("Floats", np.full(len(x), 0.5, np.float32)),
    "objects": lambda x: cast("Floats", np.full(len(x), 0.5, object)),
    "one number": lambda x: cast("Floats", 0.5),
    "a list": lambda x: cast("Floats", [0.5] * len(x)),
    "text": lambda x: cast("Floats", "0.5"),
}


def test_champion_and_shadows_side_by_side() -> None:
    """Each model's scores come back in its place, with name and version of the champion."""
    one, two = rules("one", 1, 0.5), rules("two", 4, -0.5)
    scored = deployment(one, two).score(X, Clock())
    np.testing.assert_array_equal(scored.champion, rules("champion", 1, 2.0).scorer.score(X))
    np.testing.assert_array_equal(scored.shadows, [one.scorer.score(X), two.scorer.score(X)])
    assert scored.model == ("champion", 1)
    assert not scored.stand_in


@pytest.mark.parametrize("fault", FAULTS)
def test_a_bad_shadow_is_switched_off(fault: str) -> None:
    """Whatever a shadow does, the other models score as without it; it is counted, and off with a reason."""
    x = X.copy()
    good = rules("good", 1, 0.5)
    d = deployment(snapshot(FAULTS[fault], "bad"), good)
    alone = deployment().score(X, Clock())
    for _ in range(2):
        scored = d.score(x, Clock())
        np.testing.assert_array_equal(scored.champion, alone.champion)
        assert np.isnan(scored.shadows[0]).all()
        np.testing.assert_array_equal(scored.shadows[1], good.scorer.score(X))
    np.testing.assert_array_equal(x, X)
    assert d.shadows[0].failures == 1
    assert d.shadows[0].off
    assert d.shadows[1].off is None


@pytest.mark.parametrize("fault", [f for f in FAULTS if f != "writes to its input"])
def test_a_bad_champion_is_answered_for(fault: str) -> None:
    """When the champion fails the stand-in's scores come with a flag, and the champion is tried again."""
    d = deployment(rules("shadow", 1), champion=snapshot(FAULTS[fault], "champion"))
    for failures in (1, 2):
        scored = d.score(X, Clock())
        np.testing.assert_array_equal(scored.champion, d.stand_in.scorer.score(X))
        assert scored.stand_in
        assert scored.model == ("rules", 0)
        assert np.isfinite(scored.shadows).all()
        assert d.champion_failures == failures
    assert d.last_champion_error


def test_a_champion_that_fails_on_some_rows_scores_the_other_batches() -> None:
    """The stand-in answers for the batches in which it fails, with a flag, and for no other one."""
    bad = 40

    def act(x: Floats) -> Floats:
        if (x == X[bad]).all(axis=1).any():
            raise RuntimeError("this merchant")
        return np.full(len(x), 0.5)

    d = deployment(champion=snapshot(act, "champion"))
    for start in (*range(0, 64, 8), *range(0, 64, 8)):
        scored = d.score(X[start : start + 8], Clock())
        assert scored.stand_in == (start <= bad < start + 8)
        expected = d.stand_in.scorer.score(X[start : start + 8]) if scored.stand_in else np.full(8, 0.5)
        np.testing.assert_array_equal(scored.decided, expected)
    assert d.champion_failures == 2


def test_nothing_is_scored_where_the_stand_in_fails_as_well() -> None:
    """The batch is not finished: it is read again, not passed on without scores."""
    d = deployment(champion=snapshot(raises, "champion"))
    d.stand_in = snapshot(FAULTS["one NaN"], "rules", 0)
    with pytest.raises(ValueError, match="no probabilities"):
        d.score(X, Clock())


def test_a_shadow_cannot_reach_the_callers_matrix() -> None:
    """A read-only matrix stays so: a shadow that tries to write to it all the same is switched off."""
    x = X.copy()
    x.flags.writeable = False
    good = rules("good", 1)
    scored = deployment(snapshot(unlocks, "bad"), good).score(x, Clock())
    np.testing.assert_array_equal(scored.shadows[1], good.scorer.score(X))
    np.testing.assert_array_equal(x, X)


class TestTimeBudget:
    def slow(self, clock: Clock, seconds: float) -> Snapshot:
        def act(x: Floats) -> Floats:
            clock.now += seconds
            return np.full(len(x), 0.5)

        return snapshot(act, "slow")

    def test_three_slow_batches_switch_it_off(self) -> None:
        """A shadow over its budget keeps its scores until it has struck out, then is off."""
        clock = Clock()
        d = deployment(self.slow(clock, 64 * 101e-6))
        for strike in (1, 2, 3):
            scored = d.score(X, clock)
            assert (scored.shadows == 0.5).all()
            assert scored.seconds[1] == pytest.approx(64 * 101e-6)
            assert d.shadows[0].strikes == strike
        assert d.shadows[0].off == "slow: 101 µs a row"
        assert np.isnan(d.score(X, clock).shadows).all()
        assert d.shadows[0].failures == 0

    def test_one_batch_in_time_clears_the_strikes(self) -> None:
        """Strikes must be in a row: a pause of the machine now and then is not the shadow's fault."""
        clock = Clock()
        d = deployment(self.slow(clock, 64 * 101e-6))
        for _ in range(2):
            d.score(X, clock)
        d.shadows[0].snapshot = self.slow(clock, 64 * 99e-6)
        d.score(X, clock)
        assert d.shadows[0].strikes == 0

    def test_small_batches_are_not_timed(self) -> None:
        """A batch of a few rows is all overhead and gives no strike."""
        clock = Clock()
        d = deployment(self.slow(clock, 1.0))
        for _ in range(5):
            d.score(X[:31], clock)
        assert d.shadows[0].off is None

    def test_the_champions_time_is_not_the_shadows(self) -> None:
        """A slow champion gives a shadow no strike."""
        clock = Clock()
        d = deployment(rules("shadow", 1), champion=self.slow(clock, 10.0))
        for _ in range(5):
            scored = d.score(X, clock)
        assert scored.seconds == (10.0, 0.0)
        assert d.shadows[0].strikes == 0


class TestChanges:
    def test_swap_goes_to_every_slot_of_that_name(self) -> None:
        """A newer version takes the slots of its name; older, equal and unknown ones change nothing."""
        d = deployment(rules("a", 1), rules("b", 5), champion=rules("a", 1))
        assert d.swap(rules("a", 2)) == ["champion", "shadow"]
        assert d.models() == [("champion", "a", 2), ("shadow", "a", 2), ("shadow", "b", 5)]
        assert d.swap(rules("b", 5)) == []
        assert d.swap(rules("b", 4)) == []
        assert d.swap(rules("c", 9)) == []

    def test_a_new_version_is_a_fresh_start(self) -> None:
        """A shadow that was switched off runs again with its next version."""
        d = deployment(snapshot(raises, "a"))
        d.score(X, Clock())
        assert d.shadows[0].off
        d.swap(rules("a", 2))
        assert np.isfinite(d.score(X, Clock()).shadows).all()

    def test_another_spec_is_refused(self) -> None:
        """A model of another feature spec gets into no slot, and nothing changes."""
        d = deployment(rules("a", 1))
        alien = rules("a", 9, spec="another")
        for change in (d.swap, d.promote, d.add_shadow):
            with pytest.raises(SpecMismatchError, match="another"):
                change(alien)
        assert d.models() == [("champion", "champion", 1), ("shadow", "a", 1)]
        with pytest.raises(SpecMismatchError):
            deployment(alien)

    def test_shadows_come_and_go(self) -> None:
        """Adding a shadow of a name that is there replaces it; removing says whether there was one."""
        d = deployment()
        assert d.score(X, Clock()).shadows.shape == (0, len(X))
        d.add_shadow(rules("a", 1))
        d.add_shadow(rules("a", 2))
        assert d.models()[1:] == [("shadow", "a", 2)]
        assert d.remove_shadow("a")
        assert not d.remove_shadow("a")

    def test_promote(self) -> None:
        """A promoted model is champion from the next batch on, also a lower version (a rollback)."""
        d = deployment()
        d.promote(rules("champion", 0, -1.0))
        assert d.score(X, Clock()).model == ("champion", 0)


def test_not_finite_features_are_scored_as_zero() -> None:
    """A row with NaN or infinity still gets a score, and is counted; the caller's matrix keeps it."""
    x = X.copy()
    x[1, 0], x[2, 1], x[2, 0] = np.nan, np.inf, -np.inf
    d = deployment()
    scored = d.score(x, Clock())
    expected = d.champion.scorer.score(np.where(np.isfinite(x), x, 0.0))
    np.testing.assert_array_equal(scored.champion, expected)
    assert (scored.stand_in, d.rows_not_finite) == (False, 2)
    assert np.isnan(x[1, 0])


def test_an_empty_batch_is_no_failure() -> None:
    """No rows, no scores, nothing counted."""
    d = deployment(rules("a", 1))
    scored = d.score(X[:0], Clock())
    assert scored.champion.shape == (0,)
    assert scored.shadows.shape == (1, 0)
    assert not scored.stand_in


CARDS = np.arange(64, dtype=np.uint64)


def with_canary(canary: Snapshot, *shadows: Snapshot, percent: float = 50.0) -> Deployment:
    made = deployment()
    made.install(made.champion, shadows, canary, canary_name="new", percent=percent)
    return made


def test_a_canary_decides_for_its_cards_only() -> None:
    """Champion, canary and shadows score every row; what counts is the canary's where its cards are."""
    new, beside = rules("new", 3, -1.0), rules("beside", 1, 0.5)
    scored = with_canary(new, beside).score(X, Clock(), CARDS)
    arm = in_canary(CARDS, "new", 50.0)
    assert 0 < arm.sum() < 64
    np.testing.assert_array_equal(scored.arm, arm)
    np.testing.assert_array_equal(scored.champion, rules("champion", 1, 2.0).scorer.score(X))
    np.testing.assert_array_equal(scored.shadows, [new.scorer.score(X), beside.scorer.score(X)])
    np.testing.assert_array_equal(scored.decided, np.where(arm, scored.shadows[0], scored.champion))


@pytest.mark.parametrize("fault", FAULTS)
def test_the_champion_answers_for_a_canary_that_fails(fault: str) -> None:
    """Every row is scored, none by a number that is no probability, and the rows it failed are counted."""
    made = with_canary(snapshot(FAULTS[fault], "new"), rules("beside", 1), percent=100.0)
    alone = deployment(rules("beside", 1)).score(X, Clock())
    scored = made.score(X.copy(), Clock(), CARDS)
    assert made.canary_failures == (~scored.arm).sum() > 0
    assert made.last_canary_error
    np.testing.assert_array_equal(scored.decided[~scored.arm], alone.champion[~scored.arm])
    assert ((scored.decided >= 0) & (scored.decided <= 1)).all()
    np.testing.assert_array_equal(scored.shadows[1], alone.shadows[0])


def test_one_bad_score_of_a_canary_costs_one_row() -> None:
    """However rows are cut into batches, the champion answers for the same ones."""
    row = int(np.flatnonzero(in_canary(CARDS, "new", 50.0))[0])
    new = snapshot(lambda x: np.where(x[:, 0] == X[row, 0], np.nan, 0.5), "new")
    whole = with_canary(new).score(X, Clock(), CARDS)
    parts = [with_canary(new).score(X[i : i + 8], Clock(), CARDS[i : i + 8]) for i in range(0, 64, 8)]
    np.testing.assert_array_equal(whole.decided, np.concatenate([part.decided for part in parts]))
    assert (in_canary(CARDS, "new", 50.0) & ~whole.arm).sum() == 1


def test_shadows_that_stay_keep_what_they_have_done() -> None:
    """One that was switched off stays so when others move, and is tried again in another version."""
    made = deployment(snapshot(raises, "bad"), rules("good", 1))
    made.score(X, Clock())
    bad, good = (shadow.snapshot for shadow in made.shadows)
    made.install(rules("next", 1), [good, bad])
    assert [shadow.off is None for shadow in made.shadows] == [True, False]
    made.install(rules("next", 1), [snapshot(raises, "bad", 2)])
    assert made.shadows[0].off is None


def test_slots_of_another_spec_change_nothing() -> None:
    """Whichever slot it is."""
    made = deployment(rules("beside", 1))
    before = list(made.models())
    foreign = rules("foreign", 1, spec="other")
    for champion, shadows, canary in (
        (foreign, [], None),
        (rules(), [foreign], None),
        (rules(), [], foreign),
    ):
        with pytest.raises(SpecMismatchError):
            made.install(champion, shadows, canary)
        assert list(made.models()) == before


def test_a_canary_without_cards_is_a_mistake() -> None:
    """It cannot be known for whom it decides."""
    with pytest.raises(ValueError, match="cards"):
        with_canary(rules("new", 1)).score(X, Clock())
