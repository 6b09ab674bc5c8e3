"""Rows of a score partition that wait for the other inputs, and which messages they came in.

Rows of one card partition arrive in the order of their offsets; what a restarted card stage sends twice is
dropped here. A message counts as done when all its rows have been taken.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Hashable, Iterator
from typing import Generic, TypeVar

import numpy as np

from streams.stages.alignment import FOREVER, NEVER
from streams.stages.columns import Columns, concat
from streams.stages.rows import require_spec
from streams.stages.score_core import in_score_order

Token = TypeVar("Token", bound=Hashable)


class WaitingRows(Generic[Token]):
    """A buffer ordered by watermark.

    Args:
        applied: last offset already scored, by card partition.
        spec_digest: of the feature spec that the rows must have; without one they are taken as they come.
    """

    def __init__(self, applied: dict[int, int], spec_digest: str = "") -> None:
        self._seen = dict(applied)
        self._spec_digest = spec_digest
        self._parts: list[Columns] = []
        self._tokens: deque[tuple[int, Token]] = deque()
        self.rows = 0
        #: rows taken in since the start, those dropped as repeated left out
        self.received = 0
        self.newest = NEVER
        self.youngest = NEVER

    def put(self, parts: list[Columns], token: Token) -> None:
        """Rows of one batch of hop messages; `token` comes back once all of them have been taken.

        Raises:
            StateMismatch: rows of another feature spec.
        """
        highest = NEVER
        for part in parts:
            if self._spec_digest:
                require_spec(part, self._spec_digest)
            card_partition = part.meta_int("card_partition")
            if not len(part):
                continue
            fresh = part.ints("offset") > self._seen.get(card_partition, -1)
            if not fresh.any():
                continue
            rows = part.take(fresh)
            self._seen[card_partition] = int(rows.ints("offset")[-1])
            rows.arrays["card_partition"] = np.full(len(rows), card_partition, dtype=np.int64)
            highest = max(highest, int(rows.ints("watermark")[-1]))
            self._parts.append(rows)
            self.youngest = max(self.youngest, int(rows.ints("event_time").max()))
            self.rows += len(rows)
            self.received += len(rows)
        self.newest = max(self.newest, highest)
        self._tokens.append((highest, token))

    def oldest(self) -> int:
        """The smallest event time that waits."""
        return min((int(part.ints("event_time").min()) for part in self._parts), default=NEVER)

    def take(self, frontier: int, chunk: int) -> Iterator[Columns]:
        """Rows with a watermark up to `frontier` in scoring order, in chunks of about `chunk` rows.

        A chunk ends only between two watermarks, so that what has been taken of a card partition is a prefix
        of its offsets.
        """
        if not self._parts:
            return
        rows = concat(self._parts)
        ready = rows.ints("watermark") <= frontier
        rest = rows.take(~ready) if frontier < FOREVER else None
        self._parts = [rest] if rest is not None and len(rest) else []
        chosen = in_score_order(rows.take(ready))
        self.rows -= len(chosen)
        if not self._parts:
            self.newest = self.youngest = NEVER
        watermarks = chosen.ints("watermark")
        start = 0
        while start < len(chosen):
            stop = start + chunk
            if stop < len(chosen):
                stop = int(np.searchsorted(watermarks, watermarks[stop - 1], side="right"))
            yield chosen.take(np.arange(start, min(stop, len(chosen))))
            start = stop

    def done(self, frontier: int) -> list[Token]:
        """The batches, from the oldest on, all of whose rows have a watermark up to `frontier`."""
        tokens = []
        while self._tokens and self._tokens[0][0] <= frontier:
            tokens.append(self._tokens.popleft()[1])
        return tokens
