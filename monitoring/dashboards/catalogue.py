"""All dashboards, and the files that are made of them and of the table of metrics."""

from __future__ import annotations

import json
from pathlib import Path

from monitoring.dashboards.drift import DRIFT
from monitoring.dashboards.funnel import FUNNEL
from monitoring.dashboards.models import MODELS
from monitoring.dashboards.operations import OPERATIONS
from monitoring.dashboards.overview import OVERVIEW
from monitoring.metrics import METRICS

DASHBOARDS = (OVERVIEW, MODELS, DRIFT, FUNNEL, OPERATIONS)

_HEADER = """# Metrics

What a worker tells Prometheus on `/metrics`, and which value means trouble; beside them stand `process_*` and
`python_info` of the client. Every label is bounded: values beyond the limit go to one child named `other`.
Known label values of counters and histograms are there with 0 from the start, a gauge once the worker has
something to say by it; a share of nothing is NaN. Histograms come as `_bucket`, `_sum` and `_count`. The
table is made from `monitoring/metrics.py` by `make generated`; what alerts ask of these metrics, and what
to do then, is in [runbook.md](runbook.md).

What is said to be of event time goes by the transactions, not by the clock, and one worker at a time
shows it. In a replay these gauges pass through the history as fast as it is read, and rest where it ends:
24 h are its last day, `1m` and `1h` are 0, for they hold transactions that reached Kafka within two
hours, and drift is that of the last hour that all partitions have left behind. The metrics topic keeps
every window ([records.md](records.md)). Counters, rates and latencies go by the clock.

`/livez` fails when messages wait and none is worked on, `/readyz` until every stage is in its group,
while no broker has answered anything for five seconds (one that says nothing is asked every second), and
while the champion fails; both say why.

| metric | kind | unit | labels | what | bad |
|---|---|---|---|---|---|
"""


def generated() -> dict[str, str]:
    """Every generated file: path from the root of the project, text."""
    files = {"docs/metrics.md": _metrics_table()}
    for dashboard in DASHBOARDS:
        text = json.dumps(dashboard.json(), indent=1, ensure_ascii=False) + "\n"
        files[f"monitoring/grafana/dashboards/{dashboard.uid}.json"] = text
    return files


def write(root: Path) -> list[Path]:
    """Writes the files below `root`; those that have changed."""
    changed = []
    for name, text in generated().items():
        path = root / name
        if not path.exists() or path.read_text() != text:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)
            changed.append(path)
    return changed


def _metrics_table() -> str:
    rows = []
    for metric in METRICS:
        labels = ", ".join(f"`{label}`" for label in metric.labels)
        cells = (f"`{metric.name}`", metric.kind, metric.unit, labels, metric.meaning, metric.bad)
        rows.append("| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |\n")
    return _HEADER + "".join(rows)
