"""The alert funnel: what analysts do with alerts, and how long the truth takes."""

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
    total,
)
from monitoring.dashboards.overview import NO_FEEDBACK, NO_OUTCOMES

NO_WINDOW = "no window of event time has been merged yet"

FUNNEL = Dashboard(
    "fraud-funnel",
    "Fraud / Alert funnel",
    "What analysts do with alerts, what the alerts are worth, and how long the truth takes.",
    (
        Row(
            "Funnel",
            (
                Panel(
                    "Alerts published",
                    "Over the time shown. Bad: far from what analysts can look at.",
                    "short",
                    (Query(increase("fraud_alerts_total"), "published"),),
                    kind="stat",
                    whole=True,
                    width=6,
                    height=6,
                ),
                Panel(
                    "Shown, opened, decided",
                    "Actions of analysts over the time shown. "
                    "Bad: shown without opened, for alerts are ignored.",
                    "short",
                    (Query(increase("fraud_alert_funnel_total", by="action"), "{{action}}"),),
                    kind="bargauge",
                    whole=True,
                    width=10,
                    height=6,
                ),
                Panel(
                    "Share opened",
                    "Of the alerts of the last 24 hours shown. Bad: falling, for trust is lost.",
                    "percentunit",
                    (Query(largest("fraud_alert_ctr"), "opened", NO_FEEDBACK),),
                    kind="stat",
                    width=4,
                    height=6,
                    limit=0.1,
                    low_is_bad=True,
                ),
                Panel(
                    "Share confirmed",
                    "Of the alerts of the last 24 hours decided. Bad: below the threshold.",
                    "percentunit",
                    (Query(largest("fraud_alert_precision"), "confirmed", NO_FEEDBACK),),
                    kind="stat",
                    width=4,
                    height=6,
                    limit=0.1,
                    low_is_bad=True,
                ),
                Panel(
                    "Actions",
                    "Actions per second. Bad: shown goes on and opened stops.",
                    "cps",
                    (Query(rate("fraud_alert_funnel_total", by="action"), "{{action}}"),),
                ),
                Panel(
                    "Funnel of six hours",
                    "Actions within six hours. Bad: opened below a tenth of shown.",
                    "short",
                    (Query(recorded("job:fraud_funnel:increase6h"), "{{action}}"),),
                ),
                Panel(
                    "Rates of 24 hours",
                    "Share of shown alerts that were opened, of decided ones that "
                    "were confirmed. Bad: falling.",
                    "percentunit",
                    (
                        Query(largest("fraud_alert_ctr"), "opened", NO_FEEDBACK),
                        Query(largest("fraud_alert_precision"), "confirmed", NO_FEEDBACK),
                    ),
                ),
                Panel(
                    "Precision of alerts by outcomes",
                    "Share of frauds among alerts with an outcome: naive as they come, and "
                    "corrected by the "
                    "control group. Bad: far apart, for acting on alerts hides frauds.",
                    "percentunit",
                    (Query(largest("fraud_outcome_precision", by="estimate"), "{{estimate}}", NO_OUTCOMES),),
                ),
                Panel(
                    "Recall of alerts by outcomes",
                    "Share of the frauds that raised an alert: naive, and corrected by the "
                    "control group. "
                    "Bad: far apart, for acting on alerts hides frauds.",
                    "percentunit",
                    (Query(largest("fraud_outcome_recall", by="estimate"), "{{estimate}}", NO_OUTCOMES),),
                ),
                Panel(
                    "Alerts of the control group",
                    "Per second; they are to be left alone. Bad: far from policy.control_share "
                    "of all alerts.",
                    "cps",
                    (
                        Query(rate("fraud_control_group_total"), "control group"),
                        Query(rate("fraud_alerts_total"), "all"),
                    ),
                ),
                Panel(
                    "Alerted rows given up",
                    "Alerted rows given up before maturity for labels.max_held, per second. Bad: any.",
                    "cps",
                    (Query(rate("fraud_alerts_released_total"), "given up"),),
                ),
            ),
        ),
        Row(
            "Windows of event time",
            (
                Panel(
                    "Transactions of a window",
                    "Scored in the last minute, hour and day of event time, all partitions together. "
                    "Bad: far from last week's.",
                    "short",
                    (Query(largest("fraud_window_transactions", by="window"), "{{window}}", NO_WINDOW),),
                ),
                Panel(
                    "Late transactions of a window",
                    "Too late for the feature windows. Bad: more than a few in a thousand.",
                    "short",
                    (Query(largest("fraud_window_late_transactions", by="window"), "{{window}}", NO_WINDOW),),
                ),
                Panel(
                    "Alerts of a window",
                    "Bad: far from what analysts can look at.",
                    "short",
                    (Query(largest("fraud_window_alerts", by="window"), "{{window}}", NO_WINDOW),),
                ),
                Panel(
                    "Alert rate of a window",
                    "Share of the transactions that raised an alert. Bad: a jump, or 0 for hours.",
                    "percentunit",
                    (Query(largest("fraud_window_alert_rate", by="window"), "{{window}}", NO_WINDOW),),
                ),
                Panel(
                    "Money of 24 hours",
                    "In minor units by their digits: all, flagged by alerts, confirmed by analysts. "
                    "Bad: confirmed falls while flagged rises.",
                    "short",
                    (
                        Query(
                            largest("fraud_window_amount_minor", by="kind, exponent"),
                            "{{kind}}, {{exponent}} digits",
                            NO_WINDOW,
                        ),
                    ),
                ),
                Panel(
                    "Funnel by model and arm",
                    "Alerts of the last 24 hours that reached a step. Bad: shown without opened.",
                    "short",
                    (
                        Query(
                            largest("fraud_window_funnel_alerts", by="model, arm, step"),
                            "{{model}} {{arm}} {{step}}",
                            NO_WINDOW,
                        ),
                    ),
                ),
                Panel(
                    "Shadows that would decide otherwise",
                    "Share of the transactions of the last 24 hours. Bad: a jump.",
                    "percentunit",
                    (Query(largest("fraud_shadow_disagreement", by="name"), "{{name}}", NO_WINDOW),),
                ),
                Panel(
                    "Shadows that agree with analysts",
                    "Share of the decided alerts of the last 24 hours. "
                    "Bad: none; above the share confirmed a shadow is more selective.",
                    "percentunit",
                    (Query(largest("fraud_human_agreement", by="name"), "{{name}}", NO_FEEDBACK),),
                ),
                Panel(
                    "Time to a decision",
                    "Mean event time from a transaction to the decision on its alert, of the last 24 hours. "
                    "Bad: longer than stops a fraud.",
                    "s",
                    (Query(largest("fraud_decision_delay_seconds"), "to decision", NO_FEEDBACK),),
                    width=24,
                ),
            ),
        ),
        Row(
            "Labels",
            (
                Panel(
                    "Labels by source",
                    "Labels per second. Bad: a source that stops.",
                    "cps",
                    (Query(rate("fraud_labels_total", by="source"), "{{source}}"),),
                    stacked=True,
                ),
                Panel(
                    "Labels by result",
                    "Labels per second. Bad: too_late, unmatched or dropped rising.",
                    "cps",
                    (Query(rate("fraud_labels_total", by="result"), "{{result}}"),),
                    stacked=True,
                ),
                Panel(
                    "Contradicting labels",
                    "Labels per second that say the opposite of what was known. Bad: chargeback rising.",
                    "cps",
                    (Query(rate("fraud_labels_contradicting_total", by="source"), "{{source}}"),),
                ),
                Panel(
                    "Time to label",
                    "Quantiles of the event time from a transaction to its label. "
                    "Bad: longer than labels.maturity, for such labels are ignored.",
                    "s",
                    (
                        Query(quantile(0.5, "fraud_label_delay_seconds", by="source"), "{{source}} p50"),
                        Query(quantile(0.9, "fraud_label_delay_seconds", by="source"), "{{source}} p90"),
                    ),
                ),
                Panel(
                    "Labels waiting",
                    "Labels held until their transaction has been seen, or matures. Bad: rising without end.",
                    "short",
                    (Query(total("fraud_pending_labels"), "waiting"),),
                ),
            ),
        ),
    ),
    since="now-24h",
)
