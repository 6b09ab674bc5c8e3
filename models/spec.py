"""The feature spec: which entities, windows and aggregates become which columns, in which order.

A spec is built from a plain mapping (a parsed TOML table) by `FeatureSpec.from_mapping`, or is
`FeatureSpec.default()`. It is immutable; `names` is the column order of every feature matrix and `digest`
identifies it in scores and models. What each aggregate means is stated in docs/features.md.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property

from models.spec_reading import (
    DAY,
    SpecError,
    Table,
    boolean,
    choice,
    format_duration,
    integer,
    list_of,
    parse_duration,
    require_unique,
    text,
)

KEY_FIELDS = ("card_id", "terminal_id", "merchant_id", "mcc", "country", "channel", "device_id", "ip")
"""Transaction fields an entity may be keyed by."""

DISTINCT_FIELDS = {
    "cards": "card_id",
    "terminals": "terminal_id",
    "merchants": "merchant_id",
    "mccs": "mcc",
    "countries": "country",
    "channels": "channel",
    "devices": "device_id",
    "ips": "ip",
    "currencies": "currency",
}
"""The `<plural>` of a `distinct_<plural>` aggregate, and the transaction field whose values it counts."""

WINDOWED = ("count", "sum", "mean", "std", "max", "amount_over_mean")
"""Aggregates with one column per window, beside the `distinct_<plural>` ones."""

UNWINDOWED = ("seconds_since_last",)
RUN_COLUMNS = (
    "fraud_run",
    "days_since_run",
    "seconds_since_before_run",
    "genuine_since_fraud",
    "seconds_since_outcome",
)
AMOUNT_COLUMNS = ("amount", "amount_log")
CALENDAR_COLUMNS = ("hour", "day_of_week", "weekend", "night")

MAX_WINDOW_MS = 400 * DAY
MAX_EVENTS_PER_KEY = 1 << 20
MAX_FEATURES = 4096

_NAME = re.compile(r"[a-z][a-z0-9_]{0,62}")
_ATTRIBUTE = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,62}")


@dataclass(frozen=True, slots=True)
class Aggregate:
    """An aggregate of an entity and the windows (ms, ascending) it has columns for, if it is windowed."""

    kind: str
    windows: tuple[int, ...] = ()

    @property
    def distinct_field(self) -> str | None:
        """The transaction field counted by a `distinct_<plural>` aggregate, else None."""
        return (
            DISTINCT_FIELDS.get(self.kind.removeprefix("distinct_"))
            if self.kind.startswith("distinct_")
            else None
        )


@dataclass(frozen=True, slots=True)
class RiskSpec:
    """Label-derived risk of a key: share of frauds in windows shifted back by the label delay (all ms).

    `counts` adds the number of transactions behind each share; `known_windows` count the frauds that became
    known lately, whenever they happened; `since_fraud` adds the time since the last one became known.
    """

    delay: int
    windows: tuple[int, ...]
    known_windows: tuple[int, ...] = ()
    counts: bool = True
    since_fraud: bool = True
    runs: bool = False

    @property
    def reach(self) -> int:
        """How old a transaction can be and still count, in ms."""
        return self.delay + self.windows[-1]


@dataclass(frozen=True)
class EntitySpec:
    """One keyed entity: the transaction field it is keyed by, its windows (ms, ascending) and its columns."""

    name: str
    key: str
    windows: tuple[int, ...]
    aggregates: tuple[Aggregate, ...]
    risk: RiskSpec | None = None
    max_events_per_key: int = 4096

    @cached_property
    def names(self) -> tuple[str, ...]:
        """Column names of this entity's block, in order."""
        suffixes: list[str] = []
        for aggregate in self.aggregates:
            if aggregate.kind in UNWINDOWED:
                suffixes.append(aggregate.kind)
            suffixes.extend(f"{aggregate.kind}_{format_duration(w)}" for w in aggregate.windows)
        if self.risk is not None:
            suffixes.extend(f"risk_{format_duration(w)}" for w in self.risk.windows)
            if self.risk.counts:
                suffixes.extend(f"risk_count_{format_duration(w)}" for w in self.risk.windows)
            suffixes.extend(f"known_frauds_{format_duration(w)}" for w in self.risk.known_windows)
            if self.risk.since_fraud:
                suffixes.append("seconds_since_fraud")
            if self.risk.runs:
                suffixes.extend(RUN_COLUMNS)
        return tuple(f"{self.name}_{suffix}" for suffix in suffixes)

    @cached_property
    def tags(self) -> tuple[str, ...]:
        """Transaction fields whose hashes the window store needs, one column of `tags` each, in order."""
        fields = (aggregate.distinct_field for aggregate in self.aggregates)
        return tuple(dict.fromkeys(field for field in fields if field is not None))

    @cached_property
    def retention_ms(self) -> int:
        """How far behind the oldest row that may still be inserted an event is needed."""
        reach = self.windows[-1]
        if self.risk is not None:
            reach = max(reach, self.risk.reach)
        return reach

    def as_mapping(self) -> dict[str, object]:
        """The mapping `from_mapping` reads back to an equal entity."""
        mapping: dict[str, object] = {
            "name": self.name,
            "key": self.key,
            "windows": [format_duration(w) for w in self.windows],
            "aggregates": {a.kind: [format_duration(w) for w in a.windows] for a in self.aggregates},
            "max_events_per_key": self.max_events_per_key,
        }
        if self.risk is not None:
            mapping["risk"] = {
                "delay": format_duration(self.risk.delay),
                "windows": [format_duration(w) for w in self.risk.windows],
                "known_windows": [format_duration(w) for w in self.risk.known_windows],
                "counts": self.risk.counts,
                "since_fraud": self.risk.since_fraud,
                "runs": self.risk.runs,
            }
        return mapping

    @classmethod
    def from_mapping(cls, mapping: object, path: str) -> EntitySpec:
        """Validate one `[[features.entities]]` table; raises `SpecError` naming the key."""
        table = Table(mapping, path)
        name = table.take("name", text(_NAME))
        key = table.take("key", choice(KEY_FIELDS))
        windows = table.take("windows", _durations)
        aggregates = table.take("aggregates", lambda value, at: _aggregates(value, windows, at))
        risk = table.take("risk", _risk, None)
        cap = table.take("max_events_per_key", integer(1, MAX_EVENTS_PER_KEY), 4096)
        table.finish()
        return cls(name, key, windows, aggregates, risk, cap)


