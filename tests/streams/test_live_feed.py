"""When the live page does something: nothing until somebody asks, then the ends of the topics."""

from __future__ import annotations

import asyncio

import aiohttp
import pytest

from streams.kafka.outputs import Output, Outputs
from streams.live.feed import QUIET_SECONDS
from streams.live.tail import Tail
from streams.sections import Broker
from tests.streams.clients import new_topic, unique
from tests.streams.live_worker import LiveWorker, asked, until


def test_nothing_runs_until_somebody_asks_and_a_quiet_minute_ends_it() -> None:
    """The first question starts the readers, going on asking keeps them, a minute without stops them, and
    another question starts them anew, with rates that say nothing of the time between."""

    async def scenario() -> None:
        worker = LiveWorker()
        await asyncio.sleep(0)
        assert (worker.feed.running, worker.topics.started) == (False, 0)
        worker.feed.state()
        await until(lambda: worker.topics.started == 1)
        worker.clock = QUIET_SECONDS - 1
        readings = worker.read_at
        await until(lambda: worker.read_at >= readings + 2)
        worker.feed.state()
        worker.clock = 2 * QUIET_SECONDS - 2
        readings = worker.read_at
        await until(lambda: worker.read_at >= readings + 2)
        await until(lambda: worker.feed.running)
        worker.clock = 2 * QUIET_SECONDS
        await until(lambda: not worker.feed.running)
        assert worker.topics.stopped == 1
        readings = worker.read_at
        state = worker.feed.state()
        assert worker.read_at == readings + 1
        assert len(state["software"]["history"]["wall"]) == 1
        await until(lambda: worker.topics.started == 2)
        await worker.feed.stop()
        assert worker.topics.stopped == 2

    asyncio.run(scenario())


def test_files_of_the_page_start_nothing() -> None:
    """Only the state makes the feed run: what a scanner fetches costs nothing."""
    worker = LiveWorker()

    async def use(session: aiohttp.ClientSession, base: str) -> None:
        for path in ("/live", "/live/page.js", "/live/page.css", "/live/charts.css", "/live/icon.svg"):
            async with session.get(base + path) as answer:
                assert answer.status == 200, path
                assert await answer.text()
        assert not worker.feed.running

    asked(use, worker)


@pytest.mark.broker
def test_the_tail_begins_with_the_newest_records_and_goes_on(broker: str) -> None:
    """Of what is on the topics each partition gives the last ones, then what comes; after a break it gives
    the last ones of what has come since, none of what it gave before, and not a whole night."""

    async def scenario() -> None:
        alerts, reports = await new_topic(broker, 2), await new_topic(broker, 1)
        seen: list[tuple[str, bytes | None]] = []
        tail = Tail(
            Broker(bootstrap=broker),
            {alerts: 2, reports: 1},
            lambda topic, records: seen.extend((topic, record.value) for record in records),
        )
        async with Outputs(broker) as outputs:
            for number in range(4):
                value = b"%d" % number
                await outputs.send([Output(alerts, p, b"k", value) for p in (0, 1)])
                await outputs.send([Output(reports, 0, b"k", value)])
            following = asyncio.create_task(tail.run())
            try:
                newest = [(alerts, b"2"), (alerts, b"2"), (alerts, b"3"), (alerts, b"3"), (reports, b"3")]
                await until(lambda: set(newest) <= set(seen) and len(seen) >= len(newest))
                assert tail.state == "following"
                await outputs.send([Output(alerts, 1, b"k", b"more")])
                await until(lambda: (alerts, b"more") in seen)
            finally:
                following.cancel()
                await asyncio.gather(following, return_exceptions=True)
            seen.clear()
            # One batch each: the embedded broker's end of a topic stops before the last batch.
            for number in range(20):
                await outputs.send([Output(alerts, 1, b"k", b"night %d" % number)])
            following = asyncio.create_task(tail.run())
            try:
                await until(lambda: (alerts, b"night 19") in seen)
                assert {(alerts, b"night 0"), (alerts, b"more"), (reports, b"3")} & set(seen) == set()
            finally:
                following.cancel()
                await asyncio.gather(following, return_exceptions=True)

    asyncio.run(scenario())


@pytest.mark.broker
def test_a_missing_topic_or_broker_is_told_and_waited_for(broker: str) -> None:
    """Nothing is raised: the page says what it waits for, without an address."""

    async def told(address: str, sentence: str) -> None:
        tail = Tail(Broker(bootstrap=address), {unique("none"): 1}, lambda *_: None)
        following = asyncio.create_task(tail.run())
        await until(lambda: sentence in tail.state)
        assert address not in tail.state
        assert not following.done()
        following.cancel()
        await asyncio.gather(following, return_exceptions=True)

    asyncio.run(told(broker, "a topic is missing"))
    asyncio.run(told("127.0.0.1:1", "the broker cannot be reached"))
