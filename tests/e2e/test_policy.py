"""Alert budget, cooldown and control group, judged by a client that shares no code with the project."""

from __future__ import annotations

import hashlib
import json
from collections import Counter, defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pytest
import xxhash
from confluent_kafka import OFFSET_BEGINNING, Consumer, TopicPartition

from tests.e2e.harness import PARTITIONS, Deployment
from tests.e2e.stream import HOUR, Stream, settings

pytestmark = [pytest.mark.broker, pytest.mark.timeout(300)]

KEY = bytes(range(100, 140))
SHARE = 0.4
BUDGET = 20
COOLDOWN_HOURS = 48
POLICY = f"""[policy]
kind = "budget"
alerts_per_day = {BUDGET}
threshold = 0.2
cooldown = "{COOLDOWN_HOURS}h"
control_share = {SHARE}
"""


@dataclass
class Outcome:
    scores: dict[str, dict[str, Any]]
    alerts: list[dict[str, Any]]
    moves: list[dict[str, Any]]
    contradictions: list[str]
    late: set[str]
    metrics: str


@pytest.fixture(scope="module")
def outcome(broker: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Outcome]:
    """A stream through a worker that dies between the outputs and the state of the score stage, and another
    one.
    """
    directory = tmp_path_factory.mktemp("policy")
    (directory / "key").write_bytes(KEY)
    policy = POLICY + f'control_key_file = "{directory / "key"}"\n'
    stream = Stream(4000, seed=13)
    tables = settings(idle_after="15s").replace("[policy]\nthreshold = 0.2\n", policy)
    deployment = Deployment(broker, directory, tables)
    try:
        deployment.start(failpoint="score:sent:12", wait=False)
        half = len(stream.events) // 2
        for number, (topic, key, value) in enumerate(stream.events):
            deployment.publish(topic, [(key, value)])
            if number < half and number % 50 == 0:
                # Many batches, so that the death comes when thresholds have moved.
                deployment.flush()
                deployment.read(0.1)
            if number == half:
                deployment.flush()
                deployment.read_until(
                    lambda: not deployment.workers[0].alive, seconds=60, what="death at score:sent"
                )
                worker = deployment.start()
        deployment.flush()
        deployment.read_scores(len(stream.good), seconds=120)
        deployment.settle()
        metrics = worker.metrics()
        assert worker.stop() == 0
        seen = deployment.seen
        yield Outcome(
            {transaction: records[0] for transaction, records in seen.scores.items()},
            seen.alerts,
            moves(deployment),
            seen.contradictions(),
            stream.late_ids,
            metrics,
        )
    finally:
        deployment.close()


def moves(deployment: Deployment) -> list[dict[str, Any]]:
    """The moves of the threshold on the metrics topic, repeated ones once."""
    reader = Consumer({"bootstrap.servers": deployment.broker, "group.id": "moves"})
    topic = deployment.topic("metrics")
    reader.assign([TopicPartition(topic, 0, OFFSET_BEGINNING)])
    found: list[dict[str, Any]] = []
    while messages := reader.consume(1000, 2.0):
        for message in messages:
            if message.key() == b"threshold":
                record = json.loads(message.value() or b"")
                if record not in found:
                    found.append(record)
    reader.close()
    return found


def hop(terminal: str) -> int:
    return (xxhash.xxh3_64_intdigest(terminal.encode()) >> 32) % PARTITIONS


def test_records_repeated_by_the_crash_say_the_same(outcome: Outcome) -> None:
    """Thresholds, alerts and marks of the control group; an alert has one id, whenever it was sent."""
    assert len(outcome.scores) == 4000
    assert outcome.contradictions == []
    ids = defaultdict(set)
    for alert in outcome.alerts:
        ids[alert["transaction_id"]].add(alert["alert_id"])
    assert all(len(each) == 1 for each in ids.values())
    assert set(ids) == {tx for tx, score in outcome.scores.items() if score["alert"]}


