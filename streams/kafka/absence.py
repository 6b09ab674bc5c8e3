"""How long a worker does without a broker: half a minute, then it ends.

A process that has nothing to send does not notice by itself that its broker is away: `watch` does. What is
connected only now, for instance to restore the state of a partition, is tried again meanwhile: `patiently`.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Sequence
from typing import Final, Protocol, TypeVar

from aiokafka.errors import (
    KafkaConnectionError,
    KafkaError,
    KafkaTimeoutError,
    NodeNotReadyError,
    RequestTimedOutError,
)

from streams.errors import BrokerUnreachable
from streams.logs import NOTICE

logger = logging.getLogger(__name__)

AWAY_SECONDS: Final = 30.0
#: A broker that has answered nothing for so long is away, though its connections are open.
SILENT_SECONDS: Final = 5.0

_EVERY_SECONDS = 1.0
_NO_BROKER = (
    BrokerUnreachable,
    KafkaConnectionError,
    KafkaTimeoutError,
    NodeNotReadyError,
    RequestTimedOutError,
)

T = TypeVar("T")


class Connection(Protocol):
    """What `streams.kafka.outputs.Outputs` says of its connections."""

    @property
    def silent_for(self) -> float: ...

    def look(self) -> None: ...


def answering(connections: Sequence[Connection]) -> bool:
    """Whether there is a broker at the moment."""
    return any(each.silent_for < SILENT_SECONDS for each in connections)


async def watch(
    connections: Sequence[Connection],
    on_lost: Callable[[BaseException], Awaitable[None]],
    address: str,
    *,
    looks: int = round(AWAY_SECONDS / _EVERY_SECONDS),
    every: float = _EVERY_SECONDS,
) -> None:
    """Look every so many seconds for a broker; end with `on_lost` after so many looks in a row without one.

    Looks are counted, not seconds: a process that was stopped for a while has to look before it judges. A
    connection that was closed, or whose broker has come back, is opened again by the look.
    """
    missed = 0
    while True:
        if answering(connections):
            if missed:
                logger.log(NOTICE, "a broker at %s answers again, after %g s", address, missed * every)
            missed = 0
        elif missed == looks:
            break
        else:
            missed += 1
            if missed == 1:
                logger.warning("no broker answers at %s; waiting up to %g s for one", address, looks * every)
        for each in connections:
            each.look()
        await asyncio.sleep(every)
    try:
        raise BrokerUnreachable(f"no answer for {looks * every:g} s")
    except BrokerUnreachable as error:
        await on_lost(error)  # logs the exception under way, as Faust's do


async def patiently(
    attempt: Callable[[], Awaitable[T]], address: str, *, within: float = AWAY_SECONDS, pause: float = 0.25
) -> T:
    """What `attempt` gives; it is made again, with growing pauses, as long as no broker lets it.

    Raises:
        BrokerUnreachable: not within so many seconds.
    """
    loop = asyncio.get_running_loop()
    until = loop.time() + within
    while True:
        try:
            return await attempt()
        except (KafkaError, BrokerUnreachable) as error:
            # Of the plain kind is what aiokafka raises when no broker gives it metadata.
            if not (isinstance(error, _NO_BROKER) or type(error) is KafkaError):
                raise
            if loop.time() + pause > until:
                raise BrokerUnreachable(f"no broker lets us in at {address} for {within:g} s") from error
        await asyncio.sleep(pause)
        pause = min(2 * pause, _EVERY_SECONDS)
