"""The Apache Kafka helper itself; needs Java, so it runs with `make kafka-test` only."""

from __future__ import annotations

import os

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


def test_acknowledged_transaction_survives_a_killed_broker() -> None:
    """What a transactional producer was told is committed is there after kill -9 and a new start."""
    with ApacheKafka() as kafka:
        admin = AdminClient(quiet(kafka))
        admin.create_topics([NewTopic("t", 1, 1)])["t"].result(20)
        producer = Producer(quiet(kafka, transactional_id="writer"))
        producer.init_transactions(30)
        producer.begin_transaction()
        for number in range(10):
            producer.produce("t", str(number).encode())
        producer.commit_transaction(30)
        del producer

        kafka.kill()
        kafka.start()

        consumer = Consumer(
            quiet(kafka, group_id="reader", auto_offset_reset="earliest", isolation_level="read_committed")
        )
        consumer.subscribe(["t"])
        values: list[bytes] = []
        while len(values) < 10:  # ends by the test's own time limit
            message = consumer.poll(1.0)
            if message is not None and message.error() is None:
                value = message.value()
                assert value is not None
                values.append(value)
        consumer.close()
    assert values == [str(number).encode() for number in range(10)]


def test_topics_are_not_created_by_accident() -> None:
    """Producing to a topic that nobody created fails, as it does on a production cluster."""
    with ApacheKafka() as kafka:
        failures: list[object] = []
        producer = Producer(quiet(kafka, message_timeout_ms="3000"))
        producer.produce("nobody", b"x", on_delivery=lambda error, _: failures.append(error))
        producer.flush(20)
    assert len(failures) == 1
    assert failures[0] is not None
