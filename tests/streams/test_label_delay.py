"""The delay of a label in the merge runs to the label, however much later it takes effect."""

from __future__ import annotations

import numpy as np

from monitoring.tallies import Tally, add
from streams.stages.observing.merge_core import MergeCore
from streams.stages.observing.merge_state import MergeState, MergeStep
from streams.times import HOUR, MINUTE
from tests.streams.observed import PARTITIONS, made_up, outcomes


def test_the_delay_of_a_label_is_that_of_the_label() -> None:
    """Labels of a quarter of an hour that count at maturity, two hours later, have a quarter of an hour."""
    rows = made_up(40, 1)
    decided = outcomes(rows, 0, np.ones(len(rows), np.bool_), "chargeback", 2 * HOUR)
    decided.arrays["labelled_at"] = decided.ints("event_time") + 15 * MINUTE
    step = MergeStep()
    MergeCore().outcomes(MergeState(PARTITIONS), step, decided)
    total: Tally = {}
    for tally in step.outcomes.values():
        add(total, tally)
    assert total["labels@source:chargeback"] > 0
    assert total["label_ms@source:chargeback"] == total["labels@source:chargeback"] * 15 * MINUTE
