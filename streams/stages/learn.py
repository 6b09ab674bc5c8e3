"""The learn stage: River learners on outcomes, frozen versions out.

Reads outcomes (one partition, so that the learners see one order). Writes model versions to the models topic,
keyed `name/version`; the oldest are tombstoned.

State: the learners, the outcomes that have not taken effect, the position (`learn_core.py`), in one
checkpoint. Batches are finished only when a checkpoint covers them, so that a restarted stage neither learns
twice nor misses an outcome, and publishes the same versions again.
"""

from __future__ import annotations

import asyncio
import pickle

import faust

from models.snapshot import Snapshot, encode
from streams.kafka.batches import RecordBatch
from streams.kafka.batching import batch_topic, batches
from streams.kafka.changelog import Changelog
from streams.kafka.outputs import Output
from streams.settings import Settings
from streams.stages import columns
from streams.stages.alignment import NEVER
from streams.stages.context import StageContext, failpoint, follow_assignment
from streams.stages.learn_core import LearnCore, LearnRules, LearnState
from streams.stages.model_feed import model_key
from streams.stages.model_slots import build_learners
from streams.stages.partitions import PartitionTasks

#: Messages of outcomes taken at once.
MOST_MESSAGES = 64
#: Versions of a model that stay on the topic.
VERSIONS_KEPT = 20
_CHECKPOINT_SECONDS = 20.0


def learn_rules(settings: Settings, spec_digest: str) -> LearnRules:
    """Publication, from the settings."""
    return LearnRules(
        publish_every_ms=settings.models.publish_every,
        spec_digest=spec_digest,
    )


class _Checkpoint:
    """A `PartitionState` around the learners, which are pickled: this topic is private to the stage."""

    buckets = 1

    def __init__(self, state: LearnState) -> None:
        self.state = state
        self.next_offset = 0

    def apply(self, delta: bytes) -> None:
        raise NotImplementedError("the learn stage writes no deltas")

    def dump(self, bucket: int) -> bytes:
        return pickle.dumps((self.next_offset, self.state), protocol=pickle.HIGHEST_PROTOCOL)

    def load(self, bucket: int, data: bytes) -> None:
        self.next_offset, self.state = pickle.loads(data)  # noqa: S301 -- written by this stage to its own topic


class LearnWork:
    """The one partition of outcomes."""

    def __init__(self, partition: int, context: StageContext, changelog: Changelog) -> None:
        self._partition = partition
        self._context = context
        self._changelog = changelog
        self._core = LearnCore(learn_rules(context.settings, context.spec.digest))
        self._held: list[RecordBatch] = []
        self._watermarks: dict[int, int] = {}
        self._saved_at = context.clock()
        self._checkpoint = _Checkpoint(LearnState(build_learners(context.settings.models, context.spec)))

    async def open(self) -> None:
        await self._changelog.restore(self._partition, self._checkpoint)

    async def tick(self) -> None:
        if self._held and self._context.clock() - self._saved_at > _CHECKPOINT_SECONDS:
            await self._save()

    async def close(self) -> None:
        pass

    async def handle(self, batches: list[RecordBatch]) -> None:
        """Take the outcomes, learn what has taken effect, publish."""
        state = self._checkpoint.state
        for record in (record for batch in batches for record in batch.records):
            if record.offset >= self._checkpoint.next_offset:
                rows = columns.decode(record.value or b"")
                self._watermarks[rows.meta_int("label_partition")] = rows.meta_int("watermark")
                self._core.take(state, rows)
        self._held += batches
        self._checkpoint.next_offset = max(self._checkpoint.next_offset, batches[-1].next_offset)
        published = False
        learned = {name: learner.n_learned for name, learner in state.learners.items()}
        for snapshots in self._core.advance(state, min(self._watermarks.values(), default=NEVER)):
            if snapshots:
                published = True
                await self._publish(snapshots)
            await asyncio.sleep(0)
        for name, learner in state.learners.items():
            self._context.metrics.model_learned.add(learner.n_learned - learned[name], name)
        if published or self._context.clock() - self._saved_at > _CHECKPOINT_SECONDS:
            await self._save()

    async def _publish(self, snapshots: list[Snapshot]) -> None:
        topic = self._context.name("models")
        records = []
        for snapshot in snapshots:
            records.append(Output(topic, 0, model_key(snapshot.name, snapshot.version), encode(snapshot)))
            if snapshot.version > VERSIONS_KEPT:
                old = model_key(snapshot.name, snapshot.version - VERSIONS_KEPT)
                records.append(Output(topic, 0, old, None))
        await self._context.outputs.send(records)
        failpoint("learn:published")

    async def _save(self) -> None:
        await self._context.outputs.send(self._changelog.checkpoint(self._partition, self._checkpoint))
        failpoint("learn:saved")
        self._saved_at = self._context.clock()
        for batch in self._held:
            batch.finish()
        self._held = []


def attach(app: faust.App, context: StageContext) -> PartitionTasks[LearnWork]:
    """Read outcomes in batches."""
    changelog = Changelog(context.name("learn-state"), context.settings.broker)
    tasks = PartitionTasks(
        "learn", lambda partition: LearnWork(partition, context, changelog), app.crash, most=MOST_MESSAGES
    )
    topic = context.name("outcomes")
    follow_assignment(app, tasks, topic, context.metrics)

    @app.agent(batch_topic(app, topic), name="learn")
    async def learn(stream: faust.Stream[RecordBatch]) -> None:
        async for batch in batches(stream):
            tasks.put(batch)

    return tasks
