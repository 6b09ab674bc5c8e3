"""`fraudstream alerts tail`; `alerts hold` and `alerts release` are in `model_moves.py`."""

from __future__ import annotations

from contextlib import aclosing

import click
import msgspec

from streams.commands.model_moves import hold, release
from streams.commands.options import examples, run_async, with_settings
from streams.commands.tables import printable
from streams.contract.currencies import EXPONENTS
from streams.contract.records import Alert
from streams.settings import Settings
from streams.times import rfc3339


@click.group()
def alerts() -> None:
    """Suspicious transactions as they come."""


for _command in (hold, release):
    alerts.add_command(_command)


@alerts.command(
    epilog=examples(
        "alerts tail",
        "alerts tail --from-beginning --limit 20",
        "alerts tail --json | jq -r '[.score, .card_id] | @tsv'",
    )
)
@click.option("--from-beginning", is_flag=True, help="Begin with the oldest alert on the topic.")
@click.option("--limit", type=click.IntRange(1), help="Stop after so many alerts.")
@with_settings(data=True)
def tail(settings: Settings, from_beginning: bool, limit: int | None, as_json: bool) -> None:
    """Print alerts as they are raised, one a line, until Ctrl-C.

    A line has event time, score, amount, card, terminal, alert id, and the features that raised the score,
    with their values, the strongest first. With --json it is the record as it is on the topic.
    """
    run_async(_tail(settings, from_beginning, limit, as_json), on_sigterm=0)


async def _tail(settings: Settings, from_beginning: bool, limit: int | None, as_json: bool) -> None:
    from streams.kafka.clients import follow

    shown = 0
    decoder = msgspec.json.Decoder(Alert)
    async with aclosing(
        follow(settings.broker, settings.topics.alerts, from_beginning=from_beginning)
    ) as records:
        async for record in records:
            if record.value is None:
                continue
            try:
                alert = decoder.decode(record.value)
            except msgspec.MsgspecError as error:
                where = f"{record.topic}[{record.partition}]@{record.offset}"
                click.echo(f"fraudstream: {where} is no alert: {error}", err=True)
                continue
            click.echo(msgspec.json.encode(alert) if as_json else line(alert))
            shown += 1
            if shown == limit:
                return


def line(alert: Alert) -> str:
    """An alert for people."""
    reasons = ", ".join(
        f"{reason.feature}={reason.value:g} ({reason.contribution:+.2f})" for reason in alert.reasons
    )
    digits = EXPONENTS.get(alert.currency, 0)
    text = (
        f"{rfc3339(alert.event_time)[:19]}Z  score {alert.score:.3f}"
        f"  {alert.amount_minor / 10**digits:,.{digits}f} {alert.currency}"
        f"  card {alert.card_id}  terminal {alert.terminal_id or '-'}"
        f"  {alert.model.name} v{alert.model.version}"
        f"  alert {alert.alert_id}  because {reasons or 'no reasons given'}"
    )
    return printable(text)
