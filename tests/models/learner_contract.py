"""What every learner shipped must keep; ``test_learners`` runs it for each kind of the registry."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import cast

import numpy as np
import pytest
from numpy.typing import NDArray

from models.learners import checkpoint
from models.learners.base import Learner
from models.scorers.registry import SCORERS

Floats = NDArray[np.float64]
Make = Callable[[], Learner]

NAMES = [f"f{i}" for i in range(6)]


def stream(n: int, seed: int = 0) -> tuple[Floats, NDArray[np.bool_]]:
    """f64[n, 6] with a heavy tail, a count, a share and noise, and labels that depend on three of them."""
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(n, len(NAMES)))
    x[:, 0] = np.exp(1.5 * x[:, 0])
    x[:, 1] = rng.poisson(2.0, n)
    x[:, 2] = rng.random(n) * (rng.random(n) < 0.2)
    odds = 0.4 * x[:, 0] + 3.0 * x[:, 2] + x[:, 3] * (x[:, 1] > 2) - 2.0
    return x, rng.random(n) < 1.0 / (1.0 + np.exp(-odds))


def unseen(n: int = 60, seed: int = 1) -> Floats:
    """Rows as in ``stream``, far outside of it, tiny, and huge."""
    x, _ = stream(n, seed)
    x[10:20] *= 1e3
    x[20:30] *= -1e9
    x[30:35] *= 1e150
    x[35] = 0.0
    x[36] = np.finfo(np.float64).max
    x[37] = -np.finfo(np.float64).max
    x[38] = np.finfo(np.float64).tiny
    return x


def teach(learner: Learner, n: int = 800, seed: int = 0) -> Learner:
    for x, fraud in zip(*stream(n, seed), strict=True):
        learner.learn(x, bool(fraud))
    return learner


def same_scores(learner: Learner, x: Floats) -> Floats:
    """The frozen scores, after they were found equal to the learner's to 1e-12 and to be probabilities."""
    frozen = learner.freeze().score(x)
    np.testing.assert_allclose(frozen, [learner.score(row) for row in x], rtol=0.0, atol=1e-12)
    assert ((frozen >= 0.0) & (frozen <= 1.0)).all()
    return frozen


def frozen_equals_learner(make: Make) -> None:
    scores = same_scores(teach(make()), unseen())
    assert len(np.unique(scores)) > 1


def frozen_shares_nothing(make: Make) -> None:
    learner = teach(make(), 700)
    frozen, x = learner.freeze(), unseen()
    before = frozen.score(x)
    for row, fraud in zip(*stream(700, 5), strict=True):
        learner.learn(row, not fraud)
    np.testing.assert_array_equal(frozen.score(x), before)


def arrays_round_trip(make: Make) -> None:
    frozen, x = teach(make()).freeze(), unseen()
    header, arrays = frozen.to_arrays()
    again = SCORERS[frozen.kind].from_arrays(header, arrays)
    np.testing.assert_array_equal(again.score(x), frozen.score(x))


def never_trained(make: Make) -> None:
    learner = make()
    same_scores(learner, unseen())
    assert learner.n_learned == 0
    teach(learner, 600)
    assert learner.n_learned == 600


def one_class(make: Make) -> None:
    for fraud in (False, True):
        learner = make()
        for x in stream(700)[0]:
            learner.learn(x, fraud)
        scores = same_scores(learner, unseen())
        assert (scores[:10] > 0.5).all() if fraud else (scores[:10] < 0.5).all()


def huge_values_are_survived(make: Make) -> None:
    learner = teach(make(), 600)
    for x in unseen():
        learner.learn(x, True)
    same_scores(teach(learner, 600, 3), unseen())
    assert np.isfinite(learner.reference).all()


