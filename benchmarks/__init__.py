"""Runnable benchmarks: `python -m benchmarks.NAME --json`."""
