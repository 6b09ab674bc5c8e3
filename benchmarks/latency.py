"""Latency at a paced load, published → score and alert readable: `python -m benchmarks.latency --json
--rate 2000`.

Milliseconds on one monotonic clock, from the scheduled time of publishing to the moment an independent
consumer has the record in hand; the producer's own linger is in it. Each run has a broker of its own;
brokers alternate between rounds.
"""

from __future__ import annotations

import argparse
import asyncio
import tempfile
import time
from pathlib import Path
from typing import cast

from benchmarks import brokers, harness, kafka
from benchmarks.catalogue import CONTENDERS
from benchmarks.harness import ALERTS, SCORES, SOURCE, Contender, ContenderFailed, Run
from benchmarks.pacing import Pacer, Reader, quantiles
from benchmarks.processes import ContenderProcess
from benchmarks.workload import Workload, draw

Outcome = dict[str, object]


def once(contender: Contender, kind: brokers.BrokerKind, options: argparse.Namespace) -> Outcome:
    """One run on one broker.

    Raises:
        ContenderFailed: it ended, or gave no score within 90 seconds.
    """
    rows = int((options.warmup + options.duration) * options.rate) + 10_000
    # A live stream is spread over many cards: one of them pays once in a long while.
    workload = Workload(
        rows, cards=100_000, terminals=20_000, spacing_ms=1000.0 / options.rate, seed=options.seed
    )
    columns = draw(workload)
    partitions = options.partitions
    with tempfile.TemporaryDirectory(prefix="bench-") as folder, brokers.running(kind) as broker:
        run = Run(broker, partitions, Path(folder), workload)
        asyncio.run(kafka.create_topics(broker, (SOURCE, SCORES, ALERTS), partitions))
        if contender.prepare is not None:
            contender.prepare(run)
        scores, alerts = Reader(broker, SCORES, partitions), Reader(broker, ALERTS, partitions)
        scores.start()
        alerts.start()
        pacer = Pacer(broker, SOURCE, columns, options.linger_ms)
        process = ContenderProcess(contender.command(run), run.environment(), run.directory)
        try:
            if not pacer.trickle_until(scores, timeout=90.0):
                raise ContenderFailed(f"{contender.name}: no score in 90 s:\n{process.tail()}")
            before = process.usage()
            pacer.pace(options.rate, options.warmup, options.duration)
            pacer.flush(10.0)
            deadline = time.monotonic() + 10.0
            while len(scores.seen) < pacer.schedule.sent and time.monotonic() < deadline:
                time.sleep(0.05)
            if process.exit_code() is not None:
                raise ContenderFailed(f"{contender.name} ended:\n{process.tail()}")
            cpu = process.usage().cpu_seconds - before.cpu_seconds
        finally:
            scores.end()
            alerts.end()
            process.stop()
        measured = pacer.schedule.last - pacer.schedule.first
        found = quantiles(scores, pacer.schedule)
        return {
            "published_to_score_ms": found,
            "published_to_alert_ms": quantiles(alerts, pacer.schedule),
            "unscored": measured - int(found["count"]),
            "worst_send_delay_ms": round(pacer.schedule.worst_send_delay * 1000, 2),
            "contender_cpu_share": round(cpu / (options.warmup + options.duration), 3),
        }


def combined(runs: list[Outcome]) -> Outcome:
    """Medians with min and max over the rounds, and the single runs."""
    result: Outcome = {"runs": runs}
    for name in ("published_to_score_ms", "published_to_alert_ms"):
        quoted = [cast("dict[str, float]", one[name]) for one in runs]
        quoted = [one for one in quoted if one["count"]]
        result[name] = {
            figure: harness.spread(one[figure] for one in quoted)
            for figure in ("p50", "p99", "p999")
            if quoted
        }
    result["unscored"] = sum(cast("int", one["unscored"]) for one in runs)
    return result


def main() -> int:
    """Entry point."""
    parser = harness.parser(__doc__)
    parser.add_argument("--rate", type=float, default=2_000.0, help="transactions a second")
    parser.add_argument("--duration", type=float, default=30.0, help="measured seconds")
    parser.add_argument(
        "--warmup", type=float, default=8.0, help="unmeasured seconds at the same rate before"
    )
    parser.add_argument("--linger-ms", type=float, default=1.0, help="of the publishing client")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--partitions", type=int, default=4)
    parser.add_argument("--seed", type=int, default=7)
    parser.add_argument("--broker", nargs="+", choices=brokers.kinds(), default=["embedded", "apache"])
    parser.add_argument("--contender", choices=sorted(CONTENDERS), default="fraudstream")
    options = parser.parse_args()

    contender, load = CONTENDERS[options.contender], harness.machine()
    results: dict[str, list[Outcome]] = {kind: [] for kind in options.broker}
    failures: dict[str, str] = {}
    reason = contender.absent()
    for index in range(options.rounds if reason is None else 0):
        for kind in options.broker:
            if kind in failures:
                continue
            try:
                results[kind].append(once(contender, kind, options))
            except ContenderFailed as failure:
                failures[kind] = str(failure)
                continue
            harness.note(f"round {index + 1} {kind}: {results[kind][-1]['published_to_score_ms']}")
    brokers_found: Outcome = {
        kind: {"failed": failures[kind]} if kind in failures else combined(runs)
        for kind, runs in results.items()
    }
    settings = harness.settings(options)
    result: Outcome = {"benchmark": "latency", "machine": load, "settings": settings}
    result |= {"absent": reason} if reason else {"brokers": brokers_found}
    harness.emit(result, options.json)
    return 1 if failures else 0


if __name__ == "__main__":
    raise SystemExit(main())
