"""Every metric of the system, once: name, unit, labels and what a bad value means.

`METRICS` is the table that documentation, dashboards and alert rules are checked against; `Metrics` holds the
live families, exposes them through a registry of its own and is passed to whoever reports.
"""

from __future__ import annotations

from prometheus_client import CollectorRegistry, PlatformCollector, ProcessCollector, generate_latest
from prometheus_client.exposition import CONTENT_TYPE_LATEST

from monitoring.families import OTHER, Definition, Families

OUTCOMES = ("scored", "dead_lettered", "duplicate", "late")
ROLES = ("champion", "canary", "shadow")
OPTIONAL_FIELDS = ("merchant_id", "mcc", "country", "channel", "device_id", "ip")
LABEL_SOURCES = ("chargeback", "analyst", OTHER)
LABEL_ORIGINS = ("source", "terminal", "card")
LABEL_RESULTS = ("joined", "pending", "duplicate", "revised", "too_late", "unmatched", "dropped")
FUNNEL = ("shown", "opened", "confirmed", "dismissed")
STAGES = ("card", "score", "label", "learn", "observe")
DRIFT_KINDS = (
    "data", "unit_change", "missing", "out_of_range", "unseen", "score", "concept", "label",
)  # fmt: skip
ARMS = ("champion", "canary")
MOVE_FAULTS = ("unusable", "stale", "refused")
SUPPRESSED = ("cooldown", "budget")
RULES_BECAUSE = ("unlearned", "failed")
LOG_LEVELS = ("warning", "error")
LOG_SOURCES = ("fraudstream", "kafka", "faust", OTHER)
SHADOW_FAULTS = ("raised", "not_finite", "slow", "memory")

# 0.1 s, the service level objective for a decision, is an edge of both latency histograms.
SCORE_SECONDS = (0.00005, 0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25)
END_TO_END_SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0)
STAGE_SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
BATCH_RECORDS = (1.0, 4.0, 16.0, 64.0, 256.0, 1024.0, 4096.0, 16_384.0)
LOOP_DELAY_SECONDS = (0.001, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 5.0)
LABEL_DELAY_SECONDS = (
    60.0, 300.0, 900.0, 3600.0, 14_400.0, 86_400.0, 172_800.0, 259_200.0, 604_800.0, 1_209_600.0, 2_592_000.0,
    5_184_000.0, 7_776_000.0,
)  # fmt: skip
SCORE_EDGES = tuple(round(step * 0.05, 2) for step in range(1, 21))


def _each(values: tuple[str, ...]) -> tuple[tuple[str, ...], ...]:
    return tuple((value,) for value in values)


LABEL_CHILDREN = tuple((source, result) for source in LABEL_SOURCES for result in LABEL_RESULTS)

