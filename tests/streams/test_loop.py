"""The loop of a stage: order, sharing, errors, and what is dropped."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import cast

import pytest

from streams.kafka.batches import PartitionBook, RecordBatch
from streams.kafka.changelog import Change, Changelog
from streams.kafka.outputs import Output, Outputs
from streams.stages import loop
from streams.stages.loop import StageLoop, Step
from tests.streams.sources import Source


class State:
    buckets = 1

    def apply(self, delta: bytes) -> None:
        raise NotImplementedError

    def dump(self, bucket: int) -> bytes:
        raise NotImplementedError

    def load(self, bucket: int, data: bytes) -> None:
        raise NotImplementedError


class Work:
    """One step for every batch, whose delta is its first offset; batch 13 is bad luck.

    In partition 9 a step goes ahead and finishes its batch; elsewhere a step of its own does so at the end.
    """

    def __init__(self, partition: int) -> None:
        self.partition = partition
        self.state = State()
        self.taken: list[list[int]] = []
        self.events: list[str] = []

    async def open(self) -> None:
        self.events.append("open")

    def handle(self, batches: list[RecordBatch]) -> Iterator[Step]:
        self.taken.append([batch.first_offset for batch in batches])
        for batch in batches:
            if batch.first_offset == 13:
                raise RuntimeError("bad luck")
            offset = str(batch.first_offset).encode()
            ahead = self.partition == 9
            finishes = [batch] if ahead else []
            yield Step([Output("out", self.partition, None, offset)], offset, False, finishes, ahead)
        if self.partition != 9:
            yield Step(finishes=batches)

    def tick(self) -> Iterator[Step]:
        self.events.append("tick")
        yield from ()

    async def close(self) -> None:
        self.events.append("close")


class Stage:
    """A loop whose broker is a list of what was sent and saved, in order.

    Sends wait for `may_send`, saves for `may_save`; one of batch 66 fails.
    """

    def __init__(self, most: int = 4) -> None:
        self.errors: list[BaseException] = []
        self.failed = asyncio.Event()
        self.may_send, self.sending, self.may_save = asyncio.Event(), asyncio.Event(), asyncio.Event()
        self.may_save.set()
        self.log: list[tuple[str, set[tuple[int, bytes | None]]]] = []
        self.books = {partition: PartitionBook("t", partition) for partition in (0, 1, 9)}
        self.loop: StageLoop[Work] = StageLoop(
            "stage",
            Work,
            cast("Outputs", self),
            cast("Changelog", self),
            self.on_error,
            most=most,
            report=self,
        )
        self.worked_on: list[int] = []
        self.restores = 0

    def worked(self, seconds: float, records: int) -> None:
        assert 0 <= seconds < 5
        self.worked_on.append(records)

    def restored(self, seconds: float) -> None:
        assert 0 <= seconds < 5
        self.restores += 1

    async def send(self, records: Iterable[Output]) -> None:
        self.sending.set()
        await self.may_send.wait()
        self.log.append(("sent", {(record.partition, record.value) for record in records}))

    async def save(self, changes: Sequence[Change]) -> None:
        await self.may_save.wait()
        if any(change.delta == b"66" for change in changes):
            raise RuntimeError("not saved")
        self.log.append(("saved", {(change.partition, change.delta) for change in changes}))

    async def on_error(self, error: BaseException) -> None:
        self.errors.append(error)
        self.failed.set()

    def put(self, partition: int, offset: int, records: int = 1) -> None:
        made = [Source(b"", offset=offset + each) for each in range(records)]
        self.loop.put(self.books[partition].hand_out(made, offset + records, None))


async def until(condition: Callable[[], object]) -> None:
    async with asyncio.timeout(5):
        while not condition():  # noqa: ASYNC110 -- the conditions are of many kinds
            await asyncio.sleep(0.001)


def test_partitions_share_rounds_and_take_what_has_arrived() -> None:
    """What arrives while a round is sent is taken at once, in order, up to the limit.

    Outputs of all partitions go before the states, states before anything is finished.
    """

    async def scenario() -> None:
        stage = Stage(most=4)
        await stage.loop.open([0, 1])
        stage.put(0, 0)
        await stage.sending.wait()
        for offset in range(1, 7):
            stage.put(0, offset)
        stage.put(0, 7, records=9)  # larger than the limit by itself
        stage.put(1, 0)
        assert stage.log == []
        assert stage.books[0].committable is None
        stage.may_send.set()
        await until(lambda: stage.books[0].committable == 16)
        assert stage.loop.works[0].taken == [[0], [1, 2, 3, 4], [5, 6], [7]]
        alone, shared = {(0, b"0")}, {(0, b"1"), (1, b"0")}
        assert stage.log[:4] == [("sent", alone), ("saved", alone), ("sent", shared), ("saved", shared)]
        work = stage.loop.works[0]
        await stage.loop.stop()
        assert (work.events[0], work.events[-1]) == ("open", "close")

    asyncio.run(scenario())


def test_an_error_ends_the_worker_and_finishes_nothing_more() -> None:
    """The error is told once, the failed batch stays unfinished, and no other is taken."""

    async def scenario() -> None:
        stage = Stage()
        stage.may_send.set()
        await stage.loop.open([0])
        work = stage.loop.works[0]
        stage.put(0, 12)
        await until(lambda: stage.books[0].committable == 13)
        stage.put(0, 13)
        await stage.failed.wait()
        stage.put(0, 14)
        await stage.loop.stop()
        assert [str(error) for error in stage.errors] == ["bad luck"]
        assert work.taken == [[12], [13]]
        assert stage.books[0].committable == 13

    asyncio.run(scenario())


def test_dropping_waits_for_what_is_under_way_and_saves_no_more() -> None:
    """A revoked partition's step is sent but not saved or finished; the others of its round are."""

    async def scenario() -> None:
        stage = Stage()
        await stage.loop.open([0, 1])
        work = stage.loop.works[0]
        stage.put(0, 0)
        stage.put(1, 0)
        await stage.sending.wait()
        stage.put(0, 1)
        dropping = asyncio.create_task(stage.loop.drop([0]))
        await asyncio.sleep(0)
        stage.may_send.set()
        await dropping
        stage.put(0, 2)
        await until(lambda: stage.books[1].committable == 1)
        assert stage.log == [("sent", {(0, b"0"), (1, b"0")}), ("saved", {(1, b"0")})]
        assert work.taken == [[0]]
        assert stage.books[0].committable is None
        assert list(stage.loop.works) == [1]
        assert work.events[-1] == "close"
        await stage.loop.stop()

    asyncio.run(scenario())


