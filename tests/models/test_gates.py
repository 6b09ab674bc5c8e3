"""Gates: what fails a candidate, what lets it in, and that missing data does neither."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from models.gates import NAN, Evidence, Figures, Limits, judge

GOOD = Figures(
    rows=100_000,
    failures=0,
    seconds_per_row=3e-6,
    alerts=500,
    commonest=0.1,
    average_precision=0.6,
    precision=0.5,
    calibration_error=0.01,
)
ENOUGH = Evidence(GOOD, GOOD, outcomes=50_000, frauds=400, coverage=1.0, days=8.0)
LIMITS = Limits()
GATES = (
    "failures", "latency", "alert_rate", "score_shape", "average_precision", "precision", "calibration",
    "horizon",
)  # fmt: skip


def results(evidence: Evidence) -> dict[str, str]:
    return {each.gate: each.result for each in judge(evidence, LIMITS).findings}


def test_a_candidate_like_the_champion_passes() -> None:
    """Every gate, and there are no others."""
    assert results(ENOUGH) == dict.fromkeys(GATES, "passed")
    assert judge(ENOUGH, LIMITS).all_passed


@pytest.mark.parametrize(
    ("gate", "figures"),
    [
        ("failures", {"failures": 200}),
        ("latency", {"seconds_per_row": 300e-6}),
        ("alert_rate", {"alerts": 2000}),
        ("alert_rate", {"alerts": 100}),
        ("alert_rate", {"alerts": 100_000}),
        ("alert_rate", {"alerts": 0}),
        ("score_shape", {"commonest": 0.99}),
        ("average_precision", {"average_precision": 0.5}),
        ("precision", {"precision": 0.4}),
        ("calibration", {"calibration_error": 0.05}),
    ],
)
def test_each_fault_fails_its_gate(gate: str, figures: dict[str, Any]) -> None:
    """And only that one; the same fault of the champion fails nothing."""
    bad = replace(GOOD, **figures)
    judgement = judge(replace(ENOUGH, candidate=bad), LIMITS)
    assert [each.gate for each in judgement.failed] == [gate]
    assert not judgement.all_passed
    if gate not in ("failures", "alert_rate"):
        assert not judge(replace(ENOUGH, candidate=bad, champion=bad), LIMITS).failed


@pytest.mark.parametrize(
    ("missing", "unknown"),
    [
        ({"outcomes": 1999}, GATES[4:]),
        ({"frauds": 49}, GATES[4:]),
        ({"coverage": 0.89}, GATES[4:]),
        ({"coverage": NAN}, GATES[4:]),
        ({"days": 6.9}, ("horizon",)),
    ],
)
def test_too_little_is_neither_passed_nor_failed(missing: dict[str, Any], unknown: tuple[str, ...]) -> None:
    """However bad what little there is looks."""
    awful = replace(GOOD, average_precision=0.0, precision=0.0, calibration_error=1.0)
    few = replace(ENOUGH, **missing)
    assert {gate for gate, result in results(few).items() if result == "unknown"} == set(unknown)
    assert not judge(few, LIMITS).all_passed
    if "days" not in missing:
        assert not judge(replace(few, candidate=awful), LIMITS).failed


def test_chance_does_not_fail_the_alert_rate() -> None:
    """Of so few alerts a ratio says nothing."""
    few = replace(ENOUGH, candidate=replace(GOOD, alerts=9), champion=replace(GOOD, alerts=1))
    assert results(few)["alert_rate"] == "passed"


FIGURE = st.just(NAN) | st.floats(0, 1)
FIGURES = st.builds(
    Figures,
    rows=st.integers(0, 1999),
    failures=st.integers(0, 1999),
    seconds_per_row=FIGURE,
    alerts=st.integers(0, 1999),
    commonest=FIGURE,
    average_precision=FIGURE,
    precision=FIGURE,
    calibration_error=FIGURE,
)


@given(FIGURES, FIGURES, st.integers(0, 1999), st.integers(0, 10**6), FIGURE, st.floats(0, 100))
def test_missing_data_never_moves_a_model(
    candidate: Figures, champion: Figures, outcomes: int, frauds: int, coverage: float, days: float
) -> None:
    """Below the least number of rows and of outcomes nothing fails and not all is passed."""
    judgement = judge(Evidence(candidate, champion, outcomes, frauds, coverage, days), LIMITS)
    assert not judgement.failed
    assert not judgement.all_passed


def test_figures_that_are_missing_are_unknown() -> None:
    """NaN is no number to compare with, on either side."""
    nothing = replace(GOOD, average_precision=NAN, precision=NAN, calibration_error=NAN, commonest=NAN)
    for evidence in (replace(ENOUGH, candidate=nothing), replace(ENOUGH, champion=nothing)):
        found = results(evidence)
        assert [gate for gate, result in found.items() if result == "unknown"] == [*GATES[3:7]]
        assert None in judge(evidence, LIMITS).as_evidence().values()
