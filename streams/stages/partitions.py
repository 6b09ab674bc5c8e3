"""One task per assigned partition: restore its state, then work through what arrives, in order.

The agents of a stage hand on the batches they receive and go on; while one partition waits for
acknowledgements of the broker, another computes. A partition takes everything that has arrived meanwhile at
once, so that batches grow with the load and the cost of an acknowledgement is shared by more rows. An
exception in any task ends the worker: nothing that was not finished is committed, so nothing is lost.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Iterable
from typing import Generic, Protocol, TypeVar

from streams.kafka.batches import RecordBatch

#: How long a revoked partition may take to end the batches it is working on.
DRAIN_SECONDS = 2.0
#: How often a partition without batches is given the chance to do what waits for time to pass.
TICK_SECONDS = 0.25


class PartitionWork(Protocol):
    """What a stage does for one partition."""

    async def open(self) -> None:
        """Restore the state; called before the first batch."""

    async def handle(self, batches: list[RecordBatch]) -> None:
        """Work on batches of the stage's topics in order of arrival; finish them once all is durable."""

    async def tick(self) -> None:
        """Called after `TICK_SECONDS` without a batch."""

    async def close(self) -> None:
        """The partition has been revoked or the worker ends; nothing is under way."""


Work = TypeVar("Work", bound=PartitionWork)


class _Running(Generic[Work]):
    def __init__(
        self, work: Work, task_name: str, most: int, on_error: Callable[[BaseException], Awaitable[None]]
    ) -> None:
        self.work = work
        self.arrived: deque[RecordBatch] = deque()
        self.something = asyncio.Event()
        self.ending = False
        #: held while working; whoever else holds it keeps the partition still
        self.turn = asyncio.Lock()
        self._most = most
        self._on_error = on_error
        self.task = asyncio.create_task(self._run(), name=task_name)

    async def _run(self) -> None:
        try:
            while not self.ending:
                if not self.arrived:
                    self.something.clear()
                    try:
                        async with asyncio.timeout(TICK_SECONDS):
                            await self.something.wait()
                    except TimeoutError:
                        async with self.turn:
                            if not self.ending:
                                await self.work.tick()
                    continue
                async with self.turn:
                    if self.arrived and not self.ending:
                        await self.work.handle(self._take())
        except Exception as error:
            await self._on_error(error)

    def _take(self) -> list[RecordBatch]:
        taken = [self.arrived.popleft()]
        records = len(taken[0])
        while self.arrived and records + len(self.arrived[0]) <= self._most:
            taken.append(self.arrived.popleft())
            records += len(taken[-1])
        return taken


class PartitionTasks(Generic[Work]):
    """The tasks of one stage.

    What may arrive before it is worked on is bounded by the transport: it hands out only so many batches of a
    partition.

    Args:
        name: of the stage.
        create: makes the work of a partition.
        on_error: told of the exception that ended a task; must end the worker.
        most: records that a partition takes at once, unless a single batch has more.
    """

    def __init__(
        self,
        name: str,
        create: Callable[[int], Work],
        on_error: Callable[[BaseException], Awaitable[None]],
        *,
        most: int,
    ) -> None:
        self.name = name
        self._create = create
        self._on_error = on_error
        self._most = most
        self._running: dict[int, _Running[Work]] = {}
        self._still: list[_Running[Work]] = []

    @property
    def works(self) -> dict[int, Work]:
        """The open partitions."""
        return {partition: running.work for partition, running in self._running.items()}

    async def open(self, partitions: Iterable[int]) -> None:
        """Restore the partitions' states and start their tasks."""

        async def one(partition: int) -> None:
            work = self._create(partition)
            await work.open()
            self._running[partition] = _Running(work, f"{self.name}-{partition}", self._most, self._on_error)

        await asyncio.gather(*(one(partition) for partition in partitions if partition not in self._running))

    def put(self, batch: RecordBatch) -> None:
        """Have the batch worked on after those before it.

        A partition that has been dropped meanwhile does nothing: its batches are read again by its new owner.
        """
        running = self._running.get(batch.partition)
        if running is not None:
            running.arrived.append(batch)
            running.something.set()

    async def pause(self) -> None:
        """Let every task end what it is working on, and start nothing more until `resume`.

        Before a rebalance: another worker may restore a partition as soon as the group has met, and what is
        written to its changelog after that would be lost to it.
        """

        async def hold(running: _Running[Work]) -> None:
            try:
                async with asyncio.timeout(DRAIN_SECONDS):
                    await running.turn.acquire()
            except TimeoutError:
                return
            self._still.append(running)

        held = set(map(id, self._still))
        await asyncio.gather(*(hold(each) for each in self._running.values() if id(each) not in held))

    def resume(self) -> None:
        """Go on with the partitions that are still here."""
        still, self._still = self._still, []
        for running in still:
            running.turn.release()

    async def drop(self, partitions: Iterable[int]) -> None:
        """End these partitions' tasks after the batches under way; what waits is left unfinished."""
        ending = [self._running.pop(partition) for partition in partitions if partition in self._running]
        if not ending:
            return
        for running in ending:
            running.ending = True
            running.arrived.clear()
            running.something.set()
            if running in self._still:
                self._still.remove(running)
                running.turn.release()
        tasks = [running.task for running in ending]
        _, late = await asyncio.wait(tasks, timeout=DRAIN_SECONDS)
        for task in late:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        for running in ending:
            await running.work.close()

    async def stop(self) -> None:
        """End every task."""
        await self.drop(list(self._running))
