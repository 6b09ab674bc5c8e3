"""A page that shows what a worker does, for those without Grafana."""
