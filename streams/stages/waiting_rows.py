"""Rows of a score partition that wait for the other inputs, and which messages they came in.

Rows of one card partition arrive in the order of their offsets; what a restarted card stage sends twice is
dropped here. A message counts as done when all its rows have been taken.

What has been taken of a card partition is always a prefix of its offsets. Its watermark may step back once,
when the first stamp of the stream turns out odd: rows that still wait are then given the smaller watermark,
so that none waits longer than the rows after it.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Hashable, Iterator
from typing import Generic, TypeVar

import numpy as np

from streams.stages.alignment import FOREVER, NEVER
from streams.stages.columns import Columns, concat
from streams.stages.score_core import in_score_order

Token = TypeVar("Token", bound=Hashable)


class WaitingRows(Generic[Token]):
    """A buffer ordered by watermark.

    Args:
        applied: last offset already scored, by card partition.
    """

    def __init__(self, applied: dict[int, int]) -> None:
        self._seen = dict(applied)
        self._parts: list[Columns] = []
        #: with the highest watermark of the message's rows, by card partition
        self._tokens: deque[tuple[dict[int, int], Token]] = deque()
        #: highest watermark taken in since the last step back, by card partition
        self._tops: dict[int, int] = {}
        self.rows = 0
        #: rows taken in since the start, those dropped as repeated left out
        self.received = 0
        self.newest = NEVER
        self.youngest = NEVER

    def put(self, parts: list[Columns], token: Token) -> None:
        """Rows of one batch of hop messages; `token` comes back once all of them have been taken."""
        highest: dict[int, int] = {}
        self._tokens.append((highest, token))
        for part in parts:
            card_partition = part.meta_int("card_partition")
            if not len(part):
                continue
            fresh = part.ints("offset") > self._seen.get(card_partition, -1)
            if not fresh.any():
                continue
            rows = part.take(fresh)
            self._seen[card_partition] = int(rows.ints("offset")[-1])
            # No row has a higher watermark than those after it.
            watermarks = np.minimum.accumulate(rows.ints("watermark")[::-1])[::-1]
            arrays = {
                "card_partition": np.full(len(rows), card_partition, dtype=np.int64),
                "watermark": np.ascontiguousarray(watermarks),
            }
            rows = Columns(rows.meta, rows.arrays | arrays, rows.strings)
            if int(watermarks[0]) < self._tops.get(card_partition, NEVER):
                self._step_back(card_partition, int(watermarks[0]))
            self._tops[card_partition] = highest[card_partition] = int(watermarks[-1])
            self.newest = max(self.newest, int(watermarks[-1]))
            self._parts.append(rows)
            self.youngest = max(self.youngest, int(rows.ints("event_time").max()))
            self.rows += len(rows)
            self.received += len(rows)

    def _step_back(self, card_partition: int, watermark: int) -> None:
        """No row of the card partition that waits has a higher watermark than this."""
        for part in self._parts:
            watermarks = part.ints("watermark")
            high = (part.ints("card_partition") == card_partition) & (watermarks > watermark)
            part.arrays["watermark"] = np.where(high, watermark, watermarks)
        for highest, _ in self._tokens:
            if highest.get(card_partition, NEVER) > watermark:
                highest[card_partition] = watermark
        self.newest = max((int(part.ints("watermark").max()) for part in self._parts), default=NEVER)

    def oldest(self) -> int:
        """The smallest event time that waits."""
        return min((int(part.ints("event_time").min()) for part in self._parts), default=NEVER)

    def take(self, frontier: int, chunk: int) -> Iterator[Columns]:
        """Rows with a watermark up to `frontier` in scoring order, in chunks of at most twice `chunk` rows.

        A chunk ends between two watermarks, so that what has been taken of a card partition is a prefix of
        its offsets. Where more than twice `chunk` rows share a watermark, these rows come in the order of
        card partition and offset instead, and chunks end among them, too: each card's rows keep their order,
        that of different cards depends on the partitions.
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
        chosen, long = _long_runs(chosen, 2 * chunk)
        watermarks = chosen.ints("watermark")
        start = 0
        while start < len(chosen):
            stop = min(start + chunk, len(chosen))
            last = watermarks[stop - 1]
            if int(last) not in long:
                stop = int(np.searchsorted(watermarks, last, side="right"))
                if stop - start > 2 * chunk:
                    stop = int(np.searchsorted(watermarks, last, side="left"))
            yield chosen.take(np.arange(start, stop))
            start = stop

    def done(self, frontier: int) -> list[Token]:
        """The batches, from the oldest on, all of whose rows have a watermark up to `frontier`."""
        tokens = []
        while self._tokens and max(self._tokens[0][0].values(), default=NEVER) <= frontier:
            tokens.append(self._tokens.popleft()[1])
        return tokens


def _long_runs(rows: Columns, most: int) -> tuple[Columns, set[int]]:
    """Rows in scoring order, with those of a watermark that more than `most` share by partition and offset.

    Returns:
        the rows, and those watermarks.
    """
    watermarks, starts, sizes = np.unique(rows.ints("watermark"), return_index=True, return_counts=True)
    long = np.flatnonzero(sizes > most)
    if not len(long):
        return rows, set()
    order = np.arange(len(rows))
    offsets, partitions = rows.ints("offset"), rows.ints("card_partition")
    for run in long.tolist():
        place = slice(int(starts[run]), int(starts[run] + sizes[run]))
        order[place] = place.start + np.lexsort((offsets[place], partitions[place]))
    return rows.take(order), set(watermarks[long].tolist())
