"""Consumers close in order while the broker is away, or their group waits for a member that is gone."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace
from typing import Any

import pytest
from aiokafka.consumer.fetcher import Fetcher
from aiokafka.consumer.group_coordinator import CoordinatorGroupRebalance

from streams.kafka import closing
from streams.kafka.batch_consumer import BatchConsumer
from streams.kafka.connection import client_options
from streams.sections import Broker


def waiting() -> Any:
    """A fetcher as `close` finds it when the broker is away: every fetch waits for its next try."""
    fetches = {asyncio.create_task(asyncio.sleep(60)) for _ in range(3)}
    routine = asyncio.create_task(asyncio.sleep(60))
    return SimpleNamespace(_fetch_task=routine, _pending_tasks=fetches, _fetch_waiters=set(), _closed=False)


def test_fetches_that_wait_for_their_next_try_end() -> None:
    """aiokafka's own `close` raises a cancellation of nobody's; that of the project's consumers returns."""

    async def run() -> None:
        with pytest.raises(asyncio.CancelledError):
            await closing._close(waiting())
        fetcher = waiting()
        tasks = [fetcher._fetch_task, *fetcher._pending_tasks]
        await Fetcher.close(fetcher)
        assert fetcher._closed
        assert all(task.cancelled() for task in tasks)

    asyncio.run(run())


def test_who_closes_can_be_cancelled() -> None:
    """A cancellation of the caller comes out, as it should."""

    async def run() -> None:
        fetcher = waiting()
        begun = asyncio.Event()

        async def stubborn() -> None:
            try:
                await asyncio.sleep(60)
            except asyncio.CancelledError:
                begun.set()
                await asyncio.sleep(60)

        fetcher._pending_tasks = {asyncio.create_task(stubborn())}
        await asyncio.sleep(0)
        caller = asyncio.create_task(Fetcher.close(fetcher))
        await begun.wait()
        caller.cancel()
        with pytest.raises(asyncio.CancelledError):
            await caller

    asyncio.run(run())


class Joining:
    """A group that a consumer joins, as aiokafka's coordinator and its rebalance see it."""

    def __init__(self) -> None:
        self._coordinator = self
        self._closing: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.joined: asyncio.Future[tuple[str, bytes]] = asyncio.get_running_loop().create_future()
        self.reset = False

    async def perform_group_join(self) -> tuple[str, bytes]:
        return await self.joined

    def reset_generation(self) -> None:
        self.reset = True


def test_a_group_that_is_not_complete_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    """Some time after the consumer has begun to close; it does not ask to leave what it has not joined."""
    monkeypatch.setattr(closing, "_join", Joining.perform_group_join)
    monkeypatch.setattr(closing, "JOINING_SECONDS", 0.01)

    async def run() -> None:
        group = Joining()
        group._closing.set_result(None)
        async with asyncio.timeout(20):
            assert await closing.join(group) is None
        assert group.reset
        await asyncio.sleep(0)
        assert group.joined.cancelled()

    asyncio.run(run())


def test_a_group_that_is_joined_while_closing_is_left_in_order(monkeypatch: pytest.MonkeyPatch) -> None:
    """Also one whose answer comes after the consumer has begun to close."""
    monkeypatch.setattr(closing, "_join", Joining.perform_group_join)

    async def run() -> None:
        group = Joining()
        joining = asyncio.create_task(closing.join(group))
        await asyncio.sleep(0)
        group._closing.set_result(None)
        for _ in range(5):
            await asyncio.sleep(0)
        group.joined.set_result(("range", b"assigned"))
        assert await joining == ("range", b"assigned")
        assert not group.reset

    asyncio.run(run())


class Committing:
    """A consumer that commits for the last time."""

    app = SimpleNamespace(crashed=False, should_stop=True)
    _gave_up = False

    def __init__(self, commit: asyncio.Future[bool]) -> None:
        self.commit = lambda: commit


def test_a_commit_whose_thread_has_ended_is_given_up() -> None:
    """Its cancellation is not that of who stops the app: the stop goes on, the exit code is its own."""

    async def run() -> None:
        ended = asyncio.get_running_loop().create_future()
        ended.cancel()
        consumer: Any = Committing(ended)
        await BatchConsumer._commit_at_the_end(consumer)
        assert consumer._gave_up
        stopping: Any = Committing(asyncio.get_running_loop().create_future())
        stop = asyncio.create_task(BatchConsumer._commit_at_the_end(stopping))
        await asyncio.sleep(0)
        stop.cancel()
        with pytest.raises(asyncio.CancelledError):
            await stop

    asyncio.run(run())


def test_every_client_of_the_project_closes_so() -> None:
    """Who asks for the options of a client has what is repaired of aiokafka."""
    assert client_options(Broker())["bootstrap_servers"] == "localhost:9092"
    assert Fetcher.close is closing.close
    assert CoordinatorGroupRebalance.perform_group_join is closing.join
