"""The score stage: windows of the terminal, then champion, canary and shadows.

Reads the hop topic and the known frauds (key: last entity), and the models and control topics. Writes scores
and alerts, and the scored rows for the stages that learn and observe, all keyed by card, on the partition the
transaction came from; and to the metrics topic from which offsets on which models score.

State by partition: terminal windows with known frauds, the last offset scored of every card partition, the
model slots, what the decision policy remembers (`score_core.py`). Rows wait until every input has reached
their event time, unless they are live (`alignment.py`). A batch read again after a crash is scored with the
versions that were in use, so that it gives the same scores.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace

import faust

from models.decision import DecisionPolicy
from models.deployment import Deployment
from models.memory import MemoryWatch
from streams.kafka.batches import RecordBatch
from streams.kafka.batching import TP, batch_topic, batches, transport_of
from streams.kafka.changelog import Changelog
from streams.kafka.outputs import Output
from streams.stages import columns
from streams.stages.alignment import FOREVER, NEVER
from streams.stages.belonging import identity, require_applied
from streams.stages.columns import Columns
from streams.stages.context import StageContext, follow_assignment
from streams.stages.control_feed import ControlFeed
from streams.stages.decisions import decision_policy
from streams.stages.loop import StageLoop, Step
from streams.stages.model_feed import ModelFeed
from streams.stages.models_in_use import ModelsInUse
from streams.stages.rows import rows_in_message
from streams.stages.score_alignment import ScoreAlignment
from streams.stages.score_core import ScoreCore, ScoreState, ScoreStep
from streams.stages.score_counts import ScoreCounts
from streams.stages.score_publisher import Publisher
from streams.stages.scored_records import ScoredRecords
from streams.stages.waiting_rows import Chunk, WaitingRows

logger = logging.getLogger(__name__)

#: Rows scored at once; twice as many where they are of one watermark.
CHUNK_ROWS = 4096
#: Messages of the hop and of known frauds taken at once.
MOST_MESSAGES = 1024
#: Between two marks of a partition without rows.
_MARK_SECONDS = 0.25
#: What the label stage has told is saved with the next rows, or after this.
_SAVE_SECONDS = 1.0
#: While rows wait, what they wait for is asked again: the label stage may be another one by now.
_REPEAT_SECONDS = 1.0


class ScoreWork:
    """One partition of the hop.

    Args:
        feed: the model versions.
        control: who holds which alias.
        policy: decides which scores are alerts.
        caught_up: whether the partition is known to hold nothing that is not finished.
        memory: watches what the shadows of all partitions take.
    """

    def __init__(
        self,
        partition: int,
        context: StageContext,
        changelog: Changelog,
        feed: ModelFeed,
        control: ControlFeed,
        policy: DecisionPolicy,
        caught_up: Callable[[], bool] = lambda: False,
        memory: MemoryWatch | None = None,
    ) -> None:
        settings = context.settings
        self._partition = partition
        self._context = context
        self._changelog = changelog
        self._caught_up = caught_up
        self._unannounced = False
        self._publisher = Publisher(context, policy, partition)
        self._core = ScoreCore(policy, context.clock)
        self._counts = ScoreCounts(context, policy)
        self._models = ModelsInUse(partition, context, feed, control, memory)
        self._deployment = self._models.deployment
        shadows = len(self._deployment.shadows)
        self._chunk_rows = min(CHUNK_ROWS, rows_in_message(len(context.spec.names) + shadows) // 2)
        self._unsaved: list[RecordBatch] = []
        self._scored = 0
        #: rows received that are neither scored nor waiting; always 0
        self.unaccounted = 0
        self._known_frauds = context.name("known-frauds")
        self._records = ScoredRecords(context, partition)
        #: After a restart, while rows may come that have been scored and not saved; and the offset after the
        #: last of those, once one has come.
        self._pinned = False
        self._pinned_until: int | None = None
        self._saved_at = context.clock()
        self.state = ScoreState(context.spec, lateness_ms=settings.time.allowed_lateness)
        entity = self.state.entity
        looks_at_frauds = entity is not None and entity.risk is not None
        self._alignment = ScoreAlignment(context, partition, looks_at_frauds=looks_at_frauds)
        self.waiting: WaitingRows[RecordBatch] = WaitingRows({})

    async def open(self) -> None:
        restored = await self._changelog.restore(
            self._partition, self.state, identity(self._context, "transactions")
        )
        applied = {card_partition: last + 1 for card_partition, last in self.state.applied.items()}
        await require_applied(self._context, "transactions", applied)
        anew = not (restored.deltas or restored.buckets)
        if not anew:
            self._alignment.restored(self.state.told)
        self.waiting = WaitingRows(self.state.applied, self._context.spec.digest, self.state.ahead)
        slots = self.state.slots
        known = slots is None or self._models.restore(slots)
        # Whoever adopted them may have died before it said so.
        self._unannounced = slots is not None and known
        # Versions that are gone cannot score again what they have scored.
        self._pinned = known and not anew
        self._counts.models(self._deployment)

    def handle(self, batches: list[RecordBatch]) -> Iterator[Step]:
        """Known frauds first, then the rows that every input has reached."""
        yield from self._take_frauds([batch for batch in batches if batch.topic == self._known_frauds])
        for batch in batches:
            if batch.topic != self._known_frauds:
                parts = [columns.decode(record.value or b"") for record in batch.records]
                for part in parts:
                    self._alignment.take_cards(part.meta_int("card_partition"), part.meta_int("watermark"))
                self.waiting.put(parts, batch)
                if self._pinned_until is None:
                    self._pinned_until = max(batch.highwater or 0, batch.next_offset)
        yield from self._release()

    def tick(self) -> Iterator[Step]:
        """What waits may have waited long enough; tell the last watermark to those who have not heard it."""
        if self._pinned and self._pinned_until is None and self._caught_up():
            self._pinned = False
        yield from self._adopt_models()
        yield from self._release()
        if self._unsaved and self._context.clock() - self._saved_at > _SAVE_SECONDS:
            yield from self._save(None, None, ScoreStep())
        owed = self._records.owed()
        if self.waiting.rows and self._records.marked_before(_REPEAT_SECONDS):
            yield self._mark(range(self._context.partitions))
        elif owed:
            yield self._mark(owed)

    async def close(self) -> None:
        pass

    def _take_frauds(self, batches: list[RecordBatch]) -> Iterator[Step]:
        """Frauds that have become known, and up to when the label stage has told all."""
        parts = [columns.decode(record.value or b"") for batch in batches for record in batch.records]
        for part in parts:
            self._alignment.take_told(part.meta_int("label_partition"), part.meta_int("told"))
        # The batches are finished by the next save, maybe that of rows: it keeps what has been told.
        self._unsaved += batches
        frauds = [part for part in parts if len(part)]
        if frauds:
            joined = columns.concat(frauds)
            self.state.add_frauds(joined)
            yield from self._save(None, joined, ScoreStep())

    def _release(self) -> Iterator[Step]:
        """Score what every input has reached."""
        if not self.waiting.rows:
            self._alignment.rest(self._context.now_ms())
            yield from self._finish(self.waiting.done(FOREVER))
            yield from self._pass_time()
            return
        if self.state.began == NEVER:
            self.state.began = self.waiting.oldest()
        now, alignment = self._context.now_ms(), self._context.settings.alignment
        live, newest = self.waiting.live(now, alignment.live_within)
        frontier = self._alignment.frontier(self.state.began, newest, now)
        if self.waiting.rows > alignment.max_buffered_rows:
            self._context.metrics.alignment_overdue.add(1, "score")
            frontier = FOREVER
        for chunk in self.waiting.take(frontier, self._chunk_rows, live):
            yield from self._score(chunk, frontier)
        self.unaccounted = self.waiting.received - self._scored - self.waiting.rows
        yield from self._finish(self.waiting.done(frontier, live))
        if self._records.until < frontier < FOREVER:
            # An hour without rows is scored, too: the label stage waits for it.
            self._records.until = frontier
            yield self._mark(range(self._context.partitions))

    def _finish(self, batches: list[RecordBatch]) -> Iterator[Step]:
        """Batches all of whose rows are scored."""
        if batches:
            yield Step(finishes=batches)
        for batch in batches:
            if self._pinned_until is not None and batch.next_offset >= self._pinned_until:
                self._pinned = False

    def _pass_time(self) -> Iterator[Step]:
        """Without rows of its own a partition goes on with the cards: learners wait for the slowest one."""
        reached = self._alignment.cards_reached()
        if reached > self._records.until and self._records.marked_before(_MARK_SECONDS):
            self._records.until = reached
            yield self._mark(range(self._context.partitions))

    def _mark(self, partitions: Iterable[int]) -> Step:
        """Tell the label stage how far scoring is and what it has seen."""
        return Step(self._records.marks(partitions, self._deployment, self.waiting.newest))

    def _score(self, chunk: Chunk, frontier: int) -> Iterator[Step]:
        yield from self._adopt_models()
        rows = chunk.rows
        scored = self._core.process(self.state, self._deployment, rows)
        self._records.until = max(self._records.until, min(frontier, chunk.until))
        outputs = list(
            self._publisher.outputs(scored, self._deployment, self._core, hold_alerts=self._alerts_held)
        )
        outputs += self._records.rows(
            scored,
            self._core,
            self._deployment,
            self.waiting.newest,
            self.state.applied,
            move=self.state.slots.move if self.state.slots else 0,
            # Rows that have waited for the label stage go on in step with it.
            everywhere=frontier < FOREVER,
        )
        step = ScoreStep(
            applied=chunk.applied, began=self.state.began, ahead=chunk.ahead, decisions=self._core.change
        )
        yield from self._save(rows, None, step, outputs)
        self._scored += len(rows)
        self._counts.scored(scored, self._core, self._deployment, self.state, held=self._alerts_held)

    def _adopt_models(self) -> Iterator[Step]:
        """Change the models between two chunks; which ones is durable before they score anything."""
        if self._unannounced and self.state.slots:
            self._unannounced = False
            yield Step([self._models.announcement(self.state.slots, self.state)])
        if self._pinned or (fit := self._models.wanted(self.state.slots)) is None:
            return
        slots, found = fit
        yield from self._save(None, None, ScoreStep(slots=slots))
        self._models.adopt(slots, found)
        yield Step([self._models.announcement(slots, self.state)])
        self._counts.models(self._deployment)

    def _save(
        self, rows: Columns | None, frauds: Columns | None, step: ScoreStep, outputs: Sequence[Output] = ()
    ) -> Iterator[Step]:
        step = replace(step, told=dict(self._alignment.told))
        self.state.advance(step)
        saved, self._unsaved = self._unsaved, []
        self._saved_at = self._context.clock()
        yield Step(outputs, self.state.delta(rows, frauds, step), finishes=saved, ahead=step.slots is None)

    @property
    def _alerts_held(self) -> bool:
        return self.state.slots is not None and self.state.slots.alerts_held

    @property
    def stood_in(self) -> bool:
        """Whether the champion failed in the last batch."""
        return self._core.stood_in

    def dropped(self) -> dict[str, int]:
        """What the state has given up before its time, by the names of `fraud_state_dropped`."""
        windows = self.state.windows
        if windows is None:
            return {}
        return {"window_events": windows.truncated, "known_frauds": windows.frauds_dropped}

    @property
    def deployment(self) -> Deployment:
        """The models in place, to be looked at."""
        return self._deployment

    def held(self) -> tuple[int, int]:
        """Keys and bytes of the state."""
        windows = self.state.windows
        return (windows.n_keys, windows.nbytes) if windows is not None else (0, 0)


def attach(
    app: faust.App, context: StageContext, feed: ModelFeed, control: ControlFeed
) -> StageLoop[ScoreWork]:
    """Read the hop and the known frauds in batches; follow the models and their aliases."""
    changelog = Changelog(context.name("score-state"), context.settings.broker, context.outputs)
    policy = decision_policy(context.settings)
    memory = MemoryWatch(context.settings.models.shadow_memory_bytes)
    hop = context.name(f"by-{context.spec.entities[-1].name}")
    transport = transport_of(app)

    def create(partition: int) -> ScoreWork:
        def caught_up() -> bool:
            progress = transport.progress().get(TP(hop, partition))
            return progress is not None and progress.lag == 0

        return ScoreWork(partition, context, changelog, feed, control, policy, caught_up, memory)

    loop = StageLoop(
        "score",
        create,
        context.outputs,
        changelog,
        app.crash,
        most=MOST_MESSAGES,
        report=context.report("score"),
    )
    follow_assignment(app, loop, hop, context.metrics)

    def moved() -> None:
        for partition in loop.works:
            loop.nudge(partition)

    control.on_moved.append(moved)

    @app.agent(batch_topic(app, hop), name="score")
    async def score(stream: faust.Stream[RecordBatch]) -> None:
        async for batch in batches(stream):
            loop.put(batch)

    @app.agent(batch_topic(app, context.name("known-frauds")), name="known-frauds")
    async def known_frauds(stream: faust.Stream[RecordBatch]) -> None:
        async for batch in batches(stream):
            loop.put(batch)

    return loop
