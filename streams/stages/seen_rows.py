"""Which rows of a source have come before: what a score stage sends again after a crash counts once.

A message of scored rows says in `settled` up to which offset of the card partition all rows of its score
partition stand in messages before it: none of those comes as a new one, whatever the score stage sends again.
So only the offsets beyond have to be remembered, those of about one message a source.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

Offsets = npt.NDArray[np.int64]
#: Of one source: `settled`, and offsets i8.
Packed = tuple[int, bytes]


@dataclass(frozen=True, slots=True)
class Seen:
    """All offsets up to `settled`, and these beyond."""

    settled: int = -1
    beyond: Offsets = field(default_factory=lambda: np.empty(0, np.int64))


class SeenRows:
    """By source, the offsets that have come; sources have names."""

    def __init__(self) -> None:
        self._sources: dict[str, Seen] = {}

    def unseen(self, source: str, offsets: Offsets) -> npt.NDArray[np.bool_]:
        """Which of these offsets have not come from the source before."""
        seen = self._sources.get(source, Seen())
        unseen: npt.NDArray[np.bool_] = offsets > seen.settled
        if len(seen.beyond) and len(offsets) and offsets.min() <= seen.beyond.max():
            unseen &= ~np.isin(offsets, seen.beyond)
        return unseen

    def take(self, packed: Mapping[str, Packed]) -> None:
        """These have come."""
        for source, (settled, offsets) in packed.items():
            seen = self._sources.get(source, Seen())
            settled = max(settled, seen.settled)
            beyond = np.concatenate([seen.beyond, np.frombuffer(offsets, np.int64)])
            self._sources[source] = Seen(settled, beyond[beyond > settled])

    def dump(self) -> dict[str, Packed]:
        """What `load` needs."""
        return {name: (seen.settled, seen.beyond.tobytes()) for name, seen in self._sources.items()}

    def load(self, saved: Mapping[str, Packed]) -> None:
        self._sources = {}
        self.take(saved)


def join(into: dict[str, Packed], more: Mapping[str, Packed]) -> None:
    """Add in place what came after."""
    for source, (settled, offsets) in more.items():
        before, known = into.get(source, (-1, b""))
        into[source] = max(before, settled), known + offsets
