"""Faust as its tutorial writes it: one agent, one event at a time, a Table, River inside.

Favourable to Faust where the tutorial is silent: producer linger of 5 ms and library loggers at WARNING.
"""

from __future__ import annotations

import logging
import sys

import faust

from benchmarks.contenders.work import THRESHOLD, Models, RunSettings, score_document, window_features

settings = RunSettings.from_environment()
models = Models()

app = faust.App(
    settings.group,
    broker=f"kafka://{settings.broker}",
    store="memory://",
    topic_partitions=settings.partitions,
    topic_replication_factor=1,
    producer_linger=0.005,
    broker_session_timeout=6.0,
    broker_heartbeat_interval=1.5,
    consumer_auto_offset_reset="earliest",
    datadir=settings.directory,
)


class CardTransaction(faust.Record):
    """A transaction as the topic carries it; fields it does not name are ignored by Faust."""

    transaction_id: str
    card_id: str
    terminal_id: str
    event_time: int
    amount_minor: int
    currency: str


transactions = app.topic(settings.source, key_type=str, value_type=CardTransaction, value_serializer="json")
scores = app.topic(settings.scores, key_type=str, value_serializer="json")
alerts = app.topic(settings.alerts, key_type=str, value_serializer="json")
histories = app.Table("card-histories", default=list, partitions=settings.partitions)


@app.agent(transactions)
async def score(stream: faust.StreamT[CardTransaction]) -> None:
    """Score each transaction on the windows of its card."""
    async for transaction in stream:
        features, history = window_features(
            histories[transaction.card_id], transaction.event_time, float(transaction.amount_minor)
        )
        histories[transaction.card_id] = history
        champion, shadow = models.score(features)
        document = score_document(transaction.asdict(), features, champion, shadow)
        await scores.send(key=transaction.card_id, value=document)
        if champion >= THRESHOLD:
            await alerts.send(key=transaction.card_id, value=document)


if __name__ == "__main__":
    # Faust's start-up spinner leaves the root logger at DEBUG whatever the command line says.
    for name in ("aiokafka", "faust", "mode", "asyncio"):
        logging.getLogger(name).setLevel(logging.WARNING)
    sys.argv = ["faust", "--quiet", "worker", "--without-web", "-l", "warn"]
    app.main()
