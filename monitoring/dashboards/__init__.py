"""Grafana dashboards as code: `python -m monitoring.dashboards` writes the committed JSON."""
