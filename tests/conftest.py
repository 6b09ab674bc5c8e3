"""Fixtures of the whole suite."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest
from hypothesis import HealthCheck, settings

from streams.kafka.broker import EmbeddedBroker

# The suite gives the same result every time, on a slow machine, too; --hypothesis-profile=default searches for
# new counterexamples.
settings.register_profile(
    "deterministic", derandomize=True, deadline=None, suppress_health_check=[HealthCheck.too_slow]
)
settings.load_profile("deterministic")


@pytest.fixture(scope="session")
def broker() -> Iterator[str]:
    """`host:port` of the broker under test: the embedded one, or the one named by FRAUD_TEST_BROKER."""
    external = os.environ.get("FRAUD_TEST_BROKER")
    if external:
        yield external
        return
    with EmbeddedBroker() as embedded:
        yield embedded.address
