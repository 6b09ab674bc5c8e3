"""The work every per-event contender does, so that only the framework around it differs.

JSON transaction → exact 24 h and 7 d windows of the card (count, mean amount) → River logistic regression
and a pre-trained Hoeffding tree → score document, alert above the threshold. Models are trained at start-up
from a fixed seed, hence equal in every process without a pickle travelling between interpreters.
"""

from __future__ import annotations

import os
import random
from collections import deque
from dataclasses import dataclass, field
from typing import TypedDict

from river import linear_model, optim, preprocessing, tree

DAY = 86_400_000
THRESHOLD = 0.9
FEATURES = ("amount", "night", "count_24h", "mean_24h", "count_7d", "mean_7d")


class Transaction(TypedDict):
    """The fields of the contract's transaction that the work reads."""

    transaction_id: str
    card_id: str
    terminal_id: str
    event_time: int
    amount_minor: int
    currency: str


Features = dict[str, float]
Document = dict[str, object]


@dataclass(frozen=True, slots=True)
class RunSettings:
    """What the harness tells a contender through the environment."""

    broker: str
    source: str
    scores: str
    alerts: str
    group: str
    directory: str
    partitions: int

    @staticmethod
    def from_environment() -> RunSettings:
        """Read `BENCH_*`; a missing one is a KeyError naming it."""
        read = os.environ
        return RunSettings(
            broker=read["BENCH_BROKER"],
            source=read["BENCH_SOURCE"],
            scores=read["BENCH_SCORES"],
            alerts=read["BENCH_ALERTS"],
            group=read["BENCH_GROUP"],
            directory=read["BENCH_DIRECTORY"],
            partitions=int(read["BENCH_PARTITIONS"]),
        )


@dataclass(slots=True)
class CardWindows:
    """The windows `(t - w, t]` of one card: a deque of (time, amount) for each window and its running sum."""

    day: deque[tuple[int, float]] = field(default_factory=deque)
    week: deque[tuple[int, float]] = field(default_factory=deque)
    day_sum: float = 0.0
    week_sum: float = 0.0

    def add(self, time: int, amount: float) -> Features:
        """Add one transaction and give the features at its time."""
        self.day.append((time, amount))
        self.week.append((time, amount))
        self.day_sum += amount
        self.week_sum += amount
        while self.day[0][0] <= time - DAY:
            self.day_sum -= self.day.popleft()[1]
        while self.week[0][0] <= time - 7 * DAY:
            self.week_sum -= self.week.popleft()[1]
        return features_of(time, amount, len(self.day), self.day_sum, len(self.week), self.week_sum)


def features_of(
    time: int, amount: float, day_count: int, day_sum: float, week_count: int, week_sum: float
) -> Features:
    """The feature dictionary River reads."""
    return {
        "amount": amount,
        "night": 1.0 if time % DAY < 6 * 3_600_000 else 0.0,
        "count_24h": float(day_count),
        "mean_24h": day_sum / day_count,
        "count_7d": float(week_count),
        "mean_7d": week_sum / week_count,
    }


def window_features(
    history: list[list[float]], time: int, amount: float
) -> tuple[Features, list[list[float]]]:
    """The same features over a plain list of [time, amount]: for frameworks that store a card's state as
    JSON.

    Returns the features and the history to store, without what has left the longest window.
    """
    kept = [entry for entry in history if entry[0] > time - 7 * DAY]
    kept.append([time, amount])
    day = [entry[1] for entry in kept if entry[0] > time - DAY]
    week_sum = sum(entry[1] for entry in kept)
    return features_of(time, amount, len(day), sum(day), len(kept), week_sum), kept


class Models:
    """A champion and one shadow, trained on seeded examples."""

    def __init__(self, examples: int = 12_000, seed: int = 11) -> None:
        self.champion = preprocessing.StandardScaler() | linear_model.LogisticRegression(optim.SGD(0.05))
        self.shadow = tree.HoeffdingTreeClassifier(grace_period=50, delta=1e-3, tau=0.2, max_depth=8)
        draw = random.Random(seed)
        for _ in range(examples):
            mean = draw.uniform(1_000.0, 10_000.0)
            stolen = draw.random() < 0.1
            amount = max(draw.gauss(mean, mean / 2.0), 100.0) * (draw.uniform(2.0, 5.0) if stolen else 1.0)
            day, week = draw.randint(1, 8 if stolen else 4), draw.randint(8, 20)
            x = features_of(draw.randrange(DAY), amount, day, mean * day, week, mean * week)
            self.champion.learn_one(x, stolen)
            self.shadow.learn_one(x, stolen)

    def score(self, x: Features) -> tuple[float, float]:
        """Probabilities of fraud by champion and shadow."""
        return (
            float(self.champion.predict_proba_one(x).get(True, 0.0)),
            float(self.shadow.predict_proba_one(x).get(True, 0.0)),
        )


def score_document(transaction: Transaction, x: Features, champion: float, shadow: float) -> Document:
    """A score document with the fields of the contract that do not need deployment state."""
    return {
        "transaction_id": transaction["transaction_id"],
        "card_id": transaction["card_id"],
        "terminal_id": transaction["terminal_id"],
        "event_time": transaction["event_time"],
        "amount_minor": transaction["amount_minor"],
        "currency": transaction["currency"],
        "score": champion,
        "threshold": THRESHOLD,
        "alert": champion >= THRESHOLD,
        "arm": "champion",
        "model": {"name": "logistic", "version": 1},
        "shadows": [{"name": "hoeffding_tree", "version": 1, "score": shadow}],
        "features": list(x.values()),
    }
