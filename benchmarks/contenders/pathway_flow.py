"""Pathway: Kafka in, a Python UDF that holds the cards' windows, Kafka out.

Pathway's own windows aggregate over sliding or tumbling spans and give no feature per event, hence the UDF
with state in the process: it is not persisted, and inside one minibatch Pathway does not promise the
topic's order. Both favour Pathway.
"""

# The peers are not among the project's dependencies.
# mypy: disable-error-code="import-not-found"
from __future__ import annotations

from collections import defaultdict

import orjson
import pathway as pw

from benchmarks.contenders.work import (
    THRESHOLD,
    CardWindows,
    Models,
    RunSettings,
    Transaction,
    score_document,
)


class TransactionSchema(pw.Schema):
    """The columns read from the transactions topic."""

    transaction_id: str
    card_id: str
    terminal_id: str
    event_time: int
    amount_minor: int
    currency: str


def main(settings: RunSettings) -> None:
    """Run until killed."""
    models = Models()
    cards: defaultdict[str, CardWindows] = defaultdict(CardWindows)
    source = pw.io.kafka.read(
        {
            "bootstrap.servers": settings.broker,
            "group.id": settings.group,
            "auto.offset.reset": "earliest",
            "session.timeout.ms": "6000",
        },
        topic=settings.source,
        format="json",
        schema=TransactionSchema,
        autocommit_duration_ms=50,
    )

    # Declared deterministic so that Pathway does not keep every result for a retraction that cannot come.
    @pw.udf(deterministic=True)
    def score(
        identifier: str, card: str, terminal: str, time: int, amount: int, currency: str
    ) -> tuple[bytes, float]:
        features = cards[card].add(time, float(amount))
        champion, shadow = models.score(features)
        transaction: Transaction = {
            "transaction_id": identifier,
            "card_id": card,
            "terminal_id": terminal,
            "event_time": time,
            "amount_minor": amount,
            "currency": currency,
        }
        return orjson.dumps(score_document(transaction, features, champion, shadow)), champion

    columns = (pw.this.transaction_id, pw.this.card_id, pw.this.terminal_id, pw.this.event_time)
    scored = source.select(
        card=pw.this.card_id, result=score(*columns, pw.this.amount_minor, pw.this.currency)
    ).select(pw.this.card, document=pw.this.result[0], score=pw.this.result[1])
    output = {"bootstrap.servers": settings.broker}
    pw.io.kafka.write(
        scored.select(pw.this.card, pw.this.document),
        output,
        settings.scores,
        format="raw",
        key=pw.this.card,
        value=pw.this.document,
    )
    alerts = scored.filter(pw.this.score >= THRESHOLD).select(pw.this.card, pw.this.document)
    pw.io.kafka.write(alerts, output, settings.alerts, format="raw", key=alerts.card, value=alerts.document)
    pw.run(monitoring_level=pw.MonitoringLevel.NONE)


if __name__ == "__main__":
    main(RunSettings.from_environment())
