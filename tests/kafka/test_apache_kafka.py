"""The Apache Kafka helper itself; needs Java, so it runs with `make kafka-test` only."""

from __future__ import annotations

import os
import uuid

import pytest
from confluent_kafka import Consumer, Producer
from confluent_kafka.admin import AdminClient
from confluent_kafka.cimpl import NewTopic

from tests.kafka.apache_kafka import ApacheKafka

pytestmark = [
    pytest.mark.broker,
    pytest.mark.skipif("FRAUD_TEST_BROKER" not in os.environ, reason="starts Apache Kafka: make kafka-test"),
]


def quiet(kafka: ApacheKafka, **settings: str) -> dict[str, str | int | float | bool]:
    """Client settings without librdkafka's own log lines about the broken connection."""
    config: dict[str, str | int | float | bool] = {"bootstrap.servers": kafka.bootstrap, "log_level": 0}
    config.update({name.replace("_", "."): value for name, value in settings.items()})
    return config


def read_committed(kafka: ApacheKafka, group: str, count: int) -> list[bytes | None]:
    """The first `count` committed values of topic t; ends by the test's own time limit."""
    consumer = Consumer(
        quiet(kafka, group_id=group, auto_offset_reset="earliest", isolation_level="read_committed")
    )
    consumer.subscribe(["t"])
    values: list[bytes | None] = []
    while len(values) < count:
        message = consumer.poll(0.2)
        if message is not None and message.error() is None:
            values.append(message.value())
    consumer.close()
    return values


def test_committed_transaction_survives_a_killed_broker() -> None:
    """What a reader of committed records has seen is there again after kill -9 and a new start."""
    expected = [str(number).encode() for number in range(10)]
    with ApacheKafka() as kafka:
        admin = AdminClient(quiet(kafka))
        admin.create_topics([NewTopic("t", 1, 1)])["t"].result(20)
        producer = Producer(quiet(kafka, transactional_id="writer"))
        producer.init_transactions(30)
        producer.begin_transaction()
        for value in expected:
            producer.produce("t", value)
        producer.commit_transaction(30)
        # The commit answers before its marker is written; killed in between, the only node never writes it.
        assert read_committed(kafka, "before", 10) == expected

        kafka.kill()
        kafka.start()

        assert read_committed(kafka, "after", 10) == expected


def test_topics_are_not_created_by_accident() -> None:
    """Producing to a topic that nobody created fails, as it does on a production cluster."""
    failures: list[object] = []
    producer = Producer(
        {"bootstrap.servers": os.environ["FRAUD_TEST_BROKER"], "message.timeout.ms": 3000, "log_level": 0}
    )
    producer.produce(f"nobody-{uuid.uuid4().hex}", b"x", on_delivery=lambda error, _: failures.append(error))
    producer.flush(20)
    assert len(failures) == 1
    assert failures[0] is not None
