"""Models moved by commands while a pair of workers scores, one of them killed: judged from outside.

Clients share no code with the project: which model must have scored what is worked out from the records on
the topics and the description in docs/records.md.
"""

from __future__ import annotations

import hashlib
import hmac
import json
import threading
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import xxhash
from confluent_kafka import OFFSET_BEGINNING, Consumer, Producer, TopicPartition

from tests.e2e.harness import PARTITIONS, Deployment
from tests.e2e.stream import Stream, settings

pytestmark = [pytest.mark.broker, pytest.mark.chaos, pytest.mark.timeout(400)]

WORD = 2**64 - 1
#: Of the stream, published before the first move: enough for versions of every model.
BEFORE = 0.35
SWAPS = 100


def in_canary(card: str, canary: str, percent: float) -> bool:
    """Whether the canary decides for the card, as docs/records.md has it."""
    salt = int.from_bytes(hashlib.blake2b(canary.encode(), digest_size=8, person=b"canary").digest(), "big")
    word = xxhash.xxh3_64_intdigest(card.encode()) ^ salt
    word = (word ^ word >> 30) * 0xBF58476D1CE4E5B9 & WORD
    word = (word ^ word >> 27) * 0x94D049BB133111EB & WORD
    return (word ^ word >> 31) < percent / 100 * 2**64


@dataclass
class Run:
    stream: Stream
    deployment: Deployment
    made: dict[str, dict[str, Any]] = field(default_factory=dict)
    control: list[dict[str, Any]] = field(default_factory=list)
    adoptions: list[dict[str, Any]] = field(default_factory=list)
    history: list[dict[str, Any]] = field(default_factory=list)
    #: partition and offset of every transaction
    places: dict[str, tuple[int, int]] = field(default_factory=dict)
    events_at: dict[int, int] = field(default_factory=dict)

    def move(self, name: str, *arguments: str) -> None:
        # After a restart a partition moves on once it has scored what it may have scored before.
        done = self.deployment.command("models", *arguments, "--wait", "90", "--json")
        self.made[name] = json.loads(done)


def consume(run: Run, topic: str, partitions: int) -> Iterator[Any]:
    """Everything on the topic."""
    reader = Consumer({"bootstrap.servers": run.deployment.broker, "group.id": "outside"})
    name = run.deployment.topic(topic)
    try:
        reader.assign([TopicPartition(name, number, OFFSET_BEGINNING) for number in range(partitions)])
        quiet = 0
        while quiet < 10:
            messages = reader.consume(1000, 0.2)
            quiet = 0 if messages else quiet + 1
            yield from messages
    finally:
        reader.close()


def decided(run: Run, arm: str) -> int:
    """How many records of that arm have been seen."""
    return sum(records[0]["arm"] == arm for records in run.deployment.seen.scores.values())


def forge(run: Run) -> None:
    """Somebody without the key, and somebody who repeats what he has seen."""
    signed = [message.value() for message in consume(run, "control", 1)]
    forged = json.loads(signed[-1]) | {"id": len(signed) + 1, "kind": "promote", "name": "forest"}
    producer = Producer({"bootstrap.servers": run.deployment.broker})
    for value in (json.dumps(forged | {"signature": ""}), json.dumps(forged), signed[0], b"{}", None):
        producer.produce(run.deployment.topic("control"), value, b"forest")
    assert producer.flush(30) == 0


def swap(run: Run, key: Path) -> None:
    """A hundred promotions in a row, signed by somebody who has the key and docs/records.md."""
    producer = Producer({"bootstrap.servers": run.deployment.broker})
    topic, first = run.deployment.topic("control"), len(run.history) + 1
    for number in range(first, first + SWAPS):
        event = {
            "id": number, "kind": "promote", "name": "logistic" if number % 2 == first % 2 else "binned",
            "version": None, "percent": 0.0, "who": "swapper", "at": 1_735_689_600_000, "reason": "größer",
            "evidence": {}, "signature": "",
        }  # fmt: skip
        signed = json.dumps(event, separators=(",", ":"), ensure_ascii=False).encode()
        signature = hmac.new(key.read_bytes(), topic.encode() + b"\0" + signed, hashlib.sha256).hexdigest()
        producer.produce(topic, json.dumps(event | {"signature": signature}), b"logistic")
        producer.flush(30)


