"""Reading a declaration from plain values: every error names the path of the offending key."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from typing import TypeVar

SECOND = 1_000
MINUTE = 60 * SECOND
HOUR = 60 * MINUTE
DAY = 24 * HOUR

_UNITS = {"ms": 1, "s": SECOND, "m": MINUTE, "h": HOUR, "d": DAY, "w": 7 * DAY}
_DURATION = re.compile(r"([0-9]{1,12})(ms|s|m|h|d|w)")

T = TypeVar("T")


class SpecError(ValueError):
    """A feature spec that cannot be used; the message starts with the path of the offending key."""

    def __init__(self, path: str, problem: str) -> None:
        super().__init__(f"{path}: {problem}")
        self.path = path


def parse_duration(text: object, path: str = "duration") -> int:
    """Milliseconds of a duration such as "90s", "1h", "24h", "7d"; zero is allowed ("0s")."""
    match = _DURATION.fullmatch(text) if isinstance(text, str) else None
    if match is None:
        raise SpecError(path, f"{text!r} is not a duration like '1h', '24h' or '7d'")
    return int(match[1]) * _UNITS[match[2]]


def format_duration(ms: int) -> str:
    """The one spelling of a duration in feature names: days from two days up, else the largest whole unit."""
    if ms >= 2 * DAY and ms % DAY == 0:
        return f"{ms // DAY}d"
    for unit in ("h", "m", "s"):
        if ms and ms % _UNITS[unit] == 0:
            return f"{ms // _UNITS[unit]}{unit}"
    return f"{ms}ms"


Parser = Callable[[object, str], T]
_MISSING = object()


class Table:
    """A mapping being read key by key; `finish` refuses what nobody asked for."""

    def __init__(self, mapping: object, path: str) -> None:
        if not isinstance(mapping, Mapping):
            raise SpecError(path, "a table is expected")
        self._rest: dict[object, object] = dict(mapping)
        self._path = path

    def take(self, key: str, parse: Parser[T], default: T | object = _MISSING) -> T:
        """The value of `key`, read by `parse`; without a default it has to be there."""
        path = f"{self._path}.{key}"
        if key in self._rest:
            return parse(self._rest.pop(key), path)
        if default is _MISSING:
            raise SpecError(path, "is missing")
        return default  # type: ignore[return-value]  # a default is given as a T

    def finish(self) -> None:
        """Refuse the keys that have not been taken."""
        for key in self._rest:
            raise SpecError(f"{self._path}.{key}", "unknown key")


def text(pattern: re.Pattern[str]) -> Parser[str]:
    """A string that matches `pattern` as a whole."""

    def parse(value: object, path: str) -> str:
        if not isinstance(value, str) or not pattern.fullmatch(value):
            raise SpecError(path, f"{value!r} does not match {pattern.pattern}")
        return value

    return parse


def choice(allowed: Sequence[str]) -> Parser[str]:
    """One of these strings."""

    def parse(value: object, path: str) -> str:
        if not isinstance(value, str) or value not in allowed:
            raise SpecError(path, f"{value!r} is not one of {', '.join(allowed)}")
        return value

    return parse


def integer(low: int, high: int) -> Parser[int]:
    """A whole number from `low` to `high`."""

    def parse(value: object, path: str) -> int:
        if isinstance(value, bool) or not isinstance(value, int) or not low <= value <= high:
            raise SpecError(path, f"{value!r} is not an integer from {low} to {high}")
        return value

    return parse


def list_of(parse_item: Parser[T]) -> Parser[tuple[T, ...]]:
    """A list, item by item."""

    def parse(value: object, path: str) -> tuple[T, ...]:
        if not isinstance(value, list | tuple):
            raise SpecError(path, "a list is expected")
        return tuple(parse_item(item, f"{path}[{i}]") for i, item in enumerate(value))

    return parse


def boolean(value: object, path: str) -> bool:
    """True or false."""
    if not isinstance(value, bool):
        raise SpecError(path, f"{value!r} is not true or false")
    return value


def require_unique(values: Sequence[str], path: str, what: str) -> None:
    """Refuse a value that is there more than once; `what` names what they are."""
    for value in values:
        if values.count(value) > 1:
            raise SpecError(path, f"{what} {value!r} is there more than once")
