"""One incident for one cause: where alerts go and which are left out, by Alertmanager's own tool."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).resolve().parents[2]
CONFIG = ROOT / "monitoring" / "alertmanager" / "alertmanager.yml"
RULES = ROOT / "monitoring" / "prometheus" / "rules" / "alerts.yml"
AMTOOL = shutil.which("amtool")
PROMTOOL = shutil.which("promtool")


def config() -> dict[str, Any]:
    loaded: dict[str, Any] = yaml.safe_load(CONFIG.read_text())
    return loaded


def alerts() -> dict[str, dict[str, str]]:
    """The labels of every alert, by name."""
    groups = yaml.safe_load(RULES.read_text())["groups"]
    return {
        rule["alert"]: {"alertname": rule["alert"], "job": "fraudstream", **rule["labels"]}
        for group in groups
        for rule in group["rules"]
    }


def matches(matchers: list[str], labels: dict[str, str]) -> bool:
    for matcher in matchers:
        found = re.fullmatch(r'(\w+)(=~|=)"(.*)"', matcher)
        assert found, matcher
        name, operator, value = found.groups()
        if operator == "=" and labels[name] != value:
            return False
        if operator == "=~" and not re.fullmatch(value, labels[name]):
            return False
    return True


def notified(firing: set[str]) -> set[str]:
    """Which of the firing alerts get through the inhibitions."""
    known = alerts()
    return {
        name
        for name in firing
        if not any(
            matches(rule["target_matchers"], known[name])
            and not matches(rule["source_matchers"], known[name])
            and any(
                matches(rule["source_matchers"], known[source])
                and all(known[source][label] == known[name][label] for label in rule["equal"])
                for source in firing - {name}
            )
            for rule in config()["inhibit_rules"]
        )
    }


@pytest.mark.skipif(AMTOOL is None, reason="no amtool here (Debian: apt-get install prometheus-alertmanager)")
def test_alertmanager_takes_the_configuration(tmp_path: Path) -> None:
    """amtool finds nothing wrong. Older ones (before 0.26) know no `url_file`, so it is replaced for it."""
    text = CONFIG.read_text()
    assert "url_file: /run/secrets/alert_webhook_url" in text
    checked = tmp_path / "alertmanager.yml"
    checked.write_text(text.replace("url_file: /run/secrets/alert_webhook_url", "url: http://localhost/"))
    assert AMTOOL is not None
    done = subprocess.run([AMTOOL, "check-config", str(checked)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "10 inhibit rules" in done.stdout


@pytest.mark.skipif(PROMTOOL is None, reason="no promtool here (Debian: apt-get install prometheus)")
def test_prometheus_takes_the_configuration() -> None:
    """promtool finds the configuration and the rules that it names good."""
    assert PROMTOOL is not None
    file = ROOT / "monitoring" / "prometheus" / "prometheus.yml"
    done = subprocess.run(
        [PROMTOOL, "check", "config", str(file)], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.count("rules found") == 2


@pytest.mark.parametrize(
    ("firing", "expected"),
    [
        # A worker dies: its partitions stand still, then lag and come late.
        (
            {"FraudWorkerDown", "FraudPartitionStalled", "FraudConsumerLag", "FraudLatencyBurnFast"},
            {"FraudWorkerDown"},
        ),
        ({"FraudPartitionStalled", "FraudConsumerLag", "FraudLatencyBurnFast"}, {"FraudPartitionStalled"}),
        ({"FraudLatencyBurnFast", "FraudLatencyBurnSlow", "FraudConsumerLag"}, {"FraudLatencyBurnFast"}),
        # A producer sends rubbish.
        ({"FraudDeadLetters", "FraudAccountingBurnSlow"}, {"FraudDeadLetters"}),
        # A producer sends cents for units.
        (
            {"FraudUnitChange", "FraudFeatureDrift", "FraudScoreDrift", "FraudAlertRateJump"},
            {"FraudUnitChange"},
        ),
        ({"FraudFeatureDrift", "FraudScoreDrift", "FraudAlertRateJump"}, {"FraudFeatureDrift"}),
        # A producer stops sending a field.
        ({"FraudFieldMissing", "FraudValuesMissing", "FraudFeatureDrift"}, {"FraudFieldMissing"}),
        (
            {"FraudDeadLetters", "FraudAccountingBurnFast", "FraudAccountingBurnSlow"},
            {"FraudDeadLetters", "FraudAccountingBurnFast"},  # one incident, of one cause
        ),
        # A new kind of fraud.
        ({"FraudConceptDrift", "FraudLabelDrift", "FraudAlertPrecisionLow"}, {"FraudConceptDrift"}),
        ({"FraudLabelsSlow", "FraudLabelsLost", "FraudLabelDrift"}, {"FraudLabelsSlow"}),
        ({"FraudLabelsMissing", "FraudLearnersStopped"}, {"FraudLabelsMissing"}),
        # Two causes are two incidents.
        ({"FraudWorkerDown", "FraudAlertsIgnored"}, {"FraudWorkerDown", "FraudAlertsIgnored"}),
        ({"FraudChampionFailed", "FraudDeadLetters"}, {"FraudChampionFailed", "FraudDeadLetters"}),
    ],
)  # fmt: skip
def test_what_follows_from_something_larger_is_left_out(firing: set[str], expected: set[str]) -> None:
    """Of one cause one alert gets through, of two causes two."""
    assert notified(firing) == expected


def test_inhibitions_name_alerts_and_causes_that_exist() -> None:
    """A renamed alert would silently stop to inhibit."""
    names, causes = set(alerts()), {labels["cause"] for labels in alerts().values()}
    for rule in config()["inhibit_rules"]:
        assert "job" in rule["equal"]
        for matcher in rule["source_matchers"] + rule["target_matchers"]:
            label, _, value = re.split(r"(=~|=)", matcher, maxsplit=1)
            known = {"alertname": names, "cause": causes, "severity": {"page", "ticket"}}[label]
            assert set(value.strip('"').split("|")) <= known, matcher


def test_grouping_is_by_cause() -> None:
    """Alerts of one cause come as one notification, pages sooner than tickets."""
    route = config()["route"]
    assert route["group_by"] == ["job", "cause"]
    (pages,) = route["routes"]
    assert pages["matchers"] == ['severity="page"']
    assert pages["group_wait"] == "10s"
