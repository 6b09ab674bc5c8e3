"""The learn stage on a broker: what it publishes after a death, and what it holds in memory."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import aclosing, asynccontextmanager
from dataclasses import replace

import aiokafka
import pytest
from aiokafka.admin import AIOKafkaAdminClient
from river import __version__ as RIVER

from models.registry import Move, Pin, Registry
from models.snapshot import Snapshot, decode, encode
from streams.app import build
from streams.contract.model_records import key_of
from streams.errors import StateMismatch
from streams.kafka.batches import PartitionBook, RecordBatch
from streams.kafka.changelog import Change, Changelog
from streams.kafka.clients import read_all
from streams.kafka.outputs import Output
from streams.stages import learn as stage
from streams.stages.alignment import NEVER
from streams.stages.columns import Columns
from streams.stages.context import StageContext
from streams.stages.control_feed import initial_aliases
from streams.stages.learn import LearnWork
from tests.streams.clients import publish, unique
from tests.streams.learned import (
    CHAMPION,
    HOUR,
    MESSAGES,
    SHADOW,
    checkpoint,
    digests,
    learn,
    outcomes,
    settings,
)
from tests.streams.sources import Source


class Outcomes:
    """The partition of outcomes as the transport hands it out, one message a batch."""

    def __init__(self) -> None:
        self.book = PartitionBook("outcomes", 0)

    def batches(self, messages: Sequence[Columns], first: int = 0) -> list[RecordBatch]:
        return [
            self.book.hand_out([Source(rows.encode(), offset=offset)], offset + 1, None)
            for offset, rows in enumerate(messages, first)
        ]


@asynccontextmanager
async def connected(broker: str) -> AsyncIterator[StageContext]:
    """A learn stage's context on topics of its own."""
    context = build(settings(broker, unique("learn")), ["learn"]).contexts["learn"]
    admin = AIOKafkaAdminClient(bootstrap_servers=broker)
    await admin.start()
    try:
        await context.catalogue.ensure(admin)
    finally:
        await admin.close()
    await context.outputs.start()
    try:
        yield context
    finally:
        await context.outputs.stop()


class Stage:
    """One partition, carried out as the loop of a stage does."""

    def __init__(self, context: StageContext, paused: list[bool]) -> None:
        self._outputs = context.outputs
        self._changelog = Changelog(context.name("learn-state"), context.settings.broker, context.outputs)
        self.registry = Registry(initial_aliases(context.settings.models))
        self.work = LearnWork(0, context, self._changelog, paused.append, self.registry)

    async def handle(
        self,
        batches: list[RecordBatch],
        *,
        dies_before_saving: bool = False,
        dies_when_published: bool = False,
    ) -> None:
        for step in self.work.handle(batches):
            if step.outputs:
                await self._outputs.send(step.outputs)
                if dies_when_published:
                    return
            if step.changes_state:
                if dies_before_saving:
                    return
                await self._changelog.save([Change(0, self.work.state, None)])


async def opened(context: StageContext, paused: list[bool]) -> Stage:
    stage = Stage(context, paused)
    await stage.work.open()
    return stage


async def versions(broker: str, context: StageContext, count: int) -> list[Snapshot]:
    """The first `count` messages of the models topic."""
    async with aiokafka.AIOKafkaConsumer(bootstrap_servers=broker, auto_offset_reset="earliest") as consumer:
        tp = aiokafka.TopicPartition(context.name("models"), 0)
        consumer.assign([tp])
        found: list[Snapshot] = []
        async with asyncio.timeout(20):
            while len(found) < count:
                records = (await consumer.getmany(timeout_ms=200)).get(tp, ())
                found += [decode(record.value, context.spec.digest) for record in records]
        return found


@pytest.mark.broker
def test_a_stage_that_died_before_its_checkpoint_publishes_the_same_versions_again(
    broker: str,
) -> None:
    """After a death between publishing and saving the outcomes are read again: same numbers, same content,
    however they come in batches; offsets are finished only by then."""

    async def scenario() -> None:
        async with connected(broker) as context:
            await publish(broker, context.name("outcomes"), {0: [rows.encode() for rows in MESSAGES]})
            learning, log = await opened(context, []), Outcomes()
            saved = log.batches(MESSAGES[:3])
            await learning.handle(saved)
            assert log.book.finished == 3
            await learning.handle(log.batches(MESSAGES[3:], 3), dies_before_saving=True)
            assert log.book.finished == 3

            again, log = await opened(context, []), Outcomes()
            assert again.work.checkpoint.next_offset == 3
            for batch in log.batches(MESSAGES):
                await again.handle([batch])
            assert log.book.finished == len(MESSAGES)

            whole = learn(checkpoint([CHAMPION, SHADOW]).state, MESSAGES)
            early = learn(checkpoint([CHAMPION, SHADOW]).state, MESSAGES[:3])
            twice = [*digests(whole), *digests(whole)[len(early) :]]
            found = await versions(broker, context, len(twice))
            assert digests([replace(each, offsets={}) for each in found]) == twice
            published = {(each.name, each.version): each for each in found}
            assert {(each.name, each.version): encode(each) for each in reversed(found)} == {
                key: encode(each) for key, each in published.items()
            }
            topic = f"{context.name('outcomes')}/0"
            for (name, version), each in published.items():
                assert each.parent == version - 1
                assert (each.n_frauds > 0, each.libraries["river"]) == (True, RIVER)
                before = published.get((name, version - 1))
                assert before is None or before.offsets[topic] <= each.offsets[topic] <= len(MESSAGES)


