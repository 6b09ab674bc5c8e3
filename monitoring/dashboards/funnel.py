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
                    width=10,
                    height=6,
                ),
                Panel(
                    "Share opened",
                    "Of the alerts shown in seven days. Bad: falling, for trust is lost.",
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
                    "Of the alerts decided in seven days. Bad: below the threshold.",
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
                    "reqps",
                    (Query(rate("fraud_alert_funnel_total", by="action"), "{{action}}"),),
                ),
                Panel(
                    "Funnel of six hours",
                    "Actions within six hours. Bad: opened below a tenth of shown.",
                    "short",
                    (Query(recorded("job:fraud_funnel:increase6h"), "{{action}}"),),
                ),
                Panel(
                    "Rates of seven days",
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
                    "reqps",
                    (
                        Query(rate("fraud_control_group_total"), "control group"),
                        Query(rate("fraud_alerts_total"), "all"),
                    ),
                ),
                Panel(
                    "Alerted rows given up",
                    "Alerted rows given up before maturity for labels.max_held, per second. Bad: any.",
                    "reqps",
                    (Query(rate("fraud_alerts_released_total"), "given up"),),
                ),
            ),
        ),
        Row(
            "Labels",
            (
                Panel(
                    "Labels by source",
                    "Labels per second. Bad: a source that stops.",
                    "reqps",
                    (Query(rate("fraud_labels_total", by="source"), "{{source}}"),),
                    stacked=True,
                ),
                Panel(
                    "Labels by result",
                    "Labels per second. Bad: too_late, unmatched or dropped rising.",
                    "reqps",
                    (Query(rate("fraud_labels_total", by="result"), "{{result}}"),),
                    stacked=True,
                ),
                Panel(
                    "Contradicting labels",
                    "Labels per second that say the opposite of what was known. Bad: chargeback rising.",
                    "reqps",
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
