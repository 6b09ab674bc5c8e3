"""Restored state against the settings and against what there is of its source."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping

import pytest

from models.spec import FeatureSpec
from streams.app import build
from streams.commands.admin import create_topics
from streams.errors import StateMismatch
from streams.settings import Settings, load
from streams.stages.belonging import identity, require_applied
from streams.stages.context import StageContext
from tests.streams.clients import numbered, publish, unique

PARTITIONS = 2


def settings(broker: str = "localhost:9092", changed: Mapping[str, object] | None = None) -> Settings:
    prefix = unique("belonging")
    keys = ("transactions", "labels", "feedback", "scores", "alerts", "dead_letters", "models", "control")
    names = {f"topics.{key}": f"{prefix}.{key}" for key in (*keys, "metrics", "internal_prefix")}
    given = {"broker.bootstrap": broker, "topics.partitions": PARTITIONS}
    return load(overrides={**names, **given, **(changed or {})}, environ={})


def context(made: Settings) -> StageContext:
    return build(made, ["card"]).context


def test_the_identity_follows_spec_partitions_and_source() -> None:
    """Each of them, and nothing else of the settings, makes it another one."""
    plain = settings(changed={"topics.transactions": "t"})
    one = identity(context(plain), "transactions")
    assert (one.spec, one.partitions, one.source) == (FeatureSpec.default().digest, PARTITIONS, "t")
    same = settings(changed={"topics.transactions": "t", "policy.threshold": 0.9})
    assert identity(context(same), "transactions") == one
    for changed in (
        {"topics.transactions": "u"},
        {"topics.transactions": "t", "topics.partitions": 3},
        {"topics.transactions": "t", "features": {"entities": [CARD]}},
    ):
        assert identity(context(settings(changed=changed)), "transactions") != one
    assert one.refusal(one.encode()) is None


CARD = {"name": "card", "key": "card_id", "windows": ["1h"], "aggregates": ["count"]}


@pytest.mark.broker
def test_state_ahead_of_its_source_is_refused(broker: str) -> None:
    """All records applied is fine, one more is a topic that was created anew; the message names both ends."""

    async def check(applied: Mapping[int, int]) -> None:
        await require_applied(made, "transactions", applied)

    async def run() -> None:
        await create_topics(made.settings)
        topic = made.name("transactions")
        await check({0: 0, 1: 0})
        with pytest.raises(StateMismatch, match=r"\[1\] ends at offset 0, .* up to 3: .*internal_prefix"):
            await check({0: 0, 1: 3})
        await publish(broker, topic, numbered(PARTITIONS, 7), per_batch=3)
        await check({0: 7, 1: 6})
        with pytest.raises(StateMismatch, match=r"\[0\] ends at offset 7, .* up to 8"):
            await check({0: 8, 1: 7})

    made = context(settings(broker))
    asyncio.run(run())
