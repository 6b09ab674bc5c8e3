"""Compiles or loads every kernel before a worker joins its groups.

The first call of a kernel takes seconds where its machine code is not cached yet, too long to leave the
broker without a heartbeat.
"""

from __future__ import annotations

import time

import numpy as np

from models.learners.registry import LEARNERS
from models.snapshot import decode, encode, make
from models.spec import FeatureSpec
from streams.contract.records import Transaction
from streams.settings import Settings
from streams.stages import columns
from streams.stages.card import time_rules
from streams.stages.card_core import CardCore, CardState
from streams.stages.columns import Columns
from streams.stages.decisions import decision_policy
from streams.stages.model_slots import initial_deployment
from streams.stages.rows import from_transactions
from streams.stages.score_core import ScoreCore, ScoreState, ScoreStep

#: Enough for the tables of keys to grow.
_ROWS = 1000


def warm_up(settings: Settings, spec: FeatureSpec) -> float:
    """A few made-up transactions through the cores and out of a checkpoint; returns the seconds it took."""
    began = time.perf_counter()
    cards, scores = CardState(spec, time_rules(settings)), ScoreState(spec, lateness_ms=0)
    deployment = initial_deployment(settings.models, spec)
    for kind, learner in LEARNERS.items():
        name = kind.replace("_", "-")
        fresh = make(learner(spec.names).freeze(), name=name, version=1, spec_digest=spec.digest)
        snapshot = decode(encode(fresh))
        deployment.promote(snapshot)
        deployment.add_shadow(snapshot)
    attributes = dict.fromkeys(spec.attributes, 0.0)
    transactions = [
        Transaction(
            f"t{row}",
            f"card {row}",
            10**12 + row,
            100,
            "EUR",
            f"terminal {row}",
            country="DE",
            attributes=attributes,
        )
        for row in range(_ROWS)
    ]
    times = np.arange(10**12, 10**12 + _ROWS, dtype=np.int64)
    rows = from_transactions(transactions, np.arange(_ROWS, dtype=np.int64), times, spec)
    kept = columns.decode(CardCore(spec).process(cards, rows).encode())
    kept.arrays["card_partition"] = np.zeros(_ROWS, np.int64)
    ScoreCore(decision_policy(settings), time.perf_counter).process(scores, deployment, kept)
    frauds = {name: kept.arrays[name] for name in ("hop", "event_time", "transaction")}
    frauds |= {"known_at": times, "fraud": np.ones(_ROWS, np.bool_)}
    scores.add_frauds(Columns({}, frauds))
    cards.apply(cards.delta(rows, 1))
    scores.apply(scores.delta(kept, None, ScoreStep()))
    for bucket in range(cards.buckets):
        cards.load(bucket, cards.dump(bucket))
    for bucket in range(scores.buckets):
        scores.load(bucket, scores.dump(bucket))
    return time.perf_counter() - began
