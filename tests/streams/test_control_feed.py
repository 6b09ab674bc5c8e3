"""The control topic as a worker sees it, on a broker."""

from __future__ import annotations

import asyncio

import pytest

from models.registry import Aliases, Move, Pin
from streams.contract.moves import encode_move
from streams.kafka.outputs import Output, Outputs
from streams.sections import Broker
from streams.stages.control_feed import ControlFeed
from tests.streams.clients import new_topic

pytestmark = pytest.mark.broker
KEY = b"k" * 32
INITIAL = Aliases(Pin("a"), (Pin("b"), Pin("c")))


def test_moves_are_followed_and_others_counted(broker: str) -> None:
    """What is on the topic is applied at the start, later moves by themselves, told once each; what is not
    signed, stale or senseless changes nothing and is counted by reason."""

    async def scenario() -> None:
        topic = await new_topic(broker, 1)
        refused: list[str] = []
        told: list[int] = []
        moved = asyncio.Event()

        def event(number: int, kind: str, name: str, key: bytes = KEY) -> Output:
            move = Move(number, kind, Pin(name), who="x", at=1_735_689_600_000)  # type: ignore[arg-type]
            return Output(topic, 0, name.encode(), encode_move(move, topic, key))

        feed = ControlFeed(topic, Broker(bootstrap=broker), INITIAL, KEY, refused.append)

        def on_moved() -> None:
            told.append(feed.registry.last)
            moved.set()

        feed.on_moved.append(on_moved)
        first = event(1, "promote", "b")
        async with Outputs(broker) as outputs:
            await outputs.send([first, event(2, "promote", "c", b""), first, Output(topic, 0, None, None)])
            await feed.start()
            try:
                assert feed.registry.aliases.champion == Pin("b")
                assert refused == ["unusable", "stale", "unusable"]
                assert told == []
                await outputs.send(
                    [
                        event(2, "shadow-remove", "nobody"),
                        event(9, "promote", "c"),
                        first,
                        event(3, "promote", "c"),
                    ]
                )
                async with asyncio.timeout(15):
                    await moved.wait()
                assert refused[3:] == ["refused", "stale", "stale"]
                assert told == [3]
                assert feed.registry.aliases.champion == Pin("c")
            finally:
                await feed.stop()

    asyncio.run(scenario())
