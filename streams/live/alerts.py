"""The latest alerts as the page shows them; pure."""

from __future__ import annotations

from bisect import insort
from collections.abc import Sequence
from typing import Any

import msgspec

from streams.contract.currencies import EXPONENTS
from streams.contract.records import Alert

MOST_ALERTS = 50
#: Reasons shown with each, the strongest first.
MOST_REASONS = 5
_REMEMBERED = 1_000


class LatestAlerts:
    """The last `MOST_ALERTS` alerts by the time they were scored at, each once."""

    def __init__(self) -> None:
        self._alerts: list[tuple[int, str, dict[str, Any]]] = []
        self._known: dict[str, None] = {}
        self._decoder = msgspec.json.Decoder(Alert)
        self.unreadable = 0
        """Records that are no alert."""

    def take(self, values: Sequence[bytes | None]) -> None:
        """Values of records of one partition; of many only the last are looked at."""
        for value in values[-MOST_ALERTS:]:
            try:
                alert = self._decoder.decode(value or b"")
            except msgspec.MsgspecError:
                self.unreadable += 1
                continue
            if alert.alert_id not in self._known:
                self._known[alert.alert_id] = None
                insort(
                    self._alerts, (alert.scored_at, alert.alert_id, shown(alert)), key=lambda each: each[:2]
                )
        del self._alerts[:-MOST_ALERTS]
        while len(self._known) > _REMEMBERED:
            del self._known[next(iter(self._known))]

    def document(self) -> list[dict[str, Any]]:
        """The latest first."""
        return [alert for _, _, alert in reversed(self._alerts)]


def shown(alert: Alert) -> dict[str, Any]:
    """An alert as plain values, the amount in units of its currency as text."""
    digits = EXPONENTS.get(alert.currency, 0)
    return {
        "alert_id": alert.alert_id,
        "transaction_id": alert.transaction_id,
        "card_id": alert.card_id,
        "terminal_id": alert.terminal_id,
        "event_time": alert.event_time,
        "scored_at": alert.scored_at,
        "amount": f"{alert.amount_minor / 10**digits:,.{digits}f}",
        "currency": alert.currency,
        "score": alert.score,
        "threshold": alert.threshold,
        "arm": alert.arm,
        "model": f"{alert.model.name} v{alert.model.version}",
        "shadows": [{"name": each.name, "score": each.score} for each in alert.shadows],
        "reasons": [
            {"feature": each.feature, "value": each.value, "contribution": each.contribution}
            for each in alert.reasons[:MOST_REASONS]
        ],
    }
