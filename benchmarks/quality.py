"""Quality on the Handbook's history, labels exactly seven days late: `python -m benchmarks.quality --json`.

Runs `fraudstream backtest` over the history up to the end of four weekly folds, from 2018-08-08 on unless
told otherwise, and lets the judge, which shares no code with the project, score them; `agrees` says whether
the backtest's own figures for these weeks are the judge's: they are, but for CP@100 where cards tie, for each
orders them by numbers of its own. The table has the published batch models beside those measured. The data
and the judge lie beside the project, in ../shared; without them the answer is {"absent": …}.
"""

from __future__ import annotations

import datetime
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import cast

import pyarrow as pa
import pyarrow.parquet as pq

from benchmarks import fraudstream, harness

#: Model, AUC, AP, CP@100, expected calibration error.
Row = tuple[str, float, float, float, float | None]

SHARED = Path(__file__).resolve().parent.parent.parent / "shared"
FIRST = datetime.date(2018, 8, 8)
WEEK = datetime.timedelta(weeks=1)
FIGURES = ("auc_roc", "average_precision", "cp@100")
#: Batch models refitted for each of the four weeks from FIRST: AUC, AP, CP@100 as the mean of the weeks (Le
#: Borgne et al.: Reproducible Machine Learning for Credit Card Fraud Detection, after model selection).
PUBLISHED = {
    "logistic regression": (0.868, 0.623, 0.297),
    "random forest": (0.870, 0.678, 0.299),
    "XGBoost": (0.869, 0.687, 0.303),
    "balanced bagging": (0.879, 0.680, 0.305),
    "feed-forward network": (0.876, 0.675, 0.303),
    "LSTM": (0.876, 0.665, 0.297),
}


def judge(judge_script: Path, data: Path, scores: Path, start: datetime.date) -> dict[str, object]:
    """The judge's verdict on one week; its training week begins two weeks before the test week."""
    train_start = start - datetime.timedelta(days=14)
    command = [sys.executable, str(judge_script), str(scores), "--data", str(data), "--start", str(start)]
    command += ["--train-start", str(train_start), "--json"]
    found = subprocess.run(command, capture_output=True, text=True)
    if found.returncode:
        raise SystemExit(f"the judge refused {scores.name} for {start}: {found.stderr.strip()}")
    return cast("dict[str, object]", json.loads(found.stdout))


def for_judge(scores: Path, folder: Path) -> dict[str, Path]:
    """One file for each model as the judge reads it; `score` is the champion's column, `score_<name>` a
    shadow's."""
    table = pq.read_table(scores)
    files = {}
    for column in table.column_names:
        if column == "score" or column.startswith("score_"):
            name = column.removeprefix("score_") if column != "score" else "champion"
            files[name] = folder / f"{name}.parquet"
            pq.write_table(
                pa.table({"TRANSACTION_ID": table["TRANSACTION_ID"], "score": table[column]}), files[name]
            )
    return files


def means(folds: list[dict[str, object]]) -> dict[str, float]:
    """Mean of each figure over the folds."""
    return {name: round(sum(cast("float", one[name]) for one in folds) / len(folds), 4) for name in FIGURES}


def agrees(weeks: list[dict[str, object]], own: list[dict[str, dict[str, float]]]) -> bool:
    """Whether the backtest's figures for the weeks are the judge's, to the six digits that it prints."""
    return len(weeks) == len(own) and all(
        abs(cast("float", week[name]) - figures[name]["value"]) <= 1e-6
        for week, figures in zip(weeks, own, strict=True)
        for name in FIGURES
    )


def rows(judged: dict[str, dict[str, float]], errors: dict[str, float], first: datetime.date) -> list[Row]:
    """Measured models, best average precision first, above the published ones of the same weeks."""
    measured: list[Row] = [
        (name, found["auc_roc"], found["average_precision"], found["cp@100"], errors[name])
        for name, found in judged.items()
    ]
    published: list[Row] = [(f"published: {name}", *figures, None) for name, figures in PUBLISHED.items()]
    both = (measured, published if first == FIRST else [])
    return [row for part in both for row in sorted(part, key=lambda row: -row[2])]