@pytest.mark.broker
def test_versions_that_moves_have_named_stay(broker: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The oldest versions are tombstoned; one that may be rolled back to is not."""
    monkeypatch.setattr(stage, "VERSIONS_KEPT", 1)

    async def scenario() -> None:
        async with connected(broker) as context:
            learning = await opened(context, [])
            learning.registry.take(Move(1, "shadow-add", Pin("shadow", 1)))
            await learning.handle(Outcomes().batches(MESSAGES))
            last = learning.work.checkpoint.state.versions
            assert min(last.values()) > 2
            gone: set[str] = set()
            topic = aiokafka.TopicPartition(context.name("models"), 0)
            async with (
                aiokafka.AIOKafkaConsumer(bootstrap_servers=broker, auto_offset_reset="earliest") as consumer,
                asyncio.timeout(20),
            ):
                consumer.assign([topic])
                while f"champion/{last['champion'] - 1}" not in gone:
                    for record in (await consumer.getmany(timeout_ms=200)).get(topic, ()):
                        gone |= {record.key.decode()} if record.value is None else set()
            assert "champion/1" in gone
            assert "shadow/2" in gone
            assert "shadow/1" not in gone

    asyncio.run(scenario())


@pytest.mark.broker
def test_a_stage_with_fresh_state_numbers_on_from_the_models_topic(broker: str) -> None:
    """Scorers would take no version until its number exceeds those that are there; also deleted ones count.
    What it publishes after a death before its first checkpoint has the same numbers."""

    async def scenario() -> None:
        async with connected(broker) as context:
            await publish(broker, context.name("outcomes"), {0: [rows.encode() for rows in MESSAGES]})
            topic = context.name("models")
            keys = [
                (b"champion/7", b"of another spec"),
                (b"champion/11", None),
                (b"champion/x", b"no version"),
            ]
            await context.outputs.send([Output(topic, 0, *each) for each in keys])
            whole = learn(checkpoint([CHAMPION, SHADOW]).state, MESSAGES)
            expected = [(each.name, each.version + 11 * (each.name == "champion")) for each in whole]
            doomed = await opened(context, [])
            await doomed.handle(Outcomes().batches(MESSAGES), dies_when_published=True)
            async with aclosing(read_all(context.settings.broker, topic)) as records:
                early = [key_of(record.key) async for record in records][len(keys) :]
            assert early == expected[: len(early)] != []
            again = await opened(context, [])
            await again.handle(Outcomes().batches(MESSAGES))
            async with aclosing(read_all(context.settings.broker, topic)) as records:
                found = [key_of(r.key) async for r in records if r.value is not None]
            assert found == [("champion", 7), None, *early, *expected]

    asyncio.run(scenario())


@pytest.mark.broker
def test_memory_of_fetched_outcomes_is_bounded(broker: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Beyond the bound on waiting bytes the partition is paused, once half is taken it goes on; taken batches
    keep no records, and half of those allowed without a checkpoint force one."""

    async def scenario() -> None:
        async with connected(broker) as context:
            paused: list[bool] = []
            learning, log = await opened(context, paused), Outcomes()
            assert paused == [False]
            quiet = [outcomes(0, NEVER + 1, [5])] * 6
            batches = log.batches(quiet)
            size = len(quiet[0].encode())
            monkeypatch.setattr(stage, "MOST_WAITING_BYTES", 4 * size)
            monkeypatch.setattr(stage, "MOST_IN_FLIGHT", 12)
            for batch in batches[:4]:
                learning.work.expect(batch)
            assert paused == [False]
            for batch in batches[4:]:
                learning.work.expect(batch)
            assert paused == [False, True]
            await learning.handle(batches[:3])
            assert paused == [False, True]
            await learning.handle(batches[3:5])
            assert paused == [False, True, False]
            assert [len(batch.records) for batch in batches] == [0, 0, 0, 0, 0, 1]
            assert log.book.finished is None
            await learning.handle(batches[5:])
            assert log.book.finished == 6

    asyncio.run(scenario())


@pytest.mark.broker
def test_refused_outcomes_are_counted_in_the_metrics(broker: str) -> None:
    """What a learner cannot learn shows in the metrics under its name and stops nothing."""

    async def scenario() -> None:
        async with connected(broker) as context:
            learning, log = await opened(context, []), Outcomes()
            messages = [outcomes(0, HOUR, [1, 3], bad=True), outcomes(1, HOUR, [5])]
            await learning.handle(log.batches(messages))
            assert context.metrics.outcomes_refused.value("champion") == 2
            assert context.metrics.model_learned.value("champion") == 1

    asyncio.run(scenario())


@pytest.mark.broker
@pytest.mark.parametrize("meta", [{"spec": "f" * 16}, {"spec": None}])
def test_outcomes_of_another_spec_are_refused(broker: str, meta: dict[str, object]) -> None:
    """They are neither learned nor passed over: the batch stays unfinished."""

    async def scenario() -> None:
        async with connected(broker) as context:
            learning, log = await opened(context, []), Outcomes()
            rows = outcomes(0, HOUR, [1])
            rows.meta |= meta
            with pytest.raises(StateMismatch, match="same features"):
                await learning.handle(log.batches([rows]))
            assert log.book.finished is None
            assert learning.work.checkpoint.state.waiting == []

    asyncio.run(scenario())
