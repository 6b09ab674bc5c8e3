"""The benchmarks measure what they say; nothing here starts a broker or takes a timing."""

from __future__ import annotations

import datetime
import json
import re
import subprocess
import sys
from pathlib import Path
from typing import cast

import numpy as np
import pytest

from benchmarks import harness, quality, stages, training
from benchmarks.contenders.work import DAY, CardWindows, window_features
from benchmarks.harness import Contender, ContenderFailed, Measurement
from benchmarks.kafka import partition_of
from benchmarks.workload import Workload, draw, messages, row_of
from models.spec import FeatureSpec

LEARNERS = Path(__file__).parents[2] / "docs" / "learners.md"
README = Path(__file__).parents[2] / "README.md"


def measurement(rate: float) -> Measurement:
    return Measurement(10, 1.0, rate, rate, 1.0, 1.0, 1.0, True)


def test_the_workload_is_a_function_of_its_seed() -> None:
    """Two draws with one seed publish the same bytes, another seed publishes others."""
    one, same, other = (messages(Workload(50, seed=seed)) for seed in (1, 1, 2))
    assert one == same
    assert one != other


def test_the_workload_is_in_event_order_and_numbered_by_row() -> None:
    """Event times never go back and a transaction id gives its row."""
    published = [json.loads(one.value) for one in messages(Workload(200))]
    assert np.all(np.diff(draw(Workload(200)).event_time) >= 0)
    assert [row_of(one["transaction_id"]) for one in published] == list(range(200))


def test_both_forms_of_the_peers_windows_agree() -> None:
    """The deque and the stored list give the same features over the same transactions."""
    rng = np.random.default_rng(3)
    times = np.cumsum(rng.integers(1, DAY, 200)).tolist()
    deque_form, history = CardWindows(), list[list[float]]()
    for time, amount in zip(times, rng.uniform(1, 100, 200).tolist(), strict=True):
        features, history = window_features(history, time, amount)
        assert deque_form.add(time, amount) == pytest.approx(features, rel=1e-9)


def test_seeding_uses_the_partitioner_of_kafka() -> None:
    """Keys land where the Java client puts them: values from Kafka's own murmur2 test."""
    assert partition_of(b"21", 1 << 31) == (-973932308) & 0x7FFFFFFF
    assert partition_of(b"foobar", 1 << 31) == (-790332482) & 0x7FFFFFFF


def test_an_absent_contender_is_reported_and_a_failing_one_left_out() -> None:
    """Neither disappears from the result, and the others are measured in every round."""
    order: list[str] = []

    def once(contender: Contender) -> Measurement:
        order.append(contender.name)
        if contender.name == "broken":
            raise ContenderFailed("broken: it ended")
        return measurement(float(len(order)))

    def contender(name: str, reason: str | None = None) -> Contender:
        return Contender(name, lambda _: [], lambda: reason)

    results = harness.interleaved(
        [contender("good"), contender("broken"), contender("missing", "not installed")], 2, once
    )
    assert results["missing"] == "absent: not installed"
    assert results["broken"] == "failed: broken: it ended"
    assert order == ["good", "broken", "good"]
    assert isinstance(results["good"], list)
    assert len(results["good"]) == 2


def test_figures_are_medians_with_extremes() -> None:
    """One slow round moves the smallest value and not the median."""
    found = harness.summary([measurement(rate) for rate in (10.0, 1.0, 11.0)])
    assert found["tx_per_second"] == {"median": 10.0, "min": 1.0, "max": 11.0}


def test_quality_says_when_the_history_is_not_there(tmp_path: Path) -> None:
    """Without data the benchmark names what is missing and exits 0."""
    command = [sys.executable, "-m", "benchmarks.quality", "--json", "--shared", str(tmp_path)]
    ran = subprocess.run(command, capture_output=True, text=True, check=True)
    assert "no handbook" in json.loads(ran.stdout)["absent"]


def test_measured_models_stand_above_the_published_ones() -> None:
    """Best first in both parts; the published figures are of other weeks when the weeks are others."""
    judged = {
        "weak": {"auc_roc": 0.8, "average_precision": 0.6, "cp@100": 0.2},
        "good": {"auc_roc": 0.9, "average_precision": 0.7, "cp@100": 0.3},
    }
    errors = {"weak": 0.01, "good": 0.0002}
    table = quality.rows(judged, errors, quality.FIRST)
    assert [row[0] for row in table][:3] == ["good", "weak", "published: XGBoost"]
    assert len(table) == 2 + len(quality.PUBLISHED)
    assert quality.rows(judged, errors, datetime.date(2018, 7, 4)) == table[:2]
    printed = quality.show(table).splitlines()
    assert printed[1].split() == ["good", "0.900", "0.700", "0.300", "0.0002"]
    assert printed[3].split()[-3:] == ["0.869", "0.687", "0.303"]


def test_the_backtest_is_held_to_the_judge() -> None:
    """Every figure of every week, to the last digit that is printed."""
    weeks: list[dict[str, object]] = [{"auc_roc": 0.8, "average_precision": 0.6, "cp@100": 0.2}] * 2
    own = [{name: {"value": cast("float", value)} for name, value in week.items()} for week in weeks]
    assert quality.agrees(weeks, own)
    assert not quality.agrees(weeks, own[:1])
    own[1]["cp@100"] = {"value": 0.201}
    assert not quality.agrees(weeks, own)


def test_the_documents_quote_the_best_published_figures() -> None:
    """The rows of batch models in docs/learners.md and the README have the best of each column."""
    auc, ap, cp = (max(column) for column in zip(*quality.PUBLISHED.values(), strict=True))
    assert f"best of each column | AP {ap:.3f}, CP@100 {cp:.3f}, AUC {auc:.3f} |" in README.read_text()
    (row,) = re.findall(r"^\| published batch models.*$", LEARNERS.read_text(), re.MULTILINE)
    assert [cell.strip() for cell in row.split("|")[2:5]] == [f"{ap:.3f}", f"{cp:.3f}", f"{auc:.3f}"]


def test_the_stages_score_every_transaction_they_are_charged_for(monkeypatch: pytest.MonkeyPatch) -> None:
    """A short measurement goes through both stages, with a score for every row; costs are of rows counted."""
    little = training.train(FeatureSpec.default(), Workload(1_000, cards=50, terminals=50, stolen=0.05))
    monkeypatch.setattr(stages, "trained", lambda: little)
    found = stages.measure(rows=20, rounds=10, partitions=2, seed=3)
    assert set(found) == {
        "card_us_per_transaction", "score_us_per_transaction", "card_round_ms", "score_round_ms",
    }  # fmt: skip
    assert found["card_round_ms"] == pytest.approx(found["card_us_per_transaction"] * 20 / 1000, rel=0.05)


def test_the_readme_and_the_document_quote_the_same_figures() -> None:
    """What the README says of a learner on the weeks of August is the row of the document."""
    readme, rows = README.read_text(), LEARNERS.read_text()
    figure = r"(0\.\d{3})(?: \([^)]*\))?"
    for kind in ("binned_logistic", "boosted_trees"):
        (quoted,) = re.findall(
            rf"^\| .*`{kind}`.*\| AP {figure}, CP@100 {figure}, AUC {figure} \|", readme, re.MULTILINE
        )
        assert any(row.startswith(f"| `{kind}`") and " | ".join(quoted) in row for row in rows.splitlines())
