"""Options that commands share, and how a command runs asynchronous work."""

from __future__ import annotations

import asyncio
import math
import signal
import threading
from collections.abc import Callable, Coroutine
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, TypeVar

import click

from streams.settings import Settings, load
from streams.times import duration_ms, duration_text

T = TypeVar("T")

INTERRUPTED = 128 + signal.SIGINT
"""Exit code after Ctrl-C."""


class FiniteRange(click.FloatRange):
    """A range without NaN, which passes every comparison, and without infinity, which never comes."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        number = super().convert(value, param, ctx)
        if not math.isfinite(number):
            self.fail(f"{value} is not a finite number.", param, ctx)
        return number


CONFIG = click.option(
    "--config",
    type=click.Path(dir_okay=False, path_type=Path),
    help="TOML file with settings; FRAUD_CONFIG names one too.",
)
BROKER = click.option("--broker", metavar="HOST:PORT", help="Kafka broker; overrides broker.bootstrap.")
JSON = click.option("--json", "as_json", is_flag=True, help="Print the result as JSON.")

FILES = click.argument(
    "files", nargs=-1, required=True, type=click.Path(exists=True, dir_okay=False, path_type=Path)
)
MAPPING = click.option(
    "--mapping",
    metavar="NAME|FILE",
    help="Ready mapping by name, or a TOML file (docs/histories.md); detected from the columns if left out.",
)
LABEL_DELAY = click.option(
    "--label-delay",
    metavar="DURATION",
    default="7d",
    show_default=True,
    help="How long after its transaction a fraud is reported, for instance 12h or 3d.",
)


def with_settings(*, data: bool = False) -> Callable[[Callable[..., T]], Callable[..., T]]:
    """Adds `--config` and `--broker` (and `--json`), and passes the loaded settings as `settings`."""

    def decorate(command: Callable[..., T]) -> Callable[..., T]:
        def run(config: Path | None, broker: str | None, **arguments: Any) -> T:
            return command(settings=load(config, {"broker.bootstrap": broker}), **arguments)

        run.__name__, run.__doc__ = command.__name__, command.__doc__
        run.__click_params__ = getattr(command, "__click_params__", [])  # type: ignore[attr-defined]
        for option in (CONFIG, BROKER, *([JSON] if data else [])):
            run = option(run)
        return run

    return decorate


def run_async(work: Coroutine[Any, Any, T], *, on_sigterm: int = 128 + signal.SIGTERM) -> T:
    """Run to the end; Ctrl-C and SIGTERM cancel, so that what has been opened is closed.

    Args:
        on_sigterm: exit code after SIGTERM; 0 for a command that has no end of its own.

    Raises:
        KeyboardInterrupt: after Ctrl-C.
        Exit: after SIGTERM.
    """

    async def stoppable() -> T:
        task = asyncio.current_task()
        terminated = False

        def terminate() -> None:
            nonlocal terminated
            terminated = True
            assert task is not None
            task.cancel()

        if threading.current_thread() is threading.main_thread():
            asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, terminate)
        try:
            return await work
        except asyncio.CancelledError:
            if terminated:
                raise click.exceptions.Exit(on_sigterm) from None
            raise

    return asyncio.run(stoppable())


def duration(option: str, text: str) -> int:
    """Milliseconds of a duration given as `option`; a wrong one is wrong usage."""
    try:
        return duration_ms(text)
    except ValueError as error:
        raise click.BadParameter(str(error), param_hint=option) from None


def label_delay(settings: Settings, text: str) -> int:
    """Milliseconds of `--label-delay`; one that no label could be in time with is warned of."""
    delay = duration("--label-delay", text)
    if delay > settings.labels.maturity:
        maturity = duration_text(settings.labels.maturity)
        warn(
            f"--label-delay {text} is longer than labels.maturity ({maturity}): by then transactions count "
            "as genuine and their labels are ignored; raise labels.maturity, and topics.retention above it"
        )
    return delay


def warn(sentence: str) -> None:
    """A line on stderr about something that goes on all the same."""
    click.echo(f"fraudstream: warning: {sentence}", err=True)


def moment(_ctx: click.Context, _param: click.Parameter, value: datetime | None) -> int | None:
    """Callback: epoch milliseconds of a time without a zone, which is UTC."""
    return None if value is None else int(value.replace(tzinfo=UTC).timestamp() * 1000)


DATE = click.DateTime(["%Y-%m-%d", "%Y-%m-%dT%H:%M:%S", "%Y-%m-%dT%H:%M:%SZ"])


def examples(*lines: str) -> str:
    """An epilog with command lines, which click must not rewrap."""
    return "\b\nExamples:\n" + "\n".join(f"  fraudstream {line}" for line in lines)
