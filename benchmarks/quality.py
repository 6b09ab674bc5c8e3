"""Quality on the Handbook's history, labels exactly seven days late: `python -m benchmarks.quality --json`.

Runs `fraudstream backtest` over the whole history and lets the judge, which shares no code with the
project, score the four weekly folds from 2018-08-08. The data and the judge lie beside the project, in
../shared; without them the answer is {"absent": …}.
"""

from __future__ import annotations

import argparse
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

SHARED = Path(__file__).resolve().parent.parent.parent / "shared"
FOLDS = tuple(datetime.date(2018, 8, 8) + datetime.timedelta(weeks=week) for week in range(4))
FIGURES = ("auc_roc", "average_precision", "cp@100")


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


def main() -> int:
    """Entry point."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--shared", type=Path, default=SHARED, help="folder with data/ and evaluate.py")
    parser.add_argument("--label-delay", default="7d")
    parser.add_argument(
        "--analysts", type=int, default=0, help="alerts investigated a day, truth a day later"
    )
    parser.add_argument("--config", type=Path, default=None)
    options = parser.parse_args()

    load, data, script = harness.machine(), options.shared / "data", options.shared / "evaluate.py"
    files = sorted(data.glob("handbook-2018-*.parquet"))
    if not files or not script.exists():
        missing = f"no handbook-2018-*.parquet in {data}" if not files else f"no judge at {script}"
        harness.emit({"benchmark": "quality", "absent": missing}, options.json)
        return 0
    with tempfile.TemporaryDirectory(prefix="bench-") as folder:
        scores = Path(folder) / "scores.parquet"
        command = [*fraudstream.command_line(), "backtest", *map(str, files), "--mapping", "handbook"]
        command += ["--label-delay", options.label_delay, "--scores", str(scores), "--json"]
        command += ["--analysts", str(options.analysts)]
        if options.config is not None:
            command += ["--config", str(options.config)]
        begun = time.monotonic()
        ran = subprocess.run(command, stdout=subprocess.PIPE, text=True, cwd=fraudstream.ROOT)
        if ran.returncode:
            raise SystemExit(f"backtest ended with {ran.returncode}")
        seconds = time.monotonic() - begun
        judged = {}
        for role, path in for_judge(scores, Path(folder)).items():
            folds = [judge(script, data, path, start) for start in FOLDS]
            by_fold = {
                str(start): {name: one[name] for name in FIGURES}
                for start, one in zip(FOLDS, folds, strict=True)
            }
            judged[role] = {"mean": means(folds), "folds": by_fold}
    result: dict[str, object] = {
        "benchmark": "quality",
        "machine": load,
        "label_delay": options.label_delay,
        "analysts": options.analysts,
        "backtest_seconds": round(seconds, 1),
        "backtest": json.loads(ran.stdout),
        "judged": judged,
    }
    harness.emit(result, options.json)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
