"""The drift benchmark: what it changes in the history, what it freezes, and what it says without data."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from benchmarks.drift import changed, frozen_after, known_before_change, losses, prequential
from models.learners.logistic import LogisticLearner


def history(path: Path) -> Path:
    """One row for each case of the change."""
    rows = [
        # id, time, amount, scenario, fraud before, fraud after
        (10, "2018-06-30T23:59", 90.0, 2, 1, 1),  # compromised, before the change
        (11, "2018-07-01T00:00", 90.0, 2, 1, 0),  # compromised, from then on
        (12, "2018-07-01T00:00", 300.0, 1, 1, 1),  # another scenario
        (13, "2018-07-01T06:59", 4.99, 0, 0, 1),  # small at night
        (14, "2018-07-01T07:00", 4.99, 0, 0, 0),  # by day
        (15, "2018-07-01T03:00", 5.0, 0, 0, 0),  # not small
        (18, "2018-07-01T03:00", 1.0, 0, 0, 0),  # spared by its id
        (19, "2018-06-01T03:00", 1.0, 0, 0, 0),  # small at night, before the change
    ]
    names = ("TRANSACTION_ID", "TX_DATETIME", "TX_AMOUNT", "TX_FRAUD_SCENARIO", "TX_FRAUD", "expected")
    columns: dict[str, Any] = {name: [row[i] for row in rows] for i, name in enumerate(names)}
    columns["TX_DATETIME"] = np.array(columns["TX_DATETIME"], "datetime64[ms]")
    table = pa.table(columns).cast(
        pa.schema(
            [
                ("TRANSACTION_ID", pa.int32()),
                ("TX_DATETIME", pa.timestamp("ms")),
                ("TX_AMOUNT", pa.float64()),
                ("TX_FRAUD_SCENARIO", pa.int8()),
                ("TX_FRAUD", pa.int8()),
                ("expected", pa.int8()),
            ]
        )
    )
    pq.write_table(table, path)
    return path


def test_the_frauds_change_as_described(tmp_path: Path) -> None:
    """From the date on: no more compromised terminals, small payments at night instead."""
    table = changed([history(tmp_path / "history.parquet")])
    assert table["TX_FRAUD"].to_pylist() == table["expected"].to_pylist()


def test_the_frozen_learner_knows_what_was_in_effect_at_the_change(tmp_path: Path) -> None:
    """Outcomes of a week before the change and earlier, and it learns no more than it is told."""
    table = changed([history(tmp_path / "history.parquet")])
    at_once, later = (known_before_change(table, np.timedelta64(hours, "h")) for hours in (0, 12))
    assert at_once - later == 1  # the fraud a minute before the change, which sampling keeps
    learner = frozen_after(3)(["a"])
    for _ in range(5):
        learner.learn(np.zeros(1), True)
    assert learner.n_learned == 3


def test_rows_are_scored_before_they_are_learned() -> None:
    """The first probability is that of a learner that knows nothing; a frozen one stays where it was."""
    x, truth = np.ones((50, 1)), np.ones(50, np.bool_)
    p = prequential(LogisticLearner(["a"], learning_rate=0.1), x, truth)
    assert p[0] == LogisticLearner(["a"]).score(x[0])
    assert (np.diff(p) > 0).all()
    frozen = prequential(LogisticLearner(["a"], learning_rate=0.1), x, truth, frozen_at=20)
    np.testing.assert_array_equal(frozen[:21], p[:21])
    assert len(set(frozen[20:])) == 1
    np.testing.assert_allclose(losses(np.array([0.5, 0.0]), np.array([True, True])), [np.log(2), 7.0])


def test_absent_data_are_named(tmp_path: Path) -> None:
    """Without data the benchmark says what is missing and exits 0."""
    command = [sys.executable, "-m", "benchmarks.drift", "--json", "--shared", str(tmp_path)]
    ran = subprocess.run(command, capture_output=True, text=True, check=True)
    found = json.loads(ran.stdout)
    assert all("absent: no" in found[name] for name in ("sea", "elec2", "handbook"))
