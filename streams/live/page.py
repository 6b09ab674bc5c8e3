"""`/live`: the page, its state as JSON, and the files it needs; read-only, from this worker and nowhere else.

Alerts carry card tokens, so the page is served where `worker.metrics_host` is this machine, and further only
if `worker.live_page` says so. What a request for this machine calls its host is looked at: a page of another
site that has pointed its own name here (DNS rebinding) is not answered.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Awaitable, Callable
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import Final

import msgspec
from aiohttp import web

from streams.live.feed import LiveFeed

_STATIC: Final = Path(__file__).parent / "static"
_FILES: Final = {
    "/live": ("page.html", "text/html"),
    "/live/page.css": ("page.css", "text/css"),
    "/live/charts.css": ("charts.css", "text/css"),
    "/live/page.js": ("page.js", "text/javascript"),
    "/live/icon.svg": ("icon.svg", "image/svg+xml"),
}
_HEADERS: Final = {
    "Content-Security-Policy": "default-src 'self'; base-uri 'none'; form-action 'none'; "
    "frame-ancestors 'none'; object-src 'none'",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
}
_NO_CHARTS: Final = "no charts: they need plotly, pip install 'fraudstream[live]'"

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


def charts_file() -> Path | None:
    """Plotly's JavaScript as its Python package ships it; None where it is not installed."""
    found = find_spec("plotly")
    if found is None or found.origin is None:
        return None
    file = Path(found.origin).parent / "package_data" / "plotly.min.js"
    return file if file.is_file() else None


def is_this_machine(host: str) -> bool:
    """Whether a host name or address is that of the loopback interface."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return False


def routes(feed: LiveFeed, *, loopback_only: bool) -> list[web.RouteDef]:
    """GET routes of the page; with `loopback_only` other names for this machine are refused."""
    charts = charts_file()

    async def state(_request: web.Request) -> web.Response:
        document = feed.state() | {"charts": None if charts else _NO_CHARTS}
        headers = {"Cache-Control": "no-store"}
        return web.Response(
            body=msgspec.json.encode(document), content_type="application/json", headers=headers
        )

    async def script(_request: web.Request) -> web.StreamResponse:
        if charts is None:
            raise web.HTTPNotFound(text=_NO_CHARTS)
        headers = {"Cache-Control": "max-age=3600", "Content-Type": "text/javascript"}
        return web.FileResponse(charts, headers=headers)

    handlers: dict[str, Handler] = {
        path: partial(_static, (_STATIC / name).read_text("utf-8"), kind)
        for path, (name, kind) in _FILES.items()
    }
    handlers |= {"/live/state.json": state, "/live/charts.js": script}
    return [
        web.get(path, partial(_guarded, handler, loopback_only), allow_head=False)
        for path, handler in handlers.items()
    ]


async def _static(text: str, kind: str, _request: web.Request) -> web.Response:
    headers = {"Cache-Control": "no-cache"}
    return web.Response(text=text, content_type=kind, charset="utf-8", headers=headers)


async def _guarded(handler: Handler, loopback_only: bool, request: web.Request) -> web.StreamResponse:
    host = request.url.host or ""
    if loopback_only and not is_this_machine(host):
        raise web.HTTPForbidden(text="ask for localhost: this page is for this machine\n", headers=_HEADERS)
    response = await handler(request)
    response.headers.update(_HEADERS)
    return response
