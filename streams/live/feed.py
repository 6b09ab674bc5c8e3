"""What the page shows, gathered only while somebody looks.

The first question starts the readers of the alerts and metrics topics and a reading of the metrics every
second; a minute without one stops them. So a worker whose page nobody opens does nothing for it.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Sequence
from dataclasses import asdict
from typing import Any, Protocol

from streams.live.alerts import MOST_ALERTS, LatestAlerts
from streams.live.lineup import Place
from streams.live.reports import KEPT, Statistics
from streams.live.software import Reading, Software

logger = logging.getLogger(__name__)

QUIET_SECONDS = 60.0
TICK_SECONDS = 1.0


class Record(Protocol):
    """What is looked at of a record."""

    @property
    def value(self) -> bytes | None: ...


class Follower(Protocol):
    """Reads the topics until cancelled; `state` tells people what it does or waits for."""

    state: str

    async def run(self) -> None: ...


class LiveFeed:
    """The state of the page.

    Args:
        about: what stays the same: the stages of the worker, its version.
        sample: a reading of the metrics.
        lineup: the models that score here.
        follow: given what takes records, a reader of the topics.
        clock: seconds, monotonic.
    """

    def __init__(
        self,
        about: dict[str, Any],
        sample: Callable[[], Reading],
        lineup: Callable[[], Sequence[Place]],
        follow: Callable[[Callable[[str, Sequence[Record]], None]], Follower],
        alerts_topic: str,
        clock: Callable[[], float],
        tick_seconds: float = TICK_SECONDS,
    ) -> None:
        self._about = about
        self._sample = sample
        self._lineup = lineup
        self._alerts_topic = alerts_topic
        self._clock = clock
        self._tick_seconds = tick_seconds
        self._alerts = LatestAlerts()
        self._statistics = Statistics()
        self._software = Software()
        self._follower = follow(self._take)
        self._asked_at = 0.0
        self._task: asyncio.Task[None] | None = None

    @property
    def running(self) -> bool:
        """Whether anything is read for the page."""
        return self._task is not None and not self._task.done()

    def state(self) -> dict[str, Any]:
        """Everything as plain values; asking starts the feed and keeps it going."""
        self._asked_at = self._clock()
        if not self.running:
            self._software.clear()
            self._software.add(self._sample())
            self._task = asyncio.create_task(self._run(), name="live")
        return {
            "about": self._about,
            "topics": self._follower.state,
            "software": self._software.document(),
            "models": [asdict(place) for place in self._lineup()],
            "statistics": self._statistics.document(),
            "alerts": self._alerts.document(),
        }

    async def stop(self) -> None:
        """Stops what was started; asking again starts it anew."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)

    async def _run(self) -> None:
        following = asyncio.create_task(self._follower.run(), name="live topics")
        try:
            while self._clock() - self._asked_at < QUIET_SECONDS:
                await asyncio.sleep(self._tick_seconds)
                self._software.add(self._sample())
        except Exception:
            logger.exception("the live page has stopped; the next question starts it again")
        finally:
            following.cancel()
            await asyncio.gather(following, return_exceptions=True)

    def _take(self, topic: str, records: Sequence[Record]) -> None:
        if topic == self._alerts_topic:
            self._alerts.take([record.value for record in records])
        else:
            for record in records:
                self._statistics.take(record.value)


#: Records of each partition that are there when the feed starts and are read.
NEWEST_ALERTS = MOST_ALERTS
NEWEST_REPORTS = 8 * KEPT