def test_every_threshold_is_published(outcome: Outcome) -> None:
    """A score has the threshold of the settings, or one that a move of its partition has told; versions
    count.
    """
    by_partition: dict[int, list[dict[str, Any]]] = defaultdict(list)
    for move in outcome.moves:
        assert move["policy"] == f"budget-{BUDGET}"
        by_partition[move["partition"]].append(move)
    for told in by_partition.values():
        assert [move["version"] for move in told] == list(range(1, len(told) + 1))
        assert [move["former"] for move in told[1:]] == [move["threshold"] for move in told[:-1]]
        assert all(move["event_time"] % HOUR == 0 for move in told if move["expected"] is not None)
    known = {
        partition: {0.2, *(move["threshold"] for move in told)} for partition, told in by_partition.items()
    }
    used = Counter(score["threshold"] for score in outcome.scores.values())
    assert len(used) > 4
    for score in outcome.scores.values():
        assert score["threshold"] in known.get(hop(score["terminal_id"]), {0.2})


def test_alerts_keep_to_threshold_cooldown_and_budget(outcome: Outcome) -> None:
    """No alert below its threshold, none within the cooldown of its card in its partition, no more than the
    budget of the days and one day on top.
    """
    alerts = [score for score in outcome.scores.values() if score["alert"]]
    assert all(score["score"] >= score["threshold"] for score in alerts)
    held_back = [
        score
        for score in outcome.scores.values()
        if score["score"] >= score["threshold"] and not score["alert"]
    ]
    assert held_back
    times = defaultdict(list)
    for score in alerts:
        if score["transaction_id"] not in outcome.late:
            times[score["card_id"], hop(score["terminal_id"])].append(score["event_time"])
    # Its time is the watermark, at most the allowed lateness ahead of its event time.
    gaps = [b - a for each in times.values() for a, b in zip(sorted(each), sorted(each)[1:], strict=False)]
    assert gaps
    assert min(gaps) >= (COOLDOWN_HOURS - 1) * HOUR
    span = [score["event_time"] for score in outcome.scores.values()]
    days = (max(span) - min(span)) / (24 * HOUR)
    assert BUDGET * days / 3 < len(alerts) <= BUDGET * (days + 1)


def test_the_control_group_is_drawn_by_the_key(outcome: Outcome) -> None:
    """Anybody with the key can tell which cards' alerts are left alone; score and alert carry mark and
    chance.
    """

    def drawn(card: str) -> bool:
        digest = hashlib.blake2b(card.encode(), digest_size=8, key=KEY).digest()
        return int.from_bytes(digest, "big") < SHARE * 2**64

    for alert in outcome.alerts:
        assert alert["control_group"] == drawn(alert["card_id"])
        assert alert["propensity"] == (SHARE if alert["control_group"] else 1 - SHARE)
        score = outcome.scores[alert["transaction_id"]]
        assert (score["control_group"], score["propensity"]) == (alert["control_group"], alert["propensity"])
    for score in outcome.scores.values():
        assert score["alert"] or (score["control_group"], score["propensity"]) == (False, 1.0)
    assert {alert["control_group"] for alert in outcome.alerts} == {True, False}


def test_the_rules_are_named_until_something_is_learned(outcome: Outcome) -> None:
    """The first scores are theirs, the last ones those of the champion."""
    in_time = sorted(outcome.scores.values(), key=lambda score: int(score["event_time"]))
    assert in_time[0]["model"] == {"name": "rules", "version": 0}
    assert in_time[-1]["model"]["name"] == "binned"
    assert all((s["model"]["name"] == "rules") == (s["model"]["version"] == 0) for s in in_time)


def test_decisions_are_counted(outcome: Outcome) -> None:
    """Budget, suppressed alerts and control group are on the metrics endpoint."""
    values = {
        line.rsplit(" ", 1)[0]: float(line.rsplit(" ", 1)[1])
        for line in outcome.metrics.splitlines()
        if not line.startswith("#")
    }
    assert values["fraud_alert_budget"] == BUDGET
    assert values['fraud_alerts_suppressed_total{reason="cooldown"}'] > 0
    assert 0 < values["fraud_control_group_total"] < values["fraud_alerts_total"]
    assert values["fraud_threshold_changes_total"] > 0
    assert values["fraud_threshold"] in {score["threshold"] for score in outcome.scores.values()}
    assert values["fraud_alert_rate"] > 0
    assert values['fraud_rules_scored_total{reason="failed"}'] == 0
