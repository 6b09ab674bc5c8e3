"""Event-time alignment of the inputs of one stage partition.

A stage with several inputs (the card partitions behind a hop, the outcomes beside the transactions) sees them
at different speeds. The gate keeps the watermark of each input and answers up to which event time rows may be
released so that every input has been seen that far. Live traffic is aligned by nature and not asked about; a
history replayed faster than life waits for its slowest input; one that makes no progress for `idle_after_ms`
while rows wait for it is not waited for until it moves again.

Wall clock decides only *whether to wait*; it never enters a feature, a window or an id.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterable

FOREVER = 2**62
NEVER = -(2**62)


class EventTimeGate:
    """The frontier of event time that every input has reached.

    Args:
        inputs: the names of the inputs to wait for.
        idle_after_ms: an input without progress for this long by the wall clock is not waited for.
    """

    def __init__(self, inputs: Iterable[Hashable], *, idle_after_ms: int) -> None:
        self._idle_after_ms = idle_after_ms
        #: inputs to wait for longer than `idle_after_ms`, and for how long
        self.patience: dict[Hashable, int] = {}
        #: of these, the inputs that are not waited for any more
        self.given_up: set[Hashable] = set()
        self._watermarks: dict[Hashable, int] = dict.fromkeys(inputs, NEVER)
        #: since when rows have waited for an input that has not moved
        self._waited_since: dict[Hashable, int] = {}
        #: since when no rows wait at all
        self._resting_since: int | None = None

    def advance(self, name: Hashable, watermark: int) -> None:
        """Input `name` has been seen up to `watermark`; an unknown input joins."""
        if watermark > self._watermarks.get(name, NEVER):
            self._watermarks[name] = watermark
            self._waited_since.pop(name, None)
            self.given_up.discard(name)

    def rest(self, now_ms: int) -> None:
        """No rows wait.

        After `idle_after_ms` of it every input is waited for again: what was idle at the end of one history
        may only be a little late in the next.
        """
        if self._resting_since is None:
            self._resting_since = now_ms

    def reached(self, names: Iterable[Hashable]) -> int:
        """The event time that all of these inputs have reached, those never heard of left out."""
        heard = [watermark for name in names if (watermark := self._watermarks.get(name, NEVER)) > NEVER]
        return min(heard, default=NEVER)

    def frontier(self, newest: int, now_ms: int) -> int:
        """Rows up to this event time may be released.

        Args:
            newest: the largest watermark among the rows that wait.
            now_ms: wall clock, epoch milliseconds.
        """
        if self._resting_since is not None and now_ms - self._resting_since > self._idle_after_ms:
            self._waited_since.clear()
        self._resting_since = None
        frontier = FOREVER
        for name, watermark in self._watermarks.items():
            if watermark < newest:
                since = self._waited_since.setdefault(name, now_ms)
                if now_ms - since < self.patience.get(name, self._idle_after_ms):
                    frontier = min(frontier, watermark)
                elif name in self.patience:
                    self.given_up.add(name)
        return frontier