@pytest.fixture(scope="module")
def run(broker: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Run]:
    directory = tmp_path_factory.mktemp("moves")
    (directory / "key").write_bytes(b"0123456789abcdef0123456789abcdef")
    text = settings(idle_after="15s", publish_every="12h")
    # The early models differ a lot: it is people who move them here.
    text = text.replace("[models]\n", f'[models]\nsigning_key_file = "{directory / "key"}"\n')
    text += "[gates]\nabort = false\nrollback = false\n"
    run = Run(Stream(5000, seed=5), Deployment(broker, directory, text))
    deployment, events = run.deployment, run.stream.events
    ended = threading.Event()
    limit = len(events) // 2

    def feed() -> None:
        done = round(BEFORE * len(events))
        while done < len(events) and not ended.wait(0.03):
            for topic, key, value in events[done : min(done + 5, limit)]:
                deployment.publish(topic, [(key, value)])
                done += 1

    try:
        deployment.start()
        second = deployment.start()
        for topic, key, value in events[: round(BEFORE * len(events))]:
            deployment.publish(topic, [(key, value)])
        deployment.read_until(
            lambda: len(deployment.seen.versions) == 3, seconds=90, what="versions of every model"
        )
        feeder = threading.Thread(target=feed)
        feeder.start()
        run.move("canary 10", "canary", "logistic", "--percent", "10", "--force")
        deployment.read_until(lambda: decided(run, "canary"), seconds=90, what="a decision of the canary")
        run.move(
            "canary 50", "canary", "logistic", "--percent", "50", "--reason", "no errors", "--who", "ada"
        )
        limit = 3 * len(events) // 5
        before = decided(run, "canary")
        deployment.read_until(lambda: decided(run, "canary") > before, seconds=90, what="more of them")
        second.kill()
        doomed = deployment.start(failpoint="score:sent:6", wait=False)
        deployment.read_until(lambda: not doomed.alive or doomed.ready, seconds=60, what="the third ready")
        limit = 4 * len(events) // 5
        deployment.read_until(lambda: not doomed.alive, seconds=60, what="death with a batch sent")
        limit = len(events)
        deployment.start()
        forge(run)
        run.move("promote", "promote", "logistic", "--force")
        run.move("rollback", "rollback")
        run.history = json.loads(deployment.command("models", "history", "--json"))
        swap(run, directory / "key")
        run.move("pin", "shadow", "add", f"forest/{max(deployment.seen.versions['forest'])}", "--force")
        feeder.join()
        deployment.flush()
        deployment.read_scores(len(run.stream.good), seconds=120)
        deployment.settle()
        for message in consume(run, "transactions", PARTITIONS):
            place = (message.partition(), message.offset())
            run.places.setdefault(json.loads(message.value())["transaction_id"], place)
        for message in consume(run, "metrics", 1):
            if message.key() == b"deployment":
                run.adoptions.append(json.loads(message.value()))
        for message in consume(run, "control", 1):
            try:
                number = json.loads(message.value() or b"{}").get("id", 0)
            except ValueError:
                continue
            run.events_at.setdefault(number, message.timestamp()[1])
        yield run
    finally:
        ended.set()
        deployment.close()


def test_nothing_is_unscored_and_repeated_records_agree(run: Run) -> None:
    """Every good transaction has a score; what killed workers had sent came again, with the same content."""
    seen = run.deployment.seen
    assert set(seen.scores) == {each["transaction_id"] for each in run.stream.good}
    assert seen.contradictions() == []
    assert seen.published > len(seen.scores), "no record was repeated: nobody died over a sent batch"


