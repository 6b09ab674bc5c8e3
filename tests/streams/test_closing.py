"""Consumers close in order while the broker is away."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace
from typing import Any

import pytest
from aiokafka.consumer.fetcher import Fetcher

from streams.kafka import closing
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


def test_every_client_of_the_project_closes_so() -> None:
    """Who asks for the options of a client has the repaired `close`."""
    assert client_options(Broker())["bootstrap_servers"] == "localhost:9092"
    assert Fetcher.close is closing.close
