from __future__ import annotations

import pytest

from tests.monitoring.promql import metric_names


@pytest.mark.parametrize(
    ("expression", "names"),
    [
        ('up{job="fraudstream"} == 0', {"up"}),
        ("sum by (job, topic) (rate(fraud_a_total[5m])) > 3e2", {"fraud_a_total"}),
        ('histogram_quantile(0.99, sum by (le) (rate(fraud_b_seconds_bucket{le=~"a}b"}[$__rate_interval])))',
         {"fraud_b_seconds"}),
        ("job:fraud_c:rate5m unless on (job) fraud_d offset 1d > 2 * fraud_e_seconds_sum",
         {"job:fraud_c:rate5m", "fraud_d", "fraud_e_seconds"}),
        ("process_start_time_seconds * on (job) group_left (version) fraud_build_info",
         {"process_start_time_seconds", "fraud_build_info"}),
        ("count(ALERTS) or vector(0)", {"ALERTS"}),
    ],
)  # fmt: skip
def test_names_are_found(expression: str, names: set[str]) -> None:
    """Functions, labels, durations, numbers and what stands in strings are no metrics."""
    assert metric_names(expression) == names
