"""Intervals by drawing cards again: the measures, the draws, and how often the truth lies inside."""

from __future__ import annotations

import math

import numpy as np
import pytest

from monitoring.bootstrap import Estimates, card_counts, card_precision, mean, ranking
from monitoring.quality import average_precision, roc_auc
from monitoring.quality import card_precision as exact_card_precision


def rows(
    seed: int, n: int = 3000, cards: int = 200, ties: int = 10**9, bad: float = 0.1
) -> tuple[np.ndarray, ...]:
    """Cards, days, truth and scores; frauds come by card."""
    random = np.random.default_rng(seed)
    numbers = random.permutation(2**62)[:cards] if cards < 2 else random.integers(-(2**62), 2**62, cards)
    place = random.integers(0, cards, n)
    truth = random.random(n) < (random.random(cards) < 2 * bad)[place] * 0.5
    score = np.clip(random.normal(0.3 + 0.2 * truth, 0.2), 0, 1)
    return numbers[place], random.integers(0, 7, n), truth, np.round(score * ties) / ties


def repeated(times: np.ndarray, *columns: np.ndarray) -> list[np.ndarray]:
    return [np.repeat(column, times) for column in columns]


@pytest.mark.parametrize("ties", [1, 7, 10**9])
def test_a_replicate_is_the_measure_of_the_cards_that_are_there(ties: int) -> None:
    """AUC and average precision of every replicate are the exact ones of the rows written out."""
    card, _, truth, score = rows(1, ties=ties)
    found = ranking(card, truth, score, replicates=20)
    cards, place = np.unique(card, return_inverse=True)
    counts = card_counts(cards.view(np.uint64), 20)
    for exact, estimates in zip((roc_auc, average_precision), found, strict=True):
        assert estimates.value == pytest.approx(exact(truth, score), abs=1e-12)
        for number in range(20):
            written_out = repeated(counts[number][place], truth, score)
            assert estimates.replicates[number] == pytest.approx(exact(*written_out), abs=1e-12)


@pytest.mark.parametrize(("k", "cards"), [(3, 200), (30, 200), (500, 200), (20, 3000)])
def test_card_precision_of_cards_that_are_there_several_times(k: int, cards: int) -> None:
    """CP@k of a replicate is that of as many different cards, neighbours in the order of cards."""
    card, day, truth, score = rows(2, n=9000, cards=cards)
    found = card_precision(card, day, truth, score, k, replicates=10)
    assert found.value == pytest.approx(exact_card_precision(card, day, truth, score, k), abs=1e-12)
    numbers, place = np.unique(card, return_inverse=True)
    counts = card_counts(numbers.view(np.uint64), 10)
    for number in range(10):
        times = counts[number][place]
        twins = np.concatenate([np.arange(each) for each in times]) + np.repeat(place * 20, times)
        written_out = repeated(times, day, truth, score)
        exact = exact_card_precision(twins, written_out[0], written_out[1], written_out[2], k)
        assert found.replicates[number] == pytest.approx(exact, abs=1e-12)


def test_counts_are_poisson_and_depend_on_nothing_but_card_and_replicate() -> None:
    """Mean and variance are 1, cards and replicates are independent, and the other cards do not matter."""
    cards = np.arange(20_000, dtype=np.uint64) * np.uint64(2**40)
    counts = card_counts(cards, 50).astype(np.float64)
    assert counts.mean() == pytest.approx(1.0, abs=0.005)
    assert counts.var() == pytest.approx(1.0, abs=0.01)
    assert (counts == 0).mean() == pytest.approx(math.exp(-1), abs=0.002)
    assert np.abs(np.corrcoef(counts) - np.eye(50)).max() < 0.04
    assert np.abs(np.corrcoef(counts[:, :40].T) - np.eye(40)).max() < 0.75
    np.testing.assert_array_equal(card_counts(cards[5:9], 50), counts[:, 5:9])
    assert card_counts(np.array([1, 2, 3], np.uint64), 5).tolist() == PINNED


#: Counts of the cards 1, 2 and 3: the digits of a report do not change with a version of numpy.
PINNED = [[2, 0, 1], [0, 2, 2], [1, 2, 2], [1, 1, 1], [0, 1, 0]]


def test_the_truth_lies_in_nineteen_of_twenty_intervals() -> None:
    """Over fresh samples of cards with frauds in clumps the mean measure is inside 19 times in 20."""
    samples = [rows(seed, n=2500, cards=400) for seed in range(120)]
    found = [
        (*ranking(card, truth, score, 200), card_precision(card, day, truth, score, 20, 200))
        for card, day, truth, score in samples
    ]
    for figure in range(3):
        centre = np.mean([each[figure].value for each in found])
        inside = [low <= centre <= high for low, high in (each[figure].interval for each in found)]
        assert 0.88 <= np.mean(inside) <= 0.99


def test_means_and_differences_are_taken_replicate_by_replicate() -> None:
    """Two equal models differ by nothing, in every replicate."""
    one, other = Estimates(0.5, np.array([0.4, 0.6])), Estimates(0.7, np.array([0.6, 0.9]))
    assert (one - one).interval == (0.0, 0.0)
    assert mean([one, other]).value == 0.6
    np.testing.assert_allclose(mean([one, other]).replicates, [0.5, 0.75])


def test_what_is_undefined_is_nan() -> None:
    """No rows, one class, and replicates without a fraud."""
    nothing = np.zeros(0, np.int64)
    for card, truth in ((nothing, nothing.astype(bool)), (np.arange(3), np.zeros(3, bool))):
        for estimates in ranking(card, truth, np.ones(len(card)), 5):
            assert math.isnan(estimates.value)
            assert all(map(math.isnan, estimates.interval))
    empty = card_precision(nothing, nothing, nothing.astype(bool), np.zeros(0), 5, 5)
    assert math.isnan(empty.value)
    lone = ranking(np.arange(40), np.arange(40) == 3, np.arange(40) / 40, 50)
    assert 0 < np.isfinite(lone[0].replicates).sum() < 50
    assert np.isfinite(lone[0].interval).all()
    only = ranking(np.arange(3), np.ones(3, bool), np.ones(3), 5)
    assert math.isnan(only[0].value)
    assert only[1].value == 1.0
