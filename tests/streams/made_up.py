"""Made-up rows for the tests of the cores: small specs, settings, transactions, scored rows."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from models.spec import FeatureSpec
from streams.contract.records import Transaction
from streams.contract.transaction_columns import NEVER, TransactionColumns
from streams.settings import Settings
from streams.stages.card_core import TimeRules
from streams.stages.columns import Columns
from streams.stages.rows import from_transactions

MINUTE = 60_000
HOUR = 60 * MINUTE
START = 1_700_000_000_000 - 1_700_000_000_000 % (24 * HOUR)

SPEC = FeatureSpec.from_mapping(
    {
        "entities": [
            {
                "name": "card",
                "key": "card_id",
                "windows": ["1h", "24h"],
                "aggregates": ["count", "sum", "mean", "distinct_terminals", "seconds_since_last"],
            },
            {
                "name": "terminal",
                "key": "terminal_id",
                "windows": ["1h", "24h"],
                "aggregates": ["count", "mean"],
                "risk": {"delay": "6h", "windows": ["1d", "3d"]},
            },
        ]
    }
)
RULES = TimeRules(
    allowed_lateness_ms=HOUR,
    future_tolerance_ms=HOUR,
    watermark_jump_ms=48 * HOUR,
    dedupe_horizon_ms=72 * HOUR,
    max_ids=1000,
)


def settings(**sections: dict[str, object]) -> Settings:
    """Settings with the small spec and one cheap learner."""
    models: dict[str, object] = {
        "champion": {"name": "logistic", "kind": "logistic"},
        "shadows": [],
        "publish_every": "6h",
        "min_outcomes": 0,
        "min_frauds": 0,
    }
    return Settings.model_validate(
        {"features": SPEC.as_mapping(), "labels": {"maturity": "1d"}, "models": models, **sections}
    )


def transaction(number: int, card: int, terminal: int, time: int, amount_minor: int = 1000) -> Transaction:
    return Transaction(f"t{number}", f"c{card}", time, amount_minor, "EUR", f"m{terminal}")


def rows(transactions: Sequence[Transaction], first_offset: int = 0) -> Columns:
    """Rows received when they happened."""
    times = np.array([each.event_time for each in transactions], dtype=np.int64)
    offsets = np.arange(first_offset, first_offset + len(transactions), dtype=np.int64)
    return from_transactions(transactions, offsets, times, SPEC)


def history(n: int, seed: int, *, cards: int = 20, terminals: int = 6, hours: int = 96) -> TransactionColumns:
    """Random transactions, many of them in the same minute, a few of them late; one in eight a fraud."""
    random = np.random.default_rng(seed)
    times = np.sort(START + random.integers(0, hours * 60, n) * MINUTE)
    late = random.random(n) < 0.05
    times[late] -= random.integers(0, 50, int(late.sum())) * MINUTE
    fraud = random.random(n) < 1 / 8
    return TransactionColumns(
        transaction_id=[f"t{number}" for number in range(n)],
        card_id=[f"c{card}" for card in random.integers(0, cards, n)],
        terminal_id=[f"m{terminal}" for terminal in random.integers(0, terminals, n)],
        event_time=times,
        amount_minor=random.integers(1, 100_000, n),
        currency=["EUR"] * n,
        fraud=fraud,
        labelled_at=np.where(fraud, times + random.integers(8 * 60, 40 * 60, n) * MINUTE, NEVER),
    )
