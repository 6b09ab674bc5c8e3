"""Faults injected into running deployments: the right alert rings at the webhook in time, and no other.

Every deployment has a worker, simulated traffic, Prometheus and Alertmanager of its own, all on one broker.
30 days of event time pass in 80 seconds or more, so `for` in the rules is a sixtieth of what it is, but at
least ten seconds (`rule_pace.py`); nothing else in them is changed. For 16 days nothing is wrong; then one
thing is, or several that have nothing to do with each other. Windows of the features are a day at most, so
that they are filled before the reference of the drift begins, and labels mature in two days.
"""

from __future__ import annotations

import json
import math
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager, ExitStack
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from confluent_kafka import OFFSET_BEGINNING, Consumer, TopicPartition

from monitoring.limits import QUIET_DAYS
from streams.times import DAY
from tests.e2e.harness import ROOT, Deployment, Worker, json_bytes, until
from tests.e2e.monitors import SLOW, Monitors, monitors, needs_monitors
from tests.e2e.rule_pace import paced

pytestmark = [
    pytest.mark.broker,
    pytest.mark.chaos,
    pytest.mark.timeout(600),
    needs_monitors,
]

DAYS, TRANSACTIONS, RATE = 30, 24_000, 300
DAY_SECONDS = TRANSACTIONS / RATE / DAYS
FAULT_DAY = 16
#: Longer than Alertmanager waits for what else belongs to an incident.
GROUP_WAIT_SECONDS = 35
SETTINGS = """
[alignment]
idle_after = "0s"  # as in the demo: the stream runs as if it were live

[labels]
maturity = "2d"

[models]
publish_every = "12h"
champion = { name = "binned", kind = "binned_logistic" }
shadows = [{ name = "logistic", kind = "logistic" }]

[[features.entities]]
name = "card"
key = "card_id"
windows = ["1h", "24h"]

[features.entities.aggregates]
count = ["1h", "24h"]
mean = ["24h"]
max = ["24h"]
distinct_countries = ["24h"]
seconds_since_last = []

[[features.entities]]
name = "terminal"
key = "terminal_id"
windows = ["1h", "24h"]
aggregates = { count = ["1h", "24h"], mean = ["24h"], seconds_since_last = [] }
"""


@dataclass(frozen=True)
class Case:
    """What goes wrong, and what is to ring.

    Args:
        faults: of `fraudstream traffic`.
        rings: seconds from the fault within which each alert is at the webhook.
        companions: what may ring with them, and why.
    """

    faults: tuple[str, ...]
    rings: dict[str, float]
    companions: dict[str, str] = field(default_factory=dict)


CASES = {
    "unit": Case((f"unit-change@{FAULT_DAY}d",), {"FraudUnitChange": 240}),
    "shift": Case((f"amount-shift@{FAULT_DAY}d",), {"FraudFeatureDrift": 240}),
    "pattern": Case((f"new-pattern@{FAULT_DAY}d",), {"FraudConceptDrift": 240}),
    # Three that have nothing to do with each other.
    "people": Case(
        (f"required-field@{FAULT_DAY}d", f"slow-labels@{FAULT_DAY}d", "alerts-ignored@0d"),
        {"FraudAccountingBurnFast": 120, "FraudLabelsSlow": 240, "FraudAlertsIgnored": 120},
        {"FraudDeadLetters": "the same cause: one incident, in whose notifications both are"},
    ),
}


@dataclass
class Run:
    deployment: Deployment
    worker: Worker
    monitors: Monitors
    #: by the monotonic clock
    began: float
    #: of the stream, by event time in epoch milliseconds
    start: int

    @property
    def fault(self) -> float:
        return self.began + FAULT_DAY * DAY_SECONDS

    def state(self) -> str:
        """What Prometheus knows of alerts, and of what is beyond its limit."""
        asked = ("ALERTS", "fraud_drift_raised", "fraud_concept_raised", "fraud_drift_alarms_total > 0")
        shown = ("__name__", "alertname", "alertstate", "kind", "name")
        found = [each for expression in asked for each in self.monitors.query(expression)]
        return "\n".join(
            " ".join([*(each["metric"].get(name, "") for name in shown), each["value"][1]]) for each in found
        )


