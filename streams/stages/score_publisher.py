"""What the score stage publishes: a score for every row, an alert with reasons for the suspicious ones, every
move of the threshold.
"""

from __future__ import annotations

import itertools
import logging
from collections.abc import Iterator
from dataclasses import asdict

import msgspec
import numpy as np

from models.decision import DecisionPolicy
from models.deployment import Deployment
from models.reasons import explain
from models.snapshot import Snapshot
from streams.contract.codecs import encode
from streams.contract.records import ModelRef, Reason, Score, alert_of
from streams.kafka.outputs import Output
from streams.stages.columns import Columns
from streams.stages.context import StageContext
from streams.stages.score_core import Float, ScoreCore
from streams.stages.score_lines import ScoreFrame, score_lines

logger = logging.getLogger(__name__)


class Publisher:
    """Records of scored rows, keyed by card, on the partition the transaction came from."""

    def __init__(self, context: StageContext, policy: DecisionPolicy, partition: int) -> None:
        self._context = context
        self._policy = policy
        self._partition = partition
        self._config = context.settings.digest
        self._top = context.settings.policy.reasons

    def outputs(
        self, rows: Columns, deployment: Deployment, core: ScoreCore, *, hold_alerts: bool = False
    ) -> Iterator[Output]:
        """Moves of the threshold, the score of every row, then the alerts; `core` has just scored the rows
        with `deployment`.

        With `hold_alerts` no alerts; the scores say all the same whether they would be.
        """
        yield from self._moves(core)
        topic, alerts = self._context.name("scores"), self._context.name("alerts")
        beside = deployment.models()[1:]
        shadows = [position for position, (role, _, _) in enumerate(beside) if role == "shadow"]
        canary = deployment.canary
        frame = ScoreFrame(
            scored_at=self._context.now_ms(),
            model=ModelRef(*core.model),
            canary=None if canary is None else ModelRef(canary.name, canary.version),
            shadows=tuple(beside[position][1:] for position in shadows),
            spec=self._context.spec.digest,
            config=self._config,
        )
        lines = score_lines(
            frame,
            transaction_id=rows.strings["transaction_id"],
            card_id=rows.strings["card_id"],
            terminal_id=rows.strings["terminal_id"],
            currency=rows.strings["currency"],
            event_time=rows.ints("event_time"),
            amount_minor=rows.ints("amount_minor"),
            score=rows.floats("score"),
            arm=rows.bools("arm"),
            shadows=rows.floats("shadows")[:, shadows],
            threshold=rows.floats("threshold"),
            alert=rows.bools("alert"),
            control=rows.bools("control"),
            propensity=rows.floats("propensity"),
            features=rows.floats("features"),
        )
        keys = [card.encode() for card in rows.strings["card_id"]]
        partitions = rows.ints("card_partition").tolist()
        yield from map(Output, itertools.repeat(topic), partitions, keys, lines)
        if hold_alerts:
            return
        alerted = np.flatnonzero(rows.bools("alert"))
        reasons = self._reasons_by_arm(
            rows.floats("features")[alerted], rows.bools("arm")[alerted], deployment, core
        )
        for row, each in zip(alerted.tolist(), reasons, strict=True):
            score = msgspec.json.decode(lines[row], type=Score)
            alert = alert_of(score, self._policy.alert_id(score.transaction_id), each)
            yield Output(alerts, partitions[row], keys[row], encode(alert))

    def _moves(self, core: ScoreCore) -> Iterator[Output]:
        """Every move of the threshold, with what it stands on, on the metrics topic."""
        for change in core.decided.changes:
            record = {"policy": self._policy.name, "partition": self._partition, **asdict(change)}
            yield Output(self._context.name("metrics"), 0, b"threshold", encode(record))

    def _reasons_by_arm(
        self,
        features: Float,
        arm: np.ndarray[tuple[int], np.dtype[np.bool_]],
        deployment: Deployment,
        core: ScoreCore,
    ) -> Iterator[list[Reason]]:
        """The reasons of each row, from the model that has decided it."""
        champion = deployment.stand_in if core.stood_in else deployment.champion
        found = iter(self._reasons(champion, features[~arm]))
        canary = iter(
            self._reasons(deployment.canary, features[arm]) if deployment.canary is not None else ()
        )
        for in_canary in arm.tolist():
            yield next(canary if in_canary else found)

    def _reasons(self, champion: Snapshot, features: Float) -> list[list[Reason]]:
        """The reasons of each row of `features`, (rows, features)."""
        if not len(features) or not self._top:
            return [[] for _ in features]
        try:
            explained = explain(
                champion.scorer, features, champion.reference, self._context.spec.names, self._top
            )
        except Exception:  # an alert without reasons is better than none
            logger.exception("no reasons from %s v%d", champion.name, champion.version)
            return [[] for _ in features]
        return [[Reason(r.feature, r.value, r.contribution) for r in reasons] for reasons in explained]
