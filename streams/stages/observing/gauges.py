"""The gauges that the merge sets: the windows that end now, and how good the models are."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from monitoring.decision_quality import DecisionQuality
from monitoring.families import Gauge
from monitoring.funnel import STEPS
from monitoring.metrics import Metrics

#: The window whose funnel, money and shadows are shown.
_DAY = "24h"
_MEASURES = ("psi", "js", "ks", "effect")
_MONEY = {"all": "amount", "flagged": "flagged", "confirmed": "confirmed_amount"}


class MergeGauges:
    """Shows figures; at most one worker does."""

    def __init__(self, metrics: Metrics) -> None:
        self._metrics = metrics

    def windows(self, windows: Mapping[str, Mapping[str, Any]]) -> None:
        """Show the windows that are under way: figures by name (`monitoring/window_report.py`)."""
        metrics = self._metrics
        for name, figures in windows.items():
            metrics.window_transactions.set(figures["transactions"], name)
            metrics.window_late.set(figures["late"], name)
            metrics.window_alerts.set(figures["alerts"], name)
            metrics.window_alert_rate.set(figures["alert_rate"], name)
        self._day(windows[_DAY])

    def decisions(self, alerts: int, decisions: DecisionQuality) -> None:
        """Show how many alerts a day there are, and how right they are."""
        metrics = self._metrics
        metrics.alert_rate.set(alerts)
        for estimate, totals in (("naive", decisions.naive()), ("corrected", decisions.corrected())):
            metrics.outcome_precision.set(totals.precision, estimate)
            metrics.outcome_recall.set(totals.recall, estimate)

    def quality(
        self, quality: Mapping[str, Mapping[str, float]], estimates: Mapping[str, tuple[float, float]]
    ) -> None:
        """Show how good the models are, and what is to be expected of them (`MergeCore`)."""
        metrics = self._metrics
        for gauge, name in (
            (metrics.average_precision, "average_precision"),
            (metrics.roc_auc, "roc_auc"),
            (metrics.calibration_error, "calibration_error"),
            (metrics.card_precision, "card_precision"),
        ):
            gauge.replace({(role,): each[name] for role, each in quality.items()})
        metrics.estimated_base_rate.replace({(role,): share for role, (share, _) in estimates.items()})
        metrics.estimated_precision.replace({(role,): value for role, (_, value) in estimates.items()})

    def day(self, record: Mapping[str, Any]) -> None:
        """Count the alarms of a day whose outcomes are in, and show its labels."""
        metrics = self._metrics
        for alarm in record["alarms"]:
            metrics.drift_alarms.add(1, alarm["kind"])
        metrics.concept_raised.replace({(each["kind"], each["name"]): 1.0 for each in record["raised"]})
        metrics.decision_agreement.set(record["decisions"]["agreement"])
        metrics.base_rate.set(record["labels"]["base_rate"])
        sources = record["labels"]["sources"].items()
        metrics.label_coverage.replace({(source,): each["coverage"] for source, each in sources})

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

    def drift(self, record: Mapping[str, Any]) -> None:
        """Count the alarms of an hour and show the distances of its day."""
        metrics = self._metrics
        for alarm in record["alarms"]:
            metrics.drift_alarms.add(1, alarm["kind"])
        scores: dict[tuple[str, ...], float] = {}
        features: dict[tuple[str, ...], float] = {}
        for each in record["windows"][_DAY]:
            role, colon, _ = each["name"].partition(":")
            if colon:
                name = each["name"] if role == "shadow" else role
                scores[name,] = each["psi"]
            else:
                for measure in _MEASURES:
                    features[each["name"], measure] = each[measure]
        metrics.feature_drift.replace(features)
        metrics.score_drift.replace(scores)
        metrics.drift_raised.replace({(each["kind"], each["name"]): 1.0 for each in record["raised"]})

    def clear(self) -> None:
        """Show nothing."""
        metrics = self._metrics
        gauges: tuple[Gauge, ...] = (
            metrics.window_transactions, metrics.window_late, metrics.window_alerts,
            metrics.window_alert_rate, metrics.window_amount, metrics.window_funnel, metrics.alert_ctr,
            metrics.alert_precision, metrics.decision_delay, metrics.shadow_disagreement,
            metrics.human_agreement, metrics.average_precision, metrics.roc_auc, metrics.calibration_error,
            metrics.card_precision, metrics.feature_drift, metrics.score_drift, metrics.drift_raised,
            metrics.concept_raised, metrics.base_rate, metrics.label_coverage, metrics.estimated_base_rate,
            metrics.estimated_precision, metrics.alert_rate, metrics.outcome_precision,
            metrics.outcome_recall, metrics.decision_agreement, metrics.gates_failed,
        )  # fmt: skip
        for gauge in gauges:
            gauge.forget()
