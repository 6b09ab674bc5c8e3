"""The names of all kinds of frozen scorer, for readers that score nothing and need not load one."""

from __future__ import annotations

KINDS = frozenset({"binned", "boosted", "forest", "logistic", "mean", "rules"})
