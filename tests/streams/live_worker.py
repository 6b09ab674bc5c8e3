"""A worker as its live page sees it, made up: metrics, models and topics are what a test makes of them."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import aiohttp
import msgspec
import numpy as np

from monitoring.metrics import Metrics
from streams.health import HealthServer
from streams.live.feed import LiveFeed, Record
from streams.live.lineup import Place
from streams.live.page import routes
from streams.live.software import Reading, read

ALERTS, REPORTS = "alerts", "metrics"
NOON = 1_700_000_000_000


@dataclass(frozen=True)
class Value:
    """A record of a topic, as far as the page looks."""

    value: bytes | None


class Topics:
    """Stands in for the reader of the topics; counts how often it was started and stopped."""

    def __init__(self, take: Callable[[str, Sequence[Record]], None]) -> None:
        self.take = take
        self.state = "following"
        self.started = self.stopped = 0

    async def run(self) -> None:
        self.started += 1
        try:
            await asyncio.Event().wait()
        finally:
            self.stopped += 1


class LiveWorker:
    """`clock` and `wall` are what a test sets them to; a reading of the metrics is a second apart."""

    def __init__(self, stages: Sequence[str] = ("card", "score"), places: Sequence[Place] = ()) -> None:
        self.metrics = Metrics()
        self.clock = 0.0
        self.read_at = 0.0
        self.places = list(places)
        self.feed = LiveFeed(
            {"stages": list(stages), "version": "1.2.3"},
            self._sample,
            lambda: self.places,
            self._follow,
            ALERTS,
            lambda: self.clock,
            tick_seconds=0.01,
        )

    def _sample(self) -> Reading:
        self.read_at += 1.0
        return read(self.metrics, self.read_at, NOON + int(self.read_at * 1000))

    def _follow(self, take: Callable[[str, Sequence[Record]], None]) -> Topics:
        self.topics = Topics(take)
        return self.topics

    def score(self, transactions: int, alerts: int, seconds: float) -> None:
        """So many transactions with that latency."""
        self.metrics.transactions.add(transactions, "scored")
        self.metrics.alerts.add(alerts)
        self.metrics.end_to_end.observe(np.full(transactions, seconds))

    def publish(self, topic: str, *documents: dict[str, Any]) -> None:
        """Records on a topic."""
        self.topics.take(topic, [Value(msgspec.json.encode(document)) for document in documents])

    @asynccontextmanager
    async def serve(self, *, loopback_only: bool = True) -> AsyncIterator[str]:
        """The address of the page, served beside health as a worker does it."""
        server = HealthServer(lambda: b"", {}, {}, routes=routes(self.feed, loopback_only=loopback_only))
        await server.start()
        try:
            yield f"http://{server.host}:{server.port}"
        finally:
            await self.feed.stop()
            await server.stop()


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(20):
        while not condition():  # noqa: ASYNC110 -- set by a task of the feed
            await asyncio.sleep(0.01)


def asked(
    use: Callable[[aiohttp.ClientSession, str], Awaitable[None]],
    worker: LiveWorker | None = None,
    *,
    loopback_only: bool = True,
) -> None:
    """What the page of a worker answers to that use of it."""

    async def scenario() -> None:
        async with (
            (worker or LiveWorker()).serve(loopback_only=loopback_only) as base,
            aiohttp.ClientSession() as session,
        ):
            await use(session, base)

    asyncio.run(scenario())


def alert(number: int = 1, **fields: Any) -> dict[str, Any]:
    """An alert record; later numbers were scored later."""
    return {
        "alert_id": f"alert-{number}",
        "transaction_id": f"transaction-{number}",
        "card_id": f"card-{number}",
        "terminal_id": "terminal-1",
        "event_time": NOON + number * 1000,
        "scored_at": NOON + number * 1000 + 20,
        "amount_minor": 129_900,
        "currency": "EUR",
        "score": 0.9,
        "threshold": 0.2,
        "alert": True,
        "arm": "champion",
        "model": {"name": "binned", "version": 3},
        "shadows": [{"name": "forest", "version": 2, "score": 0.7}],
        "spec": "0" * 16,
        "config": "0" * 16,
        "control_group": False,
        "propensity": 1.0,
        "reasons": [{"feature": "amount", "value": 1299.0, "contribution": 2.5}],
        **fields,
    }


def report(hour: int = 0, **fields: Any) -> dict[str, Any]:
    """A record of the metrics topic."""
    quality = {
        "average_precision": 0.7,
        "roc_auc": 0.88,
        "calibration_error": 0.01,
        "outcomes": 900,
        "frauds": 40,
    }
    return {
        "event_time": NOON + hour * 3_600_000,
        "quality": {"champion": quality, "shadow:forest": {**quality, "average_precision": 0.6}},
        "feature_drift": {"amount": {"psi": 0.31, "ks": 0.2}, "card_count_1h": {"psi": 0.02, "ks": 0.01}},
        "score_drift": {"champion": 0.04, "shadow:forest": 0.05},
        "funnel": {"shown": 40, "opened": 30, "confirmed": 12, "dismissed": 8},
        "alert_ctr": 0.75,
        "alert_precision": 0.6,
        "outcome_precision": {"naive": 0.5, "corrected": 0.45},
        "outcome_recall": {"naive": 0.8, "corrected": None},
        **fields,
    }


PLACES = (
    Place("champion", "binned", 3, 5_000, 4, 0, None),
    Place("shadow", "forest", 2, 250, 4, 1, "raised ValueError"),
)
