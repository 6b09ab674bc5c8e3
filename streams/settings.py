"""The settings: one validated, frozen document and the digest that travels in every score.

Later sources win: defaults, the TOML file, `FRAUD_…` environment variables (`__` between section and key),
flags. A key or variable nobody knows is an error, named with its place and its cure.
"""

from __future__ import annotations

import difflib
import json
import os
import tomllib
from collections.abc import Iterable, Mapping
from hashlib import sha256
from pathlib import Path
from typing import Any, Self, get_origin

from pydantic import BaseModel, Field, ValidationError, model_validator

from streams.errors import SettingsError
from streams.sections import (
    DURATION,
    Alignment,
    Broker,
    Gates,
    Input,
    Labels,
    Models,
    Policy,
    Section,
    Time,
    Topics,
    Worker,
)
from streams.times import duration_text

PREFIX = "FRAUD_"
CONFIG_VARIABLE = "FRAUD_CONFIG"
"""Environment variable with the path of the TOML file; the flag --config wins."""

TEST_PREFIX = "FRAUD_TEST_"
"""Variables for the test suite, which are no settings."""

_DECIDING = ("features", "time", "labels", "models", "policy")
_FREE = ("features",)
"""Sections whose keys are checked elsewhere."""


class Settings(Section):
    """Everything that can be set."""

    broker: Broker = Broker()
    topics: Topics = Topics()
    features: dict[str, Any] = Field(default_factory=dict)
    """The feature spec as `models.spec` reads it; empty for the standard one."""
    input: Input = Input()
    time: Time = Time()
    alignment: Alignment = Alignment()
    labels: Labels = Labels()
    models: Models = Models()
    gates: Gates = Gates()
    policy: Policy = Policy()
    worker: Worker = Worker()

    @model_validator(mode="after")
    def _agree(self) -> Self:
        if self.topics.retention <= self.labels.maturity:
            raise ValueError(
                "topics.retention must be longer than labels.maturity, or scored features are gone"
            )
        if self.policy.kind == "budget" and self.policy.alerts_per_day < self.topics.partitions:
            raise ValueError(
                f"policy.alerts_per_day ({self.policy.alerts_per_day:g}) must be at least topics.partitions "
                f"({self.topics.partitions}): each of them holds its part of the budget"
            )
        return self

    @property
    def digest(self) -> str:
        """16 hexadecimal digits over all that can change a score or an alert, wherever it was set."""
        content = {name: part for name, part in self.model_dump(mode="json").items() if name in _DECIDING}
        for key in ("checkpoint_key_file", "signing_key_file"):
            del content["models"][key]
        del content["policy"]["control_key_file"]
        canonical = json.dumps(content, sort_keys=True, separators=(",", ":"), allow_nan=False)
        return sha256(canonical.encode()).hexdigest()[:16]

    def shown(self) -> dict[str, Any]:
        """The settings as plain values, secrets hidden, durations as text."""
        plain: dict[str, Any] = self.model_dump(mode="json")
        for section, kind in type(self).model_fields.items():
            for name, field in getattr(kind.annotation, "model_fields", {}).items():
                if DURATION in field.metadata:
                    plain[section][name] = duration_text(plain[section][name])
        return plain

    def as_toml(self) -> str:
        """The settings as a TOML file that loads to the same settings, but for hidden secrets."""
        return _toml(self.shown())


def _toml(table: Mapping[str, Any]) -> str:
    """TOML of nested plain values: tables as sections, what stands in lists inline; None is left out."""
    lines: list[str] = []

    def write(part: Mapping[str, Any], path: str) -> None:
        plain = {n: item for n, item in part.items() if item is not None and not isinstance(item, dict)}
        if path and (plain or not part):
            lines.append(f"\n[{path}]")
        lines.extend(f"{_toml_key(name)} = {_toml_value(item)}" for name, item in plain.items())
        for name, item in part.items():
            if isinstance(item, dict):
                write(item, f"{path}.{_toml_key(name)}" if path else _toml_key(name))

    write(table, "")
    return "\n".join(lines).lstrip("\n") + "\n"


def _toml_key(name: str) -> str:
    return name if name.replace("_", "").replace("-", "").isalnum() and name.isascii() else json.dumps(name)


def _toml_value(item: object) -> str:
    if isinstance(item, dict):
        pairs = (f"{_toml_key(n)} = {_toml_value(each)}" for n, each in item.items() if each is not None)
        return "{" + ", ".join(pairs) + "}"
    if isinstance(item, list | tuple):
        return "[" + ", ".join(map(_toml_value, item)) + "]"
    return json.dumps(item, ensure_ascii=False)


