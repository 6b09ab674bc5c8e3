"""What is counted of decisions, by the score stage."""

from __future__ import annotations

from models.decision import DecisionPolicy, DecisionState
from monitoring.metrics import Metrics
from streams.sections import Policy
from streams.stages.score_core import ScoreCore


class DecisionCounts:
    """Sets the metrics of decisions, batch by batch."""

    def __init__(self, metrics: Metrics, settings: Policy, policy: DecisionPolicy) -> None:
        self._metrics, self._policy = metrics, policy
        metrics.alert_budget.set(settings.alerts_per_day if settings.kind == "budget" else 0)

    def add(self, rows: int, core: ScoreCore, state: DecisionState, *, held: bool) -> None:
        """So many rows that `core` has just decided about, which left this state; `held` if alerts are."""
        metrics, decided = self._metrics, core.decided
        (metrics.alerts_held if held else metrics.alerts).add(int(decided.alert.sum()))
        metrics.control_group.add(int(decided.control.sum()))
        for reason, count in decided.suppressed.items():
            metrics.alerts_suppressed.add(count, reason)
        if not core.model[1]:
            metrics.rules_scored.add(rows, "failed" if core.stood_in else "unlearned")
        metrics.threshold_changes.add(len(decided.changes))
        metrics.threshold.set(self._policy.threshold(state))
