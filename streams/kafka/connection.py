"""How every Kafka client of the project is told where the brokers are and how to enter."""

from __future__ import annotations

import ssl
from typing import Any

from streams.kafka import closing, reconnecting
from streams.sections import Broker

closing.install()
reconnecting.install()


def client_options(broker: Broker) -> dict[str, Any]:
    """Keyword arguments that aiokafka's producer, consumer and admin client have in common."""
    return {"bootstrap_servers": broker.bootstrap, **security_options(broker)}


def security_options(broker: Broker) -> dict[str, Any]:
    """The part of `client_options` that says how to enter, without the addresses."""
    options: dict[str, Any] = {"security_protocol": broker.security}
    if broker.security in ("SSL", "SASL_SSL"):
        options["ssl_context"] = ssl.create_default_context(cafile=broker.ca_file or None)
    if broker.security.startswith("SASL"):
        options["sasl_mechanism"] = broker.sasl_mechanism
        options["sasl_plain_username"] = broker.username
        options["sasl_plain_password"] = broker.password.get_secret_value()
    return options
