"""The observe stage: aggregates by event time, mergeable over partitions and workers.

Two loops. *Partitions* read scored rows and feedback (key: card), sum them by slots of event time
(`core.py`) and send the parts that have changed to a topic with one partition. The *merge* reads
those parts and the outcomes (`merge_core.py`), writes a record for every window to the metrics topic, and
sets the gauges, and moves the canary as the gates say (`gates.py`); it runs in one worker at a time.

State: tallies and alerts of every partition; the latest parts of all (`state.py`, `merge_state.py`).
A part is sent whole and replaces the one before it, so that what is read or sent twice counts once; the shape
of an hour is told when nothing more counts in it, and counts once a partition. Breaks:
nothing; a window may be published more than once, the last record counts.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import faust

from streams.contract.codecs import FeedbackDecoder
from streams.kafka.batches import RecordBatch
from streams.kafka.batching import batch_topic, batches
from streams.kafka.changelog import Change, Changelog
from streams.kafka.outputs import Output
from streams.stages import columns
from streams.stages.alignment import NEVER
from streams.stages.belonging import identity, require_applied
from streams.stages.columns import Columns
from streams.stages.context import StageContext, follow_assignment
from streams.stages.control_feed import ControlFeed
from streams.stages.loop import StageLoop, Step
from streams.stages.observing.core import ObserveCore
from streams.stages.observing.gates import GateWatch
from streams.stages.observing.merge import MergeWork
from streams.stages.observing.reading import Unsaved
from streams.stages.observing.shapes import SHAPES_KEY, cut, encode_shapes
from streams.stages.observing.state import ObserveState, ObserveStep, encode_parts, encode_step
from streams.stages.rows import require_spec
from streams.times import DAY

#: Messages taken at once.
MOST_MESSAGES = 1024
#: Event time that forces a save: in a replay no partition runs far ahead of the others.
SAVE_EVENT_TIME = DAY
#: Parts in a message: a part has up to 4 KB.
_PARTS_IN_MESSAGE = 128


class ObserveWork:
    """One partition of cards."""

    def __init__(self, partition: int, context: StageContext, changelog: Changelog) -> None:
        self._partition = partition
        self._context = context
        self._changelog = changelog
        self._core = ObserveCore()
        self._decoder = FeedbackDecoder(context.settings.input.max_value_bytes)
        self.state = ObserveState(context.partitions, context.settings.labels.maturity)
        #: what has come since the last save
        self._step = ObserveStep()
        self._uncounted: list[Columns] = []
        self._unsaved = Unsaved(context.clock)
        #: the last hour of which the merge has been told the shape
        self._shapes_told = NEVER
        #: event time of the last save
        self._saved_until = self.state.watermark
        self._actions: list[str] = []

    async def open(self) -> None:
        await self._changelog.restore(self._partition, self.state, identity(self._context, "scored"))
        for source in ("scored", "feedback"):
            applied = {self._partition: self.state.positions.get(source, 0)}
            await require_applied(self._context, source, applied)
        await self._changelog.save([Change(self._partition, self.state, self.begin())])

    def begin(self) -> bytes:
        """Go on from what has been restored; the delta, to be kept before anything is told."""
        step = self.state.next_generation()
        self.state.take(step)
        self._saved_until = self.state.watermark
        return encode_step(step)

    async def close(self) -> None:
        pass

    def tick(self) -> Iterator[Step]:
        """Save what waits for it, if it is time."""
        if self._unsaved.due:
            yield from self._save()

    def handle(self, batches: list[RecordBatch]) -> Iterator[Step]:
        """Scored rows and feedback in the order in which they came."""
        for batch in batches:
            if batch.topic == self._context.name("scored"):
                yield from self._scored(batch)
            else:
                self._feedback(batch)
            self._unsaved.add(batch)
            if self._full:
                yield from self._save()
        yield from self.tick()

    def _scored(self, batch: RecordBatch) -> Iterator[Step]:
        applied = self.state.positions.get("scored", 0)
        for record in batch.records:
            if record.offset >= applied:
                value = record.value or b""
                rows = columns.decode(value)
                require_spec(rows, self._context.spec.digest)
                fresh = self._core.scored(self.state, self._step, rows)
                self._uncounted.append(fresh)
                self._unsaved.read([value])
                if self._full:
                    self._core.move(self.state, self._step, "scored", record.offset + 1)
                    yield from self._save()
        self._core.move(self.state, self._step, "scored", batch.next_offset)

    def _feedback(self, batch: RecordBatch) -> None:
        """The label stage writes the dead letters."""
        applied = self.state.positions.get("feedback", 0)
        records = [record for record in batch.records if record.offset >= applied]
        items = self._decoder.decode(records).records
        self._core.feedback(self.state, self._step, items)
        self._core.move(self.state, self._step, "feedback", batch.next_offset)
        self._actions += [item.action for item in items]
        self._unsaved.read(record.value for record in records)

    @property
    def _full(self) -> bool:
        """Whether as much has been read as is saved at once."""
        return self._unsaved.full or self.state.watermark - self._saved_until >= SAVE_EVENT_TIME

    def _save(self) -> Iterator[Step]:
        """Send what has changed, then keep what has."""
        uncounted, self._uncounted = self._uncounted, []
        self._core.count(self.state, self._step, uncounted)
        outputs = [*self._shapes(), *self._parts()]
        self._core.age(self.state, self._step)
        step, self._step = self._step, ObserveStep()
        saved, self._saved_until = self._unsaved.hand_out(), self.state.watermark
        actions, self._actions = self._actions, []
        yield Step(outputs, encode_step(step))
        for action in actions:
            self._context.metrics.alert_funnel.add(1, action)
        for batch in saved:
            batch.finish()

    def _shapes(self) -> list[Output]:
        """Messages with the shapes of hours that are over; one also where an hour has none."""
        told = self._core.shapes_told(self.state, self._step, self._partition)
        if told.until <= self._shapes_told and not told.shapes:
            return []
        self._shapes_told = told.until
        topic, key = self._context.name("observe-parts"), SHAPES_KEY + str(self._partition).encode()
        return [Output(topic, 0, key, encode_shapes(piece)) for piece in cut(told)]

    def _parts(self) -> list[Output]:
        """Messages with the slots that have changed."""
        parts = self._core.parts(self.state, self._step, self._partition)
        topic, key = self._context.name("observe-parts"), str(self._partition).encode()
        return [
            Output(topic, 0, key, encode_parts(parts[start : start + _PARTS_IN_MESSAGE]))
            for start in range(0, len(parts), _PARTS_IN_MESSAGE)
        ]


class Observing:
    """The loops of the stage; `works` are the partitions."""

    def __init__(self, partitions: StageLoop[ObserveWork], merge: StageLoop[MergeWork]) -> None:
        self.partitions = partitions
        self.merge = merge

    async def stop(self) -> None:
        await self.partitions.stop()
        await self.merge.stop()


def attach(app: faust.App, context: StageContext, control: ControlFeed) -> Observing:
    """Read what there is to observe.

    Raises:
        SettingsError: the key of the control topic cannot be used.
    """
    gates = GateWatch(context, control)
    broker, outputs = context.settings.broker, context.outputs
    log = Changelog(context.name("observe-state"), broker, outputs)
    partitions = StageLoop(
        "observe",
        lambda partition: ObserveWork(partition, context, log),
        outputs,
        log,
        app.crash,
        most=MOST_MESSAGES,
        report=context.report("observe"),
    )
    merge_log = Changelog(context.name("merge-state"), broker, outputs)
    merge = StageLoop(
        "merge",
        lambda partition: MergeWork(partition, context, merge_log, gates),
        outputs,
        merge_log,
        app.crash,
        most=MOST_MESSAGES,
    )
    follow_assignment(app, partitions, context.name("scored"), context.metrics)
    follow_assignment(app, merge, context.name("observe-parts"), context.metrics)
    for topic in ("scored", "feedback"):
        _read(app, topic, context.name(topic), partitions.put)
    for topic in ("observe-parts", "outcomes"):
        _read(app, topic, context.name(topic), merge.put)
    return Observing(partitions, merge)


def _read(app: faust.App, agent: str, topic: str, put: Callable[[RecordBatch], None]) -> None:
    @app.agent(batch_topic(app, topic), name=f"observe-{agent}")
    async def read(stream: faust.Stream[RecordBatch]) -> None:
        async for batch in batches(stream):
            put(batch)
