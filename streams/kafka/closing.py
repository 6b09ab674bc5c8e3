"""Closing aiokafka consumers while the broker is away.

`Fetcher.close` of aiokafka cancels its fetches and awaits each; one that waits for its next try ends
cancelled, and the cancellation comes out of `close` as if the caller had been cancelled: a thread of Faust's
ends before it has said so, a worker with the exit code of Ctrl-C.
"""

from __future__ import annotations

import asyncio
from typing import Any

from aiokafka.consumer import fetcher

_close = fetcher.Fetcher.close


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


def install() -> None:
    """Have every consumer of this process close so: aiokafka offers no other place for it."""
    fetcher.Fetcher.close = close
