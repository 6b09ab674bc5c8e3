"""What a process logs on stderr: its own lines, warnings, and no more of a kind than a person can use."""

from __future__ import annotations

import asyncio
import logging
import sys
import threading
import time
from collections.abc import Callable
from typing import Final, Literal

from streams.errors import FraudstreamError

NOTICE: Final = 25
"""Between info and warning: what a command says of itself, such as where its metrics are."""

Level = Literal["debug", "info", "notice", "warning", "error"]
LEVELS: Final[dict[Level, int]] = {
    "debug": logging.DEBUG,
    "info": logging.INFO,
    "notice": NOTICE,
    "warning": logging.WARNING,
    "error": logging.ERROR,
}
LIBRARIES: Final = ("faust", "mode", "aiokafka", "kafka")

#: What libraries warn of whenever a worker joins or leaves, as it should be.
_ROUTINE = ("Heartbeat failed for group %s because it is rebalancing",)
#: What aiokafka logs of a broker that is away, as errors and as warnings, and gets over by itself: it
#: connects, joins or fetches again.
AWAY_ERRORS: Final = (
    "Error sending %s to node %s [%s] -- marking coordinator dead",
    "Failed fetch messages from %s: %s",
    "Failed fetch offsets from %s: %s",
    "Group Coordinator Request failed: %s",
    "Heartbeat send request failed: %s. Will retry.",
    "Heartbeat session expired - marking coordinator dead",
    "LeaveGroup request failed: %s",
    "OffsetCommit failed before join, ignoring: %s",
    "OffsetCommit failed for group %s due to group error (%s), will rejoin",
    'Unable connect to "%s:%s": %s',
    "Unable connect to node with id %s: %s",
    "Unable to update metadata from %s",
)
AWAY_WARNINGS: Final = (
    "Got error produce response: %s",
    "Marking the coordinator dead (node %s)for group %s.",
    'Unable to request metadata from "%s:%s": %s',
    "Unable to request metadata from node with id %s: %r",
)
_AWAY = frozenset(AWAY_ERRORS + AWAY_WARNINGS)
#: What libraries log as errors and get over by themselves, also where only the process has stood still for a
#: moment. What does not pass is told by other means: lag, stalls, a worker that ends.
HEALING: Final = ("Thread keepalive is not responding...", *AWAY_ERRORS)
_MOST_KINDS = 1_000


class Throttle(logging.Filter):
    """Passes a few messages of a kind, then for some seconds none; the next one says how many were left out.

    Of one kind are the messages of a logger with the same level and template, and whatever aiokafka says of
    brokers that are away.

    Args:
        seconds: how long further messages of a kind are left out.
        burst: how many of a kind pass in this time; of libraries one does.
        clock: seconds, of any one monotonic clock.
    """

    def __init__(
        self, seconds: float = 10.0, burst: int = 4, clock: Callable[[], float] = time.monotonic
    ) -> None:
        super().__init__()
        self._seconds, self._burst, self._clock = seconds, burst, clock
        self._kinds: dict[tuple[str, int, str], _Kind] = {}
        self._lock = threading.Lock()  # every consumer has a thread

    def filter(self, record: logging.LogRecord) -> bool:
        with self._lock:
            return self._passes(record, self._clock())

    def _passes(self, record: logging.LogRecord, now: float) -> bool:
        key = (record.name, record.levelno, str(record.msg))
        if record.msg in _AWAY:
            key = ("", 0, "")
        kind = self._kinds.get(key)
        if kind is None:
            if len(self._kinds) >= _MOST_KINDS:  # templates with values in them: forget the oldest
                del self._kinds[next(iter(self._kinds))]
            kind = self._kinds[key] = _Kind(now)
        if now - kind.since >= self._seconds:
            left_out = kind.left_out
            kind.since, kind.passed, kind.left_out = now, 0, 0
            if left_out:
                record.msg = f"{record.getMessage()} ({left_out:,} more like it left out before)"
                record.args = None
        if kind.passed >= (1 if record.name.partition(".")[0] in LIBRARIES else self._burst):
            kind.left_out += 1
            return False
        kind.passed += 1
        return True


class _Kind:
    """Messages of one kind since a moment."""

    __slots__ = ("left_out", "passed", "since")

    def __init__(self, since: float) -> None:
        self.since = since
        self.passed = self.left_out = 0


def readable(record: logging.LogRecord) -> bool:
    """A filter: False for what says nothing to a user.

    Says nothing: what libraries say of a rebalance that goes as it should, that a task of theirs was
    cancelled, and that an error raised on purpose is on its way up: it ends the command, which says it in one
    line.
    """
    if record.msg in _ROUTINE:
        return False
    error = record.exc_info[1] if record.exc_info else None
    if isinstance(error, asyncio.CancelledError):
        return record.name.partition(".")[0] not in LIBRARIES
    return not isinstance(error, FraudstreamError)


def heals(record: logging.LogRecord) -> bool:
    """Whether what was logged as an error passes by itself; mode puts the name of a service before it."""
    return record.levelno == logging.ERROR and str(record.msg).endswith(HEALING)


def soften(record: logging.LogRecord) -> bool:
    """A filter that passes everything, and makes a warning of what heals by itself."""
    if heals(record):
        record.levelno, record.levelname = logging.WARNING, logging.getLevelName(logging.WARNING)
    return True


def configure(level: Level) -> None:
    """Log to stderr from this level on; at `debug` nothing is left out."""
    logging.addLevelName(NOTICE, "NOTICE")
    handler = logging.StreamHandler(sys.stderr)
    handler.addFilter(soften)
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(name)s: %(message)s"))
    if level != "debug":
        handler.addFilter(readable)
        handler.addFilter(Throttle())
    logging.basicConfig(level=LEVELS[level], handlers=[handler])
    # Faust's start-up spinner leaves the root logger at DEBUG, which costs an eighth of the time.
    for name in LIBRARIES:
        logging.getLogger(name).setLevel(max(logging.WARNING, LEVELS[level]))
