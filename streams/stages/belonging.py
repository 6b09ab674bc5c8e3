"""Whether restored state fits the settings and the topic that it was made from."""

from __future__ import annotations

from collections.abc import Mapping

import aiokafka

from streams.errors import StateMismatch
from streams.kafka.connection import client_options
from streams.kafka.identity import Identity
from streams.sections import Broker
from streams.stages.context import StageContext


def identity(context: StageContext, source: str) -> Identity:
    """Of the state of a stage whose offsets are those of the topic `source` of the catalogue."""
    return Identity(spec=context.spec.digest, partitions=context.partitions, source=context.name(source))


async def require_applied(context: StageContext, source: str, applied: Mapping[int, int]) -> None:
    """Refuse state that has applied more than there is: every new record would be taken for an old one.

    Args:
        source: topic of the catalogue.
        applied: offset up to which the state has seen each partition, the first one not seen.

    Raises:
        StateMismatch: a partition ends before that; its topic was deleted and created anew, or has lost data.
    """
    topic = context.name(source)
    ends = await log_ends(context.settings.broker, topic, {p: at for p, at in applied.items() if at > 0})
    for partition, end in sorted(ends.items()):
        if applied[partition] > end:
            raise StateMismatch(
                f"{topic}[{partition}] ends at offset {end}, its state has applied it up to "
                f"{applied[partition]}: the topic was created anew or has lost records. Start with fresh "
                "internal topics: set another topics.internal_prefix, then `fraudstream topics create`"
            )


async def log_ends(broker: Broker, topic: str, expected: Mapping[int, int]) -> dict[int, int]:
    """By partition, the offset at which the next record is appended; where `expected` is reached, maybe less.

    Raises:
        KafkaError: no broker answers, or there is no such partition.
    """
    if not expected:
        return {}
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
