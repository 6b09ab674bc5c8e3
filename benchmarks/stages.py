"""CPU cost of the card and the score stage by rows a round: `python -m benchmarks.stages --json`.

Both stages as the worker builds them, without a broker: a round gives `rows` transactions to the partitions
of the card stage, and what those hand on to the partitions of the score stage. `us_per_transaction` is the
CPU of this process for all of it; `round_ms` the same for a round, which with few rows is nearly all
overhead: what latency is made of.
"""

from __future__ import annotations

import asyncio
import time
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import cast

from benchmarks import harness, training
from benchmarks.fraudstream import MODELS_TOPIC, trained
from benchmarks.workload import EPOCH_START, Message, Workload, messages
from models.memory import MemoryWatch
from streams.app import build
from streams.contract.model_records import model_key
from streams.kafka.batches import PartitionBook, RecordBatch
from streams.kafka.changelog import Changelog
from streams.kafka.outputs import Output, partition_for
from streams.kafka.state_log import PartitionState
from streams.sections import Broker
from streams.settings import Settings
from streams.stages.card import CardWork
from streams.stages.context import StageContext
from streams.stages.control_feed import ControlFeed, initial_aliases
from streams.stages.decisions import decision_policy
from streams.stages.loop import PartitionWork
from streams.stages.model_feed import ModelFeed
from streams.stages.score import ScoreWork


@dataclass(frozen=True, slots=True)
class _Record:
    topic: str
    partition: int
    offset: int
    timestamp: int
    key: bytes | None
    value: bytes | None
    headers: Sequence[tuple[str, bytes]] = ()


@dataclass(slots=True)
class _Log:
    """Offsets of one partition, and the batches made of what is appended."""

    topic: str
    partition: int
    book: PartitionBook = field(init=False)
    end: int = 0

    def __post_init__(self) -> None:
        self.book = PartitionBook(self.topic, self.partition)

    def batch(self, messages: Sequence[tuple[bytes | None, bytes | None]], now: int) -> RecordBatch:
        records = [
            _Record(self.topic, self.partition, self.end + place, now, key, value)
            for place, (key, value) in enumerate(messages)
        ]
        self.end += len(records)
        return self.book.hand_out(records, self.end, self.end)


class _Restored:
    """A changelog with nothing on it."""

    deltas = 0
    buckets = 0

    async def restore(self, partition: int, state: PartitionState, identity: object) -> _Restored:
        return self


class Stages:
    """All partitions of both stages."""

    def __init__(self, partitions: int, now_ms: int) -> None:
        names = list(training.MODELS.items())
        slots = [{"name": name, "kind": kind} for name, kind in names]
        settings = Settings.model_validate(
            {
                "topics": {"partitions": partitions},
                "models": {"champion": slots[0], "shadows": slots[1:]},
                "alignment": {"idle_after": "250ms"},
            }
        )
        self.now_ms = now_ms
        flow = build(settings, ["card", "score"])
        contexts = {
            name: StageContext(
                one.settings, one.spec, one.catalogue, one.outputs, one.metrics, lambda: self.now_ms
            )
            for name, one in flow.contexts.items()
        }
        feed = ModelFeed(MODELS_TOPIC, Broker(), contexts["score"].spec.digest)
        for name, document in trained().documents.items():
            feed.take(model_key(name, 1), document)
        control = ControlFeed("control", Broker(), initial_aliases(settings.models))
        memory = MemoryWatch(settings.models.shadow_memory_bytes)
        changelog, policy = cast("Changelog", _Restored()), decision_policy(settings)
        self._hop = contexts["card"].name(f"by-{contexts['card'].spec.entities[-1].name}")
        source = contexts["card"].name("transactions")
        self._sources = [_Log(source, partition) for partition in range(partitions)]
        self._hops = [_Log(self._hop, partition) for partition in range(partitions)]
        self.cards = [CardWork(each, contexts["card"], changelog) for each in range(partitions)]
        self.scores = [
            ScoreWork(each, contexts["score"], changelog, feed, control, policy, lambda: True, memory)
            for each in range(partitions)
        ]

    async def open(self) -> None:
        works: list[PartitionWork] = [*self.cards, *self.scores]
        for work in works:
            await work.open()

    def round(self, rows: Sequence[Message]) -> tuple[float, float, int]:
        """CPU seconds of the card and of the score stage for `rows`, and how many records of scores."""
        given: dict[int, list[tuple[bytes | None, bytes | None]]] = defaultdict(list)
        for row in rows:
            given[partition_for(row.key, len(self.cards))].append((row.key, row.value))
        batches = [self._sources[at].batch(messages, self.now_ms) for at, messages in given.items()]
        began = time.process_time()
        handed = [one for batch in batches for one in _outputs(self.cards[batch.partition], batch)]
        middle = time.process_time()
        forwarded: dict[int, list[tuple[bytes | None, bytes | None]]] = defaultdict(list)
        for one in handed:
            if one.topic == self._hop:
                forwarded[one.partition].append((one.key, one.value))
        batches = [self._hops[at].batch(messages, self.now_ms) for at, messages in forwarded.items()]
        resumed = time.process_time()
        outputs = [one for batch in batches for one in _outputs(self.scores[batch.partition], batch)]
        ended = time.process_time()
        return middle - began, ended - resumed, sum(one.topic.endswith("scores.v1") for one in outputs)


