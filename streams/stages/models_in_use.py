"""The models of one score partition: which should score, which do, and telling when that has changed."""

from __future__ import annotations

import logging

from models.memory import MemoryWatch
from models.registry import Slots, Version, resolved
from models.snapshot import Snapshot
from streams.contract.codecs import encode
from streams.contract.records import Adoption, ModelRef
from streams.kafka.outputs import Output
from streams.stages.context import StageContext
from streams.stages.control_feed import ControlFeed
from streams.stages.model_feed import ModelFeed
from streams.stages.model_slots import at_hand, fitting, initial_deployment, install
from streams.stages.score_core import ScoreState

logger = logging.getLogger(__name__)


class ModelsInUse:
    """Fills the slots of a deployment, which scores.

    Args:
        feed: the model versions.
        control: who holds which alias.
        memory: watches what the shadows take.
    """

    def __init__(
        self,
        partition: int,
        context: StageContext,
        feed: ModelFeed,
        control: ControlFeed,
        memory: MemoryWatch | None = None,
    ) -> None:
        self._partition = partition
        self._context = context
        self._feed = feed
        self._control = control
        self._missing: Slots | None = None
        self.deployment = initial_deployment(context.settings.models, context.spec, memory)

    def restore(self, slots: Slots) -> bool:
        """Score with what was in use before a restart; False, and nothing is changed, if it is gone."""
        used = at_hand(slots, self.deployment.stand_in, self._feed.version)
        if used is not None:
            install(self.deployment, slots, used)
        return used is not None

    def wanted(self, present: Slots | None) -> tuple[Slots, dict[Version, Snapshot]] | None:
        """What should score instead of `present`, as far as it is at hand; None for nothing else."""
        wanted = resolved(self._control.registry, self._feed.newest)
        if wanted == present:
            return None
        fit = fitting(wanted, self.deployment.stand_in, self._feed.version)
        if (fit is None or fit[0] != wanted) and wanted != self._missing:
            self._missing = wanted
            logger.warning("not all models that should score are at hand: %s", wanted.versions())
        return None if fit is None or fit[0] == present else fit

    def adopt(self, slots: Slots, found: dict[Version, Snapshot]) -> None:
        """Score with what `wanted` has given; the caller has made it durable."""
        before = {(name, version) for _, name, version in self.deployment.models()}
        install(self.deployment, slots, found)
        for name, version in set(slots.versions()) - before:
            self._context.metrics.model_updates.add(1, name)
            logger.info("partition %d: %s v%d is in use", self._partition, name, version)

    def announcement(self, slots: Slots, state: ScoreState) -> Output:
        """Which models score what comes after what `state` has scored."""
        learned = slots.champion[1] > 0
        rules = (self.deployment.stand_in.name, 0)
        adoption = Adoption(
            partition=self._partition,
            move=slots.move,
            champion=ModelRef(*(slots.champion if learned else rules)),
            canary=ModelRef(*slots.canary) if slots.canary else None,
            percent=slots.percent,
            shadows=[ModelRef(*each) for each in slots.shadows],
            alerts_held=slots.alerts_held,
            applied={str(partition): last for partition, last in sorted(state.applied.items())},
            ahead={str(partition): each.tolist() for partition, each in sorted(state.ahead.items())},
            adopted_at=self._context.now_ms(),
        )
        return Output(self._context.name("metrics"), 0, b"deployment", encode(adoption))
