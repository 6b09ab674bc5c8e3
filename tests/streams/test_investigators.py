"""Analysts with a fixed capacity: whom they look at, and when the truth is back."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from streams.history.investigators import Investigators
from streams.stages.columns import Columns
from tests.streams.made_up import HOUR, START

DAY = 24 * HOUR


def scored(alerts: Sequence[tuple[str, str, int, float, bool]]) -> Columns:
    """Rows of transaction, card, time since START, score, alert."""
    return Columns(
        {},
        {
            "watermark": np.array([START + time for _, _, time, _, _ in alerts], np.int64),
            "champion": np.array([score for *_, score, _ in alerts]),
            "alert": np.array([alert for *_, alert in alerts]),
        },
        {"transaction_id": [one[0] for one in alerts], "card_id": [one[1] for one in alerts]},
    )


def test_the_best_alerts_of_a_day_one_for_a_card() -> None:
    """Of a card only its highest alert, what raised none is not looked at, ties go by transaction."""
    analysts = Investigators({"b", "d"}, 3)
    analysts.see(scored([("a", "x", 0, 0.9, True), ("b", "x", HOUR, 0.95, True)]))
    analysts.see(
        scored([("z", "u", HOUR, 0.5, True), ("c", "y", HOUR, 0.99, False), ("d", "v", HOUR, 0.5, True)])
    )
    analysts.see(scored([("e", "w", HOUR, 0.6, True)]))
    found = analysts.due(START + 2 * DAY)
    assert [(label.transaction_id, label.card_id, label.fraud, label.source) for label in found] == [
        ("b", "x", True, "analyst"),
        ("e", "w", False, "analyst"),
        ("d", "v", True, "analyst"),
    ]
    assert {label.labelled_at for label in found} == {START + HOUR + DAY}


def test_the_truth_is_back_a_day_later_and_given_once() -> None:
    """Nothing is known before the day is over and a day has passed since the transaction."""
    analysts = Investigators({"a"}, 5)
    analysts.see(scored([("a", "x", 0, 0.9, True), ("b", "y", DAY - 1, 0.9, True)]))
    assert analysts.due(START + DAY - 1) == []
    assert [label.transaction_id for label in analysts.due(START + DAY)] == ["a"]
    analysts.see(scored([("c", "z", DAY, 0.9, True)]))
    assert analysts.due(START + 2 * DAY - 2) == []
    assert [label.transaction_id for label in analysts.due(START + 3 * DAY)] == ["b", "c"]
    assert analysts.due(START + 9 * DAY) == []


def test_without_capacity_nobody_looks() -> None:
    """A capacity of 0 is a history without analysts."""
    analysts = Investigators({"a"}, 0)
    analysts.see(scored([("a", "x", 0, 0.9, True)]))
    assert analysts.due(START + 9 * DAY) == []
