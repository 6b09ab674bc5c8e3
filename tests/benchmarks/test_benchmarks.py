"""The benchmarks measure what they say; nothing here starts a broker or takes a timing."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from benchmarks import harness, stages, training
from benchmarks.contenders.work import DAY, CardWindows, window_features
from benchmarks.harness import Contender, ContenderFailed, Measurement
from benchmarks.kafka import partition_of
from benchmarks.workload import Workload, draw, messages, row_of
from models.spec import FeatureSpec


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


def test_the_stages_score_every_transaction_they_are_charged_for(monkeypatch: pytest.MonkeyPatch) -> None:
    """A short measurement goes through both stages, with a score for every row; costs are of rows counted."""
    little = training.train(FeatureSpec.default(), Workload(1_000, cards=50, terminals=50, stolen=0.05))
    monkeypatch.setattr(stages, "trained", lambda: little)
    found = stages.measure(rows=20, rounds=10, partitions=2, seed=3)
    assert set(found) == {
        "card_us_per_transaction", "score_us_per_transaction", "card_round_ms", "score_round_ms",
    }  # fmt: skip
    assert found["card_round_ms"] == pytest.approx(found["card_us_per_transaction"] * 20 / 1000, rel=0.05)
