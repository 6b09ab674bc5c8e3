"""The learn stage: River learners on outcomes, frozen versions out.

Reads outcomes (one partition, so that the learners see one order), and from the models topic which versions
there are already. Writes model versions there, keyed `name/version`; the oldest are tombstoned, but for those
that a move on the control topic has named and the one that aliases have followed the model to; and what
learners notice about concept drift to the metrics topic, keyed `drift`.

State: the learners, the outcomes that have not taken effect, the position (`learn_core.py`), in one
checkpoint (`learn_checkpoint.py`). Batches are finished only when a checkpoint covers them, so that a
restarted stage neither learns twice nor misses an outcome, and publishes the same versions again. What is
learned and published is a function of the outcomes alone, message by message, not of how they were fetched.

Memory: outcomes that have been fetched and not taken are at most `MOST_WAITING_BYTES` and one fetch, for the
partition is paused beyond; of those taken and not covered by a checkpoint only the offsets stay, of at most
`MOST_IN_FLIGHT` batches, and half of them force a checkpoint. Outcomes that have not taken effect are kept
however many there are: the watermark that releases them comes behind them in the same partition.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Generator, Iterator, Mapping
from dataclasses import replace

import faust

from models.registry import Registry
from models.snapshot import Snapshot, encode
from streams.contract.codecs import encode as encode_json
from streams.contract.model_records import model_key
from streams.kafka.batches import RecordBatch
from streams.kafka.batching import TP, batch_topic, batches, transport_of
from streams.kafka.changelog import Changelog
from streams.kafka.outputs import Output
from streams.keys import checkpoint_key, signing_key
from streams.settings import Settings
from streams.stages import columns
from streams.stages.belonging import identity, require_applied
from streams.stages.context import StageContext, follow_assignment
from streams.stages.failpoints import failpoint
from streams.stages.learn_checkpoint import LearnCheckpoint, slot_terms
from streams.stages.learn_core import LearnCore, LearnRules, LearnState
from streams.stages.loop import BREATH, StageLoop, Step
from streams.stages.model_feed import highest_versions
from streams.stages.model_slots import build_learners
from streams.stages.rows import LARGEST_MESSAGE, require_spec

logger = logging.getLogger(__name__)

#: Messages of outcomes taken at once.
MOST_MESSAGES = 64
#: Versions of a model that stay on the topic.
VERSIONS_KEPT = 20
#: Batches not covered by a checkpoint, at most.
MOST_IN_FLIGHT = 4096
#: Values fetched and not taken beyond which the partition is paused, until they are half as many.
MOST_WAITING_BYTES = 16 * 1024 * 1024
_CHECKPOINT_SECONDS = 20.0


def learn_rules(settings: Settings, spec_digest: str) -> LearnRules:
    """Publication, from the settings."""
    return LearnRules(
        publish_every_ms=settings.models.publish_every,
        spec_digest=spec_digest,
        min_outcomes=settings.models.min_outcomes,
        min_frauds=settings.models.min_frauds,
        maturity_ms=settings.labels.maturity,
        most_verdicts={str(origin): most for origin, most in settings.labels.daily.items()},
        check_frauds=settings.gates.min_frauds if settings.gates.withhold else 0,
        most_bytes=LARGEST_MESSAGE,
    )


class LearnWork:
    """The one partition of outcomes.

    Args:
        registry: versions that moves have named stay on the topic.
        key: signs the checkpoint; empty for none.
        pause: called with True when too much waits to be taken, with False when more may come.
    """

    def __init__(
        self,
        partition: int,
        context: StageContext,
        changelog: Changelog,
        pause: Callable[[bool], None],
        registry: Registry,
        key: bytes = b"",
    ) -> None:
        self._partition = partition
        self._context = context
        self._changelog = changelog
        self._pause = pause
        self._registry = registry
        self._signing_key = signing_key(context.settings.models)
        self._core = LearnCore(learn_rules(context.settings, context.spec.digest))
        self._held: list[RecordBatch] = []
        self._waiting_bytes = 0
        self._paused = False
        #: the checkpoint does not say yet which numbers come next: after a crash they must be the same
        self._unsaved_numbers = False
        self._saved_at = context.clock()
        models, spec = context.settings.models, context.spec
        self.checkpoint = LearnCheckpoint(
            lambda: LearnState(build_learners(models, spec), context.partitions),
            slot_terms(models),
            key,
        )

    async def open(self) -> None:
        self._pause(False)  # whoever had the partition before may have been revoked while it was paused
        await self._changelog.restore(self._partition, self.checkpoint, identity(self._context, "outcomes"))
        await require_applied(self._context, "outcomes", {self._partition: self.checkpoint.next_offset})
        published = await highest_versions(self._context.settings.broker, self._context.name("models"))
        self._unsaved_numbers = self.checkpoint.number_from(published)
        for name in self.checkpoint.state.learners:
            # Alert rules see the first one.
            self._context.metrics.model_withheld.add(0, name)
            self._context.metrics.model_refused.add(0, name)

    @property
    def state(self) -> LearnCheckpoint:
        return self.checkpoint

    def tick(self) -> Iterator[Step]:
        if self._held and self._context.clock() - self._saved_at > _CHECKPOINT_SECONDS:
            yield from self._save()

    async def close(self) -> None:
        pass

    def expect(self, batch: RecordBatch) -> None:
        """The batch is about to wait for its turn."""
        self._waiting(_size(batch))

    def _waiting(self, more: int) -> None:
        self._waiting_bytes += more
        if self._paused:
            if self._waiting_bytes <= MOST_WAITING_BYTES // 2:
                self._paused = False
                self._pause(False)
        elif self._waiting_bytes > MOST_WAITING_BYTES:
            self._paused = True
            self._pause(True)

    def handle(self, batches: list[RecordBatch]) -> Iterator[Step]:
        """Take the outcomes, learn what has taken effect, publish."""
        if self._unsaved_numbers:
            yield Step(whole=True)
            self._unsaved_numbers = False
        state = self.checkpoint.state
        learned = {name: learner.n_learned for name, learner in state.learners.items()}
        refused, not_made = dict(state.refused), dict(state.not_made)
        flooded = state.floods.flooded.copy()
        published = False
        for batch in batches:
            for record in batch.records:
                if record.offset >= self.checkpoint.next_offset:
                    published |= yield from self._take(state, record.value or b"", record.offset)
                    self.checkpoint.next_offset = record.offset + 1
            self.checkpoint.next_offset = max(self.checkpoint.next_offset, batch.next_offset)
            self._waiting(-_size(batch))
            batch.release()
            self._held.append(batch)
        for name, learner in state.learners.items():
            self._context.metrics.model_learned.add(learner.n_learned - learned[name], name)
            self._context.metrics.outcomes_refused.add(state.refused[name] - refused[name], name)
            self._context.metrics.model_refused.add(state.not_made[name] - not_made[name], name)
        for origin, count in (state.floods.flooded - flooded).items():
            self._context.metrics.labels_flooded.add(count, origin)
        overdue = self._context.clock() - self._saved_at > _CHECKPOINT_SECONDS
        if published or overdue or len(self._held) >= MOST_IN_FLIGHT // 2:
            yield from self._save()

    def _take(self, state: LearnState, message: bytes, offset: int) -> Generator[Step, None, bool]:
        """Learn up to where one message allows it; returns whether a version has been published."""
        rows = columns.decode(message)
        require_spec(rows, self._context.spec.digest)
        self._core.take(state, rows)
        clock = state.observe(rows.meta_int("label_partition"), rows.meta_int("watermark"))
        published = False
        in_force = dict(state.check.taken)
        for snapshots in self._core.advance(state, clock):
            if snapshots:
                published = True
                yield Step(self._versions(snapshots, offset + 1, in_force))
                in_force = dict(state.check.taken)
                failpoint("learn:published")
            yield BREATH
        if state.drift:
            yield Step(self._drift_records(state))
        return published

    def _drift_records(self, state: LearnState) -> list[Output]:
        noticed, state.drift = state.drift, []
        self._context.metrics.drift_alarms.add(sum(each.event.what == "drift" for each in noticed), "concept")
        topic = self._context.name("metrics")
        return [Output(topic, 0, b"drift", encode_json(each.record())) for each in noticed]

    def _versions(
        self, snapshots: list[Snapshot], next_offset: int, in_force: Mapping[str, int]
    ) -> list[Output]:
        topic, source = self._context.name("models"), f"{self._context.name('outcomes')}/{self._partition}"
        records = []
        for snapshot in snapshots:
            document = encode(replace(snapshot, offsets={source: next_offset}), self._signing_key)
            records.append(Output(topic, 0, model_key(snapshot.name, snapshot.version), document))
            if snapshot.withheld:
                self._withheld(snapshot)
            for old in self._outdated(snapshot, in_force.get(snapshot.name, 0)):
                records.append(Output(topic, 0, model_key(snapshot.name, old), None))
        return records

    def _outdated(self, snapshot: Snapshot, former: int) -> list[int]:
        """Versions that nobody needs once this one has come; `former` was in force until then.

        One that stays in force is left out when its turn comes. It goes when another one is taken.
        """
        oldest, name = snapshot.version - VERSIONS_KEPT, snapshot.name
        gone = {oldest, min(oldest, former)} - {self.checkpoint.state.check.taken.get(name)}
        return [old for old in sorted(gone) if old > 0 and not self._registry.names(name, old)]

    def _withheld(self, snapshot: Snapshot) -> None:
        self._context.metrics.model_withheld.add(1, snapshot.name)
        logger.warning("%s v%d is withheld: %s", snapshot.name, snapshot.version, snapshot.withheld)

    def _save(self) -> Iterator[Step]:
        yield Step(whole=True)
        self._saved_at = self._context.clock()
        for batch in self._held:
            batch.finish()
        self._held = []


def _size(batch: RecordBatch) -> int:
    return sum(len(record.value or b"") for record in batch.records)


def attach(app: faust.App, context: StageContext, registry: Registry) -> StageLoop[LearnWork]:
    """Read outcomes in batches.

    Raises:
        SettingsError: the key of the checkpoint cannot be used.
    """
    changelog = Changelog(context.name("learn-state"), context.settings.broker, context.outputs)
    topic = context.name("outcomes")
    transport = transport_of(app)
    key = checkpoint_key(context.settings.models)

    def create(partition: int) -> LearnWork:
        tps = [TP(topic, partition)]

        def pause(wanted: bool) -> None:
            (transport.pause if wanted else transport.resume)(tps)

        return LearnWork(partition, context, changelog, pause, registry, key)

    report = context.report("learn")
    loop = StageLoop(
        "learn", create, context.outputs, changelog, app.crash, most=MOST_MESSAGES, report=report
    )
    follow_assignment(app, loop, topic, context.metrics)

    @app.agent(batch_topic(app, topic), name="learn")
    async def learn(stream: faust.Stream[RecordBatch]) -> None:
        async for batch in batches(stream):
            if batch.partition in loop.works:
                loop.works[batch.partition].expect(batch)
            loop.put(batch)

    return loop
