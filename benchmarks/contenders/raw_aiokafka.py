"""The ceiling: fetch, decode, encode, send in batches with aiokafka, and no work in between.

Every transaction becomes a score document of the usual size with constant scores: what remains after the
models, windows and framework are free.
"""

from __future__ import annotations

import asyncio

import orjson
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer

from benchmarks.contenders.work import RunSettings, features_of, score_document


async def run(settings: RunSettings) -> None:
    """Copy the source topic to the scores topic, partition to partition, until killed."""
    consumer = AIOKafkaConsumer(
        settings.source,
        bootstrap_servers=settings.broker,
        group_id=settings.group,
        auto_offset_reset="earliest",
        enable_auto_commit=False,
        session_timeout_ms=6_000,
        heartbeat_interval_ms=1_500,
        fetch_max_wait_ms=50,
    )
    producer = AIOKafkaProducer(bootstrap_servers=settings.broker, max_batch_size=1 << 20, linger_ms=0)
    await consumer.start()
    await producer.start()
    features = features_of(0, 1.0, 1, 1.0, 1, 1.0)
    while True:
        fetched = await consumer.getmany(timeout_ms=100, max_records=4_000)
        waiting = []
        for partition, records in fetched.items():
            batch = producer.create_batch()
            for record in records:
                value = orjson.dumps(score_document(orjson.loads(record.value), features, 0.5, 0.5))
                if batch.append(key=record.key, value=value, timestamp=None) is None:
                    waiting.append(
                        await producer.send_batch(batch, settings.scores, partition=partition.partition)
                    )
                    batch = producer.create_batch()
                    batch.append(key=record.key, value=value, timestamp=None)
            waiting.append(await producer.send_batch(batch, settings.scores, partition=partition.partition))
        if waiting:
            await asyncio.gather(*waiting)
            await consumer.commit()


if __name__ == "__main__":
    asyncio.run(run(RunSettings.from_environment()))
