from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from itertools import pairwise

import numpy as np
import pytest
from aiokafka import AIOKafkaConsumer, TopicPartition

from streams.commands.progress import progress_bar
from streams.contract.codecs import LabelDecoder, TransactionDecoder
from streams.contract.records import Label, Transaction
from streams.contract.transaction_columns import TransactionColumns
from streams.history.delayed_labels import DelayedLabels
from streams.history.replay import Pace, ReplaySummary, ReplayTopics, replay
from streams.history.simulator import Simulation, Simulator
from streams.kafka.outputs import Outputs, partition_for
from streams.times import DAY, HOUR
from tests.streams.clients import new_topic

T0 = 1_735_689_600_000


def columns(times: list[int], fraud: list[bool] | None = None) -> TransactionColumns:
    """Rows at the given times after T0, with cards c0, c1, c2 in turn."""
    rows = len(times)
    return TransactionColumns(
        transaction_id=[f"t{row}" for row in range(rows)],
        card_id=[f"c{row % 3}" for row in range(rows)],
        terminal_id=["m"] * rows,
        event_time=np.array(times, dtype=np.int64) + T0,
        amount_minor=np.arange(rows, dtype=np.int64),
        currency=["EUR"] * rows,
        attributes={"V1": np.arange(rows, dtype=np.float64) * 0.5},
        fraud=None if fraud is None else np.array(fraud),
    )


async def everything(broker: str, topic: str, partitions: int) -> list[list[tuple[bytes, bytes]]]:
    """Key and value of all records, by partition."""
    consumer = AIOKafkaConsumer(bootstrap_servers=broker)
    await consumer.start()
    try:
        assigned = [TopicPartition(topic, number) for number in range(partitions)]
        consumer.assign(assigned)
        await consumer.seek_to_beginning(*assigned)
        ends = await consumer.end_offsets(assigned)
        records: dict[TopicPartition, list[tuple[bytes, bytes]]] = {each: [] for each in assigned}
        while sum(map(len, records.values())) < sum(ends.values()):
            for partition, batch in (await consumer.getmany(timeout_ms=200)).items():
                records[partition] += [(record.key, record.value) for record in batch]
        return [records[each] for each in assigned]
    finally:
        await consumer.stop()


def published(
    broker: str, batches: list[TransactionColumns], label_delay: int | None, pace: Pace | None = None
) -> tuple[ReplaySummary, list[list[tuple[bytes, bytes]]], list[list[tuple[bytes, bytes]]]]:
    """The summary of a replay, and what is on both topics afterwards."""

    async def run() -> tuple[ReplaySummary, list[list[tuple[bytes, bytes]]], list[list[tuple[bytes, bytes]]]]:
        topics = ReplayTopics(await new_topic(broker, 3), await new_topic(broker, 2))
        async with Outputs(broker) as outputs:
            summary = await replay(outputs, topics, batches, label_delay=label_delay, pace=pace)
        return (
            summary,
            await everything(broker, topics.transactions, 3),
            await everything(broker, topics.labels, 2),
        )

    return asyncio.run(run())


@pytest.mark.broker
def test_every_row_and_label_is_published_once_in_order_and_accepted(broker: str) -> None:
    """A simulated stream arrives complete, keyed by card, in event order per partition, and decodes."""
    batches = list(Simulator(Simulation(transactions=12_000, cards=300, terminals=500)).batches())
    summary, transactions, labels = published(broker, batches, label_delay=None)

    truth = {
        (transaction, int(time))
        for batch in batches
        for transaction, time in zip(batch.transaction_id, batch.labelled_at.tolist(), strict=True)  # type: ignore[union-attr]
        if time >= 0
    }
    decoder = TransactionDecoder()
    seen: list[str] = []
    for number, partition in enumerate(transactions):
        records = [decoder.decode_one(value, key) for key, value in partition]
        assert all(isinstance(record, Transaction) for record in records)
        assert all(a.event_time <= b.event_time for a, b in pairwise(records))  # type: ignore[union-attr]
        assert all(partition_for(key, 3) == number for key, _ in partition)
        seen += [record.transaction_id for record in records]  # type: ignore[union-attr]
    assert sorted(seen) == sorted(each for batch in batches for each in batch.transaction_id)

    reports = [LabelDecoder().decode_one(value, key) for partition in labels for key, value in partition]
    assert {(each.transaction_id, each.labelled_at) for each in reports if isinstance(each, Label)} == truth
    assert summary.transactions == 12_000
    assert summary.labels == len(reports) == len(truth)
    assert summary.out_of_order == 0
    assert summary.first_event_time == int(batches[0].event_time[0])
    assert summary.last_event_time == int(batches[-1].event_time[-1])


