"""The live page of a real worker."""

from __future__ import annotations

import json
import re
import signal
import time
import urllib.error
import urllib.request
from typing import Any

import msgspec
import pytest

from streams.kafka.outputs import Output
from tests.streams.live_worker import report
from tests.streams.test_cli import Cli, alert, cli, ended, running

__all__ = ["cli"]
pytestmark = pytest.mark.broker
_SECONDS = 60.0


def get(url: str) -> tuple[int, bytes]:
    try:
        with urllib.request.urlopen(url, timeout=5) as answer:
            return answer.status, answer.read()
    except urllib.error.HTTPError as error:
        return error.code, b""


def test_a_worker_shows_alerts_and_reports_of_the_whole_system(cli: Cli) -> None:
    """The worker names the page when it starts; what is on the topics comes to it, and a worker that somebody
    looks at ends as cleanly as another."""
    cli.publish(
        *(Output(cli.topic("alerts"), p, b"c", msgspec.json.encode(alert(p))) for p in (0, 1)),
        Output(cli.topic("metrics"), 0, b"quality", json.dumps(report()).encode()),
    )
    with running(cli, "worker", "--stages", "card,observe", "--metrics-port", "0") as process:
        assert process.stderr is not None
        started = process.stderr.readline().decode()
        found = re.search(r"metrics and health on (\S+) \(/metrics, /livez, /readyz, /live\)", started)
        assert found is not None, started
        assert b"<title>fraudstream live</title>" in get(f"{found[1]}/live")[1]
        state: dict[str, Any] = {"alerts": [], "statistics": {"drift": []}}
        deadline = time.monotonic() + _SECONDS
        while len(state["alerts"]) < 2 or not state["statistics"]["drift"]:
            assert time.monotonic() < deadline, state
            status, body = get(f"{found[1]}/live/state.json")
            assert status == 200
            state = json.loads(body)
        assert {each["alert_id"] for each in state["alerts"]} == {"a0", "a1"}
        assert state["alerts"][0]["amount"] == "12.34"
        assert state["about"]["stages"] == ["card", "observe"]
        assert state["topics"] == "following"
        assert ": ready: " in process.stderr.readline().decode()
        exit_code, rest = ended(process, signal.SIGINT)
    assert exit_code == 130
    assert rest.splitlines()[-1].endswith("what was under way is finished and committed")
    assert "live page" not in rest


def test_a_worker_without_the_page_says_nothing_of_it(cli: Cli) -> None:
    """With `worker.live_page` off there is no page, and the log does not name one."""
    cli.environment["FRAUD_WORKER__LIVE_PAGE"] = "off"
    with running(cli, "worker", "--stages", "observe", "--metrics-port", "0") as process:
        assert process.stderr is not None
        started = process.stderr.readline().decode()
        found = re.search(r"metrics and health on (\S+) \(/metrics, /livez, /readyz\)", started)
        assert found is not None, started
        assert get(f"{found[1]}/metrics")[0] == 200
        for path in ("/live", "/live/state.json", "/live/page.js"):
            assert get(found[1] + path)[0] == 404
        assert ": ready: " in process.stderr.readline().decode()
        assert ended(process, signal.SIGTERM)[0] == 0
