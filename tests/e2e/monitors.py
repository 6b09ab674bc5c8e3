"""A real Prometheus and a real Alertmanager with the project's rules, and a webhook that notes what comes."""

from __future__ import annotations

import json
import shutil
import subprocess
import threading
import time
import urllib.parse
import urllib.request
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.e2e.harness import free_port, until

ROOT = Path(__file__).resolve().parents[2]
MONITORING = ROOT / "monitoring"
PROMETHEUS = shutil.which("prometheus")
#: The name upstream, and Debian's.
ALERTMANAGER = shutil.which("alertmanager") or shutil.which("prometheus-alertmanager")
needs_monitors = pytest.mark.skipif(
    PROMETHEUS is None or ALERTMANAGER is None,
    reason="no prometheus and alertmanager here (Debian: prometheus, prometheus-alertmanager)",
)
#: Alerts that may ring beside any fault: this machine may be slow.
SLOW = {"FraudLatencyBurnFast", "FraudLatencyBurnSlow", "FraudConsumerLag", "FraudEventLoopBlocked"}


def _answers(url: str) -> bool:
    try:
        with urllib.request.urlopen(url, timeout=2) as answer:
            return bool(answer.status == 200)
    except OSError:
        return False


@contextmanager
def _process(command: Sequence[str], ready: str, log: Path) -> Iterator[subprocess.Popen[bytes]]:
    with log.open("wb") as output:
        process = subprocess.Popen(command, stdout=output, stderr=output, stdin=subprocess.DEVNULL)
    try:
        until(lambda: _answers(ready), seconds=60, what=f"{command[0]} ready:\n{log.read_text()[-2000:]}")
        yield process
    finally:
        process.terminate()
        process.wait(20)


class Webhook:
    """Takes Alertmanager's notifications; `firing` holds those seen, by name, with the labels of each.

    `rang` says when, by the monotonic clock, an alert was first notified as firing.
    """

    def __init__(self) -> None:
        self.notifications: list[dict[str, Any]] = []
        self.rang: dict[str, float] = {}
        webhook = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                notification = json.loads(body)
                for alert in notification["alerts"]:
                    if alert["status"] == "firing":
                        webhook.rang.setdefault(alert["labels"]["alertname"], time.monotonic())
                webhook.notifications.append(notification)
                self.send_response(200)
                self.end_headers()

            def log_message(self, format: str, *args: object) -> None:
                """Nothing: pytest shows what fails."""

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_port}/"
        self._thread = threading.Thread(target=self._server.serve_forever, daemon=True)
        self._thread.start()

    def firing(self) -> list[dict[str, Any]]:
        """Every alert that was notified as firing."""
        alerts = [alert for each in list(self.notifications) for alert in each["alerts"]]
        return [alert for alert in alerts if alert["status"] == "firing"]

    def names(self) -> set[str]:
        return {alert["labels"]["alertname"] for alert in self.firing()}

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


class Monitors:
    """What a person asks Prometheus."""

    def __init__(self, url: str, webhook: Webhook) -> None:
        self._url = url
        self.webhook = webhook

    def query(self, expression: str, at: float | None = None) -> list[dict[str, Any]]:
        """The value of each series now, or at an epoch second; a mistake in the expression is an error."""
        moment = {} if at is None else {"time": f"{at:.3f}"}
        asked = urllib.parse.urlencode({"query": expression, **moment}).encode()
        with urllib.request.urlopen(f"{self._url}/api/v1/query", data=asked, timeout=30) as answer:
            result = json.load(answer)
        assert result["status"] == "success", result
        data = result["data"]
        found: list[dict[str, Any]] = data["result"]
        return found if data["resultType"] == "vector" else [{"metric": {}, "value": data["result"]}]


def _changed_rules(directory: Path, change: Callable[[dict[str, Any]], dict[str, Any]]) -> Iterator[Path]:
    for source in sorted((MONITORING / "prometheus" / "rules").iterdir()):
        target = directory / source.name
        target.write_text(json.dumps(change(yaml.safe_load(source.read_text()))))  # JSON is YAML
        yield target


@contextmanager
def monitors(
    directory: Path,
    workers: Sequence[str],
    *,
    change: Callable[[dict[str, Any]], dict[str, Any]] | None = None,
    interval: str = "1s",
) -> Iterator[Monitors]:
    """Prometheus scraping `workers` (host:port) every `interval`, and Alertmanager, with the project's files.

    Only addresses and intervals are changed in them: rules, durations, routes and inhibitions are ours, but
    for what `change` makes of each file of rules.
    """
    assert PROMETHEUS is not None
    assert ALERTMANAGER is not None
    with ExitStack() as stack:
        webhook = Webhook()
        stack.callback(webhook.close)
        routes = (MONITORING / "alertmanager" / "alertmanager.yml").read_text()
        alertmanager = directory / "alertmanager.yml"
        alertmanager.write_text(
            routes.replace("url_file: /run/secrets/alert_webhook_url", f"url: {webhook.url}")
        )
        alerts, metrics = f"127.0.0.1:{free_port()}", f"127.0.0.1:{free_port()}"
        command = [ALERTMANAGER, f"--config.file={alertmanager}", f"--storage.path={directory / 'alerts'}"]
        command += [f"--web.listen-address={alerts}", "--cluster.listen-address="]
        stack.enter_context(_process(command, f"http://{alerts}/-/ready", directory / "alertmanager.log"))

        config = yaml.safe_load((MONITORING / "prometheus" / "prometheus.yml").read_text())
        names = ("scrape_interval", "scrape_timeout", "evaluation_interval")
        config["global"] = dict.fromkeys(names, interval)
        if change is None:
            config["rule_files"] = [str(MONITORING / "prometheus" / each) for each in config["rule_files"]]
        else:
            config["rule_files"] = [str(each) for each in _changed_rules(directory, change)]
        config["alerting"]["alertmanagers"] = [{"static_configs": [{"targets": [alerts]}]}]
        config["scrape_configs"] = [
            {"job_name": "fraudstream", "static_configs": [{"targets": list(workers)}]}
        ]
        prometheus = directory / "prometheus.yml"
        prometheus.write_text(json.dumps(config))
        command = [PROMETHEUS, f"--config.file={prometheus}", f"--storage.tsdb.path={directory / 'series'}"]
        command += [f"--web.listen-address={metrics}"]
        stack.enter_context(_process(command, f"http://{metrics}/-/ready", directory / "prometheus.log"))
        yield Monitors(f"http://{metrics}", webhook)
