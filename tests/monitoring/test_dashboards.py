"""Dashboards: what is committed is generated, the rules of Grafana's linter hold, all asked for exists."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from monitoring.dashboards.builders import COLUMNS, Dashboard, Panel, Query
from monitoring.dashboards.catalogue import DASHBOARDS, generated, write
from monitoring.metrics import METRICS
from tests.monitoring.promql import metric_names

ROOT = Path(__file__).resolve().parents[2]
GRAFANA = ROOT / "monitoring" / "grafana"
RULES = ROOT / "monitoring" / "prometheus" / "rules"
UIDS = [dashboard.uid for dashboard in DASHBOARDS]
#: Of Prometheus itself and of its client; the client's are there on Linux.
FOREIGN = {
    "up", "ALERTS", "process_start_time_seconds", "process_cpu_seconds_total", "process_open_fds",
    "process_resident_memory_bytes",
}  # fmt: skip
COUNTERS = {definition.name for definition in METRICS if definition.kind == "counter"}
#: Those of Grafana that we use; one that it does not know it would print behind the number.
UNITS = {"s", "percentunit", "short", "cps", "bytes", "string", "dateTimeFromNow"}
QUERIES = [
    (dashboard, panel, query)
    for dashboard in DASHBOARDS
    for panel in dashboard.panels
    for query in panel.queries
]


@pytest.fixture(params=DASHBOARDS, ids=UIDS)
def dashboard(request: pytest.FixtureRequest) -> Dashboard:
    chosen: Dashboard = request.param
    return chosen


def panels(dashboard: Dashboard) -> list[dict[str, Any]]:
    return [panel for panel in dashboard.json()["panels"] if panel["type"] != "row"]


@pytest.mark.parametrize("name", generated())
def test_the_committed_file_is_the_generated_one(name: str) -> None:
    """After a change of a dashboard or a metric: `make generated`."""
    assert (ROOT / name).read_text() == generated()[name]


def test_no_dashboard_is_left_over() -> None:
    """A file that is not generated any more would stay in Grafana."""
    assert {path.stem for path in (GRAFANA / "dashboards").glob("*.json")} == set(UIDS)


def test_writing_changes_only_what_differs(tmp_path: Path) -> None:
    """Everything the first time, nothing the second, one file after it was touched."""
    assert len(write(tmp_path)) == len(generated())
    assert write(tmp_path) == []
    touched = tmp_path / "docs" / "metrics.md"
    touched.write_text("else")
    assert write(tmp_path) == [touched]


def test_every_metric_is_on_a_dashboard() -> None:
    """A metric that nobody can look at is missing from monitoring/dashboards."""
    shown = {
        name for dashboard in DASHBOARDS for each in dashboard.expressions() for name in metric_names(each)
    }
    assert {definition.name for definition in METRICS} <= shown


def test_dashboards_ask_for_metrics_that_exist(dashboard: Dashboard) -> None:
    """Every name is a metric of ours, one recorded by the rules, of Prometheus or of its client."""
    groups = yaml.safe_load((RULES / "recording.yml").read_text())["groups"]
    recorded = {rule["record"] for group in groups for rule in group["rules"]}
    known = {definition.name for definition in METRICS} | recorded | FOREIGN
    for expression in dashboard.expressions():
        assert metric_names(expression) <= known, expression


def test_uid_and_titles(dashboard: Dashboard) -> None:
    """The uid is fixed and short enough for Grafana; titles of panels are told apart."""
    assert re.fullmatch(r"fraud-[a-z-]{3,34}", dashboard.uid)
    assert dashboard.title.startswith("Fraud / ")
    titles = [panel.title for panel in dashboard.panels]
    assert len(set(titles)) == len(titles)
    assert len(set(UIDS)) == len(UIDS)


def test_template_datasource_rule(dashboard: Dashboard) -> None:
    """The data source is a variable named `datasource` with the label `Data source`, and the first."""
    first = dashboard.json()["templating"]["list"][0]
    assert (first["type"], first["name"], first["label"]) == ("datasource", "datasource", "Data source")
    assert first["query"] == "prometheus"


@pytest.mark.parametrize("name", ["job", "instance"])
def test_template_job_and_instance_rules(dashboard: Dashboard, name: str) -> None:
    """`job` and `instance` are variables that take several values, all of them at first."""
    (variable,) = [each for each in dashboard.json()["templating"]["list"] if each["name"] == name]
    assert variable["type"] == "query"
    assert variable["label"] == name.capitalize()
    assert variable["multi"]
    assert variable["includeAll"]
    assert variable["allValue"] == ".+"
    assert variable["datasource"]["uid"] == "$datasource"


def test_template_label_promql_rule(dashboard: Dashboard) -> None:
    """Variables are made of the values of a label of a metric that exists."""
    for variable in dashboard.json()["templating"]["list"][1:]:
        found = re.fullmatch(r"label_values\((\w+)(\{.*\})?, (\w+)\)", variable["query"]["query"])
        assert found
        (metric,) = metric_names(found.group(1))
        (definition,) = [each for each in METRICS if each.name == metric]
        assert found.group(3) in (*definition.labels, "job", "instance")


def test_every_variable_is_used(dashboard: Dashboard) -> None:
    """A variable that changes nothing misleads."""
    text = json.dumps(dashboard.json()["panels"])
    for variable in dashboard.json()["templating"]["list"]:
        assert f"${variable['name']}" in text, variable["name"]


def test_panel_rules(dashboard: Dashboard) -> None:
    """Each panel has title, description with what is bad, unit, data source by variable, and targets."""
    for panel in panels(dashboard):
        assert panel["title"]
        assert panel["description"].endswith(".")
        assert "bad" in panel["description"].lower(), panel["title"]
        assert panel["fieldConfig"]["defaults"]["unit"] in UNITS
        assert panel["datasource"] == {"type": "prometheus", "uid": "$datasource"}
        assert panel["targets"]
        assert len({target["refId"] for target in panel["targets"]}) == len(panel["targets"])
        assert all(target["datasource"] == panel["datasource"] for target in panel["targets"])
        assert all(target["legendFormat"] for target in panel["targets"])


@pytest.mark.parametrize(
    ("dashboard", "panel", "query"), QUERIES, ids=lambda each: getattr(each, "title", "")
)
def test_target_rules(dashboard: Dashboard, panel: object, query: Query) -> None:
    """Targets choose job and instance, rates take the rate interval, counters are never shown bare."""
    expression = query.expression
    assert expression.count("(") == expression.count(")")
    selectors = re.findall(r"([\w:]+)\{([^}]*)\}", expression)
    assert selectors
    assert {name for name, _ in selectors} == set(re.findall(r"([\w:]+)\{", expression))
    for name, matchers in selectors:
        assert 'job=~"$job"' in matchers
        # Recorded series and alerts are of a job.
        assert 'instance=~"$instance"' in matchers or ":" in name or name == "ALERTS"
        if name in COUNTERS:
            before = expression[: expression.index(f"{name}{{")]
            assert re.search(r"(sum|max)( by \([\w, ]+\))? \((rate|increase)\($", before), expression
    for function, interval in re.findall(r"\b(rate|irate|increase)\([^\[]*\[([^\]]+)\]", expression):
        assert interval == "$__rate_interval" or (
            function == "increase" and interval in ("$__range", "1h", "5m")
        )


@pytest.mark.parametrize(
    "query",
    [query for *_, query in QUERIES if metric_names(query.expression) & (FOREIGN - {"ALERTS"})],
    ids=lambda query: query.expression,
)
def test_only_workers_are_counted(query: Query) -> None:
    """Prometheus and Alertmanager are scraped too, and have `up` and the metrics of a process as well."""
    assert re.search(r" on \(job, instance\) .*fraud_build_info\{", query.expression)


def test_excused_from_the_instance_rule() -> None:
    """What the linter is told to leave out is what asks for recorded series or alerts, and nothing else."""
    excused = yaml.safe_load((GRAFANA / "dashboards" / ".lint").read_text())["exclusions"]
    assert excused.keys() == {"target-instance-rule"}
    assert excused["target-instance-rule"]["reason"]
    listed = [(each["dashboard"], each["panel"]) for each in excused["target-instance-rule"]["entries"]]
    of_a_job = {
        (dashboard.title, panel.title)
        for dashboard, panel, query in QUERIES
        if "$instance" not in query.expression
    }
    assert sorted(listed) == sorted(of_a_job)


def _units(panel: dict[str, Any]) -> dict[tuple[str, str], str]:
    """What overrides the panel's unit: matcher and what it matches, unit."""
    return {
        (each["matcher"]["id"], each["matcher"]["options"]): setting["value"]
        for each in panel["fieldConfig"]["overrides"]
        for setting in each["properties"]
        if setting["id"] == "unit"
    }


