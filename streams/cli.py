"""The command line. Every command reads the same settings; `fraudstream COMMAND --help` says what it does.

Exit codes: 0 done, 1 failed, 2 wrong usage, 130 ended by Ctrl-C, 143 ended by SIGTERM before it was done (0
where there is no end: `broker`, `worker`, `alerts tail`). Results go to stdout, progress and messages to
stderr.
"""

from __future__ import annotations

import asyncio
import json
import os
import signal
from pathlib import Path
from typing import Any

import click

from streams import logs
from streams.commands import options
from streams.commands.alerts import alerts
from streams.commands.config_command import config
from streams.commands.dead_letters import dead_letters
from streams.commands.doctor import doctor
from streams.commands.models import models
from streams.commands.options import (
    BROKER,
    CONFIG,
    DATE,
    FILES,
    INTERRUPTED,
    LABEL_DELAY,
    MAPPING,
    FiniteRange,
    examples,
    moment,
    run_async,
    with_settings,
)
from streams.commands.replay import replay
from streams.commands.topics import topics
from streams.commands.traffic import traffic
from streams.errors import FraudstreamError, TopicMismatch, TopicMissing
from streams.settings import Settings, load
from streams.times import rfc3339


class _Group(click.Group):
    """Turns errors of ours and of the outside world into a line and exit code 1, Ctrl-C into 130."""

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except FraudstreamError as error:
            click.echo(f"fraudstream: {error}", err=True)
            ctx.exit(1)
        except BrokenPipeError:
            raise  # click ends quietly: whoever reads our output has had enough
        except OSError as error:
            click.echo(f"fraudstream: {type(error).__name__}: {error}", err=True)
            ctx.exit(1)
        except (KeyboardInterrupt, asyncio.CancelledError):
            ctx.exit(INTERRUPTED)
        except Exception as error:
            if not _is_kafka_error(error):
                raise  # a fault of ours: the traceback is wanted
            click.echo(f"fraudstream: Kafka: {type(error).__name__}: {error}", err=True)
            ctx.exit(1)


def _is_kafka_error(error: Exception) -> bool:
    """Whether aiokafka raised it; asked without importing aiokafka, which not every command needs."""
    return any(kind.__module__ == "aiokafka.errors" for kind in type(error).__mro__)


