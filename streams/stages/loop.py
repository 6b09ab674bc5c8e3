"""One loop per stage: what has arrived in all its partitions is worked on together.

The work of a partition is a generator of *steps*: it computes in memory and yields what has to be durable
before it may go on. The loop takes a step of every partition that has something to do, sends all their
outputs at once, then all that changed in their states, then finishes the batches that they were done with.
So the order outputs, state, offsets stands in one place, and the round trips to the broker are shared by all
partitions: at a moderate rate each has only a few rows at a time.

A step may go on as soon as its outputs are there. Where much has changed in the state, it is then written
while the next round computes and sends: a crash in between repeats both rounds, and the same input gives the
same outputs. Little is waited for: more arrives meanwhile, and a round costs about as much however few rows
it has.

A partition takes everything that has arrived meanwhile at once, so that batches grow with the load. An
exception in any step ends the worker: nothing that was not finished is committed, so nothing is lost.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Awaitable, Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Generic, Protocol, TypeVar

from streams.kafka.batches import RecordBatch
from streams.kafka.changelog import Change, Changelog
from streams.kafka.outputs import Output, Outputs
from streams.kafka.state_log import PartitionState
from streams.stages.failpoints import failpoint

#: How long a rebalance may wait for the steps that are being made durable.
DRAIN_SECONDS = 2.0
#: How often a partition without batches is given the chance to do what waits for time to pass.
TICK_SECONDS = 0.25
#: Bytes of deltas, in a round, that are written while the next one computes.
AHEAD_BYTES = 64 * 1024


@dataclass(frozen=True, slots=True)
class Step:
    """What must be durable before a partition goes on: first the outputs, then the state.

    Args:
        outputs: records to send.
        delta: what changed in the state, for its changelog; None for nothing.
        whole: write the whole state instead, for one without deltas.
        finishes: batches to finish once this step and all before it are durable; with a change of state, or
            alone.
        ahead: the partition may go on while its state is being written, if that is much.
    """

    outputs: Sequence[Output] = ()
    delta: bytes | None = None
    whole: bool = False
    finishes: Sequence[RecordBatch] = ()
    ahead: bool = False

    def __post_init__(self) -> None:
        if self.finishes and self.outputs and not self.changes_state:
            raise ValueError("batches are finished with a change of state, or by a step of their own")

    @property
    def changes_state(self) -> bool:
        return self.whole or self.delta is not None

    @property
    def only_finishes(self) -> bool:
        return bool(self.finishes) and not self.outputs and not self.changes_state


#: A step that only lets others run.
BREATH = Step()


class Report(Protocol):
    """What a loop tells of itself."""

    def worked(self, seconds: float, records: int) -> None:
        """A partition took so many records at once; so long until it could go on with the next ones."""

    def restored(self, seconds: float) -> None:
        """The state of a partition was restored in so long."""


class PartitionWork(Protocol):
    """What a stage does for one partition."""

    @property
    def state(self) -> PartitionState:
        """What the changelog keeps; it has taken in a step's delta when the step is yielded."""

    async def open(self) -> None:
        """Restore the state; called before the first batch."""

    def handle(self, batches: list[RecordBatch]) -> Iterator[Step]:
        """Work on batches of the stage's topics in order of arrival; they are finished once all is durable.

        What a step asks for is durable when the generator is resumed, but for the state of a step that goes
        ahead. The generator is closed instead when the partition is taken away.
        """

    def tick(self) -> Iterator[Step]:
        """Called after `TICK_SECONDS` without a batch."""

    async def close(self) -> None:
        """The partition has been revoked or the worker ends; nothing is under way."""


Work = TypeVar("Work", bound=PartitionWork)


