"""Partition tasks: order, grouping, errors, and what is dropped."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass

from streams.kafka.batches import PartitionBook, RecordBatch
from streams.stages.partitions import PartitionTasks


@dataclass(frozen=True)
class _Record:
    offset: int
    topic: str = "t"
    partition: int = 0
    timestamp: int = 0
    key: bytes | None = None
    value: bytes | None = b""
    headers: tuple[tuple[str, bytes], ...] = ()


class Work:
    """Handles when the test lets it; batch 13 is bad luck."""

    def __init__(self, partition: int) -> None:
        self.partition = partition
        self.may_go = asyncio.Event()
        self.under_way = asyncio.Event()
        self.handled: list[list[int]] = []
        self.events: list[str] = []

    async def open(self) -> None:
        self.events.append("open")

    async def handle(self, batches: list[RecordBatch]) -> None:
        self.under_way.set()
        await self.may_go.wait()
        if batches[0].first_offset == 13:
            raise RuntimeError("bad luck")
        self.handled.append([batch.first_offset for batch in batches])
        for batch in batches:
            batch.finish()

    async def tick(self) -> None:
        self.events.append("tick")

    async def close(self) -> None:
        self.events.append("close")


class Stage:
    def __init__(self, most: int = 4) -> None:
        self.errors: list[BaseException] = []
        self.failed = asyncio.Event()
        self.books = {partition: PartitionBook("t", partition) for partition in range(2)}
        self.tasks: PartitionTasks[Work] = PartitionTasks("stage", Work, self.on_error, most=most)

    async def on_error(self, error: BaseException) -> None:
        self.errors.append(error)
        self.failed.set()

    def put(self, partition: int, offset: int, records: int = 1) -> None:
        book = self.books[partition]
        self.tasks.put(
            book.hand_out([_Record(offset + each) for each in range(records)], offset + records, None)
        )


async def until(condition: Callable[[], object]) -> None:
    async with asyncio.timeout(5):
        while not condition():  # noqa: ASYNC110 -- the conditions are of many kinds
            await asyncio.sleep(0.001)


def test_batches_in_order_and_together_while_others_wait() -> None:
    """What arrives while a partition works is taken at once, in order, up to the limit.

    Partitions do not wait for each other.
    """

    async def scenario() -> None:
        stage = Stage(most=4)
        await stage.tasks.open([0, 1])
        slow, fast = stage.tasks.works[0], stage.tasks.works[1]
        fast.may_go.set()
        stage.put(0, 0)
        await slow.under_way.wait()
        for offset in range(1, 7):
            stage.put(0, offset)
        stage.put(0, 7, records=9)  # larger than the limit by itself
        stage.put(1, 0)
        await until(lambda: fast.handled)
        assert slow.handled == []
        slow.may_go.set()
        await until(lambda: len(slow.handled) == 4)
        assert slow.handled == [[0], [1, 2, 3, 4], [5, 6], [7]]
        assert stage.books[0].committable == 16
        await stage.tasks.stop()
        assert (slow.events[0], slow.events[-1]) == ("open", "close")

    asyncio.run(scenario())


def test_an_error_ends_the_worker_and_finishes_nothing_more() -> None:
    """The error is told once, the failed batch stays unfinished, and the partition takes no other."""

    async def scenario() -> None:
        stage = Stage()
        await stage.tasks.open([0])
        work = stage.tasks.works[0]
        work.may_go.set()
        stage.put(0, 12)
        await until(lambda: work.handled)
        stage.put(0, 13)
        await stage.failed.wait()
        stage.put(0, 14)
        await stage.tasks.stop()
        assert [str(error) for error in stage.errors] == ["bad luck"]
        assert work.handled == [[12]]
        assert stage.books[0].committable == 13

    asyncio.run(scenario())


def test_dropping_ends_what_is_under_way_and_leaves_the_rest_unfinished() -> None:
    """A revoked partition ends its batch, its waiting batches are not worked on, later ones go nowhere."""

    async def scenario() -> None:
        stage = Stage()
        await stage.tasks.open([0])
        work = stage.tasks.works[0]
        stage.put(0, 0)
        await work.under_way.wait()
        stage.put(0, 1)
        dropping = asyncio.create_task(stage.tasks.drop([0]))
        await asyncio.sleep(0)
        work.may_go.set()
        await dropping
        stage.put(0, 2)
        assert work.handled == [[0]]
        assert stage.books[0].committable == 1
        assert stage.tasks.works == {}
        assert work.events[-1] == "close"

    asyncio.run(scenario())


def test_an_idle_partition_ticks() -> None:
    """Without batches a partition is given its chance again and again."""

    async def scenario() -> None:
        stage = Stage()
        await stage.tasks.open([0])
        work = stage.tasks.works[0]
        await until(lambda: work.events.count("tick") >= 2)
        await stage.tasks.stop()

    asyncio.run(scenario())
