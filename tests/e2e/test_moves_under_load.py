"""Models moved while a pair of workers scores thousands of transactions a second: judged from outside.

A foreign client publishes for as long as the moves take, at `RATE` a second as far as the workers keep up;
the rate that was reached is printed (`-s`, or `-rP`). Which model must have scored what is worked out
from the records on the topics and docs/records.md.
"""

from __future__ import annotations

import hashlib
import hmac
import json
import re
import time
from bisect import bisect_left
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
import xxhash
from confluent_kafka import Producer

from models.learners.logistic import LogisticLearner
from models.snapshot import encode, make
from streams.feature_settings import feature_spec
from streams.settings import load as load_settings
from tests.e2e.harness import PARTITIONS, Deployment, until
from tests.e2e.load import Follower, Load, Tail
from tests.e2e.test_moves import in_canary

pytestmark = [pytest.mark.broker, pytest.mark.chaos, pytest.mark.timeout(600)]

RATE = 5000
#: Published and not scored yet at most: so long after the last one all must be scored.
AHEAD = 20_000
SWAPS = 100
KEY = b"0123456789abcdef0123456789abcdef"
SETTINGS = """
[models]
champion = { name = "binned", kind = "binned_logistic" }
shadows = [{ name = "logistic", kind = "logistic" }]
signing_key_file = "KEY"
[gates]
abort = false
rollback = false
[policy]
threshold = 0.5
[[features.entities]]
name = "card"
key = "card_id"
windows = ["24h"]
aggregates = ["count", "mean"]
[[features.entities]]
name = "terminal"
key = "terminal_id"
windows = ["24h"]
aggregates = ["count"]
risk = { delay = "2d", windows = ["7d"] }
"""
SCORED_AT = re.compile(rb'"scored_at":\d+,')
Model = tuple[str, int]
SWAPPED: list[Model] = [("logistic", 1), ("binned", 1), ("logistic", 2), ("binned", 2)]


@dataclass
class Adopted:
    """What a score partition uses from some row on."""

    move: int
    champion: Model
    canary: Model | None
    percent: float
    shadows: list[Model]
    ahead: dict[str, list[int]]
    at: int


@dataclass(slots=True)
class Scores:
    """The score records of a transaction."""

    card: str
    partition: int
    arm: str
    model: Model
    shadows: list[Model]
    contents: list[bytes]
    #: partition and offset of the transaction
    place: tuple[int, int] = (-1, -1)


@dataclass
class Run:
    made: dict[str, dict[str, Any]] = field(default_factory=dict)
    #: seconds that the commands took
    seconds: dict[str, float] = field(default_factory=dict)
    #: epoch ms at which a command was started
    began: dict[str, int] = field(default_factory=dict)
    #: epoch ms of the events, by number
    events_at: dict[int, int] = field(default_factory=dict)
    adopted: dict[int, list[Adopted]] = field(default_factory=lambda: defaultdict(list))
    #: offsets after which each adoption of a score partition holds, by partition of the transactions
    since: dict[tuple[int, int], list[int]] = field(default_factory=lambda: defaultdict(list))
    history: list[dict[str, Any]] = field(default_factory=list)
    published: int = 0
    scores: dict[str, Scores] = field(default_factory=dict)

    def reached(self, move: int) -> bool:
        """Whether every partition uses that move, or a later one."""
        return len(self.adopted) == PARTITIONS and all(
            each[-1].move >= move for each in self.adopted.values()
        )

    def took(self, move: int) -> dict[int, int]:
        """Epoch ms at which each partition took the move over."""
        return {p: next(a.at for a in all_ if a.move >= move) for p, all_ in self.adopted.items()}

    def in_force(self, score: Scores, shift: int = 0) -> Adopted:
        """What the partition had adopted last before it scored the transaction."""
        source, offset = score.place
        place = max(0, bisect_left(self.since[score.partition, source], offset - shift) - 1)
        adopted = self.adopted[score.partition]
        while place and offset in adopted[place].ahead.get(str(source), ()):
            place -= 1
        return adopted[place]


def version(model: dict[str, Any]) -> Model:
    return model["name"], model["version"]


def follow(run: Run, metrics: Tail) -> None:
    """Take in the adoptions that have come."""
    for message in metrics.read():
        if message.key() != b"deployment":
            continue
        record = json.loads(message.value())
        partition = record["partition"]
        canary = record["canary"]
        run.adopted[partition].append(
            Adopted(
                record["move"],
                version(record["champion"]),
                version(canary) if canary else None,
                record["percent"],
                [version(each) for each in record["shadows"]],
                record["ahead"],
                record["adopted_at"],
            )
        )
        for source in range(PARTITIONS):
            run.since[partition, source].append(record["applied"].get(str(source), -1))


