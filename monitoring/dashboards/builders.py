"""Typed builders of Grafana dashboards: what a panel shows is said here in a line, its JSON is made.

The JSON is that of Grafana's classic dashboards (schema version 39), which file provisioning takes in every
version since 11. Panels flow from left to right, 24 columns to a line.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

Kind = Literal["timeseries", "stat", "table", "heatmap", "bargauge"]
Json = dict[str, Any]

SCHEMA_VERSION = 39
COLUMNS = 24
SOURCE: Json = {"type": "prometheus", "uid": "$datasource"}
#: Every expression has to use these two, so that it shows what was chosen.
CHOSEN = 'job=~"$job",instance=~"$instance"'


def select(name: str, *matchers: str) -> str:
    """The series of a metric that the dashboard's variables choose."""
    return f"{name}{{{','.join((CHOSEN, *matchers))}}}"


def of_workers(expression: str) -> str:
    """Those series of `expression` that come from workers: other processes have the client's metrics too."""
    return f"{expression} and on (job, instance) {select('fraud_build_info')}"


def recorded(name: str) -> str:
    """A recorded series: one for each job."""
    return f'{name}{{job=~"$job"}}'


def rate(name: str, *matchers: str, by: str = "") -> str:
    """Increase per second of a counter, summed up."""
    return f"sum{_by(by)} (rate({select(name, *matchers)}[$__rate_interval]))"


def increase(name: str, *matchers: str, by: str = "", over: str = "$__range") -> str:
    """Increase of a counter over a time, by default that shown, summed up."""
    return f"sum{_by(by)} (increase({select(name, *matchers)}[{over}]))"


def quantile(q: float, name: str, *matchers: str, by: str = "") -> str:
    """The q-quantile of a histogram over the rate interval."""
    groups = ", ".join(filter(None, (by, "le")))
    return f"histogram_quantile({q}, {rate(f'{name}_bucket', *matchers, by=groups)})"


def largest(name: str, *matchers: str, by: str = "") -> str:
    """The largest value of a gauge over the workers."""
    return f"max{_by(by)} ({select(name, *matchers)})"


def total(name: str, *matchers: str, by: str = "") -> str:
    """The sum of a gauge over the workers."""
    return f"sum{_by(by)} ({select(name, *matchers)})"


def _letter(number: int) -> str:
    """Grafana's name of a panel's query."""
    return chr(ord("A") + number)


def _by(groups: str) -> str:
    return f" by ({groups})" if groups else ""


@dataclass(frozen=True, slots=True)
class Query:
    """One PromQL expression and how its series are named.

    `may_be_empty` says why it may return nothing on a system that works; tests take no other excuse. With
    `share` its series are shares beside the panel's unit, and have an axis from 0 to 1.
    """

    expression: str
    legend: str
    may_be_empty: str = ""
    share: bool = False


