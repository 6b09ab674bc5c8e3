"""Several Faust apps in one process and one event loop: started together, stopped together, ended by a signal
or by the first crash.
"""

from __future__ import annotations

import asyncio
import logging
import signal
from collections.abc import Sequence
from typing import Any

import faust

from streams.errors import FraudstreamError

logger = logging.getLogger(__name__)


class AppCrashed(FraudstreamError):
    """Look at the cause, then start the process again: an agent or the transport of an app has failed."""

    def __init__(self, app_id: str, cause: BaseException | None) -> None:
        self.app_id = app_id
        super().__init__(
            f"{app_id} stopped by {type(cause).__name__}: {cause}" if cause else f"{app_id} stopped by itself"
        )


class StopTimedOut(FraudstreamError):
    """Look for a blocked agent: the apps were asked to stop and did not; what was not committed is read
    again.
    """


async def run_apps(
    apps: Sequence[faust.App],
    *,
    stop: asyncio.Event | None = None,
    handle_signals: bool = False,
    stop_within: float = 9.0,
) -> None:
    """Run `apps` until `stop` is set, then let agents finish what they are working on, commit, and leave the
    groups.

    With `handle_signals`, SIGTERM and SIGINT set `stop`.

    Raises:
        AppCrashed: an app ended by itself; the others have been stopped.
        StopTimedOut: stopping took longer than `stop_within` seconds.
    """
    stop = stop or asyncio.Event()
    loop = asyncio.get_running_loop()
    signals = (signal.SIGTERM, signal.SIGINT) if handle_signals else ()
    for number in signals:
        loop.add_signal_handler(number, stop.set)
    asked = asyncio.create_task(stop.wait())
    try:
        starting = asyncio.gather(*(app.start() for app in apps))
        await asyncio.wait({starting, asked}, return_when=asyncio.FIRST_COMPLETED)
        if starting.done():
            starting.result()
            ended = [asyncio.create_task(app.wait_until_stopped()) for app in apps]
            waiting: set[asyncio.Future[Any]] = {*ended, asked}
            await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
            for task in ended:
                task.cancel()
            await asyncio.gather(*ended, return_exceptions=True)
        else:
            starting.cancel()
            await asyncio.gather(starting, return_exceptions=True)
    finally:
        asked.cancel()
        try:
            async with asyncio.timeout(stop_within):
                await asyncio.gather(*(app.stop() for app in apps))
        except TimeoutError:
            raise StopTimedOut(
                f"the apps were still running {stop_within:g} s after they were asked to stop"
            ) from None
        finally:
            for number in signals:
                loop.remove_signal_handler(number)
    for app in apps:
        if app.crashed or not stop.is_set():
            cause = app.crash_reason
            raise AppCrashed(app.conf.id, cause) from cause
