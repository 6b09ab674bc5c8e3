"""The observe stage in one process without a broker: every partition and the merge, topics and changelogs."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Sequence
from typing import cast

from streams.app import build
from streams.kafka.batches import PartitionBook, RecordBatch
from streams.kafka.changelog import Changelog
from streams.kafka.outputs import Output
from streams.kafka.state_log import Message, PartitionState, Reader, marker
from streams.settings import Settings
from streams.stages.belonging import identity
from streams.stages.context import StageContext
from streams.stages.loop import Step
from streams.stages.observing.gates import GateWatch
from streams.stages.observing.merge import MergeWork
from streams.stages.observing.merge_state import MergeState
from streams.stages.observing.stage import ObserveWork
from tests.streams.sources import Source

#: Messages in a batch.
_BATCH = 64


class Died(Exception):
    """A worker has ended between sending and saving."""


class NoGates:
    """Judges nothing."""

    def judge(self, state: MergeState) -> list[Output]:
        return []


class Log:
    """The changelog of one partition, compacted at once."""

    def __init__(self, context: StageContext, source: str) -> None:
        self._identity = identity(context, source)
        self._records: list[Message] = []
        self.sizes: list[int] = []

    def take_over(self, state: PartitionState) -> None:
        """Restore into the empty state."""
        own = marker(f"owner{len(self.sizes)}", self._identity)
        self._records.append(own)
        reader = Reader(state, self._identity, "log")
        for key, value in self._records:
            reader.read(key, value)
        self._writer = reader.writer()

    def save(self, delta: bytes, state: PartitionState) -> None:
        messages = self._writer.records(state, delta)
        self.sizes += [len(value or b"") for _, value in messages]
        self._records += messages
        gone = {key for key, _ in self._writer.settled()}
        self._records = [(key, value) for key, value in self._records if key not in gone]


class Stage:
    """All partitions and the merge, as workers that come and go; two seconds pass with every call."""

    def __init__(self, settings: Settings) -> None:
        made = build(settings, ["observe"]).contexts["observe"]
        self.context = StageContext(
            settings, made.spec, made.catalogue, made.outputs, made.metrics, clock=lambda: self._now
        )
        self._now = 0.0
        self._topics: defaultdict[tuple[str, int], list[Message]] = defaultdict(list)
        #: what the present worker has read of each
        self._read: Counter[tuple[str, int]] = Counter()
        self.logs = [Log(self.context, "scored") for _ in range(self.context.partitions)]
        self.merge_log = Log(self.context, "observe-parts")
        self._parts: dict[int, ObserveWork] = {}
        for number in range(self.context.partitions):
            self.restart(number)
        self.restart_merge()

    def restart(self, number: int) -> None:
        """Another worker takes the partition over: it restores it, and reads on from where that is."""
        work = self._parts[number] = ObserveWork(number, self.context, cast(Changelog, None))
        self.logs[number].take_over(work.state)
        self.logs[number].save(work.begin(), work.state)
        for topic in ("scored", "feedback"):
            self._read[topic, number] = work.state.positions.get(topic, 0)

    def restart_merge(self) -> None:
        """Another worker takes the merge over."""
        gates = cast(GateWatch, NoGates())
        self.merge = MergeWork(0, self.context, cast(Changelog, None), gates)
        self.merge_log.take_over(self.merge.state)
        self.merge.show_restored()
        for topic in ("observe-parts", "outcomes"):
            self._read[topic, 0] = self.merge.state.positions.get(topic, 0)

    def send(self, topic: str, partition: int, values: Iterable[bytes], key: bytes = b"") -> None:
        """Append to a topic of the catalogue."""
        self._topics[topic, partition] += [(key, value) for value in values]

    def observe(self, number: int, *, dies: bool = False) -> None:
        """Have a partition work on what has come for it."""
        work, log = self._parts[number], self.logs[number]
        self._work(work, log, [("scored", number), ("feedback", number)], dies=dies)

    def put_together(self, *, dies: bool = False) -> None:
        """Have the merge work on what has come."""
        self._work(self.merge, self.merge_log, [("observe-parts", 0), ("outcomes", 0)], dies=dies)

    def last(self, topic: str) -> dict[bytes, bytes]:
        """The last record of every key."""
        return {key: value or b"" for key, value in self._topics[topic, 0]}

    def sent(self, topic: str) -> list[bytes]:
        """All that stands on the first partition of the topic."""
        return [value or b"" for _, value in self._topics[topic, 0]]

    def _work(
        self, work: ObserveWork | MergeWork, log: Log, inputs: Sequence[tuple[str, int]], *, dies: bool
    ) -> None:
        self._now += 1.0
        batches = [batch for source in inputs for batch in self._new(*source)]
        if batches:
            self._carry_out(work.handle(batches), log, work.state, dies=dies)
        self._now += 1.0
        self._carry_out(work.tick(), log, work.state, dies=dies)

    def _new(self, topic: str, partition: int) -> Iterator[RecordBatch]:
        """What has come since the last call, in batches."""
        messages, name = self._topics[topic, partition], self.context.name(topic)
        book, first = PartitionBook(name, partition), self._read[topic, partition]
        self._read[topic, partition] = len(messages)
        for start in range(first, len(messages), _BATCH):
            records = [
                Source(value, key=key, offset=start + number, topic=name, partition=partition)
                for number, (key, value) in enumerate(messages[start : start + _BATCH])
            ]
            yield book.hand_out(records, start + len(records), None)

    def _carry_out(self, steps: Iterator[Step], log: Log, state: PartitionState, *, dies: bool) -> None:
        ids = {topic.name: topic.id for topic in self.context.catalogue}
        for step in steps:
            for output in step.outputs:
                self.send(ids[output.topic], output.partition, [output.value or b""], output.key or b"")
            if dies and step.outputs:
                raise Died
            if step.delta is not None:
                log.save(step.delta, state)
