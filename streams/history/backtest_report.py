"""What a backtest tells: quality by model over a window and by week, and every score in a file."""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq
from rich import box
from rich.console import Console
from rich.table import Table

from monitoring import bootstrap
from monitoring.bootstrap import Estimates
from monitoring.quality import average_precision, calibration_error, card_precision, roc_auc
from streams.history.backtest import BacktestResult
from streams.history.folds import Fold, folds
from streams.times import DAY, rfc3339

K = 100
FIGURES = ("auc_roc", "average_precision", f"cp@{K}")


def report(
    result: BacktestResult, start: int | None, end: int | None, label_delay: int | None
) -> dict[str, Any]:
    """Counts; by model AUC, average precision, CP@100 and calibration over `start <= event_time < end`, and
    the first three by week (`folds.py`), as the mean of the weeks, and of shadows as the difference from the
    champion over the rows that both have scored, with intervals (`monitoring/bootstrap.py`).
    """
    inside = np.ones(len(result.event_time), dtype=np.bool_)
    if start is not None:
        inside &= result.event_time >= start
    if end is not None:
        inside &= result.event_time < end
    truth, days = result.fraud[inside], result.event_time[inside] // DAY
    cards = result.card[inside].view(np.int64)
    weeks = folds(result.event_time, result.card.view(np.int64), result.fraud, start, end, label_delay)
    estimates = {
        name: [_estimates(result, scores, week) for week in weeks] for name, scores in result.scores.items()
    }
    champion = next(iter(result.scores))

    def difference(name: str) -> dict[str, Estimates]:
        return _difference(result, weeks, estimates, name, champion)

    return {
        **result.counts,
        "evaluated": int(inside.sum()),
        "frauds": int(truth.sum()),
        "from": rfc3339(int(result.event_time[inside].min())) if inside.any() else None,
        "to": rfc3339(int(result.event_time[inside].max())) if inside.any() else None,
        "feature_digest": result.feature_digest,
        "duration_s": round(result.duration_s, 2),
        "transactions_per_s": round(result.counts["scored"] / max(result.duration_s, 1e-9)),
        "models": [
            {
                "role": "shadow" if position else "champion",
                "name": name,
                "version": result.versions[name],
                "learned": result.learned[name],
                **_quality(truth, scores[inside], cards, days),
                "weeks": [_figures(each) for each in estimates[name]],
                "mean_of_weeks": _figures(_means(estimates[name])),
                **({"minus_champion": _figures(difference(name))} if position else {}),
            }
            for position, (name, scores) in enumerate(result.scores.items())
        ],
        "weeks": [
            {
                "from": rfc3339(week.first * DAY),
                "to": rfc3339(week.end * DAY),
                "rows": len(week.rows),
                "frauds": int(result.fraud[week.rows].sum()),
            }
            for week in weeks
        ],
        "confidence": bootstrap.CONFIDENCE,
        "drift": [each.record() for each in result.drift],
    }


