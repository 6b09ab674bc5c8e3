"""The models topic as a worker sees it, on a broker."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import pytest
from aiokafka.errors import KafkaConnectionError

from models.learners.logistic import LogisticLearner
from models.snapshot import encode, make
from streams.contract.model_records import model_key
from streams.kafka import broadcast
from streams.kafka.outputs import Output, Outputs
from streams.sections import Broker
from streams.stages.model_feed import ModelFeed
from tests.streams.clients import new_topic

pytestmark = pytest.mark.broker
SPEC = "0123456789abcdef"


def version(number: int, spec: str = SPEC, learned: int = 0) -> bytes:
    scorer = LogisticLearner(("amount",)).freeze()
    return encode(make(scorer, name="m", version=number, spec_digest=spec, n_learned=learned))


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(15):
        while not condition():  # noqa: ASYNC110 -- set by a task of the feed
            await asyncio.sleep(0.01)


def test_versions_are_followed_and_bad_ones_refused(broker: str) -> None:
    """Versions on the topic are there after start, later ones come by themselves, tombstones take them away;
    what cannot be used is counted and changes nothing."""

    async def scenario() -> None:
        topic = await new_topic(broker, 1)
        async with Outputs(broker) as outputs:
            await outputs.send(
                [
                    Output(topic, 0, model_key("m", 1), version(1)),
                    Output(topic, 0, model_key("m", 2), version(2)),
                    Output(topic, 0, model_key("m", 9), version(9)[:-20]),
                    Output(topic, 0, model_key("m", 8), version(8, "f" * 16)),
                ]
            )
            feed = ModelFeed(topic, Broker(bootstrap=broker), SPEC)
            await feed.start()
            try:
                assert feed.latest["m"].version == 2
                assert feed.refused == 2
                assert feed.version("m", 1) is not None
                await outputs.send(
                    [
                        Output(topic, 0, b"damaged", b"\x00nothing"),
                        Output(topic, 0, model_key("m", 1), None),
                        Output(topic, 0, b"no-number", None),
                        Output(topic, 0, model_key("m", 7), version(2)),
                        Output(topic, 0, model_key("m", 2), version(2, learned=5)),
                        Output(topic, 0, model_key("m", 2), version(2)),
                        Output(topic, 0, model_key("m", 3), version(3)),
                    ]
                )
                await until(lambda: feed.latest["m"].version == 3)
                # The same document again is the same version; another one under its number is none.
                kept = feed.version("m", 2)
                assert kept is not None
                assert kept.n_learned == 0
                assert feed.version("m", 1) is None
                assert feed.version("m", 2) is not None
                assert feed.refused == 5
            finally:
                await feed.stop()

    asyncio.run(scenario())


def test_an_outage_is_waited_out(
    broker: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Errors of the cluster are logged and tried again; versions published meanwhile arrive."""
    monkeypatch.setattr(broadcast, "_FIRST_RETRY_SECONDS", 0.01)

    async def scenario() -> None:
        topic = await new_topic(broker, 1)
        feed = ModelFeed(topic, Broker(bootstrap=broker), SPEC)
        async with Outputs(broker) as outputs:
            await outputs.send([Output(topic, 0, model_key("m", 1), version(1))])
            await feed.start()
            try:
                read, failures = (
                    feed._read,
                    iter([KafkaConnectionError("gone"), KafkaConnectionError("gone")]),
                )

                async def unreachable(*, timeout_ms: int) -> None:
                    if (error := next(failures, None)) is not None:
                        raise error
                    await read(timeout_ms=timeout_ms)

                monkeypatch.setattr(feed, "_read", unreachable)
                await outputs.send([Output(topic, 0, model_key("m", 2), version(2))])
                await until(lambda: caplog.text.count("models cannot be read") == 2)
                await outputs.send([Output(topic, 0, model_key("m", 3), version(3))])
                await until(lambda: feed.latest["m"].version == 3)
                assert feed.version("m", 2) is not None
            finally:
                await feed.stop()

    asyncio.run(scenario())


def test_any_other_failure_ends_the_worker(broker: str) -> None:
    """What is raised while a record is taken reaches `on_error`, instead of ending the following silently;
    refused versions are told by model name, those of no model that is known under one name."""

    async def scenario() -> None:
        topic = await new_topic(broker, 1)
        refused: list[str] = []
        errors: list[BaseException] = []

        def on_refused(name: str) -> None:
            refused.append(name)
            if feed.loaded:
                raise RuntimeError(f"refused {name}")

        async def on_error(error: BaseException) -> None:
            errors.append(error)

        feed = ModelFeed(topic, Broker(bootstrap=broker), SPEC, on_refused, names=["m"])
        feed.on_error = on_error
        async with Outputs(broker) as outputs:
            unnamed = [Output(topic, 0, name, b"damaged") for name in (None, b"", b"x/1", b"../m/1", b"m/x")]
            await outputs.send([Output(topic, 0, model_key("m", 1), b"damaged"), *unnamed])
            await feed.start()
            try:
                assert refused == ["m"] + ["other"] * 5
                await outputs.send([Output(topic, 0, model_key("m", 2), b"damaged")])
                await until(lambda: bool(errors))
                assert str(errors[0]) == "refused m"
            finally:
                await feed.stop()

    asyncio.run(scenario())
