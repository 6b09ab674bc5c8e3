"""Analysts with a fixed capacity in a backtest: the best alerts of a day, with the truth back a day later.

The interaction of alerts and feedback of Dal Pozzolo, Boracchi, Caelen, Alippi, Bontempi: Credit card fraud
detection: a realistic modeling and a novel learning strategy, IEEE TNNLS 29, 2018.
"""

from __future__ import annotations

from collections.abc import Container
from itertools import islice

import numpy as np

from streams.contract.records import Label
from streams.stages.columns import Columns
from streams.stages.label_state import ANALYST
from streams.times import DAY


class Investigators:
    """Investigates the alerts with the highest scores of every day, one for a card, and is never wrong.

    Days are UTC, by the watermark at which a transaction was scored; a verdict is given exactly a day after.

    Args:
        frauds: ids of the transactions that are frauds.
        capacity: alerts investigated a day; 0 for none.
    """

    def __init__(self, frauds: Container[str], capacity: int) -> None:
        self._frauds, self._capacity = frauds, capacity
        #: by day: (score, transaction, card, watermark) of its alerts
        self._alerts: dict[int, list[tuple[float, str, str, int]]] = {}
        self._verdicts: list[Label] = []

    def see(self, rows: Columns) -> None:
        """Scored rows; those that raised an alert may be investigated when their day is over."""
        if not self._capacity or not len(rows):
            return
        names, cards = rows.strings["transaction_id"], rows.strings["card_id"]
        scores, watermarks = rows.floats("champion"), rows.ints("watermark")
        for row in np.flatnonzero(rows.bools("alert")).tolist():
            alert = (float(scores[row]), names[row], cards[row], int(watermarks[row]))
            self._alerts.setdefault(alert[3] // DAY, []).append(alert)

    def due(self, until: int) -> list[Label]:
        """Takes the verdicts with `labelled_at <= until` (epoch ms), all of whose days have been seen."""
        for day in [day for day in sorted(self._alerts) if (day + 1) * DAY <= until]:
            self._verdicts += self._investigate(self._alerts.pop(day))
        given = [label for label in self._verdicts if label.labelled_at <= until]
        self._verdicts = [label for label in self._verdicts if label.labelled_at > until]
        return given

    def _investigate(self, alerts: list[tuple[float, str, str, int]]) -> list[Label]:
        best: dict[str, tuple[float, str, str, int]] = {}
        for alert in sorted(alerts, key=lambda alert: (-alert[0], alert[1])):
            best.setdefault(alert[2], alert)
        chosen = sorted(islice(best.values(), self._capacity), key=lambda alert: alert[3])
        return [
            Label(transaction, card, transaction in self._frauds, ANALYST, watermark + DAY)
            for _, transaction, card, watermark in chosen
        ]
