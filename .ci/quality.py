"""Run benchmarks.quality and hold the champion to the floor: the plain online baselines on the same protocol.

Exit codes: 0 held, or no histories here (said so); 1 below the floor, the judge finds other figures than the
backtest, or the benchmark failed.
"""

from __future__ import annotations

import json
import subprocess
import sys

# Mean of the four weekly folds; above the best batch models published (0.687, 0.305).
FLOOR = {"average_precision": 0.71, "cp@100": 0.305}


def main() -> int:
    command = [sys.executable, "-m", "benchmarks.quality", "--json"]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=False)
    print(done.stdout)
    if done.returncode != 0:
        return 1
    report = json.loads(done.stdout)
    if "absent" in report:
        print(f"SKIPPED: {report['absent']}")
        return 0
    mean = report["judged"][report["champion"]]["mean"]
    below = [f"{name} {mean[name]} < {floor}" for name, floor in FLOOR.items() if mean[name] < floor]
    below += [f"{name}: the judge disagrees" for name, agreed in report["agrees"].items() if not agreed]
    print(f"below the floor: {', '.join(below)}" if below else f"the floor holds: {mean}")
    return 1 if below else 0


if __name__ == "__main__":
    sys.exit(main())