def watched(directory: Path, worker: Worker) -> AbstractContextManager[Monitors]:
    address = f"127.0.0.1:{worker.port}"
    return monitors(directory, [address], change=partial(paced, factor=60, least=10_000), interval="2s")


@pytest.fixture(scope="module")
def runs(broker: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Run]]:
    with ExitStack() as stack:
        started: dict[str, tuple[Path, Deployment, Worker]] = {}
        for name in CASES:
            folder = tmp_path_factory.mktemp(name)
            deployment = Deployment(broker, folder, SETTINGS)
            stack.callback(deployment.close)
            worker = deployment.start(wait=False)
            if not started:  # where nothing is compiled yet the first one does it for all
                until(partial(getattr, worker, "ready"), seconds=240, what="the first worker ready")
            started[name] = folder, deployment, worker
        for _, _, worker in started.values():
            until(partial(getattr, worker, "ready"), seconds=120, what="a worker ready")
        result: dict[str, Run] = {}
        for seed, (name, (folder, deployment, worker)) in enumerate(started.items(), start=1):
            watching = stack.enter_context(watched(folder, worker))
            traffic = stack.enter_context(_traffic(folder / "settings.toml", seed, CASES[name].faults))
            stack.callback(traffic.kill)
            start = int(time.time() * 1000) // DAY * DAY - DAYS * DAY
            result[name] = Run(deployment, worker, watching, time.monotonic(), start)
        yield result


def _traffic(config: Path, seed: int, faults: tuple[str, ...]) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-m", "streams.cli", "traffic", "--config", str(config), "--seed", str(seed)]
    command += ["--transactions", str(TRANSACTIONS), "--rate", str(RATE), "--label-delay", "12h"]
    for fault in faults:
        command += ["--fault", fault]
    environment = {name: value for name, value in os.environ.items() if not name.startswith("FRAUD")}
    with (config.parent / "traffic.log").open("wb") as log:
        return subprocess.Popen(command, cwd=ROOT, env=environment, stdout=log, stderr=log)


def test_a_field_that_a_foreign_client_sends_no_more_rings(
    broker: str, tmp_path: Path, runs: dict[str, Run]
) -> None:
    """Within a minute and a half of the first transaction without it, and nothing else does."""
    deployment = Deployment(broker, tmp_path, SETTINGS)
    try:
        worker = deployment.start(stages="card,score")
        with watched(tmp_path, worker) as watching:
            ratio = 'job_field:fraud_missing:ratio_rate15m{field="country"}'
            # An increase is one since the first scrape.
            until(lambda: watching.query("up == 1"), seconds=60, what="a scrape")
            _publish(deployment, 0, {"country": "DE", "channel": "pos"})
            until(lambda: watching.query(f"{ratio} == 0"), seconds=60, what="the share of no country")
            began = time.monotonic()
            _publish(deployment, 1, {"channel": "pos"})
            rang = watching.webhook.rang
            until(lambda: "FraudFieldMissing" in rang, seconds=90, what=f"FraudFieldMissing of {rang}")
            print(
                f"foreign client: FraudFieldMissing {rang['FraudFieldMissing'] - began:.0f} s after the fault"
            )
            (alert,) = (
                each
                for each in watching.webhook.firing()
                if each["labels"]["alertname"] == "FraudFieldMissing"
            )
            assert alert["annotations"]["summary"] == "country is not sent any more."
            assert watching.webhook.names() - SLOW == {"FraudFieldMissing"}
    finally:
        deployment.close()


def _publish(deployment: Deployment, part: int, texts: dict[str, str]) -> None:
    now = int(time.time() * 1000)
    records = [
        {
            "transaction_id": f"f-{part}-{number}",
            "card_id": f"card_{number % 40}",
            "terminal_id": f"term_{number % 70}",
            "event_time": now + number,
            "amount_minor": 1000 + number,
            "currency": "EUR",
            **texts,
        }
        for number in range(600)
    ]
    deployment.publish("transactions", [(str(each["card_id"]), json_bytes(each)) for each in records])
    deployment.flush()


