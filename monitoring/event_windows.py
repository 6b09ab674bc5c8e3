"""Event-time windows of mergeable sketches: a bounded number of slots, the oldest dropped in time."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, Generic, Protocol, TypeVar

import numpy as np
import numpy.typing as npt


class Mergeable(Protocol):
    def merge(self, other: Any) -> None:
        """Adds what another sketch of the same kind has seen."""


S = TypeVar("S", bound=Mergeable)


class EventWindow(Generic[S]):
    """The last `slots` slots of `slot_ms` event-time milliseconds, each with a sketch of its own.

    Slots are aligned to the epoch. The newest slot seen ends the window; rows older than the window are not
    counted, so a late row never revives a dropped slot. The caller leaves out rows whose time it
    does not believe: a single one far ahead would empty the window.
    """

    def __init__(self, make: Callable[[], S], slot_ms: int, slots: int) -> None:
        if slot_ms <= 0 or slots <= 0:
            raise ValueError("a window needs slots of a positive length")
        self._make, self._slot_ms, self._limit = make, slot_ms, slots
        self._slots: dict[int, S] = {}
        self._newest: int | None = None

    def split(self, event_time: npt.NDArray[np.int64]) -> Iterator[tuple[S, npt.NDArray[np.intp]]]:
        """The sketches a batch belongs to, each with the indices of its rows; moves the window forward."""
        if not len(event_time):
            return
        index = event_time // self._slot_ms
        self._advance(int(index.max()))
        for slot in np.unique(index).tolist():
            if (sketch := self._sketch(slot)) is not None:
                yield sketch, np.flatnonzero(index == slot)

    def merged(self) -> S:
        """One sketch of the whole window."""
        total = self._make()
        for sketch in self._slots.values():
            total.merge(sketch)
        return total

    def until(self, event_time: int) -> list[S]:
        """The sketches of the window's slots that end by then, oldest first."""
        return [self._slots[slot] for slot in sorted(self._slots) if (slot + 1) * self._slot_ms <= event_time]

    def older(self) -> list[S]:
        """The sketches of the window's slots but the newest, oldest first."""
        return [self._slots[slot] for slot in sorted(self._slots) if slot != self._newest]

    def clear(self) -> None:
        self._slots.clear()

    def __len__(self) -> int:
        return len(self._slots)

    def _advance(self, slot: int) -> None:
        if self._newest is None or slot > self._newest:
            self._newest = slot
            for old in [held for held in self._slots if held <= slot - self._limit]:
                del self._slots[old]

    def _sketch(self, slot: int) -> S | None:
        if self._newest is None or slot <= self._newest - self._limit:
            return None
        sketch = self._slots.get(slot)
        if sketch is None:
            sketch = self._slots[slot] = self._make()
        return sketch
