"""The weeks of a backtest's report: which transactions count, against the protocol written down anew."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from sklearn.metrics import average_precision_score, roc_auc_score

from monitoring.bootstrap import REPLICATES
from streams.history.backtest import BacktestResult
from streams.history.backtest_report import report, show
from streams.history.folds import folds
from streams.times import DAY, rfc3339

DAYS, FIRST = 40, 17_744  # 1 August 2018
DELAY = 7


def scored(seed: int, rows: int = 4000, cards: int = 150) -> BacktestResult:
    """A result of two models over 40 days; one card in four is defrauded, again and again."""
    random = np.random.default_rng(seed)
    card = random.integers(1, cards + 1, rows)
    truth = (card % 4 == 0) & (random.random(rows) < 0.2)
    score = np.clip(random.normal(0.3 + 0.3 * truth, 0.15), 0, 1)
    return BacktestResult(
        transaction_id=[str(number) for number in range(rows)],
        card=card.astype(np.uint64),
        event_time=np.sort(FIRST * DAY + random.integers(0, DAYS * DAY, rows)),
        scores={"one": score, "other": random.permutation(score)},
        fraud=truth,
        versions={"one": 3, "other": 4},
        learned={"one": 5, "other": 6},
        counts={"transactions": rows, "scored": rows},
        feature_digest="",
        duration_s=1.0,
        drift=[],
    )


def by_the_book(result: BacktestResult, name: str, start: int, k: int = 100) -> dict[str, float]:
    """One test week from day `start` on, row by row: trained on the week that ended a delay before it."""
    days = (result.event_time // DAY).tolist()
    cards, frauds, scores = result.card.tolist(), result.fraud.tolist(), result.scores[name].tolist()
    bad_days = defaultdict(list)
    for day, card, fraud in zip(days, cards, frauds, strict=True):
        if fraud and day >= start - DELAY - 7:
            bad_days[card].append(day)
    test = [
        (day, card, fraud, score)
        for day, card, fraud, score in zip(days, cards, frauds, scores, strict=True)
        if start <= day < start + 7 and not any(bad <= day - DELAY - 1 for bad in bad_days[card])
    ]
    caught: set[int] = set()
    shares = []
    for today in range(start, start + 7):
        best: dict[int, float] = {}
        for day, card, _, score in test:
            if day == today and card not in caught:
                best[card] = max(best.get(card, 0.0), score)
        inspected = sorted(best, key=lambda card: (-best[card], card))[:k]
        hits = {card for day, card, fraud, _ in test if day == today and fraud and card in inspected}
        shares.append(len(hits) / k)
        caught |= hits
    truth, score = [each[2] for each in test], [each[3] for each in test]
    return {
        "rows": len(test),
        "auc_roc": roc_auc_score(truth, score),
        "average_precision": average_precision_score(truth, score),
        "cp@100": sum(shares) / 7,
    }


def document(result: BacktestResult, **changes: int | None) -> dict[str, Any]:
    terms: dict[str, int | None] = {
        "start": (FIRST + 16) * DAY, "end": (FIRST + 33) * DAY, "label_delay": DELAY * DAY, **changes
    }  # fmt: skip
    return report(result, **terms)


def test_the_weeks_are_those_of_the_protocol() -> None:
    """Every figure of every model and week equals the protocol's, and their mean is the mean."""
    result = scored(1)
    found = document(result)
    assert [week["from"][:10] for week in found["weeks"]] == ["2018-08-17", "2018-08-24"]
    for model in found["models"]:
        expected = [by_the_book(result, model["name"], FIRST + 16 + 7 * week) for week in range(2)]
        assert [week["rows"] for week in found["weeks"]] == [week.pop("rows") for week in expected]
        for name in expected[0]:
            for week, truth in zip(model["weeks"], expected, strict=True):
                assert week[name]["value"] == pytest.approx(truth[name], abs=1e-6)
                assert week[name]["low"] < truth[name] < week[name]["high"]
            mean = model["mean_of_weeks"][name]
            assert mean["value"] == pytest.approx(np.mean([week[name] for week in expected]), abs=1e-6)
            # Two weeks say more than one.
            assert mean["high"] - mean["low"] < max(w[name]["high"] - w[name]["low"] for w in model["weeks"])


def test_known_cards_count_while_labels_never_come() -> None:
    """Without labels no card is known to be compromised; a delay is rounded up to days."""
    result = scored(2)
    rows = [document(result, label_delay=delay)["weeks"][0]["rows"] for delay in (None, 7 * DAY)]
    assert rows[0] > rows[1]
    assert document(result, label_delay=7 * DAY - 5)["weeks"] == document(result)["weeks"]


