"""One small stream through a worker, judged by clients that share no code with the project."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.e2e.harness import Deployment, json_bytes, until
from tests.e2e.malformed import BAD
from tests.e2e.stream import COLUMNS, Stream, settings

pytestmark = pytest.mark.broker


@dataclass
class Outcome:
    stream: Stream
    deployment: Deployment
    metrics: str
    seconds: float


@pytest.fixture(scope="module")
def outcome(broker: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Outcome]:
    stream = Stream(3000)
    deployment = Deployment(broker, tmp_path_factory.mktemp("flow"), settings())
    try:
        worker = deployment.start()
        began = time.monotonic()
        events = stream.events
        for number, (topic, key, value) in enumerate(events):
            deployment.publish(topic, [(key, value)])
            if number % 300 == 7:
                deployment.publish(
                    "transactions", [(key, bad) for bad in BAD], [("trace", b"\xff\x00"), ("größe", b"1")]
                )
        deployment.publish("labels", [("c", b"{")])
        deployment.flush()
        deployment.read_until(
            lambda: (
                len(deployment.seen.scores) >= len(stream.good)
                and all(max(each) >= 2 for each in deployment.seen.versions.values())
                and len(deployment.seen.versions) == 3
            ),
            seconds=60,
            what="all scored, two versions of every model",
        )
        seconds = time.monotonic() - began
        deployment.settle()
        # Rows count once they are durable, which is after their scores can be read.
        scored = 'fraud_transactions_total{outcome="scored"}'
        until(lambda: _metric(worker.metrics(), scored) >= len(stream.good), seconds=30, what="all counted")
        metrics = worker.metrics()
        assert worker.stop() == 0
        yield Outcome(stream, deployment, metrics, seconds)
    finally:
        deployment.close()


def test_every_good_transaction_has_exactly_one_score(outcome: Outcome) -> None:
    """Duplicates none, malformed none, late ones one like all others."""
    seen = outcome.deployment.seen
    assert set(seen.scores) == {each["transaction_id"] for each in outcome.stream.good}
    assert seen.published == len(outcome.stream.good)
    by_id = {each["transaction_id"]: each for each in outcome.stream.good}
    for transaction, (score,) in seen.scores.items():
        sent = by_id[transaction]
        for name in ("card_id", "terminal_id", "event_time", "amount_minor", "currency"):
            assert score[name] == sent[name]
        assert 0 <= score["score"] <= 1
        assert score["alert"] == (score["score"] >= score["threshold"])


def test_every_bad_record_has_exactly_one_dead_letter(outcome: Outcome) -> None:
    """With the reason, and the bytes as they came unless they hold a card number."""
    rounds = len(range(7, len(outcome.stream.events), 300))
    dead = outcome.deployment.seen.dead
    codes = outcome.deployment.codes()
    codes["bad_json"] -= 1  # the label
    assert codes == dict.fromkeys(BAD.values(), rounds)
    values = [value for value, headers in dead if headers["fraud-error-code"] != b"card_number"]
    assert set(values) == {value for value, code in BAD.items() if code != "card_number"} | {b"{"}
    assert not any(b"4111111111111111" in (value or b"") for value, _ in dead)


def test_features_are_those_of_the_oracle(outcome: Outcome) -> None:
    """Card and terminal windows and the risk from labels, by brute force over the raw history."""
    seen = outcome.deployment.seen
    partitions = {
        score["card_id"]: outcome.deployment.partition_of[score["card_id"]]
        for (score,) in seen.scores.values()
    }
    wrong = []
    risky = 0
    for transaction, expected in outcome.stream.expected(partitions):
        found = dict(zip(COLUMNS, seen.scores[transaction][0]["features"], strict=True))
        assert found.keys() == expected.keys()
        risky += found["terminal_risk_7d"] > 0 and found["terminal_known_frauds_24h"] > 0
        wrong += [
            (transaction, name, found[name], value)
            for name, value in expected.items()
            if found[name] != pytest.approx(value, rel=1e-9, abs=1e-6)
        ]
    assert not wrong[:5]
    assert risky > 100


def test_late_transactions_do_not_move_windows(outcome: Outcome) -> None:
    """They are counted, and are not among the earlier events of any other row."""
    assert len(outcome.stream.late_ids) == 20
    assert _metric(outcome.metrics, 'fraud_transactions_total{outcome="late"}') >= 15


def test_what_went_in_is_accounted_for(outcome: Outcome) -> None:
    """By the worker's own counters: scored, dead-lettered, duplicates; nothing unaccounted."""
    count = {
        name: _metric(outcome.metrics, f'fraud_transactions_total{{outcome="{name}"}}')
        for name in ("scored", "dead_lettered", "duplicate")
    }
    assert count == {
        "scored": len(outcome.stream.good),
        "dead_lettered": len(outcome.deployment.seen.dead) - 1,
        "duplicate": outcome.stream.duplicates,
    }
    assert _metric(outcome.metrics, "fraud_unaccounted_transactions") == 0


