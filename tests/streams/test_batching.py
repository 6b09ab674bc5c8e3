"""The batch transport against a broker: what agents get, what is committed, what a failure leaves."""

from __future__ import annotations

import asyncio
from collections import defaultdict

import pytest

from streams.kafka.batching import TP, RecordBatch, batch_topic, batches, transport_of
from streams.kafka.hosting import AppCrashed, run_apps
from streams.kafka.outputs import Output, Outputs, SendFailed
from tests.streams.clients import (
    committed,
    new_app,
    new_topic,
    numbered,
    publish,
    running,
    unique,
    until,
)

pytestmark = pytest.mark.broker


def test_every_record_once_in_order_and_committed_to_the_end(broker: str) -> None:
    """At idle each partition is seen whole, in order, and its committed offset is its high watermark."""

    async def run() -> None:
        topic, group = await new_topic(broker, 4), unique("group")
        await publish(broker, topic, numbered(4, 1500))
        app = new_app(broker, group, max_batch=200)
        seen: dict[int, list[bytes | None]] = defaultdict(list)

        @app.agent(batch_topic(app, topic))
        async def agent(stream):  # type: ignore[no-untyped-def]
            async for batch in batches(stream):
                assert len(batch) <= 200
                assert [record.offset for record in batch.records] == list(
                    range(batch.first_offset, batch.next_offset)
                )
                seen[batch.partition] += [record.value for record in batch.records]
                batch.finish()

        async with running(app) as task:
            transport = transport_of(app)

            def idle() -> bool:
                progress = transport.progress().values()
                return len(progress) == 4 and all(p.committed == p.highwater == 1500 for p in progress)

            await until(idle, watched=task)
            assert all(p.lag == 0 and p.in_flight == 0 for p in transport.progress().values())
        assert dict(seen) == numbered(4, 1500)
        assert await committed(broker, group, topic, 4) == [1500] * 4

    asyncio.run(run())


def test_partitions_take_turns(broker: str) -> None:
    """While all partitions have a backlog, no partition is more than four batches ahead of another."""

    async def run() -> None:
        topic = await new_topic(broker, 4)
        await publish(broker, topic, numbered(4, 2000), per_batch=500)
        app = new_app(broker, unique("group"), max_batch=100)
        taken = [0] * 4
        spread = 0

        @app.agent(batch_topic(app, topic))
        async def agent(stream):  # type: ignore[no-untyped-def]
            nonlocal spread
            async for batch in batches(stream):
                taken[batch.partition] += len(batch)
                if max(taken) < 2000 and min(taken) > 0:
                    spread = max(spread, max(taken) - min(taken))
                batch.finish()

        async with running(app) as task:
            await until(lambda: taken == [2000] * 4, watched=task)
        assert 0 < spread <= 400

    asyncio.run(run())


def test_an_exception_ends_the_app_and_commits_nothing_of_its_batch(broker: str) -> None:
    """The batch in which the agent raised is uncommitted, the process gets the cause, and a new app reads it
    again.
    """

    async def run() -> None:
        topic, group = await new_topic(broker, 1), unique("group")
        await publish(broker, topic, {0: [b"good"] * 10 + [b"poison"] + [b"good"] * 9})
        app = new_app(broker, group, max_batch=5)

        @app.agent(batch_topic(app, topic))
        async def agent(stream):  # type: ignore[no-untyped-def]
            async for batch in batches(stream):
                for record in batch.records:
                    if record.value == b"poison":
                        raise ValueError("cannot be used")
                batch.finish()

        with pytest.raises(AppCrashed, match="cannot be used") as caught:
            async with asyncio.timeout(20):
                await run_apps([app])
        assert isinstance(caught.value.__cause__, ValueError)
        assert await committed(broker, group, topic, 1) == [10]

        again = new_app(broker, group)
        offsets: list[int] = []

        @again.agent(batch_topic(again, topic))
        async def tolerant(stream):  # type: ignore[no-untyped-def]
            async for batch in batches(stream):
                offsets.extend(record.offset for record in batch.records)
                batch.finish()

        async with running(again) as task:
            await until(lambda: len(offsets) >= 10, watched=task)
        assert offsets == list(range(10, 20))

    asyncio.run(run())


