"""A client whose brokers are all away tries seldom, however much is to be sent."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace
from typing import Any

import pytest
from aiokafka import client as aiokafka_client
from aiokafka.client import AIOKafkaClient

from streams.kafka import reconnecting
from streams.kafka.connection import client_options
from streams.sections import Broker


class Network:
    """Connections to brokers, which fail while they are away; counts the tries."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.away = False
        self.tries = 0
        self._create = aiokafka_client.create_conn
        monkeypatch.setattr(aiokafka_client, "create_conn", self._connect)

    async def _connect(self, *args: Any, **options: Any) -> Any:
        self.tries += 1
        if self.away:
            raise ConnectionRefusedError
        return await self._create(*args, **options)


@pytest.fixture
def network(monkeypatch: pytest.MonkeyPatch) -> Network:
    monkeypatch.setattr(reconnecting, "LONGEST_PAUSE_SECONDS", 0.01)
    return Network(monkeypatch)


def test_pauses_grow_to_a_second_and_end_with_the_absence() -> None:
    pauses, pause = [], 0.0
    for _ in range(6):
        pauses.append(pause := reconnecting.next_pause(pause, reached=False))
    assert pauses == [0.1, 0.2, 0.4, 0.8, 1.0, 1.0]
    assert reconnecting.next_pause(1.0, reached=True) == 0.0


def test_one_look_for_brokers_is_enough_for_all_who_want_to_send(broker: str, network: Network) -> None:
    """Without it every one of them would try; when a broker is back, all of them are let through."""

    async def run() -> None:
        client = AIOKafkaClient(**client_options(Broker(bootstrap=broker)))
        await client.bootstrap()
        try:
            node = client.get_random_node()
            assert await client.ready(node)
            network.away = True
            for each in list(client._conns.values()):
                await each.close()
            assert not await client.ready(node)  # who finds out
            assert not await client.force_metadata_update()
            network.tries = 0
            assert not any(await asyncio.gather(*(client.ready(node) for _ in range(20))))
            assert network.tries == 1
            network.away = False
            assert all(await asyncio.gather(*(client.ready(node) for _ in range(20))))
            assert network.tries == 2
        finally:
            await client.close()

    asyncio.run(run())


def test_one_of_several_brokers_is_tried_for_as_ever(broker: str, network: Network) -> None:
    """Who wants another one does not wait for it."""

    async def run() -> None:
        client = AIOKafkaClient(**client_options(Broker(bootstrap=broker)))
        await client.bootstrap()
        try:
            client._conns["another"] = SimpleNamespace(connected=lambda: True)
            network.away = True
            assert not await client.ready(client.get_random_node())
            await client.force_metadata_update()
            network.tries = 0
            await asyncio.gather(*(client.ready(client.get_random_node()) for _ in range(20)))
            assert network.tries >= 20
        finally:
            del client._conns["another"]
            await client.close()

    asyncio.run(run())


def test_every_client_of_the_project_does_so() -> None:
    """Who asks for the options of a client has what is repaired of aiokafka."""
    assert client_options(Broker())["bootstrap_servers"] == "localhost:9092"
    assert AIOKafkaClient.ready is reconnecting.ready
    assert AIOKafkaClient._metadata_update is reconnecting.metadata_update
