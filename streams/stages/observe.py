"""The observe stage: live quality, drift, the alert funnel, and the gates of candidates.

Reads scored rows, outcomes, feedback and the control topic. Writes a record to the metrics topic at every
step of event time, sets the gauges, and ends or promotes a canary by an event on the control topic.

State: sketches over event-time windows, in memory; they fill anew after a restart. Every worker with this
stage sees its own partitions; outcomes have one.
"""

from __future__ import annotations

import logging
from typing import Any

import faust
import msgspec
import numpy as np
import numpy.typing as npt

from models.gates import Judgement, Limits, judge
from models.registry import Move, Pin
from monitoring.agreement import AgreementWindow
from monitoring.decision_quality import AlertRate, DecisionQuality
from monitoring.drift import DriftMonitor
from monitoring.funnel import AlertFunnel
from monitoring.live_quality import RoleQuality
from streams.contract.codecs import FeedbackDecoder, encode
from streams.contract.moves import encode_move
from streams.kafka.batches import RecordBatch
from streams.kafka.batching import batch_topic, batches
from streams.kafka.outputs import Output
from streams.keys import signing_key
from streams.stages import columns
from streams.stages.alignment import NEVER
from streams.stages.columns import Columns
from streams.stages.context import StageContext
from streams.stages.control_feed import ControlFeed
from streams.stages.gate_core import GateCore, automatic_move, automatic_rollback
from streams.times import DAY, HOUR

logger = logging.getLogger(__name__)

#: Event time between two records on the metrics topic.
REPORT_EVERY = HOUR
#: PSI from which a distribution counts as shifted (Siddiqi: Credit Risk Scorecards, 2006).
SHIFTED = 0.25
#: At least so long between them by the wall clock: a replay passes hours in no time.
REPORT_PAUSE_SECONDS = 1.0
#: At least so long between two judgements of the gates.
JUDGE_PAUSE_SECONDS = 1.0


class ObserveCore:
    """The sketches, and the figures they give; pure."""

    def __init__(self, features: tuple[str, ...], maturity_ms: int = 7 * DAY) -> None:
        self._maturity_ms = maturity_ms
        self._agreement = AgreementWindow()
        self._features = DriftMonitor(features, reference_ms=7 * DAY, slot_ms=DAY, slots=7)
        self._scores: dict[str, DriftMonitor] = {}
        self._quality: dict[str, RoleQuality] = {}
        self._funnel = AlertFunnel(window_ms=7 * DAY)
        self._decisions = DecisionQuality()
        self._alert_rate = AlertRate()
        self.watermark = NEVER

    def scored(self, rows: Columns) -> None:
        """Scored rows: drift of features and scores."""
        self.watermark = max(self.watermark, rows.meta_int("watermark"))
        if not len(rows):
            return
        times = rows.ints("event_time")
        # By the watermark, which no odd stamp moves.
        self._alert_rate.update(rows.ints("watermark"), rows.bools("alert"))
        self._features.update(times, rows.floats("features"), self.watermark)
        for role, scores in by_model(rows).items():
            if role not in self._scores:
                self._scores[role] = DriftMonitor((role,), reference_ms=7 * DAY, slot_ms=DAY, slots=7)
            self._scores[role].update(times, scores[:, None], self.watermark)

    def outcomes(self, rows: Columns) -> None:
        """Outcomes: quality of every model."""
        times, cards, frauds = rows.ints("event_time"), rows.words("card").view(np.int64), rows.bools("fraud")
        for role, scores in by_model(rows).items():
            quality = self._quality.setdefault(role, RoleQuality())
            quality.update(times, cards, frauds, scores)
        self._agreement.update(times, rows.bools("alert"), frauds)
        alert, control, propensity = rows.bools("alert"), rows.bools("control"), rows.floats("propensity")
        self._decisions.update(times, cards, frauds, alert, control, propensity)

    def feedback(self, alert_id: str, action: str, action_time: int) -> None:
        """What an analyst did with an alert."""
        self._funnel.observe(alert_id, action, action_time)

    def report(self) -> dict[str, Any]:
        """The present figures."""
        self._funnel.advance(self.watermark)
        quality = {}
        for role, each in self._quality.items():
            sketch = each.scores()
            quality[role] = {
                "outcomes": sketch.rows,
                "frauds": sketch.frauds,
                "average_precision": sketch.average_precision(),
                "roc_auc": sketch.roc_auc(),
                "calibration_error": sketch.calibration_error(),
                "card_precision": each.card_precision(),
            }
        agreement = self._agreement.matured(self.watermark - self._maturity_ms)
        naive, corrected = self._decisions.naive(), self._decisions.corrected()
        return {
            "event_time": self.watermark,
            "decisions": {
                "outcomes": agreement.rows,
                "agreement": agreement.agreement,
                "precision": agreement.precision,
                "recall": agreement.recall,
            },
            "quality": quality,
            "feature_drift": {d.name: {"psi": d.psi, "ks": d.ks} for d in self._features.drifts()},
            "score_drift": {
                role: drift.psi for role, monitor in self._scores.items() for drift in monitor.drifts()
            },
            "funnel": self._funnel.counts(),
            "alert_ctr": self._funnel.ctr(),
            "alert_precision": self._funnel.precision(),
            "alert_rate": self._alert_rate.per_day(),
            "control_alerts": self._decisions.control_alerts(),
            "outcome_precision": {"naive": naive.precision, "corrected": corrected.precision},
            "outcome_recall": {"naive": naive.recall, "corrected": corrected.recall},
        }


