"""Alert rules for a stream that runs faster than life: only how long a condition has to hold is shortened."""

from __future__ import annotations

import copy
from typing import Any

from streams.times import SECOND, duration_ms, duration_text

Document = dict[str, Any]


def paced(document: Document, factor: int, least: int) -> Document:
    """The rules with every `for` divided by `factor`, but not below `least` milliseconds.

    A `for` that is shorter than that already stays as it is; expressions, ranges, thresholds, labels and
    `keep_firing_for` stay in any case.

    Args:
        document: a rules file as loaded from YAML.
    """
    result = copy.deepcopy(document)
    for group in result["groups"]:
        for rule in group["rules"]:
            if "for" in rule:
                held = duration_ms(rule["for"])
                whole = max(held // factor // SECOND * SECOND, least)
                rule["for"] = duration_text(min(held, whole))
    return result
