"""Confidence intervals of AUC, average precision and CP@k, from cards drawn again.

What is drawn is the card, with all of its transactions (cluster bootstrap: Field, Welsh: Bootstrapping
clustered data, JRSS B 69, 2007): the frauds of one card come together, and CP@k counts cards. In a replicate
every card is there Poisson(1) times (Hanley, MacGibbon: Creating non-parametric bootstrap samples using
Poisson frequencies, Computer Methods and Programs in Biomedicine 83, 2006). How often comes from a hash of
its number, not from a generator: the same on every machine, for every model and in every week, so that
differences of models are paired. Intervals are percentiles (Efron, Tibshirani: An Introduction to the
Bootstrap, 1993, chapter 13).

What frauds of different cards have in common, a terminal or a day, is not drawn again: where that weighs,
intervals are too narrow, which the spread of the weeks shows.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from monitoring.quality import NAN, Bools, Floats, Ints, by_card

Counts = npt.NDArray[np.uint8]
U64 = npt.NDArray[np.uint64]

REPLICATES = 1000
#: Share of the replicates within an interval.
CONFIDENCE = 0.95
_MOST = 20
_CHANCES = np.cumsum([math.exp(-1.0) / math.factorial(times) for times in range(_MOST)])
#: Poisson(1) by inversion: a uniform 64-bit number below the n-th limit is a count below n + 1.
_LIMITS = np.array([min(int(chance * 2.0**64), 2**64 - 1) for chance in _CHANCES], np.uint64)


@dataclass(frozen=True, slots=True)
class Estimates:
    """A measure on the sample, and on every replicate (r,); NaN where it is undefined."""

    value: float
    replicates: Floats

    @property
    def interval(self) -> tuple[float, float]:
        """Lower and upper end; NaN without a replicate in which the measure is defined."""
        defined = self.replicates[np.isfinite(self.replicates)]
        if not len(defined):
            return NAN, NAN
        low, high = np.quantile(defined, [(1 - CONFIDENCE) / 2, (1 + CONFIDENCE) / 2])
        return float(low), float(high)

    def __sub__(self, other: Estimates) -> Estimates:
        return Estimates(self.value - other.value, self.replicates - other.replicates)


def mean(estimates: list[Estimates]) -> Estimates:
    """The mean of a measure over several samples of the same cards, such as weeks; not of an empty list."""
    return Estimates(
        float(np.mean([each.value for each in estimates])),
        np.mean([each.replicates for each in estimates], axis=0),
    )


def ranking(card: Ints, truth: Bools, score: Floats, replicates: int = REPLICATES) -> list[Estimates]:
    """AUC ROC and average precision, as `monitoring.quality` has them, of one row per transaction."""
    order = np.argsort(score, kind="stable")
    cards, place = np.unique(card[order], return_inverse=True)
    score, frauds = score[order], np.flatnonzero(truth[order])
    # The ranks of a fraud: rows from `first` on score as high, rows from `behind` on score higher.
    first = np.searchsorted(score, score[frauds], side="left")
    behind = np.searchsorted(score, score[frauds], side="right")
    cuts, found = np.unique(np.concatenate([[0], first, behind]), return_inverse=True)
    segments = cuts[cuts < len(score)]
    first_fraud = np.searchsorted(frauds, first, side="left")
    behind_fraud = np.searchsorted(frauds, behind, side="left")
    first_cut, behind_cut = np.split(found[1:], 2)

    def once(times: npt.NDArray[np.integer]) -> tuple[float, float]:
        """Sums of integers until the end, so that the order of adding does not matter."""
        rows = times[place]
        below = _cumulated(np.add.reduceat(rows, segments, dtype=np.int64))
        caught = _cumulated(rows[frauds].astype(np.int64))
        total, positives, weight = below[-1], caught[-1], rows[frauds].astype(np.float64)
        if not positives:
            return NAN, NAN
        higher = caught[-1] - caught[first_fraud]
        flagged = total - below[first_cut]
        precision = float((weight * higher / np.maximum(flagged, 1)).sum() / positives)
        if positives == total:
            return NAN, precision
        outscored = below[first_cut] - caught[first_fraud] + below[behind_cut] - caught[behind_fraud]
        return float((weight * outscored).sum() / (2.0 * positives * (total - positives))), precision

    if not len(frauds):
        return [Estimates(NAN, np.full(replicates, NAN))] * 2
    times = card_counts(cards.view(np.uint64), replicates)
    drawn = np.array([once(times[number]) for number in range(replicates)]).reshape(replicates, 2)
    point = once(np.ones(len(cards), np.uint8))
    return [Estimates(value, drawn[:, column]) for column, value in enumerate(point)]


def card_precision(
    card: Ints, day: Ints, truth: Bools, score: Floats, k: int = 100, replicates: int = REPLICATES
) -> Estimates:
    """CP@k, as `monitoring.quality.card_precision` has it; a card that is there n times is n cards."""
    cards, place = np.unique(card, return_inverse=True)
    # The sample itself is the first replicate.
    left = np.vstack([np.ones(len(cards), np.uint8), card_counts(cards.view(np.uint64), replicates)]).T
    shares: list[Floats] = []
    for today in np.unique(day):
        rows = np.flatnonzero(day == today)
        here, highest, defrauded = by_card(place[rows], truth[rows], score[rows])
        order = np.argsort(-highest, kind="stable")
        size = 4 * k  # few more are looked at than inspected
        while True:
            top, bad = here[order[:size]], defrauded[order[:size], None]
            there = left[top].astype(np.int64)
            until = np.cumsum(there, axis=0)
            if size >= len(order) or until[-1].min() >= k:
                break
            size *= 2
        caught = np.clip(k - (until - there), 0, there) * bad
        shares.append(caught.sum(axis=0) / k)
        left[top] -= caught.astype(np.uint8)
    if not shares:
        return Estimates(NAN, np.full(replicates, NAN))
    found = np.mean(shares, axis=0)
    return Estimates(float(found[0]), found[1:])


def card_counts(cards: U64, replicates: int) -> Counts:
    """How often each of n cards is there: u8[replicates, n], Poisson(1), a function of both numbers alone."""
    seeds = _mix(np.arange(1, replicates + 1, dtype=np.uint64))
    drawn = _mix(_mix(cards)[None, :] ^ seeds[:, None])
    return np.searchsorted(_LIMITS, drawn, side="right").astype(np.uint8)


def _mix(numbers: U64) -> U64:
    """SplitMix64 (Steele, Lea, Flood: Fast splittable pseudorandom number generators, OOPSLA 2014)."""
    z = numbers + np.uint64(0x9E3779B97F4A7C15)
    z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    mixed: U64 = z ^ (z >> np.uint64(31))
    return mixed


def _cumulated(counts: Ints) -> Ints:
    """Sums of the first 0, 1, … counts."""
    return np.concatenate([[0], np.cumsum(counts)])
