"""The kinds of scorer that hold no other."""

from __future__ import annotations

from models.scorers.base import FrozenScorer
from models.scorers.binned import BinnedScorer
from models.scorers.boosted import BoostedScorer
from models.scorers.forest import ForestScorer
from models.scorers.linear import LogisticScorer
from models.scorers.rules import RulesScorer

SINGLE: dict[str, type[FrozenScorer]] = {
    LogisticScorer.kind: LogisticScorer,
    BinnedScorer.kind: BinnedScorer,
    BoostedScorer.kind: BoostedScorer,
    ForestScorer.kind: ForestScorer,
    RulesScorer.kind: RulesScorer,
}
