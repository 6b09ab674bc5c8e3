"""A history or a simulation to Kafka: transactions and their delayed labels, in event order.

Records carry the time of sending as their Kafka timestamp; what happened when stands in the values. A slice
of transactions and the labels due by its end are sent together, and the next slice is encoded meanwhile;
it is sent when the broker has acknowledged the one before, so each partition keeps the order of the history.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Iterable, Iterator, Sequence

import msgspec
import numpy as np
from msgspec import Struct

from streams.contract.records import Label, Transaction
from streams.contract.transaction_columns import OPTIONAL_TEXTS, Ints, TransactionColumns
from streams.history.advance import Advance
from streams.history.delayed_labels import DelayedLabels
from streams.kafka.outputs import Output, Outputs, partition_for
from streams.times import rfc3339

_SLICE_ROWS = 5_000
_TICK_SECONDS = 0.005
_END_OF_TIME = 2**62


class ReplayTopics(Struct, frozen=True):
    """Names of the two topics written."""

    transactions: str
    labels: str


class ReplaySummary(Struct, frozen=True):
    """What was published. Event times are epoch milliseconds, None if there was no transaction.

    `out_of_order` counts the transactions earlier than one before them.
    """

    transactions: int
    labels: int
    out_of_order: int
    first_event_time: int | None
    last_event_time: int | None
    duration_s: float
    throughput_tps: float


class Pace:
    """When a transaction may be sent: at a rate, at a multiple of event time, or at once.

    Args:
        rate: transactions a second.
        speed: event-time seconds in a second.
    """

    def __init__(self, rate: float | None = None, speed: float | None = None) -> None:
        if rate is not None and speed is not None:
            raise ValueError("rate and speed exclude each other")
        if (rate is not None and rate <= 0) or (speed is not None and speed <= 0):
            raise ValueError("rate and speed must be above 0")
        self._rate, self._speed = rate, speed

    def due(self, sent: int, times: Ints, first_time: int, elapsed: float) -> int:
        """How many of the next transactions are due `elapsed` seconds after the start.

        `times` are the event times of the next ones, `sent` is the number of those before them.
        """
        if self._rate is not None:
            return min(max(int(elapsed * self._rate) + 1 - sent, 0), len(times))
        if self._speed is not None:
            late = times > first_time + elapsed * 1000 * self._speed
            return int(np.argmax(late)) if late.any() else len(times)
        return len(times)

    def wait(self, sent: int, next_time: int, first_time: int, elapsed: float) -> float:
        """Seconds until the next transaction is due; ticks are not shorter than 5 ms."""
        if self._rate is not None:
            moment = sent / self._rate
        elif self._speed is not None:
            moment = (next_time - first_time) / 1000 / self._speed
        else:
            return 0.0
        return max(moment - elapsed, _TICK_SECONDS)


async def replay(
    outputs: Outputs,
    topics: ReplayTopics,
    batches: Iterable[TransactionColumns],
    *,
    label_delay: int | None,
    pace: Pace | None = None,
    advance: Advance | None = None,
    clock: Callable[[], float] = time.monotonic,
    sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
) -> ReplaySummary:
    """Publishes all batches and, last, the labels that are due after the last transaction.

    Args:
        outputs: started; it is left open.
        label_delay: milliseconds until a fraud is reported where the batches do not say; None for never.
        advance: told the transactions published so far, after every slice.

    Raises:
        SendFailed: the broker did not take everything; what went before is published.
    """
    pace = pace or Pace()
    encoder = _Encoder(
        topics, await outputs.partitions(topics.transactions), await outputs.partitions(topics.labels)
    )
    labels = DelayedLabels(label_delay)
    sending: asyncio.Task[object] | None = None
    sent = labelled = out_of_order = 0
    first_time: int | None = None
    latest = -_END_OF_TIME
    started = clock()
    try:
        for batch in batches:
            labels.add(batch)
            if first_time is None and len(batch):
                first_time = int(batch.event_time[0])
            position = 0
            while position < len(batch):
                assert first_time is not None
                window = batch.event_time[position : position + _SLICE_ROWS]
                due = pace.due(sent, window, first_time, clock() - started)
                if not due:
                    await sleep(pace.wait(sent, int(window[0]), first_time, clock() - started))
                    continue
                highest = np.maximum.accumulate(window[:due])
                out_of_order += int((window[:due] < np.maximum(highest, latest)).sum())
                latest = max(latest, int(highest[-1]))
                reports = labels.due(latest)
                records = encoder.transactions(batch, position, position + due)
                records += encoder.labels(reports)
                if sending is not None:
                    await sending
                sending = asyncio.create_task(outputs.send(records))
                # Lets the send start before the next slice is encoded.
                await asyncio.sleep(0)
                position += due
                sent += due
                labelled += len(reports)
                if advance is not None:
                    advance(sent, rfc3339(latest)[:16])
        rest = labels.due(_END_OF_TIME)
        if sending is not None:
            await sending
            sending = None
        for start in range(0, len(rest), _SLICE_ROWS):
            await outputs.send(encoder.labels(rest[start : start + _SLICE_ROWS]))
        labelled += len(rest)
    finally:
        if sending is not None and not sending.done():
            sending.cancel()
    duration = clock() - started
    return ReplaySummary(
        transactions=sent,
        labels=labelled,
        out_of_order=out_of_order,
        first_event_time=first_time,
        last_event_time=latest if sent else None,
        duration_s=round(duration, 3),
        throughput_tps=round(sent / duration, 1) if duration > 0 else 0.0,
    )


class _Encoder:
    """Columns to records of the contract, keyed and partitioned by card as Kafka's own clients would."""

    def __init__(self, topics: ReplayTopics, transaction_partitions: int, label_partitions: int) -> None:
        self._topics = topics
        self._transaction_partitions, self._label_partitions = transaction_partitions, label_partitions
        self._json = msgspec.json.Encoder().encode

    def transactions(self, batch: TransactionColumns, start: int, end: int) -> list[Output]:
        rows = slice(start, end)
        nothing = [None] * (end - start)
        cards = batch.card_id[rows]
        texts = [batch.texts[name][rows] if name in batch.texts else nothing for name in OPTIONAL_TEXTS]
        records = map(
            Transaction,
            batch.transaction_id[rows],
            cards,
            batch.event_time[rows].tolist(),
            batch.amount_minor[rows].tolist(),
            batch.currency[rows],
            batch.terminal_id[rows],
            *texts,
            _attributes(batch, start, end),
        )
        topic, partitions, encode = self._topics.transactions, self._transaction_partitions, self._json
        return [
            Output(topic, partition_for(key, partitions), key, encode(record))
            for key, record in zip([card.encode() for card in cards], records, strict=True)
        ]

    def labels(self, labels: Sequence[Label]) -> list[Output]:
        topic, partitions, encode = self._topics.labels, self._label_partitions, self._json
        keyed = ((label.card_id.encode(), label) for label in labels)
        return [Output(topic, partition_for(key, partitions), key, encode(label)) for key, label in keyed]


def _attributes(batch: TransactionColumns, start: int, end: int) -> Iterator[dict[str, float]]:
    names = tuple(batch.attributes)
    if not names:
        return iter([{}] * (end - start))
    columns = (batch.attributes[name][start:end].tolist() for name in names)
    return (dict(zip(names, values, strict=True)) for values in zip(*columns, strict=True))
