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

MODELS = {"logistic": "logistic", "forest": "adaptive_forest", "tree": "hoeffding_tree"}
"""Name → kind of learner; the first is the champion."""
KEEP_ONE_IN = 20
_BATCH = 2_000
_DELAY = 7 * 86_400_000
_LATENESS = 3_600_000


@dataclass(frozen=True, slots=True)
class Trained:
    """Snapshots by name, encoded, and the champion's score that one in a hundred transactions exceeds."""

    documents: dict[str, bytes]
    threshold: float
    spec_digest: str


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


def train(spec: FeatureSpec, transactions: int = 60_000, seed: int = 8) -> Trained:
    """Learn the three models on all frauds and one in twenty of the genuine."""
    x, fraud = features(Workload(transactions, seed=seed), spec)
    learners: dict[str, Learner] = {
        name: LEARNERS[kind](spec.names, keep_one_in=KEEP_ONE_IN) for name, kind in MODELS.items()
    }
    kept = keep_mask(_hash(np.arange(transactions)), fraud, KEEP_ONE_IN)
    for row in np.flatnonzero(kept).tolist():
        for learner in learners.values():
            learner.learn(x[row], bool(fraud[row]))
    documents = {}
    for name, learner in learners.items():
        made = snapshot.make(
            learner.freeze(),
            name=name,
            version=1,
            spec_digest=spec.digest,
            n_learned=learner.n_learned,
            reference=learner.reference,
            golden_x=learner.recent,
        )
        documents[name] = snapshot.encode(made)
    champion = next(iter(learners.values())).freeze().score(x[-10_000:].copy())
    return Trained(documents, float(np.quantile(champion, 0.99)), spec.digest)


async def publish(broker: str, topic: str, trained: Trained) -> None:
    """Put the snapshots on the models topic, keyed by name."""
    producer = AIOKafkaProducer(bootstrap_servers=broker, max_request_size=64 << 20)
    await producer.start()
    try:
        for name, document in trained.documents.items():
            await producer.send_and_wait(topic, key=name.encode(), value=document)
    finally:
        await producer.stop()
