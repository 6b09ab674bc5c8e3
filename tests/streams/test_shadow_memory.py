"""A shadow whose memory doubles with each batch: off with a reason, and nobody beside it notices."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar, cast

import msgspec
import numpy as np
import pytest

from models.arrays import Floats
from models.memory import MemoryWatch, read_memory
from models.registry import Move, Pin, Registry
from models.scorers.base import FrozenScorer
from models.scorers.rules import Rule, RulesScorer
from models.snapshot import Snapshot, make
from streams.app import build
from streams.contract.codecs import encode
from streams.kafka.batches import PartitionBook
from streams.kafka.changelog import Changelog
from streams.kafka.outputs import Output
from streams.stages.card import CardWork
from streams.stages.context import StageContext
from streams.stages.control_feed import ControlFeed, initial_aliases
from streams.stages.decisions import decision_policy
from streams.stages.model_feed import ModelFeed
from streams.stages.model_slots import initial_deployment
from streams.stages.score import ScoreWork
from streams.stages.score_core import ScoreCore, ScoreState
from tests.streams.made_up import HOUR, SPEC, START, settings, transaction
from tests.streams.sources import Source
from tests.streams.test_adoption import Control, Log
from tests.streams.test_score_core import FIXED, features, scored_parts

MB = 1_000_000
LIMIT = 48 * MB


@dataclass
class Hoarder:
    """Keeps, with every batch, as much more as it has kept so far, and writes to all of it."""

    kind: ClassVar[str] = "hoarder"
    n_features: int = len(SPEC.names)
    steps: int = 1
    held: list[Floats] = field(default_factory=list)
    calls: int = 0

    def score(self, x: Floats) -> Floats:
        if self.calls > 11:
            raise MemoryError("gone on for too long")  # for the machine of whoever breaks the watch
        self.calls += 1
        self.held.append(np.ones(max(sum(map(len, self.held)), 125_000)))
        return np.full(len(x), 0.5)


def version(name: str, odds: float = 1.0) -> Snapshot:
    rules = RulesScorer.build(SPEC.names, [Rule("amount", 50.0, odds)])
    return make(rules, name=name, version=1, spec_digest=SPEC.digest)


def doubling(scorer: Hoarder) -> Snapshot:
    return replace(version("hoarder"), scorer=cast("FrozenScorer", scorer))


def test_the_core_scores_on_beside_a_shadow_that_doubles() -> None:
    """Batch by batch the same bytes as without it, of the champion and of the other shadow; in all partitions
    of the worker it is off at once, and the worker has grown by less than thrice the limit."""
    scorer, watch, parts = Hoarder(), MemoryWatch(LIMIT), scored_parts(600, 1, 12)
    features(ScoreState(SPEC, lateness_ms=HOUR), parts)  # loads what there is to load
    began = read_memory().resident
    alone, *beside = (initial_deployment(settings().models, SPEC, watch) for _ in range(4))
    for one in (alone, *beside):
        one.promote(version("logistic", 2.0))
        one.add_shadow(version("honest", -1.0))
    for one in beside:
        one.shadows.insert(0, replace(one.shadows[0], snapshot=doubling(scorer)))
    cores = [ScoreCore(FIXED, lambda: 0.0) for _ in range(4)]
    states = [ScoreState(SPEC, lateness_ms=HOUR) for _ in range(4)]
    for part in parts:
        expected, *found = (
            core.process(state, one, part)
            for core, state, one in zip(cores, states, (alone, *beside), strict=True)
        )
        for each in found:
            np.testing.assert_array_equal(each.arrays.pop("shadows")[:, 1:], expected.arrays["shadows"])
            arrays = {name: array for name, array in expected.arrays.items() if name != "shadows"}
            assert each.encode() == replace(expected, arrays=arrays).encode()
    for one in beside:
        hoarder, honest = one.shadows
        assert (hoarder.off or "").startswith("memory: ")
        assert hoarder.off == beside[0].shadows[0].off
        assert (hoarder.failures, honest.off) == (0, None)
    # 1, 1, 2, 4, … 32 MB: 64 in all, or 128 where the first of it lay in memory that the process had free.
    assert scorer.calls in (7, 8)
    assert LIMIT < watch.taken(("hoarder", 1)) < 3 * LIMIT
    assert read_memory().resident - began < 3 * LIMIT


class Versions:
    """The models topic."""

    def __init__(self, *snapshots: Snapshot) -> None:
        self.there = {(each.name, each.version): each for each in snapshots}
        self.newest = {each.name: each.version for each in snapshots}

    def version(self, name: str, number: int) -> Snapshot | None:
        return self.there.get((name, number))


class Worker:
    """The card and the score stage of one partition, without a broker."""

    def __init__(self, *shadows: Snapshot) -> None:
        chosen = settings(topics={"partitions": 1}, policy={"threshold": 0.01})
        contexts = build(chosen, ["card", "score"]).contexts
        self._card, self.context = (
            StageContext(
                one.settings, one.spec, one.catalogue, one.outputs, one.metrics, lambda: START, lambda: 0.0
            )
            for one in (contexts["card"], contexts["score"])
        )
        registry = Registry(initial_aliases(chosen.models))
        for number, each in enumerate(shadows, 1):
            registry.take(Move(number, "shadow-add", Pin(each.name)))
        self._cards = CardWork(0, self._card, cast("Changelog", Log()))
        self.scores = ScoreWork(
            0,
            self.context,
            cast("Changelog", Log()),
            cast("ModelFeed", Versions(version("logistic", 2.0), *shadows)),
            cast("ControlFeed", Control(registry)),
            decision_policy(chosen),
            lambda: True,
            MemoryWatch(LIMIT),
        )
        self._source, self._hop = PartitionBook("transactions", 0), PartitionBook("hop", 0)
        for work in (self._cards, self.scores):
            asyncio.run(work.open())

    def records(self, transactions: Sequence[Any], first: int) -> list[Output]:
        """Scores and alerts of a batch."""
        given = [
            Source(encode(each), each.card_id.encode(), partition=0, offset=first + place, timestamp=START)
            for place, each in enumerate(transactions)
        ]
        end = first + len(given)
        batch = self._source.hand_out(given, end, end)
        (handed,) = (out for step in self._cards.handle([batch]) for out in step.outputs)
        message = Source(handed.value, offset=first, partition=0, timestamp=START)
        hop = self._hop.hand_out([message], first + 1, first + 1)
        topics = [self.context.name(name) for name in ("scores", "alerts")]
        sent = [out for step in self.scores.handle([hop]) for out in step.outputs]
        return [each for each in sent if each.topic in topics]


def without_shadows(record: Output) -> tuple[object, ...]:
    document = msgspec.json.decode(record.value or b"")
    del document["shadows"]
    return record.topic, record.partition, record.key, record.headers, msgspec.json.encode(document)


def test_the_stage_publishes_the_same_records_beside_a_shadow_that_doubles(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """Scores and alerts, but for the list of shadows; the reason is told in the log and in the metric."""
    caplog.set_level(logging.WARNING)
    scorer = Hoarder()
    alone, beside = Worker(version("honest")), Worker(version("honest"), doubling(scorer))
    sent: list[Output] = []
    for turn in range(12):
        rows = [
            transaction(40 * turn + each, each % 7, each % 3, START + turn, 1000 * each) for each in range(40)
        ]
        expected, found = (one.records(rows, 40 * turn) for one in (alone, beside))
        assert [without_shadows(each) for each in found] == [without_shadows(each) for each in expected]
        sent += found
    topics = [each.topic for each in sent]
    assert (
        topics.count(beside.context.name("scores"))
        == 12 * 40
        > topics.count(beside.context.name("alerts"))
        > 100
    )
    shadows = {each.snapshot.name: each.off for each in beside.scores.deployment.shadows}
    assert shadows["honest"] is None
    assert f"hoarder v1 switched off: {shadows['hoarder']}" in caplog.text
    assert "memory: " in caplog.text
    disabled = beside.context.metrics.shadow_disabled
    assert [disabled.value("hoarder", reason) for reason in ("memory", "slow", "raised")] == [1, 0, 0]
    assert scorer.calls in (7, 8)
