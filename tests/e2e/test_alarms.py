"""Dashboards and alarms on a running system: every query has an answer, and a fault rings at the webhook.

Two deployments on one broker: one scores simulated traffic until its worker is killed; in the other a
partition is made to stand still, by rows of the past that wait for partitions without any.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
import yaml

from monitoring.dashboards.builders import MARKS
from monitoring.dashboards.catalogue import DASHBOARDS
from tests.e2e.harness import ROOT, Deployment, Worker, json_bytes, until
from tests.e2e.monitors import SLOW, Monitors, monitors, needs_monitors

pytestmark = [
    pytest.mark.broker,
    pytest.mark.chaos,
    pytest.mark.timeout(600),
    needs_monitors,
]

RULES = ROOT / "monitoring" / "prometheus" / "rules"
MOST_SERIES = 2_000
#: A stream of 30 days fills windows of 30 days, so their features do move away from those of its first week.
COLD = {"FraudUnitChange", "FraudValuesMissing", "FraudFeatureDrift", "FraudScoreDrift"}
#: Parts of alert rules that may find nothing, and why.
MAY_BE_EMPTY: dict[str, str] = dict.fromkeys(
    (
        'fraud_drift_raised{kind="unit_change"}',
        'fraud_drift_raised{kind="missing"}',
        'fraud_drift_raised{kind=~"data|out_of_range|unseen"}',
        'fraud_drift_raised{kind="score"}',
        'fraud_concept_raised{kind="concept"}',
        'fraud_concept_raised{kind="label",name!~"delay:.*|coverage:analyst"}',
        'fraud_concept_raised{kind="label",name=~"delay:.*"}',
    ),
    "there while something is beyond its limit",
)


@dataclass
class Running:
    monitors: Monitors
    busy: Worker
    stuck: Worker
    stuck_topic: str
    traffic: subprocess.Popen[bytes]


@pytest.fixture(scope="module")
def running(broker: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    folders = {name: tmp_path_factory.mktemp(name) for name in ("busy", "stuck", "monitors")}
    # As in the demo: the stream runs as if it were live.
    busy = Deployment(broker, folders["busy"], '[alignment]\nidle_after = "0s"\n')
    stuck = Deployment(broker, folders["stuck"], '[alignment]\nidle_after = "1h"\n')
    traffic: subprocess.Popen[bytes] | None = None
    try:
        working, waiting = busy.start(), stuck.start(stages="card,score")
        addresses = [f"127.0.0.1:{worker.port}" for worker in (working, waiting)]
        with monitors(folders["monitors"], addresses) as watching:
            traffic = _traffic(folders["busy"] / "settings.toml")
            _publish_the_past(stuck)
            yield Running(watching, working, waiting, f"{stuck._prefix}.internal.by-terminal.v1", traffic)
    finally:
        if traffic is not None:
            traffic.kill()
            traffic.wait()
        for deployment in (busy, stuck):
            deployment.close()


def _traffic(config: Path) -> subprocess.Popen[bytes]:
    """30 days in 4 minutes: labels mature and the reference of the drift is complete after one of them."""
    command = [sys.executable, "-m", "streams.cli", "traffic", "--config", str(config)]
    command += ["--transactions", "12000", "--rate", "50"]
    environment = {name: value for name, value in os.environ.items() if not name.startswith("FRAUD")}
    log = (config.parent / "traffic.log").open("wb")
    with log:
        return subprocess.Popen(command, cwd=ROOT, env=environment, stdout=log, stderr=log)


def _publish_the_past(deployment: Deployment) -> None:
    """Transactions of yesterday on one card: they wait for what the other partitions have of yesterday."""
    yesterday = int(time.time() * 1000) - 86_400_000
    records = [
        (
            "card_1",
            json_bytes(
                {
                    "transaction_id": f"old-{number}",
                    "card_id": "card_1",
                    "terminal_id": "term_1",
                    "event_time": yesterday + number * 1000,
                    "amount_minor": 1999,
                    "currency": "EUR",
                }
            ),
        )
        for number in range(20)
    ]
    deployment.publish("transactions", records)
    deployment.flush()


def concrete(expression: str) -> str:
    """A dashboard's expression with everything chosen; a rate interval of scrapes a second apart."""
    intervals = {"$__rate_interval": "1m", "$__range": "10m"}
    for name, value in intervals.items():
        expression = expression.replace(name, value)
    return re.sub(r"\$\w+", ".+", expression)


