"""`fraudstream traffic`: a simulated stream to a broker that others run."""

from __future__ import annotations

import json
import time
from typing import TYPE_CHECKING

import click
import msgspec

from streams.commands import options
from streams.commands.options import FiniteRange, examples, run_async, with_settings
from streams.history.faults import KINDS, Fault, ignored_from
from streams.settings import Settings
from streams.times import DAY

if TYPE_CHECKING:
    from streams.history.replay import ReplaySummary

DAYS = 30
_FAULTS = "\b\nFaults:\n" + "\n".join(f"  {kind:15} {what}" for kind, what in KINDS.items())
_EXAMPLES = examples(
    "traffic --rate 50",
    "traffic --transactions 1000000 --rate 500 --drift",
    "traffic --fault unit-change@12d --fault alerts-ignored@20d",
)


def _faults(_ctx: click.Context, _param: click.Parameter, given: tuple[str, ...]) -> tuple[Fault, ...]:
    found = []
    for text in given:
        kind, _, offset = text.partition("@")
        at = options.duration("--fault", offset or f"{DAYS // 2}d")
        if kind not in KINDS:
            raise click.BadParameter(f"{kind!r} is none of {', '.join(KINDS)}")
        if at >= DAYS * DAY:
            raise click.BadParameter(f"{text}: the stream ends after {DAYS} days")
        found.append(Fault(kind, at))
    return tuple(found)


@click.command(epilog=f"{_FAULTS}\n\n{_EXAMPLES}")
@click.option(
    "--transactions",
    type=click.IntRange(1000),
    default=1_000_000,
    show_default=True,
    help="Length of the stream.",
)
@click.option(
    "--rate",
    type=FiniteRange(0, min_open=True),
    default=100,
    show_default=True,
    help="Transactions a second.",
)
@click.option(
    "--seed", type=click.IntRange(0), default=1, show_default=True, help="Seed of the simulated stream."
)
@click.option("--drift", is_flag=True, help="Let the behaviour change in the middle of the stream.")
@click.option(
    "--fault",
    "faults",
    metavar="NAME[@OFFSET]",
    multiple=True,
    callback=_faults,
    help="Let something go wrong, so long after the start in event time (15d if not said); see below.",
)
@click.option(
    "--label-delay",
    metavar="DURATION",
    default="5d",
    show_default=True,
    help="Median time from a fraud to its report, for instance 12h or 3d.",
)
@with_settings(data=True)
def traffic(
    settings: Settings,
    transactions: int,
    rate: float,
    seed: int,
    drift: bool,
    faults: tuple[Fault, ...],
    label_delay: str,
    as_json: bool,
) -> None:
    """Publish a simulated stream with labels; answer its alerts.

    The stream is that of the 30 days before today, of event time that runs as fast as --rate makes it. For
    trying out workers and dashboards; on topics that hold other records it comes out as late.
    """
    delay = options.label_delay(settings, label_delay)
    summary = run_async(_traffic(settings, transactions, rate, seed, drift, faults, delay))
    if as_json:
        click.echo(json.dumps(msgspec.structs.asdict(summary)))
    else:
        click.echo(f"published {summary.transactions:,} transactions and {summary.labels:,} labels")


async def _traffic(
    settings: Settings,
    transactions: int,
    rate: float,
    seed: int,
    drift: bool,
    faults: tuple[Fault, ...],
    delay: int,
) -> ReplaySummary:
    from streams.history.simulator import Simulation, Simulator
    from streams.history.traffic import publish
    from streams.kafka.clients import connect, partitions_of
    from streams.kafka.connection import security_options
    from streams.kafka.outputs import Outputs

    await partitions_of(settings.broker, settings.topics.transactions)
    midnight = time.time_ns() // 1_000_000 // DAY * DAY
    simulation = Simulation(
        seed=seed,
        transactions=transactions,
        start=midnight - DAYS * DAY,
        days=DAYS,
        chargeback_days=max(delay, 1) / DAY,
        drift=drift,
        faults=faults,
    )
    outputs = Outputs(settings.broker.bootstrap, security=security_options(settings.broker))
    await connect(outputs, outputs.stop, settings.broker)
    try:
        return await publish(
            outputs,
            settings,
            Simulator(simulation).batches(),
            rate=rate,
            label_delay=delay,
            ignored_from=ignored_from(faults, simulation.start),
        )
    finally:
        await outputs.stop()
