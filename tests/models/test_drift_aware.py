"""The learner that is watched for drift: the contract of learners, and what it does about planted drift."""

from __future__ import annotations

import functools
from collections.abc import Callable

import numpy as np
import pytest
from numpy.typing import NDArray

from models.learners import checkpoint
from models.learners.base import DriftEvent, Floats, Learner
from models.learners.binned import BinnedLearner
from models.learners.drift_aware import DriftAwareLearner, PairedLosses
from models.learners.forest import ForestLearner
from models.learners.logistic import LogisticLearner
from models.learners.tree import TreeLearner
from tests.models import learner_contract
from tests.models.learner_contract import NAMES, same_scores, stream, teach, unseen

BINNED = functools.partial(BinnedLearner, NAMES, learning_rate=0.1)
TREE = functools.partial(TreeLearner, NAMES, keep_one_in=1, delta=0.05, grace_period=50)

MAKERS: dict[str, Callable[[], Learner]] = {
    "binned": lambda: DriftAwareLearner(BINNED),
    "logistic sampled": lambda: DriftAwareLearner(
        functools.partial(LogisticLearner, NAMES, keep_one_in=4), "page_hinkley", "trained"
    ),
    "tree": lambda: DriftAwareLearner(TREE, replace_when="trained"),
    "forest": lambda: DriftAwareLearner(functools.partial(ForestLearner, NAMES, keep_one_in=1, n_trees=3)),
}

#: Rows before and after the change.
HALF = 4_000


@pytest.mark.parametrize("name", MAKERS)
@pytest.mark.parametrize("check", learner_contract.CHECKS, ids=lambda check: check.__name__)
def test_contract(name: str, check: Callable[[Callable[[], Learner]], None]) -> None:
    """It keeps every point of the contract that learners keep."""
    check(MAKERS[name])


def changing(n: int, seed: int) -> tuple[Floats, NDArray[np.bool_]]:
    """`stream`, and as many rows again in which genuine outcomes and frauds have changed places."""
    x, fraud = stream(2 * n, seed)
    fraud[n:] = ~fraud[n:]
    return x, fraud


def taught(learner: Learner, x: Floats, fraud: NDArray[np.bool_]) -> tuple[Floats, list[DriftEvent]]:
    """The probabilities given before learning, and what happened about drift."""
    p, events = np.empty(len(x)), list[DriftEvent]()
    for row, (values, label) in enumerate(zip(x, fraud.tolist(), strict=True)):
        p[row] = learner.score(values)
        learner.learn(values, label)
        events += learner.take_events()
    return p, events


@pytest.mark.parametrize(("make", "soon"), [(BINNED, 300), (TREE, 300)])
def test_planted_drift_is_followed_by_a_better_learner(make: Callable[[], Learner], soon: int) -> None:
    """Warned, found and replaced in this order after the change, with lower losses than without."""
    x, fraud = changing(HALF, 3)
    p, events = taught(DriftAwareLearner(make), x, fraud)
    plain, _ = taught(make(), x, fraud)
    after = {each.what: each for each in reversed(events) if each.n_learned > HALF}
    times = [after[what].n_learned for what in ("warning", "drift", "replaced")]
    assert times == sorted(times)
    assert times[0] <= HALF + 150
    assert times[-1] <= HALF + soon
    replaced = after["replaced"]
    assert (replaced.signal, replaced.before > replaced.after) == ("log_loss", True)

    def loss(given: Floats) -> float:
        late = slice(HALF + soon, HALF + soon + 1000)
        right = np.where(fraud[late], given[late], 1 - given[late])
        return float(-np.log(np.maximum(right, 1e-3)).mean())

    assert loss(p) < 0.96 * loss(plain)


@pytest.mark.parametrize("seed", range(3))
def test_a_stationary_stream_replaces_nothing(seed: int) -> None:
    """Over 6,000 rows of one concept the learner stays the one it would be without being watched."""
    x, fraud = stream(6_000, seed)
    learner, plain = DriftAwareLearner(BINNED), BINNED()
    _, events = taught(learner, x, fraud)
    taught(plain, x, fraud)
    assert "replaced" not in {each.what for each in events}
    np.testing.assert_array_equal(learner.freeze().score(unseen()), plain.freeze().score(unseen()))


