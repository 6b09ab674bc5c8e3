"""The aliases and their history, as workers with these settings see them."""

from __future__ import annotations

from contextlib import aclosing

from models.registry import Aliases, MoveIgnored, Registry
from streams.contract.moves import MoveUnusable, decode_move
from streams.kafka.clients import read_all
from streams.keys import signing_key
from streams.settings import Settings
from streams.stages.control_feed import initial_aliases


async def read_registry(settings: Settings) -> Registry:
    """The aliases and their history, as workers with these settings see them.

    Raises:
        BrokerUnreachable, TopicMissing: see `streams.kafka.clients.partitions_of`.
        SettingsError: the key cannot be used.
    """
    registry, key = Registry(initial_aliases(settings.models)), signing_key(settings.models)
    topic = settings.topics.control
    async with aclosing(read_all(settings.broker, topic)) as records:
        async for record in records:
            try:
                registry.take(decode_move(record.value, topic, key))
            except (MoveUnusable, MoveIgnored):
                continue
    return registry


def role_of(name: str, version: int, newest: int, aliases: Aliases) -> str:
    """`champion`, `canary`, `shadow`, or empty for a version that does not score; `newest` is of its name."""
    for role, pins in (
        ("champion", (aliases.champion,)),
        ("canary", (aliases.canary,) if aliases.canary else ()),
        ("shadow", aliases.shadows),
    ):
        if any(pin.name == name and (pin.version or newest) == version for pin in pins):
            return role
    return ""
