"""Reading and writing times and durations; inside everything is integer epoch milliseconds."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta

MIN_TIME = 946_684_800_000
"""2000-01-01T00:00:00Z; epoch seconds of this century lie far below."""

MAX_TIME = 4_102_444_800_000
"""2100-01-01T00:00:00Z, exclusive; epoch micro- and nanoseconds lie far above."""

SECOND = 1_000
MINUTE = 60_000
HOUR = 3_600_000
DAY = 86_400_000

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MILLISECOND = timedelta(milliseconds=1)
_UNITS = {"ms": 1, "s": SECOND, "m": MINUTE, "h": HOUR, "d": DAY, "w": 7 * DAY}
_DURATION = re.compile(r"(?:\d+(?:ms|s|m|h|d|w))+")
_PART = re.compile(r"(\d+)(ms|s|m|h|d|w)")


def epoch_ms(moment: datetime) -> int:
    """Epoch milliseconds of an aware datetime, rounded down."""
    return (moment - _EPOCH) // _MILLISECOND


def rfc3339(time: int) -> str:
    """`time` (epoch ms) as RFC 3339 UTC with milliseconds."""
    return (_EPOCH + time * _MILLISECOND).strftime("%Y-%m-%dT%H:%M:%S.") + f"{time % 1000:03d}Z"


def time_hint(time: int) -> str:
    """What a number outside the accepted range looks like, as the cure to show."""
    # In integers: a number can be too long for a float.
    for unit, low, high in (
        ("seconds", MIN_TIME // SECOND, MAX_TIME // SECOND),
        ("microseconds", MIN_TIME * 1_000, MAX_TIME * 1_000),
        ("nanoseconds", MIN_TIME * 1_000_000, MAX_TIME * 1_000_000),
    ):
        if low <= time < high:
            return f"looks like epoch {unit}, send milliseconds"
    return "outside the years 2000 to 2100"


def duration_ms(text: str) -> int:
    """Milliseconds of a duration such as `7d`, `1h30m` or `250ms`; raises ValueError without a unit."""
    compact = text.strip().replace(" ", "")
    if not _DURATION.fullmatch(compact):
        raise ValueError('a duration needs units: ms, s, m, h, d or w, for instance "90s" or "1h30m"')
    return sum(int(number) * _UNITS[unit] for number, unit in _PART.findall(compact))


def duration_text(duration: int) -> str:
    """The shortest way to write a duration of so many milliseconds, read back by `duration_ms`."""
    parts = []
    for unit in ("d", "h", "m", "s", "ms"):
        number, duration = divmod(duration, _UNITS[unit])
        if number:
            parts.append(f"{number}{unit}")
    return "".join(parts) or "0s"