@pytest.mark.parametrize(("column", "hidden"), [("started", False), ("", True)])
def test_a_table_formats_its_value_and_leaves_labels_as_text(column: str, hidden: bool) -> None:
    """A unit of time for all columns makes dates of labels; a value that says nothing is not shown."""
    query = Query("x", "x")
    panel = Panel("t", "d", "dateTimeFromNow", (query,), kind="table", column=column).json(1, 0, 0)
    assert panel["fieldConfig"]["defaults"]["unit"] == "string"
    assert _units(panel) == ({("byName", "started"): "dateTimeFromNow"} if column else {})
    (columns,) = (each["options"] for each in panel["transformations"])
    assert columns["excludeByName"] == {"Time": True, "__name__": True, "Value": hidden}
    assert columns["renameByName"] == ({"Value": "started"} if column else {})


def test_bars_start_at_zero_and_lie() -> None:
    """Left to itself Grafana draws no bar for the smallest value, and stands bars up in a wide panel."""
    bars = [panel for dashboard in DASHBOARDS for panel in panels(dashboard) if panel["type"] == "bargauge"]
    assert bars
    for panel in bars:
        assert panel["fieldConfig"]["defaults"]["min"] == 0
        assert panel["options"]["orientation"] == "horizontal"
        assert panel["options"].keys() == {"reduceOptions", "orientation"}


