"""Model quality by days of event time, from matured outcomes, in bounded memory.

Scores are counted in fixed bins, equally wide in the logit, so that the crowd of scores near 0 is resolved as
finely as the few near 1. Average precision and AUC treat the scores of one bin as ties. Everything counted is
a whole number: what came in does not depend on its order, and an outcome can be taken back.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import numpy as np

from monitoring.quality import NAN, Bools, Floats, Ints, ap_of_counts, auc_of_counts

BINS = 2048
LOGIT_RANGE = 14.0
DAY_MS = 86_400_000
#: Days that a figure looks back over.
DAYS = 28
#: Ends the name of a model whose scores are those of rules that stood in for it.
STAND_IN = "/0"
#: Scores are summed in millionths.
_UNIT = 1_000_000


def logit_bins(score: Floats) -> Ints:
    """The bin of each score in 0..1."""
    clipped = np.clip(score, 1e-9, 1 - 1e-9)
    logit = np.log(clipped / (1 - clipped))
    return np.clip((logit + LOGIT_RANGE) * (BINS / (2 * LOGIT_RANGE)), 0, BINS - 1).astype(np.int64)


class ScoreSketch:
    """Counts and score sums of genuine and fraudulent outcomes per logit bin; 48 KB.

    Args:
        counts: i64[3, BINS]: genuine, fraud, sum of the scores in millionths; None for an empty one.
    """

    def __init__(self, counts: Ints | None = None) -> None:
        self.counts = np.zeros((3, BINS), dtype=np.int64) if counts is None else counts

    def update(self, truth: Bools, score: Floats, sign: int = 1) -> None:
        """Counts rows of 0..1 scores, or takes them back; rows without a finite score are left out."""
        known = np.isfinite(score)
        truth, score = truth[known], score[known]
        index = logit_bins(score)
        # Not by counting all bins: most updates have few rows.
        np.add.at(self.counts[0], index[~truth], sign)
        np.add.at(self.counts[1], index[truth], sign)
        np.add.at(self.counts[2], index, sign * np.round(score * _UNIT).astype(np.int64))

    def merge(self, other: ScoreSketch) -> None:
        self.counts += other.counts

    @property
    def genuine(self) -> Ints:
        """Genuine outcomes by bin."""
        found: Ints = self.counts[0]
        return found

    @property
    def fraud(self) -> Ints:
        """Frauds by bin."""
        found: Ints = self.counts[1]
        return found

    @property
    def rows(self) -> int:
        return int(self.counts[:2].sum())

    @property
    def frauds(self) -> int:
        return int(self.counts[1].sum())

    def average_precision(self) -> float:
        return ap_of_counts(self.counts[0].astype(np.float64), self.counts[1].astype(np.float64))

    def roc_auc(self) -> float:
        return auc_of_counts(self.counts[0].astype(np.float64), self.counts[1].astype(np.float64))

    def precision(self, n: int) -> float:
        """Share of frauds among the n highest scores; of the last bin that is reached, as large as in it."""
        if n <= 0 or self.rows < n:
            return NAN
        flagged = np.cumsum((self.genuine + self.fraud)[::-1])
        caught = np.cumsum(self.fraud[::-1])
        last = int(np.searchsorted(flagged, n))
        before = flagged[last - 1] if last else 0.0
        frauds = caught[last - 1] if last else 0.0
        share = (n - before) / (flagged[last] - before)
        return float((frauds + share * (caught[last] - frauds)) / n)

    def calibration_error(self, bins: int = 15) -> float:
        """Expected calibration error over equal-width bins; a logit bin belongs where its mean score lies."""
        rows = self.counts[0] + self.counts[1]
        used = rows > 0
        if not used.any():
            return NAN
        scores = self.counts[2][used] / _UNIT
        coarse = np.minimum((scores / rows[used] * bins).astype(np.int64), bins - 1)
        gap = np.bincount(coarse, weights=self.counts[1][used] - scores, minlength=bins)
        return float(np.abs(gap).sum() / rows.sum())


class CardDay:
    """The most suspect cards of one day: highest score and how many outcomes were frauds.

    Holds at most `capacity` cards. A card pushed out by more suspect ones returns if it scores high again,
    without its earlier outcomes; with a capacity many times k this does not reach the k cards that count.
    """

    def __init__(self, capacity: int = 2_000) -> None:
        self._capacity = capacity
        self._floor = -np.inf
        self.cards: dict[int, tuple[float, int]] = {}

    def update(self, card: Ints, truth: Bools, score: Floats, sign: int = 1) -> None:
        # Below every held card a row can only matter by being a fraud.
        relevant = np.isfinite(score) & ((score >= self._floor) | truth)
        card, truth, score = card[relevant], truth[relevant], score[relevant]
        cards = self.cards
        for number, fraud, value in zip(card.tolist(), truth.tolist(), score.tolist(), strict=True):
            highest, frauds = cards.get(number, (-np.inf, 0))
            cards[number] = (max(highest, value), frauds + sign * fraud)
        if len(cards) > 2 * self._capacity:
            best = sorted(cards.items(), key=lambda item: (-item[1][0], item[0]))
            self.cards = dict(best[: self._capacity])
            self._floor = best[self._capacity - 1][1][0]

    def merge(self, other: CardDay) -> None:
        for number, (value, caught) in other.cards.items():
            highest, frauds = self.cards.get(number, (-np.inf, 0))
            self.cards[number] = (max(highest, value), frauds + caught)

    def precision(self, k: int) -> float:
        """Share of the k most suspect cards with a fraud; the divisor is always k."""
        best = sorted(self.cards.items(), key=lambda item: (-item[1][0], item[0]))[:k]
        return sum(frauds > 0 for _, (_, frauds) in best) / k


class DayQuality:
    """One model's scores on the outcomes of one day."""

    def __init__(self) -> None:
        self.scores = ScoreSketch()
        self.cards = CardDay()

    def update(self, card: Ints, truth: Bools, score: Floats, sign: int = 1) -> None:
        """Takes outcomes, or takes them back: card hash, fraud, and the score given then."""
        self.scores.update(truth, score, sign)
        self.cards.update(card, truth, score, sign)

    def merge(self, other: DayQuality) -> None:
        self.scores.merge(other.scores)
        self.cards.merge(other.cards)


def by_role(models: Mapping[str, DayQuality]) -> dict[str, DayQuality]:
    """One day's scores by role, whichever models have had it; of models named `ROLE:NAME`."""
    found: dict[str, list[DayQuality]] = {}
    for model, quality in models.items():
        found.setdefault(role_of(model), []).append(quality)
    roles = {}
    for role, each in found.items():
        if len(each) == 1:
            roles[role] = each[0]
        else:
            roles[role] = DayQuality()
            for quality in each:
                roles[role].merge(quality)
    return roles


def role_of(model: str) -> str:
    """The role of a model named `ROLE:NAME`; every shadow has one of its own, rules in its place or not."""
    return model.removesuffix(STAND_IN) if model.startswith("shadow:") else model.partition(":")[0]


def merged(days: Iterable[DayQuality]) -> ScoreSketch:
    """The scores of several days."""
    total = ScoreSketch()
    for day in days:
        total.merge(day.scores)
    return total


def card_precision(days: Iterable[DayQuality], k: int = 100) -> float:
    """Mean CP@k over the days; NaN without one. Unlike the batch protocol, a card caught on one day stays in
    the later ones.
    """
    shares = [day.cards.precision(k) for day in days]
    return float(np.mean(shares)) if shares else NAN
