"""Cost of learning and scoring by learner: `python -m benchmarks.models --json`.

`learn_us` is one outcome through the learner; `river_us` one prediction by River itself, with the
dictionary it wants; `frozen_us` one transaction of the frozen scorer in batches of `--batch`.
`largest_difference` is between the last two.
"""

from __future__ import annotations

import time

import numpy as np

from benchmarks import harness
from benchmarks.examples import Floats, draw
from models.learners.base import Learner
from models.learners.registry import LEARNERS
from models.spec import FeatureSpec


def learn_cost(learner: Learner, x: Floats, fraud: np.ndarray, seconds: float) -> float:
    """Learn rows until they or the time are used up; µs an outcome."""
    begun = time.perf_counter()
    rows = 0
    for row, truth in zip(x, fraud.tolist(), strict=True):
        learner.learn(row, truth)
        rows += 1
        if time.perf_counter() - begun > seconds:
            break
    return (time.perf_counter() - begun) / rows * 1e6


def river_cost(learner: Learner, x: Floats, seconds: float = 0.5) -> float:
    """µs a prediction by River."""
    begun = time.perf_counter()
    rows = 0
    while time.perf_counter() - begun < seconds:
        learner.score(x[rows % len(x)])
        rows += 1
    return (time.perf_counter() - begun) / rows * 1e6


def frozen_cost(learner: Learner, x: Floats, batch: int, seconds: float = 0.5) -> float:
    """µs a transaction of the frozen scorer; the first batch, which may compile, is not counted."""
    scorer = learner.freeze()
    pieces = [np.ascontiguousarray(x[start : start + batch]) for start in range(0, len(x) - batch + 1, batch)]
    scorer.score(pieces[0])
    begun = time.perf_counter()
    batches = 0
    while time.perf_counter() - begun < seconds:
        scorer.score(pieces[batches % len(pieces)])
        batches += 1
    return (time.perf_counter() - begun) / (batches * batch) * 1e6


def main() -> int:
    """Entry point."""
    parser = harness.parser(__doc__)
    parser.add_argument(
        "--outcomes", type=int, default=8_000, help="learned by each learner before it is scored"
    )
    parser.add_argument("--learn-seconds", type=float, default=15.0, help="longest learning of one learner")
    parser.add_argument("--batch", type=int, default=500)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seed", type=int, default=7)
    options = parser.parse_args()

    load, names = harness.machine(), FeatureSpec.default().names
    x, fraud = draw(names, options.outcomes, 0.2, options.seed)
    unseen, _ = draw(names, options.batch * 4, 0.01, options.seed + 1)
    costs: dict[str, dict[str, list[float]]] = {
        kind: {"learn_us": [], "river_us": [], "frozen_us": []} for kind in LEARNERS
    }
    differences: dict[str, float] = {}
    for _ in range(options.rounds):
        for kind, build in LEARNERS.items():
            learner = build(names)
            costs[kind]["learn_us"].append(learn_cost(learner, x, fraud, options.learn_seconds))
            costs[kind]["river_us"].append(river_cost(learner, unseen))
            costs[kind]["frozen_us"].append(frozen_cost(learner, unseen, options.batch))
            by_river = np.array([learner.score(row) for row in unseen[:200]])
            differences[kind] = float(np.abs(learner.freeze().score(unseen[:200].copy()) - by_river).max())
            harness.note(
                f"{kind}: " + ", ".join(f"{name} {values[-1]:.2f}" for name, values in costs[kind].items())
            )
    results: dict[str, object] = {
        kind: {name: harness.spread(round(one, 3) for one in values) for name, values in figures.items()}
        | {"largest_difference": differences[kind]}
        for kind, figures in costs.items()
    }
    settings = harness.settings(options) | {"features": len(names)}
    harness.emit(
        {"benchmark": "models", "machine": load, "settings": settings, "learners": results}, options.json
    )
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