def score_does_not_mutate(make: Make) -> None:
    learner = teach(make(), 700)
    twin = copy.deepcopy(learner)
    for row in unseen():
        learner.score(row)
    one, two = (teach(each, 300, 2).freeze().to_arrays() for each in (learner, twin))
    assert one[0] == two[0]
    for name, array in one[1].items():
        np.testing.assert_array_equal(array, two[1][name])


def input_not_mutated(make: Make) -> None:
    learner, (x, fraud) = make(), stream(600)
    kept = x.copy()
    x.flags.writeable = False
    for row, label in zip(x, fraud, strict=True):
        learner.learn(row, bool(label))
        learner.score(row)
    learner.freeze().score(x)
    np.testing.assert_array_equal(x, kept)


def input_not_kept(make: Make) -> None:
    learner, twin = make(), make()
    row = np.empty(len(NAMES))
    for x, fraud in zip(*stream(800), strict=True):
        row[:] = x
        learner.learn(row, bool(fraud))
        row[:] = 1e6
        twin.learn(x, bool(fraud))
    np.testing.assert_array_equal(learner.freeze().score(unseen()), twin.freeze().score(unseen()))
    np.testing.assert_array_equal(learner.recent, twin.recent)


def seed_repeatable(make: Make) -> None:
    one, two = teach(make()), teach(make())
    np.testing.assert_array_equal(one.freeze().score(unseen()), two.freeze().score(unseen()))


def checkpoint_continues(make: Make) -> None:
    learner = teach(make(), 700)
    restored = checkpoint.load(checkpoint.dump(learner))
    assert restored.n_learned == learner.n_learned
    teach(learner, 700, 4)
    teach(restored, 700, 4)
    np.testing.assert_array_equal(restored.freeze().score(unseen()), learner.freeze().score(unseen()))


def not_finite_is_refused(make: Make) -> None:
    learner = teach(make(), 600)
    before = checkpoint.dump(learner)
    for bad in (np.nan, np.inf, -np.inf):
        x = np.zeros(len(NAMES))
        x[2] = bad
        with pytest.raises(ValueError, match="f2"):
            learner.learn(x, True)
        with pytest.raises(ValueError, match="f2"):
            learner.score(x)
        with pytest.raises(ValueError, match="1 row"):
            learner.freeze().score(np.stack([np.zeros(len(NAMES)), x]))
        with pytest.raises(ValueError, match="weight"):
            learner.learn(np.zeros(len(NAMES)), True, bad)
    assert checkpoint.dump(learner) == before


def wrong_shape_is_refused(make: Make) -> None:
    learner = make()
    single = cast("Floats", np.zeros(6, np.float32))
    for wrong in (np.zeros(5), np.zeros((1, 6)), single):
        with pytest.raises(ValueError, match="expected float64"):
            learner.learn(wrong, True)
    for wrong in (np.zeros(6), np.zeros((2, 5)), single.reshape(1, 6)):
        with pytest.raises(ValueError, match="expected float64"):
            learner.freeze().score(wrong)


def probabilities_are_those_of_the_stream(make: Make) -> None:
    """Sampled or not, the mean probability over the stream is its fraud rate within a quarter."""
    from models.sampling import keep_mask

    learner, (x, fraud) = make(), stream(5000)
    keep = keep_mask(np.arange(len(x), dtype=np.uint64), fraud, learner.keep_one_in)
    for row, label in zip(x[keep], fraud[keep], strict=True):
        learner.learn(row, bool(label))
    mean = learner.freeze().score(stream(2000, 9)[0]).mean()
    assert 0.75 * fraud.mean() < mean < 1.25 * fraud.mean()


CHECKS = [
    frozen_equals_learner,
    frozen_shares_nothing,
    arrays_round_trip,
    never_trained,
    one_class,
    huge_values_are_survived,
    score_does_not_mutate,
    input_not_mutated,
    input_not_kept,
    seed_repeatable,
    checkpoint_continues,
    not_finite_is_refused,
    wrong_shape_is_refused,
    probabilities_are_those_of_the_stream,
]
