"""A partition is taken over as soon as there is a broker again: what has to connect for it tries again."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from streams.kafka.changelog import Changelog
from streams.kafka.ends import log_ends
from streams.kafka.outputs import Outputs
from streams.sections import Broker
from streams.stages.late_reader import LateReader
from streams.stages.model_feed import highest_versions
from tests.streams.clients import new_topic
from tests.streams.test_state_log import IDENTITY, Chains

pytestmark = pytest.mark.broker

_REFUSED = 2


class Gateway:
    """The way to a broker, which ends the first connections at once."""

    def __init__(self, broker: str) -> None:
        self._host, _, self._port = broker.rpartition(":")
        self.refused = 0

    async def admit(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if self.refused < _REFUSED:
            self.refused += 1
            writer.close()
            return
        there, back = await asyncio.open_connection(self._host, int(self._port))
        await asyncio.gather(_pipe(reader, back), _pipe(there, writer))


async def _pipe(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while data := await reader.read(65_536):
        writer.write(data)
    writer.close()


@asynccontextmanager
async def gateway(broker: str) -> AsyncIterator[tuple[Gateway, Broker]]:
    way = Gateway(broker)
    async with await asyncio.start_server(way.admit, "127.0.0.1", 0) as server:
        port = server.sockets[0].getsockname()[1]
        yield way, Broker(bootstrap=f"127.0.0.1:{port}")


async def unexpected(error: BaseException) -> None:
    raise error


@pytest.mark.parametrize("opening", ["changelog", "ends", "late reading", "versions"])
def test_who_takes_over_without_a_broker_waits_for_one(broker: str, opening: str) -> None:
    """Two connections are lost; then the state is restored, the end known, the reading begun."""

    async def run() -> None:
        topic = await new_topic(broker, 1)
        async with gateway(broker) as (way, through), Outputs(broker) as outputs, asyncio.timeout(20):
            if opening == "changelog":
                state = Chains()
                await Changelog(topic, through, outputs).restore(0, state, IDENTITY)
            elif opening == "ends":
                assert await log_ends(through, topic, {0: 0}) == {0: 0}
            elif opening == "versions":
                assert await highest_versions(through, topic) == {}
            else:
                late = LateReader(topic, 0, 1, through, lambda: None, lambda _: None, unexpected)
                await late.start({0: 0})
                await late.stop()
            assert way.refused == _REFUSED

    asyncio.run(run())
