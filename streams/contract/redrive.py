"""Dead letters read back: what each one says about itself, and which of them may go to their source again.

A redriven record is the original one, byte for byte, on the partition it came from; it carries
`fraud-dlq-attempt`, so that a record that fails again comes back with a higher number and is given up after a
few attempts. A dead letter stays on its topic: what has been redriven before is told apart only by its
attempt.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection
from dataclasses import dataclass

import msgspec
import xxhash

from streams.contract.dead_letters import (
    ATTEMPT,
    CONNECT,
    ERROR_CODE,
    HEADERS_DROPPED,
    REDACTED,
    TRUNCATED,
    attempt,
)
from streams.kafka.batches import Record
from streams.kafka.outputs import Output

_CONTEXT = (CONNECT, ERROR_CODE, REDACTED, TRUNCATED, HEADERS_DROPPED, ATTEMPT)


class DeadLetter(msgspec.Struct, frozen=True):
    """A dead letter without its payload; times are epoch milliseconds.

    `partition` and `offset` are those on the dead-letter topic, `source_…` where the record was read; empty
    or -1 where the headers do not say.
    """

    partition: int
    offset: int
    time: int
    code: str
    message: str
    stage: str
    source_topic: str
    source_partition: int
    source_offset: int
    attempt: int
    redacted: bool
    truncated: bool
    headers_dropped: bool


def describe(record: Record) -> DeadLetter:
    """What the headers of a dead letter say."""
    headers = dict(record.headers)

    def text(name: str) -> str:
        return (headers.get(name) or b"").decode(errors="replace")

    def number(name: str) -> int:
        digits = text(name)
        return int(digits) if digits.isascii() and digits.isdigit() and len(digits) < 19 else -1

    return DeadLetter(
        partition=record.partition,
        offset=record.offset,
        time=record.timestamp,
        code=text(ERROR_CODE),
        message=text(CONNECT + "exception.message"),
        stage=text(CONNECT + "stage"),
        source_topic=text(CONNECT + "topic"),
        source_partition=number(CONNECT + "partition"),
        source_offset=number(CONNECT + "offset"),
        attempt=attempt(record),
        redacted=REDACTED in headers,
        truncated=TRUNCATED in headers,
        headers_dropped=HEADERS_DROPPED in headers,
    )


@dataclass(frozen=True, slots=True)
class Selection:
    """Which dead letters to redrive.

    `sources` are the topics a record may go back to, with their partitions; `before` is the time of the dead
    letter in epoch milliseconds, exclusive.
    """

    sources: dict[str, int]
    codes: Collection[str] = ()
    before: int | None = None
    max_attempts: int = 3

    def wants(self, letter: DeadLetter) -> bool:
        """Whether code and time are those asked for."""
        return (not self.codes or letter.code in self.codes) and (
            self.before is None or letter.time < self.before
        )

    def obstacle(self, letter: DeadLetter) -> str:
        """Why a wanted dead letter cannot be redriven; empty if it can."""
        if letter.redacted:
            return "redacted"
        if letter.truncated or letter.headers_dropped:
            return "truncated"
        if letter.attempt >= self.max_attempts:
            return "attempts"
        if not 0 <= letter.source_partition < self.sources.get(letter.source_topic, 0):
            return "source"
        return ""


class Plan:
    """Decides over all dead letters first, so that a record that has come back several times is sent once.

    Among dead letters with the same bytes only the one with the highest attempt counts: the earlier ones have
    been redriven already.
    """

    def __init__(self, selection: Selection) -> None:
        self._selection = selection
        self._best: dict[bytes, tuple[int, int, int]] = {}
        self.ends: dict[int, int] = {}
        self.seen = 0

    def add(self, record: Record) -> None:
        """Takes a dead letter into account, whether or not it is wanted."""
        letter = describe(record)
        self.seen += 1
        self.ends[letter.partition] = max(self.ends.get(letter.partition, 0), letter.offset + 1)
        identity = _identity(letter.source_topic, record)
        candidate = (letter.attempt, letter.partition, letter.offset)
        if candidate > self._best.get(identity, (-1, -1, -1)):
            self._best[identity] = candidate

    def skipped(self, record: Record) -> str | None:
        """None to redrive the dead letter, else the reason: `filtered`, `repeated` or an obstacle."""
        letter = describe(record)
        if not self._selection.wants(letter):
            return "filtered"
        best = self._best.get(_identity(letter.source_topic, record))
        if best is not None and best[1:] != (letter.partition, letter.offset):
            return "repeated"
        return self._selection.obstacle(letter) or None


class Redriven(msgspec.Struct):
    """What a redrive did: published by source topic, skipped by reason."""

    published: Counter[str] = msgspec.field(default_factory=Counter)
    skipped: Counter[str] = msgspec.field(default_factory=Counter)


def output(record: Record) -> Output:
    """The original record with its attempt, for where it came from."""
    letter = describe(record)
    headers = [(name, data) for name, data in record.headers if not name.startswith(_CONTEXT)]
    return Output(
        letter.source_topic,
        letter.source_partition,
        record.key,
        record.value,
        (*headers, (ATTEMPT, b"%d" % letter.attempt)),
    )


def _identity(topic: str, record: Record) -> bytes:
    digest = xxhash.xxh3_128(topic.encode())
    for part in (record.key, record.value):
        digest.update(b"-" if part is None else b"%d:" % len(part))
        digest.update(part or b"")
    return digest.digest()