@dataclass(frozen=True)
class FeatureSpec:
    """Everything that decides the columns of a feature matrix."""

    entities: tuple[EntitySpec, ...]
    attributes: tuple[str, ...] = ()
    calendar: tuple[str, ...] = CALENDAR_COLUMNS

    @cached_property
    def transaction_names(self) -> tuple[str, ...]:
        """Columns that depend on the transaction alone: amount, calendar, attributes."""
        return (*AMOUNT_COLUMNS, *self.calendar, *self.attributes)

    @cached_property
    def names(self) -> tuple[str, ...]:
        """Every column, in the order of the feature matrix."""
        return (*self.transaction_names, *(name for entity in self.entities for name in entity.names))

    @cached_property
    def digest(self) -> str:
        """16 hex digits of SHA-256 over the canonical JSON of the spec and the names it leads to."""
        content = {"names": self.names, "spec": self.as_mapping()}
        canonical = json.dumps(content, sort_keys=True, separators=(",", ":"))
        return hashlib.sha256(canonical.encode()).hexdigest()[:16]

    def entity(self, name: str) -> EntitySpec:
        """The entity of that name; KeyError if there is none."""
        for entity in self.entities:
            if entity.name == name:
                return entity
        raise KeyError(name)

    def as_mapping(self) -> dict[str, object]:
        """The mapping `from_mapping` reads back to an equal spec."""
        return {
            "entities": [entity.as_mapping() for entity in self.entities],
            "attributes": list(self.attributes),
            "calendar": list(self.calendar),
        }

    @classmethod
    def from_mapping(cls, mapping: object, path: str = "features") -> FeatureSpec:
        """Validate a parsed `[features]` table; raises `SpecError` naming the key, unknown keys included."""
        table = Table(mapping, path)
        entities = table.take("entities", list_of(EntitySpec.from_mapping))
        attributes = table.take("attributes", list_of(text(_ATTRIBUTE)), ())
        calendar = table.take("calendar", list_of(choice(CALENDAR_COLUMNS)), CALENDAR_COLUMNS)
        table.finish()
        if not entities:
            raise SpecError(f"{path}.entities", "at least one entity is needed")
        require_unique([entity.name for entity in entities], f"{path}.entities", "name")
        require_unique([entity.key for entity in entities], f"{path}.entities", "key")
        require_unique(attributes, f"{path}.attributes", "attribute")
        require_unique(calendar, f"{path}.calendar", "column")
        spec = cls(entities, attributes, calendar)
        require_unique(spec.names, path, "feature name")
        if len(spec.names) > MAX_FEATURES:
            raise SpecError(path, f"{len(spec.names)} features, at most {MAX_FEATURES} are allowed")
        return spec

    @classmethod
    def default(cls) -> FeatureSpec:
        """Card and terminal windows of one hour to 30 days, terminal risk with labels seven days late."""
        return cls.from_mapping(_DEFAULT)