def signed(topic: str, number: int, model: Model) -> bytes:
    """A promotion by somebody who has the key and docs/records.md."""
    event = {
        "id": number, "kind": "promote", "name": model[0], "version": model[1], "percent": 0.0,
        "who": "swapper", "at": 1_735_689_600_000, "reason": "", "evidence": {}, "signature": "",
    }  # fmt: skip
    content = json.dumps(event, separators=(",", ":")).encode()
    signature = hmac.new(KEY, topic.encode() + b"\0" + content, hashlib.sha256).hexdigest()
    return json.dumps(event | {"signature": signature}).encode()


def swap(run: Run, deployment: Deployment, metrics: Tail, models: list[Model]) -> None:
    """A hundred promotions, each as soon as all partitions use the one before."""
    producer = Producer({"bootstrap.servers": deployment.broker})
    topic, first = deployment.topic("control"), max(made["move"] for made in run.made.values()) + 1
    for number in range(first, first + SWAPS):
        producer.produce(topic, signed(topic, number, models[number % len(models)]), b"swapped")
        assert producer.flush(30) == 0

        def everywhere(number: int = number) -> bool:
            follow(run, metrics)
            return run.reached(number)

        until(everywhere, seconds=30, what=f"move {number} in use on every partition")


def publish_versions(deployment: Deployment, config: Path) -> None:
    """Two versions of each model, as a learn stage would have given them; they differ in what they score."""
    spec = feature_spec(load_settings(config, environ={}))
    producer = Producer({"bootstrap.servers": deployment.broker})
    for seed, (name, number) in enumerate(SWAPPED):
        random, learner = np.random.default_rng(seed), LogisticLearner(spec.names)
        for row in random.random((300, len(spec.names))):
            learner.learn(row, bool(row[0] > 0.9))
        made = make(learner.freeze(), name=name, version=number, spec_digest=spec.digest)
        producer.produce(deployment.topic("models"), encode(made, KEY), f"{name}/{number}".encode())
    assert producer.flush(30) == 0


class Record(msgspec.Struct):
    """What is looked at of a score."""

    transaction_id: str
    card_id: str
    terminal_id: str
    arm: str
    model: dict[str, Any]
    shadows: list[dict[str, Any]]


class Published(msgspec.Struct):
    transaction_id: str


def take_score(run: Run, message: Any) -> None:
    content = xxhash.xxh3_128_digest(SCORED_AT.sub(b"", message.value()))
    record = msgspec.json.decode(message.value(), type=Record)
    known = run.scores.get(record.transaction_id)
    if known is not None:
        known.contents.append(content)
        return
    run.scores[record.transaction_id] = Scores(
        record.card_id,
        (xxhash.xxh3_64_intdigest(record.terminal_id.encode()) >> 32) % PARTITIONS,
        record.arm,
        version(record.model),
        [version(each) for each in record.shadows],
        [content],
    )


@pytest.fixture(scope="module")
def run(broker: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Run]:
    directory = tmp_path_factory.mktemp("load")
    (directory / "key").write_bytes(KEY)
    deployment = Deployment(broker, directory, SETTINGS.replace("KEY", str(directory / "key")))
    run, tails = Run(), []

    def tail(topic: str, partitions: int) -> Tail:
        tails.append(Tail(broker, deployment.topic(topic), partitions))
        return tails[-1]

    metrics, control = tail("metrics", 1), tail("control", 1)
    scores = Follower(tail("scores", PARTITIONS), partial(take_score, run))
    load = Load(
        broker, deployment.topic("transactions"), rate=RATE, ahead=AHEAD,
        scored=lambda: len(run.scores),
    )  # fmt: skip

    def scored(count: int) -> bool:
        scores.check()
        return len(run.scores) >= count

    def move(name: str, *arguments: str) -> None:
        run.began[name], began = time.time_ns() // 1_000_000, time.monotonic()
        done = deployment.command("models", *arguments, "--wait", "60", "--json")
        run.seconds[name] = time.monotonic() - began
        run.made[name] = json.loads(done)

    try:
        for worker in [deployment.start(wait=False) for _ in range(2)]:
            until(partial(getattr, worker, "ready"), seconds=90, what=f"the worker ready:\n{worker.log()}")
        publish_versions(deployment, directory / "settings.toml")
        load.start()
        until(lambda: scored(1), seconds=60, what="a score")
        move("canary 10", "canary", "logistic/2", "--percent", "10", "--force")
        move("canary 25", "canary", "logistic/2", "--percent", "25", "--force")
        move("canary 50", "canary", "logistic/2", "--percent", "50", "--force")
        move("promote", "promote", "logistic/2", "--force")
        move("rollback", "rollback")
        swap(run, deployment, metrics, SWAPPED)
        load.stop()
        run.published = load.published
        until(lambda: scored(run.published), seconds=60, what=f"{run.published} transactions scored")
        run.history = json.loads(deployment.command("models", "history", "--json"))
        follow(run, metrics)
        while len(run.events_at) < len(run.history):
            for message in control.read():
                run.events_at[json.loads(message.value())["id"]] = message.timestamp()[1]
        scores.stop()
        transactions, count = tail("transactions", PARTITIONS), 0
        while count < run.published:
            for message in transactions.read():
                published, count = msgspec.json.decode(message.value(), type=Published), count + 1
                run.scores[published.transaction_id].place = message.partition(), message.offset()
        print(f"\n{load.published} transactions at {load.rate:.0f} a second, of {RATE} asked for")
        yield run
    finally:
        if load.published:
            load.stop()
        scores.stop()
        deployment.close()
        for each in tails:
            each.close()