@click.group(cls=_Group, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(package_name="fraudstream")
@click.option(
    "--log-level",
    type=click.Choice(list(logs.LEVELS)),
    default="notice",
    show_default=True,
    help="Least that is logged, on stderr; notice is warnings and what a command says of itself.",
)
def main(log_level: logs.Level) -> None:
    """Score card transactions on Kafka with a champion and shadow models that learn from late labels."""
    logs.configure(log_level)


def _stages(_ctx: click.Context, _param: click.Parameter, value: str) -> tuple[str, ...]:
    from streams.app import STAGES

    chosen = tuple(dict.fromkeys(name.strip() for name in value.split(",") if name.strip()))
    unknown = [name for name in chosen if name not in STAGES]
    if unknown or not chosen:
        given = ", ".join(unknown) or "nothing given"
        raise click.BadParameter(f"unknown: {given}; known are {', '.join(STAGES)}")
    return chosen


@main.command(
    epilog=examples(
        "worker",
        "worker --stages card,score --metrics-port 9465",
        "worker --config fraud.toml --broker kafka:9092",
        "--log-level debug worker",
    )
)
@click.option(
    "--stages",
    callback=_stages,
    default="card,score,label,learn,observe",
    show_default=True,
    help="The stages this worker runs.",
)
@click.option(
    "--metrics-port",
    type=click.IntRange(0, 65_535),
    help="Port of /metrics, /livez, /readyz, /live; 0 for a free one; overrides worker.metrics_port (9464).",
)
@CONFIG
@BROKER
def worker(
    stages: tuple[str, ...], metrics_port: int | None, config: Path | None, broker: str | None
) -> None:
    """Run stages until SIGTERM or Ctrl-C.

    Start as many workers as you like: partitions are spread over all workers that run a stage. The topics
    have to exist (`topics create`).
    """
    from streams.kafka.hosting import StopTimedOut
    from streams.worker import BrokerLost, run

    settings = load(config, {"broker.bootstrap": broker, "worker.metrics_port": metrics_port})
    run_async(_require_topics(settings), on_sigterm=0)
    try:
        received = run_async(run(settings, stages), on_sigterm=0)
    except (BrokerLost, StopTimedOut) as error:
        click.echo(f"fraudstream: {error}", err=True)
        os._exit(1)  # what still waits in threads would keep the process alive
    if received == signal.SIGINT:
        raise click.exceptions.Exit(INTERRUPTED)


async def _require_topics(settings: Settings) -> None:
    """Refuse to start where a worker would wait for topics, or restore state of other partitions."""
    from streams.commands.admin import describe_topics

    presences = await describe_topics(settings)
    missing = [each.topic.name for each in presences if not each.partitions]
    if missing:
        raise TopicMissing(
            f"missing at {settings.broker.bootstrap}: {', '.join(missing)}; "
            "create them: `fraudstream topics create`"
        )
    for each in presences:
        if each.partitions != each.topic.partitions:
            raise TopicMismatch(
                f"{each.topic.name} has {each.partitions} partitions, "
                f"the settings say {each.topic.partitions}"
            )


@main.command(
    short_help="Run the embedded broker, for trying things out.",
    epilog=examples("broker --port 9092", "broker --port 0"),
)
@click.option(
    "--port",
    type=click.IntRange(0, 65_535),
    default=None,
    help="Port to listen on; 0 takes a free one.  [default: that of broker.bootstrap, 9092]",
)
@with_settings()
def broker(settings: Settings, port: int | None) -> None:
    """Run the embedded broker in the foreground, for trying things out.

    It listens on this machine alone, where the other commands look for it with the same settings. It speaks
    Kafka's protocol and keeps everything in memory: when it stops, topics and offsets are gone.
    """
    from streams.kafka.broker import run_in_foreground

    if port is None:
        port = int(settings.broker.bootstrap.split(",")[0].rpartition(":")[2])
    code = run_in_foreground(port, started=lambda address: click.echo(f"listening on {address}", err=True))
    raise click.exceptions.Exit(code)


@main.command(
    short_help="Score a history without a broker; print AUC, AP, CP@100.",
    epilog=examples(
        "backtest history.parquet --from 2018-08-08 --to 2018-09-05",
        "backtest a.csv b.csv --mapping mine.toml --json",
    ),
)
@FILES
@click.option("--from", "start", type=DATE, callback=moment, help="Evaluate from this date on (UTC).")
@click.option("--to", "end", type=DATE, callback=moment, help="Stop before this date (UTC).")
@LABEL_DELAY
@MAPPING
@click.option(
    "--analysts",
    type=click.IntRange(0),
    default=0,
    help="Alerts investigated a day, the highest scores first; the truth about them is back a day later.",
)
@click.option(
    "--scores",
    type=click.Path(dir_okay=False, path_type=Path),
    help="Write every score to this Parquet file.",
)
@with_settings(data=True)
def backtest(
    settings: Settings,
    files: tuple[Path, ...],
    start: int | None,
    end: int | None,
    label_delay: str,
    mapping: str | None,
    analysts: int,
    scores: Path | None,
    as_json: bool,
) -> None:
    """Score a history as if it were live, without a broker; print AUC, AP and CP@100 by model and week.

    FILES are CSV, Parquet or JSONL, in order; docs/histories.md says how columns become fields, and what the
    figures and their intervals mean. Everything before --from warms the windows and the models up.
    """
    from streams.commands.progress import progress_bar
    from streams.contract.transaction_columns import between
    from streams.feature_settings import feature_spec
    from streams.history import backtest_report
    from streams.history.backtest import Backtest
    from streams.history.reading import count_rows, id_column, read_history

    if start is not None and end is not None and start >= end:
        raise click.UsageError("--from is not before --to")
    delay = options.label_delay(settings, label_delay)
    run = Backtest(settings, feature_spec(settings), label_delay=delay, analysts=analysts)
    batches = read_history(files, mapping)
    if end is not None:
        batches = between(batches, 0, end)
    with progress_bar("backtest", count_rows(files)) as advance:
        result = run.run(batches, advance)
    if scores is not None:
        backtest_report.write_scores(result, scores, id_column(files, mapping))
    document = backtest_report.report(result, start, end, delay)
    if not document["evaluated"]:
        times = result.event_time
        held = (
            f"is from {rfc3339(int(times.min()))} to {rfc3339(int(times.max()))}"
            if len(times)
            else "is empty"
        )
        options.warn(f"nothing to evaluate: what was scored of the history {held}; see --from and --to")
    if as_json:
        click.echo(json.dumps(document))
    else:
        backtest_report.show(document)


@main.command(
    short_help="Run everything on this machine for a simulated stream.",
    epilog=examples(
        "demo --transactions 20000 --json",
        "demo --rate 0 --drift",
        "demo --data payments.csv --mapping payments.toml --config fraud.toml",
    ),
)
@click.option(
    "--transactions",
    type=click.IntRange(1000),
    default=60_000,
    show_default=True,
    help="Length of the stream.",
)
@click.option(
    "--rate",
    type=FiniteRange(0),
    default=3000,
    show_default=True,
    help="Transactions a second; 0 for as many as it can.",
)
@click.option(
    "--seed", type=click.IntRange(0), default=1, show_default=True, help="Seed of the simulated stream."
)
@click.option("--drift", is_flag=True, help="Let the behaviour change in the middle of the simulated stream.")
@click.option(
    "--data",
    "files",
    multiple=True,
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="A history instead of the simulation; may be repeated.",
)
@LABEL_DELAY
@MAPPING
@click.option("--config", type=click.Path(dir_okay=False, path_type=Path), help="TOML file with settings.")
@click.option("--json", "as_json", is_flag=True, help="Print the summary as JSON.")
def demo(
    transactions: int,
    rate: float,
    seed: int,
    drift: bool,
    files: tuple[Path, ...],
    label_delay: str,
    mapping: str | None,
    config: Path | None,
    as_json: bool,
) -> None:
    """Run everything on this machine: broker, stages, a stream with delayed labels and analysts, a summary.

    The stream lasts 30 days of event time. Exit code 0 only if every transaction published is accounted for.

    The broker is its own, an embedded one. For the same on yours, run `topics create`, `worker` and `traffic`
    with --broker HOST:PORT.
    """
    from streams import demo as whole
    from streams import demo_tally
    from streams.history.reading import count_rows, read_history
    from streams.history.simulator import Simulation, Simulator

    settings = load(config)
    if files:
        total = count_rows(files)
        batches = read_history(files, mapping)
    else:
        total = transactions
        batches = Simulator(Simulation(seed=seed, transactions=transactions, drift=drift)).batches()
    delay = options.label_delay(settings, label_delay)
    summary = run_async(
        whole.run(settings, batches, total=total, rate=rate, label_delay=delay, config=config)
    )
    if as_json:
        click.echo(json.dumps(summary))
    else:
        demo_tally.show(summary)
    if summary["unaccounted"]:
        raise click.exceptions.Exit(1)


for _command in (topics, replay, traffic, alerts, dead_letters, models, config, doctor):
    main.add_command(_command)


if __name__ == "__main__":
    main()
