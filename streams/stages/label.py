"""The label stage: what became of the transactions that were scored.

Reads labels and feedback (key: card), and the scored rows twice: promptly, for the rows of alerts and the
scoring watermark, and again when they mature. The second reading is a consumer of its own, outside the group:
its position is part of the state. Writes outcomes (one partition, for the learners) and known frauds (key:
last entity, for the windows), which also carry how far everything is decided.

State by partition: labels not yet used, alerted rows, the place of the late reading by score partition
(`label_core.py`). A batch read again after a crash may give an outcome twice; the windows ignore the second,
the learn stage drops outcomes it has seen.
"""

from __future__ import annotations

import logging
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from functools import partial

import faust
import numpy as np

from monitoring.metrics import bounded_source
from streams.contract.codecs import FeedbackDecoder, LabelDecoder, Rejected
from streams.contract.dead_letters import dead_letter
from streams.kafka.batches import RecordBatch
from streams.kafka.batching import TP, batch_topic, batches, transport_of
from streams.kafka.changelog import Changelog
from streams.kafka.outputs import Output
from streams.settings import Settings
from streams.stages import columns
from streams.stages.alignment import NEVER
from streams.stages.belonging import identity, require_applied
from streams.stages.columns import Columns
from streams.stages.context import StageContext, follow_assignment
from streams.stages.label_core import LabelJoin, LabelPolicy
from streams.stages.label_state import LabelState, LabelStep, encode_step
from streams.stages.late_reader import LateReader
from streams.stages.loop import StageLoop, Step
from streams.stages.rows import require_spec

#: Records taken at once.
MOST_RECORDS = 4096
#: Messages of scored rows decided before the outputs are sent.
_LATE_MESSAGES = 64