@dataclass(frozen=True, slots=True)
class Panel:
    """One panel.

    Args:
        description: what is shown, and which value is bad.
        unit: Grafana's name of it: `s`, `percentunit`, `short`, `cps`, `bytes`, ...
        limit: the value from which it is bad, drawn as a line; stats turn red.
        low_is_bad: the values below `limit` are the bad ones.
        instant: only the present value of each series.
        whole: counts, of which an increase that Prometheus extrapolates is no whole number.
        column: heading of a table's value; without one the table shows labels only.
    """

    title: str
    description: str
    unit: str
    queries: tuple[Query, ...]
    kind: Kind = "timeseries"
    width: int = 12
    height: int = 8
    limit: float | None = None
    low_is_bad: bool = False
    stacked: bool = False
    instant: bool = False
    whole: bool = False
    column: str = ""

    def json(self, number: int, x: int, y: int) -> Json:
        return {
            "id": number,
            "type": self.kind,
            "title": self.title,
            "description": self.description,
            "datasource": SOURCE,
            "gridPos": {"h": self.height, "w": self.width, "x": x, "y": y},
            "fieldConfig": {"defaults": self._defaults(), "overrides": self._overrides()},
            "options": self._options(),
            "targets": [self._target(query, _letter(n)) for n, query in enumerate(self.queries)],
        } | ({"transformations": [self._columns()]} if self.kind == "table" else {})

    def _target(self, query: Query, name: str) -> Json:
        single = self.instant or self.kind in ("stat", "table", "bargauge")
        return {
            "refId": name,
            "datasource": SOURCE,
            "editorMode": "code",
            "expr": query.expression,
            "legendFormat": query.legend,
            "format": {"table": "table", "heatmap": "heatmap"}.get(self.kind, "time_series"),
            "instant": single,
            "range": not single,
        }

    def _defaults(self) -> Json:
        # A unit of all columns would read labels as numbers or dates.
        unit = "string" if self.kind == "table" else self.unit
        defaults: Json = {"unit": unit, "thresholds": self._thresholds()}
        if self.whole:
            defaults["decimals"] = 0
        if self.kind == "bargauge":
            defaults["min"] = 0  # on its own Grafana would give the smallest value a bar of no length
        if self.kind == "timeseries":
            defaults["custom"] = {
                "drawStyle": "line",
                "lineWidth": 1,
                "fillOpacity": 30 if self.stacked else 5,
                # A line over a gap would hide that a worker was away, or that there was nothing to share.
                "showPoints": "auto",
                "spanNulls": False,
                "stacking": {"mode": "normal" if self.stacked else "none", "group": "A"},
                "thresholdsStyle": {"mode": "off" if self.limit is None else "dashed"},
            }
            if self.limit is not None:
                defaults["custom"] |= {
                    "axisSoftMin": 0,
                    "axisSoftMax": self.limit,
                }  # the line is in the picture
        return defaults

    def _overrides(self) -> list[Json]:
        share = [{"id": "unit", "value": "percentunit"}, {"id": "min", "value": 0}, {"id": "max", "value": 1}]
        overrides: list[Json] = [
            {"matcher": {"id": "byFrameRefID", "options": _letter(n)}, "properties": share}
            for n, query in enumerate(self.queries)
            if query.share
        ]
        if self.column:
            unit = [{"id": "unit", "value": self.unit}]
            overrides.append({"matcher": {"id": "byName", "options": self.column}, "properties": unit})
        return overrides

    def _columns(self) -> Json:
        """Of a table, which has a column for each label: the time and the name say nothing to a person."""
        hidden = {"Time": True, "__name__": True, "Value": not self.column}
        renamed = {"Value": self.column} if self.column else {}
        return {"id": "organize", "options": {"excludeByName": hidden, "renameByName": renamed}}

    def _thresholds(self) -> Json:
        good, bad = ("red", "green") if self.low_is_bad else ("green", "red")
        steps: list[Json] = [{"color": good if self.limit is not None else "green", "value": None}]
        if self.limit is not None:
            steps.append({"color": bad, "value": self.limit})
        return {"mode": "absolute", "steps": steps}

    def _options(self) -> Json:
        if self.kind == "timeseries":
            legend = {"displayMode": "table", "placement": "bottom", "calcs": ["lastNotNull", "max"]}
            return {"legend": legend | {"showLegend": True}, "tooltip": {"mode": "multi", "sort": "desc"}}
        if self.kind == "heatmap":
            colour = {"mode": "scheme", "scheme": "Blues"}
            return {"calculate": False, "color": colour, "yAxis": {"unit": self.unit}}
        if self.kind == "table":
            return {"showHeader": True}
        reduce: Json = {"reduceOptions": {"calcs": ["lastNotNull"], "fields": "", "values": False}}
        if self.kind == "bargauge":
            # Names of many bars are read from left to right; on its own Grafana would stand them up.
            return reduce | {"orientation": "horizontal"}
        return reduce | {"orientation": "auto", "textMode": "auto"}


@dataclass(frozen=True, slots=True)
class Row:
    """A headline and the panels below it."""

    title: str
    panels: tuple[Panel, ...]


@dataclass(frozen=True, slots=True)
class Choice:
    """A variable of the dashboard: the values of a label of a metric."""

    name: str
    label: str
    metric: str
    of: str

    def json(self) -> Json:
        query = f"label_values({self.metric}, {self.of})"
        if self.name == "instance":
            query = f'label_values({self.metric}{{job=~"$job"}}, {self.of})'
        elif self.name != "job":
            query = f"label_values({select(self.metric)}, {self.of})"
        return {
            "type": "query",
            "name": self.name,
            "label": self.label,
            "datasource": SOURCE,
            "query": {"query": query, "refId": f"{self.name}-values"},
            "definition": query,
            "refresh": 2,
            "sort": 1,
            "multi": True,
            "includeAll": True,
            "allValue": ".+",
            "current": {"selected": True, "text": ["All"], "value": ["$__all"]},
        }