def test_every_transaction_is_scored_once_in_content(run: Run) -> None:
    """Everything published has a score; repeated records are copies."""
    assert set(run.scores) == {f"tx-{number}" for number in range(run.published)}
    assert [name for name, each in run.scores.items() if len(set(each.contents)) > 1] == []


def test_versions_switch_at_the_recorded_offsets(run: Run) -> None:
    """Model, arm and shadows of each score are those that its partition adopted last before its offset."""
    wrong, used = compared(run)
    assert wrong == []
    # Swaps faster than rows would show nothing, and neither would a comparison that finds nothing.
    assert len(used) > SWAPS * PARTITIONS / 2
    assert set(SWAPPED) <= {each.model for each in run.scores.values()}
    assert compared(run, shift=20)[0]


def compared(run: Run, shift: int = 0) -> tuple[list[str], set[tuple[int, int]]]:
    """Transactions scored by others than the adoptions say, and the adoptions by partition and move that
    scored any; `shift` takes each for so many offsets later than it was."""
    wrong, used = [], set()
    for name, score in run.scores.items():
        adopted = run.in_force(score, shift)
        used.add((score.partition, adopted.move))
        arm = adopted.canary is not None and in_canary(score.card, "logistic/2", adopted.percent)
        expected = ("canary", adopted.canary) if arm else ("champion", adopted.champion)
        if ((score.arm, score.model), score.shadows) != (expected, adopted.shadows):
            wrong.append(name)
    return wrong, used


def test_a_card_never_changes_back_while_the_share_grows(run: Run) -> None:
    """Once the canary has decided for a card, it does so for all that follows in the same score partition; no
    card that it had at one share is the champion's where a higher one is in use."""
    ramp: dict[tuple[str, int, int], list[tuple[int, str]]] = defaultdict(list)
    cards: dict[tuple[str, float], set[str]] = defaultdict(set)
    for score in run.scores.values():
        adopted = run.in_force(score)
        if adopted.canary is not None:
            source, offset = score.place
            ramp[score.card, source, score.partition].append((offset, score.arm))
            cards[score.arm, adopted.percent].add(score.card)
    for each in ramp.values():
        arms = [arm for _, arm in sorted(each)]
        assert arms == sorted(arms, reverse=True), "champion, then canary"
    for low, high in ((10.0, 25.0), (25.0, 50.0)):
        assert len(cards["canary", low]) < len(cards["canary", high])
        assert not cards["canary", low] & cards["champion", high]


def test_each_of_a_hundred_swaps_is_adopted_and_in_the_history(run: Run) -> None:
    """No swap is skipped where each waits for the one before; the history has them all."""
    assert [made["champion"] for made in run.made.values()] == [*["binned"] * 3, "logistic/2", "binned"]
    moves = [*(made["move"] for made in run.made.values())]
    swaps = range(moves[-1] + 1, moves[-1] + 1 + SWAPS)
    for adopted in run.adopted.values():
        assert [each.move for each in adopted if each.move] == [*moves, *swaps]
    assert [each["move"] for each in run.history] == [*moves, *swaps]
    assert not any(each["refused"] for each in run.history)
    assert {each["who"] for each in run.history[-SWAPS:]} == {"swapper"}
    print(f"\nswaps: {summary([took(run, move) for move in swaps])} ms from event to last partition")


def test_a_rollback_is_in_use_within_seconds(run: Run) -> None:
    """From its event to the last partition's switch; how long the command takes is told."""
    move = run.made["rollback"]["move"]
    whole = max(run.took(move).values()) - run.began["rollback"]
    print(
        f"\nrollback: {took(run, move)} ms from event to the last partition's switch, "
        f"{whole} ms from the start of the command's process, which took {run.seconds['rollback']:.1f} s"
    )
    assert took(run, move) < 5000


def took(run: Run, move: int) -> int:
    return max(run.took(move).values()) - run.events_at[move]


def summary(each: list[int]) -> str:
    ordered = sorted(each)
    return f"median {ordered[len(ordered) // 2]}, largest {ordered[-1]}"
