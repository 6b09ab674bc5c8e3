"""Bytewax as its guide writes it: Kafka operators, `stateful_map` keyed by card, one worker.

No recovery store is configured: the state dies with the process, which favours Bytewax.
"""

# The peers are not among the project's dependencies.
# mypy: disable-error-code="import-not-found"
from __future__ import annotations

import bytewax.operators as op
import orjson
from bytewax.connectors.kafka import KafkaSinkMessage, KafkaSourceMessage
from bytewax.connectors.kafka import operators as kop
from bytewax.dataflow import Dataflow
from bytewax.run import cli_main

from benchmarks.contenders.work import (
    CardWindows,
    Document,
    Models,
    RunSettings,
    Transaction,
    score_document,
)


def build(settings: RunSettings) -> Dataflow:
    """The flow: decode, key by card, window and score, encode, write."""
    models = Models()
    brokers = [settings.broker]

    def decode(message: KafkaSourceMessage[bytes, bytes]) -> tuple[str, Transaction]:
        transaction: Transaction = orjson.loads(message.value)
        return transaction["card_id"], transaction

    def score(windows: CardWindows | None, transaction: Transaction) -> tuple[CardWindows, Document]:
        windows = windows or CardWindows()
        features = windows.add(transaction["event_time"], float(transaction["amount_minor"]))
        champion, shadow = models.score(features)
        return windows, score_document(transaction, features, champion, shadow)

    def encode(scored: tuple[str, Document]) -> KafkaSinkMessage[bytes, bytes]:
        card, document = scored
        return KafkaSinkMessage(card.encode(), orjson.dumps(document))

    flow = Dataflow("fraud")
    source = kop.input("transactions", flow, brokers=brokers, topics=[settings.source], batch_size=1_000)
    keyed = op.map("decode", source.oks, decode)
    scored = op.stateful_map("score", keyed, score)
    kop.output("scores", op.map("encode", scored, encode), brokers=brokers, topic=settings.scores)
    suspicious = op.filter("suspicious", scored, lambda pair: bool(pair[1]["alert"]))
    kop.output("alerts", op.map("encode-alert", suspicious, encode), brokers=brokers, topic=settings.alerts)
    return flow


if __name__ == "__main__":
    cli_main(build(RunSettings.from_environment()))
