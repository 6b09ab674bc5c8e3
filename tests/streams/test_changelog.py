"""The changelog on a real log: replaced owners, repeated requests, state of something else."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator

import msgspec
import pytest

from streams.errors import StateMismatch, TopicMissing
from streams.kafka import state_log
from streams.kafka.changelog import Change, Changelog, ChangelogFenced
from streams.kafka.outputs import Output, Outputs
from streams.sections import Broker
from tests.streams.clients import new_topic
from tests.streams.test_state_log import IDENTITY, Chains


@pytest.fixture(autouse=True, scope="module")
def small_pieces() -> Iterator[None]:
    patch = pytest.MonkeyPatch()
    patch.setattr(state_log, "CHUNK_BYTES", 16)
    patch.setattr(state_log, "_MIN_BYTES_PER_BUCKET", 24)
    yield
    patch.undo()


@pytest.mark.broker
def test_an_owner_that_has_been_replaced_is_told(broker: str) -> None:
    """On a real log a save after another's takeover raises and does not count; the new owner goes on."""

    async def run() -> None:
        topic = await new_topic(broker, 1)
        async with Outputs(broker) as old_outputs, Outputs(broker) as outputs:
            old, new, third = (
                Changelog(topic, Broker(bootstrap=broker), each) for each in (old_outputs, outputs, outputs)
            )
            old_state, state, last = Chains(), Chains(), Chains()
            await old.restore(0, old_state, IDENTITY)
            for number in range(20):
                delta = bytes([number]) * 10
                old_state.apply(delta)
                await old.save([Change(0, old_state, delta)])
            await new.restore(0, state, IDENTITY)
            assert state.chains == old_state.chains
            for _ in range(2):
                old_state.apply(b"late")
                with pytest.raises(ChangelogFenced, match="taken over"):
                    await old.save([Change(0, old_state, b"late")])
            for number in range(20):
                delta = bytes([number]) * 9
                state.apply(delta)
                await new.save([Change(0, state, delta)])
            await third.restore(0, last, IDENTITY)
            assert last.chains == state.chains

    asyncio.run(run())


@pytest.mark.broker
def test_a_repeated_request_is_no_other_owner(broker: str) -> None:
    """Records that a retry appended twice count once, and the owner may go on."""

    async def run() -> None:
        topic = await new_topic(broker, 1)
        async with Outputs(broker) as outputs:
            changelog = Changelog(topic, Broker(bootstrap=broker), outputs)
            state, again = Chains(), Chains()
            await changelog.restore(0, state, IDENTITY)
            for number in range(12):
                delta = bytes([number]) * 10
                state.apply(delta)
                if number % 3 == 0:
                    key = f"d/{changelog._partitions[0].writer.owner}/{number}".encode()
                    await outputs.send([Output(topic, 0, key, delta)])
                await changelog.save([Change(0, state, delta)])
            await changelog.restore(0, again, IDENTITY)
            assert again.chains == state.chains

    asyncio.run(run())


@pytest.mark.parametrize(
    ("marker", "said"),
    [
        (b"1", "earlier version"),
        (msgspec.structs.replace(IDENTITY, format=1).encode(), "format of the state was 1 and is \\d+"),
        (msgspec.structs.replace(IDENTITY, spec="f" * 16).encode(), "features .* was 'ffffffffffffffff'"),
        (msgspec.structs.replace(IDENTITY, partitions=8).encode(), "topics.partitions was 8 and is 1"),
        (msgspec.structs.replace(IDENTITY, source="old").encode(), "topic read was 'old' and is 'source'"),
    ],
)
@pytest.mark.broker
def test_state_of_something_else_is_refused_and_left_alone(broker: str, marker: bytes, said: str) -> None:
    """The error names the difference and the cure; the log still has its one marker, for the right worker."""

    async def run() -> None:
        topic = await new_topic(broker, 1)
        async with Outputs(broker) as outputs:
            await outputs.send([Output(topic, 0, b"o/first", marker), Output(topic, 0, b"d/first/0", b"x")])
            changelog = Changelog(topic, Broker(bootstrap=broker), outputs)
            with pytest.raises(StateMismatch, match=rf"{topic}\[0\] .*{said}.*topics.internal_prefix"):
                await changelog.restore(0, Chains(), IDENTITY)
            end = (await outputs.send([Output(topic, 0, b"d/first/1", b"y")]))[topic, 0]
            assert end == 3

    asyncio.run(run())


@pytest.mark.broker
def test_a_missing_partition_is_named_with_its_cure(broker: str) -> None:
    """Neither a topic that is not there nor a partition too many is waited for."""

    async def run() -> None:
        topic = await new_topic(broker, 1)
        async with Outputs(broker) as outputs:
            for name, partition in (("nowhere", 0), (topic, 1)):
                changelog = Changelog(name, Broker(bootstrap=broker), outputs)
                async with asyncio.timeout(10):
                    with pytest.raises(TopicMissing, match=rf"{name}\[{partition}\].*topics create"):
                        await changelog.restore(partition, Chains(), IDENTITY)

    asyncio.run(run())