def test_alerts_are_the_suspicious_scores(outcome: Outcome) -> None:
    """One alert for every score with `alert`, with the same fields, its reasons and an id of its own."""
    seen = outcome.deployment.seen
    suspicious = {tx: score for tx, (score,) in seen.scores.items() if score["alert"]}
    assert {alert["transaction_id"] for alert in seen.alerts} == set(suspicious)
    assert len({alert["alert_id"] for alert in seen.alerts}) == len(seen.alerts) > 10
    for alert in seen.alerts:
        score = suspicious[alert["transaction_id"]]
        assert {name: alert[name] for name in score if name != "features"} == {
            name: value for name, value in score.items() if name != "features"
        }
        values = dict(zip(COLUMNS, score["features"], strict=True))
        assert alert["reasons"]
        assert all(values[reason["feature"]] == reason["value"] for reason in alert["reasons"])


def test_shadows_score_beside_the_champion(outcome: Outcome) -> None:
    """Two shadows in every record, with versions of their own."""
    for (score,) in outcome.deployment.seen.scores.values():
        assert [shadow["name"] for shadow in score["shadows"]] == ["forest", "logistic"]
        assert all(0 <= shadow["score"] <= 1 for shadow in score["shadows"])


def test_versions_rise_as_labels_arrive(outcome: Outcome) -> None:
    """Rules stand in as version 0; learned versions follow without a gap, and none goes back."""
    assert all(
        found == set(range(min(found), max(found) + 1)) for found in outcome.deployment.seen.versions.values()
    )
    assert set(outcome.deployment.seen.versions) == {"binned", "forest", "logistic"}


def test_live_transactions_do_not_wait(broker: str, outcome: Outcome, tmp_path: Path) -> None:
    """Stamped now, compressed in any way: scored within seconds though no labels and no other cards come."""
    deployment = Deployment(broker, tmp_path, settings(idle_after="60s"))
    try:
        deployment.start()
        for codec in ("none", "gzip", "snappy", "lz4", "zstd"):
            now = int(time.time() * 1000)
            record = {**outcome.stream.good[0], "transaction_id": codec, "event_time": now}
            deployment.publish_compressed(codec, [(record["card_id"], json_bytes(record))])
            deployment.read_until(lambda codec=codec: codec in deployment.seen.scores, seconds=10, what=codec)  # type: ignore[misc]
    finally:
        deployment.close()


def test_header_names_of_any_bytes_stop_nothing(broker: str, outcome: Outcome, tmp_path: Path) -> None:
    """A name that is no UTF-8, which a broker takes: that record and those around it are scored."""
    deployment = Deployment(broker, tmp_path, settings())
    try:
        deployment.start()
        for name in ("before", "odd", "after"):
            record = {**outcome.stream.good[0], "transaction_id": name, "event_time": int(time.time() * 1000)}
            if name == "odd":
                asyncio.run(deployment.publish_odd_header(record["card_id"], json_bytes(record)))
            else:
                deployment.publish("transactions", [(record["card_id"], json_bytes(record))])
                deployment.flush()
        deployment.read_until(lambda: len(deployment.seen.scores) == 3, seconds=20, what="all three scored")
        assert not deployment.seen.dead
    finally:
        deployment.close()


def _metric(exposition: str, name: str) -> float:
    (line,) = (line for line in exposition.splitlines() if line.startswith(name + " "))
    return float(line.rsplit(" ", 1)[1])
