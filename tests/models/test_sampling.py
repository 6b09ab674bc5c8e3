"""Sampling: what is kept, and that probabilities stay those of the whole stream."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from models.learners.base import Learner
from models.learners.forest import ForestLearner
from models.learners.logistic import LogisticLearner
from models.sampling import correct_prior, keep_mask


def hashes(n: int, seed: int) -> np.ndarray[tuple[int], np.dtype[np.uint64]]:
    return np.random.default_rng(seed).integers(0, 2**64, n, np.uint64)


@given(
    ids=st.lists(st.integers(0, 2**64 - 1), max_size=50),
    keep=st.integers(1, 100),
    seed=st.integers(0, 10**6),
)
def test_decided_by_the_hash_alone(ids: list[int], keep: int, seed: int) -> None:
    """Order, company and repetition do not matter; frauds are all kept; one in one keeps all."""
    rng = np.random.default_rng(seed)
    h = np.array(ids, np.uint64)
    fraud = rng.random(len(h)) < 0.3
    mask = keep_mask(h, fraud, keep)
    order = rng.permutation(len(h))
    np.testing.assert_array_equal(keep_mask(h[order], fraud[order], keep), mask[order])
    for i in range(len(h)):
        assert keep_mask(h[i : i + 1], fraud[i : i + 1], keep)[0] == mask[i]
    assert mask[fraud].all()
    assert keep_mask(h, fraud, 1).all()


@pytest.mark.parametrize("keep", [2, 5, 20, 64])
@pytest.mark.parametrize("poor", [False, True])
def test_one_in_n_is_kept(keep: int, poor: bool) -> None:
    """The share kept is 1/n within four standard deviations, also when hashes are multiples of 64."""
    n = 100_000
    h = np.arange(n, dtype=np.uint64) * np.uint64(64) if poor else hashes(n, 3)
    kept = keep_mask(h, np.zeros(n, bool), keep).sum()
    assert abs(kept - n / keep) < 4 * (n / keep) ** 0.5


def test_less_than_one_is_refused() -> None:
    """One in none is an error."""
    with pytest.raises(ValueError, match="at least 1"):
        keep_mask(hashes(1, 0), np.zeros(1, bool), 0)


@given(p=st.floats(0.0, 1.0), n=st.integers(1, 10**6))
def test_correction_undoes_the_sampling(p: float, n: int) -> None:
    """Correcting the probability that sampling one in n turns p into gives p back."""
    if p < 1e-300:
        return
    sampled = p / (p + (1.0 - p) / n)
    assert correct_prior(np.array([sampled]), n)[0] == pytest.approx(p, rel=1e-9, abs=1e-9)


@given(n=st.integers(1, 10**6))
def test_correction_keeps_order_and_ends(n: int) -> None:
    """The correction never changes a ranking, and leaves 0 and 1 where they are."""
    p = np.linspace(0.0, 1.0, 101)
    corrected = correct_prior(p, n)
    assert (np.diff(corrected) > 0).all()
    assert (corrected[0], corrected[-1]) == (0.0, 1.0)


@given(seed=st.integers(0, 10**6), keep=st.sampled_from([2, 5, 10]), rate=st.sampled_from([0.05, 0.15]))
@settings(max_examples=3, deadline=None)
@pytest.mark.parametrize(
    ("make", "tolerance"), [(LogisticLearner, 0.35), (partial(ForestLearner, n_trees=2), 0.5)]
)
def test_probabilities_stay_calibrated(
    make: Callable[..., Learner], tolerance: float, seed: int, keep: int, rate: float
) -> None:
    """Whatever the sampling, the mean probability is the fraud rate of the whole stream, not the sample's.

    Uncorrected it would be off by nearly the sampling factor, at least 2. Two trees are a coarse model.
    """
    rng = np.random.default_rng(seed)
    n = 5_000
    fraud = rng.random(n) < rate
    x = rng.normal(size=(n, 2)) + fraud[:, None] * np.array([1.5, 0.0])
    learner = make(["a", "b"], keep_one_in=keep)
    mask = keep_mask(hashes(n, seed), fraud, keep)
    for row, label in zip(x[mask], fraud[mask], strict=True):
        learner.learn(row, bool(label))
    assert learner.freeze().score(x).mean() == pytest.approx(fraud.mean(), rel=tolerance)