_DEFAULT: dict[str, object] = {
    "entities": [
        {
            "name": "card",
            "key": "card_id",
            "windows": ["1h", "24h", "7d", "30d"],
            "aggregates": {
                "count": ["1h", "24h", "7d", "30d"],
                "sum": ["24h", "7d"],
                "mean": ["24h", "7d", "30d"],
                "std": ["7d", "30d"],
                "max": ["24h", "7d"],
                "distinct_terminals": ["24h", "7d"],
                "distinct_countries": ["24h", "7d"],
                "amount_over_mean": ["7d", "30d"],
                "seconds_since_last": [],
            },
        },
        {
            "name": "terminal",
            "key": "terminal_id",
            "windows": ["1h", "24h", "7d", "30d"],
            "aggregates": {
                "count": ["1h", "24h", "7d", "30d"],
                "mean": ["7d", "30d"],
                "distinct_cards": ["24h"],
                "amount_over_mean": ["30d"],
                "seconds_since_last": [],
            },
            "risk": {
                "delay": "7d",
                "windows": ["24h", "7d", "30d"],
                "known_windows": ["7d", "28d"],
                "runs": True,
            },
        },
    ],
}


def _window(value: object, path: str) -> int:
    ms = parse_duration(value, path)
    if not 0 < ms <= MAX_WINDOW_MS:
        raise SpecError(path, f"{value!r} is not between 1ms and {format_duration(MAX_WINDOW_MS)}")
    return ms


def _durations(value: object, path: str) -> tuple[int, ...]:
    windows = list_of(_window)(value, path)
    if not windows:
        raise SpecError(path, "at least one window is needed")
    for i in range(1, len(windows)):
        if windows[i] <= windows[i - 1]:
            raise SpecError(f"{path}[{i}]", "windows must be ascending and different")
    return windows


def _aggregates(value: object, windows: tuple[int, ...], path: str) -> tuple[Aggregate, ...]:
    """Either a list of kinds (a column per window) or a table kind -> windows."""
    if isinstance(value, Mapping):
        chosen = [(kind, f"{path}.{kind}", only) for kind, only in value.items()]
    elif isinstance(value, list | tuple):
        chosen = [(kind, f"{path}[{i}]", None) for i, kind in enumerate(value)]
    else:
        raise SpecError(path, "a list of aggregates, or a table of aggregate = [windows], is expected")
    if not chosen:
        raise SpecError(path, "at least one aggregate is needed")
    known = (*WINDOWED, *UNWINDOWED, *(f"distinct_{plural}" for plural in DISTINCT_FIELDS))
    parsed = []
    for kind, at, only in chosen:
        choice(known)(kind, at)
        if kind in UNWINDOWED:
            if only:
                raise SpecError(at, "has no windows")
            parsed.append(Aggregate(kind))
            continue
        picked = windows if only is None else _durations(only, at)
        for i, window in enumerate(picked):
            if window not in windows:
                raise SpecError(f"{at}[{i}]", f"{format_duration(window)!r} is not a window of the entity")
        parsed.append(Aggregate(kind, picked))
    require_unique([aggregate.kind for aggregate in parsed], path, "aggregate")
    return tuple(parsed)


def _risk(value: object, path: str) -> RiskSpec:
    table = Table(value, path)
    delay = table.take("delay", parse_duration)
    if delay > MAX_WINDOW_MS:
        raise SpecError(f"{path}.delay", f"is longer than {format_duration(MAX_WINDOW_MS)}")
    windows = table.take("windows", _durations)
    known = table.take("known_windows", lambda value, at: _durations(value, at) if value else (), ())
    counts = table.take("counts", boolean, True)
    since = table.take("since_fraud", boolean, bool(known))
    runs = table.take("runs", boolean, False)
    table.finish()
    if since and not known:
        raise SpecError(f"{path}.since_fraud", "needs known_windows, the longest of which caps it")
    return RiskSpec(delay, windows, known, counts, since, runs)