@dataclass(slots=True, eq=False)
class _Partition(Generic[Work]):
    number: int
    work: Work
    worked_at: float
    arrived: deque[RecordBatch] = field(default_factory=deque)
    steps: Iterator[Step] | None = None
    began: float = 0.0
    records: int = 0
    dropped: bool = False

    def take(self, most: int) -> list[RecordBatch]:
        """What has arrived, up to `most` records unless the first batch has more."""
        taken = [self.arrived.popleft()]
        self.records = len(taken[0])
        while self.arrived and self.records + len(self.arrived[0]) <= most:
            taken.append(self.arrived.popleft())
            self.records += len(taken[-1])
        return taken


class StageLoop(Generic[Work]):
    """The partitions of one stage.

    What may arrive before it is worked on is bounded by the transport: it hands out only so many batches of a
    partition.

    Args:
        name: of the stage.
        create: makes the work of a partition.
        outputs: where outputs go.
        changelog: where the states go.
        on_error: told of the exception that ended the loop; must end the worker.
        most: records that a partition takes at once, unless a single batch has more.
        report: told of batches and restores.
    """

    def __init__(
        self,
        name: str,
        create: Callable[[int], Work],
        outputs: Outputs,
        changelog: Changelog,
        on_error: Callable[[BaseException], Awaitable[None]],
        *,
        most: int,
        report: Report | None = None,
    ) -> None:
        self.name = name
        self._create = create
        self._outputs = outputs
        self._changelog = changelog
        self._on_error = on_error
        self._most = most
        self._report = report
        self._partitions: dict[int, _Partition[Work]] = {}
        self._something = asyncio.Event()
        #: held for a round; whoever else holds it keeps all partitions still
        self._turn = asyncio.Lock()
        self._paused = False
        self._task: asyncio.Task[None] | None = None
        #: writes what a round has changed, while the next one computes and sends
        self._saving: asyncio.Task[None] | None = None
        #: batches to finish after that
        self._finishing: list[RecordBatch] = []

    @property
    def works(self) -> dict[int, Work]:
        """The open partitions."""
        return {number: partition.work for number, partition in self._partitions.items()}

    async def open(self, numbers: Iterable[int]) -> None:
        """Restore the partitions' states and start working on them."""

        async def one(number: int) -> None:
            work = self._create(number)
            began = time.monotonic()
            await work.open()
            self._partitions[number] = _Partition(number, work, time.monotonic())
            if self._report is not None:
                self._report.restored(time.monotonic() - began)

        await asyncio.gather(*(one(number) for number in numbers if number not in self._partitions))
        if self._task is None:
            self._task = asyncio.create_task(self._run(), name=f"stage-{self.name}")
        self._something.set()

    def put(self, batch: RecordBatch) -> None:
        """Have the batch worked on after those before it.

        A partition that has been dropped meanwhile does nothing: its batches are read again by its new owner.
        """
        partition = self._partitions.get(batch.partition)
        if partition is not None:
            partition.arrived.append(batch)
            self._something.set()

    def nudge(self, number: int) -> None:
        """Let the partition tick now: something else than a batch has come for it."""
        partition = self._partitions.get(number)
        if partition is not None:
            partition.worked_at = 0.0
            self._something.set()

    async def pause(self) -> None:
        """Let the steps that are being made durable become so, and start nothing more until `resume`.

        Before a rebalance: another worker may restore a partition as soon as the group has met, and what is
        written to its changelog after that would be lost to it.
        """
        if not self._paused:
            self._paused = await self._still()

    def resume(self) -> None:
        """Go on with the partitions that are still here."""
        if self._paused:
            self._paused = False
            self._turn.release()

    async def drop(self, numbers: Iterable[int]) -> None:
        """Give these partitions up after the steps under way; what waits is left unfinished."""
        ending = [self._partitions.pop(number) for number in numbers if number in self._partitions]
        for partition in ending:
            partition.dropped = True
        if ending and not self._paused and await self._still():
            self._turn.release()
        for partition in ending:
            partition.steps = None
            await partition.work.close()

    async def stop(self) -> None:
        """End the loop and give every partition up."""
        await self.pause()
        task, self._task = self._task, None
        if task is not None and task is not asyncio.current_task():
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
        await self.drop(list(self._partitions))
        self.resume()

    async def _still(self) -> bool:
        """Take the turn once all is saved, if that comes within `DRAIN_SECONDS`."""
        taken = False
        try:
            async with asyncio.timeout(DRAIN_SECONDS):
                taken = await self._turn.acquire()
                if self._saving is not None:
                    await asyncio.wait([self._saving])
        except TimeoutError:
            pass
        # A failure is left to the next round.
        saving = self._saving
        if taken and saving is not None and saving.done() and not (saving.cancelled() or saving.exception()):
            self._settle()
        return taken

    async def _run(self) -> None:
        try:
            while True:
                async with self._turn:
                    worked = await self._round()
                if not worked:
                    await self._wait()
        except Exception as error:
            await self._on_error(error)

    async def _wait(self) -> None:
        try:
            async with asyncio.timeout(TICK_SECONDS):
                await self._something.wait()
        except TimeoutError:
            pass

    async def _round(self) -> bool:
        """One step of every partition that has one; False if none had."""
        self._something.clear()
        self._settle()
        steps: list[tuple[_Partition[Work], Step]] = []
        for partition in list(self._partitions.values()):
            if (step := self._next(partition)) is not None:
                steps.append((partition, step))
        outputs = [output for _, step in steps for output in step.outputs]
        changing = [(partition, step) for partition, step in steps if step.changes_state]
        if outputs:
            await self._outputs.send(outputs)
        elif not changing:
            await asyncio.sleep(0)
        if changing:
            if outputs:
                failpoint(f"{self.name}:sent")
            await self._saved()
            self._save([(partition, step) for partition, step in changing if not partition.dropped])
            written = sum(len(step.delta or b"") for _, step in changing)
            if written < AHEAD_BYTES or not all(step.ahead for _, step in changing):
                await self._saved()
        return bool(steps)

    def _save(self, steps: Sequence[tuple[_Partition[Work], Step]]) -> None:
        """Begin to write what the steps have changed."""
        writing = self._changelog.save(
            [
                Change(partition.number, partition.work.state, None if step.whole else step.delta)
                for partition, step in steps
            ]
        )
        self._finishing = [batch for _, step in steps for batch in step.finishes]
        self._saving = asyncio.create_task(writing, name=f"save-{self.name}")
        # The loop may be waiting.
        self._saving.add_done_callback(lambda _: self._something.set())

    async def _saved(self) -> None:
        """Wait until what is being written is there.

        Raises:
            Exception: what went wrong with it.
        """
        if self._saving is not None:
            await asyncio.wait([self._saving])
        self._settle()

    def _settle(self) -> None:
        """Finish what has been written meanwhile; raises what went wrong with it."""
        if self._saving is not None and self._saving.done():
            saving, self._saving = self._saving, None
            saving.result()
            failpoint(f"{self.name}:saved")
            finishing, self._finishing = self._finishing, []
            for batch in finishing:
                batch.finish()

    def _finish(self, batches: Sequence[RecordBatch]) -> None:
        """Finish these as soon as nothing before them is being written."""
        if self._saving is not None:
            self._finishing += batches
        else:
            for batch in batches:
                batch.finish()

    def _next(self, partition: _Partition[Work]) -> Step | None:
        """The next step of a partition, if it has something to do."""
        while not partition.dropped:
            if partition.steps is None:
                now = time.monotonic()
                if partition.arrived:
                    partition.began = now
                    partition.steps = partition.work.handle(partition.take(self._most))
                elif now - partition.worked_at >= TICK_SECONDS:
                    partition.steps = partition.work.tick()
                else:
                    return None
                partition.worked_at = now
            step = next(partition.steps, None)
            if step is not None and step.only_finishes:
                self._finish(step.finishes)
                continue
            if step is not None:
                return step
            partition.steps = None
            if self._report is not None and partition.records:
                self._report.worked(time.monotonic() - partition.began, partition.records)
                partition.records = 0
        return None
