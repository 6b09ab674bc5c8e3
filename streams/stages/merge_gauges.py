"""The gauges that the merge sets: the windows that end now, and how good the models are."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from monitoring.families import Gauge
from monitoring.funnel import STEPS
from monitoring.metrics import Metrics

#: The window whose funnel, money and shadows are shown.
_DAY = "24h"
_MONEY = {"all": "amount", "flagged": "flagged", "confirmed": "confirmed_amount"}


class MergeGauges:
    """Shows figures; at most one worker does."""

    def __init__(self, metrics: Metrics) -> None:
        self._metrics = metrics

    def show(
        self, windows: Mapping[str, Mapping[str, Any]], quality: Mapping[str, Mapping[str, float]]
    ) -> None:
        """Set what is known.

        Args:
            windows: figures by name of the window (`monitoring/window_report.py`).
            quality: figures by role (`MergeCore.quality`).
        """
        metrics = self._metrics
        for name, figures in windows.items():
            metrics.window_transactions.set(figures["transactions"], name)
            metrics.window_late.set(figures["late"], name)
            metrics.window_alerts.set(figures["alerts"], name)
            metrics.window_alert_rate.set(figures["alert_rate"], name)
        self._day(windows[_DAY])
        for role, each in quality.items():
            metrics.average_precision.set(each["average_precision"], role)
            metrics.roc_auc.set(each["roc_auc"], role)
            metrics.calibration_error.set(each["calibration_error"], role)
            metrics.card_precision.set(each["card_precision"], role)

    def _day(self, figures: Mapping[str, Any]) -> None:
        metrics, whole = self._metrics, figures["funnel"]
        metrics.alert_ctr.set(whole["ctr"])
        metrics.alert_precision.set(whole["precision"])
        metrics.decision_delay.set(whole["decision_seconds"])
        metrics.window_amount.replace(
            {
                (kind, exponent): amount
                for kind, name in _MONEY.items()
                for exponent, amount in figures[name].items()
            }
        )
        metrics.window_funnel.replace(
            {
                (each["model"], each["arm"], step): each["funnel"][step]
                for each in figures["models"]
                for step in STEPS
            }
        )
        shadows = figures["shadows"].items()
        metrics.shadow_disagreement.replace({(name,): each["disagreement"] for name, each in shadows})
        metrics.human_agreement.replace({(name,): each["human_agreement"] for name, each in shadows})

    def clear(self) -> None:
        """Show nothing."""
        metrics = self._metrics
        gauges: tuple[Gauge, ...] = (
            metrics.window_transactions, metrics.window_late, metrics.window_alerts,
            metrics.window_alert_rate, metrics.window_amount, metrics.window_funnel, metrics.alert_ctr,
            metrics.alert_precision, metrics.decision_delay, metrics.shadow_disagreement,
            metrics.human_agreement, metrics.average_precision, metrics.roc_auc, metrics.calibration_error,
            metrics.card_precision,
        )  # fmt: skip
        for gauge in gauges:
            gauge.forget()
