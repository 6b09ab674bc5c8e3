"""Exact counts over slots of event time, which add up across partitions and to windows.

A tally is a dictionary of whole numbers by name. Addition saturates at `MOST`, which keeps it associative and
commutative for what is never negative: windows do not depend on the order in which parts are merged.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

Tally = dict[str, int]
#: Sums stop here; they travel as 64-bit integers.
MOST = 2**62


def add(into: Tally, more: Mapping[str, int]) -> None:
    """Adds `more` in place; names that come to 0 are left out."""
    get = into.get
    for name, value in more.items():
        result = get(name, 0) + value
        if not result:
            into.pop(name, None)
        elif -MOST < result < MOST:
            into[name] = result
        else:
            into[name] = MOST if result > 0 else -MOST


def total(tallies: Iterable[Mapping[str, int]]) -> Tally:
    """The sum of all."""
    result: Tally = {}
    for tally in tallies:
        add(result, tally)
    return result


@dataclass(frozen=True, slots=True)
class Window:
    """Windows of `length` ms of event time that end at every multiple of `hop`; slots are of `slot` ms.

    With a hop of its length a window is tumbling, with a shorter one sliding.
    """

    name: str
    slot: int
    length: int
    hop: int

    def ends(self, slot: int) -> Iterator[int]:
        """The ends of the windows that hold the slot starting at `slot`."""
        first = -(-(slot + self.slot) // self.hop) * self.hop
        return iter(range(first, slot + self.length + 1, self.hop))

    def slots(self, end: int) -> range:
        """The slots in the window that ends at `end`."""
        return range(end - self.length, end, self.slot)
