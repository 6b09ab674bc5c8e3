"""The rules that score before anything has been learned, and when a champion fails."""

from __future__ import annotations

from collections.abc import Sequence

from models.scorers.rules import Rule, RulesScorer

#: What analysts look at first; rules about features that a spec does not have are left out.
RULES = (
    Rule("amount", 1000.0, 1.5),
    Rule("card_amount_over_mean_30d", 5.0, 2.5),
    Rule("card_count_1h", 5.0, 2.0),
    Rule("card_distinct_countries_24h", 1.5, 1.5),
    Rule("terminal_risk_7d", 0.05, 2.5),
    Rule("terminal_known_frauds_7d", 0.5, 2.0),
)


def stand_in(names: Sequence[str]) -> RulesScorer:
    """The rules over features in the order of `names`."""
    return RulesScorer.build(names, RULES)