def test_a_history_shorter_than_a_week_is_one_fold() -> None:
    """There is always something to read, and nothing before the start or after the end in it."""
    result = scored(3)
    terms = result.event_time, result.card.astype(np.int64), result.fraud
    start, end = (FIRST + 2) * DAY + 5, (FIRST + 6) * DAY
    (fold,) = folds(*terms, start, end, None)
    times = result.event_time[fold.rows]
    assert len(times) == ((result.event_time >= start) & (result.event_time < end)).sum()
    assert folds(np.zeros(0, np.int64), np.zeros(0, np.int64), np.zeros(0, bool), None, None, None) == []
    assert [fold.end - fold.first for fold in folds(*terms, None, None, None)] == [7] * (DAYS // 7)


def test_a_shadow_is_compared_with_the_champion_on_the_same_draws() -> None:
    """A shadow that scores as the champion differs by nothing at all; another one by the difference."""
    result = scored(4)
    same = replace(result, scores={"one": result.scores["one"], "other": result.scores["one"]})
    nothing = {"value": 0.0, "low": 0.0, "high": 0.0}
    assert set(map(str, document(same)["models"][1]["minus_champion"].values())) == {str(nothing)}
    first, second = document(result)["models"]
    assert "minus_champion" not in first
    for name, figure in second["minus_champion"].items():
        difference = second["mean_of_weeks"][name]["value"] - first["mean_of_weeks"][name]["value"]
        assert figure["value"] == pytest.approx(difference, abs=2e-6)
    assert second["minus_champion"]["auc_roc"]["high"] < 0


def test_rows_that_only_one_of_two_has_scored_make_no_difference() -> None:
    """A shadow that scores as the champion and leaves out frauds, or a whole week, differs by nothing; the
    difference of another one is that of a history without those rows.
    """
    result, random = scored(4), np.random.default_rng(4)
    gaps = (random.random(len(result.fraud)) < 0.3) | (
        result.fraud & (random.random(len(result.fraud)) < 0.8)
    )
    first_week = result.event_time < (FIRST + 23) * DAY
    for missing in (gaps, first_week, gaps | first_week):
        scores = np.where(missing, np.nan, result.scores["one"])
        found = document(replace(result, scores={"one": result.scores["one"], "other": scores}))["models"][1]
        assert {tuple(each.values()) for each in found["minus_champion"].values()} == {(0.0, 0.0, 0.0)}
    one, other = result.scores["one"], np.where(gaps, np.nan, result.scores["other"])
    difference = document(replace(result, scores={"one": one, "other": other}))["models"][1]["minus_champion"]
    both = {"one": np.where(gaps, np.nan, one), "other": other}
    assert difference == document(replace(result, scores=both))["models"][1]["minus_champion"]
    swapped = document(replace(result, scores={"other": other, "one": one}))["models"][1]["minus_champion"]
    assert swapped["auc_roc"]["value"] == -difference["auc_roc"]["value"]
    nowhere = np.full(len(one), np.nan)
    empty = document(replace(result, scores={"one": one, "other": nowhere}))
    assert empty["models"][1]["minus_champion"] == {}
    show(empty)


def test_the_report_is_the_same_to_the_digit() -> None:
    """Again, and with the rows in another order: no draw depends on anything but cards."""
    result = scored(5)
    assert REPLICATES >= 1000
    turned = replace(
        result,
        **{name: getattr(result, name)[::-1] for name in ("card", "event_time", "fraud")},
        scores={name: scores[::-1] for name, scores in result.scores.items()},
        transaction_id=result.transaction_id[::-1],
    )
    assert document(result) == document(result) == document(turned)


def test_the_report_for_people_has_every_week_and_interval(capsys: pytest.CaptureFixture[str]) -> None:
    """The figures of the JSON are in the tables, with their ends."""
    found = document(scored(6))
    show(found)
    printed = " ".join(capsys.readouterr().out.split())
    week = found["models"][1]["weeks"][1]
    assert rfc3339((FIRST + 23) * DAY)[:10] in printed
    for figure in (week["auc_roc"], found["models"][0]["mean_of_weeks"]["average_precision"]):
        low, high = (f"{figure[end]:.3f}"[1:] for end in ("low", "high"))
        assert f"{figure['value']:.3f} {low}–{high}" in printed
