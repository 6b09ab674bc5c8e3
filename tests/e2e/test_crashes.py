"""Workers that die or come and go under load: nothing unscored, nothing contradicted, windows exact."""

from __future__ import annotations

import json
import os
import random
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from streams.kafka.broker import EmbeddedBroker
from tests.e2e.harness import PARTITIONS, Deployment, Worker, json_bytes, until
from tests.e2e.stream import DAY, START, Stream, settings

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

    def new(name: str, partitions: int = PARTITIONS) -> Deployment:
        directory = tmp_path / name
        directory.mkdir()
        document = settings(idle_after="15s", publish_every="2h")
        deployments.append(Deployment(broker, directory, document, partitions))
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
    # Worth a word of its own: without waiting, the features are those of a live stream.
    assert [worker.log() for worker in deployment.workers if "frauds may count late" in worker.log()] == []
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
    # Of all stages: eight topics of the flow, the outcomes twice, and the parts. The sum of two gauges that
    # are sampled during a rebalance says nothing.
    whole = 8 * deployment.partitions + 3
    until(lambda: held(survivor) < whole and held(doomed), seconds=60, what="both hold partitions")
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


@pytest.mark.timeout(600)
def test_days_without_a_time_of_day(deploy: Callable[..., Deployment], tmp_path: Path) -> None:
    """So many rows of one watermark that they are scored in parts, with kills among them: features are those
    of the backtest, which nobody has interrupted.
    """
    random_ = random.Random(2)
    transactions = [
        {
            "transaction_id": f"tx-{number}",
            "card_id": f"card-{random_.randrange(900)}",
            "terminal_id": f"t-{random_.randrange(20)}",
            "event_time": START + number // 25_000 * DAY,
            "amount_minor": random_.randrange(100, 90_000),
            "currency": "EUR",
        }
        for number in range(30_000)
    ]
    history = tmp_path / "days.jsonl"
    history.write_text("\n".join(json.dumps(each) for each in transactions))
    deployment = deploy("days", partitions=2)
    backtest = json.loads(deployment.command("backtest", str(history), "--json"))
    worker = deployment.start()
    deployment.publish("transactions", [(str(each["card_id"]), json_bytes(each)) for each in transactions])
    deployment.flush()
    for _ in range(2):
        deployment.read_scores(len(deployment.seen.scores) + random_.randint(1_000, 9_000), seconds=90)
        worker.kill()
        worker = deployment.start()
    deployment.read_scores(len(transactions), seconds=120)
    deployment.settle()
    assert deployment.seen.contradictions() == []
    assert deployment.seen.digest() == backtest["feature_digest"]


@pytest.mark.parametrize("stages", ["", "learn,observe"])
def test_a_worker_ends_when_its_broker_stays_away(tmp_path: Path, stages: str) -> None:
    """With or without something to send: exit code 1 and one line that says why, soon after half a minute."""
    with EmbeddedBroker() as own:
        deployment = Deployment(own.address, tmp_path, partitions=1)
        try:
            worker = deployment.start(stages=stages)
            worker.lasting = False
            own.stop()
            assert worker.process.wait(60) == 1
            said = worker.log().splitlines()
            assert said[-1].startswith(f"fraudstream: no broker at {own.address} any more")
            assert [
                line for line in said if f"no broker answers at {own.address}; waiting up to 30 s" in line
            ]
            assert not [line for line in said if line.startswith(("Traceback", "NoneType"))]
            assert len(said) < 12
        finally:
            deployment.close()


def held(worker: Worker) -> float:
    """How many partitions the worker holds."""
    lines = [line for line in worker.metrics().splitlines() if line.startswith("fraud_assigned_partitions")]
    return sum(float(line.rsplit(" ", 1)[1]) for line in lines)