# fmt: off
METRICS: tuple[Definition, ...] = (
    Definition("fraud_transactions_total", "counter", "transactions",
        "Transactions consumed, by what became of them; late ones are scored as well and counted in "
        "both.",
        "dead_lettered or duplicate rising against scored.",
        labels=("outcome",), children=_each(OUTCOMES)),
    Definition("fraud_unaccounted_transactions", "gauge", "transactions",
        "Consumed minus scored, dead-lettered and duplicate.",
        "anything but 0 once the stages are idle."),
    Definition("fraud_partition_unaccounted_transactions", "gauge", "transactions",
        "The same by stage and partition.",
        "anything but 0 once the stages are idle.",
        labels=("stage", "partition"), limit=256),
    Definition("fraud_consumed_records_total", "counter", "records",
        "Records of a consumed partition that are finished: all that they cause is durable.",
        "no increase while messages lag.",
        labels=("stage", "topic", "partition"), limit=512),
    Definition("fraud_alerts_total", "counter", "alerts",
        "Alerts published.",
        "a jump, or none for hours."),
    Definition("fraud_alerts_held_total", "counter", "alerts",
        "Alerts not published because they are held back (`alerts hold`).",
        "any increase that nobody asked for."),
    Definition("fraud_alerts_suppressed_total", "counter", "transactions",
        "Would-be alerts that were none: the card's cooldown, or no credit left in the budget.",
        "budget rising: the threshold has not followed the scores.",
        labels=("reason",), children=_each(SUPPRESSED)),
    Definition("fraud_control_group_total", "counter", "alerts",
        "Alerts of the control group, which are to be left alone; counted in fraud_alerts_total, too.",
        "far from policy.control_share of the alerts."),
    Definition("fraud_threshold_changes_total", "counter", "changes",
        "Moves of the threshold; each is a record on the metrics topic.",
        "at every hour: the scores swing."),
    Definition("fraud_alert_budget", "gauge", "alerts per day",
        "policy.alerts_per_day of a budget; 0 without one.",
        "not what the analysts can handle."),
    Definition("fraud_alert_rate", "gauge", "alerts per day",
        "Alerts in the last full day of event time.",
        "far from fraud_alert_budget, which it meets on average."),
    Definition("fraud_rules_scored_total", "counter", "transactions",
        "Transactions that the rules scored: nothing learned yet, or the champion failed.",
        "any increase once a version has been learned.",
        labels=("reason",), children=_each(RULES_BECAUSE)),
    Definition("fraud_score_duration_seconds", "histogram", "seconds",
        "Time in which a batch was scored by the champion, counted for each of its transactions.",
        "p99 above 0.025.",
        buckets=SCORE_SECONDS),
    Definition("fraud_end_to_end_seconds", "histogram", "seconds",
        "From the Kafka timestamp of a transaction to its acknowledged score.",
        "p99 above 0.1.",
        buckets=END_TO_END_SECONDS),
    Definition("fraud_stage_duration_seconds", "histogram", "seconds",
        "Time a stage took for the batch of a partition, sends included.",
        "p99 above 1.",
        labels=("stage",), children=_each(STAGES), buckets=STAGE_SECONDS, limit=8),
    Definition("fraud_batch_records", "histogram", "records",
        "Kafka records that a partition of a stage took at once.",
        "at its upper end for long: the stage does not keep up.",
        labels=("stage",), children=_each(STAGES), buckets=BATCH_RECORDS, limit=8),
    Definition("fraud_score", "histogram", "probability",
        "Scores given, by role.",
        "a shape unlike last week's.",
        labels=("role",), children=_each(ROLES), buckets=SCORE_EDGES, limit=8),
    Definition("fraud_consumer_lag_messages", "gauge", "messages",
        "Records of a consumed partition that are not finished; of the stage that is furthest behind.",
        "rising for minutes.",
        labels=("topic", "partition"), limit=512),
    Definition("fraud_consumer_lag_seconds", "gauge", "seconds",
        "Wall clock minus the Kafka timestamp of the record finished last; 0 when none waits.",
        "above 60.",
        labels=("topic", "partition"), limit=512),
    Definition("fraud_stalled_seconds", "gauge", "seconds",
        "How long records of a consumed partition have waited without one being finished.",
        "above 60.",
        labels=("topic", "partition"), limit=512),
    Definition("fraud_commit_age_seconds", "gauge", "seconds",
        "How long finished records of a partition have not been committed; the longest of all.",
        "above 60: a crash would repeat as much."),
    Definition("fraud_rebalances_total", "counter", "rebalances",
        "Partition assignments received.",
        "more than one per deployment."),
    Definition("fraud_restore_seconds", "gauge", "seconds",
        "Time in which the state of the partition assigned last was read from its topic.",
        "above 30: a rebalance stops the partition for so long.",
        labels=("stage",)),
    Definition("fraud_event_loop_delay_seconds", "histogram", "seconds",
        "How late the event loop comes back from a wait of 0.1 seconds.",
        "p99 above 0.25.",
        buckets=LOOP_DELAY_SECONDS),
    Definition("fraud_log_messages_total", "counter", "messages",
        "Warnings and errors logged, also those left out as repetitions, by where they come from.",
        "errors rising.",
        labels=("source", "level"),
        children=tuple((source, level) for source in LOG_SOURCES for level in LOG_LEVELS)),
    Definition("fraud_assigned_partitions", "gauge", "partitions",
        "Partitions this worker consumes.",
        "0 with no other worker alive."),
    Definition("fraud_model_info", "gauge", "info",
        "1 for each model that scores, joined to other series by role.",
        "no champion.",
        labels=("role", "name", "version"), limit=32),
    Definition("fraud_model_updates_total", "counter", "models",
        "Model snapshots swapped in, by model.",
        "no increase for a day while labels arrive.",
        labels=("name",), limit=32),
    Definition("fraud_model_learned_total", "counter", "outcomes",
        "Outcomes learned, by model.",
        "no increase while labels arrive.",
        labels=("name",), limit=32),
    Definition("fraud_champion_failures_total", "counter", "batches",
        "Batches that the rules scored because the champion failed.",
        "any increase."),
    Definition("fraud_canary_share", "gauge", "ratio",
        "Share of the cards that the canary decides; 0 without one.",
        "a share nobody set."),
    Definition("fraud_canary_failures_total", "counter", "transactions",
        "Transactions of the canary's cards that the champion decided because the canary gave no score.",
        "any increase."),
    Definition("fraud_arm_transactions_total", "counter", "transactions",
        "Transactions scored, by the arm that decided.",
        "canary far from fraud_canary_share of the sum.",
        labels=("arm",), children=_each(ARMS)),
    Definition("fraud_arm_alerts_total", "counter", "alerts",
        "Scores at or above the threshold, by the arm that decided.",
        "a share of the arm's transactions unlike that of the other arm.",
        labels=("arm",), children=_each(ARMS)),
    Definition("fraud_gates_failed", "gauge", "gates",
        "Gates that a candidate, canary or shadow, fails just now.",
        "above 0 for a canary; it is ended where gates.abort is on.",
        labels=("name",), limit=32),
    Definition("fraud_moves_ignored_total", "counter", "events",
        "Events of the control topic that changed nothing: unusable (damaged, not signed), stale (repeated, "
        "or made on other aliases) or refused (senseless).",
        "unusable rising: somebody without the key writes there.",
        labels=("reason",), children=_each(MOVE_FAULTS)),
    Definition("fraud_model_refused_total", "counter", "models",
        "Model versions that could not be used, or could not be made of their learner, by model.",
        "any increase.",
        labels=("name",), limit=32),
    Definition("fraud_model_withheld_total", "counter", "models",
        "Versions so much worse than those before them that aliases do not follow, by model.",
        "any increase.",
        labels=("name",), limit=32),
    Definition("fraud_outcomes_refused_total", "counter", "outcomes",
        "Outcomes that a learner could not learn, by model.",
        "any increase.",
        labels=("name",), limit=32),
    Definition("fraud_shadow_disabled_total", "counter", "models",
        "Shadows switched off, by fault.",
        "any increase.",
        labels=("name", "reason"), limit=128),
    Definition("fraud_labels_total", "counter", "labels",
        "Labels consumed, by source and result.",
        "too_late, unmatched or dropped rising.",
        labels=("source", "result"), children=LABEL_CHILDREN),
    Definition("fraud_labels_contradicting_total", "counter", "labels",
        "Labels that say the opposite of what was known of their transaction, repeats included, by source.",
        "rising for chargeback: analysts err, or disputes are reversed.",
        labels=("source",), children=_each(LABEL_SOURCES)),
    Definition("fraud_labels_flooded_total", "counter", "outcomes",
        "Verdicts that nothing was learned from: more than `labels.daily` of one origin in a day.",
        "any increase: an origin floods the labels, or the bound is too low for it.",
        labels=("origin",), children=_each(LABEL_ORIGINS)),
    Definition("fraud_alerts_released_total", "counter", "alerts",
        "Alerted rows given up before their maturity for labels.max_held; verdicts on them count then.",
        "any increase."),
    Definition("fraud_label_delay_seconds", "histogram", "seconds",
        "Event-time delay from a transaction to its label.",
        "a shift to longer delays: the models learn later.",
        labels=("source",), children=_each(LABEL_SOURCES), buckets=LABEL_DELAY_SECONDS, limit=8),
    Definition("fraud_pending_labels", "gauge", "labels",
        "Labels held until their transaction has been seen.",
        "rising without end."),
    Definition("fraud_dead_letters_total", "counter", "messages",
        "Dead letters, by error code.",
        "any sudden increase.",
        labels=("reason",)),
    Definition("fraud_unknown_fields_total", "counter", "fields",
        "Input fields that are not part of the contract.",
        "a jump: a producer changed its schema."),
    Definition("fraud_missing_fields_total", "counter", "transactions",
        "Transactions without an optional field, by field.",
        "a jump of its share of the transactions: a producer has stopped to send it.",
        labels=("field",), children=_each(OPTIONAL_FIELDS)),
    Definition("fraud_alignment_overdue_total", "counter", "batches",
        "Batches released before every input had reached their event time.",
        "rising during a replay: labels may be seen late.",
        labels=("stage",), children=_each(STAGES)),
    Definition("fraud_state_keys", "gauge", "keys",
        "Keys held in memory.",
        "rising without end.",
        labels=("stage",)),
    Definition("fraud_state_bytes", "gauge", "bytes",
        "Memory of the state arrays.",
        "rising without end.",
        labels=("stage",)),
    Definition("fraud_state_dropped", "gauge", "entries",
        "Entries that the states here have given up before their time, for a limit: transaction ids for "
        "time.dedupe_max_ids, events of a key's windows, known frauds of a key.",
        "any increase: duplicates pass, or windows miss what they should hold.",
        labels=("what",)),
    Definition("fraud_undecided_lost_total", "counter", "messages",
        "Messages of scored rows that were gone before they could be decided. It is an upper bound: messages "
        "of all score partitions count, also of those that had been decided further than others.",
        "any increase: the label stage was away for longer than topics.retention allows.",),
    Definition("fraud_feature_drift", "gauge", "ratio",
        "A feature's last 24 h of event time against its reference: psi, js and ks are distances, effect is "
        "the change of the mean logit that goes with it.",
        "an alarm of the feature; each has a limit of its own.",
        labels=("feature", "measure"), limit=512),
    Definition("fraud_score_drift", "gauge", "ratio",
        "PSI of a role's scores of the last 24 h of event time against its reference.",
        "above 0.2.",
        labels=("role",)),
    Definition("fraud_drift_alarms_total", "counter", "alarms",
        "Drift alarms raised, by kind; by chance alone about one in 30 days.",
        "any increase.",
        labels=("kind",), children=_each(DRIFT_KINDS)),
    Definition("fraud_drift_raised", "gauge", "alarms",
        "1 for each figure beyond its limit.",
        "any.",
        labels=("kind", "name"), limit=128),
    Definition("fraud_concept_raised", "gauge", "alarms",
        "1 for each role whose daily log loss (kind concept), or figure of labels (kind label) has changed.",
        "any.",
        labels=("kind", "name"), limit=64),
    Definition("fraud_base_rate", "gauge", "ratio",
        "Share of frauds among the outcomes of the last day of event time that is decided.",
        "a jump."),
    Definition("fraud_label_coverage", "gauge", "ratio",
        "Share of the outcomes of that day which a label gave, by its source; maturity gave the others.",
        "falling: a source has stopped.",
        labels=("source",)),
    Definition("fraud_estimated_base_rate", "gauge", "ratio",
        "An estimate before labels: share of frauds to be expected among the scores that the model of this "
        "role gave in it in the last 24 h, if they mean what its scores meant for the outcomes of 28 days.",
        "far from fraud_base_rate.",
        labels=("role",)),
    Definition("fraud_estimated_average_precision", "gauge", "ratio",
        "An estimate before labels: average precision to be expected of the same scores.",
        "below fraud_average_precision.",
        labels=("role",)),
    Definition("fraud_alert_funnel_total", "counter", "actions",
        "What analysts did with alerts.",
        "shown rises and opened does not.",
        labels=("action",), children=_each(FUNNEL)),
    Definition("fraud_alert_ctr", "gauge", "ratio",
        "Share of the alerts of the last 24 h of event time that were shown and opened.",
        "falling: analysts no longer trust alerts."),
    Definition("fraud_alert_precision", "gauge", "ratio",
        "Share of the alerts of the last 24 h of event time that were decided and confirmed.",
        "below what the threshold was set for."),
    Definition("fraud_window_transactions", "gauge", "transactions",
        "Transactions scored in the last window of event time, by its length; of all partitions together.",
        "far from the same hour of last week.",
        labels=("window",)),
    Definition("fraud_window_late_transactions", "gauge", "transactions",
        "Transactions that came too late for the feature windows, in the last window of event time.",
        "more than a few in a thousand.",
        labels=("window",)),
    Definition("fraud_window_alerts", "gauge", "alerts",
        "Alerts in the last window of event time.",
        "far from what analysts can handle.",
        labels=("window",)),
    Definition("fraud_window_alert_rate", "gauge", "ratio",
        "Share of transactions that raised an alert, in the last window of event time.",
        "a jump, or 0 for hours.",
        labels=("window",)),
    Definition("fraud_window_amount_minor", "gauge", "minor units",
        "Money in the last 24 h of event time, by digits of the currency's minor unit: all, flagged by an "
        "alert, confirmed by an analyst.",
        "confirmed falling while flagged rises.",
        labels=("kind", "exponent"), limit=32),
    Definition("fraud_window_funnel_alerts", "gauge", "alerts",
        "Alerts of the last 24 h of event time that reached a step of the funnel, by model and arm.",
        "shown without opened.",
        labels=("model", "arm", "step"), limit=64),
    Definition("fraud_shadow_disagreement", "gauge", "ratio",
        "Share of the transactions of the last 24 h on which a shadow would have decided otherwise.",
        "a jump: one of the two has changed.",
        labels=("name",), limit=32),
    Definition("fraud_human_agreement", "gauge", "ratio",
        "Share of the alerts of the last 24 h decided by analysts with which a shadow agrees.",
        "none; above fraud_alert_precision a shadow is more selective than the champion.",
        labels=("name",), limit=32),
    Definition("fraud_decision_delay_seconds", "gauge", "seconds",
        "Mean event time from a transaction to the decision on its alert, of the last 24 h.",
        "above what stops a fraud."),
    Definition("fraud_decision_agreement", "gauge", "ratio",
        "Share of matured transactions of which alert and outcome say the same, alerts held back included.",
        "below the share of genuine transactions: no alert at all would agree more."),
    Definition("fraud_outcome_precision", "gauge", "ratio",
        "Share of frauds among alerts with an outcome: naive as they come, corrected by the control group.",
        "far apart: acting on alerts hides frauds.",
        labels=("estimate",)),
    Definition("fraud_outcome_recall", "gauge", "ratio",
        "Share of the frauds that raised an alert: naive as they come, corrected by the control group.",
        "far apart: acting on alerts hides frauds.",
        labels=("estimate",)),
    Definition("fraud_average_precision", "gauge", "ratio",
        "Average precision over matured outcomes, by role.",
        "falling, or a shadow above the champion for days.",
        labels=("role",)),
    Definition("fraud_roc_auc", "gauge", "ratio",
        "Area under the ROC curve over matured outcomes, by role.",
        "falling.",
        labels=("role",)),
    Definition("fraud_card_precision", "gauge", "ratio",
        "Share of the k riskiest cards of a day that were defrauded, by role.",
        "falling.",
        labels=("role",)),
    Definition("fraud_calibration_error", "gauge", "ratio",
        "Expected calibration error over matured outcomes, by role.",
        "above 0.02.",
        labels=("role",)),
    Definition("fraud_threshold", "gauge", "probability",
        "Score from which a transaction becomes an alert; of a budget, in the partition that scored last.",
        "a move nobody made."),
    Definition("fraud_build_info", "gauge", "info",
        "1 for the version that runs.",
        "several versions for long.",
        labels=("version",)),
)
# fmt: on


