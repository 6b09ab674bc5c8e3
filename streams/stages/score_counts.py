"""What one partition of the score stage shows of its work: metrics, and log lines where something fails."""

from __future__ import annotations

import logging

import numpy as np

from models.decision import DecisionPolicy
from models.deployment import Deployment
from monitoring.metrics import SHADOW_FAULTS
from streams.stages.columns import Columns
from streams.stages.context import StageContext
from streams.stages.decision_counts import DecisionCounts
from streams.stages.score_core import ScoreCore, ScoreState

logger = logging.getLogger(__name__)


class ScoreCounts:
    """Sets the metrics of scoring, batch by batch."""

    def __init__(self, context: StageContext, policy: DecisionPolicy) -> None:
        self._context = context
        self._decisions = DecisionCounts(context.metrics, context.settings.policy, policy)
        #: name and version of the shadows that are known to be off
        self._off: set[tuple[str, int]] = set()
        self._canary_failures = 0

    def models(self, deployment: Deployment) -> None:
        """The models in place."""
        metrics = self._context.metrics
        metrics.model_info.forget()
        for role, name, version in deployment.models():
            metrics.model_info.set(1, role, name, str(version))
            # Counters that exist with 0 let alert rules see the first event, and its absence.
            for counter in (metrics.model_updates, metrics.model_refused):
                counter.add(0, name)
            for reason in SHADOW_FAULTS if role == "shadow" else ():
                metrics.shadow_disabled.add(0, name, reason)
        metrics.canary_share.set(deployment.percent / 100.0)

    def scored(
        self, rows: Columns, core: ScoreCore, deployment: Deployment, state: ScoreState, *, held: bool
    ) -> None:
        """Rows that `core` has just scored with `deployment`; `held` if their alerts are."""
        metrics = self._context.metrics
        metrics.transactions.add(len(rows), "scored")
        self._decisions.add(len(rows), core, state.decisions, held=held)
        metrics.end_to_end.observe((self._context.now_ms() - rows.ints("record_time")) / 1000.0)
        if core.stood_in:
            metrics.champion_failures.add()
            logger.error("champion failed, rules stood in: %s", deployment.last_champion_error)
        metrics.score_duration.observe_repeated(core.seconds[0], len(rows))
        metrics.scores.observe(rows.floats("champion"), "champion")
        self._canary(rows, deployment)
        self._shadows(rows, deployment)

    def _canary(self, rows: Columns, deployment: Deployment) -> None:
        metrics, arm, alert = self._context.metrics, rows.bools("arm"), rows.bools("alert")
        for name, chosen in (("champion", ~arm), ("canary", arm)):
            metrics.arm_transactions.add(int(chosen.sum()), name)
            metrics.arm_alerts.add(int((chosen & alert).sum()), name)
        if deployment.canary is not None:
            scores = rows.floats("shadows")[:, 0]
            metrics.scores.observe(scores[~np.isnan(scores)], "canary")
        failed = deployment.canary_failures - self._canary_failures
        if failed:
            self._canary_failures += failed
            metrics.canary_failures.add(failed)
            logger.error("canary failed, the champion decided: %s", deployment.last_canary_error)

    def _shadows(self, rows: Columns, deployment: Deployment) -> None:
        metrics = self._context.metrics
        for position, shadow in enumerate(deployment.shadows, start=0 if deployment.canary is None else 1):
            metrics.scores.observe(rows.floats("shadows")[:, position], "shadow")
            name, version = shadow.snapshot.name, shadow.snapshot.version
            if shadow.off is not None and (name, version) not in self._off:
                self._off.add((name, version))
                metrics.shadow_disabled.add(1, name, _fault(shadow.off))
                logger.warning("shadow %s v%d switched off: %s", name, version, shadow.off)


def _fault(reason: str) -> str:
    """Why a shadow is off, as a metric label."""
    for fault in ("slow", "memory"):
        if reason.startswith(f"{fault}:"):
            return fault
    return "not_finite" if "no probabilities" in reason else "raised"
