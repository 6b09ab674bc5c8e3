"""`/metrics`, `/livez` and `/readyz` on one port, loopback unless configured otherwise.

Liveness asks whether a restart would help: the loop turns, and messages that wait are being worked off. A
broker that is away is no reason to restart. Readiness asks whether the worker does its work now: partitions
assigned, state restored, a champion that does not fail, the broker within reach. Answers name checks and
their state, nothing else.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Mapping
from typing import Final

from aiohttp import web

Check = Callable[[], tuple[bool, str]]
NEVER: Final = -1


class Progress:
    """Liveness from samples of the work done, in milliseconds of any one monotonic clock.

    Failing when no sample came for `tick_ms` (the loop hangs or the sampler died), or when for `stall_ms`
    messages waited, the broker answered, and none was processed.
    """

    def __init__(self, tick_ms: int = 15_000, stall_ms: int = 60_000) -> None:
        self._tick_ms, self._stall_ms = tick_ms, stall_ms
        self._sampled_at = self._progress_at = NEVER
        self._processed = 0
        self._lag = 0

    def sample(self, now: int, processed: int, lag: int, broker_reachable: bool) -> None:
        """Takes the messages processed since the start and those that wait; called about once a second."""
        self._sampled_at = now
        if self._progress_at == NEVER or processed != self._processed or lag <= 0 or not broker_reachable:
            self._progress_at = now
        self._processed, self._lag = processed, lag

    def check(self, now: int) -> tuple[bool, str]:
        if self._sampled_at == NEVER:
            return True, "starting"
        if now - self._sampled_at > self._tick_ms:
            return False, f"no sample for {(now - self._sampled_at) // 1000} s"
        if now - self._progress_at > self._stall_ms:
            stalled = (now - self._progress_at) // 1000
            return False, f"{self._lag} messages wait, none processed for {stalled} s"
        return True, f"{self._lag} messages wait"


class HealthServer:
    """Serves the exposition and the checks; `start` and `stop` belong to the worker's loop.

    `port` 0 takes a free port; `port` then tells which. A check that raises counts as failing. `routes` are
    served beside.
    """

    def __init__(
        self,
        exposition: Callable[[], bytes],
        live: Mapping[str, Check],
        ready: Mapping[str, Check],
        host: str = "127.0.0.1",
        port: int = 0,
        content_type: str = "text/plain; version=0.0.4; charset=utf-8",
        routes: Iterable[web.RouteDef] = (),
    ) -> None:
        self._exposition, self._content_type = exposition, content_type
        self._live, self._ready = dict(live), dict(ready)
        self._routes = list(routes)
        self.host, self.port = host, port
        self._runner: web.AppRunner | None = None

    async def start(self) -> None:
        """Binds the port; raises OSError when it is taken."""
        app = web.Application()
        app.router.add_get("/metrics", self._metrics)
        app.router.add_get("/livez", self._livez)
        app.router.add_get("/readyz", self._readyz)
        app.add_routes(self._routes)
        app.on_response_prepare.append(_hide_versions)
        runner = web.AppRunner(app, access_log=None, shutdown_timeout=1.0)
        await runner.setup()
        try:
            await web.TCPSite(runner, self.host, self.port).start()
        except OSError:
            await runner.cleanup()
            raise
        self._runner = runner
        self.port = runner.addresses[0][1]

    async def stop(self) -> None:
        if self._runner is not None:
            await self._runner.cleanup()
            self._runner = None

    async def _metrics(self, _request: web.Request) -> web.Response:
        # A thread keeps a slow scrape of many series from holding up scoring.
        body = await asyncio.to_thread(self._exposition)
        return web.Response(body=body, headers={"Content-Type": self._content_type})

    async def _livez(self, _request: web.Request) -> web.Response:
        return _answer(self._live)

    async def _readyz(self, _request: web.Request) -> web.Response:
        return _answer(self._ready)


def _answer(checks: Mapping[str, Check]) -> web.Response:
    results = {name: _run(check) for name, check in checks.items()}
    healthy = all(ok for ok, _ in results.values())
    body = {
        "status": "ok" if healthy else "failing",
        "checks": {name: {"ok": ok, "detail": detail} for name, (ok, detail) in results.items()},
    }
    return web.json_response(body, status=200 if healthy else 503, headers={"Cache-Control": "no-store"})


def _run(check: Check) -> tuple[bool, str]:
    try:
        return check()
    except Exception as error:
        # The message may hold an address or a password; the type is enough here, the log has the rest.
        return False, f"check raised {type(error).__name__}"


async def _hide_versions(_request: web.Request, response: web.StreamResponse) -> None:
    response.headers["Server"] = "fraudstream"
