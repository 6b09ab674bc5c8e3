"""Closing aiokafka consumers while the broker is away, or their group waits for a member that is gone.

`Fetcher.close` of aiokafka cancels its fetches and awaits each; one that waits for its next try ends
cancelled, and the cancellation comes out of `close` as if the caller had been cancelled: a thread of Faust's
ends before it has said so, a worker with the exit code of Ctrl-C.

`GroupCoordinator.close` waits until the group has been joined, and a group is not complete before a member
that died has timed out.
"""

from __future__ import annotations

import asyncio
from typing import Any

from aiokafka.consumer import fetcher, group_coordinator

#: How long a consumer that closes waits for the group that it is joining: long enough for one without dead
#: members, to leave it in order; an app has 9 s to stop.
JOINING_SECONDS = 4.0

_close = fetcher.Fetcher.close
_join = group_coordinator.CoordinatorGroupRebalance.perform_group_join


async def close(self: Any) -> None:
    """Aiokafka's `close`, after its fetches have ended, however they did."""
    self._closed = True
    self._fetch_task.cancel()  # it would start the next ones
    await asyncio.gather(self._fetch_task, return_exceptions=True)
    pending = list(self._pending_tasks)
    for task in pending:
        task.cancel()
    await asyncio.gather(*pending, return_exceptions=True)
    self._pending_tasks.clear()
    await _close(self)


async def join(self: Any) -> tuple[str, bytes] | None:
    """Aiokafka's `perform_group_join`, given up some time after the consumer has begun to close."""
    joining = asyncio.ensure_future(_join(self))
    try:
        await asyncio.wait([joining, self._coordinator._closing], return_when=asyncio.FIRST_COMPLETED)
        await asyncio.wait([joining], timeout=JOINING_SECONDS)
        if joining.done():
            return joining.result()  # type: ignore[no-any-return]  # aiokafka has no types
    finally:
        joining.cancel()
    # To leave the group would wait on the same connection, behind the answer that does not come.
    self._coordinator.reset_generation()
    return None


def install() -> None:
    """Have every consumer of this process close so: aiokafka offers no other place for it."""
    fetcher.Fetcher.close = close
    group_coordinator.CoordinatorGroupRebalance.perform_group_join = join
