"""Restored state against the settings and against what there is of its source."""

from __future__ import annotations

import asyncio
import gc
import warnings
from collections.abc import Mapping

import pytest

from models.spec import FeatureSpec
from streams.app import build
from streams.commands.admin import create_topics
from streams.errors import StateMismatch
from streams.kafka.changelog import Changelog
from streams.settings import Settings, load
from streams.stages.belonging import identity, require_applied
from streams.stages.context import StageContext
from streams.stages.control_feed import ControlFeed, initial_aliases
from streams.stages.label_state import LabelState
from streams.stages.late_reader import LateReader
from tests.streams.clients import numbered, publish, topic_names, unique

PARTITIONS = 2


def settings(broker: str = "localhost:9092", changed: Mapping[str, object] | None = None) -> Settings:
    given = {**topic_names(unique("belonging")), "broker.bootstrap": broker, "topics.partitions": PARTITIONS}
    return load(overrides={**given, **(changed or {})}, environ={})


def context(made: Settings) -> StageContext:
    return build(made, ["card"]).contexts["card"]


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


async def unexpected(error: BaseException) -> None:
    raise error


@pytest.mark.parametrize("opening", ["changelog", "ends", "control", "late reading"])
def test_an_open_that_is_cancelled_closes_its_consumer(opening: str) -> None:
    """Also while it waits for a broker's first answer; aiokafka warns of a consumer that nobody closed."""

    async def run() -> None:
        connected, ended = asyncio.Event(), asyncio.Event()

        async def silent(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            connected.set()
            while await reader.read(1024):
                pass
            writer.close()
            await writer.wait_closed()
            ended.set()

        server = await asyncio.start_server(silent, "127.0.0.1", 0)
        async with server:
            port = server.sockets[0].getsockname()[1]
            made = context(settings(f"127.0.0.1:{port}"))
            if opening == "changelog":
                changelog = Changelog("state", made.settings.broker, made.outputs)
                opened = changelog.restore(0, LabelState(), identity(made, "scored"))
                task: asyncio.Task[object] = asyncio.create_task(opened)
            elif opening == "ends":
                task = asyncio.create_task(require_applied(made, "scored", {0: 1}))
            elif opening == "control":
                control = ControlFeed("control", made.settings.broker, initial_aliases(made.settings.models))
                task = asyncio.create_task(control.start())
            else:
                late = LateReader(
                    "scored", 0, 1, made.settings.broker, lambda: None, lambda _: None, unexpected
                )
                task = asyncio.create_task(late.start({0: 0}))
            async with asyncio.timeout(10):
                await connected.wait()
                task.cancel()
                with pytest.raises(asyncio.CancelledError):
                    await task
                await ended.wait()

    with warnings.catch_warnings(record=True) as warned:
        warnings.simplefilter("always")
        asyncio.run(run())
        gc.collect()
    assert [each for each in warned if "Unclosed AIOKafka" in str(each.message)] == []
