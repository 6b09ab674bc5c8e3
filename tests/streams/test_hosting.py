"""Apps that are stopped while they start."""

from __future__ import annotations

import asyncio
from typing import cast

import faust
import pytest

from streams.kafka import hosting
from streams.kafka.hosting import AppCrashed, run_apps


class Starting:
    """An app that is asked to stop while it connects; `turns` of the event loop later it is connected."""

    crashed = False

    def __init__(self, stop: asyncio.Event, turns: float) -> None:
        self._stop, self._turns = stop, turns
        self.events: list[str] = []

    async def start(self) -> None:
        self._stop.set()
        try:
            while self._turns > 0:
                self._turns -= 1
                await asyncio.sleep(0)
        except asyncio.CancelledError:
            self.events.append("torn out")
            raise
        self.events.append("connected")

    async def wait_until_stopped(self) -> None:
        await asyncio.Event().wait()

    async def stop(self) -> None:
        self.events.append("stopped")


@pytest.mark.parametrize(("turns", "expected"), [(10, "connected"), (float("inf"), "torn out")])
def test_connecting_ends_before_an_app_is_stopped(
    turns: float, expected: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is half open would stay so; a start that takes for ever is not waited for."""
    monkeypatch.setattr(hosting, "CONNECTING_SECONDS", 0.1 if expected == "torn out" else 60)

    async def scenario() -> list[str]:
        stop = asyncio.Event()
        app = Starting(stop, turns)
        await run_apps([cast("faust.App", app)], stop=stop)
        return app.events

    assert asyncio.run(scenario()) == [expected, "stopped"]


def test_an_app_that_cannot_start_is_told() -> None:
    """With the reason, and stopped all the same."""

    class Failing(Starting):
        conf = faust.App("failing", autodiscover=False).conf

        async def start(self) -> None:
            raise OSError("no way in")

    async def scenario() -> None:
        app = Failing(asyncio.Event(), 0)
        with pytest.raises(AppCrashed, match="failing was stopped by OSError: no way in"):
            await run_apps([cast("faust.App", app)])
        assert app.events == ["stopped"]

    asyncio.run(scenario())


def test_an_app_that_crashes_while_it_starts_is_told() -> None:
    """Faust cancels the start then: that is no request to stop, and not Ctrl-C."""

    class Crashing(Starting):
        conf = faust.App("crashing", autodiscover=False).conf
        crash_reason = OSError("gone")

        async def start(self) -> None:
            raise asyncio.CancelledError

    async def scenario() -> None:
        app = Crashing(asyncio.Event(), 0)
        with pytest.raises(AppCrashed, match="crashing was stopped by OSError: gone"):
            await run_apps([cast("faust.App", app)])
        assert app.events == ["stopped"]

    asyncio.run(scenario())