def test_a_second_learner_that_is_no_better_does_not_take_over() -> None:
    """Drift was called and the second learner is worse: the active one stays until the other is dropped."""
    x, fraud = stream(5_000, 1)
    learner, plain = DriftAwareLearner(TREE), TREE()
    learner.PATIENCE = 100
    taught(learner, x[:3000], fraud[:3000])
    learner._second, learner._called = TREE(), True
    _, events = taught(learner, x[3000:], fraud[3000:])
    taught(plain, x, fraud)
    assert [each.what for each in events] == ["dropped"]
    assert events[0].after > events[0].before - 0.05
    np.testing.assert_array_equal(learner.freeze().score(unseen()), plain.freeze().score(unseen()))


@pytest.mark.parametrize("what", ["warning", "drift", "replaced"])
def test_a_checkpoint_continues_from_every_phase(what: str) -> None:
    """Restored just after the event, it does what the one that went on does, second learner included."""
    x, fraud = changing(HALF, 3)
    learner = DriftAwareLearner(BINNED)
    _, events = taught(learner, x, fraud)
    cut = next(each.n_learned for each in events if each.n_learned > HALF and each.what == what)
    part = DriftAwareLearner(BINNED)
    taught(part, x[:cut], fraud[:cut])
    restored = checkpoint.load(checkpoint.dump(part))
    _, rest = taught(restored, x[cut:], fraud[cut:])
    assert rest == [each for each in events if each.n_learned > cut]
    assert restored.figures() == learner.figures()
    np.testing.assert_array_equal(restored.freeze().score(unseen()), learner.freeze().score(unseen()))


def test_figures_count_what_happened() -> None:
    """What a version carries are the numbers of warnings, alarms and replacements."""
    learner = DriftAwareLearner(BINNED)
    _, events = taught(learner, *changing(HALF, 3))
    happened = [each.what for each in events]
    names = {"drift_warnings": "warning", "drift_alarms": "drift", "drift_replacements": "replaced"}
    assert learner.figures() == {name: happened.count(what) for name, what in names.items()}
    assert learner.figures()["drift_replacements"] > 0


def test_renewed_keeps_what_is_known_and_learns_faster() -> None:
    """The same scores before learning, further from them after; the original is not touched."""
    learner = teach(BINNED(), 3000)
    x = unseen()
    before = learner.freeze().score(x)
    twin = learner.renewed()
    assert twin is not None
    np.testing.assert_array_equal(same_scores(twin, x), before)
    row = stream(1, 99)[0][0]
    twin.learn(row, True)
    np.testing.assert_array_equal(learner.freeze().score(x), before)
    moved = twin.score(row)
    learner.learn(row, True)
    assert moved > learner.score(row)


def test_paired_losses_want_more_than_chance() -> None:
    """Two learners that are right in turns are equal; one that is always a little better is better."""
    turns, better = PairedLosses(), PairedLosses()
    for row in range(400):
        turns.update(*((0.8, 0.4) if row % 2 else (0.4, 0.8)), fraud=row % 5 == 0, weight=1.0)
        better.update(*((0.5, 0.6) if row % 5 == 0 else (0.5, 0.4)), fraud=row % 5 == 0, weight=1.0)
    assert not turns.second_is_better
    assert better.second_is_better
    assert better.means() == pytest.approx((np.log(2), -np.log(0.6)))


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"detector": "ddm"}, "unknown detector 'ddm'"),
        ({"replace_when": "never"}, "replace_when"),
        ({"min_frauds": 0}, "min_frauds"),
    ],
)
def test_unknown_options_are_refused(options: dict[str, str | int], said: str) -> None:
    """By name."""
    with pytest.raises(ValueError, match=said):
        DriftAwareLearner(BINNED, **options)  # type: ignore[arg-type]
