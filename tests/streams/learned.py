"""Slots, outcomes and checkpoints for the tests of the learn stage, and what is learned from them."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

import numpy as np

from models.snapshot import Snapshot, encode
from streams.app import build
from streams.sections import Models, Slot
from streams.settings import Settings, load
from streams.stages.columns import Columns
from streams.stages.learn_checkpoint import LearnCheckpoint, slot_terms
from streams.stages.learn_core import LearnCore, LearnRules, LearnState
from streams.stages.model_slots import build_learners
from tests.streams.clients import topic_names

HOUR = 3_600_000
PARTITIONS = 2
CHAMPION = Slot(name="champion", kind="logistic")
SHADOW = Slot(name="shadow", kind="logistic", negative_rate=0.5)


def settings(broker: str = "localhost:9092", prefix: str = "learn") -> Settings:
    given = {**topic_names(prefix), "broker.bootstrap": broker, "topics.partitions": PARTITIONS}
    made = load(overrides=given, environ={})
    slots = {"champion": CHAMPION, "shadows": (SHADOW,)}
    models = {**slots, "publish_every": "1h", "min_outcomes": 0, "min_frauds": 0}
    return made.model_copy(update={"models": Models.model_validate(models)})


CONTEXT = build(settings(), ["learn"]).contexts["learn"]


def outcomes(partition: int, watermark: int, known_at: Sequence[int] = (), *, bad: bool = False) -> Columns:
    n = len(known_at)
    features = np.random.default_rng(partition).random((n, len(CONTEXT.spec.names)))
    if bad:
        features[:] = np.nan
    return Columns(
        {"label_partition": partition, "spec": CONTEXT.spec.digest, "watermark": watermark},
        {
            "transaction": np.array(known_at, np.uint64) * np.uint64(2) + np.uint64(partition),
            "fraud": np.arange(n) % 2 == 0,
            "known_at": np.array(known_at, np.int64),
            "labelled_at": np.array(known_at, np.int64),
            "watermark": np.array(known_at, np.int64),
            "features": features,
            "alert": np.zeros(n, np.bool_),
            "control": np.zeros(n, np.bool_),
            "propensity": np.ones(n),
        },
        {"source": ["maturity"] * n},
    )


#: Messages of both label partitions; what the second one says last lets everything take effect.
MESSAGES = [
    outcomes(0, 2 * HOUR, [HOUR // 2, HOUR + 1, HOUR + 3]),
    outcomes(0, 5 * HOUR, [3 * HOUR, 4 * HOUR + 7]),
    outcomes(1, HOUR, [HOUR // 3]),
    outcomes(1, 3 * HOUR + 1, [HOUR + 2, 2 * HOUR]),
    outcomes(0, 6 * HOUR, [5 * HOUR + 1]),
    outcomes(1, 7 * HOUR, [4 * HOUR, 6 * HOUR]),
]


def checkpoint(slots: Sequence[Slot], key: bytes = b"") -> LearnCheckpoint:
    models = Models(champion=slots[0], shadows=tuple(slots[1:]))
    return LearnCheckpoint(
        lambda: LearnState(build_learners(models, CONTEXT.spec), PARTITIONS), slot_terms(models), key
    )


def learn(state: LearnState, messages: Sequence[Columns]) -> list[Snapshot]:
    core = LearnCore(LearnRules(publish_every_ms=HOUR, spec_digest=CONTEXT.spec.digest))
    published: list[Snapshot] = []
    for rows in messages:
        core.take(state, rows)
        clock = state.observe(rows.meta_int("label_partition"), rows.meta_int("watermark"))
        published += [snapshot for each in core.advance(state, clock) for snapshot in each]
    return published


def _sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def digests(snapshots: Sequence[Snapshot]) -> list[tuple[str, int, int, str]]:
    return [(each.name, each.version, each.n_learned, _sha256(encode(each))) for each in snapshots]