@dataclass(frozen=True, slots=True)
class Mark:
    """An annotation: drawn into every panel where the expression has a value."""

    name: str
    expression: str
    title: str
    text: str
    colour: str
    may_be_empty: str

    def json(self) -> Json:
        return {
            "name": self.name,
            "datasource": SOURCE,
            "enable": True,
            "expr": self.expression,
            "titleFormat": self.title,
            "textFormat": self.text,
            "iconColor": self.colour,
            "step": "60s",
        }


_COMMON = (
    Choice("job", "Job", "fraud_build_info", "job"),
    Choice("instance", "Instance", "fraud_build_info", "instance"),
)
_CHAMPION = 'max by (name, version) (fraud_model_info{job=~"$job",role="champion"}'
MARKS = (
    Mark(
        "Promotions and rollbacks",
        f"{_CHAMPION}) unless {_CHAMPION} offset 5m)",
        "Champion {{name}} v{{version}}",
        "Another model or version decides from here on.",
        "blue",
        "the champion changes seldom",
    ),
    Mark(
        "Alarms",
        'max by (alertname, severity, cause) (ALERTS{alertstate="firing",alertname=~"Fraud.+"})',
        "{{alertname}}",
        "{{severity}}, cause {{cause}}",
        "red",
        "nothing is wrong",
    ),
    Mark(
        "Drift",
        'sum by (kind) (increase(fraud_drift_alarms_total{job=~"$job"}[5m])) > 0',
        "Drift: {{kind}}",
        "A detector has raised an alarm.",
        "orange",
        "nothing drifts",
    ),
)


@dataclass(frozen=True, slots=True)
class Dashboard:
    """One dashboard; `uid` is what links and alerts name it by, and never changes."""

    uid: str
    title: str
    description: str
    rows: tuple[Row, ...]
    choices: tuple[Choice, ...] = ()
    since: str = "now-6h"

    @property
    def panels(self) -> list[Panel]:
        return [panel for row in self.rows for panel in row.panels]

    def expressions(self) -> list[str]:
        """Every PromQL expression of panels and annotations."""
        queries = [query.expression for panel in self.panels for query in panel.queries]
        return queries + [mark.expression for mark in MARKS]

    def json(self) -> Json:
        return {
            "uid": self.uid,
            "id": None,
            "title": self.title,
            "description": self.description,
            "tags": ["fraudstream"],
            "schemaVersion": SCHEMA_VERSION,
            "version": 1,
            "editable": False,
            "graphTooltip": 1,
            "refresh": "30s",
            "time": {"from": self.since, "to": "now"},
            "timezone": "utc",
            "links": [
                {
                    "type": "dashboards",
                    "title": "fraudstream",
                    "tooltip": "",
                    "icon": "external link",
                    "tags": ["fraudstream"],
                    "asDropdown": True,
                    "includeVars": True,
                    "keepTime": True,
                    "targetBlank": False,
                }
            ],
            "templating": {"list": [_DATASOURCE, *(each.json() for each in (*_COMMON, *self.choices))]},
            "annotations": {"list": [mark.json() for mark in MARKS]},
            "panels": _laid_out(self.rows),
        }


_DATASOURCE: Json = {
    "type": "datasource",
    "name": "datasource",
    "label": "Data source",
    "query": "prometheus",
    "current": {"selected": False, "text": "Prometheus", "value": "prometheus"},
}


def _laid_out(rows: Sequence[Row]) -> list[Json]:
    panels: list[Json] = []
    y = 0
    for row in rows:
        position = {"h": 1, "w": COLUMNS, "x": 0, "y": y}
        headline = {"id": len(panels) + 1, "type": "row", "title": row.title, "collapsed": False}
        panels.append(headline | {"gridPos": position, "panels": []})
        y, x, tallest = y + 1, 0, 0
        for panel in row.panels:
            if x + panel.width > COLUMNS:
                y, x, tallest = y + tallest, 0, 0
            panels.append(panel.json(len(panels) + 1, x, y))
            x, tallest = x + panel.width, max(tallest, panel.height)
        y += tallest
    return panels
