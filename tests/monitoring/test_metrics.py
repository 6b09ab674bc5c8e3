from __future__ import annotations

import numpy as np
import pytest
from prometheus_client import CollectorRegistry, Histogram
from prometheus_client.parser import text_string_to_metric_families

from monitoring.families import Definition, Families, Gauge
from monitoring.metrics import METRICS, OUTCOMES, Metrics, bounded_source

CONTRACT = {
    "fraud_transactions_total": ("outcome",), "fraud_alerts_total": (), "fraud_score_duration_seconds": (),
    "fraud_end_to_end_seconds": (), "fraud_consumer_lag_messages": ("topic", "partition"),
    "fraud_model_info": ("role", "name", "version"), "fraud_model_updates_total": None,
    "fraud_labels_total": ("source", "result"), "fraud_label_delay_seconds": None,
    "fraud_feature_drift": ("feature", "measure"), "fraud_score_drift": ("role",),
    "fraud_drift_alarms_total": ("kind",), "fraud_alert_funnel_total": ("action",), "fraud_alert_ctr": (),
    "fraud_alert_precision": (), "fraud_average_precision": ("role",), "fraud_threshold": (),
    "fraud_unaccounted_transactions": (),
}  # fmt: skip


def samples(metrics: Metrics) -> dict[tuple[str, tuple[tuple[str, str], ...]], float]:
    families = text_string_to_metric_families(metrics.exposition().decode())
    return {(s.name, tuple(sorted(s.labels.items()))): s.value for family in families for s in family.samples}


@pytest.mark.parametrize("name", CONTRACT)
def test_contract_metric_is_defined(name: str) -> None:
    """Every metric promised to users is in the table with the promised labels."""
    (definition,) = [definition for definition in METRICS if definition.name == name]
    assert CONTRACT[name] is None or definition.labels == CONTRACT[name]


@pytest.mark.parametrize("definition", METRICS, ids=lambda definition: definition.name)
def test_definition_follows_the_naming_rules(definition: Definition) -> None:
    """Counters end in _total, durations in _seconds, and each says what a bad value is."""
    assert definition.name.startswith("fraud_")
    assert definition.name.endswith("_total") == (definition.kind == "counter")
    assert definition.name.endswith("_seconds") == (definition.unit == "seconds")
    assert definition.bad
    assert definition.meaning.endswith(".")
    assert all(len(child) == len(definition.labels) for child in definition.children)
    assert not {"card_id", "terminal_id", "transaction_id"} & set(definition.labels)


def test_known_children_start_at_zero() -> None:
    """A counter with known label values is exposed with 0 before the first event."""
    scraped = samples(Metrics())
    for outcome in OUTCOMES:
        assert scraped["fraud_transactions_total", (("outcome", outcome),)] == 0
    assert scraped["fraud_alerts_total", ()] == 0
    assert scraped["fraud_end_to_end_seconds_count", ()] == 0


def test_a_gauge_is_absent_until_it_is_set() -> None:
    """A worker that does not know a figure must not say 0: `min()` over the workers would take it."""
    gauges = {definition.name for definition in METRICS if definition.kind == "gauge"}
    metrics = Metrics()
    assert not gauges & {name for name, _ in samples(metrics)}
    metrics.threshold.set(0.5)
    assert gauges & {name for name, _ in samples(metrics)} == {"fraud_threshold"}
    with pytest.raises(ValueError, match="no children before they are set"):
        Gauge(Definition("g", "gauge", "ratio", "What.", "bad", ("window",), (("1h",),)))


def test_counts_and_gauges_reach_the_exposition() -> None:
    """What was added and set is what a scrape shows, per child."""
    metrics = Metrics()
    metrics.transactions.add(500, "scored")
    metrics.transactions.add(3, "scored")
    metrics.lag_messages.set(7, "t", "0")
    metrics.lag_messages.set(8, "t", "1")
    metrics.lag_messages.forget("t", "0")
    scraped = samples(metrics)
    assert scraped["fraud_transactions_total", (("outcome", "scored"),)] == 503
    assert ("fraud_consumer_lag_messages", (("partition", "0"), ("topic", "t"))) not in scraped
    assert scraped["fraud_consumer_lag_messages", (("partition", "1"), ("topic", "t"))] == 8


