from __future__ import annotations

import math

import numpy as np
import pytest
from sklearn.metrics import average_precision_score, roc_auc_score

from monitoring.live_quality import CardDay, DayQuality, ScoreSketch, merged
from monitoring.live_quality import card_precision as live_card_precision
from monitoring.quality import average_precision, calibration_error, card_precision, roc_auc


def sample(seed: int, rows: int, ties: int) -> tuple[np.ndarray, np.ndarray]:
    """Random outcomes with scores of `ties` distinct values, better than chance."""
    random = np.random.default_rng(seed)
    truth = random.random(rows) < 0.1
    score = np.clip(random.normal(0.3 + 0.2 * truth, 0.2), 0, 1)
    return truth, np.round(score * ties) / ties


@pytest.mark.parametrize("ties", [1, 5, 100, 10**9])
@pytest.mark.parametrize("seed", range(5))
def test_ranking_measures_equal_scikit_learn(seed: int, ties: int) -> None:
    """AUC and average precision equal the reference to rounding, whatever share of the scores is tied."""
    truth, score = sample(seed, 2000, ties)
    assert roc_auc(truth, score) == pytest.approx(roc_auc_score(truth, score), abs=1e-12)
    assert average_precision(truth, score) == pytest.approx(average_precision_score(truth, score), abs=1e-12)


def test_undefined_measures_are_nan() -> None:
    """Without both classes there is no ranking to measure."""
    nothing = np.zeros(0)
    assert math.isnan(roc_auc(nothing.astype(bool), nothing))
    assert math.isnan(average_precision(np.zeros(3, dtype=bool), np.arange(3.0)))
    assert math.isnan(roc_auc(np.ones(3, dtype=bool), np.arange(3.0)))
    assert math.isnan(calibration_error(nothing.astype(bool), nothing))


def test_calibration_error_equals_its_definition() -> None:
    """The sum over bins of |frauds - scores| equals a loop over the bins."""
    truth, score = sample(3, 5000, 10**9)
    score[:3] = [0.0, 1.0, 0.5]
    expected = 0.0
    for step in range(10):
        inside = (score >= step / 10) & ((score < (step + 1) / 10) | ((step == 9) & (score == 1.0)))
        if inside.any():
            expected += inside.mean() * abs(truth[inside].mean() - score[inside].mean())
    assert calibration_error(truth, score, bins=10) == pytest.approx(expected, abs=1e-12)


def test_calibration_error_of_calibrated_scores_is_small() -> None:
    """Outcomes drawn with the probability of their score leave only sampling noise; shifted ones do not."""
    random = np.random.default_rng(5)
    score = random.random(200_000)
    truth = random.random(200_000) < score
    assert calibration_error(truth, score) < 0.01
    assert calibration_error(truth, score * 0.5) == pytest.approx(0.25, abs=0.01)


def test_card_precision_takes_the_highest_score_of_a_card() -> None:
    """A card counts once a day, by its highest score, and is caught if any of its rows was a fraud."""
    card = np.array([1, 1, 2, 3])
    day = np.zeros(4, dtype=np.int64)
    truth = np.array([True, False, False, True])
    score = np.array([0.1, 0.9, 0.8, 0.2])
    assert card_precision(card, day, truth, score, k=2) == 0.5
    assert card_precision(card, day, truth, score, k=1) == 1.0


def test_card_precision_lets_caught_cards_leave() -> None:
    """A card caught on the first day is not inspected again, so the next one takes its place."""
    card = np.array([1, 2, 1, 2])
    day = np.array([0, 0, 1, 1])
    truth = np.array([True, False, True, True])
    score = np.array([0.9, 0.1, 0.9, 0.1])
    assert card_precision(card, day, truth, score, k=1) == 1.0
    assert card_precision(card, day, np.array([True, False, True, False]), score, k=1) == 0.5


def test_card_precision_breaks_ties_by_card_number() -> None:
    """Of equally suspect cards the smaller number is inspected, so the measure is reproducible."""
    card = np.array([7, 3])
    day = np.zeros(2, dtype=np.int64)
    assert card_precision(card, day, np.array([False, True]), np.array([0.5, 0.5]), k=1) == 1.0


@pytest.mark.parametrize("seed", range(3))
def test_sketch_is_close_to_the_exact_measures(seed: int) -> None:
    """Binned scores lose less than 0.003 of average precision, AUC and calibration error."""
    random = np.random.default_rng(seed)
    truth = random.random(50_000) < 0.01
    score = 1 / (1 + np.exp(-random.normal(-5 + 4 * truth, 1.5)))
    first, second = ScoreSketch(), ScoreSketch()
    first.update(truth[:20_000], score[:20_000])
    second.update(truth[20_000:], score[20_000:])
    first.merge(second)
    assert first.rows == 50_000
    assert first.frauds == truth.sum()
    assert first.average_precision() == pytest.approx(average_precision(truth, score), abs=0.003)
    assert first.roc_auc() == pytest.approx(roc_auc(truth, score), abs=0.003)
    assert first.calibration_error() == pytest.approx(calibration_error(truth, score), abs=0.003)


def test_sketch_leaves_out_missing_scores() -> None:
    """A NaN score is not an outcome of this model and does not move its measures."""
    sketch = ScoreSketch()
    sketch.update(np.array([True, False, True]), np.array([0.9, 0.1, np.nan]))
    assert sketch.rows == 2
    assert sketch.average_precision() == 1.0


def test_card_day_is_bounded_and_keeps_the_top() -> None:
    """Many cards cost bounded memory, and the most suspect ones are all there."""
    day = CardDay(capacity=50)
    cards = np.random.default_rng(0).permutation(10_000)
    for chunk in np.array_split(cards, 100):
        day.update(chunk, chunk >= 9_995, chunk / 10_000)
    assert len(day.cards) <= 150
    assert day.precision(10) == 0.5


def test_days_equal_the_exact_measures_of_their_rows() -> None:
    """Days merge to the measures of their rows, in whatever order those came."""
    random = np.random.default_rng(2)
    rows = 20_000
    day = random.integers(0, 5, rows)
    truth = random.random(rows) < 0.05
    score = np.clip(random.normal(0.2 + 0.3 * truth, 0.15), 0.001, 0.999)
    card = random.integers(0, 500, rows)
    days = [DayQuality() for _ in range(5)]
    for chunk in np.array_split(random.permutation(rows), 37):
        for number, quality in enumerate(days):
            chosen = chunk[day[chunk] == number]
            quality.update(card[chosen], truth[chosen], score[chosen])
    assert merged(days).rows == rows
    assert merged(days).average_precision() == pytest.approx(average_precision(truth, score), abs=0.003)
    daily = [
        card_precision(card[day == d], day[day == d], truth[day == d], score[day == d], 20) for d in range(5)
    ]
    assert live_card_precision(days, 20) == pytest.approx(np.mean(daily))
    assert math.isnan(live_card_precision([]))


def test_an_outcome_can_be_taken_back() -> None:
    """A verdict that is revised leaves nothing of the one before it."""
    quality, card, score = DayQuality(), np.array([7]), np.array([0.9])
    quality.update(card, np.array([True]), score)
    assert quality.scores.frauds == 1
    assert quality.cards.precision(1) == 1.0
    quality.update(card, np.array([True]), score, sign=-1)
    quality.update(card, np.array([False]), score)
    assert (quality.scores.rows, quality.scores.frauds) == (1, 0)
    assert quality.cards.precision(1) == 0.0
