"""The learn stage over a restart: what its checkpoint keeps, and what of the outcomes it holds in memory."""

from __future__ import annotations

import asyncio
import hashlib
import logging
from collections.abc import AsyncIterator, Sequence
from contextlib import aclosing, asynccontextmanager
from dataclasses import replace
from pathlib import Path

import aiokafka
import msgspec
import numpy as np
import pytest
from aiokafka.admin import AIOKafkaAdminClient
from river import __version__ as RIVER

from models.learners.boosted import BoostedLearner
from models.learners.checkpoint import seal
from models.registry import Move, Pin, Registry
from models.snapshot import Snapshot, decode, encode
from streams.app import build
from streams.errors import SettingsError, StateMismatch
from streams.kafka.batches import PartitionBook, RecordBatch
from streams.kafka.changelog import Change, Changelog
from streams.kafka.clients import read_all
from streams.kafka.outputs import Output
from streams.keys import checkpoint_key
from streams.sections import Models, Option, Slot
from streams.settings import Settings, load
from streams.stages import learn as stage
from streams.stages import learn_checkpoint
from streams.stages.alignment import NEVER
from streams.stages.columns import Columns
from streams.stages.context import StageContext
from streams.stages.control_feed import initial_aliases
from streams.stages.learn import LearnWork
from streams.stages.learn_checkpoint import LearnCheckpoint, slot_terms
from streams.stages.learn_core import LearnCore, LearnRules, LearnState
from streams.stages.model_feed import key_of
from streams.stages.model_slots import build_learners
from tests.streams.clients import publish, unique
from tests.streams.sources import Source

HOUR = 3_600_000
PARTITIONS = 2
CHAMPION = Slot(name="champion", kind="logistic")
SHADOW = Slot(name="shadow", kind="logistic", negative_rate=0.5)


def settings(broker: str = "localhost:9092", prefix: str = "learn") -> Settings:
    keys = ("transactions", "labels", "feedback", "scores", "alerts", "dead_letters", "models", "control")
    names = {f"topics.{key}": f"{prefix}.{key}" for key in (*keys, "metrics", "internal_prefix")}
    made = load(overrides={**names, "broker.bootstrap": broker, "topics.partitions": PARTITIONS}, environ={})
    slots = {"champion": CHAMPION, "shadows": (SHADOW,)}
    models = {**slots, "publish_every": "1h", "min_outcomes": 0, "min_frauds": 0}
    return made.model_copy(update={"models": Models.model_validate(models)})


OTHER = seal(msgspec.msgpack.encode({"format": "other"}), b"")
CONTEXT = build(settings(), ["learn"]).contexts["learn"]


def outcomes(partition: int, watermark: int, known_at: Sequence[int] = (), *, bad: bool = False) -> Columns:
    n = len(known_at)
    features = np.random.default_rng(partition).random((n, len(CONTEXT.spec.names)))
    if bad:
        features[:] = np.nan
    return Columns(
        {"label_partition": partition, "spec": CONTEXT.spec.digest, "watermark": watermark},
        {
            "transaction": np.array(known_at, np.uint64) * np.uint64(2) + np.uint64(partition),
            "fraud": np.arange(n) % 2 == 0,
            "known_at": np.array(known_at, np.int64),
            "watermark": np.array(known_at, np.int64),
            "features": features,
            "alert": np.zeros(n, np.bool_),
            "control": np.zeros(n, np.bool_),
            "propensity": np.ones(n),
        },
        {"source": ["maturity"] * n},
    )


