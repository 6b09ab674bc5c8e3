"""Models for the benchmarks, learned before the measurement and published as the learn stage would publish
them.

A champion (logistic regression) and two shadows (an adaptive random forest of ten trees, a Hoeffding tree),
learned on the features of a seeded stream with the same windows, its frauds known seven days late.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from aiokafka import AIOKafkaProducer

from benchmarks.workload import Workload, draw
from models import snapshot
from models.features import transaction_features
from models.learners.base import Floats, Learner
from models.learners.registry import LEARNERS
from models.sampling import keep_mask
from models.spec import FeatureSpec
from models.windows import WindowStore
from streams.contract.model_records import model_key

MODELS = {"logistic": "logistic", "forest": "adaptive_forest", "tree": "hoeffding_tree"}
"""Name → kind of learner; the first is the champion."""
KEEP_ONE_IN = 4
#: Forty days with fraud enough for trees to grow: about 12,000 outcomes are learned.
STREAM = Workload(
    40_000, cards=1_000, terminals=2_000, spacing_ms=86_400.0, seed=8, stolen=0.03, compromised=0.05
)
_BATCH = 2_000
_DELAY = 7 * 86_400_000
_LATENESS = 3_600_000


@dataclass(frozen=True, slots=True)
class Trained:
    """Snapshots by name, champion first: ready to score with, and encoded."""

    snapshots: dict[str, snapshot.Snapshot]
    documents: dict[str, bytes]


def features(workload: Workload, spec: FeatureSpec) -> tuple[Floats, np.ndarray]:
    """The feature matrix of a stream and the truth, one row a transaction in event order."""
    columns = draw(workload)
    stores = [WindowStore(entity, lateness_ms=_LATENESS) for entity in spec.entities]
    keys = {"card_id": columns.card, "terminal_id": columns.terminal}
    hashed = {field: _hash(values) for field, values in keys.items()}
    amounts = columns.amount_minor / 100.0
    rows = workload.transactions
    ids = _hash(np.arange(rows))
    blocks = []
    for start in range(0, rows, _BATCH):
        at = slice(start, min(start + _BATCH, rows))
        times = columns.event_time[at]
        attributes = np.empty((len(times), len(spec.attributes)))
        parts = [transaction_features(amounts[at], times, attributes)]
        for entity, store in zip(spec.entities, stores, strict=True):
            tags = np.column_stack(
                [
                    hashed[field][at] if field in hashed else np.ones(len(times), np.uint64)
                    for field in entity.tags
                ]
            )
            accepted = np.ones(len(times), np.bool_)
            parts.append(store.update(hashed[entity.key][at], times, amounts[at], tags, accepted, times))
            stolen = np.flatnonzero(columns.fraud[at]) + start
            if entity.risk is not None and len(stolen):
                frauds = np.ones(len(stolen), np.bool_)
                when = columns.event_time[stolen]
                store.add_frauds(hashed[entity.key][stolen], when, when + _DELAY, ids[stolen], frauds)
        blocks.append(np.hstack(parts))
    return np.vstack(blocks), columns.fraud


def _hash(values: np.ndarray) -> np.ndarray:
    """Different 64-bit words, never 0, for small integers."""
    return (values.astype(np.uint64) + np.uint64(1)) * np.uint64(0x9E3779B97F4A7C15)


def train(spec: FeatureSpec, stream: Workload = STREAM) -> Trained:
    """Learn the three models on all frauds and one in four of the genuine."""
    x, fraud = features(stream, spec)
    learners: dict[str, Learner] = {
        name: LEARNERS[kind](spec.names, keep_one_in=KEEP_ONE_IN) for name, kind in MODELS.items()
    }
    kept = keep_mask(_hash(np.arange(stream.transactions)), fraud, KEEP_ONE_IN)
    for row in np.flatnonzero(kept).tolist():
        for learner in learners.values():
            learner.learn(x[row], bool(fraud[row]))
    snapshots = {
        name: snapshot.make(
            learner.freeze(),
            name=name,
            version=1,
            spec_digest=spec.digest,
            n_learned=learner.n_learned,
            reference=learner.reference,
            golden_x=learner.recent,
        )
        for name, learner in learners.items()
    }
    return Trained(snapshots, {name: snapshot.encode(one) for name, one in snapshots.items()})


def threshold(trained: Trained, spec: FeatureSpec, stream: Workload, share: float = 0.01) -> float:
    """The champion's score that `share` of the later half of the stream reaches, so that alerts are as rare
    as in life."""
    x, _ = features(stream, spec)
    champion = next(iter(trained.snapshots.values())).scorer
    return float(np.quantile(champion.score(x[len(x) // 2 :].copy()), 1.0 - share))


async def publish(broker: str, topic: str, trained: Trained) -> None:
    """Put the snapshots on the models topic."""
    producer = AIOKafkaProducer(bootstrap_servers=broker, max_request_size=64 << 20)
    await producer.start()
    try:
        for name, document in trained.documents.items():
            version = trained.snapshots[name].version
            await producer.send_and_wait(topic, key=model_key(name, version), value=document)
    finally:
        await producer.stop()
