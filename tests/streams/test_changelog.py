"""The changelog on an in-memory log with compaction and crashes."""

from __future__ import annotations

import zlib
from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from streams.kafka import changelog as module
from streams.kafka.changelog import Changelog, ChangelogError
from streams.kafka.outputs import Output
from streams.sections import Broker

BUCKETS = 3
Log = list[tuple[bytes, bytes | None]]


class Chains:
    """A state whose every bucket is a hash over all its deltas in order, with a payload of any size."""

    buckets = BUCKETS

    def __init__(self) -> None:
        self.chains = [b"\0" * 4] * BUCKETS

    def apply(self, delta: bytes) -> None:
        bucket = delta[0] % BUCKETS
        link = zlib.crc32(delta, zlib.crc32(self.chains[bucket][:4]))
        self.chains[bucket] = link.to_bytes(4, "big") + b"x" * (link % 50)

    def dump(self, bucket: int) -> bytes:
        return self.chains[bucket]

    def load(self, bucket: int, data: bytes) -> None:
        self.chains[bucket] = data


@pytest.fixture(autouse=True, scope="module")
def small_pieces() -> Iterator[None]:
    patch = pytest.MonkeyPatch()
    patch.setattr(module, "CHUNK_BYTES", 16)
    patch.setattr(module, "_MIN_BYTES_PER_BUCKET", 24)
    yield
    patch.undo()


def restored(log: Log) -> tuple[Chains, Changelog]:
    """State and changelog of a worker that has read the log."""
    state, changelog = Chains(), Changelog("state", Broker())
    reader = module._Reader(state)
    for key, value in log:
        reader.read(key, value)
    changelog._writers[0] = reader.writer
    return state, changelog


def compacted(log: Log, stop: int, *, drop_tombstones: bool) -> Log:
    """What Kafka's cleaner may make of it: before `stop` the last record of every key stays in place."""
    last = {key: position for position, (key, _) in enumerate(log[:stop])}
    kept = [
        (key, value)
        for position, (key, value) in enumerate(log[:stop])
        if last[key] == position and not (drop_tombstones and value is None)
    ]
    return kept + log[stop:]


def pairs(records: list[Output]) -> Log:
    return [(record.key or b"", record.value) for record in records]


lives = st.lists(
    st.tuples(
        st.lists(st.binary(min_size=1, max_size=20), min_size=1, max_size=25),
        st.floats(0, 1),  # where in the messages of the last delta the crash falls
        st.floats(0, 1),  # how much of the log the cleaner has been over
        st.booleans(),
    ),
    min_size=1,
    max_size=6,
)


@hypothesis_settings(max_examples=250, deadline=None)
@given(lives)
def test_a_restart_finds_the_state_of_the_last_delta_that_was_written(
    lives: list[tuple[list[bytes], float, float, bool]],
) -> None:
    """Wherever a worker dies and whatever the cleaner removed, the next starts from the last delta."""
    log: Log = []
    state, changelog = restored(log)
    for deltas, crash, cleaned, drop_tombstones in lives:
        for number, delta in enumerate(deltas):
            before = list(state.chains)
            state.apply(delta)
            messages = pairs(changelog.records(0, state, delta))
            if number == len(deltas) - 1:
                messages = messages[: round(crash * len(messages))]
                if not messages:
                    state.chains = before
            log += messages
        log = compacted(log, round(cleaned * len(log)), drop_tombstones=drop_tombstones)
        expected = state.chains
        state, changelog = restored(log)
        assert state.chains == expected


def test_the_log_stays_bounded() -> None:
    """After a thousand deltas a cleaned log holds two versions of the state and the deltas of two rounds."""
    log: Log = []
    state, changelog = restored(log)
    sizes = []
    for number in range(1000):
        delta = bytes([number % 256]) * 10
        state.apply(delta)
        log += pairs(changelog.records(0, state, delta))
        log = compacted(log, len(log), drop_tombstones=True)
        sizes.append(sum(len(value or b"") for _, value in log))
    state_bytes = BUCKETS * 54
    round_bytes = BUCKETS * max(24 + 10, state_bytes)
    assert max(sizes) <= 3 * state_bytes + 2 * round_bytes
    assert max(sizes[500:]) <= max(sizes[:500]) * 1.2


def test_a_whole_checkpoint_needs_no_deltas() -> None:
    """State written at once is read back without a delta, also when the write before it was cut short."""
    state, changelog = restored([])
    state.chains = [bytes([bucket]) * 40 for bucket in range(BUCKETS)]
    log = pairs(changelog.checkpoint(0, state))
    wanted = list(state.chains)
    state.chains = [b"later" * 10] * BUCKETS
    cut = pairs(changelog.checkpoint(0, state))
    again, _ = restored(compacted(log + cut[:2], len(log) + 2, drop_tombstones=True))
    assert again.chains == wanted
    last, _ = restored(compacted(log + cut, len(log) + len(cut), drop_tombstones=True))
    assert last.chains == state.chains


@pytest.mark.parametrize(
    ("key", "value"), [(b"x/1", b""), (b"d/one", b""), (None, b""), (b"b/0/0/0", b"\xff"), (b"b/0/0", b"")]
)
def test_foreign_messages_are_refused(key: bytes | None, value: bytes) -> None:
    """A message that is no delta and no chunk ends the restore instead of being passed over."""
    with pytest.raises(ChangelogError, match="changelog key"):
        module._Reader(Chains()).read(key, value)
