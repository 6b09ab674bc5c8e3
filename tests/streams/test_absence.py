"""A worker without a broker ends, whether it has something to send or not."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Iterable

from streams.errors import BrokerUnreachable
from streams.kafka.absence import watch
from streams.kafka.broker import EmbeddedBroker
from streams.kafka.outputs import Outputs
from tests.streams.clients import until


class Scripted:
    """A connection that is there or not, look by look."""

    def __init__(self, looks: Iterable[bool]) -> None:
        self._looks = iter(looks)
        self.tries = 0

    @property
    def connected(self) -> bool:
        return next(self._looks)

    def reconnect(self) -> None:
        self.tries += 1


def test_only_a_long_absence_ends_the_worker() -> None:
    """Gone for a while and back is nothing; each look without a connection tries for one."""
    lost: list[BaseException] = []

    async def on_lost(error: BaseException) -> None:
        lost.append(error)

    connection = Scripted([True, *[False] * 30, True, *[False] * 100])
    seconds = itertools.count(0.0, 0.1)
    asyncio.run(watch([connection], on_lost, after=5.0, every=0, clock=lambda: next(seconds)))
    assert [type(error) for error in lost] == [BrokerUnreachable]
    assert 30 + 40 < connection.tries < 30 + 60


def test_a_producer_with_nothing_to_send_finds_the_broker_again_or_misses_it() -> None:
    """Without a send: connected again with a broker that has come back, lost without one."""
    lost: list[BaseException] = []

    async def on_lost(error: BaseException) -> None:
        lost.append(error)

    async def run() -> None:
        own = EmbeddedBroker()
        own.start()
        outputs = Outputs(own.address)
        await outputs.start()
        try:
            patient = asyncio.create_task(watch([outputs], on_lost, after=600.0, every=0.05))
            own.stop()
            await until(lambda: not outputs.connected)
            own.start()
            await until(lambda: outputs.connected)
            patient.cancel()
            own.stop()
            await asyncio.wait_for(watch([outputs], on_lost, after=0.5, every=0.05), 20)
        finally:
            own.stop()
            await outputs.stop()

    asyncio.run(run())
    assert len(lost) == 1
