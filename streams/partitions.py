"""One task per assigned partition: restore its state, then work through its batches in order.

The agents of a stage put the batches they receive into the queue of their partition and go on; while one
partition waits for acknowledgements of the broker, another computes. An exception in any task ends the
worker: nothing that was not finished is committed, so nothing is lost.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable
from typing import Generic, Protocol, TypeVar

QUEUE_BATCHES = 4
#: How long a revoked partition may take to end the batch it is working on.
DRAIN_SECONDS = 2.0
#: How often a partition without batches is given the chance to do what waits for time to pass.
TICK_SECONDS = 0.25


class PartitionWork(Protocol):
    """What a stage does for one partition."""

    async def open(self) -> None:
        """Restore the state; called before the first batch."""

    async def tick(self) -> None:
        """Called after `TICK_SECONDS` without a batch."""

    async def close(self) -> None:
        """The partition has been revoked or the worker ends; no batch is under way."""


Work = TypeVar("Work", bound=PartitionWork)
Job = Callable[[], Awaitable[None]]


class _Running(Generic[Work]):
    def __init__(
        self, work: Work, task_name: str, on_error: Callable[[BaseException], Awaitable[None]]
    ) -> None:
        self.work = work
        self.queue: asyncio.Queue[Job | None] = asyncio.Queue(QUEUE_BATCHES)
        self._on_error = on_error
        self.task = asyncio.create_task(self._run(), name=task_name)

    async def _run(self) -> None:
        try:
            while True:
                try:
                    async with asyncio.timeout(TICK_SECONDS):
                        job = await self.queue.get()
                except TimeoutError:
                    await self.work.tick()
                    continue
                if job is None:
                    return
                await job()
        except Exception as error:
            await self._on_error(error)


class PartitionTasks(Generic[Work]):
    """The tasks of one stage.

    Args:
        name: of the stage.
        create: makes the work of a partition.
        on_error: told of the exception that ended a task; must end the worker.
    """

    def __init__(
        self,
        name: str,
        create: Callable[[int], Work],
        on_error: Callable[[BaseException], Awaitable[None]],
    ) -> None:
        self.name = name
        self._create = create
        self._on_error = on_error
        self._running: dict[int, _Running[Work]] = {}

    @property
    def works(self) -> dict[int, Work]:
        """The open partitions."""
        return {partition: running.work for partition, running in self._running.items()}

    async def open(self, partitions: Iterable[int]) -> None:
        """Restore the partitions' states and start their tasks."""

        async def one(partition: int) -> None:
            work = self._create(partition)
            await work.open()
            self._running[partition] = _Running(work, f"{self.name}-{partition}", self._on_error)

        await asyncio.gather(*(one(partition) for partition in partitions if partition not in self._running))

    async def put(self, partition: int, job: Callable[[Work], Awaitable[None]]) -> None:
        """Have `job` done for the partition after the jobs before it; waits while the queue is full.

        A partition that has been dropped meanwhile does nothing: its batches are read again by its new owner.
        """
        running = self._running.get(partition)
        if running is not None:
            await running.queue.put(lambda: job(running.work))

    async def drop(self, partitions: Iterable[int]) -> None:
        """End these partitions' tasks after the batch under way; queued batches are left unfinished."""
        ending = [self._running.pop(partition) for partition in partitions if partition in self._running]
        if not ending:
            return
        for running in ending:
            while not running.queue.empty():
                running.queue.get_nowait()
            running.queue.put_nowait(None)
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