def test_a_pause_keeps_all_partitions_still() -> None:
    """After `pause` what was under way is saved and nothing more begins, until `resume`."""

    async def scenario() -> None:
        stage = Stage()
        await stage.loop.open([0])
        stage.put(0, 0)
        await stage.sending.wait()
        stage.put(0, 1)
        pausing = asyncio.create_task(stage.loop.pause())
        await asyncio.sleep(0)
        stage.may_send.set()
        await pausing
        assert stage.log == [("sent", {(0, b"0")}), ("saved", {(0, b"0")})]
        assert stage.loop.works[0].taken == [[0]]
        stage.loop.resume()
        await until(lambda: stage.books[0].committable == 2)
        await stage.loop.stop()

    asyncio.run(scenario())


async def held_up() -> Stage:
    """What partition 9 has sent first waits to be saved; a second batch has come."""
    stage = Stage()
    stage.may_send.set()
    stage.may_save.clear()
    await stage.loop.open([9])
    stage.put(9, 0)
    await until(lambda: len(stage.log) == 1)
    stage.put(9, 1)
    return stage


def test_a_step_that_goes_ahead_is_finished_when_it_is_saved(monkeypatch: pytest.MonkeyPatch) -> None:
    """The next round is sent while the one before is being saved, and saved after it."""
    monkeypatch.setattr(loop, "AHEAD_BYTES", 1)

    async def scenario() -> None:
        stage = await held_up()
        await until(lambda: len(stage.log) == 2)
        assert stage.log == [("sent", {(9, b"0")}), ("sent", {(9, b"1")})]
        assert stage.books[9].finished is None
        pausing = asyncio.create_task(stage.loop.pause())
        stage.put(9, 2)
        await asyncio.sleep(0)
        stage.may_save.set()
        await pausing
        assert stage.log[2:] == [("saved", {(9, b"0")}), ("saved", {(9, b"1")})]
        assert stage.books[9].committable == 2
        stage.loop.resume()
        await until(lambda: stage.books[9].committable == 3)
        await stage.loop.stop()

    asyncio.run(scenario())


def test_little_is_waited_for() -> None:
    """Nothing more is sent until a small change of the state is there, whether it may go ahead or not."""

    async def scenario() -> None:
        stage = await held_up()
        for _ in range(10):
            await asyncio.sleep(0)
        assert stage.log == [("sent", {(9, b"0")})]
        stage.may_save.set()
        await until(lambda: stage.books[9].committable == 2)
        await stage.loop.stop()

    asyncio.run(scenario())


def test_a_state_that_cannot_be_saved_ends_the_worker(monkeypatch: pytest.MonkeyPatch) -> None:
    """Also when nothing more comes: the batch stays unfinished, and the ones before it are not touched."""
    monkeypatch.setattr(loop, "AHEAD_BYTES", 1)

    async def scenario() -> None:
        stage = Stage()
        stage.may_send.set()
        await stage.loop.open([9])
        stage.put(9, 65)
        await until(lambda: stage.books[9].committable == 66)
        stage.put(9, 66)
        await stage.failed.wait()
        assert [str(error) for error in stage.errors] == ["not saved"]
        assert stage.books[9].committable == 66
        await stage.loop.stop()

    asyncio.run(scenario())


def test_an_idle_partition_ticks() -> None:
    """Without batches a partition is given its chance again and again, and at once when it is nudged."""

    async def scenario() -> None:
        stage = Stage()
        await stage.loop.open([0])
        work = stage.loop.works[0]
        await until(lambda: work.events.count("tick") >= 2)
        ticked = work.events.count("tick")
        stage.loop.nudge(0)
        for _ in range(3):
            await asyncio.sleep(0)
        assert work.events.count("tick") == ticked + 1
        await stage.loop.stop()

    asyncio.run(scenario())


def test_batches_and_restores_are_reported() -> None:
    """Two restores; then what a partition took at once, also when it was nudged meanwhile; no ticks."""

    async def scenario() -> None:
        stage = Stage(most=4)
        await stage.loop.open([0, 1])
        assert stage.restores == 2
        stage.put(0, 0)
        await stage.sending.wait()
        for offset in range(1, 4):
            stage.put(0, offset)
        stage.loop.nudge(0)
        stage.may_send.set()
        await until(lambda: stage.books[0].finished == 4)
        await until(lambda: "tick" in stage.loop.works[1].events)
        assert stage.worked_on == [1, 3]
        await stage.loop.stop()

    asyncio.run(scenario())
