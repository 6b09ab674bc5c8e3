"""The models that score in this worker, over all of its partitions; pure."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from models.deployment import Deployment
from models.snapshot import Snapshot


@dataclass(frozen=True, slots=True)
class Place:
    """A model in place: outcomes it has learned, if known; on how many partitions it is off, and why."""

    role: str
    name: str
    version: int
    learned: int | None
    partitions: int
    off_on: int
    off_because: str | None


def lineup(deployments: Iterable[Deployment]) -> list[Place]:
    """The models in place, champion first; of versions that differ between partitions the highest.

    Partitions take a new version up between two of their batches, and switch a shadow off each by itself.
    """
    found: dict[tuple[str, str], Place] = {}
    for deployment in deployments:
        learned = {each.name: each.n_learned for each in _snapshots(deployment)}
        reasons = {shadow.snapshot.name: shadow.off for shadow in deployment.shadows}
        for role, name, version in deployment.models():
            before = found.get((role, name))
            reason = reasons.get(name) if role == "shadow" else None
            found[role, name] = Place(
                role,
                name,
                max(version, before.version if before else version),
                _larger(learned.get(name), before.learned if before else None),
                (before.partitions if before else 0) + 1,
                (before.off_on if before else 0) + (reason is not None),
                reason or (before.off_because if before else None),
            )
    return list(found.values())


def _larger(one: int | None, other: int | None) -> int | None:
    return max(one, other) if one is not None and other is not None else one if other is None else other


def _snapshots(deployment: Deployment) -> list[Snapshot]:
    canary = [deployment.canary] if deployment.canary is not None else []
    return [deployment.champion, *canary, *(shadow.snapshot for shadow in deployment.shadows)]
