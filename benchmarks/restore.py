"""Restoring state from its changelog: `python -m benchmarks.restore --json`.

Writes the log as the card stage does (a delta a batch, buckets as they fall due) until the state holds
`--keys` cards, then restores every partition at once into empty states, as a worker that takes over all of
them would. The embedded broker does not compact, so what is read is the whole log.
"""

from __future__ import annotations

import argparse
import asyncio
import statistics
import time

import numpy as np

from benchmarks import brokers, harness, kafka
from models.spec import FeatureSpec
from streams.kafka.changelog import Change, Changelog
from streams.kafka.identity import Identity
from streams.kafka.outputs import Outputs
from streams.sections import Broker
from streams.stages.card_core import CardState, TimeRules
from streams.stages.columns import Columns

TOPIC = "fraud.internal.card-state.v1"
DAY = 86_400_000
RULES = TimeRules(3_600_000, 300_000, 3_600_000, DAY, 2_000_000)
_BATCH = 2_000


def belonging(partitions: int) -> Identity:
    return Identity(spec=FeatureSpec.default().digest, partitions=partitions, source="fraud.transactions.v1")


def batch(rng: np.random.Generator, cards: np.ndarray, tags: int, first: int, at: int) -> Columns:
    """Rows of one batch: random cards, one transaction every 20 ms from `at` on."""
    rows = len(cards)
    times = at + np.arange(rows, dtype=np.int64) * 20
    return Columns(
        {"next_offset": first + rows},
        {
            "transaction": rng.integers(1, 1 << 63, rows).astype(np.uint64),
            "card": cards,
            "event_time": times,
            "record_time": times,
            "amount": rng.lognormal(3.8, 0.8, rows),
            "tags_card": rng.integers(1, 1 << 63, (rows, tags)).astype(np.uint64),
        },
    )


async def write(broker: str, partitions: int, keys: int, per_key: float, seed: int) -> list[int]:
    """Fill the changelog; the keys each partition's state ends up with."""
    spec, rng = FeatureSpec.default(), np.random.default_rng(seed)
    held = []
    async with Outputs(broker) as outputs:
        log = Changelog(TOPIC, Broker(bootstrap=broker), outputs)
        for partition in range(partitions):
            state = CardState(spec, RULES)
            await log.restore(partition, state, belonging(partitions))
            own = rng.integers(1, 1 << 63, keys // partitions).astype(np.uint64)
            # Every card once, then at random.
            order = np.concatenate([own, rng.choice(own, int(len(own) * (per_key - 1.0)))])
            for first in range(0, len(order), _BATCH):
                rows = batch(
                    rng, order[first : first + _BATCH], len(spec.entities[0].tags), first, DAY + first * 20
                )
                state.admit(rows)
                delta = state.delta(rows, first + len(rows))
                state.apply(delta)
                await log.save([Change(partition, state, delta)])
            held.append(state.windows.n_keys)
    return held


async def restore(broker: str, partitions: int) -> tuple[float, list[int], int]:
    """Seconds for all partitions together, the keys restored by partition, bytes read."""
    spec = FeatureSpec.default()
    states = [CardState(spec, RULES) for _ in range(partitions)]
    async with Outputs(broker) as outputs:
        log = Changelog(TOPIC, Broker(bootstrap=broker), outputs)
        begun = time.monotonic()
        restored = await asyncio.gather(
            *(log.restore(index, state, belonging(partitions)) for index, state in enumerate(states))
        )
        seconds = time.monotonic() - begun
    return seconds, [state.windows.n_keys for state in states], sum(one.bytes for one in restored)


async def run(broker: str, options: argparse.Namespace) -> dict[str, object]:
    """Write once, restore `--rounds` times."""
    await kafka.create_topics(broker, (TOPIC,), options.partitions, {"cleanup.policy": "compact"})
    held = await write(broker, options.partitions, options.keys, options.per_key, options.seed)
    harness.note(f"written: {sum(held)} keys")
    seconds, size = [], 0
    for _ in range(options.rounds):
        taken, keys, size = await restore(broker, options.partitions)
        if keys != held:
            raise SystemExit(f"restored {keys} keys, the state held {held}")
        seconds.append(round(taken, 3))
        harness.note(f"restored in {taken:.1f} s")
    return {
        "keys": sum(held),
        "bytes_read": size,
        "seconds": harness.spread(seconds),
        "keys_per_second": round(sum(held) / statistics.median(seconds)),
    }


def main() -> int:
    """Entry point."""
    parser = harness.parser(__doc__)
    parser.add_argument("--keys", type=int, default=1_000_000)
    parser.add_argument(
        "--per-key", type=float, default=2.0, help="transactions of one card in the log, on average"
    )
    parser.add_argument("--partitions", type=int, default=4)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seed", type=int, default=7)
    parser.add_argument("--broker", choices=brokers.kinds(), default="embedded")
    options = parser.parse_args()

    load = harness.machine()
    with brokers.running(options.broker) as broker:
        found = asyncio.run(run(broker, options))
    settings = harness.settings(options)
    harness.emit({"benchmark": "restore", "machine": load, "settings": settings, **found}, options.json)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
