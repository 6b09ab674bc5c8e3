"""What the partitions and the merge have in common: how far they have read, and when they save.

Both read in batches, sum in memory, and save all that has come once a second: what is saved at once is one
record of the changelog, so that it is bounded by what has been read, too.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping

import msgspec

from streams.kafka.batches import RecordBatch
from streams.stages.alignment import NEVER
from streams.stages.seen_rows import Packed, SeenRows, join
from streams.times import DAY, HOUR, MINUTE

#: Between two saves, at least.
SAVE_SECONDS = 1.0
#: Batches, and bytes of messages, that force a save.
MOST_UNSAVED = 64
SAVE_BYTES = 1024 * 1024

MINUTES, HOURS = "minutes", "hours"
#: Length of the slots of each kind.
SLOT_MS = {MINUTES: MINUTE, HOURS: HOUR}
#: Event time for which minutes are kept.
_MINUTES_KEPT = 2 * DAY
#: Hours and alerts are kept for so long after their transactions have matured.
_AFTER_MATURITY = 2 * DAY
#: So far behind the furthest one another partition is waited for.
CLOSE_WITHIN = 10 * MINUTE
#: Nothing is kept longer for one that is further behind.
MOST_LAG = 7 * DAY


def reached(watermarks: Mapping[int, int], patience: int = CLOSE_WITHIN) -> int:
    """Event time up to which slots are over: all partitions are past it, or one is `patience` past it."""
    low, high = min(watermarks.values(), default=NEVER), max(watermarks.values(), default=NEVER)
    return max(low, high - patience)


class ReadStep(msgspec.Struct, array_like=True):
    """What was read.

    Args:
        positions: the next offset of each input.
        watermarks: by partition.
        seen: offsets of rows that have come, by source (`seen_rows.py`).
    """

    positions: dict[str, int] = {}
    watermarks: dict[int, int] = {}
    seen: dict[str, Packed] = {}

    def follow(self, change: ReadStep) -> None:
        """Append what was read after."""
        self.positions.update(change.positions)
        for partition, watermark in change.watermarks.items():
            self.watermarks[partition] = max(watermark, self.watermarks.get(partition, watermark))
        join(self.seen, change.seen)


class ReadState:
    """How far the inputs have been read, and how long slots of event time are kept.

    Args:
        partitions: whose watermarks are followed.
        maturity: event time after which a transaction is decided, ms.
    """

    def __init__(self, partitions: int, maturity: int) -> None:
        self.kept = {MINUTES: _MINUTES_KEPT, HOURS: maturity + _AFTER_MATURITY}
        #: the next offset of each input
        self.positions: dict[str, int] = {}
        self.watermarks = dict.fromkeys(range(partitions), NEVER)
        self.seen = SeenRows()

    @property
    def reached(self) -> int:
        """Event time up to which everything has probably come."""
        return reached(self.watermarks)

    def oldest(self, kind: str) -> int:
        """Start of the oldest slot of that kind that is kept, behind the slowest partition."""
        low, high = min(self.watermarks.values()), max(self.watermarks.values())
        slowest = max(low, high - MOST_LAG)
        return slowest - slowest % SLOT_MS[kind] - self.kept[kind]

    def read(self, step: ReadStep) -> None:
        """Go on to where the step has led."""
        self.positions.update(step.positions)
        for partition, watermark in step.watermarks.items():
            self.watermarks[partition] = max(watermark, self.watermarks.get(partition, NEVER))
        self.seen.take(step.seen)


class Unsaved:
    """The batches that have been read since the last save.

    Args:
        clock: seconds, of any one monotonic clock.
    """

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._batches: list[RecordBatch] = []
        self._bytes = 0
        self._saved_at = clock()

    def __bool__(self) -> bool:
        return bool(self._batches)

    def read(self, values: Iterable[bytes | None]) -> None:
        """These messages have been read."""
        self._bytes += sum(len(value or b"") for value in values)

    def add(self, batch: RecordBatch) -> None:
        """All of the batch has been read."""
        batch.release()
        self._batches.append(batch)

    @property
    def full(self) -> bool:
        """Whether as much has been read as is saved at once."""
        return self._bytes >= SAVE_BYTES

    @property
    def due(self) -> bool:
        """Whether it is time to save."""
        waited = self._clock() - self._saved_at >= SAVE_SECONDS
        return bool(self._batches) and (waited or len(self._batches) >= MOST_UNSAVED)

    def hand_out(self) -> list[RecordBatch]:
        """The batches to finish once what has been read is durable; nothing is unsaved any more."""
        batches, self._batches, self._bytes = self._batches, [], 0
        self._saved_at = self._clock()
        return batches