def test_finishing_out_of_order_commits_the_finished_prefix_only(broker: str) -> None:
    """The second batch is finished first: nothing is committed until the first one is."""

    async def run() -> None:
        topic, group = await new_topic(broker, 1), unique("group")
        await publish(broker, topic, numbered(1, 20))
        app = new_app(broker, group, max_batch=10)
        held: list[RecordBatch] = []

        @app.agent(batch_topic(app, topic))
        async def agent(stream):  # type: ignore[no-untyped-def]
            async for batch in batches(stream):
                held.append(batch)

        async with running(app) as task:
            await until(lambda: len(held) == 2, watched=task)
            held[1].finish()
            await app.consumer.commit()
            assert await committed(broker, group, topic, 1) in ([None], [0])
            held[0].finish()
            await app.consumer.commit()
            assert await committed(broker, group, topic, 1) == [20]

    asyncio.run(run())


def test_a_slow_agent_holds_a_bounded_number_of_records(broker: str) -> None:
    """While the agent works on one batch, each partition has at most two batches handed out; the rest stays
    in the log.
    """

    async def run() -> None:
        topic = await new_topic(broker, 2)
        await publish(broker, topic, numbered(2, 3000), per_batch=1000)
        app = new_app(broker, unique("group"), max_batch=100, max_in_flight=2)
        go, seen = asyncio.Event(), 0

        @app.agent(batch_topic(app, topic))
        async def agent(stream):  # type: ignore[no-untyped-def]
            nonlocal seen
            async for batch in batches(stream):
                await go.wait()
                seen += len(batch)
                batch.finish()

        async with running(app) as task:
            transport = transport_of(app)

            def full() -> bool:
                return [p.in_flight for p in transport.progress().values()] == [200, 200]

            await until(full, watched=task)
            for _ in range(20):  # many fetch rounds later
                await asyncio.sleep(0.01)
                assert full()
            go.set()
            await until(lambda: seen == 6000, watched=task)

    asyncio.run(run())


def test_seek_reads_again_without_uncommitting(broker: str) -> None:
    """After a seek back the records come again, batches from before it are void, and the commit stays."""

    async def run() -> None:
        topic, group = await new_topic(broker, 1), unique("group")
        await publish(broker, topic, numbered(1, 100))
        app = new_app(broker, group, max_batch=50)
        offsets: list[int] = []
        kept: list[RecordBatch] = []

        @app.agent(batch_topic(app, topic))
        async def agent(stream):  # type: ignore[no-untyped-def]
            async for batch in batches(stream):
                offsets.extend(record.offset for record in batch.records)
                if batch.first_offset == 50 and not kept:
                    kept.append(batch)  # left unfinished
                else:
                    batch.finish()

        async with running(app) as task:
            transport = transport_of(app)
            await until(lambda: len(offsets) == 100, watched=task)
            await app.consumer.commit()
            transport.seek(TP(topic, 0), 20)
            await until(lambda: len(offsets) == 180, watched=task)
            assert offsets[100:] == list(range(20, 100))
            assert kept[0].revoked
            kept[0].finish()
            await app.consumer.commit()
            assert await committed(broker, group, topic, 1) == [100]
            transport.seek(TP(topic, 0), 95)
            await until(lambda: len(offsets) == 185, watched=task)
        assert await committed(broker, group, topic, 1) == [100]

    asyncio.run(run())


def test_a_paused_partition_waits_and_the_others_go_on(broker: str) -> None:
    """Nothing of a paused partition is handed out until it is resumed; then all of it, in order."""

    async def run() -> None:
        topic = await new_topic(broker, 2)
        app = new_app(broker, unique("group"))
        seen: dict[int, list[bytes | None]] = {0: [], 1: []}

        @app.agent(batch_topic(app, topic))
        async def agent(stream):  # type: ignore[no-untyped-def]
            async for batch in batches(stream):
                seen[batch.partition] += [record.value for record in batch.records]
                batch.finish()

        async with running(app) as task:
            transport = transport_of(app)
            await until(lambda: len(transport.progress()) == 2, watched=task)
            transport.pause([TP(topic, 0)])
            assert transport.progress()[TP(topic, 0)].held
            await publish(broker, topic, numbered(2, 300))
            await until(lambda: len(seen[1]) == 300, watched=task)
            assert seen[0] == []
            transport.resume([TP(topic, 0)])
            await until(lambda: len(seen[0]) == 300, watched=task)
        assert seen == numbered(2, 300)

    asyncio.run(run())


