"""Memory of the windows for each active key: `python -m benchmarks.memory --json`.

Fills the store of the standard card and terminal entities with keys of steady activity for longer than
anything is remembered, so that what is left is the steady state of one active key. `array_bytes` counts the
store's arrays with their unused room, `resident_bytes` the growth of the process. Each measurement has a
process of its own.
"""

from __future__ import annotations

import gc
import json
import multiprocessing
import os
from pathlib import Path

import numpy as np

from benchmarks import harness
from models.spec import FeatureSpec
from models.windows import WindowStore

DAY = 86_400_000
BATCH = 2_000
LATENESS = 3_600_000


def resident() -> int:
    """Resident bytes of this process."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def fill(entity_index: int, keys: int, per_day: float, days: int, seed: int) -> dict[str, float]:
    """The steady state of one entity's store: `keys` keys with `per_day` transactions a day for `days`
    days."""
    entity = FeatureSpec.default().entities[entity_index]
    rng = np.random.default_rng(seed)
    names = rng.integers(1, 1 << 63, keys).astype(np.uint64)

    def feed(store: WindowStore, rows: int, begin: float, gap: float) -> None:
        times = (begin + np.arange(1, rows + 1) * gap).astype(np.int64)
        store.insert(
            rng.choice(names, rows),
            times,
            rng.lognormal(3.8, 0.8, rows),
            rng.integers(1, 5_000, (rows, len(entity.tags))).astype(np.uint64),
            np.ones(rows, np.bool_),
            times,
        )
        # As often as a stage would: every place is met a few times a day of event time.
        store.sweep(int(times[-1]), rows)

    feed(WindowStore(entity, lateness_ms=LATENESS), 10, 0.0, 1.0)  # compiles
    gc.collect()
    before = resident()
    store = WindowStore(entity, lateness_ms=LATENESS)
    total = int(keys * per_day * days)
    gap = days * DAY / total
    for start in range(0, total, BATCH):
        feed(store, min(BATCH, total - start), start * gap, gap)
    gc.collect()
    return {
        "keys": store.n_keys,
        "per_day": per_day,
        "array_bytes": round(store.nbytes / store.n_keys, 1),
        "resident_bytes": round((resident() - before) / store.n_keys, 1),
        "events_remembered": round(per_day * (entity.retention_ms + LATENESS) / DAY, 1),
        "most_events": entity.max_events_per_key,
    }


def main() -> int:
    """Entry point."""
    parser = harness.parser(__doc__)
    parser.add_argument("--keys", type=int, default=50_000)
    parser.add_argument("--days", type=int, default=60)
    parser.add_argument(
        "--per-day", type=float, nargs="+", default=[0.5, 1.0, 2.0], help="transactions of one key"
    )
    parser.add_argument("--seed", type=int, default=7)
    options = parser.parse_args()

    load, entities = harness.machine(), FeatureSpec.default().entities
    found: dict[str, list[dict[str, float]]] = {}
    fresh = multiprocessing.get_context("spawn")
    for index, entity in enumerate(entities):
        found[entity.name] = []
        for per_day in options.per_day:
            with fresh.Pool(1) as pool:
                arguments = (index, options.keys, per_day, options.days, options.seed)
                found[entity.name].append(pool.apply(fill, arguments))
            harness.note(f"{entity.name}: {json.dumps(found[entity.name][-1])}")
    settings = harness.settings(options)
    result: dict[str, object] = {
        "benchmark": "memory",
        "machine": load,
        "settings": settings,
        "entities": found,
    }
    harness.emit(result, options.json)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
