"""A process that has nothing to send does not notice by itself that its broker is away."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Sequence
from typing import Protocol

from streams.errors import BrokerUnreachable


class Connection(Protocol):
    """What `streams.kafka.outputs.Outputs` says of its connections."""

    @property
    def connected(self) -> bool: ...

    def reconnect(self) -> None: ...


async def watch(
    connections: Sequence[Connection],
    on_lost: Callable[[BaseException], Awaitable[None]],
    *,
    after: float,
    every: float = 1.0,
    clock: Callable[[], float] = time.monotonic,
) -> None:
    """Look every so many seconds for a broker, and end with `on_lost` once there has been none for `after`.

    A connection that was closed for being idle, or whose broker has come back, is opened again by the look.
    """
    seen = clock()
    while clock() - seen < after:
        if any(each.connected for each in connections):
            seen = clock()
        else:
            for each in connections:
                each.reconnect()
        await asyncio.sleep(every)
    await on_lost(BrokerUnreachable(f"no connection for {after:g} s"))
