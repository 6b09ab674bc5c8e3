"""Learners after concept drift: `python -m benchmarks.drift --json`.

Three forms of a learner see the same outcomes: `frozen` stops learning before the change, `plain` goes on as
River has it, `drift_aware` is watched and replaced (`models/learners/drift_aware.py`).

SEA (50,000 rows, another concept from 12,500, 25,000 and 37,500 on) and Elec2 (45,312 rows, drift nobody has
dated) are taken prequentially: every row is scored, then learned. The Handbook's history goes through the
backtest with labels seven days late and one genuine outcome in ten learned, after it was changed from 1 July
2018 on: frauds at compromised terminals (scenario 2, 54 a day) are genuine from then on, and in their place
payments below 5.00 between 0:00 and 6:59 whose transaction id ends in 0 to 7 are frauds (50 a day). The data
lie beside the project, in ../shared; what is not there is reported as absent.
"""

from __future__ import annotations

import math
import tempfile
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from benchmarks import harness
from models.learners.base import Learner
from models.learners.binned import BinnedLearner
from models.learners.drift_aware import DriftAwareLearner
from models.learners.drift_detectors import LOSS_CAP
from models.learners.registry import LEARNERS
from models.sampling import keep_mask
from monitoring.quality import average_precision
from streams.feature_settings import feature_spec
from streams.history.backtest import Backtest, BacktestResult
from streams.history.reading import read_history
from streams.sections import Drift, Models, Slot
from streams.settings import load
from streams.stages.rows import hashes
from streams.times import DAY

Floats = npt.NDArray[np.float64]
Bools = npt.NDArray[np.bool_]

SHARED = Path(__file__).resolve().parent.parent.parent / "shared"
KINDS = ("binned_logistic", "hoeffding_tree")
CHANGE = np.datetime64("2018-07-01T00:00:00.000")
KEEP_ONE_IN = 10
SPAN = 2_500
"""Rows after a change over which its cost is counted."""


def losses(p: Floats, truth: Bools) -> Floats:
    """Log loss of each row, nats, at most `LOSS_CAP`."""
    given = np.where(truth, p, 1.0 - p)
    result: Floats = np.minimum(-np.log(np.maximum(given, math.exp(-2 * LOSS_CAP))), LOSS_CAP)
    return result


def prequential(learner: Learner, x: Floats, truth: Bools, frozen_at: int | None = None) -> Floats:
    """The probability given to each row before it was learned; from `frozen_at` on nothing is learned."""
    p = np.empty(len(x))
    for row, (values, fraud) in enumerate(zip(x, truth.tolist(), strict=True)):
        p[row] = learner.score(values)
        if frozen_at is None or row < frozen_at:
            learner.learn(values, fraud)
    return p


def drift_stream(path: Path, changes: Sequence[int], frozen_at: int) -> dict[str, Any]:
    """All forms of every kind over one file whose last column is the truth and whose others are features."""
    table = pq.read_table(path)
    names = [name for name in table.column_names[:-1] if name != "date"]
    x = np.column_stack([table[name].to_numpy().astype(np.float64) for name in names])
    truth = table[table.column_names[-1]].to_numpy() == 1
    found: dict[str, Any] = {"rows": len(x), "frozen_at": frozen_at, "changes": list(changes)}
    for kind in KINDS:
        make = partial(LEARNERS[kind], names, 1)
        aware = DriftAwareLearner(make)
        forms: dict[str, Callable[[], Floats]] = {
            "frozen": partial(prequential, make(), x, truth, frozen_at),
            "plain": partial(prequential, make(), x, truth),
            "drift_aware": partial(prequential, aware, x, truth),
        }
        found[kind] = {form: stream_figures(run, truth, changes, frozen_at) for form, run in forms.items()}
        alarms = [each.n_learned for each in aware.take_events() if each.what == "drift"]
        found[kind]["drift_aware"] |= aware.figures()
        found[kind]["drift_aware"]["rows_until_alarm"] = [
            next((row - at for row in alarms if row > at), None) for at in changes
        ]
    return found


def stream_figures(
    run: Callable[[], Floats], truth: Bools, changes: Sequence[int], frozen_at: int
) -> dict[str, Any]:
    """Mean log loss and error rate from `frozen_at` on, and over the `SPAN` rows after each change."""
    begun = time.process_time()
    p = run()
    seconds = time.process_time() - begun
    loss, wrong = losses(p, truth), (p >= 0.5) != truth
    return {
        "log_loss": round(float(loss[frozen_at:].mean()), 4),
        "error_rate": round(float(wrong[frozen_at:].mean()), 4),
        "log_loss_after_change": [round(float(loss[at : at + SPAN].mean()), 4) for at in changes],
        "error_rate_after_change": [round(float(wrong[at : at + SPAN].mean()), 4) for at in changes],
        "cpu_seconds": round(seconds, 1),
    }


