"""The gates of candidates in the observe stage: they are judged on what the merge knows of all partitions.

Whoever merges judges, so that one worker moves the canary; the figures are in the state of the merge, and the
next one goes on with them.
"""

from __future__ import annotations

import logging
from typing import Any

from models.gates import Judgement, Limits, judge
from models.registry import Move, Pin
from streams.contract.codecs import encode
from streams.contract.moves import encode_move
from streams.kafka.outputs import Output
from streams.keys import signing_key
from streams.stages.context import StageContext
from streams.stages.control_feed import ControlFeed
from streams.stages.observing.gate_figures import Pair
from streams.stages.observing.gate_moves import automatic_move, automatic_rollback, counted_since
from streams.stages.observing.merge_state import MergeState
from streams.times import DAY, HOUR

logger = logging.getLogger(__name__)

#: At least so long between two judgements of the gates.
JUDGE_PAUSE_SECONDS = 1.0
#: Event time between two records of them.
REPORT_EVERY = HOUR


class GateWatch:
    """Asks the gates, and moves the canary on what they say.

    Raises:
        SettingsError: the key of the control topic cannot be used.
    """

    def __init__(self, context: StageContext, control: ControlFeed) -> None:
        settings = context.settings
        self._context = context
        self._control = control
        self._key = signing_key(settings.models)
        self._limits = Limits(frauds=settings.gates.min_frauds, days=settings.gates.horizon / DAY)
        self._judged_at = 0.0
        self._moved = 0
        self._reported = 0

    def judge(self, state: MergeState) -> list[Output]:
        """What the gates say, if it is time: a record, and a move of the canary or back to the former one."""
        now, registry = self._context.clock(), self._control.registry
        if now - self._judged_at < JUDGE_PAUSE_SECONDS or registry.last < self._moved:
            return []
        self._judged_at = now
        judgements = self._judgements(state)
        metrics = self._context.metrics
        metrics.gates_failed.replace(
            {(pin.name,): len(judgement.failed) for pin, judgement in judgements.items()}
        )
        outputs = self._record(judgements, state.reached)
        move = self._automatic(judgements)
        if move is not None and move.model is not None:
            topic = self._context.name("control")
            value = encode_move(move, topic, self._key)
            logger.warning("move %d: %s %s, %s", move.number, move.kind, move.model, move.reason)
            outputs.append(Output(topic, 0, move.model.name.encode(), value))
            self._moved = move.number
        return outputs

    def _judgements(self, state: MergeState) -> dict[Pin, Judgement]:
        """What the gates say of every candidate."""
        aliases, since = self._control.registry.aliases, counted_since(self._control.registry)
        return {
            pin: judge(
                state.evidence(Pair(move, aliases.champion.name, pin.name), canary=pin == aliases.canary),
                self._limits,
            )
            for pin, move in since.items()
        }

    def _record(self, judgements: dict[Pin, Judgement], watermark: int) -> list[Output]:
        hour = watermark - watermark % REPORT_EVERY
        if hour <= self._reported or not judgements:
            return []
        self._reported = hour
        record: dict[str, Any] = {
            "metric": "gates",
            "event_time": watermark,
            "gates": {str(pin): each.as_evidence() for pin, each in judgements.items()},
        }
        return [Output(self._context.name("metrics"), 0, b"gates", encode(record))]

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
