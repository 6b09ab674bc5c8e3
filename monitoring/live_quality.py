"""Model quality over a sliding event-time window of matured outcomes, in bounded memory.

Scores are counted in fixed bins, equally wide in the logit, so that the crowd of scores near 0 is resolved as
finely as the few near 1. Average precision and AUC treat the scores of one bin as ties.
"""

from __future__ import annotations

import numpy as np

from monitoring.event_windows import EventWindow
from monitoring.quality import NAN, Bools, Floats, Ints, ap_of_counts, auc_of_counts

BINS = 2048
LOGIT_RANGE = 14.0
DAY_MS = 86_400_000


class ScoreSketch:
    """Counts and score sums of genuine and fraudulent outcomes per logit bin; 48 KB."""

    def __init__(self) -> None:
        self.genuine = np.zeros(BINS)
        self.fraud = np.zeros(BINS)
        self.score_sum = np.zeros(BINS)

    def update(self, truth: Bools, score: Floats) -> None:
        """Counts rows of 0..1 scores; rows without a finite score are left out."""
        known = np.isfinite(score)
        truth, score = truth[known], score[known]
        clipped = np.clip(score, 1e-9, 1 - 1e-9)
        logit = np.log(clipped / (1 - clipped))
        index = np.clip((logit + LOGIT_RANGE) * (BINS / (2 * LOGIT_RANGE)), 0, BINS - 1).astype(np.int64)
        frauds = np.bincount(index, weights=truth, minlength=BINS)
        self.fraud += frauds
        self.genuine += np.bincount(index, minlength=BINS) - frauds
        self.score_sum += np.bincount(index, weights=score, minlength=BINS)

    def merge(self, other: ScoreSketch) -> None:
        self.genuine += other.genuine
        self.fraud += other.fraud
        self.score_sum += other.score_sum

    @property
    def rows(self) -> int:
        return int(self.genuine.sum() + self.fraud.sum())

    @property
    def frauds(self) -> int:
        return int(self.fraud.sum())

    def average_precision(self) -> float:
        return ap_of_counts(self.genuine, self.fraud)

    def roc_auc(self) -> float:
        return auc_of_counts(self.genuine, self.fraud)

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
        rows = self.genuine + self.fraud
        used = rows > 0
        if not used.any():
            return NAN
        mean = self.score_sum[used] / rows[used]
        coarse = np.minimum((mean * bins).astype(np.int64), bins - 1)
        gap = np.bincount(coarse, weights=self.fraud[used] - self.score_sum[used], minlength=bins)
        return float(np.abs(gap).sum() / rows.sum())


class CardDay:
    """The most suspect cards of one day: highest score and whether any outcome was a fraud.

    Holds at most `capacity` cards. A card pushed out by more suspect ones returns if it scores high again,
    without its earlier outcomes; with a capacity many times k this does not reach the k cards that count.
    """

    def __init__(self, capacity: int) -> None:
        self._capacity = capacity
        self._floor = -np.inf
        self._cards: dict[int, tuple[float, bool]] = {}

    def update(self, card: Ints, truth: Bools, score: Floats) -> None:
        # Below every held card a row can only matter by being a fraud.
        relevant = (score >= self._floor) | truth
        card, truth, score = card[relevant], truth[relevant], score[relevant]
        cards = self._cards
        for number, fraud, value in zip(card.tolist(), truth.tolist(), score.tolist(), strict=True):
            held = cards.get(number)
            cards[number] = (value, fraud) if held is None else (max(held[0], value), held[1] or fraud)
        if len(cards) > 2 * self._capacity:
            best = sorted(cards.items(), key=lambda item: (-item[1][0], item[0]))
            self._cards = dict(best[: self._capacity])
            self._floor = best[self._capacity - 1][1][0]

    def merge(self, other: CardDay) -> None:
        for number, (value, fraud) in other._cards.items():
            held = self._cards.get(number, (-np.inf, False))
            self._cards[number] = (max(held[0], value), held[1] or fraud)

    def precision(self, k: int) -> float:
        """Share of the k most suspect cards with a fraud; the divisor is always k."""
        best = sorted(self._cards.items(), key=lambda item: (-item[1][0], item[0]))[:k]
        return sum(fraud for _, (_, fraud) in best) / k


class RoleQuality:
    """Quality of one role's scores over the last `days` days of matured outcomes."""

    def __init__(self, days: int = 28, k: int = 100, card_capacity: int = 2_000) -> None:
        self._k = k
        self._scores = EventWindow(ScoreSketch, DAY_MS, days)
        self._cards = EventWindow(lambda: CardDay(card_capacity), DAY_MS, days)

    def update(self, event_time: Ints, card: Ints, truth: Bools, score: Floats) -> None:
        """Takes matured outcomes: transaction time (epoch ms), card hash, fraud, and the score given then."""
        for sketch, rows in self._scores.split(event_time):
            sketch.update(truth[rows], score[rows])
        for day, rows in self._cards.split(event_time):
            day.update(card[rows], truth[rows], score[rows])

    def scores(self) -> ScoreSketch:
        """The window's sketch, with average precision, AUC and calibration error."""
        return self._scores.merged()

    def card_precision(self) -> float:
        """Mean CP@k over the window's days but the newest, which is not complete; NaN before that.

        Unlike the batch protocol, a card caught on one day stays in the later ones.
        """
        days = self._cards.older()
        return float(np.mean([day.precision(self._k) for day in days])) if days else NAN
