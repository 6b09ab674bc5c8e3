"""A paced client that shares no code with the project: librdkafka publishes on schedule and reads what
comes back.

Latency counts from the *scheduled* time of a transaction, so a stall of the client or the broker is charged
to every transaction that should have been sent meanwhile (no coordinated omission).
"""

from __future__ import annotations

import threading
import time
from dataclasses import dataclass, field

import numpy as np
import orjson
from confluent_kafka import Consumer, Producer, TopicPartition

from benchmarks.workload import Columns, document, row_of

#: Sent per second until the first score is seen, so that start-up builds no backlog.
TRICKLE = 50.0

#: librdkafka reports the end of a run's broker as a failure on stderr.
QUIET: dict[str, str | int | float | bool] = {"log_level": 2}


class Reader(threading.Thread):
    """Reads a topic to its live end and notes when each transaction id was first readable."""

    def __init__(self, broker: str, topic: str, partitions: int) -> None:
        super().__init__(name=f"read {topic}", daemon=True)
        self.seen: dict[int, float] = {}
        self._ended = threading.Event()
        self._consumer = Consumer(
            {
                "bootstrap.servers": broker,
                "group.id": "bench-reader",
                "enable.auto.commit": False,
                "auto.offset.reset": "earliest",
                "fetch.wait.max.ms": 100,
                **QUIET,
            }
        )
        self._consumer.assign([TopicPartition(topic, index, 0) for index in range(partitions)])

    def run(self) -> None:
        """Read until `end`."""
        while not self._ended.is_set():
            # `consume` waits for as many messages as it is asked for: first wait for one, then take the rest.
            first = self._consumer.poll(0.05)
            now = time.monotonic()
            records = [] if first is None else [first, *self._consumer.consume(num_messages=500, timeout=0)]
            for record in records:
                if record.error() is None:
                    row = row_of(orjson.loads(record.value() or b"")["transaction_id"])
                    self.seen.setdefault(row, now)
        self._consumer.close()

    def end(self) -> None:
        """Stop reading."""
        self._ended.set()
        self.join()


@dataclass(slots=True)
class Schedule:
    """When each row was due (monotonic seconds), and the rows that are measured."""

    due: np.ndarray
    first: int = 0
    last: int = 0
    worst_send_delay: float = 0.0
    sent: int = field(default=0)


class Pacer:
    """Publishes rows at their due times; event time is the wall clock at the due time."""

    def __init__(self, broker: str, topic: str, columns: Columns, linger_ms: float) -> None:
        self._topic = topic
        self._columns = columns
        self._wall_minus_monotonic = time.time() - time.monotonic()
        self.schedule = Schedule(np.zeros(len(columns.card)))
        self._producer = Producer(
            {
                "bootstrap.servers": broker,
                "linger.ms": linger_ms,
                "partitioner": "murmur2_random",
                "queue.buffering.max.messages": 1_000_000,
                **QUIET,
            }
        )

    def trickle_until(self, reader: Reader, timeout: float) -> bool:
        """Send slowly until `reader` has seen a score; False when `timeout` seconds pass without one."""
        deadline = time.monotonic() + timeout
        while not reader.seen and time.monotonic() < deadline:
            self._send(time.monotonic())
            time.sleep(1.0 / TRICKLE)
        return bool(reader.seen)

    def pace(self, rate: float, warmup: float, duration: float) -> None:
        """Send `rate` a second for `warmup` seconds, then for the `duration` seconds that are measured."""
        schedule, begun = self.schedule, time.monotonic()
        count, unmeasured = int((warmup + duration) * rate), int(warmup * rate)
        schedule.first, schedule.last = schedule.sent + unmeasured, schedule.sent + count
        for index in range(count):
            due = begun + index / rate
            while (ahead := due - time.monotonic()) > 0:
                time.sleep(min(ahead, 0.001))
            if index >= unmeasured:
                schedule.worst_send_delay = max(schedule.worst_send_delay, -ahead)
            self._send(due)

    def flush(self, seconds: float) -> int:
        """Wait for acknowledgements; give the messages still without one."""
        return int(self._producer.flush(seconds))

    def _send(self, due: float) -> None:
        row = self.schedule.sent
        self.schedule.due[row] = due
        one = document(self._columns, row, round((due + self._wall_minus_monotonic) * 1000))
        self._producer.produce(self._topic, key=str(one["card_id"]), value=orjson.dumps(one))
        self._producer.poll(0)
        self.schedule.sent += 1


def quantiles(reader: Reader, schedule: Schedule) -> dict[str, float]:
    """Latencies in milliseconds of the measured rows that `reader` saw; `count` says how many they are."""
    rows = [row for row in reader.seen if schedule.first <= row < schedule.last]
    if not rows:
        return {"count": 0}
    waits = (np.array([reader.seen[row] for row in rows]) - schedule.due[rows]) * 1000.0
    p50, p90, p99, p999 = (round(float(one), 2) for one in np.percentile(waits, (50, 90, 99, 99.9)))
    return {
        "count": len(rows),
        "p50": p50,
        "p90": p90,
        "p99": p99,
        "p999": p999,
        "max": round(float(waits.max()), 2),
    }
