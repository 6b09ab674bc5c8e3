"""The commands that move models, judge them, and list the moves; and those that hold alerts back."""

from __future__ import annotations

import getpass
import json
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TypeVar

import click

from streams.commands.options import FiniteRange, examples, run_async, with_settings
from streams.commands.tables import figure, row, show, table
from streams.times import rfc3339

if TYPE_CHECKING:
    from models.registry import Aliases, Kind, Move, Pin
    from streams.commands.moving import Choice
    from streams.settings import Settings

T = TypeVar("T")


def _user() -> str:
    try:
        return getpass.getuser()
    except (OSError, KeyError):  # a container without an entry for its user
        return "unknown"


def _moving(command: Callable[..., T]) -> Callable[..., T]:
    """The options of every command that makes a move."""
    for option in (
        click.option("--reason", default="", help="Why, for the history."),
        click.option("--who", default=_user, show_default="the user", help="Who, for the history."),
        click.option(
            "--wait",
            "seconds",
            type=FiniteRange(0),
            default=15.0,
            show_default=True,
            help="Seconds to wait until every partition uses it.",
        ),
    ):
        command = option(command)
    return command


def _pin(_ctx: click.Context, _param: click.Parameter, value: str | None) -> Pin | None:
    from streams.commands.candidates import pin_of

    try:
        return None if value is None else pin_of(value)
    except ValueError as error:
        raise click.BadParameter(str(error)) from None


FORCE = click.option("--force", is_flag=True, help="Also if it fails a gate on stored outcomes.")
MODEL = click.argument("model", metavar="NAME[/VERSION]", callback=_pin)


@click.command(
    short_help="Make a model the champion.",
    epilog=examples("models promote forest", "models promote forest/12 --reason 'AP up'"),
)
@MODEL
@FORCE
@_moving
@with_settings(data=True)
def promote(settings: Settings, model: Pin, **how: Any) -> None:
    """Make a model the champion: at the version given, or following its newest one.

    The former champion scores on as a shadow. A canary ends.
    """
    _move(settings, "promote", _always(model), **how)


@click.command(
    short_help="Give the last champion its place back.",
    epilog=examples("models rollback", "models rollback --to binned/11"),
)
@click.option(
    "--to", "model", metavar="NAME[/VERSION]", callback=_pin, help="Another target than the last one."
)
@_moving
@with_settings(data=True)
def rollback(settings: Settings, model: Pin | None, **how: Any) -> None:
    """Give the last champion its place back; without one, the version before that of the champion."""
    from streams.commands.candidates import newest, read_documents
    from streams.commands.moving import MoveFailed

    async def target(aliases: Aliases) -> Pin:
        if model is not None:
            return model
        if aliases.former:
            return aliases.former[-1]
        champion = aliases.champion
        documents = await read_documents(settings, champion.name)
        before = newest(documents, champion.version or newest(documents))
        if not before:
            raise MoveFailed(f"nothing to go back to: {champion} has had no champion or version before it")
        return type(champion)(champion.name, before)

    _move(settings, "rollback", target, **how)


@click.command(
    short_help="Let a model decide for a share of the cards.",
    epilog=examples("models canary forest --percent 10", "models canary forest --percent 0  # ends it"),
)
@MODEL
@click.option(
    "--percent", type=FiniteRange(0, 100), required=True, help="Share of the cards; 0 ends the canary."
)
@FORCE
@_moving
@with_settings(data=True)
def canary(settings: Settings, model: Pin, percent: float, **how: Any) -> None:
    """Let a model decide for a share of the cards.

    A card that it decides for stays with it while the share grows. Every model goes on scoring everything.
    """

    async def chosen(aliases: Aliases) -> Pin:
        now = aliases.canary
        return now if now is not None and now.name == model.name and model.version is None else model

    _move(settings, "canary", chosen, percent=percent, **how)


@click.group()
def shadow() -> None:
    """Models that score everything and decide nothing."""


@shadow.command(
    "add",
    short_help="Let a model score beside the champion.",
    epilog=examples("models shadow add forest", "models shadow add forest/12"),
)
@MODEL
@FORCE
@_moving
@with_settings(data=True)
def shadow_add(settings: Settings, model: Pin, **how: Any) -> None:
    """Let a model score beside the champion; it takes the place of a shadow of its name."""
    _move(settings, "shadow-add", _always(model), **how)


@shadow.command("remove", epilog=examples("models shadow remove forest"))
@click.argument("model", metavar="NAME", callback=_pin)
@_moving
@with_settings(data=True)
def shadow_remove(settings: Settings, model: Pin, **how: Any) -> None:
    """Let a shadow no longer score."""
    _move(settings, "shadow-remove", _always(model), **how)


