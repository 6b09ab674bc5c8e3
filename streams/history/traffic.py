"""A simulated stream to a broker that others run: transactions, late labels, analysts who answer alerts."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Iterator
from contextlib import aclosing

import msgspec
import numpy as np

from streams.contract.codecs import encode
from streams.contract.records import Alert
from streams.contract.transaction_columns import TransactionColumns
from streams.history.analysts import Analysts
from streams.history.replay import Pace, ReplaySummary, ReplayTopics, replay
from streams.kafka.clients import follow
from streams.kafka.outputs import Output, Outputs, partition_for
from streams.settings import Settings

_decode = msgspec.json.Decoder(Alert).decode


async def publish(
    outputs: Outputs,
    settings: Settings,
    batches: Iterable[TransactionColumns],
    *,
    rate: float,
    label_delay: int,
    ignored_from: int | None = None,
) -> ReplaySummary:
    """Publish `batches` at `rate` transactions a second; answer alerts until all are published.

    Args:
        outputs: started; it is left open.
        label_delay: milliseconds until a fraud is reported, where the batches do not say.
        ignored_from: event time (epoch ms) of the alerts from which none is opened any more.

    Raises:
        SendFailed: the broker did not take everything.
    """
    topics = settings.topics
    frauds: set[str] = set()
    analysts = Analysts(frauds, absent_from=ignored_from)
    answering = asyncio.create_task(_answer(outputs, settings, analysts))
    publishing = asyncio.create_task(
        replay(
            outputs,
            ReplayTopics(topics.transactions, topics.labels),
            _noting(batches, frauds),
            label_delay=label_delay,
            pace=Pace(rate=rate),
        )
    )
    try:
        await asyncio.wait({publishing, answering}, return_when=asyncio.FIRST_COMPLETED)
        if not publishing.done():
            answering.result()
        return publishing.result()
    finally:
        # Also when this is cancelled: both send, and the caller closes `outputs` next.
        for task in (publishing, answering):
            task.cancel()
        await asyncio.gather(publishing, answering, return_exceptions=True)


def _noting(batches: Iterable[TransactionColumns], frauds: set[str]) -> Iterator[TransactionColumns]:
    for batch in batches:
        if batch.fraud is not None:
            frauds.update(batch.transaction_id[row] for row in np.flatnonzero(batch.fraud).tolist())
        yield batch


async def _answer(outputs: Outputs, settings: Settings, analysts: Analysts) -> None:
    """Until cancelled: what analysts say to alerts, on the topic of feedback."""
    topic = settings.topics.feedback
    partitions = await outputs.partitions(topic)
    async with aclosing(follow(settings.broker, settings.topics.alerts, from_beginning=False)) as records:
        async for record in records:
            if record.value is None:
                continue
            alert = _decode(record.value)
            key = alert.card_id.encode()
            said = analysts.review(alert.alert_id, alert.transaction_id, alert.card_id, alert.event_time)
            await outputs.send(
                Output(topic, partition_for(key, partitions), key, encode(item)) for item in said
            )
