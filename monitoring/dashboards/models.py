"""Models side by side: quality over matured outcomes, versions, what they learn and what is refused."""

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
from monitoring.dashboards.overview import NO_OUTCOMES

ROLE = 'role=~"$role"'
NOTHING_LEARNED = "nothing has been learned yet"
NO_REFERENCE = "the reference takes a week of event time"

MODELS = Dashboard(
    "fraud-models",
    "Fraud / Models",
    "Champion and shadows side by side, on the same transactions and the same matured outcomes.",
    (
        Row(
            "Quality over matured outcomes of 28 days",
            (
                Panel(
                    "Average precision",
                    "By role. Bad: falling, or a shadow above the champion for days.",
                    "percentunit",
                    (Query(largest("fraud_average_precision", ROLE, by="role"), "{{role}}", NO_OUTCOMES),),
                ),
                Panel(
                    "Precision of the 100 riskiest cards of a day",
                    "By role. Bad: falling.",
                    "percentunit",
                    (Query(largest("fraud_card_precision", ROLE, by="role"), "{{role}}", NO_OUTCOMES),),
                ),
                Panel(
                    "Area under the ROC curve",
                    "By role. Bad: falling.",
                    "percentunit",
                    (Query(largest("fraud_roc_auc", ROLE, by="role"), "{{role}}", NO_OUTCOMES),),
                ),
                Panel(
                    "Calibration error",
                    "Expected distance of a score from the share of frauds. Bad: above 0.02.",
                    "percentunit",
                    (Query(largest("fraud_calibration_error", ROLE, by="role"), "{{role}}", NO_OUTCOMES),),
                    limit=0.02,
                ),
            ),
        ),
        Row(
            "Scores",
            (
                Panel(
                    "Score quantiles",
                    "The score below which 99 % lie, by role. Bad: a step without a new version.",
                    "percentunit",
                    (Query(quantile(0.99, "fraud_score", by="role"), "{{role}} p99"),),
                ),
                Panel(
                    "Score drift",
                    "Population stability index of recent scores against their reference. Bad: above 0.25.",
                    "short",
                    (Query(largest("fraud_score_drift", ROLE, by="role"), "{{role}}", NO_REFERENCE),),
                    limit=0.25,
                ),
            ),
        ),
        Row(
            "Versions",
            (
                Panel(
                    "Models in use",
                    "Which version scores in which role. Bad: several versions of one model for long.",
                    "short",
                    (
                        Query(
                            largest("fraud_model_info", by="role, name, version"),
                            "{{role}} {{name}} v{{version}}",
                        ),
                    ),
                    kind="table",
                ),
                Panel(
                    "Versions swapped in",
                    "By model, over the time shown. Bad: none for a day while outcomes are learned.",
                    "short",
                    (Query(increase("fraud_model_updates_total", by="name"), "{{name}}"),),
                    kind="bargauge",
                    whole=True,
                ),
                Panel(
                    "Outcomes learned",
                    "By model, per second. Bad: none while labels arrive.",
                    "cps",
                    (Query(rate("fraud_model_learned_total", by="name"), "{{name}}", NOTHING_LEARNED),),
                ),
                Panel(
                    "Trouble",
                    "Versions refused or withheld, outcomes refused, verdicts beyond labels.daily, batches "
                    "that the rules scored because the champion failed, shadows switched off. Bad: any.",
                    "short",
                    (
                        Query(
                            increase("fraud_model_refused_total", by="name", over="$__rate_interval"),
                            "version of {{name}} refused",
                        ),
                        Query(
                            increase("fraud_model_withheld_total", by="name", over="$__rate_interval"),
                            "version of {{name}} withheld",
                        ),
                        Query(
                            increase("fraud_outcomes_refused_total", by="name", over="$__rate_interval"),
                            "{{name}} refused an outcome",
                            NOTHING_LEARNED,
                        ),
                        Query(
                            increase("fraud_labels_flooded_total", by="origin", over="$__rate_interval"),
                            "verdicts beyond the bound of a {{origin}}",
                        ),
                        Query(
                            increase("fraud_champion_failures_total", over="$__rate_interval"),
                            "champion failed",
                        ),
                        Query(
                            increase(
                                "fraud_shadow_disabled_total", by="name, reason", over="$__rate_interval"
                            ),
                            "{{name}} off: {{reason}}",
                        ),
                    ),
                ),
            ),
        ),
        Row(
            "Canary, gates and moves",
            (
                Panel(
                    "Transactions by arm",
                    "Per second, beside the share of the cards that the canary decides. Bad: far from it.",
                    "cps",
                    (
                        Query(rate("fraud_arm_transactions_total", by="arm"), "{{arm}}"),
                        Query(largest("fraud_canary_share"), "share of the canary", share=True),
                    ),
                ),
                Panel(
                    "Alerts by arm",
                    "Scores at or above the threshold, per second. Bad: unlike shares of the two arms.",
                    "cps",
                    (Query(rate("fraud_arm_alerts_total", by="arm"), "{{arm}}"),),
                ),
                Panel(
                    "Gates failed",
                    "By candidate, canary or shadow. Bad: any, of a canary.",
                    "short",
                    (
                        Query(
                            largest("fraud_gates_failed", by="name"),
                            "{{name}}",
                            "no candidate has been judged yet",
                        ),
                    ),
                ),
                Panel(
                    "Out of the ordinary",
                    "Transactions that the canary could not score, events of the control topic that changed "
                    "nothing, alerts held back. Bad: any that nobody expects.",
                    "short",
                    (
                        Query(
                            increase("fraud_canary_failures_total", over="$__rate_interval"), "canary failed"
                        ),
                        Query(
                            increase("fraud_moves_ignored_total", by="reason", over="$__rate_interval"),
                            "move {{reason}}",
                        ),
                        Query(
                            increase("fraud_alerts_held_total", over="$__rate_interval"), "alerts held back"
                        ),
                    ),
                ),
                Panel(
                    "Agreement of alerts and outcomes",
                    "Share of matured transactions of which both say the same, alerts held back included. "
                    "Bad: below the share of genuine transactions.",
                    "percentunit",
                    (Query(largest("fraud_decision_agreement"), "agreement", NO_OUTCOMES),),
                ),
            ),
        ),
    ),
    (Choice("role", "Role", "fraud_average_precision", "role"),),
    since="now-2d",
)