def by_model(rows: Columns) -> dict[str, npt.NDArray[np.float64]]:
    """Scores by role: `champion`, `canary`, and `shadow:` with the name of each shadow."""
    if not len(rows):
        return {}
    models = msgspec.convert(rows.meta["models"], list[tuple[str, str, int]])
    scores = {"champion": rows.floats("champion")}
    for column, (role, name, _) in enumerate(models[1:]):
        scores[role if role == "canary" else f"{role}:{name}"] = rows.floats("shadows")[:, column]
    return scores


class Observer:
    """Feeds the cores, passes their figures on, and moves the canary on them."""

    def __init__(self, context: StageContext, control: ControlFeed) -> None:
        settings = context.settings
        self._context = context
        self._control = control
        self._key = signing_key(settings.models)
        self._limits = Limits(frauds=settings.gates.min_frauds, days=settings.gates.horizon / DAY)
        self._judged_at = 0.0
        self._moved = 0
        self.gates = GateCore(maturity_ms=settings.labels.maturity)
        self._decoder = FeedbackDecoder(context.settings.input.max_value_bytes)
        self._reported_at = NEVER
        self._next_report = 0.0
        self._shifted: set[str] = set()
        self._metered = context.report("observe")
        self.core = ObserveCore(context.spec.names, settings.labels.maturity)

    async def stop(self) -> None:
        """There is nothing under way between two batches."""

    async def scored(self, batch: RecordBatch) -> None:
        began = self._context.clock()
        self.gates.follow(self._control.registry.aliases)
        for record in batch.records:
            rows = columns.decode(record.value or b"")
            self.core.scored(rows)
            self.gates.scored(rows)
        await self._judge()
        await self._report()
        batch.finish()
        self._metered.worked(self._context.clock() - began, len(batch))

    async def outcomes(self, batch: RecordBatch) -> None:
        self.gates.follow(self._control.registry.aliases)
        for record in batch.records:
            rows = columns.decode(record.value or b"")
            if len(rows):
                self.core.outcomes(rows)
                self.gates.outcomes(rows)
        batch.finish()

    async def feedback(self, batch: RecordBatch) -> None:
        for item in self._decoder.decode(batch.records).records:
            self._context.metrics.alert_funnel.add(1, item.action)
            self.core.feedback(item.alert_id, item.action, item.action_time)
        batch.finish()

    def _judgements(self) -> dict[Pin, Judgement]:
        """What the gates say of every candidate."""
        found = {pin: self.gates.evidence(pin) for pin in self._control.registry.aliases.pins()[1:]}
        return {pin: judge(evidence, self._limits) for pin, evidence in found.items() if evidence is not None}

    async def _judge(self) -> None:
        """End or promote the canary, or roll the champion back, where the gates say so."""
        now, registry = self._context.clock(), self._control.registry
        if now - self._judged_at < JUDGE_PAUSE_SECONDS or registry.last < self._moved:
            return
        self._judged_at = now
        judgements = self._judgements()
        self._context.metrics.gates_failed.forget()
        for pin, judgement in judgements.items():
            self._context.metrics.gates_failed.set(len(judgement.failed), pin.name)
        move = self._automatic(judgements)
        if move is not None and move.model is not None:
            topic = self._context.name("control")
            value = encode_move(move, topic, self._key)
            logger.warning("move %d: %s %s, %s", move.number, move.kind, move.model, move.reason)
            await self._context.outputs.send([Output(topic, 0, move.model.name.encode(), value)])
            self._moved = move.number

    def _automatic(self, judgements: dict[Pin, Judgement]) -> Move | None:
        """What the gates do about the present champion and canary."""
        registry, gates = self._control.registry, self._context.settings.gates
        now_ms, former = self._context.now_ms(), registry.aliases.former
        beside = judgements.get(former[-1]) if former else None
        if gates.rollback and beside is not None:
            champion = judge(beside.evidence.reversed(), self._limits)
            move = automatic_rollback(registry, champion, probation_ms=gates.horizon, now_ms=now_ms)
            if move is not None:
                return move
        canary = judgements.get(registry.aliases.canary) if registry.aliases.canary else None
        if canary is None:
            return None
        return automatic_move(registry, canary, abort=gates.abort, promote=gates.promote, now_ms=now_ms)

    async def _report(self) -> None:
        step = self.core.watermark - self.core.watermark % REPORT_EVERY
        now = self._context.clock()
        if step <= self._reported_at or now < self._next_report:
            return
        self._reported_at, self._next_report = step, now + REPORT_PAUSE_SECONDS
        report = self.core.report()
        report["gates"] = {str(pin): each.as_evidence() for pin, each in self._judgements().items()}
        self._set_gauges(report)
        await self._context.outputs.send(
            [Output(self._context.name("metrics"), 0, b"quality", encode(report))]
        )

    def _set_gauges(self, report: dict[str, Any]) -> None:
        metrics = self._context.metrics
        for role, figures in report["quality"].items():
            metrics.average_precision.set(figures["average_precision"], role)
            metrics.roc_auc.set(figures["roc_auc"], role)
            metrics.calibration_error.set(figures["calibration_error"], role)
            metrics.card_precision.set(figures["card_precision"], role)
        for feature, measures in report["feature_drift"].items():
            for measure, value in measures.items():
                metrics.feature_drift.set(value, feature, measure)
        shifted = {name for name, measures in report["feature_drift"].items() if measures["psi"] > SHIFTED}
        metrics.drift_alarms.add(len(shifted - self._shifted), "data")
        self._shifted = shifted
        for role, value in report["score_drift"].items():
            metrics.score_drift.set(value, role)
        metrics.decision_agreement.set(report["decisions"]["agreement"])
        metrics.alert_ctr.set(report["alert_ctr"])
        metrics.alert_precision.set(report["alert_precision"])
        metrics.alert_rate.set(report["alert_rate"])
        for estimate, value in report["outcome_precision"].items():
            metrics.outcome_precision.set(value, estimate)
        for estimate, value in report["outcome_recall"].items():
            metrics.outcome_recall.set(value, estimate)


def attach(app: faust.App, context: StageContext, control: ControlFeed) -> Observer:
    """Read what there is to observe.

    Raises:
        SettingsError: the key of the control topic cannot be used.
    """
    observer = Observer(context, control)

    @app.agent(batch_topic(app, context.name("scored")), name="observe-scored")
    async def scored(stream: faust.Stream[RecordBatch]) -> None:
        async for batch in batches(stream):
            await observer.scored(batch)

    @app.agent(batch_topic(app, context.name("outcomes")), name="observe-outcomes")
    async def outcomes(stream: faust.Stream[RecordBatch]) -> None:
        async for batch in batches(stream):
            await observer.outcomes(batch)

    @app.agent(batch_topic(app, context.name("feedback")), name="observe-feedback")
    async def feedback(stream: faust.Stream[RecordBatch]) -> None:
        async for batch in batches(stream):
            await observer.feedback(batch)

    return observer
