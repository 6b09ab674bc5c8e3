"""Commands about topics: create, list."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

import click
from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.errors import KafkaError
from rich.console import Console
from rich.table import Table

from streams.app import catalogue_of, feature_spec
from streams.connection import client_options
from streams.errors import BrokerUnreachable
from streams.settings import Settings
from streams.times import duration_text
from streams.topics import Presence


@asynccontextmanager
async def admin_client(settings: Settings) -> AsyncIterator[AIOKafkaAdminClient]:
    """A started admin client.

    Raises:
        BrokerUnreachable: no broker answers.
    """
    admin = AIOKafkaAdminClient(**client_options(settings.broker))
    try:
        await admin.start()
    except (KafkaError, OSError) as error:
        await admin.close()
        raise BrokerUnreachable(
            f"no broker answers at {settings.broker.bootstrap}: {type(error).__name__}; "
            "start one (`fraudstream broker`) or set broker.bootstrap"
        ) from error
    try:
        yield admin
    finally:
        await admin.close()


async def create_topics(settings: Settings) -> list[str]:
    """Create what is missing of the catalogue; the names created."""
    async with admin_client(settings) as admin:
        return await catalogue_of(settings, feature_spec(settings)).ensure(admin)


async def describe_topics(settings: Settings) -> list[Presence]:
    """The catalogue with what exists of it."""
    async with admin_client(settings) as admin:
        return await catalogue_of(settings, feature_spec(settings)).describe(admin)


def show_created(created: Sequence[str], as_json: bool) -> None:
    if as_json:
        click.echo(json.dumps({"created": list(created)}))
        return
    for name in created:
        click.echo(f"created {name}")
    if not created:
        click.echo("all topics exist")


def show_topics(presences: Sequence[Presence], as_json: bool) -> None:
    if as_json:
        click.echo(
            json.dumps(
                [
                    {
                        "id": each.topic.id,
                        "name": each.topic.name,
                        "key": each.topic.key,
                        "record": each.topic.record,
                        "partitions": each.topic.partitions,
                        "cleanup": each.topic.cleanup,
                        "retention_ms": each.topic.retention,
                        "writers": each.topic.writers,
                        "readers": each.topic.readers,
                        "exists": each.partitions > 0,
                    }
                    for each in presences
                ],
                indent=1,
            )
        )
        return
    table = Table("topic", "key", "partitions", "keeps", "written by", "read by", "exists")
    for each in presences:
        topic = each.topic
        keeps = "compacted" if topic.cleanup == "compact" else "for ever"
        if topic.cleanup == "delete" and topic.retention > 0:
            keeps = duration_text(topic.retention)
        table.add_row(
            topic.name, topic.key, str(topic.partitions), keeps, ", ".join(topic.writers), ", ".join(topic.readers),
            "yes" if each.partitions else "no",
        )  # fmt: skip
    Console().print(table)
