"""Quix Streams as its guide writes it: a dataframe with a stateful apply on RocksDB, two output topics."""

# The peers are not among the project's dependencies.
# mypy: disable-error-code="import-not-found"
from __future__ import annotations

from typing import cast

from quixstreams import Application, State

from benchmarks.contenders.work import (
    Document,
    Models,
    RunSettings,
    Transaction,
    score_document,
    window_features,
)


def main(settings: RunSettings) -> None:
    """Run until killed."""
    models = Models()
    app = Application(
        broker_address=settings.broker,
        consumer_group=settings.group,
        auto_offset_reset="earliest",
        state_dir=settings.directory,
        auto_create_topics=True,
        consumer_extra_config={"session.timeout.ms": 6_000, "heartbeat.interval.ms": 1_500},
        loglevel="WARNING",
    )
    source = app.topic(settings.source, value_deserializer="json")
    scores = app.topic(settings.scores, value_serializer="json")
    alerts = app.topic(settings.alerts, value_serializer="json")

    def score(transaction: Transaction, state: State) -> Document:
        history = cast(list[list[float]], state.get("history", []))
        features, kept = window_features(
            history, transaction["event_time"], float(transaction["amount_minor"])
        )
        state.set("history", kept)
        champion, shadow = models.score(features)
        return score_document(transaction, features, champion, shadow)

    scored = app.dataframe(source).apply(score, stateful=True)
    scored = scored.to_topic(scores)
    scored.filter(lambda document: document["alert"]).to_topic(alerts)
    app.run()


if __name__ == "__main__":
    main(RunSettings.from_environment())
