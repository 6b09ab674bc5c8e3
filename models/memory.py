"""Memory that shadows take by scoring, by what the process holds before and after their calls.

The operating system tells the resident memory of a process, not whose it is. A version has taken the sum of
what was more after its calls than before them, less what was less. Of that does not count what other threads
have taken meanwhile: a call in which its own thread has touched no new page has taken nothing. Nor does what
was given back later, by whomever: a version has never taken more than the process holds more than before the
first of its calls. The calls are those of all partitions of the process, which share one scorer.

Bounds: one call may take more than the limit. What it holds only while it runs, in threads of its own or in
memory that the process had free is not seen; where there is no /proc/self/statm, outside of Linux, nothing.
"""

from __future__ import annotations

import os
import resource
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from mmap import PAGESIZE
from typing import NamedTuple

Version = tuple[str, int]
"""Name and number."""

#: Versions remembered; the oldest are forgotten.
MOST_VERSIONS = 256
#: The most that one page fault brings in: a huge page.
_LARGEST_PAGE = 2 * 1024 * 1024


class Reading(NamedTuple):
    """Bytes that the process holds, and page faults of this thread so far."""

    resident: int
    faults: int


def read_memory() -> Reading:
    """What the system tells now; 0 and 0 where it does not."""
    file = _statm(os.getpid())
    if file is None:
        return Reading(0, 0)
    # The second number, in pages. To read the open file takes 1.5 µs, to open it as well seven times as long.
    resident = int(os.pread(file, 64, 0).split(maxsplit=2)[1]) * PAGESIZE
    return Reading(resident, resource.getrusage(resource.RUSAGE_THREAD).ru_minflt)


@cache
def _statm(process: int) -> int | None:
    """The open file; a forked process opens its own."""
    try:
        return os.open("/proc/self/statm", os.O_RDONLY)
    except OSError:
        return None


@dataclass(slots=True)
class _Account:
    """Bytes that the process held before the version's first call, and that its calls have taken since."""

    began: int
    taken: int = 0


class MemoryWatch:
    """What the shadows of a process have taken, by version; they score one after the other, in one thread.

    :ivar limit: bytes that a version may take.
    :param read: what the system tells now.
    """

    def __init__(self, limit: int, read: Callable[[], Reading] = read_memory) -> None:
        self.limit = limit
        self._read = read
        self._last = Reading(0, 0)
        self._accounts: dict[Version, _Account] = {}

    def begin(self) -> None:
        """Shadows are about to score a batch."""
        self._last = self._read()

    def called(self, version: Version) -> None:
        """The version has scored, and nothing else since the last call of this or of ``begin``."""
        before, now = self._last, self._read()
        self._last = now
        account = self._accounts.get(version)
        if account is None:
            account = self._accounts[version] = _Account(before.resident)
            if len(self._accounts) > MOST_VERSIONS:
                del self._accounts[next(iter(self._accounts))]
        more = min(now.resident - before.resident, (now.faults - before.faults) * _LARGEST_PAGE)
        account.taken = max(0, min(account.taken + more, now.resident - account.began))

    def taken(self, version: Version) -> int:
        """Bytes that the version has taken."""
        account = self._accounts.get(version)
        return 0 if account is None else account.taken

    def fault(self, version: Version) -> str | None:
        """Why the version must not score any more, if so."""
        taken = self.taken(version)
        return f"memory: {taken / 1e6:.0f} MB more by scoring" if taken > self.limit else None
