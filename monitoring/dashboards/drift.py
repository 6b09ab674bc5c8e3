"""Drift: whether the data, the scores, the labels or the world have changed."""

from __future__ import annotations

from monitoring.dashboards.builders import (
    Choice,
    Dashboard,
    Panel,
    Query,
    Row,
    increase,
    largest,
    quantile,
    rate,
)
from monitoring.dashboards.models import NO_REFERENCE
from monitoring.dashboards.overview import NO_OUTCOMES

#: Why there is nothing to see where nothing is wrong.
QUIET = "nothing is beyond its limit"


def _features(measure: str, over: str = "10") -> str:
    distance = largest("fraud_feature_drift", 'feature=~"$feature"', f'measure="{measure}"', by="feature")
    return f"topk({over}, {distance})"


def _effect() -> str:
    return largest("fraud_feature_drift", 'feature=~"$feature"', 'measure="effect"', by="feature")


DRIFT = Dashboard(
    "fraud-drift",
    "Fraud / Drift",
    "Whether the data, the scores, the labels or the world have changed against the reference.",
    (
        Row(
            "Alarms",
            (
                Panel(
                    "Drift alarms",
                    "Alarms raised over the time shown, by kind. Bad: any.",
                    "short",
                    (Query(increase("fraud_drift_alarms_total", by="kind"), "{{kind}}"),),
                    kind="stat",
                    whole=True,
                    width=24,
                    height=4,
                    limit=1,
                ),
                Panel(
                    "Figures beyond their limit",
                    "Values, drift and scores beyond what chance hardly passes. Bad: any.",
                    "short",
                    (Query(largest("fraud_drift_raised", by="kind, name"), "{{kind}} {{name}}", QUIET),),
                ),
                Panel(
                    "Changed by outcomes",
                    "Roles whose daily loss has risen, figures of labels that have changed. Bad: any.",
                    "short",
                    (Query(largest("fraud_concept_raised", by="kind, name"), "{{kind}} {{name}}", QUIET),),
                ),
            ),
        ),
        Row(
            "Data",
            (
                Panel(
                    "Features that shifted most",
                    "Population stability index against the reference, the ten largest. Bad: an alarm.",
                    "short",
                    (Query(_features("psi"), "{{feature}}", NO_REFERENCE),),
                ),
                Panel(
                    "Largest distance of distributions",
                    "Kolmogorov-Smirnov distance against the reference, the ten largest. Bad: a step.",
                    "short",
                    (Query(_features("ks"), "{{feature}}", NO_REFERENCE),),
                ),
                Panel(
                    "Drift by its effect on the score",
                    "Change of the champion's mean logit that goes with a feature's, the ten largest. "
                    "Bad: large beside an alarm.",
                    "short",
                    (Query(f"topk(10, abs({_effect()}))", "{{feature}}", NO_REFERENCE),),
                    width=24,
                ),
                Panel(
                    "All features now",
                    "Population stability index against the reference. Bad: an alarm; limits differ.",
                    "short",
                    (Query(_features("psi", "50"), "{{feature}}", NO_REFERENCE),),
                    kind="bargauge",
                    height=12,
                ),
                Panel(
                    "Unknown fields",
                    "Input fields that are not part of the contract. "
                    "Bad: a jump, for a producer has changed its schema.",
                    "cps",
                    (Query(rate("fraud_unknown_fields_total"), "fields"),),
                    height=12,
                ),
            ),
        ),
        Row(
            "Scores and labels",
            (
                Panel(
                    "Score drift",
                    "Population stability index of recent scores. Bad: an alarm; limits differ.",
                    "short",
                    (Query(largest("fraud_score_drift", by="role"), "{{role}}", NO_REFERENCE),),
                ),
                Panel(
                    "Calibration error",
                    "Expected distance of a score from the share of frauds, by role. "
                    "Bad: above 0.02: the relation of features and fraud has changed.",
                    "percentunit",
                    (Query(largest("fraud_calibration_error", by="role"), "{{role}}", NO_OUTCOMES),),
                    limit=0.02,
                ),
                Panel(
                    "Average precision expected before labels",
                    "An estimate from the scores of the last day, if they mean what they meant. "
                    "Bad: below what outcomes say.",
                    "percentunit",
                    (
                        Query(
                            largest("fraud_estimated_average_precision", by="role"), "{{role}}", NO_OUTCOMES
                        ),
                    ),
                ),
                Panel(
                    "Share of frauds, known and expected",
                    "Of the last day that is decided, and of the scores of the last 24 hours (an estimate). "
                    "Bad: a jump, or far apart.",
                    "percentunit",
                    (
                        Query(largest("fraud_base_rate"), "known", NO_OUTCOMES),
                        Query(
                            largest("fraud_estimated_base_rate", by="role"), "{{role}} expected", NO_OUTCOMES
                        ),
                    ),
                ),
                Panel(
                    "Outcomes that a label gave",
                    "Share of the outcomes of the last day that is decided. Bad: a source that stops.",
                    "percentunit",
                    (Query(largest("fraud_label_coverage", by="source"), "{{source}}", NO_OUTCOMES),),
                    width=24,
                ),
                Panel(
                    "Label delay",
                    "Median event time from a transaction to its label, by source. "
                    "Bad: a shift to longer delays, for models learn later.",
                    "s",
                    (Query(quantile(0.5, "fraud_label_delay_seconds", by="source"), "{{source}}"),),
                ),
                Panel(
                    "Labels",
                    "Labels per second, by what became of them. Bad: too_late, unmatched or dropped rising.",
                    "cps",
                    (Query(rate("fraud_labels_total", by="result"), "{{result}}"),),
                    stacked=True,
                ),
            ),
        ),
    ),
    (Choice("feature", "Feature", "fraud_feature_drift", "feature"),),
    since="now-7d",
)
