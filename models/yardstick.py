"""Outcomes of the last days, by which two versions of a model are compared.

Of each day a few frauds and genuine outcomes are kept, so that none says more the more comes in it. What
counts is the median of the days: poison in fewer than half of them moves it no further than the other days
lie apart (no measure has a higher breakdown point; Huber: Robust statistics, 1981).

Days are those in which outcomes took effect, not those in which somebody gave the labels. Labels given on one
day about transactions without an alert take effect as these mature: with a maturity of seven days, over seven
days. A label of an alert takes effect when it says that it was given, and whoever writes it chooses the day
until the transaction matures. So the labels of one day may reach most of the days kept, and then the median
does not help. What an origin is bounded by (`models/label_floods.py`) holds here, too.

Two losses are compared. 1 - AUC tells scores that rank wrongly. The normalised entropy tells scores that are
wrong by a factor: log loss over that of a constant guess of the share of frauds (He et al.: Practical lessons
from predicting clicks on ads at Facebook, ADKDD 2014).
"""

from __future__ import annotations

import heapq
from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np

from models.arrays import Bools, Floats
from models.scorers.base import FrozenScorer

DAY = 86_400_000
#: Days kept, the newest of which may be under way.
DAYS_KEPT = 8
#: Kept of a day.
MOST_FRAUDS, MOST_GENUINE = 80, 240
#: A day with fewer says nothing.
LEAST_FRAUDS, LEAST_GENUINE = 5, 50
#: Fewer days say nothing.
LEAST_DAYS = 3
_MIX, _WORDS = 0xD1342543DE82EF95, 2**64
#: A fraud that is scored lower costs no more.
_LOWEST = 1e-4


#: Minus the rank of an outcome, those of the lowest ranks stay; its features, f64[k] as bytes.
Kept = tuple[int, bytes]


@dataclass(slots=True)
class Sample:
    """Outcomes of one day: of ``n_frauds`` frauds and ``n_genuine`` others a few, as heaps."""

    n_frauds: int = 0
    n_genuine: int = 0
    frauds: list[Kept] = field(default_factory=list)
    genuine: list[Kept] = field(default_factory=list)

    @property
    def suffices(self) -> bool:
        """Whether the day can say anything."""
        return len(self.frauds) >= LEAST_FRAUDS and len(self.genuine) >= LEAST_GENUINE

    def add(self, rank: int, fraud: bool, features: bytes) -> None:
        if fraud:
            self.n_frauds += 1
        else:
            self.n_genuine += 1
        held, most = (self.frauds, MOST_FRAUDS) if fraud else (self.genuine, MOST_GENUINE)
        if len(held) >= most and -rank <= held[0][0]:
            return
        if not np.isfinite(np.frombuffer(features)).all():
            return  # no model can score it
        (heapq.heappush if len(held) < most else heapq.heapreplace)(held, (-rank, features))


@dataclass(frozen=True, slots=True)
class Loss:
    """Medians over the days; ``worse_by`` is the median of their differences, candidate minus reference."""

    candidate: float
    reference: float
    worse_by: float


@dataclass(frozen=True, slots=True)
class Comparison:
    """Two versions over so many days.

    :ivar ranking: 1 - AUC: share of the pairs of a fraud and a genuine outcome in which the latter scores
        higher, ties by half.
    :ivar entropy: normalised entropy.
    """

    days: int
    ranking: Loss
    entropy: Loss


class Yardstick:
    """The outcomes kept, and the comparison.

    :ivar days: samples by day of effect.
    """

    def __init__(self, days: Mapping[int, Sample] | None = None) -> None:
        self.days = dict(days or {})

    def add(self, time: int, transaction: int, fraud: bool, features: bytes) -> None:
        """An outcome that has taken effect.

        :param time: when, epoch milliseconds.
        :param transaction: its hash, which decides whether it is kept.
        :param features: f64[k] as bytes.
        """
        day = time // DAY
        sample = self.days.get(day)
        if sample is None:
            sample = self.days[day] = Sample()
            for old in sorted(self.days)[:-DAYS_KEPT]:
                del self.days[old]
        sample.add((transaction * _MIX % _WORDS) >> 1, fraud, features)

    def compare(
        self,
        candidate: FrozenScorer,
        reference: FrozenScorer,
        *,
        least_frauds: int,
        keep_one_in: int = 1,
    ) -> Comparison | None:
        """Both on the same outcomes; None where too little is known.

        :param least_frauds: fewer, all days together, say nothing.
        :param keep_one_in: of the genuine outcomes of the stream one in so many has come in here.
        """
        samples = [each for _, each in sorted(self.days.items()) if each.suffices]
        if len(samples) < LEAST_DAYS or sum(len(each.frauds) for each in samples) < least_frauds:
            return None
        shares = [each.n_frauds / (each.n_frauds + each.n_genuine * keep_one_in) for each in samples]
        share = float(np.median(shares))
        losses = np.array(
            [[_losses(scorer, each, share) for each in samples] for scorer in (candidate, reference)]
        )
        middle, worse = np.median(losses, axis=1), np.median(losses[0] - losses[1], axis=0)
        ranking, entropy = (
            Loss(float(middle[0, which]), float(middle[1, which]), float(worse[which])) for which in range(2)
        )
        return Comparison(len(samples), ranking, entropy)


def _losses(scorer: FrozenScorer, sample: Sample, share: float) -> tuple[float, float]:
    """1 - AUC, and the normalised entropy at that share of frauds; no probability costs most."""
    kept = [*sample.frauds, *sample.genuine]
    x = np.frombuffer(b"".join(features for _, features in kept)).reshape(len(kept), -1)
    fraud = np.arange(len(kept)) < len(sample.frauds)
    p = np.asarray(scorer.score(x), np.float64)
    p = np.where((p >= 0.0) & (p <= 1.0), p, ~fraud)
    return _overtaken(p, fraud), _entropy(p, fraud, share)


def _overtaken(p: Floats, fraud: Bools) -> float:
    genuine = np.sort(p[~fraud])
    lower, upper = (np.searchsorted(genuine, p[fraud], side) for side in ("left", "right"))
    return float(1.0 - (lower + upper).mean() / (2 * len(genuine)))


def _entropy(p: Floats, fraud: Bools, share: float) -> float:
    given = np.clip(np.where(fraud, p, 1.0 - p), _LOWEST, 1.0)
    of_frauds, of_genuine = -np.log(given[fraud]).mean(), -np.log(given[~fraud]).mean()
    guess = -share * np.log(share) - (1.0 - share) * np.log(1.0 - share)
    return float((share * of_frauds + (1.0 - share) * of_genuine) / guess)
