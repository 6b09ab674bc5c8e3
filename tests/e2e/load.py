"""A steady stream of live transactions by a foreign producer (librdkafka)."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable
from typing import Any

import numpy as np
from confluent_kafka import OFFSET_BEGINNING, Consumer, Producer, TopicPartition

CARDS, TERMINALS = 2000, 400


def transaction(number: int, card: int, terminal: int, moment: int, amount: int) -> bytes:
    return json.dumps(
        {
            "transaction_id": f"tx-{number}",
            "card_id": f"card-{card}",
            "terminal_id": f"t-{terminal}",
            "event_time": moment,
            "amount_minor": amount,
            "currency": "EUR",
        }
    ).encode()


class Load:
    """Publishes numbered transactions of now, `rate` a second, until it is told to stop.

    Args:
        scored: how many transactions have been scored; publishing pauses while `ahead` are not.
    """

    def __init__(self, broker: str, topic: str, *, rate: int, ahead: int, scored: Callable[[], int]) -> None:
        self._producer = Producer(
            {"bootstrap.servers": broker, "linger.ms": 5, "partitioner": "murmur2_random"}
        )
        self._topic = topic
        self._rate = rate
        self._ahead = ahead
        self._scored = scored
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run)
        self._failures: list[object] = []
        self._seconds = 0.0
        #: published so far
        self.published = 0

    @property
    def rate(self) -> float:
        """Transactions a second, from the first to the last one."""
        return self.published / self._seconds

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        """Returns when everything published has been acknowledged."""
        self._stop.set()
        if self._thread.is_alive():
            self._thread.join()
        assert self._producer.flush(60) == 0
        assert not self._failures, self._failures

    def _run(self) -> None:
        random = np.random.default_rng(4)
        began = last = time.monotonic()
        room, budget = 0, 0.0
        while not self._stop.wait(0.01):
            now = time.monotonic()
            # What could not be published in time is not made up for: the rate would be another one then.
            budget = min(budget + (now - last) * self._rate, self._rate / 10)
            last, self._seconds = now, now - began
            if self.published + budget > room:
                room = self._scored() + self._ahead
            count = min(int(budget), room - self.published)
            if count > 0:
                budget -= count
                self._publish(random, count)

    def _publish(self, random: np.random.Generator, count: int) -> None:
        now = time.time_ns() // 1_000_000
        cards = random.integers(0, CARDS, count).tolist()
        terminals = random.integers(0, TERMINALS, count).tolist()
        amounts = random.integers(100, 90_000, count).tolist()
        for card, terminal, amount in zip(cards, terminals, amounts, strict=True):
            value = transaction(self.published, card, terminal, now, amount)
            key = f"card-{card}".encode()
            self._producer.produce(self._topic, value, key, on_delivery=self._delivered)
            self.published += 1
        self._producer.poll(0)

    def _delivered(self, error: object, _: Any) -> None:
        if error is not None:
            self._failures.append(error)


class Tail:
    """Follows a topic from its beginning on, outside of any group."""

    def __init__(self, broker: str, topic: str, partitions: int) -> None:
        self._reader = Consumer(
            {"bootstrap.servers": broker, "group.id": "outside", "fetch.wait.max.ms": 20,
             "fetch.message.max.bytes": 16 * 1024 * 1024}
        )  # fmt: skip
        self._tps = [TopicPartition(topic, number, OFFSET_BEGINNING) for number in range(partitions)]
        self._reader.assign(self._tps)

    def read(self, wait: float = 0.05) -> list[Any]:
        """Messages that have come."""
        messages = self._reader.consume(5000, wait)
        for message in messages:
            assert message.error() is None, message.error()
        return list(messages)

    def close(self) -> None:
        self._reader.close()


class Follower:
    """Hands every message of a topic to `take`, in a thread of its own, until it is stopped."""

    def __init__(self, tail: Tail, take: Callable[[Any], None]) -> None:
        self._tail = tail
        self._take = take
        self._stop = threading.Event()
        self._failure: BaseException | None = None
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    def check(self) -> None:
        if self._failure is not None:
            raise self._failure

    def stop(self) -> None:
        self._stop.set()
        self._thread.join()
        self.check()

    def _run(self) -> None:
        try:
            while not self._stop.is_set():
                for message in self._tail.read(0.1):
                    self._take(message)
        except BaseException as error:
            self._failure = error