def unanswered(watching: Monitors) -> list[str]:
    """Expressions of dashboards and recording rules without an answer, and without an excuse."""
    asked = [
        (f"{dashboard.uid}, {panel.title}", query.expression, query.may_be_empty)
        for dashboard in DASHBOARDS
        for panel in dashboard.panels
        for query in panel.queries
    ]
    asked += [(mark.name, mark.expression, mark.may_be_empty) for mark in MARKS]
    recording = yaml.safe_load((RULES / "recording.yml").read_text())["groups"]
    asked += [(rule["record"], rule["record"], "") for group in recording for rule in group["rules"]]
    missing = []
    for where, expression, excuse in asked:
        found = watching.query(concrete(expression))
        if not found and not excuse:
            missing.append(f"{where}: {expression}")
    return missing


def missing_from_alerts(watching: Monitors) -> list[str]:
    """Series that an alert asks for and that are not there: such a rule could never fire."""
    groups = yaml.safe_load((RULES / "alerts.yml").read_text())["groups"]
    missing = []
    for group in groups:
        for rule in group["rules"]:
            selectors = re.findall(
                r"(?:(?:job\w*:)?fraud_\w+(?::\w+)?|up|process_\w+)(?:\{[^}]*\})?", rule["expr"]
            )
            assert selectors, rule
            for selector in selectors:
                if selector not in MAY_BE_EMPTY and not watching.query(f"count({selector})"):
                    missing.append(f"{rule['alert']}: {selector}")
    return missing


def test_every_query_of_every_dashboard_and_rule_has_an_answer(running: Running) -> None:
    """After some minutes of traffic nothing that is asked for is missing but what says why it may be."""

    def answered() -> bool:
        assert running.busy.alive
        return not unanswered(running.monitors) and not missing_from_alerts(running.monitors)

    try:
        until(answered, seconds=240, what="answers")
    except AssertionError:
        pytest.fail("\n".join(unanswered(running.monitors) + missing_from_alerts(running.monitors)))


def test_one_worker_gives_at_most_two_thousand_series(running: Running) -> None:
    """With all stages, 4 partitions and the default features; and nothing of a transaction is in a label."""
    (scraped,) = running.monitors.query(f'scrape_samples_scraped{{instance="127.0.0.1:{running.busy.port}"}}')
    assert 200 < float(scraped["value"][1]) <= MOST_SERIES
    text = running.stuck.metrics()
    assert "fraud_" in text
    assert not re.search(r'"(card_1|term_1|old-\d+)"', text)


def test_a_partition_that_stands_still_rings(running: Running) -> None:
    """The webhook is told which one, with severity, summary and the section of the runbook."""

    def told() -> list[dict[str, dict[str, str]]]:
        return [
            alert
            for alert in running.monitors.webhook.firing()
            if alert["labels"]["alertname"] == "FraudPartitionStalled"
        ]

    until(told, seconds=200, what="FraudPartitionStalled at the webhook")
    alert = told()[0]
    assert alert["labels"]["topic"] == running.stuck_topic
    assert alert["labels"]["severity"] == "page"
    assert running.stuck_topic in alert["annotations"]["summary"]
    assert alert["annotations"]["runbook_url"] == "docs/runbook.md#fraudpartitionstalled"
    assert running.monitors.webhook.names() - SLOW - COLD == {"FraudPartitionStalled"}


def test_a_worker_that_dies_rings(running: Running) -> None:
    """Within two minutes of a kill the webhook is told which one, and of nothing that follows from it."""
    before = running.monitors.webhook.names()
    running.traffic.kill()
    running.busy.kill()
    killed_at = time.monotonic()
    until(
        lambda: "FraudWorkerDown" in running.monitors.webhook.names(),
        seconds=150,
        what="FraudWorkerDown at the webhook",
    )
    print(f"rang {time.monotonic() - killed_at:.0f} s after the kill")
    (instance,) = {
        alert["labels"]["instance"]
        for alert in running.monitors.webhook.firing()
        if alert["labels"]["alertname"] == "FraudWorkerDown"
    }
    assert instance == f"127.0.0.1:{running.busy.port}"
    assert running.monitors.webhook.names() - before - SLOW - COLD == {"FraudWorkerDown"}
    (group,) = {
        json.dumps(each["groupLabels"], sort_keys=True)
        for each in running.monitors.webhook.notifications
        if each["commonLabels"].get("alertname") == "FraudWorkerDown"
    }
    assert json.loads(group) == {"cause": "worker", "job": "fraudstream"}
