"""Cost of observing a scored row: `python -m benchmarks.observing --json`.

The cores of the observe stage on made-up scored rows of the standard features, a champion and two shadows, as
they come live: messages of so many rows, saved once a second. `partition_us` is the CPU time of a row for
decoding, counting, distributions, parts and the delta of the changelog; `merge_us` that for putting the parts
together and for the windows that they change. Nothing is sent.
"""

from __future__ import annotations

import time

import numpy as np

from benchmarks import harness
from models.spec import FeatureSpec
from streams.contract.codecs import encode
from streams.stages import columns
from streams.stages.columns import Columns
from streams.stages.drift_state import DriftState, filling
from streams.stages.merge_core import MergeCore
from streams.stages.merge_state import MergeState, MergeStep
from streams.stages.merge_state import encode_step as encode_merge_step
from streams.stages.observe_core import ObserveCore
from streams.stages.observe_state import (
    ObserveState,
    ObserveStep,
    decode_parts,
    encode_parts,
    encode_step,
)
from streams.stages.shape_parts import decode_shapes, encode_shapes

BEGIN = 1_700_000_000_000
PARTITIONS = 4
SPEC = FeatureSpec.default()


def scored(rows: int, size: int, rate: float, seed: int) -> list[bytes]:
    """Messages of one card partition, of `size` rows, `rate` transactions a second over all partitions."""
    rng = np.random.default_rng(seed)
    time_ms = (BEGIN + np.arange(rows) * (1000 * PARTITIONS / rate)).astype(np.int64)
    champion = rng.random(rows) ** 8
    hashes = rng.integers(1, 1 << 63, (3, rows)).astype(np.uint64)
    values = np.round(np.exp(rng.normal(1.0, 1.5, (rows, len(SPEC.names)))))
    arrays = {
        "event_time": time_ms,
        "watermark": time_ms,
        "record_time": time_ms + 5,
        "offset": np.arange(rows, dtype=np.int64),
        "transaction": hashes[0],
        "card": hashes[1],
        "hop": hashes[2],
        "features": values * (rng.random(values.shape) < 0.7),
        "champion": champion,
        "shadows": np.clip(champion[:, None] + rng.normal(0, 0.1, (rows, 2)), 0, 1),
        "arm": np.zeros(rows, np.bool_),
        "alert": champion >= 0.98,
        "control": np.zeros(rows, np.bool_),
        "propensity": np.ones(rows),
        "threshold": np.full(rows, 0.98),
        "amount_minor": rng.integers(100, 100_000, rows),
        "status": np.zeros(rows, np.uint8),
        "exponent": np.full(rows, 2, np.uint8),
    }
    names = {
        name: [f"{name}-{number:08}" for number in range(rows)] for name in ("transaction_id", "card_id")
    }
    models = [["champion", "a", 1], ["shadow", "b", 1], ["shadow", "c", 1]]
    whole = Columns({"spec": SPEC.digest, "models": models}, arrays, names)
    found = []
    for number, start in enumerate(range(0, rows, size)):
        part = whole.take(np.arange(start, min(start + size, rows)))
        of = {
            "score_partition": number % PARTITIONS,
            "watermark": int(part.ints("watermark")[-1]),
            "settled": start - 1,
        }
        found.append(Columns(whole.meta | of, part.arrays, part.strings).encode())
    return found


def measure(rows: int, size: int, rate: float, seed: int) -> dict[str, float]:
    """Microseconds of a row, in messages of `size`."""
    sent = scored(rows, size, rate, seed)
    core, state, told = ObserveCore(), ObserveState(PARTITIONS), []
    once = max(1, round(rate / PARTITIONS / size))
    began = time.process_time()
    for start in range(0, len(sent), once):
        step = ObserveStep()
        core.count(
            state,
            step,
            [core.scored(state, step, columns.decode(each)) for each in sent[start : start + once]],
        )
        shapes = encode_shapes(core.shapes_told(state, step, 0))
        told.append((shapes, encode_parts(core.parts(state, step, 0))))
        core.age(state, step)
        encode_step(step)
    partition = time.process_time() - began
    merge, merged = MergeCore(), MergeState(1, DriftState(SPEC.names, filling(SPEC)))
    began = time.process_time()
    for shapes, parts in told:
        change = MergeStep()
        merge.shapes(merged, change, decode_shapes(shapes))
        merge.parts(merged, change, decode_parts(parts))
        merge.age(merged, change)
        encode_merge_step(change)
        for published, records in merge.publish(merged, 250):
            encode_merge_step(published)
            for record in records:
                encode(record)
    return {
        "message_rows": size,
        "partition_us": round(1e6 * partition / rows, 2),
        "merge_us": round(1e6 * (time.process_time() - began) / rows, 2),
    }


def main() -> int:
    """Entry point."""
    parser = harness.parser(__doc__)
    parser.add_argument("--rows", type=int, default=100_000)
    parser.add_argument("--rate", type=float, default=5_000.0, help="transactions a second")
    parser.add_argument("--sizes", type=int, nargs="+", default=[50, 500, 2_000], help="rows of a message")
    parser.add_argument("--seed", type=int, default=7)
    options = parser.parse_args()
    load = harness.machine()
    measure(1_000, 500, options.rate, options.seed)
    found = [measure(options.rows, size, options.rate, options.seed) for size in options.sizes]
    settings = harness.settings(options)
    harness.emit(
        {"benchmark": "observing", "machine": load, "settings": settings, "messages": found}, options.json
    )
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
