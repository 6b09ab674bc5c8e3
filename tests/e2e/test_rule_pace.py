"""Paced rules differ from the project's own in how long they wait, and in nothing else."""

from __future__ import annotations

import copy

import pytest
import yaml

from streams.times import duration_ms
from tests.e2e.monitors import MONITORING
from tests.e2e.rule_pace import paced

RULES = yaml.safe_load((MONITORING / "prometheus" / "rules" / "alerts.yml").read_text())


@pytest.mark.parametrize(
    ("held", "expected"),
    [("6h", "6m"), ("30m", "30s"), ("1h", "1m"), ("5m", "10s"), ("5s", "5s"), ("631s", "10s")],
)
def test_how_long_a_condition_has_to_hold(held: str, expected: str) -> None:
    """Divided and cut to seconds, not below the least and never longer than it was."""
    document = {"groups": [{"name": "g", "rules": [{"alert": "A", "expr": "up", "for": held}]}]}
    assert paced(document, 60, 10_000)["groups"][0]["rules"][0]["for"] == expected


def test_nothing_else_changes() -> None:
    """The project's own rules, but for `for`; and the document that is given stays as it is."""
    before = copy.deepcopy(RULES)
    result = paced(RULES, 60, 10_000)
    assert before == RULES
    shorter = 0
    for group, same in zip(RULES["groups"], result["groups"], strict=True):
        for rule, other in zip(group["rules"], same["rules"], strict=True):
            shorter += rule.get("for") != other.get("for")
            assert ("for" in rule) == ("for" in other)
            assert {**rule, "for": None} == {**other, "for": None}
            if "for" in rule:
                assert duration_ms(other["for"]) <= duration_ms(rule["for"])
    assert shorter > 20
