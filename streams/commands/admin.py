"""The topic catalogue on the cluster: create what is missing, describe what is there."""

from __future__ import annotations

from streams.feature_settings import catalogue_of, feature_spec
from streams.kafka.clients import admin_client
from streams.settings import Settings
from streams.topics import Presence


async def create_topics(settings: Settings) -> list[str]:
    """Create what is missing of the catalogue; the names created.

    Raises:
        BrokerUnreachable: no broker answers.
        TopicMismatch, TopicRefused: see `Catalogue.ensure`.
    """
    async with admin_client(settings.broker) as admin:
        return await catalogue_of(settings, feature_spec(settings)).ensure(admin)


async def describe_topics(settings: Settings) -> list[Presence]:
    """The catalogue with what exists of it.

    Raises:
        BrokerUnreachable: no broker answers.
    """
    async with admin_client(settings.broker) as admin:
        return await catalogue_of(settings, feature_spec(settings)).describe(admin)
