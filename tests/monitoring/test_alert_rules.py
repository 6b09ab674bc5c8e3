"""Every alert fires when it should and only then: a healthy system with a few series changed, in promtool."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import yaml

from monitoring.dashboards.catalogue import DASHBOARDS
from monitoring.metrics import METRICS
from tests.monitoring.promql import metric_names

ROOT = Path(__file__).resolve().parents[2]
FOLDER = ROOT / "monitoring" / "prometheus" / "rules"
RULES = [FOLDER / "recording.yml", FOLDER / "alerts.yml"]
RUNBOOK = ROOT / "docs" / "runbook.md"
PROMTOOL = shutil.which("promtool")
needs_promtool = pytest.mark.skipif(
    PROMTOOL is None, reason="no promtool here (Debian: apt-get install prometheus)"
)

ACCOUNTED = 'fraud_partition_unaccounted_transactions{job="fraudstream",stage="card",partition="0"}'
#: A system at 10 transactions a second, a sample a minute; `*` stands for as many samples as the case takes.
HEALTHY = {
    'up{job="fraudstream",instance="w"}': "1x*",
    'process_start_time_seconds{job="fraudstream",instance="w"}': "1000x*",
    'fraud_rebalances_total{job="fraudstream",instance="w"}': "5x*",
    'fraud_event_loop_delay_seconds_bucket{job="fraudstream",instance="w",le="0.1"}': "0+600x*",
    'fraud_event_loop_delay_seconds_bucket{job="fraudstream",instance="w",le="1.0"}': "0+600x*",
    'fraud_event_loop_delay_seconds_bucket{job="fraudstream",instance="w",le="+Inf"}': "0+600x*",
    'fraud_log_messages_total{job="fraudstream",instance="w",source="kafka",level="error"}': "0x*",
    'fraud_log_messages_total{job="fraudstream",instance="w",source="kafka",level="warning"}': "0+5x*",
    'fraud_stalled_seconds{job="fraudstream",instance="w",topic="t",partition="0"}': "0x*",
    'fraud_consumer_lag_seconds{job="fraudstream",instance="w",topic="t",partition="0"}': "1x*",
    'fraud_commit_age_seconds{job="fraudstream",instance="w"}': "2x*",
    'fraud_restore_seconds{job="fraudstream",instance="w",stage="card"}': "3x*",
    'fraud_state_dropped{job="fraudstream",instance="w",what="window_events"}': "0x*",
    'fraud_undecided_lost_total{job="fraudstream",instance="w"}': "0x*",
    'fraud_transactions_total{job="fraudstream",instance="w",outcome="scored"}': "0+600x*",
    'fraud_transactions_total{job="fraudstream",instance="w",outcome="duplicate"}': "0+1x*",
    'fraud_transactions_total{job="fraudstream",instance="w",outcome="late"}': "0+1x*",
    'fraud_transactions_total{job="fraudstream",instance="w",outcome="dead_lettered"}': "0x*",
    'fraud_missing_fields_total{job="fraudstream",instance="w",field="country"}': "0+60x*",
    'fraud_end_to_end_seconds_bucket{job="fraudstream",instance="w",le="0.1"}': "0+598x*",
    'fraud_end_to_end_seconds_count{job="fraudstream",instance="w"}': "0+600x*",
    ACCOUNTED: "0x*",
    'fraud_champion_failures_total{job="fraudstream",instance="w"}': "0x*",
    'fraud_model_learned_total{job="fraudstream",instance="w",name="m"}': "0+10x*",
    'fraud_model_updates_total{job="fraudstream",instance="w",name="m"}': "0+0.01x*",
    'fraud_model_refused_total{job="fraudstream",instance="w",name="m"}': "0x*",
    'fraud_model_withheld_total{job="fraudstream",instance="w",name="m"}': "0x*",
    'fraud_outcomes_refused_total{job="fraudstream",instance="w",name="m"}': "0x*",
    'fraud_shadow_disabled_total{job="fraudstream",instance="w",name="m",reason="slow"}': "0x*",
    'fraud_drift_raised{job="fraudstream",instance="w",kind="unit_change",name="amount"}': "0x*",
    'fraud_drift_raised{job="fraudstream",instance="w",kind="missing",name="count"}': "0x*",
    'fraud_drift_raised{job="fraudstream",instance="w",kind="data",name="hour"}': "0x*",
    'fraud_drift_raised{job="fraudstream",instance="w",kind="score",name="champion:m"}': "0x*",
    'fraud_concept_raised{job="fraudstream",instance="w",kind="concept",name="champion"}': "0x*",
    'fraud_concept_raised{job="fraudstream",instance="w",kind="label",name="base_rate"}': "0x*",
    'fraud_concept_raised{job="fraudstream",instance="w",kind="label",name="delay:chargeback"}': "0x*",
    'fraud_calibration_error{job="fraudstream",instance="w",role="champion"}': "0.01x*",
    'fraud_labels_total{job="fraudstream",instance="w",source="chargeback",result="joined"}': "0+5x*",
    'fraud_labels_total{job="fraudstream",instance="w",source="chargeback",result="unmatched"}': "0x*",
    'fraud_alert_funnel_total{job="fraudstream",instance="w",action="shown"}': "0+2x*",
    'fraud_alert_funnel_total{job="fraudstream",instance="w",action="opened"}': "0+1x*",
    'fraud_alerts_total{job="fraudstream",instance="w"}': "0+2x*",
    'fraud_alert_precision{job="fraudstream",instance="w"}': "0.5x*",
    'fraud_threshold{job="fraudstream",instance="w"}': "0.2x*",
}


@dataclass(frozen=True)
class Case:
    """Series that differ from `HEALTHY`, found by the part of their name given; None takes a series out."""

    fires: dict[str, str | None]
    silent: dict[str, str | None]
    at: str = "80m"
    step: str = "1m"
    also: set[str] = field(default_factory=set)


def over_hours(fires: dict[str, str | None], silent: dict[str, str | None]) -> Case:
    """After seven hours, a sample every five minutes: for rules that look back for six."""
    return Case(fires, silent, at="7h", step="5m")


CASES = {
    # Down for two minutes; for less than one.
    "FraudWorkerDown": Case({"up{": "1x77 0x2"}, {"up{": "1x79 0x*"}),
    "FraudWorkersAbsent": Case({"up{": None}, {"up{": "1x72 _x*"}),
    "FraudWorkerRestarting": Case(
        {"process_start_time": "1000x60 1100x4 1200x4 1300x*"},
        {"process_start_time": "1000x60 1100x4 1200x*"},
    ),
    "FraudRebalancing": Case({"rebalances": "0+1x*"}, {"rebalances": "0x40 20x*"}),
    "FraudEventLoopBlocked": Case(
        {'loop_delay_seconds_bucket{job="fraudstream",instance="w",le="0.1"': "0+500x*"},
        {'loop_delay_seconds_bucket{job="fraudstream",instance="w",le="0.1"': "0+597x*"},
    ),
    "FraudErrorsLogged": Case({'level="error"': "0x70 8x*"}, {'level="error"': "0x70 4x*"}),
    # Records have waited for ten minutes; they have for more than one, just now.
    "FraudPartitionStalled": Case({"stalled": "0x70 0+60x*"}, {"stalled": "0x79 70x*"}),
    "FraudConsumerLag": Case({"lag_seconds": "61x*"}, {"lag_seconds": "1x76 90x*"}),
    "FraudCommitsLate": Case({"commit_age": "0+10x*"}, {"commit_age": "100x*"}),
    # A slow restore within the hour; one before it.
    "FraudRestoreSlow": Case(
        {"restore_seconds": "61x*", "rebalances": "4x60 5x*"}, {"restore_seconds": "61x*"}
    ),
    "FraudStateDropped": Case({"state_dropped": "0x60 0+5x*"}, {"state_dropped": "7x*"}),
    "FraudUndecidedLost": Case({"undecided_lost": "0x70 1x*"}, {"undecided_lost": "1x*"}),
    "FraudNoTransactions": Case(
        {'outcome="scored"': "0+600x50 30000x*", "end_to_end": "0x*"},
        {'outcome="scored"': "0+600x70 42000x*"},
    ),
    # A fifth takes longer for a quarter of an hour; a tenth for five minutes.
    "FraudLatencyBurnFast": Case(
        {"end_to_end_seconds_bucket": "0+598x20 11960+0x*"},
        {"end_to_end_seconds_bucket": "0+598x75 44850+540x*"},
        also={"FraudLatencyBurnSlow"},
    ),
    "FraudLatencyBurnSlow": Case(
        {"end_to_end_seconds_bucket": "0+580x*"}, {"end_to_end_seconds_bucket": "0+595x*"}
    ),
    "FraudAccountingBurnFast": Case(
        {'outcome="dead_lettered"': "0+12x*"}, {'outcome="dead_lettered"': "0x78 6x*"},
        also={"FraudAccountingBurnSlow"},
    ),
    "FraudAccountingBurnSlow": Case(
        {'outcome="dead_lettered"': "0+2.4x*"}, {'outcome="dead_lettered"': "0+0.5x*"}
    ),
    "FraudUnaccounted": Case({"unaccounted": "0x70 1x*"}, {"unaccounted": "0x78 3x*"}),
    "FraudDeadLetters": Case(
        {'outcome="dead_lettered"': "0x60 0+60x*"}, {'outcome="dead_lettered"': "0x78 60x*"},
        also={"FraudAccountingBurnFast", "FraudAccountingBurnSlow"},
    ),
    # A tenth has no country; then three fifths have not, or a third.
    "FraudFieldMissing": Case(
        {"missing_fields": "0+60x60 3600+360x*"}, {"missing_fields": "0+60x60 3600+200x*"}
    ),
    "FraudChampionFailed": Case({"champion_failures": "0x75 1x*"}, {"champion_failures": "7x*"}),
    "FraudModelStale": Case(
        {"model_updates": "3x*"}, {"model_updates": "3x20 4x*"}, at="30h", step="15m"
    ),
    "FraudLearnersStopped": Case(
        {"model_learned": "7000x*"}, {"model_learned": "7000x20 7001x*"}, at="30h", step="15m"
    ),
    "FraudModelRefused": Case({"model_refused": "0x70 1x*"}, {"model_refused": "1x*"}),
    "FraudModelWithheld": Case({"model_withheld": "0x70 1x*"}, {"model_withheld": "1x*"}),
    "FraudOutcomesRefused": Case({"outcomes_refused": "0x70 1x*"}, {"outcomes_refused": "1x*"}),
    "FraudShadowOff": Case({"shadow_disabled": "0x70 1x*"}, {"shadow_disabled": "1x*"}),
    # Beyond their limits for 20 minutes, and for ten; where `for` is an hour for 80 and for 40.
    "FraudUnitChange": Case({'name="amount"': "0x60 1x*"}, {'name="amount"': "0x70 1x*"}),
    "FraudValuesMissing": Case({'name="count"': "0x60 1x*"}, {'name="count"': "0x70 1x*"}),
    "FraudConceptDrift": Case({'kind="concept"': "0x60 1x*"}, {'kind="concept"': "0x70 1x*"}),
    "FraudLabelDrift": Case({"base_rate": "0x60 1x*"}, {"base_rate": "0x70 1x*"}),
    "FraudFeatureDrift": Case({'name="hour"': "1x*"}, {'name="hour"': "0x40 1x*"}),
    "FraudScoreDrift": Case({"champion:m": "1x*"}, {"champion:m": "0x40 1x*"}),
    "FraudCalibrationOff": over_hours({"calibration": "0.03x*"}, {"calibration": "0.019x*"}),
    "FraudLabelsMissing": Case(
        {"labels_total": "0+5x24 120x*"},
        {"labels_total": "0+5x120 600x*"},
        at="30h",
        step="10m",
    ),
    "FraudLabelsSlow": Case({"delay:chargeback": "0x60 1x*"}, {"delay:chargeback": "0x70 1x*"}),
    "FraudLabelsLost": over_hours({'result="unmatched"': "0+2x*"}, {'result="unmatched"': "0+1x*"}),
    # Shown as ever; one in twenty opened, and one in seven.
    "FraudAlertsIgnored": over_hours({'action="opened"': "0+0.1x*"}, {'action="opened"': "0+0.28x*"}),
    "FraudAlertsNotShown": over_hours(
        {'action="shown"': "0x*", 'action="opened"': "0x*"}, {'action="shown"': "0x80 1x*"}),
    "FraudAlertPrecisionLow": over_hours({"alert_precision": "0.19x*"}, {"alert_precision": "0.21x*"}),
    "FraudAlertRateJump": Case(
        {"alerts_total": "0+2x130 260+40x*"}, {"alerts_total": "0+2x130 260+5x*"}, at="24h", step="10m"
    ),
    "FraudNoAlerts": over_hours({"alerts_total": "0x*"}, {"alerts_total": "0x60 1x*"}),
}  # fmt: skip


GROUPS = [group for path in RULES for group in yaml.safe_load(path.read_text())["groups"]]


def rules(kind: str) -> list[dict[str, Any]]:
    return [rule for group in GROUPS for rule in group["rules"] if kind in rule]


ALERTS = {rule["alert"]: rule for rule in rules("alert")}


def minutes(duration: str) -> int:
    return int(duration[:-1]) * {"m": 1, "h": 60}[duration[-1]]


def series(changes: dict[str, str | None], samples: int) -> list[dict[str, str]]:
    values: dict[str, str | None] = dict(HEALTHY)
    for part, value in changes.items():
        found = [name for name in HEALTHY if part in name]
        assert found, part
        values |= dict.fromkeys(found, value)
    return [
        {"series": name, "values": value.replace("*", str(samples))}
        for name, value in values.items()
        if value is not None
    ]


def firing(case: Case, changes: dict[str, str | None], expected: set[str], directory: Path) -> str:
    """What promtool has to say about the alerts that fire; empty when they are the expected ones."""
    samples = minutes(case.at) // minutes(case.step)
    written = directory / "case.yml"
    expression = 'count by (alertname) (ALERTS{alertstate="firing"})'
    document = {
        "rule_files": [str(path) for path in RULES],
        "evaluation_interval": case.step,
        # Alerts see what has just been recorded: with long steps the values of the one before are stale.
        "group_eval_order": [group["name"] for group in GROUPS],
        "tests": [
            {
                "interval": case.step,
                "input_series": series(changes, samples),
                "promql_expr_test": [
                    {
                        "expr": expression,
                        "eval_time": case.at,
                        "exp_samples": [
                            {"labels": f'{{alertname="{name}"}}', "value": 1} for name in sorted(expected)
                        ],
                    }
                ],
            }
        ],
    }
    written.write_text(json.dumps(document))  # JSON is YAML
    assert PROMTOOL is not None
    command = [PROMTOOL, "test", "rules", str(written)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    return "" if done.returncode == 0 else done.stdout + done.stderr


@needs_promtool
@pytest.mark.parametrize("alert", ALERTS)
def test_alert_fires_when_it_should_and_nothing_else_does(alert: str, tmp_path: Path) -> None:
    """The fault fires this alert and those it brings with it, the near miss none at all."""
    case = CASES[alert]
    assert firing(case, case.fires, {alert} | case.also, tmp_path) == ""
    assert firing(case, case.silent, set(), tmp_path) == ""


#: Seven hours in steps of two minutes: bad for the last 36 minutes, by which an hour is bad and six hours are
#: not; and half as bad all the time, by which it is the other way round.
BURNS = {
    "FraudLatencyBurnFast": ("end_to_end_seconds_bucket", "0+598x192 114816+300x*", "0+540x*"),
    "FraudAccountingBurnFast": ('outcome="dead_lettered"', "0x192 0+20x*", "0+6x*"),
}


@needs_promtool
@pytest.mark.parametrize("which", [1, 2], ids=["hour", "six hours"])
@pytest.mark.parametrize("alert", BURNS)
def test_either_window_of_a_fast_burn_fires(alert: str, which: int, tmp_path: Path) -> None:
    """A steep burn is seen by the window of an hour before that of six, a long one by that of six alone."""
    changes: dict[str, str | None] = {BURNS[alert][0]: BURNS[alert][which]}
    case = Case(changes, {}, at="7h", step="2m")
    assert firing(case, changes, {alert, alert.replace("Fast", "Slow")}, tmp_path) == ""


@needs_promtool
def test_a_healthy_system_is_silent(tmp_path: Path) -> None:
    """Nothing fires after three hours without a fault."""
    assert firing(Case({}, {}, at="3h"), {}, set(), tmp_path) == ""


def test_every_file_of_rules_is_looked_at() -> None:
    """Prometheus loads every file of the folder."""
    assert sorted(RULES) == sorted(FOLDER.iterdir())


def test_every_alert_has_a_case_and_no_other_is_named() -> None:
    """A new alert comes with a case in which it fires and one in which it does not."""
    assert CASES.keys() == ALERTS.keys()
    assert len(ALERTS) == len(rules("alert"))


@pytest.mark.parametrize("alert", ALERTS)
def test_alert_says_what_a_person_needs(alert: str) -> None:
    """Severity, cause, summary, description, a dashboard that exists, and its section of the runbook."""
    rule = ALERTS[alert]
    assert rule["labels"]["severity"] in {"page", "ticket"}
    assert rule["labels"]["cause"]
    assert rule["annotations"]["summary"].endswith(".")
    assert rule["annotations"]["description"].endswith(".")
    assert rule["annotations"]["dashboard"] in {dashboard.uid for dashboard in DASHBOARDS}
    assert rule["annotations"]["runbook_url"] == f"docs/runbook.md#{alert.lower()}"


def test_the_runbook_has_a_section_for_every_alert() -> None:
    """Each says what the alert means, what to look at and what to do; none is about an alert that is gone."""
    sections = re.split(r"^### ", RUNBOOK.read_text(), flags=re.MULTILINE)[1:]
    titles = [section.partition("\n")[0] for section in sections]
    assert sorted(titles) == sorted(ALERTS)
    for section in sections:
        for part in ("**Means**", "**Look**", "**Do**"):
            assert part in section, section


def test_rules_ask_for_metrics_that_exist() -> None:
    """Every name in an expression is a metric, a recorded one, or one of the client or of Prometheus."""
    defined = {definition.name for definition in METRICS}
    recorded = {rule["record"] for rule in rules("record")}
    foreign = {"up", "process_start_time_seconds"}
    for rule in rules("expr"):
        names = metric_names(rule["expr"])
        assert names
        assert names <= defined | recorded | foreign, rule


def test_every_recorded_series_is_used() -> None:
    """A recording rule that neither an alert nor a dashboard asks for costs for nothing."""
    expressions = [rule["expr"] for rule in rules("expr")]
    expressions += [each for dashboard in DASHBOARDS for each in dashboard.expressions()]
    asked = {name for expression in expressions for name in metric_names(expression)}
    assert {rule["record"] for rule in rules("record")} <= asked
