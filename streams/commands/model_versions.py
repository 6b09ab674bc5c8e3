"""The versions on the models topic, for people: what each is, without its arrays."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import aclosing
from typing import Any

import msgspec

from models.snapshot import Snapshot, SnapshotError, decode
from streams.kafka.clients import read_all
from streams.sections import Models
from streams.settings import Settings
from streams.stages.model_feed import key_of


class ModelVersion(msgspec.Struct, frozen=True):
    """A version as its document says; `published_at` and `learned_until` are epoch milliseconds.

    `learner` is the kind that the settings give the model, empty if they do not name it; `scorer` is the kind
    of the frozen form that scores. `problem` says why the version cannot be used; everything below is then
    unknown.
    """

    name: str
    version: int
    role: str
    published_at: int
    size_bytes: int
    learner: str = ""
    problem: str = ""
    scorer: str = ""
    learned: int = 0
    learned_until: int = 0
    features: int = 0
    spec: str = ""
    river: str = ""
    sha256: str = ""
    signed: bool = False
    metrics: dict[str, float] = {}
    offsets: dict[str, int] = {}


def role_of(name: str, models: Models) -> str:
    """`champion`, `shadow`, or empty for a model that the settings do not name."""
    if name == models.champion.name:
        return "champion"
    return "shadow" if any(name == slot.name for slot in models.shadows) else ""


def learner_of(name: str, models: Models) -> str:
    """The learner's kind in the settings; empty for a model that they do not name."""
    return next((slot.kind for slot in (models.champion, *models.shadows) if slot.name == name), "")


async def read_versions(
    settings: Settings, wanted: Callable[[str, int], bool] | None = None
) -> list[ModelVersion]:
    """The wanted versions on the topic, by name and version; without `wanted` the latest of each name.

    Raises:
        BrokerUnreachable, TopicMissing: see `streams.kafka.clients.partitions_of`.
    """
    # Versions are large: only what is still wanted at the end is kept and decoded.
    found: dict[tuple[str, int], Any] = {}
    async with aclosing(read_all(settings.broker, settings.topics.models)) as records:
        async for record in records:
            key = key_of(record.key)
            if key is None or (wanted is not None and not wanted(*key)):
                continue
            if record.value is None:
                found.pop(key, None)
                continue
            found[key] = record if wanted is None else _summary(key, record, settings)
    if wanted is None:
        latest = dict(sorted(found))
        found = {key: _summary(key, found[key], settings) for key in latest.items()}
    return [found[key] for key in sorted(found)]


def _summary(key: tuple[str, int], record: Any, settings: Settings) -> ModelVersion:
    name, version = key
    role, learner = role_of(name, settings.models), learner_of(name, settings.models)
    plain = ModelVersion(name, version, role, record.timestamp, len(record.value), learner)
    try:
        snapshot = decode(record.value)
    except SnapshotError as error:
        return msgspec.structs.replace(plain, problem=f"{type(error).__name__}: {error}")
    if (snapshot.name, snapshot.version) != key:
        return msgspec.structs.replace(plain, problem=f"the document is {snapshot.name}/{snapshot.version}")
    return _described(plain, snapshot)


def _described(plain: ModelVersion, snapshot: Snapshot) -> ModelVersion:
    return msgspec.structs.replace(
        plain,
        scorer=snapshot.kind,
        learned=snapshot.n_learned,
        learned_until=snapshot.created_at_event_time,
        features=snapshot.scorer.n_features,
        spec=snapshot.spec_digest,
        river=snapshot.river,
        sha256=snapshot.sha256,
        signed=bool(snapshot.signature),
        metrics=dict(snapshot.metrics),
        offsets=dict(snapshot.offsets),
    )
