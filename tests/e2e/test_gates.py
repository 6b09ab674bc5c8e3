"""A canary that is no good, under load: ended by itself, seen from outside."""

from __future__ import annotations

import getpass
import json
import re
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from confluent_kafka import OFFSET_BEGINNING, Consumer, Producer, TopicPartition

from models.scorers.rules import Rule, RulesScorer
from models.snapshot import encode, make
from streams.feature_settings import feature_spec
from streams.settings import load
from tests.e2e.harness import PARTITIONS, Deployment, Worker, json_bytes, until
from tests.e2e.stream import settings

pytestmark = [pytest.mark.broker, pytest.mark.timeout(200)]
CARDS = 500


@pytest.fixture
def deployment(broker: str, tmp_path: Path) -> Iterator[Deployment]:
    made = Deployment(broker, tmp_path, settings())
    yield made
    made.close()


def publish_bad(deployment: Deployment, config: Path) -> None:
    """A version that anybody would take for good: right spec, right digest, right golden scores. It alerts on
    everything."""
    spec = feature_spec(load(config, environ={}))
    scorer = RulesScorer.build(spec.names, [Rule("amount", -1.0, 12.0)])
    document = encode(make(scorer, name="bad", version=1, spec_digest=spec.digest))
    producer = Producer({"bootstrap.servers": deployment.broker})
    producer.produce(deployment.topic("models"), document, b"bad/1")
    assert producer.flush(30) == 0


def publish(deployment: Deployment, first: int, count: int) -> None:
    """Transactions of now."""
    for number in range(first, first + count):
        record = {
            "transaction_id": f"tx-{number}",
            "card_id": f"card-{number % CARDS}",
            "terminal_id": f"t-{number % 40}",
            "event_time": int(time.time() * 1000),
            "amount_minor": 100 + number % 5000,
            "currency": "EUR",
        }
        deployment.publish("transactions", [(str(record["card_id"]), json_bytes(record))])
    deployment.flush()


def history(deployment: Deployment) -> list[dict[str, Any]]:
    moves: list[dict[str, Any]] = json.loads(deployment.command("models", "history", "--json"))
    return moves


def wait_for_use(deployment: Deployment, move: int) -> None:
    """Until every partition has said that it uses the move."""
    reader = Consumer({"bootstrap.servers": deployment.broker, "group.id": "gates"})
    reader.assign([TopicPartition(deployment.topic("metrics"), 0, OFFSET_BEGINNING)])
    using: set[int] = set()

    def all_use() -> bool:
        for message in reader.consume(100, 0.1):
            told = json.loads(message.value() or b"{}")
            if message.key() == b"deployment" and told["move"] >= move:
                using.add(told["partition"])
        return len(using) == PARTITIONS

    try:
        until(all_use, seconds=30, what=f"move {move} in use")
    finally:
        reader.close()


def test_a_canary_that_alerts_on_everything_is_ended(deployment: Deployment, tmp_path: Path) -> None:
    """By an event with its figures; while it decides nobody goes unscored, and after it the champion does."""
    publish_bad(deployment, tmp_path / "settings.toml")
    deployment.start()
    made = json.loads(deployment.command("models", "canary", "bad", "--percent", "20", "--json"))
    assert (made["move"], made["canary"]) == (1, "bad")
    published = 0

    def ended() -> bool:
        nonlocal published
        publish(deployment, published, 500)
        published += 500
        return bool(history(deployment)[-1]["who"] == "gate")

    deployment.read_until(ended, seconds=120, what="the gate's move")
    wait_for_use(deployment, 2)
    publish(deployment, published, 500)
    deployment.read_scores(published + 500, seconds=60)
    last = history(deployment)[-1]
    assert (last["kind"], last["model"], last["canary"]) == ("canary", "bad", "")
    assert "alert_rate" in last["reason"]
    assert last["evidence"]["alert_rate.candidate"] == 1.0
    assert "bad" in last["shadows"]
    arms = [record["arm"] for records in deployment.seen.scores.values() for record in records]
    assert arms.count("canary") > 0
    newest = [deployment.seen.scores[f"tx-{published + number}"][0] for number in range(500)]
    assert {record["arm"] for record in newest} == {"champion"}
    assert {record["model"]["name"] for record in newest} == {"rules"}


def counted(workers: list[Worker]) -> float:
    """Transactions of the last hour that the merge has put together, wherever it is."""
    shown = [
        re.findall(r'^fraud_window_transactions\{window="1h"\} (\S+)$', w.metrics(), re.M) for w in workers
    ]
    return max((float(value) for each in shown for value in each), default=0.0)


def test_the_figures_of_two_workers_outlive_both(deployment: Deployment, tmp_path: Path) -> None:
    """Each has read its partitions when it is killed; with less than the gates ask for after that, and enough
    in all, the one that takes over ends the canary.
    """
    publish_bad(deployment, tmp_path / "settings.toml")
    deployment.start(stages="card,score,label")
    observers = [deployment.start(stages="observe") for _ in range(2)]
    json.loads(deployment.command("models", "canary", "bad", "--percent", "20", "--json"))
    wait_for_use(deployment, 1)
    publish(deployment, 0, 1500)
    until(lambda: counted(observers) == 1500, seconds=60, what="what both have read put together")
    for worker in observers:
        worker.kill()
    assert [move["who"] for move in history(deployment)] == [getpass.getuser()]
    deployment.start(stages="observe")
    publish(deployment, 1500, 700)
    until(lambda: history(deployment)[-1]["who"] == "gate", seconds=60, what="the gate's move")
    last = history(deployment)[-1]
    assert (last["kind"], last["model"], last["canary"]) == ("canary", "bad", "")
    assert "alert_rate" in last["reason"]
    assert 2000 <= last["evidence"]["rows"] <= 2200
