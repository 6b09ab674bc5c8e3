"""The model slots of the settings, before and after anything has been learned."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial
from importlib import import_module

from models.deployment import Deployment, Shadow
from models.learners.base import Learner
from models.learners.drift_aware import DriftAwareLearner
from models.learners.feedback_delayed import DEFAULT
from models.learners.registry import LEARNERS
from models.learners.single import SINGLE
from models.memory import MemoryWatch
from models.registry import Slots, Version
from models.scorers.rules import RulesScorer
from models.snapshot import Snapshot, make
from models.spec import FeatureSpec
from streams.errors import SettingsError
from streams.sections import Models, Slot


def build_learners(models: Models, spec: FeatureSpec) -> dict[str, Learner]:
    """A fresh learner for every slot, by model name.

    Raises:
        SettingsError: a slot names an unknown kind, one whose library is not installed, or an option that its
            learner does not have.
    """
    return {slot.name: _learner(slot, spec) for slot in _slots(models)}


def _slots(models: Models) -> list[Slot]:
    return [models.champion, *models.shadows]


def _learner(slot: Slot, spec: FeatureSpec) -> Learner:
    place = f"models, {slot.name!r}"
    _check(slot.kind, slot.options, LEARNERS, place, f"{place}.options")
    for part in LEARNERS[slot.kind].parts:
        _check_part(slot.options.get(part, {}), f"{place}.options.{part}", spec)
    try:
        make = partial(LEARNERS[slot.kind], spec.names, max(1, round(1 / slot.negative_rate)), **slot.options)
        return make() if slot.drift is None else DriftAwareLearner(make, **slot.drift.model_dump())
    except (TypeError, ValueError) as error:
        raise SettingsError(f"{place}.options: {error}") from error


def _check_part(options: object, place: str, spec: FeatureSpec) -> None:
    """Refuse options that are no learner, by themselves: the one around them could not say which key is
    wrong.
    """
    if not isinstance(options, dict):
        raise SettingsError(f"{place}: must be a table with a kind and its options, not {options!r}")
    kind = options.get("kind", DEFAULT)
    rest = {name: value for name, value in options.items() if name != "kind"}
    _check(kind, rest, SINGLE, place, place)
    try:
        SINGLE[kind](spec.names, 1, **rest)
    except (TypeError, ValueError) as error:
        raise SettingsError(f"{place}: {error}") from error


def _check(
    kind: str, options: Mapping[str, object], kinds: Mapping[str, type[Learner]], place: str, key: str
) -> None:
    if kind not in kinds:
        raise SettingsError(f"{place}: unknown kind {kind!r}; known are {', '.join(sorted(kinds))}")
    _require_library(kinds[kind], f"{place}: kind {kind!r}")
    known = list(inspect.signature(kinds[kind]).parameters)[2:]  # after names and keep_one_in
    if unknown := [name for name in options if name not in known]:
        raise SettingsError(f"{key}: {kind} has no option {', '.join(unknown)}; known are {', '.join(known)}")
    tables = [name for name, value in options.items() if isinstance(value, dict)]
    if wrong := [name for name in tables if name not in kinds[kind].parts]:
        raise SettingsError(f"{key}.{wrong[0]}: must be a value, not a table")


def _require_library(kind: type[Learner], place: str) -> None:
    if not kind.library:
        return
    try:
        import_module(kind.library)
    except ImportError:
        raise SettingsError(
            f"{place} needs {kind.library}, which is not installed: pip install 'fraudstream[{kind.extra}]'"
        ) from None
    except OSError as error:  # the package is there and a library of the system is not
        raise SettingsError(f"{place} needs {kind.library}, which cannot be loaded: {error}") from None


def initial_deployment(models: Models, spec: FeatureSpec, memory: MemoryWatch | None = None) -> Deployment:
    """The slots of the settings before any move, filled with the rules that stand in: version 0.

    Args:
        memory: watches what the shadows take.
    """
    rules = make(RulesScorer.build(spec.names), name="rules", version=0, spec_digest=spec.digest)

    def unlearned(slot: Slot) -> Snapshot:
        return replace(rules, name=slot.name)

    return Deployment(
        spec_digest=spec.digest,
        champion=unlearned(models.champion),
        stand_in=rules,
        memory=memory,
        shadows=[Shadow(unlearned(slot)) for slot in models.shadows],
    )


def at_hand(
    slots: Slots, stand_in: Snapshot, version: Callable[[str, int], Snapshot | None]
) -> dict[Version, Snapshot] | None:
    """What `slots` name, or None if one of its versions is not at hand.

    Args:
        version: a version by name and number, if there is one.
    """
    found: dict[Version, Snapshot] = {}
    for name, number in slots.versions():
        snapshot = version(name, number) if number else replace(stand_in, name=name)
        if snapshot is None:
            return None
        found[name, number] = snapshot
    return found


def fitting(
    slots: Slots, stand_in: Snapshot, version: Callable[[str, int], Snapshot | None]
) -> tuple[Slots, dict[Version, Snapshot]] | None:
    """What of `slots` is at hand: without its champion nothing, without others those that are."""

    def there(each: Version) -> bool:
        return at_hand(Slots(each), stand_in, version) is not None

    if not there(slots.champion):
        return None
    kept = replace(slots, shadows=tuple(each for each in slots.shadows if there(each)))
    if slots.canary is not None and not there(slots.canary):
        kept = replace(kept, canary=None, canary_name="", percent=0.0)
    found = at_hand(kept, stand_in, version)
    return None if found is None else (kept, found)


def install(deployment: Deployment, slots: Slots, found: dict[Version, Snapshot]) -> None:
    """Put what `slots` name into the deployment, from the next batch on."""
    deployment.install(
        found[slots.champion],
        [found[each] for each in slots.shadows],
        found[slots.canary] if slots.canary else None,
        canary_name=slots.canary_name,
        percent=slots.percent,
    )
