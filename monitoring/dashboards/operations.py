"""Operations: stages, partitions, processes, and what was refused."""

from __future__ import annotations

from monitoring.dashboards.builders import (
    Choice,
    Dashboard,
    Panel,
    Query,
    Row,
    increase,
    largest,
    of_workers,
    quantile,
    rate,
    select,
    total,
)

STAGE = 'stage=~"$stage"'
PARTITION = 'partition=~"$partition"'
NOTHING_REFUSED = "nothing has been refused"
NOTHING_DROPPED = "no partition of a stage that drops is held yet"
NOT_RESTORED = "no partition has been restored yet"

OPERATIONS = Dashboard(
    "fraud-operations",
    "Fraud / Operations",
    "Stages, partitions and processes: where it is slow, what stands still, what was refused.",
    (
        Row(
            "Partitions",
            (
                Panel(
                    "Lag in seconds",
                    "Age of the record finished last, while others wait. Bad: above 60 s.",
                    "s",
                    (
                        Query(
                            largest("fraud_consumer_lag_seconds", PARTITION, by="topic, partition"),
                            "{{topic}}[{{partition}}]",
                        ),
                    ),
                    limit=60,
                ),
                Panel(
                    "Lag in messages",
                    "Records that are not finished. Bad: rising for minutes.",
                    "short",
                    (
                        Query(
                            largest("fraud_consumer_lag_messages", PARTITION, by="topic, partition"),
                            "{{topic}}[{{partition}}]",
                        ),
                    ),
                ),
                Panel(
                    "Standing still",
                    "How long records have waited without one being finished. Bad: above 60 s.",
                    "s",
                    (
                        Query(
                            largest("fraud_stalled_seconds", PARTITION, by="topic, partition"),
                            "{{topic}}[{{partition}}]",
                        ),
                    ),
                    limit=60,
                ),
                Panel(
                    "Records finished",
                    "By partition, per second. Bad: one far from the others of its topic.",
                    "cps",
                    (
                        Query(
                            rate(
                                "fraud_consumed_records_total", STAGE, PARTITION, by="stage, topic, partition"
                            ),
                            "{{stage}}: {{topic}}[{{partition}}]",
                        ),
                    ),
                ),
                Panel(
                    "Unaccounted",
                    "Transactions neither scored, duplicates, dead letters nor waiting. Bad: not 0.",
                    "short",
                    (
                        Query(
                            total(
                                "fraud_partition_unaccounted_transactions",
                                STAGE,
                                PARTITION,
                                by="stage, partition",
                            ),
                            "{{stage}}[{{partition}}]",
                        ),
                    ),
                    limit=1,
                ),
                Panel(
                    "Commit age",
                    "How long finished records have not been committed. Bad: above 60 s.",
                    "s",
                    (Query(largest("fraud_commit_age_seconds", by="instance"), "{{instance}}"),),
                    limit=60,
                ),
            ),
        ),
        Row(
            "Stages",
            (
                Panel(
                    "Time for a batch, p99",
                    "By stage, sends and saved state included. Bad: above 1 s.",
                    "s",
                    (Query(quantile(0.99, "fraud_stage_duration_seconds", STAGE, by="stage"), "{{stage}}"),),
                    limit=1,
                ),
                Panel(
                    "Records in a batch, p90",
                    "By stage. Bad: at the upper end for long.",
                    "short",
                    (Query(quantile(0.9, "fraud_batch_records", STAGE, by="stage"), "{{stage}}"),),
                ),
                Panel(
                    "Rebalances",
                    "Assignments received per worker. Bad: more than a few for a deployment.",
                    "short",
                    (
                        Query(
                            increase("fraud_rebalances_total", by="instance", over="$__rate_interval"),
                            "{{instance}}",
                        ),
                    ),
                ),
                Panel(
                    "Partitions assigned",
                    "Per worker. Bad: 0 with no other worker alive.",
                    "short",
                    (Query(total("fraud_assigned_partitions", by="instance"), "{{instance}}"),),
                ),
                Panel(
                    "Restore",
                    "Time in which the partition assigned last was restored. Bad: above 30 s.",
                    "s",
                    (Query(largest("fraud_restore_seconds", STAGE, by="stage"), "{{stage}}", NOT_RESTORED),),
                    limit=30,
                ),
                Panel(
                    "Inputs given up",
                    "Batches released before every input had reached their event time. "
                    "Bad: rising during a replay.",
                    "cps",
                    (Query(rate("fraud_alignment_overdue_total", STAGE, by="stage"), "{{stage}}"),),
                ),
                Panel(
                    "Given up for a limit",
                    "Entries that states have dropped before their time, by what. Bad: any increase.",
                    "short",
                    (Query(total("fraud_state_dropped", by="what"), "{{what}}", NOTHING_DROPPED),),
                ),
                Panel(
                    "Scored rows lost undecided",
                    "Messages of scored rows that retention took before they matured. Bad: any.",
                    "short",
                    (Query(increase("fraud_undecided_lost_total", over="$__rate_interval"), "lost"),),
                ),
                Panel(
                    "Keys held",
                    "By stage. Bad: rising without end.",
                    "short",
                    (Query(total("fraud_state_keys", STAGE, by="stage"), "{{stage}}"),),
                ),
                Panel(
                    "State",
                    "Memory of the state arrays. Bad: rising without end.",
                    "bytes",
                    (Query(total("fraud_state_bytes", STAGE, by="stage"), "{{stage}}"),),
                ),
            ),
        ),
        Row(
            "Refused",
            (
                Panel(
                    "Dead letters by reason",
                    "Per second. Bad: any sudden increase.",
                    "cps",
                    (Query(rate("fraud_dead_letters_total", by="reason"), "{{reason}}", NOTHING_REFUSED),),
                    stacked=True,
                ),
                Panel(
                    "Optional fields missing",
                    "Transactions without the field, per second. Bad: a jump that they do not share.",
                    "cps",
                    (Query(rate("fraud_missing_fields_total", by="field"), "{{field}}"),),
                ),
                Panel(
                    "Warnings and errors",
                    "Logged, by where they come from, also those left out as repetitions. Bad: errors.",
                    "cps",
                    (Query(rate("fraud_log_messages_total", by="source, level"), "{{source}} {{level}}"),),
                ),
            ),
        ),
        Row(
            "Processes",
            (
                Panel(
                    "CPU",
                    "Seconds per second of each worker. Bad: at 1, for the event loop has one core.",
                    "short",
                    (
                        Query(
                            of_workers(f"rate({select('process_cpu_seconds_total')}[$__rate_interval])"),
                            "{{instance}}",
                        ),
                    ),
                ),
                Panel(
                    "Memory",
                    "Resident memory of each worker. Bad: near its limit.",
                    "bytes",
                    (Query(of_workers(select("process_resident_memory_bytes")), "{{instance}}"),),
                ),
                Panel(
                    "Event loop delay, p99",
                    "How late the loop comes back from a wait. Bad: above 0.25 s.",
                    "s",
                    (Query(quantile(0.99, "fraud_event_loop_delay_seconds", by="instance"), "{{instance}}"),),
                    limit=0.25,
                ),
                Panel(
                    "Open files",
                    "Of each worker. Bad: rising without end.",
                    "short",
                    (Query(of_workers(select("process_open_fds")), "{{instance}}"),),
                ),
                Panel(
                    "Versions",
                    "What runs where, and since when. Bad: several versions for long.",
                    "dateTimeFromNow",
                    (
                        Query(
                            f"{select('process_start_time_seconds')} * 1000 "
                            f"* on (job, instance) group_left (version) {select('fraud_build_info')}",
                            "{{instance}} {{version}}",
                        ),
                    ),
                    kind="table",
                    column="started",
                    width=24,
                    height=6,
                ),
            ),
        ),
    ),
    (
        Choice("stage", "Stage", "fraud_stage_duration_seconds_count", "stage"),
        Choice("partition", "Partition", "fraud_consumer_lag_messages", "partition"),
    ),
    since="now-3h",
)
