"""The page of one worker, put together."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Sequence

from models.deployment import Deployment
from monitoring.metrics import Metrics
from streams.live.feed import NEWEST_ALERTS, NEWEST_REPORTS, LiveFeed
from streams.live.lineup import lineup
from streams.live.page import is_this_machine
from streams.live.software import read
from streams.live.tail import Tail
from streams.settings import Settings
from streams.stages.context import wall_ms


def is_served(settings: Settings) -> bool:
    """Whether the worker shows its page: `worker.live_page` on the address that it listens on."""
    worker = settings.worker
    return worker.live_page == "anywhere" or (
        worker.live_page == "loopback" and is_this_machine(worker.metrics_host)
    )


def live_feed(
    settings: Settings,
    stages: Sequence[str],
    metrics: Metrics,
    deployments: Callable[[], Iterable[Deployment]],
    version: str,
) -> LiveFeed:
    """The feed of a worker's page; nothing runs before it is asked.

    Args:
        deployments: the models in place, one of every score partition here.
    """
    alerts, reports = settings.topics.alerts, settings.topics.metrics
    return LiveFeed(
        about={"stages": list(stages), "version": version},
        sample=lambda: read(metrics, time.monotonic(), wall_ms()),
        lineup=lambda: lineup(deployments()),
        follow=lambda take: Tail(settings.broker, {alerts: NEWEST_ALERTS, reports: NEWEST_REPORTS}, take),
        alerts_topic=alerts,
        clock=time.monotonic,
    )