def test_a_share_beside_other_units_has_an_axis_of_its_own() -> None:
    """From 0 to 1, whatever the panel's unit is."""
    panel = Panel("t", "d", "cps", (Query("x", "x"), Query("y", "y", share=True))).json(1, 0, 0)
    assert _units(panel) == {("byFrameRefID", "B"): "percentunit"}
    (override,) = panel["fieldConfig"]["overrides"]
    assert {each["id"]: each["value"] for each in override["properties"]}.items() >= {
        "min": 0,
        "max": 1,
    }.items()


def test_counts_are_whole_numbers(dashboard: Dashboard) -> None:
    """Prometheus extrapolates increases: of 212 alerts it says 212.4."""
    for panel in panels(dashboard):
        if panel["type"] in ("stat", "bargauge") and any(
            "increase(" in each["expr"] for each in panel["targets"]
        ):
            assert panel["fieldConfig"]["defaults"]["decimals"] == 0, panel["title"]


def test_gaps_stay_gaps(dashboard: Dashboard) -> None:
    """No line leads over a time without values, and a value between two gaps is a point."""
    for panel in panels(dashboard):
        if panel["type"] == "timeseries":
            custom = panel["fieldConfig"]["defaults"]["custom"]
            assert (custom["spanNulls"], custom["showPoints"]) == (False, "auto")


def test_the_line_of_a_limit_is_in_the_picture(dashboard: Dashboard) -> None:
    """The axis of a panel with a limit reaches it, however small the values are."""
    for panel in panels(dashboard):
        steps = panel["fieldConfig"]["defaults"]["thresholds"]["steps"]
        if panel["type"] == "timeseries" and len(steps) > 1:
            custom = panel["fieldConfig"]["defaults"]["custom"]
            assert (custom["axisSoftMin"], custom["axisSoftMax"]) == (0, steps[1]["value"])
            assert custom["thresholdsStyle"] == {"mode": "dashed"}


def test_panels_lie_side_by_side(dashboard: Dashboard) -> None:
    """Numbers are unique; no two panels overlap and none leaves the 24 columns."""
    everything = dashboard.json()["panels"]
    assert len({panel["id"] for panel in everything}) == len(everything)
    taken: set[tuple[int, int]] = set()
    for panel in everything:
        at = panel["gridPos"]
        assert at["x"] + at["w"] <= COLUMNS
        cells = {(at["x"] + x, at["y"] + y) for x in range(at["w"]) for y in range(at["h"])}
        assert not cells & taken, panel["title"]
        taken |= cells


def test_uneditable_dashboard_rule(dashboard: Dashboard) -> None:
    """What is provisioned cannot be edited in Grafana: the next start would undo it."""
    assert dashboard.json()["editable"] is False
    assert dashboard.json()["id"] is None


def test_annotations_mark_promotions_alarms_and_drift(dashboard: Dashboard) -> None:
    """Promotions, rollbacks, alarms and drift are drawn into every panel."""
    marks = {mark["name"]: mark for mark in dashboard.json()["annotations"]["list"]}
    assert marks.keys() == {"Promotions and rollbacks", "Alarms", "Drift"}
    assert "fraud_model_info" in marks["Promotions and rollbacks"]["expr"]
    assert 'ALERTS{alertstate="firing"' in marks["Alarms"]["expr"]
    assert all(mark["datasource"]["uid"] == "$datasource" for mark in marks.values())


def test_provisioning_fits_the_dashboards() -> None:
    """The data source has the uid that the variable starts with; dashboards cannot be changed in Grafana."""
    (source,) = yaml.safe_load((GRAFANA / "provisioning/datasources/prometheus.yml").read_text())[
        "datasources"
    ]
    chosen = DASHBOARDS[0].json()["templating"]["list"][0]["current"]
    assert (source["uid"], source["name"]) == (chosen["value"], chosen["text"])
    assert source["type"] == "prometheus"
    assert source["editable"] is False
    (provider,) = yaml.safe_load((GRAFANA / "provisioning/dashboards/fraudstream.yml").read_text())[
        "providers"
    ]
    assert provider["type"] == "file"
    assert provider["folder"] == "Fraud"
    assert provider["allowUiUpdates"] is False
    assert provider["options"]["path"]


def test_scrape_interval_is_that_of_the_data_source() -> None:
    """Grafana derives the rate interval from it; below four scrapes a rate has gaps."""
    (source,) = yaml.safe_load((GRAFANA / "provisioning/datasources/prometheus.yml").read_text())[
        "datasources"
    ]
    prometheus = yaml.safe_load((ROOT / "monitoring/prometheus/prometheus.yml").read_text())
    assert source["jsonData"]["timeInterval"] == prometheus["global"]["scrape_interval"]