@pytest.mark.parametrize("name", CASES)
def test_the_fault_rings_in_time(runs: dict[str, Run], name: str) -> None:
    """What is expected is at the webhook within the stated time of the fault."""
    run, case = runs[name], CASES[name]
    rang = run.monitors.webhook.rang

    def told() -> bool:
        assert run.worker.alive, run.worker.log()
        return case.rings.keys() <= rang.keys()

    latest = run.fault + max(case.rings.values())
    try:
        until(told, seconds=max(latest - time.monotonic(), 0), what=f"{case.rings} of {sorted(rang)}")
    except AssertionError as error:
        pytest.fail(f"{error}; {run.state()}")
    for alert, seconds in case.rings.items():
        print(f"{name}: {alert} {rang[alert] - run.fault:.0f} s after the fault")
        assert rang[alert] - run.fault <= seconds


def test_nothing_is_alarmed_before_a_fault(runs: dict[str, Run]) -> None:
    """More than a day of event time in each deployment with drift watched: no more than is declared.

    What is alarmed within a day is one alarm: features of one amount move together. What analysts label rings
    nothing of itself.
    """
    hours, alarms = 0, dict[tuple[str, int], list[str]]()
    for name, run in runs.items():
        quiet = [each for each in _reports(run.deployment) if each["end"] <= run.start + FAULT_DAY * DAY]
        found = sum(each["metric"] == "drift" for each in quiet)
        assert found > 24, name
        hours += found
        for each in quiet:
            told = [f"{alarm['kind']} {alarm['name']}" for alarm in each["alarms"]]
            if told := [alarm for alarm in told if alarm != "label coverage:analyst"]:
                alarms.setdefault((name, (each["end"] - 1) // DAY), []).extend(told)
    expected = hours / 24 / QUIET_DAYS
    print(f"{len(alarms)} alarms in {hours / 24:.1f} watched days: {alarms}")
    assert len(alarms) <= beyond_chance(expected)


def beyond_chance(expected: float) -> int:
    """As many events as a Poisson process with this expectation exceeds once in a hundred times at most."""
    number, weight = 0, math.exp(-expected)
    total = weight
    while total < 0.99:
        number += 1
        weight *= expected / number
        total += weight
    return number


def test_what_chance_may_bring() -> None:
    """Quantiles of the Poisson distribution."""
    assert [beyond_chance(each) for each in (0.005, 0.1, 1.0, 5.0)] == [0, 1, 4, 11]


def _reports(deployment: Deployment) -> Iterator[dict[str, Any]]:
    """What the observe stage has said of drift and of judged days, up to now."""
    place = TopicPartition(deployment.topic("metrics"), 0, OFFSET_BEGINNING)
    reader = Consumer(
        {"bootstrap.servers": deployment.broker, "group.id": "reports", "enable.auto.commit": False}
    )
    try:
        _, end = reader.get_watermark_offsets(place, timeout=10)
        reader.assign([place])
        offset = -1
        while offset < end - 1:
            for message in reader.consume(1000, 1.0):
                assert message.error() is None, message.error()
                offset = int(message.offset() or 0)
                record = json.loads(message.value() or b"{}")
                if record.get("metric") in ("drift", "quality"):
                    yield record
    finally:
        reader.close()


def test_nothing_else_rings(runs: dict[str, Run]) -> None:
    """Also after what belongs to the incident has had the time to be told of."""
    for name, run in runs.items():
        case, rang = CASES[name], run.monitors.webhook.rang
        told = max(rang[alert] for alert in case.rings) + GROUP_WAIT_SECONDS
        until(partial(_passed, told), seconds=60, what="the end of the wait")
        assert run.worker.alive
        assert run.monitors.webhook.names() - SLOW - case.companions.keys() == case.rings.keys(), name


def _passed(moment: float) -> bool:
    return time.monotonic() > moment
