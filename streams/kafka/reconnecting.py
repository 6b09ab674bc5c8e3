"""How often an aiokafka client looks for brokers when all of them are away.

aiokafka connects again for whatever it wants to send, every 100 ms each, without a back-off: a worker with
its twenty clients tries some hundred times a second. Here only a client's metadata updates look for brokers
while all are away, with growing pauses as of `reconnect.backoff.ms` and `reconnect.backoff.max.ms` in the
Java client; everything else waits for the result. While one of several brokers is away nothing is different.
"""

from __future__ import annotations

import asyncio
from typing import Any

from aiokafka.client import AIOKafkaClient, ConnectionGroup

FIRST_PAUSE_SECONDS = 0.1
LONGEST_PAUSE_SECONDS = 1.0

_metadata_update = AIOKafkaClient._metadata_update
_ready = AIOKafkaClient.ready


def next_pause(pause: float, *, reached: bool) -> float:
    """Seconds to wait before the next look, after one that followed `pause` seconds of waiting."""
    return 0.0 if reached else min(max(2 * pause, FIRST_PAUSE_SECONDS), LONGEST_PAUSE_SECONDS)


async def metadata_update(self: Any, cluster_metadata: Any, topics: Any) -> bool:
    """Aiokafka's `_metadata_update`, after a pause if the last one has reached no broker."""
    pause = _pause(self)
    if pause:
        # Before the look, not after it: those who wait are told what is so now.
        await asyncio.sleep(pause)
    updated: bool = await _metadata_update(self, cluster_metadata, topics)
    reached = updated or any(each.connected() for each in self._conns.values())
    self._fraudstream_pause = next_pause(pause, reached=reached)
    return updated


async def ready(self: Any, node_id: Any, *, group: Any = ConnectionGroup.DEFAULT) -> bool:
    """Aiokafka's `ready`; False without a try of its own where the look for brokers finds none."""
    if _pause(self) and not await self.force_metadata_update():
        return False
    return bool(await _ready(self, node_id, group=group))


def _pause(client: Any) -> float:
    return float(getattr(client, "_fraudstream_pause", 0.0))


def install() -> None:
    """Have every client of this process do so: aiokafka offers no other place for it."""
    AIOKafkaClient._metadata_update = metadata_update
    AIOKafkaClient.ready = ready