def test_bulk_histogram_equals_the_reference_client() -> None:
    """An array observed at once gives the buckets, count and sum of one reference call per value."""
    metrics, registry = Metrics(), CollectorRegistry()
    edges = next(d.buckets for d in METRICS if d.name == "fraud_end_to_end_seconds")
    reference = Histogram("fraud_end_to_end_seconds", "reference", buckets=edges, registry=registry)
    values = np.concatenate([np.random.default_rng(1).exponential(2.0, 1000), np.array(edges), [100.0, 0.0]])
    metrics.end_to_end.observe(values)
    metrics.end_to_end.observe_repeated(0.25, 3)
    for value in [*values.tolist(), 0.25, 0.25, 0.25]:
        reference.observe(value)
    scraped = samples(metrics)
    for family in registry.collect():
        for sample in family.samples:
            if not sample.name.endswith("_created"):
                key = (sample.name, tuple(sorted(sample.labels.items())))
                assert scraped[key] == pytest.approx(sample.value, rel=1e-12)


def test_histogram_leaves_out_what_is_not_finite() -> None:
    """NaN and infinities neither count nor spoil the sum."""
    metrics = Metrics()
    metrics.end_to_end.observe(np.array([0.5, np.nan, np.inf]))
    assert samples(metrics)["fraud_end_to_end_seconds_sum", ()] == 0.5
    assert metrics.end_to_end.count() == 1


def test_the_sum_of_a_histogram_never_falls() -> None:
    """A producer whose clock is ahead took no negative time."""
    metrics = Metrics()
    metrics.end_to_end.observe(np.array([0.5, -2.5e8]))
    assert samples(metrics)["fraud_end_to_end_seconds_sum", ()] == 0.5
    assert metrics.end_to_end.count() == 2


def test_quantile_is_linear_within_its_bucket() -> None:
    """The median of values spread over one bucket lies in its middle, and an empty histogram has none."""
    metrics = Metrics()
    assert np.isnan(metrics.end_to_end.quantile(0.5))
    metrics.end_to_end.observe_repeated(0.07, 10)
    assert metrics.end_to_end.quantile(0.5) == pytest.approx(0.075)


def test_children_beyond_the_limit_are_folded() -> None:
    """However many label values arrive, the number of series stays bounded and no count is lost."""
    metrics = Metrics()
    for number in range(1000):
        metrics.dead_letters.add(1, f"reason-{number}")
    scraped = [value for (name, _), value in samples(metrics).items() if name == "fraud_dead_letters_total"]
    assert len(scraped) <= 65
    assert sum(scraped) == metrics.dead_letters.total() == 1000
    assert metrics.dead_letters.value("other") > 900


def test_all_series_together_stay_bounded() -> None:
    """Every family filled to its limit still exposes fewer series than a small Prometheus can hold."""
    assert sum((d.limit + 1) * (len(d.buckets) + 3 if d.buckets else 1) for d in METRICS if d.labels) < 8000


def test_misuse_is_refused() -> None:
    """A falling counter, wrong labels, and a metric defined twice are errors at once."""
    metrics = Metrics()
    with pytest.raises(ValueError, match="cannot fall"):
        metrics.alerts.add(-1)
    with pytest.raises(ValueError, match="takes the labels"):
        metrics.transactions.add(1, "scored", "extra")
    with pytest.raises(ValueError, match="defined twice"):
        Families([METRICS[0], METRICS[0]])
    with pytest.raises(ValueError, match="bound once"):
        Families(METRICS).gauge("fraud_alerts_total")


def test_free_text_sources_become_one_label() -> None:
    """A source that users invented is counted under one bounded label value."""
    assert bounded_source("chargeback") == "chargeback"
    assert bounded_source("customer@example.com") == "other"
