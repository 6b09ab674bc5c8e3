"""`fraudstream replay`: a history to Kafka."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

import click
import msgspec

from streams.commands import options
from streams.commands.options import (
    FILES,
    LABEL_DELAY,
    MAPPING,
    FiniteRange,
    examples,
    run_async,
    with_settings,
)
from streams.settings import Settings
from streams.times import rfc3339

if TYPE_CHECKING:
    from streams.history.replay import ReplaySummary


@click.command(
    short_help="Publish a history as transactions, with delayed labels.",
    epilog=examples(
        "replay august.parquet --rate 5000",
        "replay april.csv may.csv --mapping mine.toml --label-delay 3d",
        "replay august.parquet --speed 86400   # a day in a second",
    ),
)
@FILES
@click.option("--rate", type=FiniteRange(0, min_open=True), help="Transactions a second.")
@click.option(
    "--speed",
    type=FiniteRange(0, min_open=True),
    help="Event-time seconds in a second; 1 is as it happened.",
)
@LABEL_DELAY
@MAPPING
@with_settings(data=True)
def replay(
    settings: Settings,
    files: tuple[Path, ...],
    rate: float | None,
    speed: float | None,
    label_delay: str,
    mapping: str | None,
    as_json: bool,
) -> None:
    """Publish a history as transactions, with a label for every fraud when it would have been reported.

    FILES are CSV, Parquet or JSONL, in order; docs/histories.md says how columns become fields. Without
    --rate and --speed it goes as fast as the broker takes it. A record counts as published when the broker
    has acknowledged it.
    """
    if rate is not None and speed is not None:
        raise click.UsageError("--rate and --speed exclude each other")
    delay = options.label_delay(settings, label_delay)
    summary = run_async(_replay(settings, files, rate, speed, delay, mapping))
    if as_json:
        click.echo(json.dumps(msgspec.structs.asdict(summary)))
        return
    first, last = summary.first_event_time, summary.last_event_time
    span = ""
    if first is not None and last is not None:
        span = f", {rfc3339(first)[:16]} to {rfc3339(last)[:16]} UTC"
    click.echo(f"published {summary.transactions:,} transactions and {summary.labels:,} labels{span}")
    click.echo(f"{summary.duration_s:.1f} s, {summary.throughput_tps:,.0f} transactions a second")
    if summary.out_of_order:
        click.echo(f"{summary.out_of_order:,} transactions are earlier than one before them")


async def _replay(
    settings: Settings,
    files: tuple[Path, ...],
    rate: float | None,
    speed: float | None,
    label_delay: int,
    mapping: str | None,
) -> ReplaySummary:
    from streams.commands.progress import progress_bar
    from streams.history.reading import count_rows, read_history
    from streams.history.replay import Pace, ReplayTopics
    from streams.history.replay import replay as publish
    from streams.kafka.clients import connect, count_records, partitions_of
    from streams.kafka.connection import security_options
    from streams.kafka.outputs import Outputs

    topics = ReplayTopics(settings.topics.transactions, settings.topics.labels)
    await partitions_of(settings.broker, topics.labels)
    if held := await count_records(settings.broker, topics.transactions):
        options.warn(
            f"{topics.transactions} already holds {held:,} records: what is replayed again, or is older than "
            "they are, comes out as duplicate or late; for a fresh start delete all topics (the embedded "
            "broker forgets them when it stops), or name others, topics.internal_prefix too"
        )
    total = count_rows(files)
    outputs = Outputs(settings.broker.bootstrap, security=security_options(settings.broker))
    await connect(outputs, outputs.stop, settings.broker)
    try:
        with progress_bar("replay", total) as advance:
            return await publish(
                outputs,
                topics,
                read_history(files, mapping),
                label_delay=label_delay,
                pace=Pace(rate, speed),
                advance=advance,
            )
    finally:
        await outputs.stop()
