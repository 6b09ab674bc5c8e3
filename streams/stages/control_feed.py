"""The control topic as every worker sees it: the aliases after all moves so far.

Every worker reads the whole topic by itself and applies the same moves in the same order
(`models/registry.py`). What cannot be used is counted by reason and changes nothing.
"""

from __future__ import annotations

import logging
from collections.abc import Callable

from models.registry import Aliases, MoveRefused, Pin, Registry, StaleMove
from streams.contract.moves import MoveUnusable, decode_move
from streams.kafka.broadcast import Broadcast
from streams.sections import Broker, Models

logger = logging.getLogger(__name__)

_REASONS = {MoveUnusable: "unusable", StaleMove: "stale", MoveRefused: "refused"}


def initial_aliases(models: Models) -> Aliases:
    """Those of the settings, before any move: every model at its newest version."""
    return Aliases(Pin(models.champion.name), tuple(Pin(slot.name) for slot in models.shadows))


class ControlFeed(Broadcast):
    """Follows the control topic.

    Args:
        topic: the control topic, one partition.
        broker: how to reach the cluster.
        initial: the aliases before the first move.
        key: that events must be signed with; empty if none is configured.
        on_refused: told why an event does not count: `unusable`, `stale` or `refused`.

    Attributes:
        on_moved: called after every move that counts and was not on the topic at the start.
    """

    def __init__(
        self,
        topic: str,
        broker: Broker,
        initial: Aliases,
        key: bytes = b"",
        on_refused: Callable[[str], None] = lambda _: None,
    ) -> None:
        super().__init__(topic, broker, "control")
        self.registry = Registry(initial)
        self.on_moved: list[Callable[[], None]] = []
        self._key = key
        self._on_refused = on_refused

    def take(self, key: bytes | None, value: bytes | None) -> None:
        try:
            move = decode_move(value, self.topic, self._key)
            self.registry.take(move)
        except (MoveUnusable, StaleMove, MoveRefused) as error:
            self._on_refused(_REASONS[type(error)])
            logger.warning("an event of the control topic does not count: %s", error)
            return
        if self.loaded:
            for moved in self.on_moved:
                moved()
