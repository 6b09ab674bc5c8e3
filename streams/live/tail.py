"""Follows the ends of topics, outside of any consumer group: looking moves nobody's offsets.

What fails is told and tried again, for ever: a page that cannot be fed must never end a worker.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Mapping, Sequence

import aiokafka
from aiokafka import ConsumerRecord, TopicPartition

from streams.errors import BrokerUnreachable, TopicMissing
from streams.kafka.clients import connect, partitions_of
from streams.kafka.connection import client_options
from streams.sections import Broker

logger = logging.getLogger(__name__)

_FIRST_RETRY_SECONDS = 0.5
_LONGEST_RETRY_SECONDS = 8.0


class Tail:
    """The newest records of some topics, then those that come.

    Args:
        broker: how to reach the cluster.
        newest: by topic, how many of the records that are there each partition begins with; after a break,
            how many of those that have come at most.
        take: told of the records of one partition, in their order.
    """

    def __init__(
        self, broker: Broker, newest: Mapping[str, int], take: Callable[[str, Sequence[ConsumerRecord]], None]
    ) -> None:
        self._broker = broker
        self._newest = dict(newest)
        self._take = take
        self._next: dict[TopicPartition, int] = {}
        self.state = "connecting"
        """For people: what it does or waits for; names no address."""

    async def run(self) -> None:
        """Until cancelled."""
        pause = _FIRST_RETRY_SECONDS
        while True:
            try:
                await self._follow()
            except BrokerUnreachable:
                self.state = "the broker cannot be reached"
            except TopicMissing:
                self.state = "a topic is missing: run `fraudstream topics create`"
            except Exception as error:
                self.state = f"reading failed: {type(error).__name__}"
                logger.warning("the live page cannot follow its topics: %s: %s", type(error).__name__, error)
            await asyncio.sleep(pause)
            pause = min(2 * pause, _LONGEST_RETRY_SECONDS)

    async def _follow(self) -> None:
        self.state = "connecting"
        tps = [
            TopicPartition(topic, number)
            for topic in self._newest
            for number in range(await partitions_of(self._broker, topic))
        ]
        consumer = aiokafka.AIOKafkaConsumer(
            **client_options(self._broker),
            enable_auto_commit=False,
            # Also where one begins that would begin before the oldest record.
            auto_offset_reset="earliest",
            fetch_max_wait_ms=500,
        )
        await connect(consumer, consumer.stop, self._broker)
        try:
            consumer.assign(tps)
            for tp in tps:
                await consumer.seek_to_end(tp)
                newest = await consumer.position(tp) - self._newest[tp.topic]
                # After a break as well: of what has come in a night nobody reads more than the newest.
                self._next[tp] = max(0, newest, self._next.get(tp, 0))
                consumer.seek(tp, self._next[tp])
            self.state = "following"
            while True:
                for tp, records in (await consumer.getmany(timeout_ms=500)).items():
                    self._next[tp] = records[-1].offset + 1
                    self._take(tp.topic, records)
        finally:
            await consumer.stop()
