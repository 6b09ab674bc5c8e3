"""The command line. Every command reads the same settings; `fraudstream COMMAND --help` says what it does.

Exit codes: 0 done, 1 failed, 2 wrong usage, 130 interrupted. Results go to stdout, progress and messages to stderr.
"""

from __future__ import annotations

import asyncio
import json
import logging
import sys
from collections.abc import Callable, Coroutine
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, TypeVar

import click

from streams.errors import FraudstreamError
from streams.settings import Settings, load
from streams.times import duration_ms

T = TypeVar("T")
_LEVELS = ("debug", "info", "warning", "error")


class _Group(click.Group):
    """Turns our errors into a line and exit code 1."""

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except FraudstreamError as error:
            click.echo(f"fraudstream: {error}", err=True)
            ctx.exit(1)
        except OSError as error:
            click.echo(f"fraudstream: {type(error).__name__}: {error}", err=True)
            ctx.exit(1)
        except (KeyboardInterrupt, asyncio.CancelledError):
            ctx.exit(130)


@click.group(cls=_Group, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(package_name="fraudstream")
@click.option("--log-level", type=click.Choice(_LEVELS), default="warning", show_default=True)
def main(log_level: str) -> None:
    """Score card transactions on Kafka with a champion and shadow models that learn from late labels."""
    logging.basicConfig(
        level=log_level.upper(), stream=sys.stderr, format="%(asctime)s %(levelname)s %(name)s: %(message)s"
    )
    # Faust's start-up spinner leaves the root logger at DEBUG, which costs an eighth of the time.
    for name in ("faust", "mode", "aiokafka", "kafka"):
        logging.getLogger(name).setLevel(max(logging.WARNING, logging.getLevelName(log_level.upper())))


def with_settings(*, data: bool = False) -> Callable[[Callable[..., T]], Callable[..., T]]:
    """Adds `--config` and `--broker` (and `--json`), and passes the loaded settings as `settings`."""

    def decorate(command: Callable[..., T]) -> Callable[..., T]:
        def run(config: Path | None, broker: str | None, **arguments: Any) -> T:
            return command(settings=load(config, {"broker.bootstrap": broker}), **arguments)

        run.__name__, run.__doc__ = command.__name__, command.__doc__
        run.__click_params__ = getattr(command, "__click_params__", [])  # type: ignore[attr-defined]
        options = [
            click.option(
                "--config",
                type=click.Path(dir_okay=False, path_type=Path),
                help="TOML file with settings; FRAUD_CONFIG names one too.",
            ),
            click.option("--broker", metavar="HOST:PORT", help="Kafka broker; overrides broker.bootstrap."),
        ]
        if data:
            options.append(click.option("--json", "as_json", is_flag=True, help="Print the result as JSON."))
        for option in options:
            run = option(run)
        return run

    return decorate


def run_async(work: Coroutine[Any, Any, T]) -> T:
    """Run to the end; Ctrl-C cancels."""
    return asyncio.run(work)


def _stages(_ctx: click.Context, _param: click.Parameter, value: str) -> tuple[str, ...]:
    from streams.app import STAGES

    chosen = tuple(dict.fromkeys(name.strip() for name in value.split(",") if name.strip()))
    unknown = [name for name in chosen if name not in STAGES]
    if unknown or not chosen:
        raise click.BadParameter(f"unknown: {', '.join(unknown) or 'nothing given'}; known are {', '.join(STAGES)}")
    return chosen


@main.command()
@click.option(
    "--stages", callback=_stages, default="card,score,label,learn,observe", show_default=True,
    help="The stages this worker runs.",
)  # fmt: skip
@click.option("--metrics-port", type=int, help="Port of /metrics, /livez and /readyz; 0 takes a free one.")
@click.option("--config", type=click.Path(dir_okay=False, path_type=Path), help="TOML file with settings.")
@click.option("--broker", metavar="HOST:PORT", help="Kafka broker; overrides broker.bootstrap.")
def worker(stages: tuple[str, ...], metrics_port: int | None, config: Path | None, broker: str | None) -> None:
    """Run stages until SIGTERM or Ctrl-C.

    Start as many workers as you like: partitions are spread over all workers that run a stage.
    """
    from streams.worker import run

    settings = load(config, {"broker.bootstrap": broker, "worker.metrics_port": metrics_port})
    run_async(run(settings, stages))


@main.command()
@click.option("--port", type=int, default=9092, show_default=True, help="Port to listen on; 0 takes a free one.")
def broker(port: int) -> None:
    """Run the embedded broker in the foreground: Kafka's protocol, everything in memory, for trying things out."""
    from streams.broker import run_in_foreground

    run_in_foreground(port, started=lambda address: click.echo(f"listening on {address}", err=True))


@main.group()
def topics() -> None:
    """The topic catalogue."""


@topics.command("create")
@with_settings(data=True)
def topics_create(settings: Settings, as_json: bool) -> None:
    """Create every topic that does not exist; may be repeated."""
    from streams import admin

    created = run_async(admin.create_topics(settings))
    admin.show_created(created, as_json)


@topics.command("list")
@with_settings(data=True)
def topics_list(settings: Settings, as_json: bool) -> None:
    """List the topics with key, partitions, clean-up, writers and readers, and whether they exist."""
    from streams import admin

    admin.show_topics(run_async(admin.describe_topics(settings)), as_json)


_FILES = click.argument(
    "files", nargs=-1, required=True, type=click.Path(exists=True, dir_okay=False, path_type=Path)
)
_MAPPING = click.option(
    "--mapping", help="Ready mapping by name, or a TOML file; detected from the columns if left out."
)
_LABEL_DELAY = click.option(
    "--label-delay", default="7d", show_default=True, help="When a fraud is reported, if the history does not say."
)


def _moment(_ctx: click.Context, _param: click.Parameter, value: datetime | None) -> int | None:
    return None if value is None else int(value.replace(tzinfo=UTC).timestamp() * 1000)


_DATE = click.DateTime(["%Y-%m-%d", "%Y-%m-%dT%H:%M:%S"])


@main.command()
@_FILES
@click.option("--from", "start", type=_DATE, callback=_moment, help="Evaluate from this date on (UTC).")
@click.option("--to", "end", type=_DATE, callback=_moment, help="Stop before this date (UTC).")
@_LABEL_DELAY
@_MAPPING
@click.option(
    "--scores", type=click.Path(dir_okay=False, path_type=Path), help="Write every score to this Parquet file."
)
@with_settings(data=True)
def backtest(
    settings: Settings,
    files: tuple[Path, ...],
    start: int | None,
    end: int | None,
    label_delay: str,
    mapping: str | None,
    scores: Path | None,
    as_json: bool,
) -> None:
    """Score a history as if it were live, without a broker, and print AUC, AP and CP@100 of every model.

    FILES are CSV, Parquet or JSONL, in order. Everything before --from warms the windows and the models up.
    """
    from streams import backtest_report
    from streams.app import feature_spec
    from streams.backtest import Backtest
    from streams.histories import count_rows, id_column, read_history
    from streams.progress import progress_bar
    from streams.transaction_columns import between

    run = Backtest(settings, feature_spec(settings), label_delay=_duration("--label-delay", label_delay))
    batches = read_history(files, mapping)
    if end is not None:
        batches = between(batches, 0, end)
    with progress_bar("backtest", count_rows(files)) as advance:
        result = run.run(batches, advance)
    if scores is not None:
        backtest_report.write_scores(result, scores, id_column(files, mapping))
    document = backtest_report.report(result, start, end)
    if as_json:
        click.echo(json.dumps(document))
    else:
        backtest_report.show(document)


@main.command()
@click.option("--transactions", type=click.IntRange(1000), default=60_000, show_default=True, help="Length of the stream.")
@click.option("--rate", type=click.FloatRange(0), default=3000, show_default=True, help="Transactions a second; 0 for as many as it can.")
@click.option("--seed", type=click.IntRange(0), default=1, show_default=True, help="Seed of the simulated stream.")
@click.option("--drift", is_flag=True, help="Let the behaviour change in the middle of the simulated stream.")
@click.option("--data", "files", multiple=True, type=click.Path(exists=True, dir_okay=False, path_type=Path), help="A history instead of the simulation; may be repeated.")
@_LABEL_DELAY
@_MAPPING
@click.option("--config", type=click.Path(dir_okay=False, path_type=Path), help="TOML file with settings.")
@click.option("--json", "as_json", is_flag=True, help="Print the summary as JSON.")
def demo(
    transactions: int, rate: float, seed: int, drift: bool, files: tuple[Path, ...], label_delay: str, mapping: str | None,
    config: Path | None, as_json: bool,
) -> None:  # fmt: skip
    """Run everything on this machine: broker, all stages, a stream with delayed labels and analysts, then a summary.

    The stream lasts 30 days of event time. Exit code 0 only if every transaction published is accounted for.
    """
    from streams import demo as whole
    from streams.histories import count_rows, read_history
    from streams.simulator import Simulation, Simulator

    settings = load(config)
    if files:
        total = count_rows(files)
        batches = read_history(files, mapping)
    else:
        total = transactions
        batches = Simulator(Simulation(seed=seed, transactions=transactions, drift=drift)).batches()
    delay = _duration("--label-delay", label_delay)
    summary = run_async(whole.run(settings, batches, total=total, rate=rate, label_delay=delay))
    if as_json:
        click.echo(json.dumps(summary))
    else:
        whole.show(summary)
    if summary["unaccounted"]:
        raise click.exceptions.Exit(1)


def _duration(option: str, text: str) -> int:
    try:
        return duration_ms(text)
    except ValueError as error:
        raise click.BadParameter(str(error), param_hint=option) from None


if __name__ == "__main__":
    main()
