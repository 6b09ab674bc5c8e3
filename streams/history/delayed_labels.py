"""Labels of a history, held until event time has reached their report."""

from __future__ import annotations

import heapq

from streams.contract.records import Label
from streams.contract.transaction_columns import TransactionColumns


class DelayedLabels:
    """Gives the frauds of the transactions added so far, in order of report time, then transaction id.

    `label_delay` is in milliseconds; see `TransactionColumns.reported`.
    """

    def __init__(self, label_delay: int | None, source: str = "chargeback") -> None:
        self._label_delay, self._source = label_delay, source
        self._waiting: list[tuple[int, str, str]] = []

    def __len__(self) -> int:
        return len(self._waiting)

    def add(self, batch: TransactionColumns) -> None:
        rows, times = batch.reported(self._label_delay)
        for row, time in zip(rows.tolist(), times.tolist(), strict=True):
            heapq.heappush(self._waiting, (time, batch.transaction_id[row], batch.card_id[row]))

    def due(self, until: int) -> list[Label]:
        """Takes the labels with `labelled_at <= until` (epoch ms)."""
        labels = []
        while self._waiting and self._waiting[0][0] <= until:
            time, transaction_id, card_id = heapq.heappop(self._waiting)
            labels.append(Label(transaction_id, card_id, True, self._source, time))
        return labels