logger = logging.getLogger(__name__)


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
        self,
        partition: int,
        context: StageContext,
        changelog: Changelog,
        late: LateReader,
        caught_up: Callable[[int], bool],
    ) -> None:
        settings = context.settings
        self._partition = partition
        self._context = context
        self._changelog = changelog
        self._late = late
        self._sources = range(context.partitions)
        self._caught_up = caught_up
        self._join = LabelJoin(label_policy(settings))
        self._labels = LabelDecoder(settings.input.max_value_bytes)
        self._feedback = FeedbackDecoder(settings.input.max_value_bytes)
        self._label_seen_at = self._scored_seen_at = context.now_ms()
        self._reported: dict[int, int] = {}
        #: watermark and time decided, as they were told last
        self._progress = NEVER, NEVER
        self.state = LabelState()

    async def open(self) -> None:
        await self._changelog.restore(self._partition, self.state, identity(self._context, "scored"))
        # Reset to the earliest row, everything would be decided once more.
        places = {source: self.state.late.get(source, (0, 0))[0] for source in self._sources}
        await require_applied(self._context, "scored", {self._partition: max(places.values())})
        await self._late.start(places)

    async def close(self) -> None:
        await self._late.stop()

    def tick(self) -> Iterator[Step]:
        yield from self._mature(LabelStep(), [], [])

    def handle(self, batches: list[RecordBatch]) -> Iterator[Step]:
        """Labels, feedback and scored rows in the order in which they came; then what matures."""
        step = LabelStep()
        outcomes: list[Columns] = []
        refused: list[Output] = []
        for batch in batches:
            outcomes += self._read(batch, step, refused)
        yield from self._mature(step, outcomes, refused)
        for batch in batches:
            batch.finish()

    def _read(self, batch: RecordBatch, step: LabelStep, refused: list[Output]) -> list[Columns]:
        if batch.topic == self._context.name("labels"):
            self._label_seen_at = self._context.now_ms()
            labels = self._labels.decode(batch.records)
            refused += self._refuse(batch, labels.rejected)
            self._context.metrics.unknown_fields.add(labels.unknown_fields)
            believable = self._label_seen_at + self._context.settings.time.future_tolerance
            return self._join.labels(self.state, step, labels.records, believable=believable)
        if batch.topic == self._context.name("feedback"):
            feedback = self._feedback.decode(batch.records)
            refused += self._refuse(batch, feedback.rejected)
            self._context.metrics.unknown_fields.add(feedback.unknown_fields)
            return self._join.feedback(self.state, step, feedback.records)
        now = self._context.now_ms()
        if now - self._scored_seen_at > self._context.settings.alignment.idle_after:
            self._label_seen_at = now  # a stream begins, or goes on: its labels may be on their way
        self._scored_seen_at = now
        rows = [columns.decode(record.value or b"") for record in batch.records]
        for part in rows:
            self._require_own(part)
        return [outcome for part in rows for outcome in self._join.scored(self.state, step, part)]

    def _require_own(self, rows: Columns) -> None:
        require_spec(rows, self._context.spec.digest)

    def _refuse(self, batch: RecordBatch, rejected: Sequence[Rejected]) -> list[Output]:
        """Dead letters of a batch."""
        topic = self._context.name("dead-letters")
        for item in rejected:
            self._context.metrics.dead_letters.add(1, item.rejection.code)
        return [
            dead_letter(batch.records[item.row], item.rejection, topic, stage="label") for item in rejected
        ]

    def _mature(self, step: LabelStep, outcomes: list[Columns], refused: list[Output]) -> Iterator[Step]:
        """Decide what is ripe, send all outcomes, save what changed."""
        idle_after, now = self._context.settings.alignment.idle_after, self._context.now_ms()
        # A stage that lags, for instance after a restart, takes its own lag for no silence of the labels.
        idle = now - self._label_seen_at >= idle_after and self._caught_up(self._partition)
        messages = 0
        for source in self._sources:
            while (head := self._late.first(source)) is not None:
                offset, rows = head
                self._require_own(rows)
                ripe = self._join.ripe(self.state, source, labels_idle=idle)
                decided, done = self._join.mature(self.state, step, rows, offset, ripe)
                outcomes += decided
                if not done:
                    break
                self._late.drop(source)
                messages += 1
                if messages >= _LATE_MESSAGES:
                    yield from self._send(step, outcomes, idle, refused)
                    step, outcomes, refused, messages = LabelStep(), [], [], 0
        self._join.expire(self.state, step)
        yield from self._send(step, outcomes, idle, refused)
        self._count()

    def _send(
        self, step: LabelStep, outcomes: list[Columns], idle: bool, refused: list[Output]
    ) -> Iterator[Step]:
        outputs = refused + self._outcome_records(outcomes, idle) + self._fraud_records(outcomes, idle)
        if step != LabelStep():
            self._join.passed(
                self.state, step, {source: self._late.place(source) for source in self._sources}
            )
        delta = encode_step(step) if step != LabelStep() else None
        if outputs or delta is not None:
            yield Step(outputs, delta)

    def _outcome_records(self, outcomes: list[Columns], idle: bool) -> list[Output]:
        topic = self._context.name("outcomes")
        # Of a score partition that has not been heard of nothing is known.
        watermark = min(self.state.scored.get(p, NEVER) for p in range(self._context.partitions))
        decided = self._join.decided(self.state, self._sources, labels_idle=idle)
        if not outcomes and (watermark, decided) != self._progress:
            # Whoever learns and judges waits for the watermarks also while nothing is decided.
            outcomes = [Columns()]
        records = []
        for number, rows in enumerate(outcomes, 1):
            # What has been decided is told with the last of it.
            until = decided if number == len(outcomes) else self._progress[1]
            rows.meta |= self._meta(watermark=watermark, decided=until)
            records.append(Output(topic, 0, None, rows.encode()))
            if len(rows):
                self._time_labels(rows)
        self._progress = watermark, decided
        return records

    def _time_labels(self, outcomes: Columns) -> None:
        delays = np.maximum(outcomes.ints("labelled_at") - outcomes.ints("event_time"), 0) / 1000.0
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

    def _meta(self, *, watermark: int, decided: int) -> dict[str, object]:
        spec = self._context.spec.digest
        partition = self._partition
        return {"label_partition": partition, "spec": spec, "watermark": watermark, "decided": decided}

    def _count(self) -> None:
        metrics = self._context.metrics
        for (source, result), count in self._join.counts.items():
            metrics.labels.add(count, bounded_source(source), result)
        self._join.counts.clear()
        for source, count in self._join.contradictions.items():
            metrics.labels_contradicting.add(count, bounded_source(source))
        self._join.contradictions.clear()
        metrics.alerts_released.add(self._join.released)
        self._join.released = 0

    def held(self) -> tuple[int, int]:
        """Labels and alerts held, and the bytes of the alerts' rows."""
        alerted = self.state.alerted
        return len(self.state.verdicts) + len(alerted), sum(len(each.row) for each in alerted.values())


def attach(app: faust.App, context: StageContext) -> StageLoop[LabelWork]:
    """Read labels, feedback and scored rows in batches."""
    changelog = Changelog(context.name("label-state"), context.settings.broker, context.outputs)
    labels = context.name("labels")

    def caught_up(partition: int) -> bool:
        progress = transport_of(app).progress().get(TP(labels, partition))
        return progress is not None and not progress.held and progress.lag == 0

    def lost(partition: int, messages: int) -> None:
        context.metrics.undecided_lost.add(messages)
        logger.error(
            "%s[%d]: at most %d messages of scored rows were gone before maturity (decided ones count as "
            "well): topics.retention is too short",
            context.name("scored"),
            partition,
            messages,
        )

    def create(partition: int) -> LabelWork:
        late = LateReader(
            context.name("scored"),
            partition,
            context.partitions,
            context.settings.broker,
            on_news=partial(loop.nudge, partition),
            on_lost=partial(lost, partition),
            on_error=app.crash,
        )
        return LabelWork(partition, context, changelog, late, caught_up)

    report = context.report("label")
    loop = StageLoop("label", create, context.outputs, changelog, app.crash, most=MOST_RECORDS, report=report)
    follow_assignment(app, loop, context.name("scored"), context.metrics)
    for topic in ("labels", "feedback", "scored"):
        _read(app, topic, context.name(topic), loop)
    return loop


def _read(app: faust.App, agent: str, topic: str, loop: StageLoop[LabelWork]) -> None:
    @app.agent(batch_topic(app, topic), name=agent)
    async def read(stream: faust.Stream[RecordBatch]) -> None:
        async for batch in batches(stream):
            loop.put(batch)
