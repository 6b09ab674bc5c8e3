"""How right the alerts are: precision and recall as they come, and corrected by the control group.

An alert that is acted upon changes what it is judged by: its card is blocked, the fraud does not happen, and
the outcome says genuine. So do the later transactions of the card. Naive figures then fall with every fraud
that was stopped. The control group's alerts are left alone, and each row's chance to be untouched is known:

* before the first alert on its card: 1;
* from the first alert on: the propensity of the control group if the card is in it. Other cards' rows are
  left out.

Totals over the untouched rows, each weighted with the inverse of its chance, are unbiased for what would have
been without acting (Horvitz and Thompson: A generalization of sampling without replacement from a finite
universe, JASA 1952); precision and recall are ratios of two such totals (Hajek 1971), biased by less than
their standard error. Assumed: what is done about a card changes nothing on other cards, and lasts as long as
the window; and the outcome of an alert comes before those of later rows of its card, as rows mature in order.
"""

from __future__ import annotations

import numpy as np

from monitoring.quality import NAN, Bools, Floats, Ints

#: Totals by day, and what is known of alerted cards.
Saved = tuple[dict[int, tuple[float, ...]], dict[int, tuple[int, float]]]
DAY_MS = 86_400_000
#: Cards with an alert in the window that are remembered; the first ones seen go first.
MOST_ALERTED = 200_000


class Totals:
    """Weighted numbers of alerts, of frauds among them, and of all frauds."""

    def __init__(self, alerts: float = 0.0, caught: float = 0.0, frauds: float = 0.0) -> None:
        self.alerts, self.caught, self.frauds = alerts, caught, frauds

    def add(self, fraud: Bools, alert: Bools, weight: Floats) -> None:
        self.alerts += float(weight[alert].sum())
        self.caught += float(weight[alert & fraud].sum())
        self.frauds += float(weight[fraud].sum())

    def merge(self, other: Totals) -> None:
        self.alerts += other.alerts
        self.caught += other.caught
        self.frauds += other.frauds

    @property
    def precision(self) -> float:
        """Share of frauds among the alerts; NaN without an alert."""
        return self.caught / self.alerts if self.alerts else NAN

    @property
    def recall(self) -> float:
        """Share of the frauds that raised an alert; NaN without a fraud."""
        return self.caught / self.frauds if self.frauds else NAN


class _Slot:
    def __init__(self) -> None:
        self.naive, self.corrected, self.control = Totals(), Totals(), Totals()

    def dump(self) -> tuple[float, ...]:
        parts = (self.naive, self.corrected, self.control)
        return tuple(value for part in parts for value in (part.alerts, part.caught, part.frauds))

    @classmethod
    def load(cls, saved: tuple[float, ...]) -> _Slot:
        slot = cls()
        slot.naive, slot.corrected, slot.control = (Totals(*saved[i : i + 3]) for i in (0, 3, 6))
        return slot

    def merge(self, other: _Slot) -> None:
        self.naive.merge(other.naive)
        self.corrected.merge(other.corrected)
        self.control.merge(other.control)


class DecisionQuality:
    """Precision and recall of the alerts among the outcomes of the last `days` days of event time."""

    def __init__(self, days: int = 28) -> None:
        self._days = days
        #: by day
        self._slots: dict[int, _Slot] = {}
        #: time of the first alert of a card, and the chance of its rows to be untouched: 0 if acted upon
        self._alerted: dict[int, tuple[int, float]] = {}

    def update(
        self,
        event_time: Ints,
        card: Ints,
        fraud: Bools,
        alert: Bools,
        control: Bools,
        propensity: Floats,
        sign: int = 1,
    ) -> None:
        """Takes outcomes: believable transaction time (epoch ms), card hash, fraud, whether it raised an
        alert, whether that was left alone, and the chance of that; with `sign` -1 takes them back.
        """
        for row in np.flatnonzero(alert).tolist():
            time, number = int(event_time[row]), int(card[row])
            first = self._alerted.get(number)
            if first is None or time < first[0] or time >= first[0] + self._days * DAY_MS:
                self._alerted[number] = (time, float(propensity[row]) if control[row] else 0.0)
        while len(self._alerted) > MOST_ALERTED:
            del self._alerted[next(iter(self._alerted))]
        weight = self._weights(event_time, card, alert, control)
        weight, ones = sign * weight, np.full(len(fraud), float(sign))
        days = event_time // DAY_MS
        for day in np.unique(days).tolist():
            slot, rows = self._slots.setdefault(day, _Slot()), days == day
            slot.naive.add(fraud[rows], alert[rows], ones[rows])
            slot.corrected.add(fraud[rows], alert[rows], weight[rows])
            slot.control.add(fraud[rows], control[rows], ones[rows])
        newest = max(self._slots, default=0)
        for day in [day for day in self._slots if day <= newest - self._days]:
            del self._slots[day]

    def dump(self) -> Saved:
        """What `load` needs."""
        return {day: slot.dump() for day, slot in self._slots.items()}, self._alerted

    def load(self, saved: Saved) -> None:
        slots, self._alerted = saved
        self._slots = {day: _Slot.load(slot) for day, slot in slots.items()}

    def _merged(self) -> _Slot:
        total = _Slot()
        for slot in self._slots.values():
            total.merge(slot)
        return total

    def naive(self) -> Totals:
        """Totals of the outcomes as they came."""
        return self._merged().naive

    def corrected(self) -> Totals:
        """Estimated totals, had no alert been acted upon; none before the control group has an alert."""
        merged = self._merged()
        return merged.corrected if merged.control.alerts else Totals()

    def control_alerts(self) -> int:
        """Alerts of the control group that the correction stands on."""
        return int(self._merged().control.alerts)

    def _weights(self, event_time: Ints, card: Ints, alert: Bools, control: Bools) -> Floats:
        weight = np.ones(len(card))
        known = self._alerted
        for row, number in enumerate(card.tolist()):
            if number in known:
                since, chance = known[number]
                if event_time[row] >= since:
                    touched = not chance or (alert[row] and not control[row])
                    weight[row] = 0.0 if touched else 1.0 / chance
        return weight
