"""Precision and recall under a feedback loop: naive figures are biased, corrected ones are not."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import pytest

from monitoring.decision_quality import DAY_MS, DecisionQuality
from monitoring.quality import Bools, Floats, Ints

START = 20_000 * DAY_MS
CARDS = 3000
DAYS = 20
SHARE = 0.2


@dataclass
class World:
    """What would happen if nobody acted: transactions in order of time, with score, alert and fraud."""

    time: Ints
    card: Ints
    fraud: Bools
    alert: Bools

    @property
    def precision(self) -> float:
        return float((self.fraud & self.alert).sum() / self.alert.sum())

    @property
    def recall(self) -> float:
        return float((self.fraud & self.alert).sum() / self.fraud.sum())


def world() -> World:
    """One card in eight is stolen on some day: from then on half of what it does is fraud, and fraud scores
    high.
    """
    random = np.random.default_rng(11)
    n = CARDS * 12
    time = START + np.sort(random.integers(0, DAYS * DAY_MS, n))
    card = random.integers(0, CARDS, n)
    stolen = np.where(np.arange(CARDS) % 8 == 0, START + random.integers(0, DAYS * DAY_MS, CARDS), 2**62)
    fraud = (time >= stolen[card]) & (random.random(n) < 0.5)
    score = np.where(fraud, random.beta(2, 2, n), random.beta(1, 6, n))
    return World(time, card, fraud, score >= 0.5)


def lived(truth: World, control: Bools) -> tuple[DecisionQuality, int]:
    """The same stream as it comes when every alerted card outside of the control group is blocked at once:
    its transactions go on being tried, and no fraud comes of them. Also gives how many frauds were stopped.
    """
    fraud, blocked = truth.fraud.copy(), np.zeros(CARDS, np.bool_)
    for row in range(len(fraud)):
        card = truth.card[row]
        if truth.alert[row] and not control[card]:
            blocked[card] = True
        if blocked[card]:
            fraud[row] = False
    quality = DecisionQuality(days=DAYS + 1)
    left_alone = truth.alert & control[truth.card]
    propensity = np.where(left_alone, SHARE, np.where(truth.alert, 1 - SHARE, 1.0))
    for rows in np.array_split(np.arange(len(fraud)), 7):
        quality.update(
            truth.time[rows],
            truth.card[rows],
            fraud[rows],
            truth.alert[rows],
            left_alone[rows],
            propensity[rows],
        )
    return quality, int((truth.fraud & ~fraud).sum())


def drawn(seed: int) -> Bools:
    return np.random.default_rng(seed).random(CARDS) < SHARE


def test_the_corrected_figures_are_those_of_a_world_without_interference() -> None:
    """Over 60 draws of the control group the mean of the corrected figures, and of the totals that they are
    made of, is within three of its standard errors of the truth; the naive figures are nowhere near.
    """
    truth = world()
    runs = [lived(truth, drawn(seed)) for seed in range(60)]
    expected = {
        "alerts": float(truth.alert.sum()),
        "caught": float((truth.alert & truth.fraud).sum()),
        "frauds": float(truth.fraud.sum()),
        "precision": truth.precision,
        "recall": truth.recall,
    }
    for name, value in expected.items():
        corrected = np.array([getattr(quality.corrected(), name) for quality, _ in runs])
        error = corrected.std(ddof=1) / math.sqrt(len(runs))
        assert abs(corrected.mean() - value) < 3 * error
        assert error < 0.02 * value
    for quality, stopped in runs:
        assert stopped > 200
        assert quality.naive().precision < 0.4 * truth.precision
        assert quality.naive().recall < 0.8 * truth.recall


def test_a_single_group_is_close() -> None:
    """One draw, as in life: within 15 % of the truth, with the number of alerts that it stands on."""
    truth = world()
    quality, _ = lived(truth, drawn(1))
    assert quality.corrected().precision == pytest.approx(truth.precision, rel=0.15)
    assert quality.corrected().recall == pytest.approx(truth.recall, rel=0.15)
    assert quality.control_alerts() == (truth.alert & drawn(1)[truth.card]).sum()


def test_without_a_control_group_there_is_no_correction() -> None:
    """Naive figures stand alone, and those that nothing can be said about are not numbers."""
    truth = world()
    quality, _ = lived(truth, np.zeros(CARDS, np.bool_))
    assert math.isnan(quality.corrected().precision)
    assert math.isnan(quality.corrected().recall)
    assert quality.naive().alerts == truth.alert.sum()
    assert math.isnan(DecisionQuality().naive().precision)


def rows(
    *each: tuple[float, int, bool, bool, bool],
) -> tuple[Ints, Ints, Bools, Bools, Bools, Floats]:
    """Day, card, fraud, alert, control group."""
    day, card, fraud, alert, control = (np.array(column) for column in zip(*each, strict=True))
    chance = np.where(control, SHARE, np.where(alert, 1 - SHARE, 1.0))
    return (START + day * DAY_MS).astype(np.int64), card, fraud, alert, control, chance


def test_weights_in_words() -> None:
    """Before its first alert every row of a card counts once; from then on those of the control group count
    five times, and the others not at all, in whatever order the outcomes come.
    """
    quality = DecisionQuality()
    quality.update(*rows((3, 1, True, True, True), (3, 2, False, True, False)))
    quality.update(
        *rows(
            (1, 1, True, False, False),
            (1, 2, True, False, False),
            (4, 1, True, False, False),
            (4, 2, True, False, False),
        )
    )
    found, naive = quality.corrected(), quality.naive()
    assert (found.alerts, found.caught, found.frauds) == (5, 5, 5 + 1 + 1 + 5)
    assert (naive.alerts, naive.caught, naive.frauds) == (2, 1, 5)


def test_outcomes_can_be_taken_back_and_state_restored() -> None:
    """A revised verdict leaves nothing of the one before; what was saved goes on the same."""
    quality = DecisionQuality()
    rows = np.full(3, START), np.array([1, 2, 3])
    alert, control = np.array([True, True, False]), np.array([True, False, False])
    first, second = np.array([True, True, False]), np.array([True, False, False])
    quality.update(*rows, first, alert, control, np.array([0.5, 1.0, 1.0]))
    quality.update(*rows, first, alert, control, np.array([0.5, 1.0, 1.0]), -1)
    quality.update(*rows, second, alert, control, np.array([0.5, 1.0, 1.0]))
    again = DecisionQuality()
    again.load(quality.dump())
    for each in (quality, again):
        assert (each.naive().alerts, each.naive().caught, each.naive().frauds) == (2, 1, 1)
        assert (each.corrected().alerts, each.corrected().caught) == (2, 2)
        assert each.control_alerts() == 1
