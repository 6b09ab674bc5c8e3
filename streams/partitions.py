"""One task per assigned partition: restore its state, then work through its batches in order.

The agents of a stage put the batches they receive into the queue of their partition and go on; while one partition waits for
acknowledgements of the broker, another computes. An exception in any task ends the worker: nothing that was not finished is
committed, so nothing is lost.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable
from typing import Generic, Protocol, TypeVar

QUEUE_BATCHES = 4
#: How long a revoked partition may take to end the batch it is working on.
DRAIN_SECONDS = 2.0


class PartitionWork(Protocol):
    """What a stage does for one partition."""

    async def open(self) -> None:
        """Restore the state; called before the first batch."""

    async def tick(self) -> None:
        """Called after `TICK_SECONDS` without a batch."""

    async def close(self) -> None:
        """The partition has been revoked or the worker ends; no batch is under way."""


Work = TypeVar("Work", bound=PartitionWork)

TICK_SECONDS = 0.25


class PartitionTasks(Generic[Work]):
    """The tasks of one stage.

    Args:
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
        self._queues: dict[int, asyncio.Queue[Callable[[Work], Awaitable[None]] | None]] = {}
        self._tasks: dict[int, asyncio.Task[None]] = {}
        self._opened: dict[int, Work] = {}

    @property
    def open_partitions(self) -> dict[int, Work]:
        """The partitions whose state is restored."""
        return self._opened

    async def put(self, partition: int, job: Callable[[Work], Awaitable[None]]) -> None:
        """Have `job` done for the partition after the jobs before it; waits while the queue is full."""
        if partition not in self._tasks:
            self._queues[partition] = asyncio.Queue(QUEUE_BATCHES)
            task = asyncio.create_task(self._run(partition), name=f"{self.name}-{partition}")
            self._tasks[partition] = task
        await self._queues[partition].put(job)

    async def _run(self, partition: int) -> None:
        work = self._create(partition)
        queue = self._queues[partition]
        try:
            await work.open()
            self._opened[partition] = work
            while True:
                try:
                    async with asyncio.timeout(TICK_SECONDS):
                        job = await queue.get()
                except TimeoutError:
                    await work.tick()
                    continue
                if job is None:
                    return
                await job(work)
        except asyncio.CancelledError:
            raise
        except BaseException as error:
            await self._on_error(error)
            raise
        finally:
            self._opened.pop(partition, None)
            await work.close()

    async def drop(self, partitions: Iterable[int]) -> None:
        """End the tasks of these partitions after the batch they are working on; queued batches are left unfinished."""
        ending = [(p, self._tasks.pop(p), self._queues.pop(p)) for p in partitions if p in self._tasks]
        for _, _, queue in ending:
            while not queue.empty():
                queue.get_nowait()
            queue.put_nowait(None)
        if not ending:
            return
        tasks = [task for _, task, _ in ending]
        _, late = await asyncio.wait(tasks, timeout=DRAIN_SECONDS)
        for task in late:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def stop(self) -> None:
        """End every task."""
        await self.drop(list(self._tasks))
