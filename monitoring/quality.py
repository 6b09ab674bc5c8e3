"""How well scores rank and calibrate: exact functions over arrays.

All take one row per transaction: `truth` (bool, confirmed fraud) and `score` (float, higher is more suspect),
and give NaN where the measure is undefined (an empty input, or one class only). Ties in the score are one
rank.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]
Bools = npt.NDArray[np.bool_]
Ints = npt.NDArray[np.int64]
NAN = float("nan")


def roc_auc(truth: Bools, score: Floats) -> float:
    """Area under the ROC curve: the chance that a fraud outscores a genuine one, ties counting one half."""
    return auc_of_counts(*_counts_by_score(truth, score))


def average_precision(truth: Bools, score: Floats) -> float:
    """Sum over thresholds of (recall gained) x precision, without interpolation."""
    return ap_of_counts(*_counts_by_score(truth, score))


def auc_of_counts(genuine: Floats, fraud: Floats) -> float:
    """ROC AUC of (b,) counts of genuine and fraudulent rows per score value, in rising order of score."""
    negatives, positives = genuine.sum(), fraud.sum()
    if not negatives or not positives:
        return NAN
    below = np.cumsum(genuine) - genuine
    return float((fraud * (below + genuine / 2)).sum() / (negatives * positives))


def ap_of_counts(genuine: Floats, fraud: Floats) -> float:
    """Average precision of (b,) counts of genuine and fraudulent rows per score value, by rising score."""
    positives = fraud.sum()
    if not positives:
        return NAN
    caught = np.cumsum(fraud[::-1])
    flagged = caught + np.cumsum(genuine[::-1])
    gained = fraud[::-1]
    used = gained > 0
    return float((gained[used] * caught[used] / flagged[used]).sum() / positives)


def calibration_error(truth: Bools, score: Floats, bins: int = 15) -> float:
    """Expected calibration error over equal-width bins: mean |share of frauds - mean score|, weighted by
    rows.

    Scores must lie in 0..1. Naeini, Cooper, Hauskrecht: Obtaining Well Calibrated Probabilities Using
    Bayesian Binning (AAAI 2015).
    """
    if not len(score):
        return NAN
    index = np.minimum((score * bins).astype(np.int64), bins - 1)
    frauds = np.bincount(index, weights=truth, minlength=bins)
    scores = np.bincount(index, weights=score, minlength=bins)
    return float(np.abs(frauds - scores).sum() / len(score))


def card_precision(card: Ints, day: Ints, truth: Bools, score: Floats, k: int = 100) -> float:
    """Card precision at k (CP@k): each day the k cards with the highest score of the day are inspected.

    Precision is over the k inspections, averaged over the days present; a card caught on one day leaves the
    later ones, and ties go to the smaller card number. Le Borgne et al.: Reproducible Machine Learning for
    Credit Card Fraud Detection, chapter 4.
    """
    caught: set[int] = set()
    shares: list[float] = []
    for today in np.unique(day):
        rows = np.flatnonzero(day == today)
        cards, highest, defrauded = by_card(card[rows], truth[rows], score[rows])
        eligible = np.array([number not in caught for number in cards.tolist()], dtype=np.bool_)
        cards, highest, defrauded = cards[eligible], highest[eligible], defrauded[eligible]
        inspected = np.argsort(-highest, kind="stable")[:k]
        hits = inspected[defrauded[inspected]]
        caught.update(cards[hits].tolist())
        shares.append(len(hits) / k)
    return float(np.mean(shares)) if shares else NAN


def by_card(card: Ints, truth: Bools, score: Floats) -> tuple[Ints, Floats, Bools]:
    """Each card (c,) once, by number: its highest score, and whether any of its rows is a fraud."""
    cards, inverse = np.unique(card, return_inverse=True)
    highest = np.full(len(cards), -np.inf)
    np.maximum.at(highest, inverse, score)
    defrauded = np.zeros(len(cards), dtype=np.bool_)
    np.logical_or.at(defrauded, inverse, truth)
    return cards, highest, defrauded


def _counts_by_score(truth: Bools, score: Floats) -> tuple[Floats, Floats]:
    values, inverse = np.unique(score, return_inverse=True)
    frauds = np.bincount(inverse[truth], minlength=len(values)).astype(np.float64)
    genuine = np.bincount(inverse[~truth], minlength=len(values)).astype(np.float64)
    return genuine, frauds