@click.command(
    short_help="Hold alerts back from now on.",
    epilog=examples("alerts hold --reason 'first weeks beside the old system'"),
)
@_moving
@with_settings(data=True)
def hold(settings: Settings, **how: Any) -> None:
    """Hold alerts back from now on: scores are published, and what would be alerts is measured."""
    _move(settings, "hold-alerts", _always(None), **how)


@click.command(short_help="Publish alerts again.", epilog=examples("alerts release"))
@_moving
@with_settings(data=True)
def release(settings: Settings, **how: Any) -> None:
    """Publish alerts again; those held back stay unpublished."""
    _move(settings, "release-alerts", _always(None), **how)


@click.command(
    short_help="List every move, its reason and its evidence.",
    epilog=examples("models history", "models history --json | jq '.[-1]'"),
)
@with_settings(data=True)
def history(settings: Settings, as_json: bool) -> None:
    """List every move: who was champion since when, who moved it, and on what evidence."""
    from streams.commands.aliases import read_registry

    registry = run_async(read_registry(settings))
    if as_json:
        click.echo(json.dumps([_entry(each.move, each.aliases, each.refused) for each in registry.history]))
        return
    if not registry.history:
        click.echo(f"no move has been made; champion by the settings: {registry.aliases.champion}")
        return
    listed = table("move", "when", "who", "kind", "model", "champion", "canary", "reason", "evidence")
    for each in registry.history:
        move, aliases = each.move, each.aliases
        share = f"{aliases.canary} {aliases.percent:g} %" if aliases.canary else "-"
        evidence = ", ".join(f"{name} {figure(value)}" for name, value in move.evidence.items())
        reason = f"refused: {each.refused}" if each.refused else move.reason
        model = str(move.model or "-")
        row(
            listed, move.number, rfc3339(move.at)[:19], move.who, move.kind, model, aliases.champion, share,
            reason, evidence,
        )  # fmt: skip
    show(listed)


@click.command(
    short_help="Judge a version on stored outcomes.",
    epilog=examples("models validate forest", "models validate forest/12 --json"),
)
@MODEL
@with_settings(data=True)
def validate(settings: Settings, model: Pin, as_json: bool) -> None:
    """Judge a version on the outcomes stored last, beside the champion of then; exit code 1 if a gate fails.

    It is loaded as a worker would load it, signature, digest and golden rows checked. `models shadow add`,
    `canary` and `promote` do the same.
    """
    from streams.commands.candidates import read_documents
    from streams.commands.judging import judged, usable

    snapshot = usable(settings, model, run_async(read_documents(settings, model.name)))
    judgement = run_async(judged(settings, snapshot))
    if as_json:
        click.echo(
            json.dumps({"name": snapshot.name, "version": snapshot.version, **judgement.as_evidence()})
        )
    else:
        listed = table("gate", "result", "candidate", "champion")
        for each in judgement.findings:
            row(listed, each.gate, each.result, figure(each.candidate), figure(each.champion))
        show(listed)
    if judgement.failed:
        raise click.exceptions.Exit(1)


def _entry(move: Move, aliases: Aliases, refused: str) -> dict[str, object]:
    return {
        "move": move.number,
        "at": move.at,
        "who": move.who,
        "kind": move.kind,
        "model": str(move.model or ""),
        "percent": move.percent,
        "reason": move.reason,
        "evidence": dict(move.evidence),
        "refused": refused,
        "champion": str(aliases.champion),
        "canary": str(aliases.canary or ""),
        "canary_percent": aliases.percent,
        "shadows": [str(pin) for pin in aliases.shadows],
        "alerts_held": aliases.alerts_held,
    }


def _always(model: Pin | None) -> Choice:
    async def choose(_: Aliases) -> Pin | None:
        return model

    return choose


def _move(
    settings: Settings,
    kind: Kind,
    choose: Choice,
    *,
    who: str,
    reason: str,
    seconds: float,
    as_json: bool,
    percent: float = 0.0,
    force: bool = True,
) -> None:
    """Check what is to be moved, move it, and say what has come of it."""
    from models.registry import Move
    from streams.commands.moving import checked_and_made

    move = Move(0, kind, None, percent, who, time.time_ns() // 1_000_000, reason)
    made = run_async(checked_and_made(settings, move, choose, seconds=seconds, force=force))
    if as_json:
        import msgspec

        click.echo(json.dumps(msgspec.to_builtins(made, str_keys=True)))
        return
    parts = [f"champion {made.champion}"]
    if made.canary:
        parts.append(f"canary {made.canary} for {made.percent:g} % of the cards")
    parts.append(f"shadows {', '.join(made.shadows) or 'none'}")
    if made.alerts_held:
        parts.append("alerts held back")
    click.echo(f"move {made.move}, in use on all {len(made.in_use)} partitions: {'; '.join(parts)}")
