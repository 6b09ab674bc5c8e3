"""A fresh broker for every measured run: the embedded one, or real Apache Kafka."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Literal, cast, get_args

from streams.kafka.broker import EmbeddedBroker

BrokerKind = Literal["embedded", "apache"]


def kinds() -> tuple[BrokerKind, ...]:
    """The names `--broker` takes."""
    return cast("tuple[BrokerKind, ...]", get_args(BrokerKind))


@contextmanager
def running(kind: BrokerKind) -> Iterator[str]:
    """Start an empty broker, give its HOST:PORT, stop it at the end.

    A broker that has served a run keeps that run's batches and answers the next one slower, hence never
    shared. Apache Kafka needs Java 17 and its artefacts in the local cache; `ApacheKafka` says what is
    missing.
    """
    if kind == "embedded":
        with EmbeddedBroker() as embedded:
            yield embedded.address
    else:
        from tests.kafka.apache_kafka import ApacheKafka

        with ApacheKafka() as apache:
            yield apache.bootstrap
