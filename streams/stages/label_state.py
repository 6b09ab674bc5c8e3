"""What the label stage holds for one partition: verdicts not yet used, alerted rows, how far it has read.

Both kinds of entries are kept by transaction and in the order of age, so that the oldest are found without
looking at the others. A checkpoint is cut by a hash of the transaction.
"""

from __future__ import annotations

import bisect
import heapq
import zlib
from collections.abc import Iterator, Sequence
from operator import itemgetter

import msgspec

from streams.stages.alignment import FOREVER, NEVER
from streams.stages.seen_rows import Packed, SeenRows, join

#: The source of a verdict of an analyst, as feedback and labels have it.
ANALYST = "analyst"
#: A verdict of a source to the right replaces one of a source to the left.
_AUTHORITY = (ANALYST, "chargeback")
#: Checkpoints of transactions; one more holds the rest.
_BUCKETS = 16


class Verdict(msgspec.Struct, frozen=True, array_like=True):
    """What a label or an analyst says about a transaction.

    `believable` is the latest time that could be believed when it came, `FOREVER` where `labelled_at` is: one
    stamped years ahead ages with the others and not after all of them.
    """

    fraud: bool
    source: str
    labelled_at: int
    revision: int
    believable: int = FOREVER

    @property
    def age(self) -> int:
        """The time by which the oldest is told."""
        return min(self.labelled_at, self.believable)

    @property
    def rank(self) -> tuple[int, int, int, bool, str]:
        """Verdicts of higher rank replace those of lower rank; no two that differ have the same."""
        authority = _AUTHORITY.index(self.source) if self.source in _AUTHORITY else len(_AUTHORITY)
        return (authority, self.revision, self.labelled_at, self.fraud, self.source)


def with_verdict(held: Sequence[Verdict], verdict: Verdict) -> list[Verdict]:
    """Verdicts by time, each of higher rank than those before it: what may count at some maturity.

    Args:
        held: such verdicts; a new one that may never count leaves them as they are.
    """
    verdicts = sorted([*held, verdict], key=lambda each: (each.labelled_at, each.rank))
    kept: list[Verdict] = []
    for each in verdicts:
        if kept and each.rank <= kept[-1].rank:
            continue
        if kept and each.labelled_at == kept[-1].labelled_at:
            kept.pop()
        kept.append(each)
    return kept


class Alerted(msgspec.Struct, array_like=True):
    """An alerted row, encoded as columns of length one, and the verdict given on it so far."""

    watermark: int
    row: bytes
    score_partition: int
    given: bool | None = None


class LabelStep(msgspec.Struct, array_like=True):
    """What one batch changed in the state of the label stage, as its changelog keeps it.

    Of a `dropped` transaction nothing stays, of an `expired` one its verdicts go, of a `released` one its
    alerted row.
    """

    verdicts: list[tuple[str, Verdict]] = []
    alerted: list[tuple[str, Alerted]] = []
    given: list[tuple[str, bool]] = []
    dropped: list[str] = []
    expired: list[str] = []
    released: list[str] = []
    scored: dict[int, int] = {}
    undecided: dict[int, int] = {}
    late: dict[int, tuple[int, int]] = {}
    labels_until: int = NEVER
    decided: dict[str, Packed] = {}

    def add(self, change: LabelStep) -> None:
        """Append what came after."""
        self.verdicts += change.verdicts
        self.alerted += change.alerted
        self.given += change.given
        self.dropped += change.dropped
        self.expired += change.expired
        self.released += change.released
        self.scored.update(change.scored)
        self.undecided.update(change.undecided)
        self.late.update(change.late)
        self.labels_until = max(self.labels_until, change.labels_until)
        join(self.decided, change.decided)


class _Ages:
    """Names with a time each; the oldest is found at once."""

    def __init__(self) -> None:
        self._times: dict[str, int] = {}
        #: every name with its time, and times that it no longer has
        self._heap: list[tuple[int, str]] = []

    def put(self, name: str, time: int) -> None:
        if self._times.get(name) == time:
            return
        self._times[name] = time
        heapq.heappush(self._heap, (time, name))
        if len(self._heap) > 2 * len(self._times) + 64:
            self._heap = [(at, each) for each, at in self._times.items()]
            heapq.heapify(self._heap)

    def remove(self, name: str) -> None:
        self._times.pop(name, None)

    def oldest(self) -> tuple[int, str] | None:
        while self._heap and self._times.get(self._heap[0][1]) != self._heap[0][0]:
            heapq.heappop(self._heap)
        return self._heap[0] if self._heap else None


class _Bucket(msgspec.Struct, array_like=True):
    verdicts: dict[str, list[Verdict]]
    alerted: dict[str, Alerted]


class _Head(msgspec.Struct, array_like=True):
    scored: dict[int, int]
    undecided: dict[int, int]
    late: dict[int, tuple[int, int]]
    labels_until: int
    decided: dict[str, Packed] = {}