def show(table: list[Row]) -> str:
    """The table for people."""
    lines = [f"{'model':<34} {'AUC':>6} {'AP':>6} {'CP@100':>6} {'ECE':>7}"]
    for name, *figures, error in table:
        ece = "" if error is None else f"{error:.4f}"
        lines.append(f"{name:<34} " + " ".join(f"{figure:6.3f}" for figure in figures) + f" {ece:>7}")
    return "\n".join(lines)


def main() -> int:
    """Entry point."""
    parser = harness.parser(__doc__)
    parser.add_argument("--shared", type=Path, default=SHARED, help="folder with data/ and evaluate.py")
    parser.add_argument("--label-delay", default="7d")
    parser.add_argument(
        "--analysts", type=int, default=0, help="alerts investigated a day, truth a day later"
    )
    parser.add_argument("--config", type=Path, default=None)
    parser.add_argument(
        "--first",
        type=datetime.date.fromisoformat,
        default=FIRST,
        help="first day of the four weeks; what comes after them is not read",
    )
    options = parser.parse_args()

    load, data, script = harness.machine(), options.shared / "data", options.shared / "evaluate.py"
    files = sorted(data.glob("handbook-2018-*.parquet"))
    if not files or not script.exists():
        missing = f"no handbook-2018-*.parquet in {data}" if not files else f"no judge at {script}"
        harness.emit({"benchmark": "quality", "absent": missing}, options.json)
        return 0
    starts = [options.first + week * WEEK for week in range(4)]
    with tempfile.TemporaryDirectory(prefix="bench-") as folder:
        scores = Path(folder) / "scores.parquet"
        command = [*fraudstream.command_line(), "backtest", *map(str, files), "--mapping", "handbook"]
        command += ["--label-delay", options.label_delay, "--scores", str(scores), "--json"]
        command += ["--analysts", str(options.analysts)]
        command += ["--from", str(starts[0]), "--to", str(starts[-1] + WEEK)]
        if options.config is not None:
            command += ["--config", str(options.config)]
        begun = time.monotonic()
        ran = subprocess.run(command, stdout=subprocess.PIPE, text=True, cwd=fraudstream.ROOT)
        if ran.returncode:
            raise SystemExit(f"backtest ended with {ran.returncode}")
        seconds = time.monotonic() - begun
        backtest = json.loads(ran.stdout)
        names = {"champion": backtest["models"][0]["name"]}
        own = {model["name"]: model for model in backtest["models"]}
        judged: dict[str, object] = {}
        averages: dict[str, dict[str, float]] = {}
        agreed: dict[str, bool] = {}
        for role, path in for_judge(scores, Path(folder)).items():
            name = names.get(role, role)
            folds = [judge(script, data, path, start) for start in starts]
            by_fold = {
                str(start): {figure: one[figure] for figure in FIGURES}
                for start, one in zip(starts, folds, strict=True)
            }
            averages[name] = means(folds)
            judged[name] = {"mean": averages[name], "folds": by_fold}
            agreed[name] = agrees(folds, own[name]["weeks"])
    errors = {name: model["calibration_error"] for name, model in own.items()}
    table = rows(averages, errors, options.first)
    result: dict[str, object] = {
        "benchmark": "quality",
        "machine": load,
        "label_delay": options.label_delay,
        "analysts": options.analysts,
        "champion": names["champion"],
        "backtest_seconds": round(seconds, 1),
        "backtest": backtest,
        "judged": judged,
        "agrees": agreed,
        "table": [dict(zip(("model", *FIGURES, "calibration_error"), row, strict=True)) for row in table],
    }
    if not options.json:
        print(show(table))
    harness.emit(result, options.json)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
