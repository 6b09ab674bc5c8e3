"""Whole-flow throughput, side by side: `python -m benchmarks.throughput --json`.

Every contender gets the same backlog on a broker of its own and is stopped after its last output or after
`--seconds`. `tx_per_second` is wall time with the broker on the same machine; `tx_per_cpu_second` is what
one core of the contender gives. `of_ceiling` divides both by the raw aiokafka loop of the same run.
"""

from __future__ import annotations

import argparse
from typing import cast

from benchmarks import brokers, harness
from benchmarks.catalogue import CONTENDERS
from benchmarks.workload import Workload, messages


def main() -> int:
    """Entry point."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--transactions", type=int, default=300_000)
    parser.add_argument("--seconds", type=float, default=15.0, help="longest measured span of one run")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--partitions", type=int, default=4)
    parser.add_argument("--seed", type=int, default=7)
    parser.add_argument("--broker", choices=brokers.kinds(), default="embedded")
    parser.add_argument("--only", nargs="+", choices=sorted(CONTENDERS), default=None)
    options = parser.parse_args()

    load = harness.machine()
    workload = Workload(options.transactions, seed=options.seed)
    backlog = messages(workload)
    chosen = [one for name, one in CONTENDERS.items() if options.only is None or name in options.only]
    results = harness.interleaved(
        chosen,
        options.rounds,
        lambda contender: harness.measure(
            contender,
            workload,
            backlog,
            options.broker,
            partitions=options.partitions,
            seconds=options.seconds,
        ),
    )
    contenders: dict[str, dict[str, object]] = {}
    for one in chosen:
        runs = results[one.name]
        if isinstance(runs, str):
            contenders[one.name] = {"status": runs}
        else:
            contenders[one.name] = {"status": "measured", "version": one.version(), **harness.summary(runs)}
    _add_ratios(contenders)
    settings = {
        name: getattr(options, name) for name in ("transactions", "rounds", "partitions", "seed", "broker")
    }
    harness.emit(
        {"benchmark": "throughput", "machine": load, "settings": settings, "contenders": contenders},
        options.json,
    )
    return 0


def _add_ratios(contenders: dict[str, dict[str, object]]) -> None:
    """Add `of_ceiling` where the ceiling was measured in this run."""
    ceiling = contenders.get("raw-aiokafka", {})
    figures = ("tx_per_second", "tx_per_cpu_second")
    if ceiling.get("status") != "measured":
        return
    for result in contenders.values():
        if result["status"] == "measured":
            result["of_ceiling"] = {
                name: round(_median(result[name]) / _median(ceiling[name]), 4) for name in figures
            }


def _median(figure: object) -> float:
    return cast("dict[str, float]", figure)["median"]


if __name__ == "__main__":
    raise SystemExit(main())
