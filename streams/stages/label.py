"""The label stage: what became of the transactions that were scored.

Reads labels and feedback (key: card), and the scored rows twice: promptly, for the rows of alerts and the
scoring watermark, and again when they mature. The second reading is a consumer of its own, outside the group:
its position is part of the state. Writes outcomes (one partition, for the learners) and known frauds (key:
last entity, for the windows), which also carry how far everything is decided.

State by partition: labels not yet used, alerted rows, the position of the late reading (`label_core.py`). A
batch read again after a crash may give an outcome twice; the windows ignore the second, the learn stage drops
outcomes it has seen.
"""

from __future__ import annotations

from collections import defaultdict, deque
from collections.abc import Callable, Sequence
from typing import Any

import aiokafka
import faust
import numpy as np

from monitoring.metrics import bounded_source
from streams.contract.codecs import FeedbackDecoder, LabelDecoder, Rejected
from streams.contract.dead_letters import dead_letter
from streams.kafka.batches import RecordBatch
from streams.kafka.batching import TP, batch_topic, batches, transport_of
from streams.kafka.changelog import Changelog
from streams.kafka.connection import client_options
from streams.kafka.outputs import Output
from streams.settings import Settings
from streams.stages import columns
from streams.stages.alignment import NEVER
from streams.stages.belonging import identity, require_applied
from streams.stages.columns import Columns
from streams.stages.context import StageContext, failpoint, follow_assignment
from streams.stages.label_core import LabelJoin, LabelPolicy
from streams.stages.label_state import LabelState, LabelStep, encode_step
from streams.stages.partitions import PartitionTasks
from streams.stages.rows import require_spec

#: Records taken at once.
MOST_RECORDS = 4096
#: Messages of scored rows decided before the outputs are sent.
_LATE_MESSAGES = 64


class LateReader:
    """Scored rows of one partition from an offset on, one message at a time, outside the consumer group."""

    def __init__(self, topic: str, partition: int, context: StageContext) -> None:
        self._tp = aiokafka.TopicPartition(topic, partition)
        self._consumer = aiokafka.AIOKafkaConsumer(
            **client_options(context.settings.broker),
            enable_auto_commit=False,
            auto_offset_reset="earliest",
            fetch_max_wait_ms=200,
        )
        self._spec_digest = context.spec.digest
        self._fetched: deque[aiokafka.ConsumerRecord[Any, Any]] = deque()
        self._head: tuple[int, Columns] | None = None

    async def start(self, offset: int) -> None:
        """Connect; whatever keeps it from that, nothing stays open."""
        try:
            await self._consumer.start()
            self._consumer.assign([self._tp])
            self._consumer.seek(self._tp, offset)
        except BaseException:
            await self._consumer.stop()
            raise

    async def stop(self) -> None:
        await self._consumer.stop()

    async def peek(self, *, wait_ms: int = 0) -> tuple[int, Columns] | None:
        """The next message and its offset, or None if none comes within `wait_ms`."""
        if self._head is None:
            if not self._fetched:
                fetched = await self._consumer.getmany(
                    self._tp, timeout_ms=wait_ms, max_records=_LATE_MESSAGES
                )
                for records in fetched.values():
                    self._fetched.extend(records)
            if self._fetched:
                record = self._fetched.popleft()
                self._head = record.offset, _scored_rows(record.value, self._spec_digest)
        return self._head

    def skip(self) -> None:
        """The message that `peek` gave is done with."""
        self._head = None


def _scored_rows(message: bytes | None, spec_digest: str) -> Columns:
    rows = columns.decode(message or b"")
    if "spec" in rows.meta:
        require_spec(rows, spec_digest)
    return rows


def label_policy(settings: Settings) -> LabelPolicy:
    """The times of the label join, from the settings."""
    return LabelPolicy(
        maturity_ms=settings.labels.maturity,
        expiry_ms=settings.topics.retention,
        soonest_ms=settings.labels.soonest,
        jump_ms=settings.time.watermark_jump,
        max_held=settings.labels.max_held,
    )


