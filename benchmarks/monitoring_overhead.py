"""What monitoring costs: `python -m benchmarks.monitoring_overhead --json`.

The same worker over the same backlog, in turn: with the card and score stages alone; the same scraped once a
second; and with the observe stage beside them, scraped too. Counters within the stages cannot be switched
off, so they are in all three. `tx_per_second` ends with the last score; CPU is counted until everything that
the worker has to read is read, so that observing which lags behind is not left out. `overhead` is what each
costs beyond the first: the share of throughput lost, and of CPU added, for every pair of runs of a round.

The transactions are of just now and as dense in event time as a worker is fast: windows and evaluations come
by event time, and of a history they come more often than they ever do live.
"""

from __future__ import annotations

import re
import statistics
import threading
import time
import urllib.request
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path

from benchmarks import fraudstream, harness
from benchmarks.harness import Contender, Measurement, Run
from benchmarks.workload import Workload

SCRAPE_SECONDS = 1.0
#: Between two transactions by event time.
SPACING_MS = 0.1
#: Scrapes in a row without lag, by which everything is read.
_CALM = 2
_ADDRESS = re.compile(r"metrics and health on (http://\S+)")
_LAG = re.compile(r"^fraud_consumer_lag_messages\{.*\} (\S+)$", re.MULTILINE)


class Scraper:
    """Asks a worker for its metrics once a second, as Prometheus would, from `start` on."""

    def __init__(self, log: Path) -> None:
        self._log = log
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._run, name="scraper", daemon=True)
        #: scrapes in a row by which nothing was left to read
        self._calm = 0

    def start(self) -> None:
        if not self._thread.is_alive():
            self._thread.start()

    def settled(self) -> bool:
        """Whether everything is read; this begins to ask, if nothing has."""
        self.start()
        return self._calm >= _CALM

    def _run(self) -> None:
        while not self._ended.wait(SCRAPE_SECONDS):
            text = self._log.read_text(errors="replace") if self._log.exists() else ""
            if (found := _ADDRESS.search(text)) is None:
                continue
            try:
                with urllib.request.urlopen(f"{found[1]}/metrics", timeout=10) as answer:
                    self._calm = self._calm + 1 if nothing_lags(answer.read().decode()) else 0
            except OSError:
                self._calm = 0

    def end(self) -> None:
        self._ended.set()
        if self._thread.is_alive():
            self._thread.join()


def nothing_lags(exposition: str) -> bool:
    """Whether no partition that the worker reads has records that wait; false without any."""
    lags = [float(value) for value in _LAG.findall(exposition)]
    return bool(lags) and not any(lags)


@contextmanager
def _scraping(run: Run, *, always: bool) -> Iterator[Callable[[], bool]]:
    """During the run, or when all is scored, to see the end of it."""
    scraper = Scraper(run.directory / "contender.log")
    if always:
        scraper.start()
    try:
        yield scraper.settled
    finally:
        scraper.end()


def _worker(name: str, stages: str, *, scraped: bool) -> Contender:
    def command(run: Run) -> list[str]:
        return [stages if word == "card,score" else word for word in fraudstream.command(run)]

    return Contender(
        name,
        command,
        fraudstream.absent,
        fraudstream.prepare,
        begins=fraudstream.HOP_TOPIC,
        beside=partial(_scraping, always=scraped),
    )


VARIANTS = (
    _worker("scoring", "card,score", scraped=False),
    _worker("scraped", "card,score", scraped=True),
    _worker("observed", "card,score,observe", scraped=True),
)


def overhead(plain: Sequence[Measurement], other: Sequence[Measurement]) -> dict[str, dict[str, float]]:
    """Of the runs of each round: throughput lost and CPU added, as shares of the plain run."""
    pairs = list(zip(plain, other, strict=True))
    lost = [1 - two.tx_per_second / one.tx_per_second for one, two in pairs]
    added = [two.cpu_seconds_per_1000 / one.cpu_seconds_per_1000 - 1 for one, two in pairs]
    return {"tx_per_second_lost": _spread(lost), "cpu_added": _spread(added)}


def _spread(values: Sequence[float]) -> dict[str, float]:
    return {
        "median": round(statistics.median(values), 4),
        "min": round(min(values), 4),
        "max": round(max(values), 4),
    }


def main() -> int:
    """Entry point."""
    parser = harness.parser(__doc__)
    harness.run_options(parser, transactions=200_000, seconds=120.0)
    options = parser.parse_args()

    load = harness.machine()
    start = int(time.time() * 1000 - options.transactions * SPACING_MS)
    workload = Workload(options.transactions, seed=options.seed, spacing_ms=SPACING_MS, start_ms=start)
    results = harness.measure_all(VARIANTS, workload, options)
    settings = harness.settings(options)
    result: dict[str, object] = {"benchmark": "monitoring_overhead", "machine": load, "settings": settings}
    failed = {name: runs for name, runs in results.items() if isinstance(runs, str)}
    measured = {name: runs for name, runs in results.items() if not isinstance(runs, str)}
    result["variants"] = failed | {name: harness.summary(runs) for name, runs in measured.items()}
    if not failed:
        plain = measured["scoring"]
        result["overhead"] = {
            name: overhead(plain, runs) for name, runs in measured.items() if name != "scoring"
        }
    harness.emit(result, options.json)
    return 1 if failed else 0


if __name__ == "__main__":
    raise SystemExit(main())
