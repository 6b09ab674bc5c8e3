"""The security settings reach every kind of Kafka client of a worker."""

from __future__ import annotations

import asyncio

import pytest
from aiokafka.errors import KafkaError
from faust.transport.drivers.aiokafka import credentials_to_aiokafka_auth

from streams.app import build
from streams.kafka.connection import security_options
from streams.kafka.outputs import Outputs
from streams.settings import load


@pytest.mark.parametrize("security", ["PLAINTEXT", "SSL", "SASL_PLAINTEXT", "SASL_SSL"])
def test_stages_enter_as_the_settings_say(security: str) -> None:
    """The consumers of a stage get the same protocol, mechanism, user and TLS as every other client."""
    values = {"broker.security": security, "broker.username": "u", "broker.password": "p"}
    settings = load(overrides=values, environ={})
    app = build(settings, ["card"]).apps["card"]
    given = dict(credentials_to_aiokafka_auth(app.conf.broker_credentials, None))
    wanted = security_options(settings.broker)
    assert (given.pop("ssl_context", None) is None) == (wanted.pop("ssl_context", None) is None)
    assert given == wanted


@pytest.mark.parametrize(("security", "first"), [("SSL", 0x16), ("PLAINTEXT", 0x00)])
def test_outputs_speak_tls_when_told(security: str, first: int) -> None:
    """The first byte the producer sends is that of a TLS handshake (0x16), or of a Kafka request's length."""

    async def first_byte() -> bytes:
        received: asyncio.Future[bytes] = asyncio.get_running_loop().create_future()

        async def listen(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            data = await reader.read(1)
            if not received.done():
                received.set_result(data)
            writer.close()

        server = await asyncio.start_server(listen, "127.0.0.1", 0)
        host, port = server.sockets[0].getsockname()
        settings = load(
            overrides={"broker.security": security, "broker.bootstrap": f"{host}:{port}"}, environ={}
        )
        outputs = Outputs(settings.broker.bootstrap, security=security_options(settings.broker))
        with pytest.raises(KafkaError):
            await outputs.start()
        server.close()
        return await received

    assert asyncio.run(first_byte())[0] == first
