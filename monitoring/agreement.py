"""Alerts beside what people said of the same transactions: agreement, precision and recall.

While alerts are held back this tells what the system would have done, before anybody has to rely on it.
"""

from __future__ import annotations

from dataclasses import dataclass

from monitoring.event_windows import EventWindow
from monitoring.quality import NAN, Bools, Ints

DAY_MS = 86_400_000


@dataclass(slots=True)
class Agreement:
    """Counts of transactions: alerted and fraud, alerted only, fraud only, neither."""

    hits: int = 0
    false_alarms: int = 0
    missed: int = 0
    quiet: int = 0

    def merge(self, other: Agreement) -> None:
        self.hits += other.hits
        self.false_alarms += other.false_alarms
        self.missed += other.missed
        self.quiet += other.quiet

    @property
    def rows(self) -> int:
        return self.hits + self.false_alarms + self.missed + self.quiet

    @property
    def agreement(self) -> float:
        """Share of transactions of which the alert and the verdict say the same."""
        return (self.hits + self.quiet) / self.rows if self.rows else NAN

    @property
    def precision(self) -> float:
        """Share of the alerts that were frauds."""
        alerts = self.hits + self.false_alarms
        return self.hits / alerts if alerts else NAN

    @property
    def recall(self) -> float:
        """Share of the frauds that were alerted."""
        frauds = self.hits + self.missed
        return self.hits / frauds if frauds else NAN


class AgreementWindow:
    """The last `days` days of transactions with their outcomes."""

    def __init__(self, days: int = 28) -> None:
        self._days = EventWindow(Agreement, DAY_MS, days)

    def update(self, event_time: Ints, alert: Bools, fraud: Bools) -> None:
        for day, rows in self._days.split(event_time):
            said, was = alert[rows], fraud[rows]
            hits = int((said & was).sum())
            alerts, frauds = int(said.sum()), int(was.sum())
            day.merge(Agreement(hits, alerts - hits, frauds - hits, len(rows) - alerts - frauds + hits))

    def matured(self, until: int) -> Agreement:
        """Of the days that end by `until` (epoch ms): of later ones the verdicts on alerts come first."""
        whole = Agreement()
        for day in self._days.until(until):
            whole.merge(day)
        return whole
