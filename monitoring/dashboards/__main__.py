"""Write the generated files: dashboards and the table of metrics."""

from __future__ import annotations

from pathlib import Path

from monitoring.dashboards.catalogue import write

for path in write(Path(__file__).resolve().parents[2]):
    print(path)