class LabelState:
    """State of one partition of cards; a `PartitionState`."""

    buckets = _BUCKETS + 1

    def __init__(self) -> None:
        #: verdicts that may count, by transaction and in the order of time
        self.verdicts: dict[str, list[Verdict]] = {}
        self.alerted: dict[str, Alerted] = {}
        #: scoring watermark, by score partition
        self.scored: dict[int, int] = {}
        #: watermark up to which every row is decided, by score partition
        self.undecided: dict[int, int] = {}
        #: offset and row up to which the late reading has decided everything, by score partition
        self.late: dict[int, tuple[int, int]] = {}
        #: offsets of the transactions of which the late reading has decided a row, by score partition
        self.decided = SeenRows()
        #: the clock of labels: up to when they have been read
        self.labels_until = NEVER
        #: time and card of a label too far ahead of the clock, until another card confirms it; not kept
        self.claim: tuple[int, str] | None = None
        #: newest watermark among the rows that a score partition has, scored or waiting; not kept
        self.seen: dict[int, int] = {}
        self._verdict_ages, self._alert_ages = _Ages(), _Ages()
        self._unscored: dict[str, list[int]] = {}
        self._unscored_times: list[tuple[int, str]] = []

    def apply(self, delta: bytes) -> None:
        self.take(_decode_step(delta))

    def take(self, step: LabelStep) -> None:
        for transaction, verdict in step.verdicts:
            self.verdicts[transaction] = with_verdict(self.verdicts.get(transaction, ()), verdict)
            self._verdict_ages.put(transaction, self.verdicts[transaction][-1].age)
            self._expect(transaction, verdict.labelled_at)
        for transaction, alerted in step.alerted:
            self.alerted[transaction] = alerted
            self._alert_ages.put(transaction, alerted.watermark)
        for transaction, fraud in step.given:
            if transaction in self.alerted:
                self.alerted[transaction].given = fraud
        for transaction in (*step.dropped, *step.expired):
            self.verdicts.pop(transaction, None)
            self._verdict_ages.remove(transaction)
            self.met(transaction)
        for transaction in (*step.dropped, *step.released):
            self.alerted.pop(transaction, None)
            self._alert_ages.remove(transaction)
        self.scored.update(step.scored)
        self.undecided.update(step.undecided)
        self.late.update(step.late)
        self.labels_until = max(self.labels_until, step.labels_until)
        self.decided.take(step.decided)

    def oldest_verdict(self) -> tuple[int, str] | None:
        """The transaction whose latest verdict was given first, and when."""
        return self._verdict_ages.oldest()

    def oldest_alert(self) -> tuple[int, str] | None:
        """The alerted transaction that was scored first, and at which watermark."""
        return self._alert_ages.oldest()

    def dump(self, bucket: int) -> bytes:
        if bucket == _BUCKETS:
            return _encode(
                _Head(self.scored, self.undecided, self.late, self.labels_until, self.decided.dump())
            )
        return _encode(
            _Bucket(
                {name: self.verdicts[name] for name in _in_bucket(self.verdicts, bucket)},
                {name: self.alerted[name] for name in _in_bucket(self.alerted, bucket)},
            )
        )

    def load(self, bucket: int, data: bytes) -> None:
        if bucket == _BUCKETS:
            head = _decode_head(data)
            self.scored, self.undecided = head.scored, head.undecided
            self.late = head.late
            self.labels_until = head.labels_until
            self.decided.load(head.decided)
            return
        saved = _decode_bucket(data)
        replaced = dict.fromkeys((*_in_bucket(self.verdicts, bucket), *_in_bucket(self.alerted, bucket)))
        self.take(LabelStep(dropped=list(replaced)))
        self.take(LabelStep(alerted=list(saved.alerted.items())))
        self.take(
            LabelStep(verdicts=[(name, each) for name, held in saved.verdicts.items() for each in held])
        )

    def _expect(self, transaction: str, labelled_at: int) -> None:
        """The transaction may come yet; of its verdicts only those that may count are waited for."""
        if transaction in self.alerted:
            return
        before = self._unscored.get(transaction, [])
        counting = {each.labelled_at for each in self.verdicts[transaction]}
        after = sorted(counting.intersection((*before, labelled_at)))
        if after != before:
            self.met(transaction)
            self._unscored[transaction] = after
            for at in after:
                bisect.insort(self._unscored_times, (at, transaction))

    def met(self, transaction: str) -> None:
        """The transaction of verdicts has been scored: what they do is known."""
        for labelled_at in self._unscored.pop(transaction, ()):
            del self._unscored_times[bisect.bisect_left(self._unscored_times, (labelled_at, transaction))]

    def open_verdict(self, after: int) -> int:
        """When the first verdict after that event time was given whose transaction may still be scored."""
        place = bisect.bisect_right(self._unscored_times, after, key=itemgetter(0))
        return self._unscored_times[place][0] if place < len(self._unscored_times) else FOREVER


def _in_bucket(names: dict[str, list[Verdict]] | dict[str, Alerted], bucket: int) -> Iterator[str]:
    return (name for name in names if zlib.crc32(name.encode()) % _BUCKETS == bucket)


def encode_step(step: LabelStep) -> bytes:
    """The delta for the changelog."""
    return _encode(step)


_encode = msgspec.msgpack.Encoder().encode
_decode_step = msgspec.msgpack.Decoder(LabelStep).decode
_decode_bucket = msgspec.msgpack.Decoder(_Bucket).decode
_decode_head = msgspec.msgpack.Decoder(_Head).decode
