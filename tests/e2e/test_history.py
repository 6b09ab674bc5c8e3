"""A month of the Fraud Detection Handbook's transactions, labels exactly seven days late: the long tests.

They run where FRAUD_TEST_HISTORIES names the directory with the months.
"""

from __future__ import annotations

import json
import os
import random
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.e2e.harness import Deployment

HISTORIES = os.environ.get("FRAUD_TEST_HISTORIES", "")
HISTORY = str(Path(HISTORIES or ".").resolve() / "handbook-2018-08.parquet")

pytestmark = [
    pytest.mark.broker,
    pytest.mark.chaos,
    pytest.mark.timeout(900),
    pytest.mark.skipif(not HISTORIES, reason="FRAUD_TEST_HISTORIES names no directory with histories"),
]


@pytest.fixture
def deployment(broker: str, tmp_path: Path) -> Iterator[Deployment]:
    deployment = Deployment(broker, tmp_path)
    yield deployment
    deployment.close()


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
    deployment: Deployment, backtested: tuple[int, str], kills: int
) -> None:
    """Replayed as fast as it goes, also by a worker that is killed ten times: the same digest, all scored."""
    transactions, digest = backtested
    moments = random.Random(8)
    worker = deployment.start()
    deployment.command("replay", HISTORY, "--label-delay", "7d")
    scores = deployment.seen.scores
    for _ in range(kills):
        deployment.read_scores(len(scores) + moments.randint(2_000, 20_000), seconds=120)
        worker.kill()
        worker = deployment.start()
    deployment.read_scores(transactions, seconds=400)
    deployment.settle(2)
    assert len(scores) == transactions
    assert deployment.seen.contradictions() == []
    assert deployment.seen.digest() == digest
    if not kills:
        assert deployment.seen.published == transactions
    assert worker.stop() == 0
