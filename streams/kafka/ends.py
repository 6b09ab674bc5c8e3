"""Where partitions end."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial

import aiokafka

from streams.kafka.absence import patiently
from streams.kafka.connection import client_options
from streams.sections import Broker


async def log_ends(broker: Broker, topic: str, expected: Mapping[int, int]) -> dict[int, int]:
    """By partition, the offset at which the next record is appended; where `expected` is reached, maybe less.

    Raises:
        BrokerUnreachable: no broker has answered for half a minute.
        KafkaError: there is no such partition.
    """
    if not expected:
        return {}
    return await patiently(partial(_log_ends, broker, topic, expected), broker.bootstrap)


async def _log_ends(broker: Broker, topic: str, expected: Mapping[int, int]) -> dict[int, int]:
    consumer = aiokafka.AIOKafkaConsumer(
        **client_options(broker), enable_auto_commit=False, auto_offset_reset="latest", fetch_max_wait_ms=50
    )
    try:
        await consumer.start()
        tps = {partition: aiokafka.TopicPartition(topic, partition) for partition in expected}
        found = await consumer.end_offsets(list(tps.values()))
        ends = {partition: int(found[tp]) for partition, tp in tps.items()}
        short = {p: tp for p, tp in tps.items() if ends[p] < expected[p]}
        consumer.assign(list(short.values()))
        for partition, tp in short.items():
            consumer.seek(tp, ends[partition])
        # The embedded broker's ListOffsets stops short of the last batch; a fetch from there tells the end.
        while any(consumer.highwater(tp) is None for tp in short.values()):
            await consumer.getmany(*short.values(), timeout_ms=200)
        return ends | {p: max(ends[p], int(consumer.highwater(tp))) for p, tp in short.items()}
    finally:
        await consumer.stop()
