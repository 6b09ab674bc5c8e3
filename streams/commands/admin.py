"""The topic catalogue on the cluster: create what is missing, describe what is there."""

from __future__ import annotations

import asyncio
import time

from streams.errors import BrokerUnreachable
from streams.feature_settings import catalogue_of, feature_spec
from streams.kafka.clients import admin_client
from streams.settings import Settings
from streams.topics import Presence

_RETRY_SECONDS = 0.25


async def create_topics(settings: Settings, patience: float = 5.0) -> list[str]:
    """Create what is missing of the catalogue; the names created.

    It comes first with a new broker: one that is still starting is waited for, `patience` seconds.

    Raises:
        BrokerUnreachable: no broker answers.
        TopicMismatch, TopicRefused: see `Catalogue.ensure`.
    """
    catalogue = catalogue_of(settings, feature_spec(settings))
    deadline = time.monotonic() + patience
    while True:
        try:
            async with admin_client(settings.broker) as admin:
                return await catalogue.ensure(admin)
        except BrokerUnreachable:
            if time.monotonic() > deadline:
                raise
            await asyncio.sleep(_RETRY_SECONDS)


async def describe_topics(settings: Settings) -> list[Presence]:
    """The catalogue with what exists of it.

    Raises:
        BrokerUnreachable: no broker answers.
    """
    async with admin_client(settings.broker) as admin:
        return await catalogue_of(settings, feature_spec(settings)).describe(admin)
