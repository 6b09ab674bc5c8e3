"""Rows of a score partition that wait for the other inputs, and which messages they came in.

Rows of one card partition arrive in the order of their offsets; what a restarted card stage sends twice is
dropped here. A message counts as done when all its rows have been taken.

The watermark of a card partition steps back once at most, when the first stamp of the stream turns out odd
(`models/admission.py`). Rows that wait are then given the smaller watermark, that of the next row of the
partition that comes here: no row waits longer than those after it.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Collection, Hashable, Iterator, Mapping
from dataclasses import dataclass
from typing import Generic, TypeVar

import numpy as np
import numpy.typing as npt

from streams.stages.alignment import NEVER
from streams.stages.columns import Columns, concat
from streams.stages.rows import require_spec
from streams.stages.score_core import in_score_order

Token = TypeVar("Token", bound=Hashable)
Offsets = npt.NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Chunk:
    """Rows to score, in order, and what is scored with them.

    Args:
        rows: with `card_partition`, i8.
        until: every row up to this watermark is in this chunk or one before it; less than that of the last
            row where more of the same follow.
        applied: by card partition with rows here, the offset up to which all its rows are scored.
        ahead: by card partition, the offsets here that are higher than that.
    """

    rows: Columns
    until: int
    applied: dict[int, int]
    ahead: dict[int, Offsets]


@dataclass(slots=True)
class _Part:
    """Rows of one card partition, their watermarks never falling."""

    card_partition: int
    rows: Columns
    lowest: int
    highest: int

    @classmethod
    def of(cls, card_partition: int, rows: Columns) -> _Part:
        watermarks = rows.ints("watermark")
        return cls(card_partition, rows, int(watermarks[0]), int(watermarks[-1]))

    def lower(self, watermark: int) -> None:
        """No row has a higher watermark than this."""
        if self.highest > watermark:
            self.rows.arrays["watermark"] = np.minimum(self.rows.ints("watermark"), watermark)
            self.lowest, self.highest = min(self.lowest, watermark), watermark

    def live(self, now_ms: int, within_ms: int) -> bool:
        """Whether all rows are."""
        if self.lowest >= now_ms - within_ms:
            return True
        near = np.abs(self.rows.ints("event_time") - now_ms) <= within_ms
        return bool((near | (self.rows.ints("watermark") >= now_ms - within_ms)).all())

    def cut(self, frontier: int) -> int:
        """How many rows have a watermark up to `frontier`."""
        if self.highest <= frontier:
            return len(self.rows)
        return int(np.searchsorted(self.rows.ints("watermark"), frontier, side="right"))


class WaitingRows(Generic[Token]):
    """A buffer ordered by watermark.

    Args:
        applied: by card partition, the offset up to which all rows are scored already.
        spec_digest: of the feature spec that the rows must have; without one they are taken as they come.
        ahead: by card partition, higher offsets that are scored already.
    """

    def __init__(
        self, applied: Mapping[int, int], spec_digest: str = "", ahead: Mapping[int, Offsets] | None = None
    ) -> None:
        self._applied = dict(applied)
        self._ahead = dict(ahead or {})
        self._spec_digest = spec_digest
        #: by card partition, offset and watermark of the last row that came, already scored or not
        self._last: dict[int, tuple[int, int]] = {}
        self._parts: list[_Part] = []
        #: with the highest watermark of the message's rows, by card partition
        self._tokens: deque[tuple[dict[int, int], Token]] = deque()
        self.rows = 0
        #: rows taken in since the start, those dropped as repeated left out
        self.received = 0
        self.newest = NEVER

    def put(self, parts: list[Columns], token: Token) -> None:
        """Rows of one batch of hop messages; `token` comes back once all of them have been taken.

        Raises:
            StateMismatch: rows of another feature spec.
        """
        highest: dict[int, int] = {}
        for part in parts:
            if self._spec_digest:
                require_spec(part, self._spec_digest)
            card_partition = part.meta_int("card_partition")
            if not len(part):
                continue
            last, top = self._last.get(card_partition, (-1, NEVER))
            offsets = part.ints("offset")
            rows = part if offsets[0] > last else part.take(offsets > last)
            if not len(rows):
                continue
            watermarks = np.minimum.accumulate(rows.ints("watermark")[::-1])[::-1]
            if watermarks[0] < top:
                self._step_back(card_partition, int(watermarks[0]), highest)
            offsets = rows.ints("offset")
            self._last[card_partition] = int(offsets[-1]), int(watermarks[-1])
            lowered = {"watermark": np.ascontiguousarray(watermarks)}
            rows = Columns(rows.meta, rows.arrays | lowered, rows.strings)
            if offsets[0] <= self._applied.get(card_partition, -1) or card_partition in self._ahead:
                rows = rows.take(self._unscored(card_partition, offsets))
            if not len(rows):
                continue
            waiting = _Part.of(card_partition, rows)
            highest[card_partition] = waiting.highest
            self.newest = max(self.newest, waiting.highest)
            self._parts.append(waiting)
            self.rows += len(rows)
            self.received += len(rows)
        self._tokens.append((highest, token))

    def _unscored(self, card_partition: int, offsets: Offsets) -> npt.NDArray[np.bool_]:
        unscored: npt.NDArray[np.bool_] = offsets > self._applied.get(card_partition, -1)
        ahead = self._ahead.get(card_partition)
        return unscored if ahead is None else unscored & ~np.isin(offsets, ahead)

    def _step_back(self, card_partition: int, watermark: int, highest: dict[int, int]) -> None:
        """No row of the card partition that waits has a higher watermark than this."""
        for part in self._parts:
            if part.card_partition == card_partition:
                part.lower(watermark)
        for each in (highest, *(each for each, _ in self._tokens)):
            if each.get(card_partition, NEVER) > watermark:
                each[card_partition] = watermark
        self._find_newest()

    def _find_newest(self) -> None:
        self.newest = max((part.highest for part in self._parts), default=NEVER)

    def oldest(self) -> int:
        """The smallest event time that waits."""
        return min((int(part.rows.ints("event_time").min()) for part in self._parts), default=NEVER)

    def live(self, now_ms: int, within_ms: int) -> tuple[frozenset[int], int]:
        """The card partitions of which rows wait, all of them live; the largest watermark of all other rows.

        A row is live when its watermark is younger than `within_ms`, or its event time near `now_ms`: after a
        pause the watermark stays behind until a second card has come. One odd stamp among the rows of a
        history makes no partition live.
        """
        old = {part.card_partition for part in self._parts if not part.live(now_ms, within_ms)}
        newest = max((part.highest for part in self._parts if part.card_partition in old), default=NEVER)
        return frozenset(part.card_partition for part in self._parts) - old, newest

    def take(self, frontier: int, chunk: int, live: Collection[int] = ()) -> Iterator[Chunk]:
        """Rows with a watermark up to `frontier` in scoring order, in chunks of at most twice `chunk` rows.

        Of the card partitions in `live` all rows are taken.

        A chunk ends between two watermarks, where what has been taken of a card partition is a prefix of its
        offsets, unless more rows than fit share one. What is not taken of such rows is said by `Chunk.ahead`.
        """
        if not self._parts:
            return
        chosen = in_score_order(self._ready(frontier, live))
        self.rows -= len(chosen)
        watermarks = chosen.ints("watermark")
        start = 0
        while start < len(chosen):
            stop = min(start + chunk, len(chosen))
            first = int(np.searchsorted(watermarks, watermarks[stop - 1], side="left"))
            end = int(np.searchsorted(watermarks, watermarks[stop - 1], side="right"))
            if end - start <= 2 * chunk:
                stop = end
            elif first > start:
                stop = end = first
            yield self._chunk(chosen, start, stop, end)
            start = stop

    def _ready(self, frontier: int, live: Collection[int]) -> Columns:
        """The rows to take, which no longer wait then, with their `card_partition`."""
        ready, rest = [], []
        for part in self._parts:
            rows = part.rows
            count = len(rows) if part.card_partition in live else part.cut(frontier)
            if count:
                ready.append((part.card_partition, rows.part(0, count)))
            if count < len(rows):
                rest.append(_Part.of(part.card_partition, rows.part(count, len(rows))))
        if not ready:
            return self._parts[0].rows.part(0, 0)
        self._parts = rest
        self._find_newest()
        rows = concat([each for _, each in ready])
        partitions = np.array([partition for partition, _ in ready], np.int64)
        column = {"card_partition": np.repeat(partitions, [len(each) for _, each in ready])}
        return Columns(rows.meta, rows.arrays | column, rows.strings)

    def _chunk(self, chosen: Columns, start: int, stop: int, end: int) -> Chunk:
        """The rows from `start` to `stop`, where those up to `end` have no higher watermark than the last."""
        rows = chosen.part(start, stop)
        partitions, offsets = rows.ints("card_partition"), rows.ints("offset")
        left = chosen.ints("card_partition")[stop:end], chosen.ints("offset")[stop:end]
        applied, ahead = {}, {}
        for card_partition in np.unique(partitions).tolist():
            taken = offsets[partitions == card_partition]
            waiting = left[1][left[0] == card_partition]
            scored = np.concatenate([self._ahead.pop(card_partition, taken[:0]), taken])
            last = int(scored.max() if not len(waiting) else waiting.min() - 1)
            if (scored > last).any():
                self._ahead[card_partition] = scored[scored > last]
                ahead[card_partition] = np.sort(taken[taken > last])
            applied[card_partition] = last
        until = int(rows.ints("watermark")[-1])
        return Chunk(rows, until if stop == end else until - 1, applied, ahead)

    def done(self, frontier: int, live: Collection[int] = ()) -> list[Token]:
        """The batches, from the oldest on, all of whose rows `take` has given for the same arguments."""
        tokens = []
        while self._tokens and all(
            watermark <= frontier or card_partition in live
            for card_partition, watermark in self._tokens[0][0].items()
        ):
            tokens.append(self._tokens.popleft()[1])
        return tokens