class Metrics:
    """The live families of `METRICS`, with process metrics beside them."""

    def __init__(self) -> None:
        families = Families(METRICS)
        counter, gauge, histogram = families.counter, families.gauge, families.histogram
        self.transactions = counter("fraud_transactions_total")
        self.unaccounted = gauge("fraud_unaccounted_transactions")
        self.partition_unaccounted = gauge("fraud_partition_unaccounted_transactions")
        self.consumed = counter("fraud_consumed_records_total")
        self.alerts = counter("fraud_alerts_total")
        self.alerts_held = counter("fraud_alerts_held_total")
        self.alerts_suppressed = counter("fraud_alerts_suppressed_total")
        self.control_group = counter("fraud_control_group_total")
        self.threshold_changes = counter("fraud_threshold_changes_total")
        self.alert_budget = gauge("fraud_alert_budget")
        self.alert_rate = gauge("fraud_alert_rate")
        self.rules_scored = counter("fraud_rules_scored_total")
        self.score_duration = histogram("fraud_score_duration_seconds")
        self.end_to_end = histogram("fraud_end_to_end_seconds")
        self.stage_duration = histogram("fraud_stage_duration_seconds")
        self.batch_records = histogram("fraud_batch_records")
        self.scores = histogram("fraud_score")
        self.lag_messages = gauge("fraud_consumer_lag_messages")
        self.lag_seconds = gauge("fraud_consumer_lag_seconds")
        self.stalled = gauge("fraud_stalled_seconds")
        self.commit_age = gauge("fraud_commit_age_seconds")
        self.rebalances = counter("fraud_rebalances_total")
        self.restore_seconds = gauge("fraud_restore_seconds")
        self.loop_delay = histogram("fraud_event_loop_delay_seconds")
        self.logged = counter("fraud_log_messages_total")
        self.assigned_partitions = gauge("fraud_assigned_partitions")
        self.model_info = gauge("fraud_model_info")
        self.model_updates = counter("fraud_model_updates_total")
        self.model_learned = counter("fraud_model_learned_total")
        self.champion_failures = counter("fraud_champion_failures_total")
        self.canary_share = gauge("fraud_canary_share")
        self.canary_failures = counter("fraud_canary_failures_total")
        self.arm_transactions = counter("fraud_arm_transactions_total")
        self.arm_alerts = counter("fraud_arm_alerts_total")
        self.gates_failed = gauge("fraud_gates_failed")
        self.moves_ignored = counter("fraud_moves_ignored_total")
        self.model_refused = counter("fraud_model_refused_total")
        self.model_withheld = counter("fraud_model_withheld_total")
        self.outcomes_refused = counter("fraud_outcomes_refused_total")
        self.shadow_disabled = counter("fraud_shadow_disabled_total")
        self.labels = counter("fraud_labels_total")
        self.labels_contradicting = counter("fraud_labels_contradicting_total")
        self.labels_flooded = counter("fraud_labels_flooded_total")
        self.alerts_released = counter("fraud_alerts_released_total")
        self.label_delay = histogram("fraud_label_delay_seconds")
        self.pending_labels = gauge("fraud_pending_labels")
        self.dead_letters = counter("fraud_dead_letters_total")
        self.unknown_fields = counter("fraud_unknown_fields_total")
        self.missing_fields = counter("fraud_missing_fields_total")
        self.alignment_overdue = counter("fraud_alignment_overdue_total")
        self.state_keys = gauge("fraud_state_keys")
        self.state_bytes = gauge("fraud_state_bytes")
        self.state_dropped = gauge("fraud_state_dropped")
        self.undecided_lost = counter("fraud_undecided_lost_total")
        self.feature_drift = gauge("fraud_feature_drift")
        self.score_drift = gauge("fraud_score_drift")
        self.drift_alarms = counter("fraud_drift_alarms_total")
        self.drift_raised = gauge("fraud_drift_raised")
        self.concept_raised = gauge("fraud_concept_raised")
        self.base_rate = gauge("fraud_base_rate")
        self.label_coverage = gauge("fraud_label_coverage")
        self.estimated_base_rate = gauge("fraud_estimated_base_rate")
        self.estimated_precision = gauge("fraud_estimated_average_precision")
        self.alert_funnel = counter("fraud_alert_funnel_total")
        self.alert_ctr = gauge("fraud_alert_ctr")
        self.alert_precision = gauge("fraud_alert_precision")
        self.window_transactions = gauge("fraud_window_transactions")
        self.window_late = gauge("fraud_window_late_transactions")
        self.window_alerts = gauge("fraud_window_alerts")
        self.window_alert_rate = gauge("fraud_window_alert_rate")
        self.window_amount = gauge("fraud_window_amount_minor")
        self.window_funnel = gauge("fraud_window_funnel_alerts")
        self.shadow_disagreement = gauge("fraud_shadow_disagreement")
        self.human_agreement = gauge("fraud_human_agreement")
        self.decision_delay = gauge("fraud_decision_delay_seconds")
        self.decision_agreement = gauge("fraud_decision_agreement")
        self.outcome_precision = gauge("fraud_outcome_precision")
        self.outcome_recall = gauge("fraud_outcome_recall")
        self.average_precision = gauge("fraud_average_precision")
        self.roc_auc = gauge("fraud_roc_auc")
        self.card_precision = gauge("fraud_card_precision")
        self.calibration_error = gauge("fraud_calibration_error")
        self.threshold = gauge("fraud_threshold")
        self.build_info = gauge("fraud_build_info")
        if unbound := families.unbound():
            raise ValueError(f"metrics without a family: {unbound}")
        self.registry = CollectorRegistry()
        self.registry.register(families)
        ProcessCollector(registry=self.registry)
        PlatformCollector(registry=self.registry)

    def exposition(self) -> bytes:
        """The text format, served with `CONTENT_TYPE`."""
        return generate_latest(self.registry)


CONTENT_TYPE = CONTENT_TYPE_LATEST


def bounded_source(source: str) -> str:
    """The label's source as a metric label: free text of users must not become series."""
    return source if source in LABEL_SOURCES else OTHER