def load(
    path: str | Path | None = None,
    overrides: Mapping[str, Any] | None = None,
    environ: Mapping[str, str] | None = None,
) -> Settings:
    """The settings from defaults, TOML file, environment and flags, later ones winning.

    Args:
        path: the TOML file; without one `FRAUD_CONFIG` is asked.
        overrides: dotted key -> value, as flags give them; None values are skipped.
        environ: the environment; that of the process if None.

    Raises:
        SettingsError: with key, place and cure of every mistake found.
    """
    variables = os.environ if environ is None else environ
    merged: dict[str, Any] = {}
    origins: dict[str, str] = {}
    file = path or variables.get(CONFIG_VARIABLE)
    if file:
        for key, value in _leaves(_read_file(Path(file))):
            _put(merged, origins, key, value, f"in {file}")
    for name in sorted(variables):
        if name.startswith(PREFIX) and name != CONFIG_VARIABLE and not name.startswith(TEST_PREFIX):
            key = name.removeprefix(PREFIX).lower().replace("__", ".")
            _check_known(key, f"environment variable {name}")
            _put(merged, origins, key, _environment_value(key, variables[name]), f"in {name}")
    for key, value in (overrides or {}).items():
        if value is not None:
            _put(merged, origins, key, value, "in a flag")
    try:
        return Settings.model_validate(merged)
    except ValidationError as error:
        raise SettingsError("\n".join(_sentences(error, origins))) from None


def known_keys() -> dict[str, type[BaseModel]]:
    """Dotted key of every setting -> the section model it belongs to."""
    keys: dict[str, type[BaseModel]] = {}
    _collect(Settings, "", keys)
    return keys


def _collect(model: type[BaseModel], prefix: str, keys: dict[str, type[BaseModel]]) -> None:
    for name, field in model.model_fields.items():
        kind = field.annotation
        if isinstance(kind, type) and issubclass(kind, BaseModel):
            _collect(kind, f"{prefix}{name}.", keys)
        else:
            keys[prefix + name] = model


def _read_file(path: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise SettingsError(f"cannot read the settings file {path}: {error.strerror}") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise SettingsError(f"{path} is not valid TOML: {error}") from None


def _leaves(table: Mapping[str, Any], prefix: str = "") -> Iterable[tuple[str, Any]]:
    """Dotted key and value of everything in a table; free sections and lists stay whole."""
    for name, value in table.items():
        key = prefix + name
        if isinstance(value, dict) and key not in _FREE and not key.endswith(".options"):
            if not value:
                yield key, {}
            yield from _leaves(value, key + ".")
        else:
            yield key, value


def _put(merged: dict[str, Any], origins: dict[str, str], key: str, value: Any, origin: str) -> None:
    *sections, last = key.split(".")
    table = merged
    for section in sections:
        below = table.setdefault(section, {})
        if not isinstance(below, dict):
            raise SettingsError(f"{section} is set as a whole and by part ({key} {origin})")
        table = below
    table[last] = value
    origins[key] = origin


def _environment_value(key: str, text: str) -> Any:
    """Text as it is, or JSON where the setting is a list or a table."""
    model = known_keys()[key]
    kind = model.model_fields[key.rpartition(".")[2]].annotation
    if get_origin(kind) in (tuple, dict):
        try:
            return json.loads(text)
        except ValueError:
            raise SettingsError(f"{key}: write JSON in {_variable(key)}") from None
    return text


def _variable(key: str) -> str:
    return PREFIX + key.upper().replace(".", "__")


def _check_known(key: str, place: str) -> None:
    keys = known_keys()
    if key not in keys:
        close = difflib.get_close_matches(key, keys, n=1)
        cure = f"; did you mean {_variable(close[0])}?" if close else ""
        raise SettingsError(f"unknown {place}{cure}")


def _sentences(error: ValidationError, origins: Mapping[str, str]) -> Iterable[str]:
    keys = known_keys()
    for problem in error.errors(include_input=False, include_url=False):
        key = ".".join(str(part) for part in problem["loc"])
        place = origins.get(key) or next((o for k, o in origins.items() if k.startswith(key + ".")), "")
        if problem["type"] == "missing":
            section = key.rpartition(".")[0]
            place = next((o for k, o in origins.items() if k.startswith(section + ".")), "")
        where = f"{key} ({place})" if place else key
        if problem["type"] == "extra_forbidden":
            names = {*keys, *(known.rpartition(".")[0] for known in keys)} - {""}
            close = difflib.get_close_matches(key, names, n=1)
            yield f"unknown setting {where}" + (f"; did you mean {close[0]}?" if close else "")
        else:
            message = problem["msg"].removeprefix("Value error, ").replace("Input should", "should")
            if problem["type"] == "missing":
                message = "has to be set"
            yield f"{where}: {message}" if key else message
