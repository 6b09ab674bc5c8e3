"""The overhead benchmark: what it compares, when everything is read, and what it makes of the runs."""

from __future__ import annotations

import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from benchmarks import fraudstream, monitoring_overhead
from benchmarks.harness import Measurement, Run
from benchmarks.monitoring_overhead import VARIANTS, nothing_lags, overhead
from benchmarks.workload import Workload
from tests.e2e.harness import until


def run(rate: float, cpu: float) -> Measurement:
    return Measurement(10, 1.0, rate, 1000 / cpu, cpu, 1.0, 1.0, True)


def test_the_variants_differ_in_observing_and_in_scrapes_alone(tmp_path: Path) -> None:
    """The command of the throughput benchmark, with one more stage in the last variant."""
    place = Run("localhost:1", 4, tmp_path, Workload(10))
    plain = fraudstream.command(place)
    scoring, scraped, observed = (one.command(place) for one in VARIANTS)
    assert scoring == scraped == plain
    assert [word for word in observed if word not in plain] == ["card,score,observe"]
    assert len(observed) == len(plain)
    assert {one.prepare for one in VARIANTS} == {fraudstream.prepare}


def test_everything_is_read_when_no_partition_lags() -> None:
    """A worker that has no partition yet has not read everything."""
    line = 'fraud_consumer_lag_messages{{partition="{}",topic="t"}} {}\n'
    assert nothing_lags(line.format(0, "0.0") + line.format(1, "0.0"))
    assert not nothing_lags(line.format(0, "0.0") + line.format(1, "3.0"))
    assert not nothing_lags("fraud_alerts_total 0.0\n")


def test_overhead_is_that_of_the_runs_of_a_round() -> None:
    """Throughput lost and CPU added, as shares of the plain run beside which each was made."""
    found = overhead([run(100, 0.02), run(50, 0.02)], [run(90, 0.03), run(60, 0.02)])
    assert found["tx_per_second_lost"] == pytest.approx({"median": -0.05, "min": -0.2, "max": 0.1})
    assert found["cpu_added"] == pytest.approx({"median": 0.25, "min": 0.0, "max": 0.5})


class Worker(ThreadingHTTPServer):
    """Answers scrapes with a lag that falls by one each time."""

    def __init__(self) -> None:
        self.scrapes = 0
        worker = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                worker.scrapes += 1
                lag = max(0, 3 - worker.scrapes)
                self.send_response(200)
                self.end_headers()
                self.wfile.write(f'fraud_consumer_lag_messages{{topic="t"}} {lag}\n'.encode())

            def log_message(self, format: str, *args: object) -> None:
                """Nothing."""

        super().__init__(("127.0.0.1", 0), Handler)


@pytest.mark.parametrize(("variant", "during"), [(0, False), (1, True), (2, True)])
def test_a_run_is_over_when_two_scrapes_find_no_lag(
    variant: int, during: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The plain variant is asked only when all is scored, the others all the time."""
    monkeypatch.setattr(monitoring_overhead, "SCRAPE_SECONDS", 0.01)
    beside = VARIANTS[variant].beside
    assert beside is not None
    with Worker() as worker:
        threading.Thread(target=worker.serve_forever, daemon=True).start()
        log = f"metrics and health on http://127.0.0.1:{worker.server_port} (/metrics)"
        (tmp_path / "contender.log").write_text(log)
        try:
            with beside(Run("localhost:1", 4, tmp_path, Workload(10))) as settled:
                assert ("scraper" in {each.name for each in threading.enumerate()}) == during
                until(settled, seconds=10, what="no lag")
                assert worker.scrapes >= 4
        finally:
            worker.shutdown()
