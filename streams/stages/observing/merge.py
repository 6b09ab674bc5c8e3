"""The merge of the observe stage: one worker at a time puts the parts of all partitions together.

Reads the parts and the outcomes, one partition each. Writes a record for every window to the metrics topic,
again when something that belongs to it has come late; the last record of a window counts. Sets the gauges.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from streams.contract.codecs import encode
from streams.kafka.batches import RecordBatch
from streams.kafka.changelog import Changelog
from streams.kafka.outputs import Output
from streams.stages import columns
from streams.stages.belonging import identity, require_applied
from streams.stages.context import StageContext
from streams.stages.loop import Step
from streams.stages.observing.drift import DriftState, filling
from streams.stages.observing.gates import GateWatch
from streams.stages.observing.gauges import MergeGauges
from streams.stages.observing.merge_core import MergeCore
from streams.stages.observing.merge_state import MergeState, MergeStep, encode_step
from streams.stages.observing.reading import Unsaved
from streams.stages.observing.shapes import SHAPES_KEY, decode_shapes
from streams.stages.observing.state import decode_parts
from streams.stages.rows import require_spec

#: Between two records of a window, at least.
PUBLISH_SECONDS = 1.0
#: Between two settings of the gauges.
SHOW_SECONDS = 2.0
#: Records published at once.
MOST_RECORDS = 250


class MergeWork:
    """The one partition of parts, and of outcomes."""

    def __init__(self, partition: int, context: StageContext, changelog: Changelog, gates: GateWatch) -> None:
        self._partition = partition
        self._context = context
        self._changelog = changelog
        self._gates = gates
        self._core = MergeCore()
        self._gauges = MergeGauges(context.metrics)
        self._step = MergeStep()
        self._unsaved = Unsaved(context.clock)
        self._published_at = self._shown_at = context.clock()
        self.state = MergeState(
            context.partitions,
            DriftState(context.spec.names, filling(context.spec), partitions=context.partitions),
            context.settings.labels.maturity,
        )

    async def open(self) -> None:
        await self._changelog.restore(self._partition, self.state, identity(self._context, "observe-parts"))
        for source in ("observe-parts", "outcomes"):
            applied = {self._partition: self.state.positions.get(source, 0)}
            await require_applied(self._context, source, applied)
        self.show_restored()

    def show_restored(self) -> None:
        """Show what another worker has found last, until there is more: an alarm that is on stays on."""
        if (hour := self.state.drift.found_last()) is not None:
            self._gauges.drift(hour)
        self._show_day()

    def _show_day(self) -> None:
        """Show the last day judged."""
        if (day := self.state.days.found_last(self.state.quality)) is not None:
            self._gauges.day(day)

    async def close(self) -> None:
        """Another worker shows the figures from now on."""
        self._gauges.clear()

    def tick(self) -> Iterator[Step]:
        yield from self._go_on()

    def handle(self, batches: list[RecordBatch]) -> Iterator[Step]:
        """Parts and outcomes in the order in which they came."""
        for batch in batches:
            source = "outcomes" if batch.topic == self._context.name("outcomes") else "observe-parts"
            applied = self.state.positions.get(source, 0)
            for record in batch.records:
                if record.offset >= applied:
                    self._take(source, record.key or b"", record.value or b"")
                    self._unsaved.read([record.value])
                    if self._unsaved.full:
                        self._move(source, record.offset + 1)
                        yield from self._save()
            if batch.next_offset > applied:
                self._move(source, batch.next_offset)
            self._unsaved.add(batch)
        yield from self._go_on()

    def _move(self, source: str, offset: int) -> None:
        """The input has been read up to before `offset`."""
        self.state.positions[source] = self._step.positions[source] = offset

    def _take(self, source: str, key: bytes, value: bytes) -> None:
        if key.startswith(SHAPES_KEY):
            self._core.shapes(self.state, self._step, decode_shapes(value))
            return
        if source == "observe-parts":
            self._core.parts(self.state, self._step, decode_parts(value))
            return
        rows = columns.decode(value)
        require_spec(rows, self._context.spec.digest)
        self._core.outcomes(self.state, self._step, rows)

    def _go_on(self) -> Iterator[Step]:
        now = self._context.clock()
        if self._unsaved.due:
            yield from self._save()
        if self.state.due and now - self._published_at >= PUBLISH_SECONDS:
            self._published_at = now
            # A record of the changelog holds all that is in the state by then.
            if self._unsaved:
                yield from self._save()
            yield from self._publish()
        if outputs := self._gates.judge(self.state):
            yield Step(outputs)
        if now - self._shown_at >= SHOW_SECONDS:
            self._shown_at = now
            self._gauges.windows(self._core.current(self.state))
            self._gauges.decisions(self._core.alerts_of_a_day(self.state), self.state.decisions)
            self._gauges.quality(self._core.quality(self.state), self._core.estimates(self.state))

    def _save(self) -> Iterator[Step]:
        """Keep what has been read, then evaluate the hours and days that are over."""
        self._core.age(self.state, self._step)
        step, self._step = self._step, MergeStep()
        saved = self._unsaved.hand_out()
        yield Step((), encode_step(step))
        for batch in saved:
            batch.finish()
        topic = self._context.name("metrics")
        for evaluated, record in self._core.drift(self.state):
            told = [] if record is None else [record]
            outputs = [Output(topic, 0, f"drift/{each['end']}".encode(), encode(each)) for each in told]
            yield Step(outputs, encode_step(evaluated))
            for each in told:
                self._gauges.drift(each)
        changed, again = self._core.days_again(self.state)
        if again:
            yield Step([self._of_day(record) for record in again], encode_step(changed))
            self._show_day()
        for evaluated, record in self._core.days(self.state):
            yield Step([self._of_day(record)], encode_step(evaluated))
            self._gauges.day(record)

    def _of_day(self, record: dict[str, Any]) -> Output:
        return Output(self._context.name("metrics"), 0, f"quality/{record['end']}".encode(), encode(record))

    def _publish(self) -> Iterator[Step]:
        """The windows that are over and have changed."""
        topic = self._context.name("metrics")
        for published, records in self._core.publish(self.state, MOST_RECORDS):
            outputs = [
                Output(topic, 0, f"window/{record['window']}/{record['end']}".encode(), encode(record))
                for record in records
            ]
            yield Step(outputs, encode_step(published))
