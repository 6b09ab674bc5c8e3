from __future__ import annotations

import asyncio
import json
import math
import socket
from collections.abc import Awaitable, Callable
from functools import partial

import aiohttp
import faust
import pytest

from models.learners.registry import LEARNERS
from models.snapshot import make
from models.spec import FeatureSpec
from monitoring.metrics import CONTENT_TYPE, Metrics
from streams import worker
from streams.app import build
from streams.health import HealthServer, Progress
from streams.kafka.batches import PartitionProgress
from streams.kafka.batching import TP
from streams.settings import load
from streams.stages.model_slots import initial_deployment


def serve(server: HealthServer, use: Callable[[str], Awaitable[None]]) -> None:
    async def run() -> None:
        await server.start()
        try:
            await use(f"http://{server.host}:{server.port}")
        finally:
            await server.stop()

    asyncio.run(run())


async def get(url: str) -> tuple[int, str, dict[str, str]]:
    async with aiohttp.ClientSession() as session, session.get(url) as response:
        return response.status, await response.text(), dict(response.headers)


def test_checks_decide_the_status_and_are_named() -> None:
    """One failing check makes 503 of the whole answer, and the body says which one it is."""
    ready = {"model": (True, "lr 3"), "broker": (False, "no answer")}
    server = HealthServer(
        lambda: b"", live={}, ready={name: partial(ready.__getitem__, name) for name in ready}
    )

    async def use(base: str) -> None:
        status, body, _ = await get(base + "/readyz")
        assert status == 503
        assert json.loads(body) == {
            "status": "failing",
            "checks": {
                "model": {"ok": True, "detail": "lr 3"},
                "broker": {"ok": False, "detail": "no answer"},
            },
        }
        ready["broker"] = (True, "")
        assert (await get(base + "/readyz"))[0] == 200
        status, body, _ = await get(base + "/livez")
        assert (status, json.loads(body)["status"]) == (200, "ok")
        assert (await get(base + "/other"))[0] == 404

    serve(server, use)


def test_a_check_that_raises_fails_without_telling_secrets() -> None:
    """An exception in a check is a failing check; its message stays inside."""

    def broken() -> tuple[bool, str]:
        raise RuntimeError("sasl_plain_password=hunter2")

    async def use(base: str) -> None:
        status, body, headers = await get(base + "/livez")
        assert status == 503
        assert "RuntimeError" in body
        assert "hunter2" not in body
        assert headers["Server"] == "fraudstream"

    serve(HealthServer(lambda: b"", live={"broken": broken}, ready={}), use)


def test_metrics_are_served_in_the_text_format() -> None:
    """A scrape gets the exposition with the content type that Prometheus asks for."""
    metrics = Metrics()
    metrics.transactions.add(42, "scored")

    async def use(base: str) -> None:
        status, body, headers = await get(base + "/metrics")
        assert status == 200
        assert 'fraud_transactions_total{outcome="scored"} 42.0' in body
        assert headers["Content-Type"] == CONTENT_TYPE
        assert "process_resident_memory_bytes" in body

    serve(HealthServer(metrics.exposition, live={}, ready={}, content_type=CONTENT_TYPE), use)


def test_a_taken_port_is_an_error_and_stopping_frees_it() -> None:
    """Two servers cannot share a port; after `stop` it can be taken again."""

    async def run() -> None:
        first = HealthServer(lambda: b"", {}, {})
        await first.start()
        with pytest.raises(OSError):
            await HealthServer(lambda: b"", {}, {}, port=first.port).start()
        await first.stop()
        with socket.socket() as probe:
            assert probe.connect_ex((first.host, first.port)) != 0

    asyncio.run(run())


def test_the_default_address_is_loopback() -> None:
    """Nothing is served to the network unless that is configured."""
    assert HealthServer(lambda: b"", {}, {}).host == "127.0.0.1"


def test_progress_fails_only_when_messages_wait_and_none_is_processed() -> None:
    """Idle is alive, working is alive, stuck with a backlog is not."""
    progress = Progress(tick_ms=15_000, stall_ms=60_000)
    assert progress.check(0) == (True, "starting")
    for second in range(200):
        progress.sample(second * 1000, processed=5, lag=0, broker_reachable=True)
    assert progress.check(199_000)[0]
    for second in range(200, 400):
        progress.sample(second * 1000, processed=second, lag=100, broker_reachable=True)
    assert progress.check(399_000)[0]
    for second in range(400, 470):
        progress.sample(second * 1000, processed=399, lag=100, broker_reachable=True)
    ok, detail = progress.check(469_000)
    assert not ok
    assert "100 messages wait" in detail
    progress.sample(470_000, processed=400, lag=99, broker_reachable=True)
    assert progress.check(470_000)[0]


def test_an_unreachable_broker_does_not_kill() -> None:
    """With the broker away a backlog cannot be worked off, and a restart would not help."""
    progress = Progress()
    for second in range(300):
        progress.sample(second * 1000, processed=5, lag=100, broker_reachable=False)
    assert progress.check(299_000)[0]


def test_a_loop_that_no_longer_turns_fails() -> None:
    """Without samples nothing is known to be alive."""
    progress = Progress(tick_ms=15_000)
    progress.sample(1_000, processed=0, lag=0, broker_reachable=True)
    assert progress.check(16_000)[0]
    assert not progress.check(16_001)[0]


def test_lags_of_partitions_that_have_gone_are_not_told(monkeypatch: pytest.MonkeyPatch) -> None:
    """A partition given up loses its child of the lag gauge: its new owner tells it."""
    flow = build(load(environ={}), ["card", "learn"])
    held = {app: {TP("t", 0): behind(5, 0), TP("t", 1): behind(7, 1)} for app in flow.apps.values()}

    class Transport:
        joined = True

        def __init__(self, app: faust.App) -> None:
            self._app = app

        def progress(self) -> dict[TP, PartitionProgress]:
            return held[self._app]

    monkeypatch.setattr(worker, "transport_of", Transport)
    health = worker.Health(flow)
    lag = flow.metrics.lag_messages
    first, second = held

    async def run() -> None:
        health.look()
        assert (lag.value("t", "0"), lag.value("t", "1")) == (5, 7)
        del held[first][TP("t", 1)]
        health.look()
        assert lag.value("t", "1") == 7  # another stage still has it
        del held[second][TP("t", 1)]
        health.look()
        assert lag.value("t", "0") == 5
        assert math.isnan(lag.value("t", "1"))

    asyncio.run(run())


def behind(records: int, partition: int) -> PartitionProgress:
    return PartitionProgress("t", partition, 0, 0, 0, records, 0, 0.0, False)


def test_what_is_said_to_score_is_what_scores_say() -> None:
    """The rules, and for which champion: while it has no version, and while it fails."""
    settings = load(environ={})
    spec = FeatureSpec.default()
    deployment = initial_deployment(settings.models, spec)
    shadows = ["shadow forest v0", "shadow logistic v0"]
    told = worker.lineup(deployment, stood_in=False)
    assert told == ["champion rules v0 (binned has no version yet)", *shadows]
    learner = LEARNERS["binned_logistic"](spec.names)
    deployment.promote(make(learner.freeze(), name="binned", version=7, spec_digest=spec.digest))
    assert worker.lineup(deployment, stood_in=False) == ["champion binned v7", *shadows]
    assert worker.lineup(deployment, stood_in=True) == ["champion rules v0 (binned v7 fails)", *shadows]
