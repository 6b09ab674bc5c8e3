"""A worker without a broker waits for one, and ends when it stays away, with or without something to send."""

from __future__ import annotations

import asyncio
import logging
import math
import os
import signal
import sys
from collections.abc import Iterable

import pytest
from aiokafka.errors import (
    KafkaConnectionError,
    KafkaError,
    NodeNotReadyError,
    TopicAuthorizationFailedError,
)

from streams.errors import BrokerUnreachable
from streams.kafka import absence, outputs
from streams.kafka.absence import answering, patiently, watch
from streams.kafka.broker import EmbeddedBroker
from streams.kafka.outputs import Outputs
from tests.streams.clients import until


class Scripted:
    """A connection on which a broker was heard so many seconds ago, look by look."""

    def __init__(self, silent: Iterable[float]) -> None:
        self._silent = iter(silent)
        self.tries = 0

    @property
    def silent_for(self) -> float:
        return next(self._silent)

    def look(self) -> None:
        self.tries += 1


def watched(silent: Iterable[float], looks: int) -> tuple[list[BaseException], int]:
    """What ended the watch, and how many times it looked."""
    lost: list[BaseException] = []

    async def on_lost(error: BaseException) -> None:
        lost.append(error)

    connection = Scripted(silent)
    asyncio.run(watch([connection], on_lost, "kafka:9092", looks=looks, every=0))
    return lost, connection.tries


def test_only_a_long_absence_ends_the_worker(caplog: pytest.LogCaptureFixture) -> None:
    """Gone for a while and back is nothing; every look tries for a broker; both are said once."""
    caplog.set_level(logging.INFO)
    lost, tries = watched([0.1, *[math.inf] * 29, 4.9, *[5.1] * 31], looks=30)
    assert [type(error) for error in lost] == [BrokerUnreachable]
    assert tries == 1 + 29 + 1 + 30
    said = [record.getMessage() for record in caplog.records]
    away, back = "no broker answers at kafka:9092; waiting up to", "a broker at kafka:9092 answers again"
    assert [text[: len(start)] for text, start in zip(said, (away, back, away), strict=True)] == [
        away, back, away,
    ]  # fmt: skip


def test_a_process_that_was_stopped_looks_before_it_judges() -> None:
    """However long ago the broker was heard then: one that answers to the look is there."""
    lost, tries = watched([0.1, 3600.0, 0.1, *[math.inf] * 4], looks=3)
    assert len(lost) == 1
    assert tries == 3 + 3


def test_what_ends_the_worker_is_the_exception_under_way() -> None:
    """Faust logs the exception under way with the crash; without one it logs `NoneType: None`."""
    under_way: list[BaseException | None] = []

    async def on_lost(error: BaseException) -> None:
        assert error is sys.exception()
        under_way.append(sys.exception())

    asyncio.run(watch([Scripted([math.inf] * 2)], on_lost, "kafka:9092", looks=1, every=0))
    assert [type(error) for error in under_way] == [BrokerUnreachable]


def test_a_producer_with_nothing_to_send_finds_the_broker_again_or_misses_it() -> None:
    """Without a send: heard again with a broker that has come back, lost without one."""
    lost: list[BaseException] = []

    async def on_lost(error: BaseException) -> None:
        lost.append(error)

    async def run() -> None:
        own = EmbeddedBroker()
        own.start()
        sender = Outputs(own.address)
        await sender.start()
        try:
            patient = asyncio.create_task(watch([sender], on_lost, own.address, looks=10**6, every=0.05))
            own.stop()
            await until(lambda: math.isinf(sender.silent_for))
            own.start()
            await until(lambda: answering([sender]))
            patient.cancel()
            own.stop()
            await asyncio.wait_for(watch([sender], on_lost, own.address, looks=10, every=0.05), 20)
        finally:
            own.stop()
            await sender.stop()

    asyncio.run(run())
    assert len(lost) == 1


def test_a_broker_that_hangs_is_away(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its connections stay open for the request timeout; one that answers is heard without a send."""
    monkeypatch.setattr(absence, "SILENT_SECONDS", 0.5)
    monkeypatch.setattr(outputs, "_QUIET_SECONDS", 0.1)

    async def run() -> None:
        with EmbeddedBroker() as own:
            async with Outputs(own.address) as sender:
                await until(lambda: not answering([sender]))
                sender.look()
                await until(lambda: answering([sender]))
                assert own._process is not None
                os.kill(own._process.pid, signal.SIGSTOP)
                try:
                    sender.look()
                    await until(lambda: not answering([sender]))
                    sender.look()
                    assert not math.isinf(sender.silent_for)
                finally:
                    os.kill(own._process.pid, signal.SIGCONT)
                await until(lambda: answering([sender]))

    asyncio.run(run())


@pytest.mark.parametrize(
    "error",
    [KafkaConnectionError("x"), NodeNotReadyError("x"), BrokerUnreachable("x"), KafkaError("no metadata")],
)
def test_what_needs_a_broker_is_tried_again(error: Exception) -> None:
    """Until it is done, or the time is over."""

    async def run() -> None:
        failures = iter([error, error])

        async def attempt() -> str:
            for failure in failures:
                raise failure
            return "connected"

        async def hopeless() -> None:
            raise error

        assert await patiently(attempt, "kafka:9092", within=60, pause=0) == "connected"
        with pytest.raises(BrokerUnreachable, match="no broker lets us in at kafka:9092 for 0 s"):
            await patiently(hopeless, "kafka:9092", within=0, pause=0.001)

    asyncio.run(run())


def test_what_a_broker_refuses_is_not_tried_again() -> None:
    """Waiting gives nobody the rights that are missing."""
    tries = []

    async def refused() -> None:
        tries.append(1)
        raise TopicAuthorizationFailedError("card-state")

    with pytest.raises(TopicAuthorizationFailedError):
        asyncio.run(patiently(refused, "kafka:9092", pause=0))
    assert len(tries) == 1
