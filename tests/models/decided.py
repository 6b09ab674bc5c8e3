"""Made-up scored rows, and decisions over a history cut into batches."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

import numpy as np

from models.alert_budget import ThresholdChange
from models.arrays import Bools, Floats, Ints
from models.decision import DecisionPolicy, DecisionState, ScoredRows

MINUTE = 60_000
HOUR = 60 * MINUTE
DAY = 24 * HOUR
START = 20_000 * DAY


def scored(
    scores: Sequence[float] | Floats,
    *,
    minutes: Sequence[int] | None = None,
    watermark: Ints | None = None,
    cards: Sequence[int] | Ints | None = None,
    amount_minor: Ints | None = None,
    currency: Sequence[str] | None = None,
    model: str = "m",
    stood_in: bool = False,
) -> ScoredRows:
    """Rows of one source; each of a card of its own, all in one minute, unless said otherwise."""
    n = len(scores)
    if watermark is None:
        watermark = START + np.array(minutes if minutes is not None else [0] * n, np.int64) * MINUTE
    card = np.array(cards if cards is not None else range(n), np.uint64)
    return ScoredRows(
        scores=np.array(scores, np.float64),
        card=card,
        card_id=[f"c{number}" for number in card.tolist()],
        watermark=watermark,
        source=np.zeros(n, np.int64),
        offset=np.arange(n, dtype=np.int64),
        amount_minor=amount_minor if amount_minor is not None else np.ones(n, np.int64),
        currency=currency or ["EUR"] * n,
        model=model,
        stood_in=stood_in,
    )


def part(rows: ScoredRows, index: Ints | slice) -> ScoredRows:
    """Some of the rows."""
    positions = np.arange(len(rows.scores))[index].tolist()
    return ScoredRows(
        scores=rows.scores[index],
        card=rows.card[index],
        card_id=[rows.card_id[i] for i in positions],
        watermark=rows.watermark[index],
        source=rows.source[index],
        offset=rows.offset[index],
        amount_minor=rows.amount_minor[index],
        currency=[rows.currency[i] for i in positions],
        model=rows.model,
        stood_in=rows.stood_in,
    )


@dataclass
class Outcome:
    """Decisions over all batches."""

    threshold: Floats
    alert: Bools
    control: Bools
    propensity: Floats
    suppressed: dict[str, int] = field(default_factory=dict)
    changes: list[ThresholdChange] = field(default_factory=list)


def decide(
    policy: DecisionPolicy, rows: ScoredRows, cuts: Iterable[int] = (), state: DecisionState | None = None
) -> Outcome:
    """All rows decided about, in batches that end at the cuts."""
    state = state if state is not None else DecisionState()
    edges = [0, *cuts, len(rows.scores)]
    parts = [
        policy.decide(state, part(rows, slice(start, stop))) for start, stop in itertools.pairwise(edges)
    ]
    outcome = Outcome(
        threshold=np.concatenate([each.threshold for each in parts]),
        alert=np.concatenate([each.alert for each in parts]),
        control=np.concatenate([each.control for each in parts]),
        propensity=np.concatenate([each.propensity for each in parts]),
    )
    for each in parts:
        outcome.changes += each.changes
        for reason, count in each.suppressed.items():
            outcome.suppressed[reason] = outcome.suppressed.get(reason, 0) + count
    return outcome
