"""`fraudstream models list` and `models show`; the moves are in `model_moves.py`."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import TYPE_CHECKING

import click
import msgspec

from streams.commands.model_moves import canary, history, promote, rollback, shadow, validate
from streams.commands.options import examples, run_async, with_settings
from streams.commands.tables import printable, row, show, table
from streams.errors import NoSuchModel
from streams.settings import Settings
from streams.times import rfc3339

if TYPE_CHECKING:
    from streams.commands.model_versions import ModelVersion


@click.group()
def models() -> None:
    """The published model versions, and who of them decides."""


for _command in (validate, promote, rollback, canary, shadow, history):
    models.add_command(_command)


@models.command(
    "list",
    short_help="List the latest version of every model, or all of one.",
    epilog=examples(
        "models list", "models list binned", "models list --json | jq '.[] | {name, version, role}'"
    ),
)
@click.argument("name", required=False)
@with_settings(data=True)
def list_(settings: Settings, name: str | None, as_json: bool) -> None:
    """List the latest version of every model, or every version of model NAME that is still on the topic.

    A version that scores has a role, and is listed in any case. One that is withheld is so much worse than
    those before it that aliases which follow the model have stayed where they were. A model of the settings
    that is not listed has learned nothing yet: rules stand in for it. Versions are shown by what their
    documents say; `models validate` and `doctor` load them as a worker would.
    """
    from streams.commands.model_versions import read_versions

    if name is None:
        _show(run_async(read_versions(settings)), as_json)
        return
    versions = run_async(read_versions(settings, lambda found, _: found == name))
    if not versions:
        raise NoSuchModel(
            f"no version of {name!r} on {settings.topics.models}; `models list` shows what there is"
        )
    _show(versions, as_json)


@models.command(
    "show",
    short_help="Show one version in full, the latest if none is given.",
    epilog=examples("models show binned", "models show binned/12 --json"),
)
@click.argument("model", metavar="NAME[/VERSION]")
@with_settings(data=True)
def show_(settings: Settings, model: str, as_json: bool) -> None:
    """Show one version in full, the latest if none is given: origin, digests, quality, offsets learned."""
    from streams.commands.model_versions import read_versions

    name, slash, number = model.partition("/")
    if slash and not (number.isascii() and number.isdigit()):
        raise click.BadParameter(
            "a version is a whole number, for instance binned/12", param_hint="NAME[/VERSION]"
        )
    exact = int(number) if slash else None
    versions = run_async(
        read_versions(settings, lambda found, version: found == name and exact in (None, version))
    )
    if not versions:
        look = f"list {name}" if slash else "list"
        raise NoSuchModel(f"no {model!r} on {settings.topics.models}; `models {look}` shows what there is")
    document = _document(versions[-1])
    if as_json:
        click.echo(json.dumps(document))
        return
    width = max(map(len, document))
    for field, value in document.items():
        if field in ("published_at", "learned_until"):
            value = rfc3339(int(str(value)))
        text = json.dumps(value) if isinstance(value, dict) else str(value)
        click.echo(f"{field:<{width}}  {printable(text)}")


def _document(version: ModelVersion) -> dict[str, object]:
    return msgspec.structs.asdict(version)


def _show(versions: Sequence[ModelVersion], as_json: bool) -> None:
    if as_json:
        click.echo(json.dumps([_document(each) for each in versions]))
        return
    if not versions:
        click.echo("no model has been published yet; rules stand in")
        return
    headings = (
        "model",
        "version",
        "role",
        "learner",
        "scorer",
        "outcomes",
        "until",
        "published",
        "size",
        "state",
    )
    listed = table(*headings)
    for each in versions:
        until = rfc3339(each.learned_until)[:16] if each.learned_until else "-"
        published = rfc3339(each.published_at)[:16]
        size = f"{each.size_bytes / 1024:,.0f} KiB"
        state = each.problem or (f"withheld: {each.withheld}" if each.withheld else "usable")
        kinds = (each.role or "-", each.learner or "-", each.scorer or "-")
        origin = (*kinds, f"{each.learned:,}", until)
        row(listed, each.name, each.version, *origin, published, size, state)
    show(listed)
