"""Messages of one log that are read late, in the order of each of their sources."""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping, Sequence
from typing import Generic, Protocol, TypeVar


class Message(Protocol):
    """A record of the log; its key is the number of its source."""

    @property
    def offset(self) -> int: ...
    @property
    def key(self) -> bytes | None: ...


Record = TypeVar("Record", bound=Message)


class LateRows(Generic[Record]):
    """Which messages of the log are held, and where to read on.

    The sources write to one log, each in its own order, and messages of one that is ahead must not keep those
    of one behind it from being read. So every source has a place of its own up to which it has been read;
    what is read anew for one of them is passed over for the others.

    Args:
        places: where the reading begins, by source.
        most: messages held of each source at most, at least 2.
    """

    def __init__(self, places: Mapping[int, int], most: int) -> None:
        self._most = most
        self._held: dict[int, deque[Record]] = {source: deque() for source in places}
        self._read_until = dict(places)

    def wanted(self) -> int | None:
        """The offset to read from, for those that run short; None while nobody does."""
        short = (
            self._read_until[source] for source, held in self._held.items() if len(held) <= self._most // 2
        )
        return min(short, default=None)

    def take(self, start: int, records: Sequence[Record]) -> bool:
        """Messages from the offset `start` on, all that there are up to the last of them.

        Returns:
            whether a source of which nothing was held has a message now.
        """
        news = False
        following = {source for source, until in self._read_until.items() if until >= start}
        for record in records:
            source = int(record.key or b"")
            if source not in following or record.offset < self._read_until[source]:
                continue
            if len(self._held[source]) < self._most:
                news = news or not self._held[source]
                self._held[source].append(record)
            else:
                self._read_until[source] = record.offset
                following.remove(source)
        for source in following if records else ():
            self._read_until[source] = max(self._read_until[source], records[-1].offset + 1)
        return news

    def first(self, source: int) -> Record | None:
        """The oldest message held of the source."""
        held = self._held[source]
        return held[0] if held else None

    def drop(self, source: int) -> None:
        """The oldest message held of the source is done with."""
        self._held[source].popleft()

    def place(self, source: int) -> int:
        """The offset before which the source has nothing left that it needs."""
        first = self.first(source)
        return self._read_until[source] if first is None else first.offset