def test_every_record_is_by_the_model_that_the_adoptions_say(run: Run) -> None:
    """Model, arm and shadows of each score are those that its partition adopted last before its offset."""
    arms: Counter[tuple[str, float]] = Counter()
    for transaction, records in run.deployment.seen.scores.items():
        record = records[0]
        partition = (xxhash.xxh3_64_intdigest(record["terminal_id"].encode()) >> 32) % PARTITIONS
        source, offset = run.places[transaction]
        in_force = [
            each
            for each in run.adoptions
            if each["partition"] == partition
            and each["applied"].get(str(source), -1) < offset
            and offset not in each["ahead"].get(str(source), ())
        ][-1]
        canary = in_force["canary"]
        arm = bool(canary) and in_canary(record["card_id"], "logistic", in_force["percent"])
        assert record["arm"] == ("canary" if arm else "champion")
        assert record["model"] == (canary if arm else in_force["champion"])
        beside = [{"name": each["name"], "version": each["version"]} for each in record["shadows"]]
        assert beside == in_force["shadows"]
        arms[record["arm"], in_force["percent"]] += 1
    assert arms["canary", 10.0]
    assert arms["canary", 50.0]
    assert arms["champion", 0.0]


def test_alerts_bear_the_arm_of_their_score(run: Run) -> None:
    """An alert is everything of its score."""
    seen = run.deployment.seen
    assert seen.alerts
    for alert in seen.alerts:
        score = seen.scores[alert["transaction_id"]][0]
        assert [alert[name] for name in ("arm", "model", "score")] == [
            score[name] for name in ("arm", "model", "score")
        ]


def test_a_card_of_the_canary_stays_there_while_the_share_grows(run: Run) -> None:
    """The cards at 10 percent are among those at 50."""
    cards: dict[float, dict[str, set[str]]] = {10.0: {}, 50.0: {}}
    for number in (10.0, 50.0):
        cards[number] = {arm: set() for arm in ("champion", "canary")}
    for records in run.deployment.seen.scores.values():
        card = records[0]["card_id"]
        for percent in (10.0, 50.0):
            cards[percent]["canary" if in_canary(card, "logistic", percent) else "champion"].add(card)
    assert cards[10.0]["canary"] < cards[50.0]["canary"]


def test_commands_say_what_came_of_them(run: Run) -> None:
    """Each is in use on every partition when it returns; the champion of a rollback is that before."""
    assert [made["move"] for made in run.made.values()] == [1, 2, 3, 4, 5 + SWAPS]
    assert all(sorted(made["in_use"]) == [str(p) for p in range(PARTITIONS)] for made in run.made.values())
    assert run.made["promote"]["champion"] == "logistic"
    assert sorted(run.made["promote"]["shadows"]) == ["binned", "forest"]
    assert run.made["rollback"]["champion"] == "binned"
    assert run.made["pin"]["shadows"][-1].startswith("forest/")


def test_forged_and_repeated_events_count_for_nothing(run: Run) -> None:
    """The history is that of the commands: who, why, and on what evidence."""
    kinds = ["canary", "canary", "promote", "rollback"]
    assert [each["kind"] for each in run.history] == kinds
    assert [each["champion"] for each in run.history] == ["binned", "binned", "logistic", "binned"]
    second = run.history[1]
    assert (second["who"], second["reason"], second["canary_percent"]) == ("ada", "no errors", 50.0)
    assert second["evidence"]["version"] >= 1
    assert len(second["evidence"]["sha256"]) == 64
    assert not any(each["refused"] for each in run.history)


def test_a_hundred_swaps_in_a_row_are_swaps(run: Run) -> None:
    """Signed by a foreign program; each partition comes to the last of them, by adoptions of its own."""
    moves = {each["move"] for each in run.adoptions if each["move"] > 4}
    # Moves that come faster than rows are adopted together.
    assert len(moves) > 2
    for partition in range(PARTITIONS):
        last = [each for each in run.adoptions if each["partition"] == partition][-1]
        assert (last["move"], last["champion"]["name"]) == (5 + SWAPS, "binned")
    every = [record for records in run.deployment.seen.scores.values() for record in records]
    assert (
        {"binned", "logistic"} <= {each["model"]["name"] for each in every} <= {"rules", "binned", "logistic"}
    )


def test_a_rollback_reaches_every_partition_within_a_second(run: Run) -> None:
    """From the event on the topic to its adoption, after which nothing is scored by the models before."""
    rollback = run.made["rollback"]["move"]
    first: dict[int, int] = {}
    for each in run.adoptions:
        if each["move"] >= rollback:
            first.setdefault(each["partition"], each["adopted_at"])
    delays = [at - run.events_at[rollback] for at in first.values()]
    assert len(delays) == PARTITIONS
    assert max(delays) < 1000, delays
