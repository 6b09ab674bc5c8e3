"""Simulated traffic to a broker: transactions, their labels, and analysts who answer alerts."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable, Iterator
from typing import cast

import msgspec
import pytest

from streams.contract.codecs import encode
from streams.contract.records import Alert
from streams.contract.transaction_columns import TransactionColumns
from streams.history.simulator import Simulation, Simulator
from streams.history.traffic import publish
from streams.kafka.outputs import Output, Outputs
from streams.settings import Settings, load
from tests.streams.clients import new_topic, read

ROWS = 1500
TOPICS = ("transactions", "labels", "feedback", "alerts")


async def own_topics(broker: str) -> Settings:
    settings = load(environ={"FRAUD_BROKER__BOOTSTRAP": broker})
    names = {topic: await new_topic(broker, 1) for topic in TOPICS}
    return settings.model_copy(update={"topics": settings.topics.model_copy(update=names)})


def alert(transaction_id: str) -> bytes:
    record = {
        "alert_id": "a-1", "transaction_id": transaction_id, "card_id": "c", "terminal_id": "t",
        "event_time": 1, "scored_at": 2, "amount_minor": 3, "currency": "EUR", "score": 0.5, "threshold": 0.2,
        "alert": True, "arm": "champion", "model": {"name": "m", "version": 1}, "shadows": [], "spec": "s",
        "config": "c", "control_group": False, "propensity": 1.0, "reasons": [],
    }  # fmt: skip
    return encode(msgspec.convert(record, Alert))


def test_what_is_cancelled_sends_no_more(monkeypatch: pytest.MonkeyPatch) -> None:
    """After Ctrl-C the outputs are closed next: neither the stream nor the analysts may still use them."""
    under_way: set[str] = set()

    def endless(name: str) -> Callable[..., Awaitable[None]]:
        async def run(*_: object, **__: object) -> None:
            under_way.add(name)
            try:
                await asyncio.Event().wait()
            finally:
                under_way.remove(name)

        return run

    monkeypatch.setattr("streams.history.traffic.replay", endless("stream"))
    monkeypatch.setattr("streams.history.traffic._answer", endless("analysts"))

    async def scenario() -> None:
        publishing = asyncio.create_task(
            publish(cast(Outputs, None), load(environ={}), [], rate=1.0, label_delay=1000)
        )
        await asyncio.sleep(0)  # publish begins
        await asyncio.sleep(0)  # and so do both of its tasks
        assert len(under_way) == 2
        publishing.cancel()
        await asyncio.wait({publishing})
        assert publishing.cancelled()
        assert not under_way

    asyncio.run(scenario())


@pytest.mark.broker
def test_alerts_are_answered_while_the_stream_is_published(broker: str) -> None:
    """All transactions and the labels of frauds arrive; an alert that comes meanwhile is shown first."""

    async def scenario() -> None:
        settings = await own_topics(broker)
        answered = asyncio.Event()

        def batches() -> Iterator[TransactionColumns]:
            yield from Simulator(Simulation(transactions=ROWS, cards=50, terminals=100)).batches()

        async with Outputs(broker) as outputs:
            publishing = asyncio.create_task(
                publish(outputs, settings, batches(), rate=300.0, label_delay=1000)
            )

            async def alerting() -> None:
                # Analysts begin with what comes after they look: alert until they say something.
                while not answered.is_set():
                    await outputs.send([Output(settings.topics.alerts, 0, b"c", alert("t"))])
                    await asyncio.sleep(0.1)

            alerts = asyncio.create_task(alerting())
            first = json.loads((await read(broker, settings.topics.feedback, 0, 1))[0])
            answered.set()
            await alerts
            summary = await publishing
        assert (first["alert_id"], first["action"]) == ("a-1", "shown")
        assert summary.transactions == ROWS
        assert summary.labels > 0
        assert len(await read(broker, settings.topics.transactions, 0, ROWS)) == ROWS
        assert len(await read(broker, settings.topics.labels, 0, summary.labels)) == summary.labels

    asyncio.run(scenario())


@pytest.mark.broker
def test_a_record_that_is_no_alert_ends_it(broker: str) -> None:
    """Traffic whose analysts have died would look like alerts that nobody opens."""

    async def scenario() -> None:
        settings = await own_topics(broker)
        simulator = Simulator(Simulation(transactions=100_000, cards=50, terminals=100))
        async with Outputs(broker) as outputs:
            publishing = asyncio.create_task(
                publish(outputs, settings, simulator.batches(), rate=10.0, label_delay=1000)
            )

            async def ended() -> bool:
                await outputs.send([Output(settings.topics.alerts, 0, b"c", b"no alert")])
                return publishing.done()

            async with asyncio.timeout(30):
                while not await ended():  # noqa: ASYNC110 -- the topic is asked, not a task
                    await asyncio.sleep(0.1)
            with pytest.raises(msgspec.MsgspecError):
                await publishing

    asyncio.run(scenario())
