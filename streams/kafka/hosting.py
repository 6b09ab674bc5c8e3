"""Several Faust apps in one event loop: started together, ended by a signal or by the first crash."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import faust

from streams.errors import FraudstreamError

#: An app torn out of its start leaves open what it was connecting to. Connecting takes less than this;
#: joining the group is a part of the start, takes longer, and is not waited for.
CONNECTING_SECONDS = 0.5


class AppCrashed(FraudstreamError):
    """Look at the cause, then start the process again: an agent or the transport of an app has failed."""

    def __init__(self, app_id: str, cause: BaseException | None) -> None:
        self.app_id = app_id
        reason = "by itself" if cause is None else f"by {type(cause).__name__}: {cause}"
        super().__init__(f"{app_id} was stopped {reason}")


class StopTimedOut(FraudstreamError):
    """End the process with `os._exit`: an agent blocks, and the threads of its app would keep it alive."""


async def run_apps(
    apps: Sequence[faust.App],
    *,
    stop: asyncio.Event | None = None,
    handle_signals: bool = False,
    stop_within: float = 9.0,
) -> signal.Signals | None:
    """Run `apps` until `stop` is set, let agents finish what they work on, commit, leave the groups.

    With `handle_signals`, SIGTERM and SIGINT set `stop`; the first of them is returned.

    Raises:
        AppCrashed: an app failed or could not start; the others have been stopped in order.
        StopTimedOut: stopping took more than `stop_within` seconds.
    """
    stop = asyncio.Event() if stop is None else stop
    with _signals(stop, handled=handle_signals) as received:
        starts = [asyncio.create_task(app.start()) for app in apps]
        lives = [asyncio.create_task(_live(app, start)) for app, start in zip(apps, starts, strict=True)]
        asked = asyncio.create_task(stop.wait())
        await asyncio.wait([asked, *lives], return_when=asyncio.FIRST_COMPLETED)
        crashes = [error for life in lives if life.done() and (error := life.exception()) is not None]
        await asyncio.wait(starts, timeout=CONNECTING_SECONDS)
        tasks = [asked, *lives, *starts]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        try:
            async with asyncio.timeout(stop_within):
                await asyncio.gather(*(app.stop() for app in apps))
        except TimeoutError:
            why = f", after {crashes[0]}" if crashes else ""
            late = StopTimedOut(
                f"the apps were still running {stop_within:g} s after they were asked to stop{why}"
            )
            raise late from (crashes[0] if crashes else None)
    for app in apps:
        if not crashes and app.crashed:  # while stopping
            crashes.append(AppCrashed(app.conf.id, app.crash_reason))
    if crashes:
        raise crashes[0]
    return received[0] if received else None


async def _live(app: faust.App, start: asyncio.Task[None]) -> None:
    """Wait until `app` has started and ends, which it does by itself only when it fails."""
    try:
        await asyncio.shield(start)
        await app.wait_until_stopped()
    except asyncio.CancelledError:
        if not start.cancelled():  # somebody waits no more for this one
            raise
        # An app that crashes while it starts cancels its start.
    except Exception as error:
        raise AppCrashed(app.conf.id, error) from error
    raise AppCrashed(app.conf.id, app.crash_reason) from app.crash_reason


@contextmanager
def _signals(stop: asyncio.Event, *, handled: bool) -> Iterator[list[signal.Signals]]:
    """Gives the signals received so far."""
    received: list[signal.Signals] = []

    def take(number: signal.Signals) -> None:
        received.append(number)
        stop.set()

    loop = asyncio.get_running_loop()
    numbers = (signal.SIGTERM, signal.SIGINT) if handled else ()
    for number in numbers:
        loop.add_signal_handler(number, take, number)
    try:
        yield received
    finally:
        for number in numbers:
            loop.remove_signal_handler(number)