def _estimates(result: BacktestResult, scores: npt.NDArray[np.float64], week: Fold) -> dict[str, Estimates]:
    rows = week.rows[np.isfinite(scores[week.rows])]
    truth, score, card = result.fraud[rows], scores[rows], result.card[rows].view(np.int64)
    ranks = bootstrap.ranking(card, truth, score)
    found = bootstrap.card_precision(card, result.event_time[rows] // DAY, truth, score, K)
    return dict(zip(FIGURES, (*ranks, found), strict=True))


def _means(weeks: list[dict[str, Estimates]]) -> dict[str, Estimates]:
    return {name: bootstrap.mean([week[name] for week in weeks]) for name in FIGURES if weeks}


def _difference(
    result: BacktestResult,
    weeks: list[Fold],
    estimates: dict[str, list[dict[str, Estimates]]],
    shadow: str,
    champion: str,
) -> dict[str, Estimates]:
    """Mean over the weeks of the shadow's figures minus those of the champion, on the rows that both have
    scored: none is better for having left out the hard ones. Weeks without such rows do not count.
    """
    known = {name: np.isfinite(result.scores[name]) for name in (shadow, champion)}
    both = known[shadow] & known[champion]

    def means(name: str) -> dict[str, Estimates]:
        found = []
        for week, whole in zip(weeks, estimates[name], strict=True):
            shared = week.rows[both[week.rows]]
            if len(shared) == known[name][week.rows].sum() > 0:
                found.append(whole)
            elif len(shared):
                found.append(_estimates(result, result.scores[name], replace(week, rows=shared)))
        return _means(found)

    ours, theirs = means(shadow), means(champion)
    return {name: ours[name] - theirs[name] for name in ours}


def _figures(estimates: dict[str, Estimates]) -> dict[str, dict[str, float | None]]:
    return {
        name: {
            key: None if np.isnan(value) else round(value, 6)
            for key, value in zip(("value", "low", "high"), (each.value, *each.interval), strict=True)
        }
        for name, each in estimates.items()
    }


def _quality(
    truth: npt.NDArray[np.bool_],
    scores: npt.NDArray[np.float64],
    cards: npt.NDArray[np.int64],
    days: npt.NDArray[np.int64],
) -> dict[str, float | None]:
    known = np.isfinite(scores)
    truth, scores, cards, days = truth[known], scores[known], cards[known], days[known]
    figures = {
        "auc_roc": roc_auc(truth, scores),
        "average_precision": average_precision(truth, scores),
        f"cp@{K}": card_precision(cards, days, truth, scores, K) if len(truth) else float("nan"),
        "calibration_error": calibration_error(truth, scores),
    }
    return {name: None if np.isnan(value) else round(float(value), 6) for name, value in figures.items()}


def show(document: dict[str, Any]) -> None:
    """The report for people."""
    # What reads a pipe folds by itself.
    console = Console(file=sys.stdout, width=None if sys.stdout.isatty() else 2_000)
    console.print(
        f"{document['scored']:,} of {document['transactions']:,} transactions scored "
        f"in {document['duration_s']} s ({document['transactions_per_s']:,}/s); "
        f"evaluated {document['evaluated']:,} with {document['frauds']:,} frauds, "
        f"{document['from']} to {document['to']}",
        soft_wrap=True,
    )
    table = Table("role", "model", "version", "learned", "AUC ROC", "AP", f"CP@{K}", "ECE")
    for model in document["models"]:
        figures = [model[name] for name in (*FIGURES, "calibration_error")]
        table.add_row(
            model["role"], model["name"], str(model["version"]), f"{model['learned']:,}",
            *("–" if value is None else f"{value:.3f}" for value in figures[:3]),
            "–" if figures[3] is None else f"{figures[3]:.4f}",
        )  # fmt: skip
    console.print(table)
    _show_weeks(console, document)
    console.print(f"feature digest {document['feature_digest']}")


def _show_weeks(console: Console, document: dict[str, Any]) -> None:
    models, weeks = document["models"], document["weeks"]
    about = f"{document['confidence']:.0%} intervals; cards with a known fraud left out"
    table = Table("week from", "model", "AUC ROC", "AP", f"CP@{K}", title=about, box=box.SIMPLE)

    def row(when: str, name: str, figures: dict[str, Any]) -> None:
        table.add_row(when, name, *(_interval(figures.get(each)) for each in FIGURES))

    for position, week in enumerate(weeks):
        for model in models:
            row(week["from"][:10] if model is models[0] else "", model["name"], model["weeks"][position])
    table.add_section()
    for model in models:
        row(f"mean of {len(weeks)}" if model is models[0] else "", model["name"], model["mean_of_weeks"])
    for model in models[1:]:
        row("difference", f"{model['name']} − {models[0]['name']}", model["minus_champion"])
    console.print(table)


def _interval(figure: dict[str, float | None] | None) -> str:
    """As `0.730 .712–.748`."""
    if figure is None or figure["value"] is None:
        return "–"
    ends = [f"{figure[end]:.3f}".replace("0.", ".", 1) for end in ("low", "high") if figure[end] is not None]
    return " ".join([f"{figure['value']:.3f}", *(["–".join(ends)] if ends else [])])


def write_scores(result: BacktestResult, path: Path, id_column: str) -> None:
    """All scores as Parquet: the id as the history names it, event time, truth, `score`, `score_<shadow>`."""
    identifiers = result.transaction_id
    numeric = all(
        each.isdigit() and (each == "0" or each[0] != "0") and len(each) < 19 for each in identifiers
    )
    columns: dict[str, Any] = {
        id_column: [int(each) for each in identifiers] if numeric else identifiers,
        "event_time": pa.array(result.event_time, pa.timestamp("ms", "UTC")),
        "fraud": result.fraud,
    }
    for position, (name, scores) in enumerate(result.scores.items()):
        columns["score" if position == 0 else f"score_{name}"] = scores
    pq.write_table(pa.table(columns), path)
