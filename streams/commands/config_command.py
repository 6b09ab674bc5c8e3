"""`fraudstream config check` and `config show`: the settings as they come together, without a broker."""

from __future__ import annotations

import json
import textwrap
from pathlib import Path

import click

from streams.errors import SettingsError
from streams.settings import Settings, load


@click.group()
def config() -> None:
    """Validate the settings, or print what they come to."""


_FILE = click.option(
    "--config", "path", type=click.Path(dir_okay=False, path_type=Path), help="Settings file (TOML)."
)
_BROKER = click.option("--broker", metavar="HOST:PORT", help="Kafka broker; overrides broker.bootstrap.")


@config.command()
@_FILE
@_BROKER
def check(path: Path | None, broker: str | None) -> None:
    """Exit 0 if the settings can be carried out, else name every mistake."""
    # Faust and River take a second to import, which the other commands of this group need not wait for.
    from streams.feature_settings import catalogue_of, feature_spec
    from streams.keys import checkpoint_key, signing_key
    from streams.stages.model_slots import build_learners

    settings = _load(path, broker)
    try:
        spec = feature_spec(settings)
        catalogue_of(settings, spec)
        build_learners(settings.models, spec)
        checkpoint_key(settings.models)
        signing_key(settings.models)
    except SettingsError as error:
        raise click.ClickException(str(error)) from None
    click.echo(f"settings are valid, digest {settings.digest}")


@config.command(short_help="Print every setting with its value, and the feature columns.")
@_FILE
@_BROKER
@click.option("--json", "as_json", is_flag=True, help="JSON in place of TOML.")
def show(path: Path | None, broker: str | None, as_json: bool) -> None:
    """Print every setting with its value, secrets hidden, and the columns of the feature matrix.

    Without [features] the default spec of docs/features.md holds. The `features` of a score are in the order
    of the columns.
    """
    from streams.feature_settings import feature_spec

    settings = _load(path, broker)
    try:
        columns = feature_spec(settings).names
    except SettingsError as error:
        raise click.ClickException(str(error)) from None
    if as_json:
        document = {"digest": settings.digest, **settings.shown(), "columns": columns}
        click.echo(json.dumps(document, indent=2))
    else:
        listed = textwrap.fill(", ".join(columns), 110, initial_indent="# ", subsequent_indent="# ")
        click.echo(f"# digest {settings.digest}\n{settings.as_toml()}\n# {len(columns)} columns:\n{listed}")


def _load(path: Path | None, broker: str | None) -> Settings:
    try:
        return load(path, {"broker.bootstrap": broker})
    except SettingsError as error:
        raise click.ClickException(str(error)) from None
