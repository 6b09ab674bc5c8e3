"""Topics written by transactional producers; the embedded broker has none."""

from __future__ import annotations

import asyncio
import os

import pytest
from aiokafka import AIOKafkaProducer

from streams.kafka.batching import batch_topic, batches, transport_of
from tests.streams.clients import committed, new_app, new_topic, running, unique, until

pytestmark = [
    pytest.mark.broker,
    pytest.mark.skipif(
        "FRAUD_TEST_BROKER" not in os.environ, reason="the embedded broker has no transactions"
    ),
]


def test_markers_are_passed_and_aborted_records_never_seen(broker: str) -> None:
    """After 40 transactions, every fourth aborted, the others are seen and the last marker is committed."""

    async def run() -> None:
        topic, group = await new_topic(broker, 1), unique("group")
        async with AIOKafkaProducer(bootstrap_servers=broker, transactional_id=unique("tx")) as producer:
            for number in range(40):
                await producer.begin_transaction()
                for _ in range(5):
                    await producer.send(topic, b"%d" % number, partition=0)
                await (producer.abort_transaction() if number % 4 == 0 else producer.commit_transaction())
        app = new_app(broker, group, max_batch=7)
        seen: list[int] = []

        @app.agent(batch_topic(app, topic))
        async def agent(stream):  # type: ignore[no-untyped-def]
            async for batch in batches(stream):
                seen.extend(int(record.value or b"") for record in batch.records)
                batch.finish()

        async with running(app) as task:
            transport = transport_of(app)

            def at_end() -> bool:
                return any(p.committed == p.highwater == 40 * 6 for p in transport.progress().values())

            await until(at_end, watched=task)
        assert seen == [number for number in range(40) if number % 4 for _ in range(5)]
        assert await committed(broker, group, topic, 1) == [40 * 6]

    asyncio.run(run())


def test_records_of_an_open_transaction_wait(broker: str) -> None:
    """Nothing of a transaction is seen, or counted as lag, before it is committed."""

    async def run() -> None:
        topic, group = await new_topic(broker, 1), unique("group")
        app = new_app(broker, group)
        seen: list[bytes | None] = []

        @app.agent(batch_topic(app, topic))
        async def agent(stream):  # type: ignore[no-untyped-def]
            async for batch in batches(stream):
                seen.extend(record.value for record in batch.records)
                batch.finish()

        async with running(app) as task:
            transport = transport_of(app)
            async with AIOKafkaProducer(bootstrap_servers=broker, transactional_id=unique("tx")) as producer:
                await producer.begin_transaction()
                await producer.send_and_wait(topic, b"x", partition=0)
                await until(lambda: any(p.lag == 0 for p in transport.progress().values()), watched=task)
                assert seen == []
                await producer.commit_transaction()
            await until(lambda: seen == [b"x"], watched=task)

    asyncio.run(run())
