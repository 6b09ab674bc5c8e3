"""The weeks over which a backtest is judged, and the transactions that count in them.

The protocol of Le Borgne, Siblini, Lebichot, Bontempi: Reproducible Machine Learning for Credit Card Fraud
Detection, chapter 5: on a test day nobody asks any more about a card that is known to be compromised. Known
are its frauds from the training week on, which ends a label delay before the test week, up to a label delay
before the day.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from models.arrays import Bools, Ints
from streams.times import DAY

WEEK = 7


@dataclass(frozen=True, slots=True)
class Fold:
    """Days of event time from `first` on, before `end` (days since 1970), and its rows, as indexes."""

    first: int
    end: int
    rows: npt.NDArray[np.intp]


def folds(
    event_time: Ints, card: Ints, fraud: Bools, start: int | None, end: int | None, label_delay: int | None
) -> list[Fold]:
    """The whole weeks from `start` on and before `end`; where there is none, all of it as one fold.

    Args:
        event_time: epoch ms of n transactions, before and after as well.
        card: their cards, as numbers.
        start: epoch ms; None for the first transaction. Weeks begin with its day (UTC).
        end: epoch ms; None for behind the day of the last transaction.
        label_delay: ms after which a fraud is known, rounded up to days; None for never.
    """
    if not len(event_time):
        return []
    day = event_time // DAY
    first = int(day.min()) if start is None else start // DAY
    behind = int(day.max()) + 1 if end is None else -(-end // DAY)
    inside = np.ones(len(day), np.bool_)
    if start is not None:
        inside &= event_time >= start
    if end is not None:
        inside &= event_time < end
    weeks = [(each, each + WEEK) for each in range(first, behind - WEEK + 1, WEEK)]
    spans = weeks or [(first, behind)]
    return [
        Fold(
            a, b, np.flatnonzero(inside & (day >= a) & (day < b) & ~_known(day, card, fraud, a, label_delay))
        )
        for a, b in spans
    ]


def _known(day: Ints, card: Ints, fraud: Bools, first: int, label_delay: int | None) -> Bools:
    """Which transactions are of a card that is known to be compromised on their day."""
    if label_delay is None:
        return np.zeros(len(day), np.bool_)
    delay = -(-label_delay // DAY)
    cards, place = np.unique(card, return_inverse=True)
    since = np.full(len(cards), np.iinfo(np.int64).max)
    told = fraud & (day >= first - delay - WEEK)
    np.minimum.at(since, place[told], day[told])
    return np.asarray(since[place] <= day - delay - 1, np.bool_)
