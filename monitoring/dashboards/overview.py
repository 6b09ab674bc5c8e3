"""Overview: does it decide, in time, about everything, and what are the alerts worth."""

from __future__ import annotations

from monitoring.dashboards.builders import (
    Dashboard,
    Panel,
    Query,
    Row,
    increase,
    largest,
    quantile,
    rate,
    recorded,
    select,
    total,
)

SCORED = 'outcome="scored"'
#: Of all that is scraped what has told a build in the time shown; a worker that is down tells none now.
_SEEN = f"max_over_time({select('fraud_build_info')}[$__range])"
WORKERS = f"sum({select('up')} and on (job, instance) {_SEEN}) or vector(0)"
NO_OUTCOMES = "no outcome has matured yet"
NO_FEEDBACK = "no alert has been shown or decided yet"

OVERVIEW = Dashboard(
    "fraud-overview",
    "Fraud / Overview",
    "Whether every transaction is decided, in time, and what the alerts are worth.",
    (
        Row(
            "Now",
            (
                Panel(
                    "Scored",
                    "Transactions scored per second. 0 while transactions arrive is bad.",
                    "cps",
                    (Query(rate("fraud_transactions_total", SCORED), "scored"),),
                    kind="stat",
                    width=4,
                    height=4,
                ),
                Panel(
                    "Latency p99",
                    "From a transaction's Kafka timestamp to its acknowledged score. Bad: above 0.1 s.",
                    "s",
                    (Query(quantile(0.99, "fraud_end_to_end_seconds"), "p99"),),
                    kind="stat",
                    width=4,
                    height=4,
                    limit=0.1,
                ),
                Panel(
                    "Alerts in an hour",
                    "Alerts published in the last hour. A jump, or none for hours, is bad.",
                    "short",
                    (Query(increase("fraud_alerts_total", over="1h"), "alerts"),),
                    kind="stat",
                    whole=True,
                    width=4,
                    height=4,
                ),
                Panel(
                    "Unaccounted",
                    "Transactions that are neither scored, duplicates, dead letters nor waiting. Bad: not 0.",
                    "short",
                    (Query(total("fraud_unaccounted_transactions"), "unaccounted"),),
                    kind="stat",
                    width=4,
                    height=4,
                    limit=1,
                ),
                Panel(
                    "Workers",
                    "Workers that answer. Bad: fewer than were started.",
                    "short",
                    (Query(WORKERS, "up"),),
                    kind="stat",
                    width=4,
                    height=4,
                    limit=1,
                    low_is_bad=True,
                ),
                Panel(
                    "Alarms",
                    "Alert rules that fire. Bad: any; the runbook says what to do.",
                    "short",
                    (Query('count(ALERTS{alertstate="firing",job=~"$job"}) or vector(0)', "firing"),),
                    kind="stat",
                    width=4,
                    height=4,
                    limit=1,
                ),
            ),
        ),
        Row(
            "Flow",
            (
                Panel(
                    "Transactions by outcome",
                    "Consumed transactions per second. Bad: dead_lettered or duplicate rising "
                    "against scored.",
                    "cps",
                    (Query(rate("fraud_transactions_total", by="outcome"), "{{outcome}}"),),
                ),
                Panel(
                    "End-to-end latency",
                    "Quantiles from a transaction's Kafka timestamp to its acknowledged score. "
                    "Bad: p99 above 0.1 s.",
                    "s",
                    (
                        Query(quantile(0.5, "fraud_end_to_end_seconds"), "p50"),
                        Query(quantile(0.95, "fraud_end_to_end_seconds"), "p95"),
                        Query(quantile(0.99, "fraud_end_to_end_seconds"), "p99"),
                    ),
                    limit=0.1,
                ),
                Panel(
                    "Late scores against the objective",
                    "Share of scores that took longer than 0.1 s. Bad: above 1 % for days.",
                    "percentunit",
                    (
                        Query(recorded("job:fraud_slow:ratio_rate5m"), "5 minutes"),
                        Query(recorded("job:fraud_slow:ratio_rate1h"), "1 hour"),
                        Query(recorded("job:fraud_slow:ratio_rate3d"), "3 days"),
                    ),
                    limit=0.01,
                ),
                Panel(
                    "Unscored transactions against the objective",
                    "Share of transactions that went to the dead letters. Bad: above 0.1 % for days.",
                    "percentunit",
                    (
                        Query(recorded("job:fraud_unscored:ratio_rate5m"), "5 minutes"),
                        Query(recorded("job:fraud_unscored:ratio_rate1h"), "1 hour"),
                        Query(recorded("job:fraud_unscored:ratio_rate3d"), "3 days"),
                    ),
                    limit=0.001,
                ),
                Panel(
                    "Lag",
                    "Age of the record finished last, while others wait. Bad: above 60 s.",
                    "s",
                    (Query(largest("fraud_consumer_lag_seconds", by="topic"), "{{topic}}"),),
                    limit=60,
                ),
                Panel(
                    "Champion's scoring time",
                    "Time in which a batch was scored, counted for each of its transactions. "
                    "Bad: p99 above 0.025 s.",
                    "s",
                    (
                        Query(quantile(0.5, "fraud_score_duration_seconds"), "p50"),
                        Query(quantile(0.99, "fraud_score_duration_seconds"), "p99"),
                    ),
                    limit=0.025,
                ),
            ),
        ),
        Row(
            "Decisions",
            (
                Panel(
                    "Alerts",
                    "Alerts per second. Bad: a jump, or none for hours.",
                    "cps",
                    (Query(rate("fraud_alerts_total"), "alerts"),),
                ),
                Panel(
                    "Share of transactions alerted",
                    "Over an hour. Bad: three times that of the day.",
                    "percentunit",
                    (Query(recorded("job:fraud_alerts:ratio_rate1h"), "alerted"),),
                ),
                Panel(
                    "Alerts a day against the budget",
                    "Alerts in the last full day of event time, and policy.alerts_per_day (0 "
                    "without a budget). "
                    "Bad: far apart.",
                    "short",
                    (
                        Query(largest("fraud_alert_rate"), "alerts"),
                        Query(largest("fraud_alert_budget"), "budget"),
                    ),
                ),
                Panel(
                    "Alerts that were held back",
                    "Would-be alerts per second, by what held them back. Bad: budget rising.",
                    "cps",
                    (Query(rate("fraud_alerts_suppressed_total", by="reason"), "{{reason}}"),),
                ),
                Panel(
                    "Champion's scores",
                    "How often which score is given. Bad: a shape unlike last week's.",
                    "short",
                    (Query(rate("fraud_score_bucket", 'role="champion"', by="le"), "{{le}}"),),
                    kind="heatmap",
                ),
                Panel(
                    "Threshold and precision",
                    "The score from which a transaction becomes an alert, and the share of "
                    "decided alerts that were confirmed. Bad: precision below the threshold.",
                    "percentunit",
                    (
                        Query(largest("fraud_threshold"), "threshold"),
                        Query(largest("fraud_alert_precision"), "precision", NO_FEEDBACK),
                    ),
                ),
                Panel(
                    "Moves of the threshold",
                    "Over an hour. Bad: at every hour, for the scores swing.",
                    "short",
                    (Query(increase("fraud_threshold_changes_total", over="1h"), "moves"),),
                ),
                Panel(
                    "Scored by the rules",
                    "Transactions per second that the rules scored, by why. Bad: any once a "
                    "version is learned.",
                    "cps",
                    (Query(rate("fraud_rules_scored_total", by="reason"), "{{reason}}"),),
                ),
            ),
        ),
    ),
)
