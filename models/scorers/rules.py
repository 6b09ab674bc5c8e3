"""Expert rules: what scores while nothing has been learned yet, and when a champion fails."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, Self

import numpy as np
from numpy.typing import NDArray

from models.scorers.base import (
    Arrays,
    Floats,
    Header,
    Ints,
    ScorerArraysError,
    as_matrix,
    floats,
    header_float,
    header_int,
    ints,
)


@dataclass(frozen=True, slots=True)
class Rule:
    """``feature > threshold`` adds ``log_odds``; with ``divisor``, ``feature > threshold * divisor`` does.

    A divisor that is not positive never fires: a card without history has no mean to exceed.
    """

    feature: str
    threshold: float
    log_odds: float
    divisor: str | None = None


DEFAULT_RULES = (
    Rule("amount", 200.0, 2.5),
    Rule("card_amount_over_mean_30d", 4.0, 2.5),
    Rule("card_amount_over_mean_7d", 4.0, 1.0),
    Rule("card_count_1h", 4.0, 1.0),
    Rule("card_distinct_countries_24h", 1.0, 1.0),
    Rule("terminal_risk_7d", 0.2, 2.5),
    Rule("terminal_risk_30d", 0.1, 1.5),
    Rule("terminal_known_frauds_7d", 1.0, 1.5),
)
"""Rules over the default feature spec; amounts in major units. The odds are an analyst's guess."""

MOST_RULES = 1000
"""That a snapshot may have: what a batch needs is as many numbers as it has rows, for each of them."""


@dataclass(frozen=True, slots=True)
class RulesScorer:
    """Sum of log odds of the rules that fire, on top of a base rate, as a probability.

    With r rules: ``feature``, ``divisor`` (-1: none) i32[r]; ``threshold``, ``log_odds`` f64[r]; ``base`` log
    odds.
    """

    kind: ClassVar[str] = "rules"

    width: int
    base: float
    feature: Ints
    divisor: Ints
    threshold: Floats
    log_odds: Floats

    @classmethod
    def build(
        cls, names: Sequence[str], rules: Sequence[Rule] = DEFAULT_RULES, base_rate: float = 0.005
    ) -> Self:
        """A scorer over features in the order of ``names``; rules about features that are not there are left
        out.

        :param base_rate: probability of fraud when no rule fires.
        """
        at = {name: i for i, name in enumerate(names)}
        usable = [r for r in rules if r.feature in at and (r.divisor is None or r.divisor in at)]
        return cls(
            width=len(names),
            base=float(np.log(base_rate / (1.0 - base_rate))),
            feature=np.array([at[r.feature] for r in usable], np.int32),
            divisor=np.array([-1 if r.divisor is None else at[r.divisor] for r in usable], np.int32),
            threshold=np.array([r.threshold for r in usable], np.float64),
            log_odds=np.array([r.log_odds for r in usable], np.float64),
        )

    @property
    def n_features(self) -> int:
        """Number of columns ``score`` expects."""
        return self.width

    @property
    def steps(self) -> int:
        """Most steps for a row: the rules."""
        return len(self.feature)

    def score(self, x: Floats) -> Floats:
        """Fraud probabilities f64[n] of f64[n, n_features]; ValueError on another shape or values not
        finite.
        """
        x = as_matrix(x, self.width)
        if not len(self.feature):
            return np.full(len(x), 1.0 / (1.0 + np.exp(-self.base)))
        divided = self.divisor >= 0
        divisor = np.where(divided, x[:, self.divisor], 1.0)
        # Dividing the value, not multiplying the threshold: finite inputs cannot overflow to a comparison
        # with inf.
        with np.errstate(over="ignore"):
            ratio = x[:, self.feature] / np.where(divisor > 0.0, divisor, 1.0)
        fires = (divisor > 0.0) & (ratio > self.threshold)
        return 1.0 / (1.0 + np.exp(-np.clip(self.base + fires @ self.log_odds, -30.0, 30.0)))

    def to_arrays(self) -> tuple[dict[str, int | float | str], dict[str, NDArray[np.generic]]]:
        """Header and arrays for a snapshot."""
        header: dict[str, int | float | str] = {"width": self.width, "base": self.base}
        return header, {
            "feature": self.feature,
            "divisor": self.divisor,
            "threshold": self.threshold,
            "log_odds": self.log_odds,
        }

    @classmethod
    def from_arrays(cls, header: Header, arrays: Arrays) -> Self:
        """The inverse of ``to_arrays``; ScorerArraysError on anything else."""
        width = header_int(header, "width")
        feature = ints(arrays, "feature", [None], 0, width)
        if len(feature) > MOST_RULES:
            raise ScorerArraysError(f"{len(feature)} rules, more than {MOST_RULES}")
        return cls(
            width=width,
            base=header_float(header, "base"),
            feature=feature,
            divisor=ints(arrays, "divisor", [len(feature)], -1, width),
            threshold=floats(arrays, "threshold", [len(feature)]),
            log_odds=floats(arrays, "log_odds", [len(feature)]),
        )
