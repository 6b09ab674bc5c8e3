"""The live page's routes without a browser: where it loads from, whom it refuses, its charts."""

from __future__ import annotations

import re
from pathlib import Path

import aiohttp
import pytest

from streams.live import compose, page
from streams.settings import Settings
from tests.streams.live_worker import asked

STATIC = Path(page.__file__).parent / "static"


def test_the_page_loads_from_its_worker_only() -> None:
    """Every answer forbids other sources, and no file of the page names another address or inline code."""

    async def use(session: aiohttp.ClientSession, base: str) -> None:
        for path in ("/live", "/live/page.js", "/live/state.json", "/live/charts.css"):
            async with session.get(base + path) as answer:
                policy = answer.headers["Content-Security-Policy"].split("; ")
                assert "default-src 'self'" in policy
                assert "frame-ancestors 'none'" in policy
                assert "unsafe" not in " ".join(policy)
                assert answer.headers["X-Content-Type-Options"] == "nosniff"
                assert answer.headers["Cross-Origin-Resource-Policy"] == "same-origin"

    asked(use)
    files = [file for file in STATIC.iterdir() if file.suffix in (".html", ".js", ".css", ".svg")]
    assert len(files) >= 4
    for file in files:
        addresses = set(re.findall(r"(?:https?:)?//[\w.-]+\.\w+[^\s\"']*", file.read_text()))
        assert addresses <= {"http://www.w3.org/2000/svg"}, file.name
    html = (STATIC / "page.html").read_text()
    assert not re.search(r"<script(?![^>]*\ssrc=)|<style|\sstyle=|\son\w+=|javascript:", html)


def test_records_never_become_markup() -> None:
    """No way from text to elements or code is used by the script: what it shows goes through textContent."""
    script = (STATIC / "page.js").read_text()
    assert "textContent" in script
    forbidden = (
        r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|createContextualFragment|eval\(|Function\("
    )
    assert not re.search(forbidden, script)


def test_only_getting_is_allowed() -> None:
    """Other methods are refused, unknown paths are not found."""

    async def use(session: aiohttp.ClientSession, base: str) -> None:
        for path in ("/live", "/live/state.json", "/live/page.js"):
            for method in ("POST", "PUT", "DELETE", "PATCH"):
                async with session.request(method, base + path) as answer:
                    assert answer.status == 405, (method, path)
                    assert answer.headers["Allow"] == "GET"
        for path in ("/live/", "/live/other", "/live/../cli.py", "/live/%2e%2e/page.py"):
            async with session.get(base + path) as answer:
                assert answer.status == 404, path

    asked(use)


def test_another_name_for_this_machine_is_refused() -> None:
    """A foreign site that points its own name at the loopback interface reads no alerts; the names of this
    machine do, and where the page is served to others any name does."""

    async def status(session: aiohttp.ClientSession, base: str, host: str) -> int:
        async with session.get(f"{base}/live/state.json", headers={"Host": host}) as answer:
            return answer.status

    async def use(session: aiohttp.ClientSession, base: str) -> None:
        for host in ("evil.example", "evil.example:9464", "127.0.0.1.evil.example"):
            assert await status(session, base, host) == 403, host
        for host in ("localhost:9464", "127.0.0.1", "[::1]:9464"):
            assert await status(session, base, host) == 200, host

    async def anywhere(session: aiohttp.ClientSession, base: str) -> None:
        assert await status(session, base, "worker-3.internal") == 200

    asked(use)
    asked(anywhere, loopback_only=False)


@pytest.mark.parametrize(
    ("live_page", "host", "served"),
    [
        ("loopback", "127.0.0.1", True),
        ("loopback", "::1", True),
        ("loopback", "localhost", True),
        ("loopback", "0.0.0.0", False),
        ("loopback", "10.1.2.3", False),
        ("anywhere", "0.0.0.0", True),
        ("off", "127.0.0.1", False),
    ],
)
def test_other_machines_see_it_only_if_the_settings_say_so(live_page: str, host: str, served: bool) -> None:
    """Metrics may be open to a network; card tokens are not, unless somebody has said it."""
    settings = Settings.model_validate({"worker": {"live_page": live_page, "metrics_host": host}})
    assert compose.is_served(settings) is served


def test_without_plotly_everything_but_the_charts_is_there(monkeypatch: pytest.MonkeyPatch) -> None:
    """The state says how to get them, and the page goes without."""
    monkeypatch.setattr(page, "find_spec", lambda _: None)

    async def use(session: aiohttp.ClientSession, base: str) -> None:
        async with session.get(f"{base}/live/state.json") as answer:
            assert "pip install 'fraudstream[live]'" in (await answer.json())["charts"]
        async with session.get(f"{base}/live/charts.js") as answer:
            assert answer.status == 404
        async with session.get(f"{base}/live") as answer:
            assert answer.status == 200

    asked(use)


def test_the_charts_come_from_the_installed_package() -> None:
    """Plotly's script is served from its Python package, whole."""
    pytest.importorskip("plotly", reason="plotly is not installed: pip install 'fraudstream[live]'")
    file = page.charts_file()
    assert file is not None

    async def use(session: aiohttp.ClientSession, base: str) -> None:
        async with session.get(f"{base}/live/charts.js") as answer:
            assert answer.headers["Content-Type"].startswith("text/javascript")
            assert len(await answer.read()) == file.stat().st_size > 1_000_000

    asked(use)
