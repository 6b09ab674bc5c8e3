"""fraudstream itself as a contender: `fraudstream worker --stages card,score`."""

from __future__ import annotations

from benchmarks.harness import Contender

CONTENDER = Contender("fraudstream", lambda run: [], lambda: "not wired")
