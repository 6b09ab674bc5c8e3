"""From score to threshold: which scores would be alerts, and what an alert is called.

A policy gives every row the threshold that is in force for it. Two are here, without memory: a fixed one, and
one by cost; `alert_budget.py` has one that moves. What is done with the rows above it is in `decision.py`.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType

import numpy as np
from numpy.typing import NDArray

from models.arrays import Floats, Ints


class AlertNames:
    """Ids of the alerts of a policy, by its name.

    The name says what was set, not where a moving threshold stands: a replayed alert is the same alert,
    whatever has been learned or moved in between.
    """

    def __init__(self, policy: str) -> None:
        name = policy.encode()
        # The length first: no policy and transaction can run together into those of another alert.
        self._prefix = len(name).to_bytes(4, "big") + name

    def __call__(self, transaction_id: str) -> str:
        """32 hexadecimal digits that depend on the transaction and the policy only."""
        return hashlib.blake2b(self._prefix + transaction_id.encode(), digest_size=16).hexdigest()


@dataclass(frozen=True, slots=True)
class ThresholdPolicy:
    """Would-be alerts have a score at or above ``threshold`` (a probability in [0, 1])."""

    threshold: float

    def __post_init__(self) -> None:
        if not (math.isfinite(self.threshold) and 0.0 <= self.threshold <= 1.0):
            raise ValueError(f"threshold must be in [0, 1], not {self.threshold}")

    @property
    def name(self) -> str:
        return f"threshold-{self.threshold!r}"

    @property
    def start(self) -> float:
        """The threshold of the settings."""
        return self.threshold

    def thresholds(self, amount_minor: Ints, currency: Sequence[str]) -> Floats:
        """The threshold of each of n rows: f64[n]."""
        return np.full(len(amount_minor), self.threshold)


@dataclass(frozen=True, slots=True)
class CostPolicy:
    """Would-be alerts are those whose expected loss, score times amount, is the cost of an investigation or
    more.

    Elkan: The foundations of cost-sensitive learning, IJCAI 2001, with the amount as the cost of a missed
    fraud. The threshold of a row is cost / amount. It is above 1, which no score reaches, where the amount is
    below the cost; an amount of 0 counts as one minor unit.

    :ivar cost: of an investigation in minor units, at least 1, by currency.
    :ivar start: the threshold for transactions in other currencies.
    """

    cost: Mapping[str, int]
    start: float
    _known: Mapping[str, float] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        ThresholdPolicy(self.start)
        wrong = [f"{currency} = {cost}" for currency, cost in self.cost.items() if cost < 1]
        if wrong or not self.cost:
            raise ValueError(f"an investigation costs at least one minor unit, in some currency: {wrong}")
        object.__setattr__(self, "_known", MappingProxyType(dict(self.cost)))

    @property
    def name(self) -> str:
        costs = ",".join(f"{currency}={cost}" for currency, cost in sorted(self.cost.items()))
        return f"cost-{costs}-{self.start!r}"

    def thresholds(self, amount_minor: Ints, currency: Sequence[str]) -> Floats:
        """The threshold of each of n rows: f64[n], finite, more than 0."""
        known = self._known
        cost = np.array([known.get(code, math.nan) for code in currency], np.float64)
        thresholds: NDArray[np.float64] = cost / np.maximum(amount_minor, 1)
        return np.where(np.isnan(cost), self.start, thresholds)
