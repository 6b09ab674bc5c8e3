"""Drift against a reference: what is told apart, and how often chance alone raises an alarm."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy.spatial.distance import jensenshannon  # type: ignore[import-untyped]
from scipy.stats import t as student  # type: ignore[import-untyped]

from monitoring.drift import ks, psi
from monitoring.drift_alarms import Alarms
from monitoring.drift_watch import (
    REFERENCE_HOURS,
    Distance,
    Reference,
    build_reference,
    by_row,
    distances,
    ranked,
    rescaled,
)
from monitoring.limits import QUIET_DAYS, limit, t_probability, t_quantile
from monitoring.shapes import DECADE, ZERO, Floats, Shape, feature_bins, grouped, jensen_shannon, shape_of

NAMES = ("amount", "count", "field", "code", "noise")
HOUR = 3_600_000


class Cards:
    """A city of cards, each with habits of its own: amount, pace and code; hours and days differ, too."""

    def __init__(self, seed: int, cards: int = 300) -> None:
        self._random = np.random.default_rng(seed)
        self._level = self._random.normal(3.5, 0.8, cards)
        self._pace = self._random.gamma(2.0, 1.0, cards)
        self._code = self._random.choice([1.0, 2.0, 3.0, 7.0, 8.0], cards)
        self._day = self._random.normal(0.0, 0.02, 1000)

    def hour(self, number: int, rows: int = 150) -> Floats:
        """About so many transactions of that hour, f64[rows, 5]."""
        random = self._random
        weight = self._pace * random.gamma(1.0, 1.0, len(self._pace))
        busy = rows * (1 + 0.5 * math.sin(number / 24 * 2 * math.pi))
        card = random.choice(len(weight), random.poisson(busy), p=weight / weight.sum())
        n = len(card)
        amount = np.exp(random.normal(self._level[card] + self._day[number // 24], 0.4))
        field = np.where(random.random(n) < 0.05, 0.0, np.exp(random.normal(1, 0.5, n)))
        count = 1.0 + random.poisson(self._pace[card])
        return np.stack([amount, count, field, self._code[card], random.normal(0, 1, n)], axis=1)


def shaped(features: Floats) -> Shape:
    """The champion follows the amount alone."""
    score = 1 / (1 + np.exp(6 - np.log(np.abs(features[:, 0]) + 0.01)))
    return shape_of(features, {"champion:a": score, "shadow:b": score}, np.ones(len(features), np.bool_))


def learned(cards: Cards) -> Reference:
    hours = [shaped(cards.hour(number)) for number in range(REFERENCE_HOURS)]
    return build_reference("a", NAMES, 0, REFERENCE_HOURS * HOUR, hours)


def test_values_lie_in_bins_of_their_size() -> None:
    """A factor of ten is a decade of bins, zero and what is not a number have the one in the middle."""
    values = np.array([0.0, math.nan, 1.0, 10.0, 1000.0, -10.0, 1e300])
    bins = feature_bins(values)
    assert bins[0] == bins[1] == ZERO
    assert bins[3] - bins[2] == DECADE
    assert bins[4] - bins[3] == 2 * DECADE
    assert bins[5] - ZERO == ZERO - bins[3]
    assert bins[6] == 2 * ZERO


def test_jensen_shannon_is_that_of_scipy() -> None:
    """SciPy gives the root of the divergence."""
    random = np.random.default_rng(1)
    first, second = random.integers(0, 50, 20), random.integers(0, 9, 20)
    assert jensen_shannon(first, second) == pytest.approx(jensenshannon(first, second, 2) ** 2)
    assert jensen_shannon(np.array([1, 0]), np.array([0, 5])) == 1.0
    assert math.isnan(jensen_shannon(np.zeros(2), np.array([0, 5])))


def test_distances_by_row_are_those_of_each_row() -> None:
    """Also with empty bins at either side."""
    random = np.random.default_rng(7)
    expected, actual = random.integers(0, 3, (9, 20)), random.integers(0, 2, (9, 20))
    indices, divergences, gaps = by_row(expected, actual)
    for row in range(9):
        assert indices[row] == pytest.approx(psi(expected[row], actual[row]))
        assert divergences[row] == pytest.approx(jensen_shannon(expected[row], actual[row]))
        assert gaps[row] == pytest.approx(ks(expected[row], actual[row]))


def test_groups_have_equal_shares_of_the_reference() -> None:
    """Neighbouring bins are put together, nothing is lost."""
    reference = np.random.default_rng(2).poisson(np.linspace(0, 30, 241))
    expected, other = grouped(reference, np.ones(241, np.int64))
    assert expected.sum() == reference.sum()
    assert other.sum() == 241
    assert len(expected) == 20
    assert expected.max() < 1.5 * expected.mean()


@pytest.mark.parametrize("degrees", [1, 2, 3, 5, 6, 20])
def test_student_distribution_is_that_of_scipy(degrees: int) -> None:
    """Probabilities and quantiles, far out too."""
    for value in (0.1, 1.0, 4.0, 15.0):
        assert t_probability(value, degrees) == pytest.approx(student.cdf(value, degrees), abs=1e-12)
    assert t_quantile(0.9995, degrees) == pytest.approx(student.ppf(0.9995, degrees), rel=1e-8)


def test_the_limit_is_passed_as_seldom_as_declared() -> None:
    """Log-normal days: one more day is beyond the limit once in `QUIET_DAYS` times the figures."""
    random = np.random.default_rng(3)
    trials = [np.exp(random.normal(-5, 0.4, 8)) for _ in range(8_000)]
    passed = sum(days[-1] > limit(days[:-1].tolist(), 1) for days in trials)
    assert passed / len(trials) == pytest.approx(1 / QUIET_DAYS, rel=0.15)
    assert limit([0.1, 0.2, math.nan], 1) == math.inf


def test_quiet_days_raise_no_more_alarms_than_declared() -> None:
    """Cards with habits, hours and days that differ: over 90 quiet days at most three alarms."""
    alarms = days = 0
    for seed in range(9):
        cards = Cards(seed)
        reference, raised = learned(cards), Alarms()
        recent: list[Shape] = []
        for number in range(REFERENCE_HOURS, REFERENCE_HOURS + 240):
            recent = [*recent[-23:], shaped(cards.hour(number))]
            whole = Shape.empty(len(NAMES))
            for each in recent:
                whole.merge(each)
            found = {"1h": distances(reference, "1h", recent[-1])}
            if len(recent) == 24:
                found["24h"] = distances(reference, "24h", whole)
            alarms += len(raised.update(found))
        days += 10
    assert days / QUIET_DAYS == 3
    assert alarms <= 3


def wrong(kind: str, features: Floats) -> Floats:
    changed = features.copy()
    match kind:
        case "unit_change":
            changed[:, 0] *= 100
        case "missing":
            changed[: len(changed) // 2, 2] = 0.0
        case "out_of_range":
            changed[: len(changed) // 5, 1] = 1e6
        case "unseen":
            changed[: len(changed) // 5, 3] = 5.0
        case "data":
            changed[:, 4] += 1.5
    return changed


@pytest.mark.parametrize(
    ("kind", "feature"),
    [
        ("unit_change", "amount"),
        ("missing", "field"),
        ("out_of_range", "count"),
        ("unseen", "code"),
        ("data", "noise"),
    ],
)
def test_what_went_wrong_is_told_apart(kind: str, feature: str) -> None:
    """Within one hour, and nothing else is alarmed."""
    for seed in range(3):
        cards = Cards(seed)
        reference, alarms = learned(cards), Alarms()
        quiet = distances(reference, "1h", shaped(cards.hour(REFERENCE_HOURS)))
        assert alarms.update({"1h": quiet}) == []
        hour = wrong(kind, cards.hour(REFERENCE_HOURS + 1))
        found = distances(reference, "1h", shaped(hour))
        assert alarms.update({"1h": found}) == [(kind, feature)]
        assert alarms.update({"1h": found}) == []
        if kind == "unit_change":
            assert next(each.factor for each in found if each.name == feature) == 2


def test_drift_is_ranked_by_its_effect_on_the_score() -> None:
    """A feature that the champion follows comes before one that has moved further and does not matter."""
    cards = Cards(5)
    reference = learned(cards)
    hour = np.concatenate([cards.hour(number) for number in range(200, 210)])
    hour[:, 0] *= 1.5
    hour[:, 4] += 3.0
    found = {each.name: each for each in distances(reference, "24h", shaped(hour))}
    assert found["noise"].js > found["amount"].js
    features = [each for each in found.values() if each.name in NAMES]
    assert ranked(features)[0].name == "amount"
    # ln 1.5 more in the logarithm of the amount, which the champion's logit is.
    assert found["amount"].effect == pytest.approx(math.log(1.5), abs=0.1)


def test_counts_can_be_rescaled() -> None:
    """As if the values had been in another unit, to the width of a bin."""
    values = np.exp(np.random.default_rng(6).normal(3, 1, 5000))
    counts = np.bincount(feature_bins(values), minlength=2 * ZERO + 1)
    for power in (-2, 1, 3):
        moved = np.bincount(feature_bins(values * 10.0**power), minlength=2 * ZERO + 1)
        assert jensen_shannon(*grouped(rescaled(counts, power), moved)) < 0.01


def test_an_alarm_ends_and_may_come_again() -> None:
    """It is raised once, and again after the figure was calm."""

    def at(value: float) -> dict[str, list[Distance]]:
        kind = "data" if value > 0.1 else ""
        return {"1h": [Distance("x", value, value, value, 0.1, kind=kind)]}

    alarms = Alarms()
    raised = [len(alarms.update(at(value))) for value in (0.05, 0.2, 0.08, 0.2, 0.01, 0.2)]
    assert raised == [0, 1, 0, 0, 0, 1]


def test_an_alarm_takes_the_more_telling_kind() -> None:
    """What began as values out of range is a change of unit by the end of the day, and not less again."""

    def of(kind: str) -> dict[str, list[Distance]]:
        return {"24h": [Distance("x", 0.2, 0.2, 0.2, 0.1, kind=kind)]}

    alarms = Alarms()
    assert alarms.update(of("out_of_range")) == [("out_of_range", "x")]
    assert alarms.update(of("unit_change")) == [("unit_change", "x")]
    assert alarms.update(of("data")) == []
    assert alarms.raised == {("unit_change", "x")}
