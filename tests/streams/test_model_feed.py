"""The models topic as a worker sees it, on a broker."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import pytest

from models.learners.logistic import LogisticLearner
from models.snapshot import Snapshot, encode, make
from streams.kafka.outputs import Output, Outputs
from streams.sections import Broker
from streams.stages.model_feed import ModelFeed, model_key
from tests.streams.clients import new_topic

pytestmark = pytest.mark.broker
SPEC = "0123456789abcdef"


def version(number: int, spec: str = SPEC) -> bytes:
    return encode(make(LogisticLearner(("amount",)).freeze(), name="m", version=number, spec_digest=spec))


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(15):
        while not condition():  # noqa: ASYNC110 -- set by a callback of the feed
            await asyncio.sleep(0.01)


def test_versions_are_followed_and_bad_ones_refused(broker: str) -> None:
    """Versions on the topic are there after start, later ones come by themselves, tombstones take them away;
    what cannot be used is counted and changes nothing."""

    async def scenario() -> None:
        topic = await new_topic(broker, 1)
        told: list[int] = []

        def on_new(snapshot: Snapshot) -> None:
            told.append(snapshot.version)

        async with Outputs(broker) as outputs:
            await outputs.send(
                [
                    Output(topic, 0, model_key("m", 1), version(1)),
                    Output(topic, 0, model_key("m", 2), version(2)),
                    Output(topic, 0, model_key("m", 9), version(9)[:-20]),
                    Output(topic, 0, model_key("m", 8), version(8, "f" * 16)),
                ]
            )
            feed = ModelFeed(topic, Broker(bootstrap=broker), SPEC, on_new)
            await feed.start()
            try:
                assert feed.latest["m"].version == 2
                assert feed.refused == 2
                assert feed.version("m", 1) is not None
                assert told == []
                await outputs.send(
                    [
                        Output(topic, 0, b"damaged", b"\x00nothing"),
                        Output(topic, 0, model_key("m", 1), None),
                        Output(topic, 0, b"no-number", None),
                        Output(topic, 0, model_key("m", 3), version(3)),
                    ]
                )
                await until(lambda: told == [3])
                assert feed.latest["m"].version == 3
                assert feed.version("m", 1) is None
                assert feed.version("m", 2) is not None
                assert feed.refused == 3
            finally:
                await feed.stop()

    asyncio.run(scenario())
