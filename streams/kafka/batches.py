"""Whole batches of one partition, and the book of which of them are finished.

`PartitionBook` follows one partition from the moment it is assigned to the moment it is taken away: what has
been handed out, what of it is finished, and up to where the offset may be committed. It knows nothing of
Faust, asyncio or a broker.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol


class Record(Protocol):
    """The fields of aiokafka's `ConsumerRecord` that agents use; `timestamp` is epoch milliseconds."""

    @property
    def topic(self) -> str: ...
    @property
    def partition(self) -> int: ...
    @property
    def offset(self) -> int: ...
    @property
    def timestamp(self) -> int: ...
    @property
    def key(self) -> bytes | None: ...
    @property
    def value(self) -> bytes | None: ...
    @property
    def headers(self) -> Sequence[tuple[str, bytes]]: ...


class RecordBatch:
    """Consecutive records of one partition, in offset order, never empty.

    `next_offset` is where the partition goes on after them: past the last record and past whatever follows it
    that is no record (control markers of transactions, offsets removed by compaction). `highwater` is the end
    of the partition when they were fetched.
    """

    __slots__ = (
        "_book",
        "_done",
        "_dropped",
        "_length",
        "_started",
        "first_offset",
        "highwater",
        "last_offset",
        "last_timestamp",
        "next_offset",
        "partition",
        "records",
        "topic",
    )

    def __init__(
        self, book: PartitionBook, records: Sequence[Record], next_offset: int, highwater: int | None
    ) -> None:
        self.topic = book.topic
        self.partition = book.partition
        self.records = records
        self.first_offset = records[0].offset
        self.last_offset = records[-1].offset
        self.last_timestamp = records[-1].timestamp
        self.next_offset = next_offset
        self.highwater = highwater
        self._length = len(records)
        self._book = book
        self._done = False
        self._dropped = False
        self._started = False

    @property
    def tp(self) -> tuple[str, int]:
        return self.topic, self.partition

    @property
    def revoked(self) -> bool:
        """Whether the partition has been taken away, or sought, since: finishing has no effect then."""
        return self._dropped

    @property
    def finished(self) -> bool:
        return self._done

    def start(self) -> bool:
        """Mark the batch as being worked on; False if that is pointless because it is revoked."""
        if self.revoked:
            return False
        self._started = True
        return True

    def finish(self) -> None:
        """State that all that the records cause is durable: their offsets may be committed.

        Nothing else implies it. Batches may be finished in any order, from the app's event loop.
        """
        if not self._done:
            self._done = True
            self._book.on_finished(self)

    def release(self) -> None:
        """Give up the records, for whoever finishes the batch long after having read them.

        The batch keeps its offsets and its length.
        """
        self.records = ()

    def __len__(self) -> int:
        return self._length

    def __repr__(self) -> str:
        return f"<RecordBatch {self.topic}[{self.partition}] {self.first_offset}..{self.next_offset}>"


@dataclass(frozen=True, slots=True)
class PartitionProgress:
    """Where one partition stands. Offsets are those of the next record; None means not known yet.

    Attributes:
        position: after what has been handed to the agent.
        finished: up to which everything is finished.
        committed: what the group has committed.
        highwater: the end of the partition, from fetch responses.
        in_flight: records handed out and not finished.
        progressed_at: monotonic seconds of the last finish, or of the assignment.
        finished_timestamp: Kafka timestamp (epoch ms) of the last record up to which everything is finished.
        held: paused, or waiting for its state to be restored.
    """

    topic: str
    partition: int
    position: int | None
    finished: int | None
    committed: int | None
    highwater: int | None
    in_flight: int
    progressed_at: float
    held: bool
    finished_timestamp: int | None = None

    @property
    def lag(self) -> int | None:
        """Records between the end of the partition and what is finished, gaps counted as records."""
        if self.highwater is None or self.finished is None:
            return None
        return max(0, self.highwater - self.finished)


class PartitionBook:
    """What of one assigned partition is handed out, finished and committed.

    Finishing may come in any order; `finished` moves over the prefix that is complete. Nothing here counts
    single offsets, so gaps cost nothing and are passed in one commit.
    """

    def __init__(
        self,
        topic: str,
        partition: int,
        *,
        changed: Callable[[], None] = lambda: None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.topic = topic
        self.partition = partition
        self.position: int | None = None
        self.finished: int | None = None
        self.committed: int | None = None
        self.highwater: int | None = None
        self.closed = False
        self.progressed_at = clock()
        self.finished_timestamp: int | None = None
        self._clock = clock
        self._changed = changed
        self._start: int | None = None
        self._open: deque[RecordBatch] = deque()
        self._records_in_flight = 0

    @property
    def batches_in_flight(self) -> int:
        return len(self._open)

    @property
    def records_in_flight(self) -> int:
        return self._records_in_flight

    @property
    def committable(self) -> int | None:
        """The offset to commit, or None when there is nothing new."""
        if self.closed or self.finished is None:
            return None
        if self.committed is not None and self.finished <= self.committed:
            return None
        return self.finished

    def hand_out(self, records: Sequence[Record], next_offset: int, highwater: int | None) -> RecordBatch:
        """Note that `records` go to the agent; `next_offset` is where the fetch goes on."""
        if self._start is None:
            self._start = records[0].offset
        batch = RecordBatch(self, records, max(next_offset, records[-1].offset + 1), highwater)
        self._open.append(batch)
        self._records_in_flight += len(batch)
        self.position = batch.next_offset
        self.highwater = highwater
        return batch

    def skip_to(self, offset: int, highwater: int | None) -> None:
        """Note that no record comes before `offset`: markers, compacted offsets, the start of the log."""
        self.highwater = highwater
        if self.position is not None and offset <= self.position:
            return
        self.position = offset
        if self._open:
            self._open[-1].next_offset = offset
        else:
            self._advance(offset)

    def read_from(self, offset: int) -> None:
        """Forget what is handed out, go on at `offset`. The committed offset never goes back by this."""
        self._drop_open()
        self.position = offset
        self.finished = offset
        self._changed()

    def close(self) -> None:
        """The partition is taken away: whatever is finished from now on has no effect."""
        self.closed = True
        self._drop_open()
        self._changed()

    def started_batches(self) -> int:
        """How many batches the agent is working on."""
        return sum(1 for batch in self._open if batch._started and not batch._done)

    def on_finished(self, batch: RecordBatch) -> None:
        """Called by `RecordBatch.finish`."""
        if batch._dropped:
            return
        self.progressed_at = self._clock()
        self._records_in_flight -= len(batch)
        opened = self._open
        while opened and opened[0]._done:
            done = opened.popleft()
            self.finished, self.finished_timestamp = done.next_offset, done.last_timestamp
        self._changed()

    def _drop_open(self) -> None:
        for batch in self._open:
            batch._dropped = True
        self._open.clear()
        self._records_in_flight = 0

    def _advance(self, offset: int) -> None:
        self.finished = offset
        self.progressed_at = self._clock()
        self._changed()

    def progress(self, *, held: bool = False, highwater: int | None = None) -> PartitionProgress:
        return PartitionProgress(
            topic=self.topic,
            partition=self.partition,
            position=self.position,
            finished=self.finished if self.finished is not None else self._start,
            committed=self.committed,
            highwater=self.highwater if highwater is None else highwater,
            in_flight=self._records_in_flight,
            progressed_at=self.progressed_at,
            held=held,
            finished_timestamp=self.finished_timestamp,
        )
