"""Which column of a history file is which field: mapping files (TOML), the ready ones, and detection.

`docs/histories.md` describes a mapping file and has an example that the tests run.
"""

from __future__ import annotations

import tomllib
from collections.abc import Collection, Mapping
from datetime import datetime
from pathlib import Path
from typing import Literal

import msgspec
from msgspec import Struct, field

from streams.contract.transaction_columns import OPTIONAL_TEXTS
from streams.errors import FraudstreamError
from streams.times import epoch_ms

ROW_NUMBER = "#row"
IDS = ("transaction_id", "card_id", "terminal_id")
FIELDS = (*IDS, "event_time", "amount_minor", "amount", "currency", "fraud", *OPTIONAL_TEXTS)
NESTED_ATTRIBUTES = "attributes."
_FOLDER = Path(__file__).parent / "mappings"


class HistoryError(FraudstreamError):
    """Correct the file or the mapping: the message names the file, the column and the row."""


class TimeMapping(Struct, frozen=True, forbid_unknown_fields=True):
    """Unit of the time column, and for numbers the RFC 3339 time of 0 (the epoch if absent)."""

    unit: Literal["auto", "datetime", "s", "ms", "us", "ns"] = "auto"
    origin: datetime | None = None

    @property
    def origin_ms(self) -> int:
        return 0 if self.origin is None else epoch_ms(self.origin)


class HistoryMapping(Struct, frozen=True, forbid_unknown_fields=True):
    """A validated mapping; fields are those of the transaction contract, `amount` (major units), `fraud`."""

    name: str
    columns: dict[str, str]
    constants: dict[str, str] = {}
    time: TimeMapping = field(default_factory=TimeMapping)
    prefixes: dict[str, str] = {}
    attributes: dict[str, str] = {}

    def sources(self) -> set[str]:
        """The columns a file must have."""
        named = {*self.columns.values(), *self.attributes.values()}
        return named - {ROW_NUMBER}

    def missing(self, columns: Collection[str]) -> list[str]:
        return sorted(self.sources().difference(columns))


def load_mapping(name_or_path: str | Path) -> HistoryMapping:
    """A ready mapping by its name, or one from a TOML file; HistoryError names what is wrong with it."""
    ready = _FOLDER / f"{name_or_path}.toml"
    path = ready if str(name_or_path) in ready_mappings() else Path(name_or_path)
    try:
        document = tomllib.loads(path.read_text("utf-8"))
    except FileNotFoundError:
        known = ", ".join(ready_mappings())
        raise HistoryError(f"mapping {name_or_path}: no such file, and no ready mapping ({known})") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError, OSError) as error:
        raise HistoryError(f"mapping {path}: {error}") from None
    if unknown := _unknown_key(document):
        raise HistoryError(f"mapping {path}: {unknown}")
    document.setdefault("name", path.stem)
    try:
        mapping = msgspec.convert(document, HistoryMapping)
    except msgspec.ValidationError as error:
        raise HistoryError(f"mapping {path}: {error}") from None
    if problem := _problem(mapping):
        raise HistoryError(f"mapping {path}: {problem}")
    return mapping


def ready_mappings() -> list[str]:
    """Names of the mappings that come with the project."""
    return sorted(path.stem for path in _FOLDER.glob("*.toml"))


def detect_mapping(columns: Collection[str], source: str = "history") -> HistoryMapping:
    """The contract's own field names where a file has them, else the ready mapping that fits."""
    if not _lacking(columns):
        present = [name for name in FIELDS if name in columns]
        if "amount_minor" in present and "amount" in present:
            present.remove("amount")
        nested = [name for name in columns if name.startswith(NESTED_ATTRIBUTES)]
        return HistoryMapping(
            name="contract",
            columns={name: name for name in present},
            attributes={name.removeprefix(NESTED_ATTRIBUTES): name for name in nested},
        )
    for name in ready_mappings():
        mapping = load_mapping(name)
        if not mapping.missing(columns):
            return mapping
    raise HistoryError(
        f"{source}: no column {', '.join(_lacking(columns))}, and none of the ready mappings "
        f"({', '.join(ready_mappings())}) fits; give a mapping file. Columns: {', '.join(sorted(columns))}"
    )


def _lacking(fields: Collection[str]) -> list[str]:
    required = ("transaction_id", "card_id", "event_time", "currency")
    lacking = [name for name in required if name not in fields]
    return lacking if {"amount", "amount_minor"} & set(fields) else [*lacking, "amount_minor"]


def _unknown_key(document: Mapping[str, object]) -> str:
    """A sentence about the first key that no mapping has; empty if there is none."""
    for path, table, kind in (("", document, HistoryMapping), ("time.", document.get("time"), TimeMapping)):
        known = kind.__struct_fields__
        for key in table if isinstance(table, dict) else ():
            if key not in known:
                return f"unknown key {path}{key}; known are {', '.join(path + name for name in known)}"
    return ""


def _problem(mapping: HistoryMapping) -> str:
    given = [*mapping.columns, *mapping.constants]
    if unknown := sorted(set(given).difference(FIELDS)):
        return f"unknown field {unknown[0]}; fields are {', '.join(FIELDS)}"
    if twice := sorted(set(mapping.columns) & set(mapping.constants)):
        return f"{twice[0]} is both a column and a constant"
    if lacking := _lacking(given):
        return f"no column and no constant for {', '.join(lacking)}"
    if {"amount", "amount_minor"} <= set(given):
        return "amount and amount_minor are both given"
    if fixed := sorted(
        {"transaction_id", "event_time", "amount", "amount_minor", "fraud"} & set(mapping.constants)
    ):
        return f"{fixed[0]} cannot be a constant"
    if numbered := sorted(f for f, c in mapping.columns.items() if c == ROW_NUMBER and f not in IDS):
        return f"{numbered[0]} cannot be a row number"
    if odd := sorted(set(mapping.prefixes).difference(IDS)):
        return f"prefix for {odd[0]}, which is no id; ids are {', '.join(IDS)}"
    if mapping.time.origin is not None and mapping.time.origin.tzinfo is None:
        return "time.origin needs a zone, for instance 2018-04-01T00:00:00Z"
    return ""
