"""Whole-flow throughput, side by side: `python -m benchmarks.throughput --json`.

Every contender gets the same backlog on a broker of its own and is stopped after its last output or after
`--seconds`. `tx_per_second` is wall time with the broker on the same machine; `tx_per_cpu_second` is what
one core of the contender gives. `of_ceiling` divides both by the raw aiokafka loop of the same run.
"""

from __future__ import annotations

from typing import cast

from benchmarks import harness
from benchmarks.catalogue import CONTENDERS
from benchmarks.workload import Workload


def main() -> int:
    """Entry point."""
    parser = harness.parser(__doc__)
    harness.run_options(parser, transactions=300_000, seconds=15.0)
    parser.add_argument("--only", nargs="+", choices=sorted(CONTENDERS), default=None)
    options = parser.parse_args()

    load = harness.machine()
    workload = Workload(options.transactions, seed=options.seed)
    chosen = [one for name, one in CONTENDERS.items() if options.only is None or name in options.only]
    results = harness.measure_all(chosen, workload, options)
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
