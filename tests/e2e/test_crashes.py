"""Workers that die or come and go under load: nothing unscored, nothing contradicted, windows exact."""

from __future__ import annotations

import os
import random
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.e2e.harness import Deployment, Worker, until
from tests.e2e.stream import Stream, settings

pytestmark = [pytest.mark.broker, pytest.mark.chaos, pytest.mark.timeout(300)]

#: The worst step of each stage, between its outputs and its state; the others when FRAUD_TEST_HISTORIES asks
#: for the long tests.
FAILPOINTS = ["card:sent", "score:sent", "label:sent", "learn:published"]
if "FRAUD_TEST_HISTORIES" in os.environ:
    FAILPOINTS += ["card:saved", "score:saved", "label:saved", "learn:saved"]


@pytest.fixture(scope="module")
def stream() -> Stream:
    return Stream(4000, seed=11)


@pytest.fixture
def deploy(broker: str, tmp_path: Path) -> Iterator[Callable[[str], Deployment]]:
    """Deployments that are closed in the end."""
    deployments: list[Deployment] = []

    def new(name: str) -> Deployment:
        directory = tmp_path / name
        directory.mkdir()
        deployments.append(Deployment(broker, directory, settings(idle_after="15s", publish_every="2h")))
        return deployments[-1]

    yield new
    for deployment in deployments:
        deployment.close()


@pytest.fixture(scope="module")
def undisturbed(broker: str, stream: Stream, tmp_path_factory: pytest.TempPathFactory) -> str:
    """The feature digest of a run in which nothing happens."""
    deployment = Deployment(broker, tmp_path_factory.mktemp("undisturbed"), settings(idle_after="15s"))
    try:
        deployment.start()
        publish(deployment, stream)
        finish(deployment, stream)
        return deployment.seen.digest()
    finally:
        deployment.close()


def publish(deployment: Deployment, stream: Stream, start: float = 0.0, stop: float = 1.0) -> None:
    """A part of the stream."""
    total = len(stream.events)
    for topic, key, value in stream.events[round(start * total) : round(stop * total)]:
        deployment.publish(topic, [(key, value)])
    deployment.flush()


def finish(deployment: Deployment, stream: Stream) -> None:
    deployment.read_until(
        lambda: len(deployment.seen.scores) >= len(stream.good), seconds=120, what="all scored"
    )
    deployment.settle()


def judge(deployment: Deployment, stream: Stream, digest: str) -> None:
    """Every transaction scored, repeated records alike, features as in the undisturbed run."""
    seen = deployment.seen
    assert set(seen.scores) == {each["transaction_id"] for each in stream.good}
    assert seen.contradictions() == []
    assert seen.digest() == digest
    alerts = {alert["transaction_id"]: alert["alert_id"] for alert in seen.alerts}
    assert len({alert["alert_id"] for alert in seen.alerts}) == len(alerts)
    assert set(alerts) == {tx for tx, records in seen.scores.items() if records[0]["alert"]}


def test_a_worker_killed_at_every_step(
    deploy: Callable[[str], Deployment], stream: Stream, undisturbed: str
) -> None:
    """Between outputs and state, and between state and commit, of every stage that has any."""
    deployment = deploy("steps")
    random_ = random.Random(3)
    for number, step in enumerate(FAILPOINTS):
        doomed = deployment.start(failpoint=f"{step}:{random_.randint(1, 3)}", wait=False)
        publish(deployment, stream, number / len(FAILPOINTS), (number + 1) / len(FAILPOINTS))
        deployment.read_until(lambda doomed=doomed: not doomed.alive, seconds=60, what=f"death at {step}")  # type: ignore[misc]
        assert doomed.process.returncode == -9, doomed.log()
    deployment.start()
    finish(deployment, stream)
    judge(deployment, stream, undisturbed)


def test_a_worker_killed_at_random_moments(
    deploy: Callable[[str], Deployment], stream: Stream, undisturbed: str
) -> None:
    """Twice, wherever it happens to be while the whole stream waits for it."""
    deployment = deploy("moments")
    random_ = random.Random(5)
    worker = deployment.start()
    publish(deployment, stream)
    for _ in range(2):
        deployment.read_scores(len(deployment.seen.scores) + random_.randint(100, 900), seconds=60)
        worker.kill()
        worker = deployment.start()
    finish(deployment, stream)
    judge(deployment, stream, undisturbed)


def test_a_worker_joins_and_another_leaves(
    deploy: Callable[[str], Deployment], stream: Stream, undisturbed: str
) -> None:
    """Two workers share the partitions; partitions move with their state in both directions."""
    deployment = deploy("rebalance")
    first = deployment.start()
    publish(deployment, stream, 0, 0.4)
    second = deployment.start()
    publish(deployment, stream, 0.4, 0.7)
    until(lambda: held(first) and held(second), seconds=30, what="both hold partitions")
    before = len(deployment.seen.scores)
    deployment.read_until(lambda: len(deployment.seen.scores) > before, seconds=30, what="progress")
    assert first.stop() == 0
    publish(deployment, stream, 0.7, 1.0)
    finish(deployment, stream)
    judge(deployment, stream, undisturbed)


def test_one_of_two_workers_is_killed_and_another_joins(
    deploy: Callable[[str], Deployment], stream: Stream, undisturbed: str
) -> None:
    """The survivor takes over what the dead one had, under load; a third one then shares it again."""
    deployment = deploy("one-of-two")
    survivor, doomed = deployment.start(), deployment.start()
    publish(deployment, stream, 0, 0.2)
    until(lambda: held(survivor) and held(doomed), seconds=60, what="both hold partitions")
    whole = held(survivor) + held(doomed)
    publish(deployment, stream, 0.2, 0.6)
    deployment.read_scores(len(deployment.seen.scores) + 100, seconds=60)
    doomed.kill()
    deployment.read_until(lambda: held(survivor) >= whole, seconds=60, what="the survivor holds all")
    before = len(deployment.seen.scores)
    publish(deployment, stream, 0.6, 0.8)
    deployment.read_until(lambda: len(deployment.seen.scores) > before, seconds=60, what="progress alone")
    third = deployment.start()
    publish(deployment, stream, 0.8, 1.0)
    finish(deployment, stream)
    until(lambda: held(third) and held(survivor) < whole, seconds=60, what="the third shares")
    deployment.settle()
    judge(deployment, stream, undisturbed)


def held(worker: Worker) -> float:
    """How many partitions the worker holds."""
    lines = [line for line in worker.metrics().splitlines() if line.startswith("fraud_assigned_partitions")]
    return sum(float(line.rsplit(" ", 1)[1]) for line in lines)