def changed(files: Sequence[Path]) -> pa.Table:
    """The Handbook's history with other frauds from `CHANGE` on; see the module."""
    table = pa.concat_tables([pq.read_table(file) for file in files])
    late = pc.greater_equal(table["TX_DATETIME"], pa.scalar(CHANGE))
    compromised = pc.equal(table["TX_FRAUD_SCENARIO"], 2)
    small = pc.and_(pc.less(table["TX_AMOUNT"], 5.0), pc.less(pc.hour(table["TX_DATETIME"]), 7))
    chosen = pa.array(table["TRANSACTION_ID"].to_numpy() % 10 < 8)
    ended, begun = pc.and_(late, compromised), pc.and_(late, pc.and_(small, chosen))
    zero, one = (pa.scalar(value, table["TX_FRAUD"].type) for value in (0, 1))
    fraud = pc.if_else(begun, one, pc.if_else(ended, zero, table["TX_FRAUD"]))
    return table.set_column(table.column_names.index("TX_FRAUD"), "TX_FRAUD", fraud)


def frozen_after(outcomes: int) -> type[Learner]:
    """The binned learner that learns so many outcomes and no more."""

    class Frozen(BinnedLearner):
        kind = "frozen"

        def learn(self, x: Floats, fraud: bool, weight: float = 1.0) -> None:
            if self.n_learned < outcomes:
                super().learn(x, fraud, weight)

    return Frozen


def known_before_change(table: pa.Table, delay: np.timedelta64) -> int:
    """Sampled outcomes in effect at the change."""
    old = table.filter(pc.less(table["TX_DATETIME"], pa.scalar(CHANGE - delay)))
    ids = hashes([str(one) for one in old["TRANSACTION_ID"].to_pylist()])
    return int(keep_mask(ids, old["TX_FRAUD"].to_numpy() == 1, KEEP_ONE_IN).sum())


def handbook(files: Sequence[Path]) -> dict[str, Any]:
    """The three forms of the binned learner over the changed history."""
    table = changed(files)
    LEARNERS["frozen"] = frozen_after(known_before_change(table, np.timedelta64(7, "D")))
    rate = 1 / KEEP_ONE_IN
    models = Models(
        champion=Slot(name="plain", kind="binned_logistic", negative_rate=rate),
        shadows=(
            Slot(name="frozen", kind="frozen", negative_rate=rate),
            Slot(name="drift-aware", kind="binned_logistic", negative_rate=rate, drift=Drift()),
        ),
    )
    settings = load(environ={}).model_copy(update={"models": models})
    with tempfile.TemporaryDirectory(prefix="bench-") as folder:
        path = Path(folder) / "changed.parquet"
        pq.write_table(table, path)
        backtest = Backtest(settings, feature_spec(settings), label_delay=7 * DAY)
        result = backtest.run(read_history([path], "handbook"))
    found = {name: history_figures(result, name) for name in ("frozen", "plain", "drift-aware")}
    return {
        "change": str(CHANGE)[:10],
        "keep_one_in": KEEP_ONE_IN,
        "seconds": round(result.duration_s, 1),
        **found,
        "events": [each.record() for each in result.drift],
    }


def history_figures(result: BacktestResult, name: str) -> dict[str, Any]:
    """From the change on: mean log loss, average precision of each whole week, days until recovery.

    Recovered is the first day from which seven days have an average precision of 0.9 times what the plain
    learner has over the last four weeks; None for never.
    """
    day = (result.event_time - CHANGE.astype(np.int64)) // DAY
    last = int(day.max())

    def precision(model: str, first: int, end: int) -> float:
        inside = (day >= first) & (day < end)
        return average_precision(result.fraud[inside], result.scores[model][inside])

    target = 0.9 * precision("plain", last - 28, last)
    recovered = (d for d in range(last - 7) if precision(name, d, d + 7) >= target)
    late = day >= 0
    return {
        "log_loss": round(float(losses(result.scores[name][late], result.fraud[late]).mean()), 5),
        "average_precision": round(precision(name, 0, last), 4),
        "average_precision_by_week": [round(precision(name, d, d + 7), 3) for d in range(0, last - 6, 7)],
        "average_precision_week_before": round(precision(name, -7, 0), 3),
        "recovered_on_day": next(recovered, None),
    }


def main() -> int:
    """Entry point."""
    parser = harness.parser(__doc__)
    parser.add_argument("--shared", type=Path, default=SHARED, help="folder with data/")
    options = parser.parse_args()

    load_before, data = harness.machine(), options.shared / "data"
    begun = time.monotonic()
    result: dict[str, object] = {"benchmark": "drift", "machine": load_before}
    for name, changes, frozen_at in (("sea", (12_500, 25_000, 37_500), 12_500), ("elec2", (), 9_000)):
        path = data / f"{name}.parquet"
        result[name] = drift_stream(path, changes, frozen_at) if path.exists() else f"absent: no {path}"
    files = sorted(data.glob("handbook-2018-*.parquet"))
    result["handbook"] = handbook(files) if files else f"absent: no handbook-2018-*.parquet in {data}"
    result["seconds"] = round(time.monotonic() - begun, 1)
    harness.emit(result, options.json)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
