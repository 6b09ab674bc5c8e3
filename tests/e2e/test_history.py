"""A month of the Fraud Detection Handbook's transactions, labels exactly seven days late: the long tests.

A foreign client publishes it as fast as it goes, with malformed messages among it. They run where
FRAUD_TEST_HISTORIES names the directory with the months.
"""

from __future__ import annotations

import json
import os
import random
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from datetime import UTC
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from tests.e2e.harness import Deployment, json_bytes
from tests.e2e.malformed import BAD

HISTORIES = os.environ.get("FRAUD_TEST_HISTORIES", "")
HISTORY = str(Path(HISTORIES or ".").resolve() / "handbook-2018-08.parquet")

pytestmark = [
    pytest.mark.broker,
    pytest.mark.chaos,
    pytest.mark.timeout(900),
    pytest.mark.skipif(not HISTORIES, reason="FRAUD_TEST_HISTORIES names no directory with histories"),
]


DELAY_MS = 7 * 86_400_000
MALFORMED = 200


@dataclass
class Month:
    """The month as records, (topic, key, value) in the order in which they become known."""

    transactions: set[str] = field(default_factory=set)
    events: list[tuple[str, str, bytes]] = field(default_factory=list)
    malformed: Counter[str] = field(default_factory=Counter)

    def __post_init__(self) -> None:
        found: list[tuple[int, int, tuple[str, str, bytes]]] = []
        for row in pq.read_table(HISTORY).to_pylist():
            transaction, label = records(row)
            card, moment = transaction["card_id"], transaction["event_time"]
            self.transactions.add(transaction["transaction_id"])
            found.append((moment, 1, ("transactions", card, json_bytes(transaction))))
            if label:
                found.append((label["labelled_at"], 0, ("labels", card, json_bytes(label))))
        found.sort(key=lambda each: each[:2])
        self.events = [event for _, _, event in found]
        end = max(n for n, event in enumerate(self.events) if event[0] == "transactions")
        places = sorted(random.Random(3).sample(range(end), MALFORMED))
        for number, place in reversed(list(enumerate(places))):
            value, code = list(BAD.items())[number % len(BAD)]
            self.events.insert(place, ("transactions", self.events[place][1], value))
            self.malformed[code] += 1


def records(row: dict[str, Any]) -> tuple[dict[str, Any], dict[str, Any] | None]:
    """A row of the month as a transaction and, for a fraud, its label."""
    ids = {"transaction_id": str(row["TRANSACTION_ID"]), "card_id": f"{row['CUSTOMER_ID']}"}
    moment = round(row["TX_DATETIME"].replace(tzinfo=UTC).timestamp() * 1000)
    transaction = {
        **ids,
        "terminal_id": f"{row['TERMINAL_ID']}",
        "event_time": moment,
        "amount_minor": round(row["TX_AMOUNT"] * 100),
        "currency": "EUR",
    }
    if not row["TX_FRAUD"]:
        return transaction, None
    return transaction, {**ids, "fraud": True, "source": "chargeback", "labelled_at": moment + DELAY_MS}


@pytest.fixture
def deployment(broker: str, tmp_path: Path) -> Iterator[Deployment]:
    deployment = Deployment(broker, tmp_path)
    yield deployment
    deployment.close()


@pytest.fixture(scope="module")
def month() -> Month:
    return Month()


@pytest.fixture(scope="module")
def backtested(broker: str, tmp_path_factory: pytest.TempPathFactory) -> tuple[int, str]:
    """Transactions and feature digest by two backtests."""
    deployment = Deployment(broker, tmp_path_factory.mktemp("backtest"))
    try:
        run = ("backtest", HISTORY, "--label-delay", "7d", "--json")
        found = [json.loads(deployment.command(*run)) for _ in range(2)]
    finally:
        deployment.close()
    assert found[0]["feature_digest"] == found[1]["feature_digest"]
    return found[0]["transactions"], found[0]["feature_digest"]


@pytest.mark.parametrize("kills", [0, 10])
def test_kafka_gives_the_features_of_the_backtest(
    deployment: Deployment, month: Month, backtested: tuple[int, str], kills: int
) -> None:
    """As fast as it goes, also by a worker that is killed ten times: the same digest, all scored, none twice.

    One dead letter for each malformed message; champion and shadows side by side, newer versions in use.
    """
    transactions, digest = backtested
    assert len(month.transactions) == transactions
    moments = random.Random(8)
    worker = deployment.start()
    for topic, key, value in month.events:
        deployment.publish(topic, [(key, value)])
    deployment.flush()
    seen = deployment.seen
    for _ in range(kills):
        deployment.read_scores(len(seen.scores) + moments.randint(2_000, 20_000), seconds=120)
        worker.kill()
        worker = deployment.start()
    deployment.read_scores(transactions, seconds=400)
    deployment.settle(2)
    assert seen.scores.keys() == month.transactions
    assert seen.contradictions() == []
    assert seen.digest() == digest
    assert len({source(headers) for _, headers in seen.dead}) == MALFORMED
    if not kills:
        assert seen.published == transactions
        assert deployment.codes() == month.malformed
    if not kills:
        # Scoring does not wait for learners: how many versions there are depends on how fast it is;
        # and after a kill all that was there before it is scored with the models of before.
        versions = versions_scored(seen.scores.values())
        assert {name: max(each) > 0 for name, each in versions.items() if name != "rules"} == {
            "binned": True, "forest": True, "logistic": True,
        }  # fmt: skip
    alerted = {each["transaction_id"] for each in seen.alerts}
    assert alerted == {name for name, (score, *_) in seen.scores.items() if score["alert"]}
    assert alerted
    assert worker.stop() == 0


def source(headers: dict[str, bytes]) -> tuple[bytes, ...]:
    """Where the record of a dead letter came from; after a crash its letter may be there twice."""
    return tuple(headers[f"__connect.errors.{name}"] for name in ("topic", "partition", "offset"))


def versions_scored(scores: Iterable[list[dict[str, Any]]]) -> dict[str, set[int]]:
    """The versions of each model that have scored, champion and shadows; 0 before it has learned."""
    found: dict[str, set[int]] = {}
    for record, *_ in scores:
        for model in (record["model"], *record["shadows"]):
            found.setdefault(model["name"], set()).add(model["version"])
    return found
