"""Every kind of frozen scorer a snapshot may hold."""

from __future__ import annotations

from models.scorers.base import FrozenScorer
from models.scorers.mean import MeanScorer
from models.scorers.single import SINGLE

SCORERS: dict[str, type[FrozenScorer]] = {**SINGLE, MeanScorer.kind: MeanScorer}
