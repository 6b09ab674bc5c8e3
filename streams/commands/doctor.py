"""`fraudstream doctor`."""

from __future__ import annotations

from pathlib import Path

import click
import msgspec

from streams.commands.options import BROKER, CONFIG, JSON, examples, run_async
from streams.commands.tables import printable

_MARKS = {"ok": "ok    ", "failed": "FAILED", "skipped": "-     "}


@click.command(
    short_help="Check versions, settings, broker, topics and models.",
    epilog=examples("doctor", "doctor --broker kafka:9092", "doctor --json | jq .ok"),
)
@CONFIG
@BROKER
@JSON
def doctor(config: Path | None, broker: str | None, as_json: bool) -> None:
    """Check versions, settings, broker, topics and models; a line for each, with the cure where one failed.

    Exit code 1 if a check failed. Nothing is changed.
    """
    from streams.commands.diagnosis import diagnose

    checks = run_async(diagnose(config, broker))
    well = all(check.status != "failed" for check in checks)
    if as_json:
        document = {"ok": well, "checks": [msgspec.structs.asdict(check) for check in checks]}
        click.echo(msgspec.json.encode(document))
    else:
        width = max(len(check.name) for check in checks)
        for check in checks:
            cure = f" — {check.cure}" if check.cure else ""
            click.echo(printable(f"{_MARKS[check.status]}  {check.name:<{width}}  {check.found}{cure}"))
    if not well:
        raise click.exceptions.Exit(1)
