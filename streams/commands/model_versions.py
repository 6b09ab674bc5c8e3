"""The versions on the models topic, for people: what each is, without its arrays."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import aclosing
from typing import Any

import msgspec

from models.snapshot_document import SnapshotError, SnapshotHeader, read_header
from streams.commands.aliases import read_registry, role_of
from streams.contract.model_records import is_withheld, key_of
from streams.kafka.clients import read_all
from streams.sections import Models
from streams.settings import Settings


class ModelVersion(msgspec.Struct, frozen=True):
    """A version as its document says; `published_at` and `learned_until` are epoch milliseconds.

    `role` is the one that the version has by the present aliases, empty for one that does not score.
    `withheld` says why aliases that follow the model do not take the version, empty for one that they take.
    `learner` is the kind that the settings give the model, empty if they do not name it; `scorer` is the kind
    of the frozen form that scores. `problem` says why the version cannot be used, as far as that is known;
    everything below is then unknown.
    """

    name: str
    version: int
    role: str
    published_at: int
    size_bytes: int
    learner: str = ""
    problem: str = ""
    withheld: str = ""
    scorer: str = ""
    learned: int = 0
    frauds: int = 0
    learned_until: int = 0
    features: int = 0
    spec: str = ""
    parent: int = 0
    libraries: dict[str, str] = {}
    sha256: str = ""
    signed: bool = False
    metrics: dict[str, float] = {}
    offsets: dict[str, int] = {}


def learner_of(name: str, models: Models) -> str:
    """The learner's kind in the settings; empty for a model that they do not name."""
    return next((slot.kind for slot in (models.champion, *models.shadows) if slot.name == name), "")


async def read_versions(
    settings: Settings,
    wanted: Callable[[str, int], bool] | None = None,
    read: Callable[[bytes], SnapshotHeader] = read_header,
) -> list[ModelVersion]:
    """The wanted versions on the topic, by name and version; else what scores and the latest of each.

    Args:
        read: a version's document, or raises `SnapshotError` with the problem; `models.snapshot.decode` finds
            those of the scorer too.

    Raises:
        BrokerUnreachable, TopicMissing: see `streams.kafka.clients.partitions_of`.
    """
    aliases = (await read_registry(settings)).aliases
    newest: dict[str, int] = {}
    # Versions are large: only what is still wanted at the end is kept and decoded.
    found: dict[tuple[str, int], Any] = {}
    async with aclosing(read_all(settings.broker, settings.topics.models)) as records:
        async for record in records:
            key = key_of(record.key)
            if key is None:
                continue
            if record.value is not None and not is_withheld(record.value):
                newest[key[0]] = max(key[1], newest.get(key[0], 0))
            if wanted is not None and not wanted(*key):
                continue
            if record.value is None:
                found.pop(key, None)
                continue
            found[key] = record if wanted is None else _summary(key, record, settings, read)
    roles = {key: role_of(*key, newest.get(key[0], 0), aliases) for key in found}
    if wanted is None:
        latest = dict(sorted(found))
        kept = {*latest.items(), *(key for key, role in roles.items() if role)}
        found = {key: _summary(key, found[key], settings, read) for key in kept}
    return [msgspec.structs.replace(found[key], role=roles[key]) for key in sorted(found)]


def _summary(
    key: tuple[str, int], record: Any, settings: Settings, read: Callable[[bytes], SnapshotHeader]
) -> ModelVersion:
    name, version = key
    learner = learner_of(name, settings.models)
    plain = ModelVersion(name, version, "", record.timestamp, len(record.value), learner)
    try:
        header = read(record.value)
    except SnapshotError as error:
        return msgspec.structs.replace(plain, problem=f"{type(error).__name__}: {error}")
    if (header.name, header.version) != key:
        return msgspec.structs.replace(plain, problem=f"the document is {header.name}/{header.version}")
    return _described(plain, header)


def _described(plain: ModelVersion, header: SnapshotHeader) -> ModelVersion:
    return msgspec.structs.replace(
        plain,
        withheld=header.withheld,
        scorer=header.kind,
        learned=header.n_learned,
        frauds=header.n_frauds,
        learned_until=header.created_at_event_time,
        features=header.n_features,
        spec=header.spec_digest,
        parent=header.parent,
        libraries=dict(header.libraries),
        sha256=header.sha256,
        signed=bool(header.signature),
        metrics=dict(header.metrics),
        offsets=dict(header.offsets),
    )