def test_a_partition_waits_for_its_state(broker: str) -> None:
    """Batches of newly assigned partitions are handed out once the `on_assigned` callback has returned."""

    async def run() -> None:
        topic = await new_topic(broker, 2)
        await publish(broker, topic, numbered(2, 10))
        app = new_app(broker, unique("group"))
        transport = transport_of(app)
        go, asked, seen = asyncio.Event(), [], 0

        @transport.on_assigned
        async def restore(partitions: frozenset[TP]) -> None:
            asked.append(partitions)
            assert all(p.committed is None for p in transport.progress().values())
            await go.wait()

        @app.agent(batch_topic(app, topic))
        async def agent(stream):  # type: ignore[no-untyped-def]
            nonlocal seen
            async for batch in batches(stream):
                assert go.is_set()
                seen += len(batch)
                batch.finish()

        async with running(app) as task:
            await until(lambda: bool(asked), watched=task)
            assert asked == [frozenset({TP(topic, 0), TP(topic, 1)})]
            assert all(p.held for p in transport.progress().values())
            go.set()
            await until(lambda: seen == 20, watched=task)

    asyncio.run(run())


def test_a_failed_send_stops_the_app_before_the_commit(broker: str) -> None:
    """An output that the broker cannot take ends the app with the topic named, and its source stays
    uncommitted.
    """

    async def run() -> None:
        source, target, group = await new_topic(broker, 1), await new_topic(broker, 1), unique("group")
        await publish(broker, source, numbered(1, 10))
        app = new_app(broker, group)
        async with Outputs(broker) as outputs:

            @app.agent(batch_topic(app, source))
            async def agent(stream):  # type: ignore[no-untyped-def]
                async for batch in batches(stream):
                    await outputs.send([Output(target, 7, None, b"x") for _ in batch.records])
                    batch.finish()

            with pytest.raises(AppCrashed, match=f"{target}\\[7\\]") as caught:
                async with asyncio.timeout(20):
                    await run_apps([app])
        assert isinstance(caught.value.__cause__, SendFailed)
        assert await committed(broker, group, source, 1) in ([None], [0])

    asyncio.run(run())


def test_two_apps_share_a_process(broker: str) -> None:
    """Two chained apps in one loop: what one writes the other reads, both stop together, both commit."""

    async def run() -> None:
        first, second, group = await new_topic(broker, 2), await new_topic(broker, 2), unique("group")
        await publish(broker, first, numbered(2, 400))
        one, two = new_app(broker, f"{group}-1", max_batch=100), new_app(broker, f"{group}-2", max_batch=100)
        seen: dict[int, list[bytes | None]] = defaultdict(list)
        async with Outputs(broker) as outputs:

            @one.agent(batch_topic(one, first))
            async def forward(stream):  # type: ignore[no-untyped-def]
                async for batch in batches(stream):
                    await outputs.send(
                        [Output(second, batch.partition, None, r.value) for r in batch.records]
                    )
                    batch.finish()

            @two.agent(batch_topic(two, second))
            async def collect(stream):  # type: ignore[no-untyped-def]
                async for batch in batches(stream):
                    seen[batch.partition] += [record.value for record in batch.records]
                    batch.finish()

            async with running(one, two) as task:
                await until(lambda: sum(map(len, seen.values())) == 800, watched=task)
        assert dict(seen) == numbered(2, 400)
        assert await committed(broker, f"{group}-1", first, 2) == [400, 400]
        assert await committed(broker, f"{group}-2", second, 2) == [400, 400]

    asyncio.run(run())


def test_a_topic_that_is_not_read_in_batches_is_refused(broker: str) -> None:
    """An agent on a plain Faust topic ends the app with that topic's name instead of getting batches as
    values.
    """

    async def run() -> None:
        topic = await new_topic(broker, 1)
        app = new_app(broker, unique("group"))

        @app.agent(app.topic(topic))
        async def agent(stream):  # type: ignore[no-untyped-def]
            async for _ in stream:
                pass

        with pytest.raises(AppCrashed, match=topic):
            async with asyncio.timeout(20):
                await run_apps([app])

    asyncio.run(run())


def test_a_consumer_closes_in_its_thread_alone(broker: str) -> None:
    """Faust's call during a rebalance of an app that stops leaves the client as it is: it is still open, and
    leaves its group when the thread stops."""

    async def run() -> None:
        app = new_app(broker, unique("group"))
        topic = await new_topic(broker, 1)

        @app.agent(batch_topic(app, topic))
        async def agent(stream):  # type: ignore[no-untyped-def]
            async for batch in batches(stream):
                batch.finish()

        async with running(app) as task:
            await until(lambda: transport_of(app).joined, watched=task)
            client = app.consumer._thread._consumer
            app._on_rebalance_when_stopped()
            assert not client._closed
        assert client._closed
        assert client._coordinator.generation == -1

    asyncio.run(run())
