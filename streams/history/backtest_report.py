"""What a backtest tells: quality by model over an evaluation window, and every score in a file."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq
from rich.console import Console
from rich.table import Table

from monitoring.quality import average_precision, calibration_error, card_precision, roc_auc
from streams.history.backtest import BacktestResult
from streams.times import DAY, rfc3339

K = 100


def report(result: BacktestResult, start: int | None, end: int | None) -> dict[str, Any]:
    """Counts, and by model AUC, average precision, CP@100, calibration over `start <= event_time < end`."""
    inside = np.ones(len(result.event_time), dtype=np.bool_)
    if start is not None:
        inside &= result.event_time >= start
    if end is not None:
        inside &= result.event_time < end
    truth, days = result.fraud[inside], result.event_time[inside] // DAY
    cards = result.card[inside].view(np.int64)
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
            }
            for position, (name, scores) in enumerate(result.scores.items())
        ],
        "drift": [each.record() for each in result.drift],
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
    console = Console()
    console.print(
        f"{document['scored']:,} of {document['transactions']:,} transactions scored "
        f"in {document['duration_s']} s ({document['transactions_per_s']:,}/s); "
        f"evaluated {document['evaluated']:,} with {document['frauds']:,} frauds, "
        f"{document['from']} to {document['to']}",
        soft_wrap=True,
    )
    table = Table("role", "model", "version", "learned", "AUC ROC", "AP", f"CP@{K}", "ECE")
    for model in document["models"]:
        figures = [model[name] for name in ("auc_roc", "average_precision", f"cp@{K}", "calibration_error")]
        table.add_row(
            model["role"], model["name"], str(model["version"]), f"{model['learned']:,}",
            *("–" if value is None else f"{value:.3f}" for value in figures),
        )  # fmt: skip
    console.print(table)
    console.print(f"feature digest {document['feature_digest']}")


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