@pytest.mark.broker
def test_records_hold_the_fields_of_the_contract(broker: str) -> None:
    """A row with attributes and its label are the documented JSON, and absent fields stay absent."""
    batch = columns([0, 1000], [False, True])
    _, transactions, labels = published(broker, [batch], label_delay=7 * DAY)
    values = [json.loads(value) for partition in transactions for _, value in partition]
    assert {
        "transaction_id": "t1",
        "card_id": "c1",
        "terminal_id": "m",
        "event_time": T0 + 1000,
        "amount_minor": 1,
        "currency": "EUR",
        "attributes": {"V1": 0.5},
    } in values
    ((key, value),) = [record for partition in labels for record in partition]
    assert key == b"c1"
    assert json.loads(value) == {
        "transaction_id": "t1",
        "card_id": "c1",
        "fraud": True,
        "source": "chargeback",
        "labelled_at": T0 + 1000 + 7 * DAY,
        "revision": 0,
    }


@pytest.mark.broker
def test_an_empty_history_and_rows_out_of_order(broker: str) -> None:
    """Nothing gives an empty summary; rows earlier than one before them are counted, not moved."""
    summary, _, _ = published(broker, [], label_delay=None)
    assert (summary.transactions, summary.first_event_time) == (0, None)
    summary, transactions, _ = published(broker, [columns([0, 5, 3]), columns([4, 5, 6])], label_delay=None)
    assert summary.out_of_order == 2
    assert sum(map(len, transactions)) == 6


@pytest.mark.broker
def test_speed_follows_event_time(broker: str) -> None:
    """At a speed of 3600 an hour of history takes a second, by the clock that was given."""
    now = [100.0]
    waits: list[float] = []

    async def sleep(seconds: float) -> None:
        waits.append(seconds)
        now[0] += seconds

    async def run() -> ReplaySummary:
        topics = ReplayTopics(await new_topic(broker, 1), await new_topic(broker, 1))
        async with Outputs(broker) as outputs:
            return await replay(
                outputs,
                topics,
                [columns([0, HOUR, 2 * HOUR])],
                label_delay=None,
                pace=Pace(speed=3600),
                clock=lambda: now[0],
                sleep=sleep,
            )

    summary = asyncio.run(run())
    assert summary.duration_s == pytest.approx(2.0, abs=0.02)
    assert len(waits) <= 4


def paced(pace: Pace, times: np.ndarray, ends: float) -> Iterator[tuple[float, int]]:
    """Elapsed seconds and transactions sent, as a loop with this pace would go."""
    sent, elapsed = 0, 0.0
    while sent < len(times) and elapsed < ends:
        due = pace.due(sent, times[sent : sent + 100], int(times[0]), elapsed)
        sent += due
        yield elapsed, sent
        if not due:
            elapsed += pace.wait(sent, int(times[sent]), int(times[0]), elapsed)


@pytest.mark.parametrize("rate", [3.0, 1000.0, 50_000.0])
def test_rate_is_kept(rate: float) -> None:
    """At no time has more been sent than the rate allows, nor less than a tick behind it."""
    times = np.arange(200_000, dtype=np.int64)
    for elapsed, sent in paced(Pace(rate=rate), times, ends=2.0):
        assert sent <= elapsed * rate + 1
    assert sent >= min(2.0 * rate, 200_000) - max(rate * 0.006, 1) - 100


def test_a_late_start_catches_up_with_the_rate() -> None:
    """After a pause everything that was due meanwhile is due at once, so the mean rate holds."""
    assert Pace(rate=100).due(10, np.arange(5000), 0, 5.0) == 491
    assert Pace(speed=10).due(0, np.arange(0, 100_000, 1000), 0, 5.0) == 51
    assert Pace().due(0, np.arange(7), 0, 0.0) == 7


def test_pace_refuses_nonsense() -> None:
    """Rate and speed exclude each other and are positive."""
    for arguments in ({"rate": 1.0, "speed": 1.0}, {"rate": 0.0}, {"speed": -1.0}):
        with pytest.raises(ValueError):
            Pace(**arguments)


def test_labels_come_in_order_of_their_report() -> None:
    """A label is due from its report time on, not a millisecond before, and only once."""
    labels = DelayedLabels(label_delay=DAY)
    labels.add(columns([0, 10, 20], [True, False, True]))
    assert labels.due(T0 + DAY - 1) == []
    assert [label.transaction_id for label in labels.due(T0 + DAY)] == ["t0"]
    assert labels.due(T0 + DAY) == []
    assert [label.transaction_id for label in labels.due(T0 + DAY + 20)] == ["t2"]
    assert len(labels) == 0


def test_without_truth_or_delay_there_are_no_labels() -> None:
    """Neither a history without a fraud column nor one without a delay has labels."""
    for delay, fraud in ((DAY, None), (None, [True])):
        labels = DelayedLabels(delay)
        labels.add(columns([0], fraud))
        assert labels.due(2**62) == []


def test_no_terminal_no_progress(capfd: pytest.CaptureFixture[str]) -> None:
    """Into a file or a pipe no progress is written."""
    with progress_bar("replay", 10) as advance:
        advance(5, "now")
    assert capfd.readouterr() == ("", "")