#: Messages of both label partitions; what the second one says last lets everything take effect.
MESSAGES = [
    outcomes(0, 2 * HOUR, [HOUR // 2, HOUR + 1, HOUR + 3]),
    outcomes(0, 5 * HOUR, [3 * HOUR, 4 * HOUR + 7]),
    outcomes(1, HOUR, [HOUR // 3]),
    outcomes(1, 3 * HOUR + 1, [HOUR + 2, 2 * HOUR]),
    outcomes(0, 6 * HOUR, [5 * HOUR + 1]),
    outcomes(1, 7 * HOUR, [4 * HOUR, 6 * HOUR]),
]


def checkpoint(slots: Sequence[Slot], key: bytes = b"") -> LearnCheckpoint:
    models = Models(champion=slots[0], shadows=tuple(slots[1:]))
    return LearnCheckpoint(
        lambda: LearnState(build_learners(models, CONTEXT.spec), PARTITIONS), slot_terms(models), key
    )


def learn(state: LearnState, messages: Sequence[Columns]) -> list[Snapshot]:
    core = LearnCore(LearnRules(publish_every_ms=HOUR, spec_digest=CONTEXT.spec.digest))
    published: list[Snapshot] = []
    for rows in messages:
        core.take(state, rows)
        clock = state.observe(rows.meta_int("label_partition"), rows.meta_int("watermark"))
        published += [snapshot for each in core.advance(state, clock) for snapshot in each]
    return published


def _sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def digests(snapshots: Sequence[Snapshot]) -> list[tuple[str, int, int, str]]:
    return [(each.name, each.version, each.n_learned, _sha256(encode(each))) for each in snapshots]


def test_nothing_is_learned_until_every_label_partition_has_spoken() -> None:
    """A partition that has said nothing yet holds the clock back, from the first message on."""
    state = checkpoint([CHAMPION]).state
    assert state.watermarks == {0: NEVER, 1: NEVER}
    assert learn(state, MESSAGES[:2]) == []
    assert state.learners["champion"].n_learned == 0


@pytest.mark.parametrize("cut", range(1, len(MESSAGES)))
def test_a_restart_anywhere_gives_the_same_versions(cut: int) -> None:
    """Versions, and what is in them, do not depend on where the stage went on from a checkpoint."""
    whole = learn(checkpoint([CHAMPION, SHADOW]).state, MESSAGES)
    assert len(whole) > 4
    before, after = checkpoint([CHAMPION, SHADOW]), checkpoint([CHAMPION, SHADOW])
    parts = learn(before.state, MESSAGES[:cut])
    before.next_offset = cut
    after.load(0, before.dump(0))
    assert after.next_offset == cut
    assert digests(parts + learn(after.state, MESSAGES[cut:])) == digests(whole)


@pytest.mark.parametrize("cut", [5, 6, 7])
def test_a_restart_while_trees_are_fitted_gives_the_same_versions(cut: int) -> None:
    """A fit that a restart interrupts begins anew, and its trees come in with the same version."""
    options: dict[str, Option | dict[str, Option]] = {"n_trees": 5, "window": 600, "refit_every": 150}
    trees = Slot(name="trees", kind="boosted_trees", options=options)
    step, minute = 130, HOUR // 60
    messages = [outcomes(1, 30 * HOUR)]
    for first in range(1, 900, step):
        known_at = [number * minute for number in range(first, first + step)]
        messages.append(outcomes(0, known_at[-1], known_at))
    before, after = checkpoint([trees]), checkpoint([trees])
    parts = learn(before.state, messages[:cut])
    learner = before.state.learners["trees"]
    assert isinstance(learner, BoostedLearner)
    assert (learner._started >= 0) == (cut < 7)  # 520 and 650 learned: during a fit; 780: after it
    after.load(0, before.dump(0))
    parts += learn(after.state, messages[cut:])
    assert digests(parts) == digests(learn(checkpoint([trees]).state, messages))
    sizes = [len(snapshot.scorer.to_arrays()[1]["root"]) for snapshot in parts]
    assert (sizes[0], sizes[-1]) == (0, 5)


def test_slots_that_come_change_and_go() -> None:
    """An unchanged slot goes on, a changed or new one starts anew, a removed one stops; numbers only rise."""
    before = checkpoint([CHAMPION, SHADOW])
    first = learn(before.state, MESSAGES[:4])
    last = {name: max(each.version for each in first if each.name == name) for name in ("champion", "shadow")}
    changed = SHADOW.model_copy(update={"options": {"learning_rate": 0.01}})
    new = Slot(name="new", kind="logistic")
    after = checkpoint([new, changed, CHAMPION])
    after.load(0, before.dump(0))
    learners = after.state.learners
    assert learners["champion"].n_learned == before.state.learners["champion"].n_learned > 0
    assert learners["shadow"].n_learned == learners["new"].n_learned == 0
    second = learn(after.state, MESSAGES[4:])
    for name, version in (*last.items(), ("new", 0)):
        assert min(each.version for each in second if each.name == name) == version + 1

    without = checkpoint([CHAMPION])
    without.load(0, after.dump(0))
    assert list(without.state.learners) == ["champion"]
    again = checkpoint([CHAMPION, SHADOW])
    again.load(0, without.dump(0))
    assert again.state.versions["shadow"] == after.state.versions["shadow"]


def test_learners_of_other_libraries_are_never_unpickled(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """A checkpoint of another River keeps its numbers; its learners are not even looked at."""
    before, after = checkpoint([CHAMPION]), checkpoint([CHAMPION])
    learn(before.state, MESSAGES)
    data = before.dump(0)
    monkeypatch.setattr("river.__version__", "0.0.0")
    monkeypatch.setattr("pickle.loads", lambda _: pytest.fail("unpickled"))
    with caplog.at_level(logging.WARNING):
        after.load(0, data)
    assert "champion starts anew: river is" in caplog.text
    assert after.state.learners["champion"].n_learned == 0
    assert after.state.versions == before.state.versions
    assert after.state.waiting == before.state.waiting


@pytest.mark.parametrize(("written", "read"), [(b"", b"k" * 32), (b"k" * 32, b"x"), (b"k" * 32, b"")])
def test_a_checkpoint_that_is_not_signed_with_the_key_is_refused(
    written: bytes, read: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Unsigned, signed with another key, or signed and no key to check it: nothing of it is unpickled."""
    data = checkpoint([CHAMPION], written).dump(0)
    checkpoint([CHAMPION], written).load(0, data)
    monkeypatch.setattr("pickle.loads", lambda _: pytest.fail("unpickled"))
    with pytest.raises(StateMismatch, match="to the key that it was written with"):
        checkpoint([CHAMPION], read).load(0, data)


def test_the_key_comes_from_a_file_of_its_own(tmp_path: Path) -> None:
    """As it stands there; a file that is missing or too short is refused by the name of the setting."""
    file = tmp_path / "key"

    def key() -> bytes:
        return checkpoint_key(Models(checkpoint_key_file=str(file)))

    with pytest.raises(SettingsError, match="checkpoint_key_file: cannot read"):
        key()
    file.write_bytes(b"k" * 31)
    with pytest.raises(SettingsError, match="31 bytes"):
        key()
    file.write_bytes(b"k" * 31 + b"\n")
    assert key() == b"k" * 31 + b"\n"
    assert checkpoint_key(Models()) == b""
    with pytest.raises(SettingsError, match="checkpoint_key_file"):
        build(load(overrides={"models.checkpoint_key_file": str(tmp_path / "none")}, environ={}), ["learn"])


@pytest.mark.parametrize("data", [b"unsigned\n", b"unsigned\n\x80\x05.", OTHER])
def test_what_is_no_checkpoint_is_refused(data: bytes) -> None:
    """Anything but a checkpoint of this format raises instead of being loaded."""
    with pytest.raises(ValueError, match="checkpoint"):
        checkpoint([CHAMPION]).load(0, data)


def test_another_format_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """A checkpoint says which format it has."""
    monkeypatch.setattr(learn_checkpoint, "FORMAT", "fraudstream-learn-0")
    data = checkpoint([CHAMPION]).dump(0)
    monkeypatch.undo()
    with pytest.raises(ValueError, match="fraudstream-learn-0"):
        checkpoint([CHAMPION]).load(0, data)


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
