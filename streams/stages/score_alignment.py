"""Which of the rows that wait in a score partition may be scored: how far its inputs have been read."""

from __future__ import annotations

import logging
from collections.abc import Mapping

from streams.stages.alignment import FOREVER, NEVER, EventTimeGate
from streams.stages.context import StageContext

logger = logging.getLogger(__name__)

#: How long an input may stay silent after a restart before it is taken for idle: other workers may be
#: restarting, too.
_RETURN_MS = 30_000


class ScoreAlignment:
    """The inputs of a score partition: the cards of every partition, and what is known of their labels.

    Args:
        looks_at_frauds: whether a feature depends on known frauds: without one no row waits for labels.
    """

    def __init__(self, context: StageContext, partition: int, *, looks_at_frauds: bool) -> None:
        self._partition = partition
        self._partitions = range(context.partitions)
        self._soonest = context.settings.labels.soonest
        self._looks_at_frauds = looks_at_frauds
        idle_after = context.settings.alignment.idle_after
        kinds = ("cards", "labels") if looks_at_frauds else ("cards",)
        inputs = [(kind, partition) for partition in self._partitions for kind in kinds]
        self._gate = EventTimeGate(inputs, idle_after_ms=idle_after)
        self._patience = max(idle_after, _RETURN_MS) if idle_after else 0
        #: up to when the label stage has told all, by its partition
        self.told: dict[int, int] = {}

    def restored(self, told: Mapping[int, int]) -> None:
        """The partition goes on where another worker, or this one, has stopped."""
        for partition in self._partitions:
            self._gate.patience["cards", partition] = self._patience
        for partition, until in told.items() if self._looks_at_frauds else ():
            self._take_labels(partition, until)

    def take_cards(self, card_partition: int, watermark: int) -> None:
        """Rows of these cards have come, at that watermark."""
        source = ("cards", card_partition)
        self._gate.patience.pop(source, None)
        # More rows may come with the same watermark.
        self._gate.advance(source, watermark - 1)

    def take_told(self, label_partition: int, until: int) -> None:
        """The label stage has told everything that takes effect up to then."""
        self.told[label_partition] = max(until, self.told.get(label_partition, until))
        if self._looks_at_frauds:
            self._take_labels(label_partition, until)

    def _take_labels(self, partition: int, until: int) -> None:
        self._gate.advance(("labels", partition), until)
        # The label stage says so itself when no labels come.
        self._gate.patience["labels", partition] = self._patience

    def rest(self, now_ms: int) -> None:
        """No rows wait."""
        self._gate.rest(now_ms)

    def cards_reached(self) -> int:
        """The event time that the cards of all partitions have reached."""
        return self._gate.reached(("cards", partition) for partition in self._partitions)

    def frontier(self, began: int, newest: int, now_ms: int) -> int:
        """Rows up to this event time may be scored.

        Args:
            began: the first watermark that was ever scored.
            newest: the largest watermark among the rows that wait and are not live; `NEVER` without any.
        """
        for partition in self._partitions if self._looks_at_frauds else ():
            # No verdict takes effect before this.
            self._gate.advance(("labels", partition), began + self._soonest - 1)
        if newest == NEVER:
            return FOREVER
        given_up = set(self._gate.given_up)
        frontier = self._gate.frontier(newest, now_ms)
        newly = self._gate.given_up - given_up if self._patience else set()
        for partition in self._partitions:
            if ("labels", partition) in newly:
                logger.warning(
                    "partition %d no longer waits for the labels of partition %d: frauds may count late",
                    self._partition,
                    partition,
                )
        return frontier
