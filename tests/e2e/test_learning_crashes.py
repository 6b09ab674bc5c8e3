"""A champion that learns verdicts and delayed labels apart, while the worker that learns and joins is killed.

Every transaction raises an alert, so that what analysts say of it is a verdict whichever version scored it;
the chargeback a day later contradicts every fifth one.
"""

from __future__ import annotations

import heapq
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.harness import Deployment, json_bytes, until
from tests.e2e.stream import DAY, Stream, settings

pytestmark = [pytest.mark.broker, pytest.mark.chaos, pytest.mark.timeout(180)]

CHAMPION = """
[models.champion]
name = "both"
kind = "feedback_and_delayed"
[models.champion.options]
min_feedback = 20
feedback = { kind = "logistic" }
delayed = { kind = "logistic" }
"""
#: Two a day, from the first verdicts that have taken effect on.
VERSIONS = 17


def events(stream: Stream) -> Iterator[tuple[str, str, bytes]]:
    """The stream with a verdict on each transaction, a day later; one in five is an error."""
    due: list[tuple[int, str, str]] = []

    def verdicts(until: float) -> Iterator[tuple[str, str, bytes]]:
        while due and due[0][0] <= until:
            time, transaction, card = heapq.heappop(due)
            fraud = (transaction in stream.frauds) ^ (int(transaction.removeprefix("tx-")) % 5 == 0)
            given = {"fraud": fraud, "source": "analyst", "labelled_at": time}
            yield "labels", card, json_bytes({"transaction_id": transaction, "card_id": card, **given})

    for topic, key, value in stream.events:
        record = json.loads(value)
        yield from verdicts(record.get("event_time", record.get("labelled_at")))
        yield topic, key, value
        if topic == "transactions":
            due_at = record["event_time"] + DAY, record["transaction_id"], record["card_id"]
            heapq.heappush(due, due_at)
    yield from verdicts(float("inf"))


class Run:
    """One deployment that is given the whole stream."""

    def __init__(self, broker: str, directory: Path, stream: Stream) -> None:
        directory.mkdir()
        document = settings(idle_after="20s", publish_every="12h").replace(
            "threshold = 0.2", "threshold = 0.0"
        )
        document = document.replace("min_frauds = 0", "min_frauds = 0\nshadows = []")
        self.deployment = Deployment(broker, directory, document + CHAMPION, partitions=2)
        self._stream, self._events = stream, list(events(stream))

    def publish(self, start: float, stop: float) -> None:
        """A part of the stream."""
        total = len(self._events)
        for topic, key, value in self._events[round(start * total) : round(stop * total)]:
            self.deployment.publish(topic, [(key, value)])
        self.deployment.flush()

    def publish_beside(self, name: str, seconds: int) -> list[str]:
        """A transaction of every card so many seconds after the last one of the stream; what came before them
        no longer waits for the other partition. A day ends, and gives a version, 23 seconds after it.
        """
        last = self._stream.good[-1]
        cards = sorted({each["card_id"] for each in self._stream.good})
        beside = [
            {
                **last,
                "transaction_id": f"{name}-{card}",
                "card_id": card,
                "event_time": last["event_time"] + seconds * 1000,
                "amount_minor": 100 + 1973 * number,
            }
            for number, card in enumerate(cards)
        ]
        self.deployment.publish("transactions", [(each["card_id"], json_bytes(each)) for each in beside])
        self.deployment.flush()
        return [each["transaction_id"] for each in beside]

    def killed_at(self, failpoint: str) -> None:
        """A worker that kills itself there."""
        doomed = self.deployment.start(failpoint=failpoint, wait=False)
        self.deployment.read_until(lambda: not doomed.alive, seconds=60, what=f"death at {failpoint}")
        assert doomed.process.returncode == -9, doomed.log()

    def finish(self) -> dict[str, tuple[str, int, float]]:
        """Until the last version scores: model, version and score of what comes then."""
        deployment = self.deployment
        self.publish_beside("end", 1)
        deployment.start()
        deployment.read_scores(len(self._stream.good), seconds=60)
        deployment.read_until(
            lambda: VERSIONS in deployment.seen.versions.get("both", ()), seconds=60, what="the last version"
        )
        in_use = f'fraud_model_info{{name="both",role="champion",version="{VERSIONS}"}} 1'
        until(lambda: in_use in deployment.workers[-1].metrics(), seconds=10, what="the last version in use")
        probes = self.publish_beside("probe", 2)
        self.publish_beside("behind", 3)
        deployment.read_until(lambda: deployment.seen.scores.keys() >= set(probes), seconds=30, what="probes")
        records = {name: deployment.seen.scores[name][0] for name in probes}
        return {
            name: (each["model"]["name"], each["model"]["version"], each["score"])
            for name, each in records.items()
        }

    def versions(self) -> dict[tuple[str, int], dict[str, Any]]:
        """What each version is, but for the offsets that it was learned from, which tell of batches."""
        found = {}
        for key, documents in self.deployment.seen.documents.items():
            plain = [json.loads(each) for each in documents]
            for each in plain:
                del each["offsets"], each["sha256"]
            assert all(each == plain[0] for each in plain), f"{key} was published with two contents"
            found[key] = plain[0]
        return found


def test_killed_while_it_learns_and_joins_labels(broker: str, tmp_path: Path) -> None:
    """Between a version and the checkpoint, and between outcomes and the state of the labels: the versions
    are those of an undisturbed run, and so are the scores of each.
    """
    stream = Stream(700, seed=5, late=0, duplicates=0)
    calm, killed = (Run(broker, tmp_path / name, stream) for name in ("calm", "killed"))
    try:
        calm.publish(0.0, 1.0)
        expected = calm.finish()
        killed.publish(0.0, 0.5)
        killed.killed_at("learn:published:3")
        killed.publish(0.5, 0.8)
        killed.killed_at("label:sent:3")
        killed.publish(0.8, 1.0)
        found = killed.finish()
    finally:
        calm.deployment.close()
        killed.deployment.close()
    versions = calm.versions()
    assert killed.versions() == versions
    assert found == expected
    assert {(name, version) for name, version, _ in expected.values()} == {("both", VERSIONS)}
    assert len({score for *_, score in expected.values()}) > len(expected) // 2
    assert versions["both", VERSIONS]["metrics"]["feedback_learned"] > 500
    scored = calm.deployment.seen.scores
    for transaction, records in killed.deployment.seen.scores.items():
        (reference, *_) = scored[transaction]
        for record in records:
            assert record["features"] == reference["features"]
            assert record["model"] != reference["model"] or record["score"] == reference["score"]