def _outputs(work: PartitionWork, batch: RecordBatch) -> list[Output]:
    return [output for step in work.handle([batch]) for output in step.outputs]


def measure(rows: int, rounds: int, partitions: int, seed: int) -> dict[str, float]:
    """Costs of `rounds` rounds of `rows` transactions each, the first fifth not counted.

    Raises:
        RuntimeError: not every transaction has been scored.
    """
    workload = Workload(
        rows * rounds, cards=100_000, terminals=20_000, spacing_ms=0.5, start_ms=EPOCH_START, seed=seed
    )
    published = messages(workload)
    stages = Stages(partitions, EPOCH_START)
    asyncio.run(stages.open())
    for work in stages.scores:
        list(work.tick())
    card = score = 0.0
    scored = counted = 0
    for number in range(rounds):
        stages.now_ms = EPOCH_START + int((number + 1) * rows * 0.5)
        spent = stages.round(published[number * rows : (number + 1) * rows])
        scored += spent[2]
        if number >= rounds // 5:
            card, score, counted = card + spent[0], score + spent[1], counted + 1
    if scored != len(published):
        raise RuntimeError(f"{scored} of {len(published)} transactions have a score")
    return {
        "card_us_per_transaction": round(card / counted / rows * 1e6, 2),
        "score_us_per_transaction": round(score / counted / rows * 1e6, 2),
        "card_round_ms": round(card / counted * 1e3, 3),
        "score_round_ms": round(score / counted * 1e3, 3),
    }


def main() -> int:
    """Entry point."""
    parser = harness.parser(__doc__)
    parser.add_argument("--rows", type=int, nargs="+", default=[50, 500, 8_000])
    parser.add_argument("--transactions", type=int, default=100_000, help="most of one measurement")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--partitions", type=int, default=4)
    parser.add_argument("--seed", type=int, default=7)
    options = parser.parse_args()

    load = harness.machine()
    found: dict[int, list[dict[str, float]]] = {rows: [] for rows in options.rows}
    for number in range(options.rounds):
        for rows in options.rows:
            rounds = max(min(400, options.transactions // rows), 10)
            found[rows].append(measure(rows, rounds, options.partitions, options.seed))
            harness.note(f"round {number + 1}, {rows} rows: {found[rows][-1]}")
    settings = harness.settings(options)
    results = {
        str(rows): {name: harness.spread(one[name] for one in each) for name in each[0]}
        for rows, each in found.items()
    }
    result: dict[str, object] = {
        "benchmark": "stages",
        "machine": load,
        "settings": settings,
        "rows": results,
    }
    harness.emit(result, options.json)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
