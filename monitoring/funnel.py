"""What analysts do with alerts: shown, opened, confirmed or dismissed, counted in the slot of the alert.

An action belongs to the window of its alert, whenever it comes. An action repeated counts once; of several
decisions on one alert the latest holds; an opened or decided alert counts as shown even if the event that
said so was lost. The order in which actions are read changes nothing.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from monitoring.tallies import Tally

NAN = float("nan")
DECISIONS = ("confirmed", "dismissed")
STEPS = ("shown", "opened", *DECISIONS)
_NEVER = -(2**62)


@dataclass(frozen=True, slots=True)
class Progress:
    """How far an alert has come.

    Args:
        opened: somebody looked at it.
        decision: `confirmed`, `dismissed`, or empty.
        decided_at: action time of that decision, epoch ms.
        shown: it was on somebody's screen.
    """

    shown: bool = False
    opened: bool = False
    decision: str = ""
    decided_at: int = _NEVER

    def after(self, action: str, action_time: int) -> Progress:
        """With one more action; decisions at the same time are ordered by name."""
        if action not in DECISIONS:
            return Progress(True, self.opened or action == "opened", self.decision, self.decided_at)
        if (action_time, action) <= (self.decided_at, self.decision):
            return self
        return Progress(True, True, action, action_time)

    def steps(self) -> Iterator[str]:
        """The steps of the funnel that it has reached."""
        if self.shown:
            yield "shown"
        if self.opened:
            yield "opened"
        if self.decision:
            yield self.decision


@dataclass(frozen=True, slots=True)
class Alert:
    """What the funnel needs of an alert.

    Args:
        time: event time that places it, epoch ms.
        model: name of what gave the score.
        arm: `champion` or `canary`.
        amount: minor units.
        exponent: digits of the currency's minor unit.
        seconded: other models and whether they would have raised it too.
    """

    time: int
    model: str
    arm: str
    amount: int
    exponent: int
    seconded: Mapping[str, bool]


def funnel_change(alert: Alert, before: Progress, after: Progress) -> Tally:
    """What the step from `before` to `after` changes in the tally of the alert's slot."""
    change: Tally = {}
    for progress, sign in ((before, -1), (after, 1)):
        for name in progress.steps():
            for key in (name, f"{name}@by:{alert.model}|{alert.arm}"):
                change[key] = change.get(key, 0) + sign
        if progress.decision:
            _decided(change, alert, progress, sign)
    return {name: value for name, value in change.items() if value}


def _decided(change: Tally, alert: Alert, progress: Progress, sign: int) -> None:
    def count(name: str, value: int = 1) -> None:
        change[name] = change.get(name, 0) + sign * value

    delay = min(max(progress.decided_at - alert.time, 0), 10**11)
    count("decision_ms", delay)
    count(f"decision_ms@by:{alert.model}|{alert.arm}", delay)
    if progress.decision == "confirmed":
        count(f"confirmed_amount@exponent:{alert.exponent}", alert.amount)
    for name, would in alert.seconded.items():
        count(f"decided@shadow:{name}")
        if would == (progress.decision == "confirmed"):
            count(f"agreed@shadow:{name}")


def ratio(part: int, whole: int) -> float:
    """`part` / `whole`; NaN without a whole."""
    return part / whole if whole else NAN
