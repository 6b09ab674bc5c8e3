"""The log of a state, in memory: compaction, crashes and owners that write after their time."""

from __future__ import annotations

import itertools
import zlib
from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from streams.kafka import state_log as module
from streams.kafka.identity import Identity
from streams.kafka.state_log import ChangelogError, Message, Reader, Writer, marker

BUCKETS = 3
IDENTITY = Identity(spec="0" * 16, partitions=1, source="source")
Log = list[Message]
_owners = itertools.count()


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


def restored(log: Log) -> tuple[Chains, Writer]:
    """State and writer of a worker that has taken over; its marker is appended to the log."""
    state = Chains()
    log.append(marker(f"{len(log)}-{next(_owners)}", IDENTITY))
    reader = Reader(state, IDENTITY, "state[0]")
    for key, value in log:
        reader.read(key, value)
    return state, reader.writer()


def save(log: Log, state: Chains, writer: Writer, delta: bytes) -> None:
    """Apply, append, and tombstone what has been replaced."""
    state.apply(delta)
    log += writer.records(state, delta)
    log += writer.settled()


def compacted(log: Log, stop: int, *, drop_tombstones: bool) -> Log:
    """What Kafka's cleaner may make of it: before `stop` the last record of every key stays in place."""
    last = {key: position for position, (key, _) in enumerate(log[:stop])}
    kept = [
        (key, value)
        for position, (key, value) in enumerate(log[:stop])
        if last[key] == position and not (drop_tombstones and value is None)
    ]
    return kept + log[stop:]


deltas_of_a_life = st.lists(st.binary(min_size=1, max_size=20), max_size=25)
lives = st.lists(
    st.tuples(
        deltas_of_a_life,
        st.floats(0, 1),  # where in the messages of the last delta the worker dies or loses its partition
        st.floats(0, 1),  # how much of the log the cleaner has been over
        st.booleans(),
        st.binary(min_size=1, max_size=20),  # what it writes when it has lost it and nothing is under way
        st.booleans(),  # whether a request of the last delta is repeated
    ),
    min_size=1,
    max_size=7,
)


@hypothesis_settings(max_examples=400, deadline=None)
@given(lives)
def test_a_restart_finds_the_state_of_the_last_delta_that_was_written(
    lives: list[tuple[list[bytes], float, float, bool, bytes, bool]],
) -> None:
    """Wherever a worker dies or is replaced, whatever it still writes, whatever is repeated and whatever the
    cleaner removed, the next starts from the last delta of before it took over.
    """
    log: Log = []
    state, writer = restored(log)
    late: list[Log] = []  # messages of earlier owners, to be appended one batch after each of the next deltas
    for deltas, crash, cleaned, drop_tombstones, afterwards, repeated in lives:
        rest: Log = []
        under_way = False
        for number, delta in enumerate(deltas):
            before = list(state.chains)
            state.apply(delta)
            messages = writer.records(state, delta)
            if number == len(deltas) - 1:
                cut = round(crash * (len(messages) + 1))
                messages, rest = messages[:cut], messages[cut:]
                under_way = cut <= len(messages) and bool(rest)
                if cut > len(messages):  # all of it was acknowledged: the tombstones come late
                    rest = writer.settled()
                if repeated:
                    log += messages
                if not messages:
                    state.chains = before
            log += messages
            if number < len(deltas) - 1:
                log += writer.settled()
            if late:
                log += late.pop(0)
        log = compacted(log, round(cleaned * len(log)), drop_tombstones=drop_tombstones)
        expected = list(state.chains)
        old_state, old = state, writer
        state, writer = restored(log)
        assert state.chains == expected
        # The replaced one has not noticed. With the answer to what is under way, or else to what it sends
        # next, it finds the marker: it has nothing tombstoned and sends no more.
        zombie = [rest]
        if not under_way:
            old_state.apply(afterwards)
            zombie.append(old.records(old_state, afterwards))
        late += zombie
        log += late.pop(0)
    for messages in late:
        log += messages
    expected = list(state.chains)
    log = compacted(log, len(log), drop_tombstones=True)
    assert restored(log)[0].chains == expected


def test_the_log_stays_bounded() -> None:
    """After a thousand deltas and twenty owners a cleaned log holds a few versions of the state and the
    deltas of two rounds.
    """
    log: Log = []
    state, writer = restored(log)
    sizes = []
    for number in range(1000):
        save(log, state, writer, bytes([number % 256]) * 10)
        if number % 50 == 49:
            state, writer = restored(log)
        log = compacted(log, len(log), drop_tombstones=True)
        sizes.append(sum(len(value or b"") for _, value in log))
    state_bytes = BUCKETS * 54
    round_bytes = BUCKETS * max(24 + 10, state_bytes)
    assert max(sizes) <= 3 * state_bytes + 2 * round_bytes
    assert max(sizes[500:]) <= max(sizes[:500]) * 1.2


def test_a_whole_checkpoint_needs_no_deltas() -> None:
    """State written at once is read back without a delta, also when the write before it was cut short."""
    log: Log = []
    state, writer = restored(log)
    state.chains = [bytes([bucket]) * 40 for bucket in range(BUCKETS)]
    log += writer.records(state, None)
    wanted = list(state.chains)
    state.chains = [b"later" * 10] * BUCKETS
    cut = writer.records(state, None)
    again, _ = restored(compacted(log + cut[:2], len(log) + 2, drop_tombstones=True))
    assert again.chains == wanted
    last, _ = restored(compacted(log + cut, len(log) + len(cut), drop_tombstones=True))
    assert last.chains == state.chains


@pytest.mark.parametrize(
    ("key", "value"),
    [(b"x/a/1", b""), (b"d/a/one", b""), (None, b""), (b"b/a/0/0/0", b"\xff"), (b"b/a/0/0", b"")],
)
def test_foreign_messages_are_refused(key: bytes | None, value: bytes) -> None:
    """A message that is no delta and no chunk ends the restore instead of being passed over."""
    with pytest.raises(ChangelogError, match="changelog key"):
        Reader(Chains(), IDENTITY, "state[0]").read(key, value)
