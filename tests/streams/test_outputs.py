"""Awaited outputs: all acknowledged or an error that names the topic."""

from __future__ import annotations

import asyncio
import math

import pytest
from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.partitioner import DefaultPartitioner
from hypothesis import given
from hypothesis import strategies as st

from streams.kafka.broker import EmbeddedBroker
from streams.kafka.outputs import Output, Outputs, SendFailed, partition_for
from tests.streams.clients import new_topic, read


@pytest.mark.broker
def test_records_arrive_whole_in_order_and_the_ends_are_returned(broker: str) -> None:
    """Keys, values, headers, timestamps and tombstones of several partitions arrive in order; the ends are
    the logs' ends.
    """

    async def run() -> None:
        topic = await new_topic(broker, 3)
        async with Outputs(broker) as outputs:
            assert await outputs.partitions(topic) == 3
            records = [
                Output(
                    topic,
                    number % 2,
                    b"k%d" % number,
                    b"v%d" % number,
                    (("h", b"%d" % number),),
                    1_000 + number,
                )
                for number in range(100)
            ]
            records.append(Output(topic, 2, b"gone", None))
            assert await outputs.send(records) == {(topic, 0): 50, (topic, 1): 50, (topic, 2): 1}
            assert await outputs.send(records[:1]) == {(topic, 0): 51}
            assert await outputs.send([]) == {}
        tps = [TopicPartition(topic, partition) for partition in range(3)]
        async with AIOKafkaConsumer(bootstrap_servers=broker, auto_offset_reset="earliest") as consumer:
            consumer.assign(tps)
            got: dict[TopicPartition, list[object]] = {tp: [] for tp in tps}
            async with asyncio.timeout(10):
                while sum(map(len, got.values())) < 102:
                    for tp, found in (await consumer.getmany(timeout_ms=200)).items():
                        got[tp] += [(r.key, r.value, tuple(r.headers), r.timestamp) for r in found]
        expected = [(r.key, r.value, r.headers, r.timestamp_ms) for r in records[:100]]
        assert got[tps[0]] == [*expected[::2], expected[0]]
        assert got[tps[1]] == expected[1::2]
        assert got[tps[2]][0][:2] == (b"gone", None)  # type: ignore[index]

    asyncio.run(run())


@pytest.mark.broker
@pytest.mark.parametrize("compression", [None, "gzip", "lz4", "zstd"])
def test_large_sends_are_split_and_keep_their_order(broker: str, compression: str | None) -> None:
    """Two megabytes to one partition go in several batches, in order, under any codec."""

    async def run() -> None:
        topic = await new_topic(broker, 1)
        values = [b"%06d" % number + bytes(994) for number in range(2000)]
        async with Outputs(broker, max_batch_bytes=100_000, compression=compression) as outputs:  # type: ignore[arg-type]
            assert await outputs.send([Output(topic, 0, None, value) for value in values]) == {
                (topic, 0): 2000
            }
        assert await read(broker, topic, 0, 2000) == values

    asyncio.run(run())


@pytest.mark.broker
def test_a_record_above_the_limit_is_refused_before_anything_is_sent(broker: str) -> None:
    """The error names topic, partition and size; the small records beside it have not been sent either."""

    async def run() -> None:
        topic = await new_topic(broker, 1)
        async with Outputs(broker, max_record_bytes=10_000) as outputs:
            with pytest.raises(SendFailed, match=rf"{topic}\[0\].* 20001 bytes .* 10000 bytes"):
                await outputs.send([Output(topic, 0, None, b"small"), Output(topic, 0, b"k", bytes(20_000))])
            assert await outputs.send([Output(topic, 0, None, bytes(9_000))]) == {(topic, 0): 1}

    asyncio.run(run())


@pytest.mark.broker
def test_an_unknown_partition_is_named(broker: str) -> None:
    """A partition the topic has not is an error with its number, and the other partitions are waited for."""

    async def run() -> None:
        topic = await new_topic(broker, 1)
        async with Outputs(broker) as outputs:
            with pytest.raises(SendFailed, match=rf"{topic}\[5\]") as caught:
                await outputs.send([Output(topic, 0, None, b"x"), Output(topic, 5, None, b"y")])
            assert (caught.value.topic, caught.value.partition) == (topic, 5)
        assert await read(broker, topic, 0, 1) == [b"x"]

    asyncio.run(run())


def test_a_producer_has_heard_of_its_broker_before_it_sends(broker: str) -> None:
    """From `start` to `stop`: a worker is ready though one of its stages sends nothing."""

    async def run() -> None:
        outputs = Outputs(broker)
        heard = [math.isfinite(outputs.silent_for)]
        await outputs.start()
        heard.append(math.isfinite(outputs.silent_for))
        await outputs.stop()
        assert [*heard, math.isfinite(outputs.silent_for)] == [False, True, False]

    asyncio.run(run())


def test_a_broker_that_goes_away_fails_the_send() -> None:
    """When the broker is gone, a send ends with an error within the request timeout instead of waiting for
    ever.
    """

    async def run() -> None:
        with EmbeddedBroker() as own:
            topic = await new_topic(own.address, 1)
            outputs = Outputs(own.address, request_timeout_ms=1_000)
            await outputs.start()
            await outputs.send([Output(topic, 0, None, b"x")])
            own.stop()
            with pytest.raises(SendFailed, match=topic):
                async with asyncio.timeout(20):
                    await outputs.send([Output(topic, 0, None, b"y")])
            await outputs.stop()

    asyncio.run(run())


def test_idempotence_is_used_where_the_broker_has_it(broker: str) -> None:
    """Asked for nothing, `Outputs` finds out and says whether repeated requests are recognised."""

    async def run() -> None:
        async with Outputs(broker) as outputs:
            found = outputs.idempotent
        async with Outputs(broker, idempotent=False) as outputs:
            assert not outputs.idempotent
        if found:
            async with Outputs(broker, idempotent=True) as outputs:
                assert outputs.idempotent

    asyncio.run(run())


@given(key=st.binary(max_size=40), partitions=st.integers(1, 64))
def test_partitions_are_those_of_other_clients(key: bytes, partitions: int) -> None:
    """Every key goes where aiokafka's default partitioner, a port of the Java client's, puts it."""
    everywhere = list(range(partitions))
    assert partition_for(key, partitions) == DefaultPartitioner()(key, everywhere, everywhere)


@pytest.mark.parametrize(
    ("key", "hashed"),
    [(b"21", -973932308), (b"foobar", -790332482), (b"a-little-bit-long-string", -985981536)],
)
def test_partitions_follow_the_java_clients_published_hashes(key: bytes, hashed: int) -> None:
    """The hashes in Kafka's own `UtilsTest.testMurmur2`, made positive, modulo the number of partitions."""
    assert partition_for(key, 12) == (hashed & 0x7FFFFFFF) % 12