class LabelWork:
    """One partition of cards."""

    def __init__(
        self, partition: int, context: StageContext, changelog: Changelog, caught_up: Callable[[int], bool]
    ) -> None:
        settings = context.settings
        self._partition = partition
        self._context = context
        self._changelog = changelog
        self._caught_up = caught_up
        self._join = LabelJoin(label_policy(settings))
        self._labels = LabelDecoder(settings.input.max_value_bytes)
        self._feedback = FeedbackDecoder(settings.input.max_value_bytes)
        self._late = LateReader(context.name("scored"), partition, context)
        self._label_seen_at = self._scored_seen_at = context.now_ms()
        self._reported: dict[int, int] = {}
        self._scored_end = 0
        self.state = LabelState()

    async def open(self) -> None:
        await self._changelog.restore(self._partition, self.state, identity(self._context, "scored"))
        # Reset to the earliest row, everything would be decided once more.
        await require_applied(self._context, "scored", {self._partition: self.state.late_offset})
        await self._late.start(self.state.late_offset)

    async def close(self) -> None:
        await self._late.stop()

    async def tick(self) -> None:
        await self._mature(LabelStep(), [])

    async def handle(self, batches: list[RecordBatch]) -> None:
        """Labels, feedback and scored rows in the order in which they came; then what matures."""
        step = LabelStep()
        outcomes: list[Columns] = []
        for batch in batches:
            outcomes += await self._read(batch, step)
        await self._mature(step, outcomes)
        for batch in batches:
            batch.finish()

    async def _read(self, batch: RecordBatch, step: LabelStep) -> list[Columns]:
        if batch.topic == self._context.name("labels"):
            self._label_seen_at = self._context.now_ms()
            labels = self._labels.decode(batch.records)
            await self._refuse(batch, labels.rejected)
            believable = self._label_seen_at + self._context.settings.time.future_tolerance
            return self._join.labels(self.state, step, labels.records, believable=believable)
        if batch.topic == self._context.name("feedback"):
            feedback = self._feedback.decode(batch.records)
            await self._refuse(batch, feedback.rejected)
            return self._join.feedback(self.state, step, feedback.records)
        self._scored_end = batch.next_offset
        now = self._context.now_ms()
        if now - self._scored_seen_at > self._context.settings.alignment.idle_after:
            self._label_seen_at = now  # a stream begins, or goes on: its labels may be on their way
        self._scored_seen_at = now
        rows = [_scored_rows(record.value, self._context.spec.digest) for record in batch.records]
        return [outcome for part in rows for outcome in self._join.scored(self.state, step, part)]

    async def _refuse(self, batch: RecordBatch, rejected: Sequence[Rejected]) -> None:
        topic = self._context.name("dead-letters")
        if rejected:
            await self._context.outputs.send(
                dead_letter(batch.records[item.row], item.rejection, topic, stage="label")
                for item in rejected
            )
            for item in rejected:
                self._context.metrics.dead_letters.add(1, item.rejection.code)

    async def _mature(self, step: LabelStep, outcomes: list[Columns]) -> None:
        """Decide what is ripe, send all outcomes, save what changed."""
        idle_after, now = self._context.settings.alignment.idle_after, self._context.now_ms()
        # A stage that lags, for instance after a restart, takes its own lag for no silence of the labels.
        idle = now - self._label_seen_at >= idle_after and self._caught_up(self._partition)
        messages = 0
        while (head := await self._late.peek(wait_ms=self._late_wait())) is not None:
            offset, rows = head
            ripe = self._join.ripe(self.state, rows.meta_int("score_partition"), labels_idle=idle)
            decided, done = self._join.mature(self.state, step, rows, offset, ripe)
            outcomes += decided
            if done:
                self._late.skip()
                messages += 1
            if not done or messages >= _LATE_MESSAGES:
                if messages:
                    await self._send(step, outcomes, idle)
                    step, outcomes, messages = LabelStep(), [], 0
                if not done:
                    break
        self._join.expire(self.state, step)
        await self._send(step, outcomes, idle)
        self._count()

    def _late_wait(self) -> int:
        """Milliseconds: what the other reading has seen is there and will come."""
        return 200 if self.state.late_offset < self._scored_end else 0

    async def _send(self, step: LabelStep, outcomes: list[Columns], idle: bool) -> None:
        outputs = self._outcome_records(outcomes) + self._fraud_records(outcomes, idle)
        if outputs:
            await self._context.outputs.send(outputs)
            failpoint("label:sent")
        if step != LabelStep():
            delta = encode_step(step)
            await self._changelog.save(self._partition, self.state, delta)
            failpoint("label:saved")

    def _outcome_records(self, outcomes: list[Columns]) -> list[Output]:
        topic = self._context.name("outcomes")
        watermark = min(self.state.scored.values(), default=NEVER)
        records = []
        for rows in outcomes:
            rows.meta |= self._meta(watermark=watermark)
            records.append(Output(topic, 0, None, rows.encode()))
            self._time_labels(rows)
        if not records and watermark != self._reported.get(-1):
            # Learners wait for the scoring watermark also while nothing is decided.
            records.append(Output(topic, 0, None, Columns(self._meta(watermark=watermark)).encode()))
        self._reported[-1] = watermark
        return records

    def _time_labels(self, outcomes: Columns) -> None:
        delays = (outcomes.ints("known_at") - outcomes.ints("event_time")) / 1000.0
        sources = np.array(outcomes.strings["source"])
        for source in set(outcomes.strings["source"]) - {"maturity"}:
            self._context.metrics.label_delay.observe(delays[sources == source], bounded_source(source))

    def _fraud_records(self, outcomes: list[Columns], idle: bool) -> list[Output]:
        """Frauds and reversals to the score partitions, each with how far its rows are decided."""
        by_partition: dict[int, list[Columns]] = defaultdict(list)
        for rows in outcomes:
            notable = rows.bools("fraud") | (np.array(rows.strings["source"]) != "maturity")
            if notable.any():
                names = ("hop", "event_time", "known_at", "transaction", "fraud")
                chosen = rows.take(notable)
                score_partition = rows.meta_int("score_partition")
                by_partition[score_partition].append(
                    Columns({}, {name: chosen.arrays[name] for name in names})
                )
        topic = self._context.name("known-frauds")
        records = []
        # The late reading can be ahead of the prompt one.
        for score_partition in self.state.scored.keys() | by_partition.keys():
            told = self._join.told(self.state, score_partition, labels_idle=idle)
            parts = by_partition.pop(score_partition, [])
            # The first one is sent whatever it says: a score partition that has heard of this one waits
            # longer for it than this one takes to find that there are no labels.
            if not parts and told <= self._reported.get(score_partition, NEVER - 1):
                continue
            self._reported[score_partition] = told
            message = columns.concat(parts) if parts else Columns()
            message = Columns(
                {"label_partition": self._partition, "told": told}, message.arrays, message.strings
            )
            records.append(Output(topic, score_partition, None, message.encode()))
        return records

    def _meta(self, *, watermark: int) -> dict[str, object]:
        spec = self._context.spec.digest
        return {"label_partition": self._partition, "spec": spec, "watermark": watermark}

    def _count(self) -> None:
        metrics = self._context.metrics
        for (source, result), count in self._join.counts.items():
            metrics.labels.add(count, bounded_source(source), result)
        self._join.counts.clear()
        metrics.alerts_released.add(self._join.released)
        self._join.released = 0

    def held(self) -> tuple[int, int]:
        """Labels and alerts held, and the bytes of the alerts' rows."""
        alerted = self.state.alerted
        return len(self.state.verdicts) + len(alerted), sum(len(each.row) for each in alerted.values())


def attach(app: faust.App, context: StageContext) -> PartitionTasks[LabelWork]:
    """Read labels, feedback and scored rows in batches, one task per partition."""
    changelog = Changelog(context.name("label-state"), context.settings.broker, context.outputs)
    labels = context.name("labels")

    def caught_up(partition: int) -> bool:
        progress = transport_of(app).progress().get(TP(labels, partition))
        return progress is not None and not progress.held and progress.lag == 0

    tasks = PartitionTasks(
        "label",
        lambda partition: LabelWork(partition, context, changelog, caught_up),
        app.crash,
        most=MOST_RECORDS,
    )
    follow_assignment(app, tasks, context.name("scored"), context.metrics)
    for topic in ("labels", "feedback", "scored"):
        _read(app, topic, context.name(topic), tasks)
    return tasks


def _read(app: faust.App, agent: str, topic: str, tasks: PartitionTasks[LabelWork]) -> None:
    @app.agent(batch_topic(app, topic), name=agent)
    async def read(stream: faust.Stream[RecordBatch]) -> None:
        async for batch in batches(stream):
            tasks.put(batch)
