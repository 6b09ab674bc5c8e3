"""What analysts do with alerts, over a sliding event-time window: shown, opened, confirmed, dismissed."""

from __future__ import annotations

from dataclasses import dataclass, field

NAN = float("nan")
_START = -(2**62)
DECISIONS = ("confirmed", "dismissed")


@dataclass(slots=True)
class _Alert:
    last_action: int
    actions: set[str] = field(default_factory=set)
    decision: str = ""
    decided_at: int = _START


class AlertFunnel:
    """Distinct alerts by action within the last `window_ms` of event time, at most `capacity` of them.

    An action repeated on one alert counts once. Of several decisions on one alert the latest holds. An opened
    or decided alert counts as shown even if the event that said so was lost.
    """

    def __init__(self, window_ms: int, capacity: int = 100_000) -> None:
        self._window_ms, self._capacity = window_ms, capacity
        self._alerts: dict[str, _Alert] = {}
        self._watermark = _START

    def observe(self, alert_id: str, action: str, action_time: int) -> None:
        """Takes one feedback event; `action_time` in epoch milliseconds.

        An event older than the window is ignored. One ahead of the watermark counts as done at it; only
        `advance` moves the window, so a wrong clock neither empties it nor stays in it for ever.
        """
        if action_time <= self._watermark - self._window_ms:
            return
        seen = action_time if self._watermark == _START else min(action_time, self._watermark)
        # Taken out and put back, so that the dictionary stays in the order of the last action seen.
        alert = self._alerts.pop(alert_id, None) or _Alert(seen)
        alert.last_action = max(alert.last_action, seen)
        alert.actions.add(action)
        if action in DECISIONS and action_time >= alert.decided_at:
            alert.decision, alert.decided_at = action, action_time
        self._alerts[alert_id] = alert
        if len(self._alerts) > self._capacity:
            del self._alerts[next(iter(self._alerts))]

    def advance(self, watermark: int) -> None:
        """Moves the window to end at `watermark` (epoch ms) and forgets alerts without an action in it."""
        if watermark <= self._watermark:
            return
        self._watermark = watermark
        horizon = watermark - self._window_ms
        while self._alerts:
            oldest = next(iter(self._alerts))
            if self._alerts[oldest].last_action > horizon:
                break
            del self._alerts[oldest]

    def counts(self) -> dict[str, int]:
        """Distinct alerts per action; later steps include earlier ones, decisions exclude each other."""
        alerts = self._alerts.values()
        confirmed = sum(alert.decision == "confirmed" for alert in alerts)
        dismissed = sum(alert.decision == "dismissed" for alert in alerts)
        opened = sum("opened" in alert.actions or bool(alert.decision) for alert in alerts)
        return {"shown": len(alerts), "opened": opened, "confirmed": confirmed, "dismissed": dismissed}

    def ctr(self) -> float:
        """Share of the shown alerts that were opened; NaN without one."""
        counts = self.counts()
        return counts["opened"] / counts["shown"] if counts["shown"] else NAN

    def precision(self) -> float:
        """Share of the decided alerts that were confirmed; NaN without one."""
        counts = self.counts()
        decided = counts["confirmed"] + counts["dismissed"]
        return counts["confirmed"] / decided if decided else NAN
