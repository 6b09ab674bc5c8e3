"""`fraudstream topics create` and `topics list`."""

from __future__ import annotations

import json
from collections.abc import Sequence

import click

from streams.commands.options import examples, run_async, with_settings
from streams.commands.tables import row, show, table
from streams.settings import Settings
from streams.times import duration_text
from streams.topics import Presence, Topic


@click.group()
def topics() -> None:
    """The topic catalogue: what exists, what should."""


@topics.command(
    short_help="Create every topic that does not exist.",
    epilog=examples("topics create --broker kafka:9092", "topics create --config fraud.toml --json"),
)
@with_settings(data=True)
def create(settings: Settings, as_json: bool) -> None:
    """Create every topic that does not exist, with its partitions and clean-up; may be repeated.

    Names, partitions, replication and retention are settings ([topics]). A topic that exists with another
    number of partitions is refused, and nothing is created.
    """
    from streams.commands import admin

    created = run_async(admin.create_topics(settings))
    if as_json:
        click.echo(json.dumps({"created": created}))
        return
    for name in created:
        click.echo(f"created {name}")
    if not created:
        click.echo("all topics exist")


@topics.command(
    "list",
    short_help="List the topics, and whether they exist.",
    epilog=examples("topics list", "topics list --json | jq -r '.[].name'"),
)
@with_settings(data=True)
def list_(settings: Settings, as_json: bool) -> None:
    """List the topics with key, partitions, clean-up, writers and readers, and whether they exist."""
    from streams.commands import admin

    presences = run_async(admin.describe_topics(settings))
    if as_json:
        click.echo(json.dumps([_document(each) for each in presences], indent=1))
    else:
        _show(presences)


def _document(presence: Presence) -> dict[str, object]:
    topic = presence.topic
    return {
        "id": topic.id,
        "name": topic.name,
        "key": topic.key,
        "record": topic.record,
        "partitions": topic.partitions,
        "cleanup": topic.cleanup,
        "retention_ms": topic.retention,
        "writers": topic.writers,
        "readers": topic.readers,
        "exists": presence.partitions > 0,
    }


def _show(presences: Sequence[Presence]) -> None:
    listed = table("topic", "key", "partitions", "keeps", "written by", "read by", "exists")
    for each in presences:
        topic = each.topic
        writers, readers = ", ".join(topic.writers), ", ".join(topic.readers)
        exists = "yes" if each.partitions else "no"
        row(listed, topic.name, topic.key, topic.partitions, _keeps(topic), writers, readers, exists)
    show(listed)


def _keeps(topic: Topic) -> str:
    if topic.cleanup == "compact":
        return "compacted"
    return duration_text(topic.retention) if topic.retention > 0 else "for ever"
