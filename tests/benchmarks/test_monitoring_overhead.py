"""The overhead benchmark: what it compares, when everything is read, and what it makes of the runs."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks import fraudstream
from benchmarks.harness import Measurement, Run
from benchmarks.monitoring_overhead import VARIANTS, nothing_lags, overhead
from benchmarks.workload import Workload


def run(rate: float, cpu: float) -> Measurement:
    return Measurement(10, 1.0, rate, 1000 / cpu, cpu, 1.0, 1.0, True)


def test_the_variants_differ_in_observing_and_in_scrapes_alone(tmp_path: Path) -> None:
    """The command of the throughput benchmark, with one more stage in the last variant."""
    place = Run("localhost:1", 4, tmp_path, Workload(10))
    plain = fraudstream.command(place)
    scoring, scraped, observed = (one.command(place) for one in VARIANTS)
    assert scoring == scraped == plain
    assert [word for word in observed if word not in plain] == ["card,score,observe"]
    assert len(observed) == len(plain)
    assert [one.beside is not None for one in VARIANTS] == [False, True, True]
    assert {one.prepare for one in VARIANTS} == {fraudstream.prepare}


def test_everything_is_read_when_no_partition_lags() -> None:
    """A worker that has no partition yet has not read everything."""
    line = 'fraud_consumer_lag_messages{{partition="{}",topic="t"}} {}\n'
    assert nothing_lags(line.format(0, "0.0") + line.format(1, "0.0"))
    assert not nothing_lags(line.format(0, "0.0") + line.format(1, "3.0"))
    assert not nothing_lags("fraud_alerts_total 0.0\n")


def test_overhead_is_that_of_the_runs_of_a_round() -> None:
    """Throughput lost and CPU added, as shares of the plain run beside which each was made."""
    found = overhead([run(100, 0.02), run(50, 0.02)], [run(90, 0.03), run(60, 0.02)])
    assert found["tx_per_second_lost"] == pytest.approx({"median": -0.05, "min": -0.2, "max": 0.1})
    assert found["cpu_added"] == pytest.approx({"median": 0.25, "min": 0.0, "max": 0.5})
