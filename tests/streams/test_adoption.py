"""How a score partition takes models over: durable first, in use then, told last; and how it goes on."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from typing import Any, cast

import msgspec
import pytest

from models.registry import Move, Pin, Registry, Slots
from models.scorers.rules import RulesScorer
from models.snapshot import Snapshot, make
from streams.app import build
from streams.contract.records import Adoption, ModelRef
from streams.kafka.changelog import Changelog
from streams.stages import columns
from streams.stages.control_feed import ControlFeed, initial_aliases
from streams.stages.decisions import decision_policy
from streams.stages.loop import Step
from streams.stages.model_feed import ModelFeed
from streams.stages.score import ScoreWork
from streams.stages.score_core import ScoreState, ScoreStep
from tests.streams.made_up import HOUR, SPEC, settings

CONTEXT = build(settings(), ["score"]).contexts["score"]


@dataclass
class Versions:
    """The models topic, as far as it has come."""

    there: set[tuple[str, int]]

    @property
    def newest(self) -> dict[str, int]:
        return {name: max(n for other, n in self.there if other == name) for name, _ in self.there}

    def version(self, name: str, number: int) -> Snapshot | None:
        if (name, number) not in self.there:
            return None
        return make(RulesScorer.build(SPEC.names), name=name, version=number, spec_digest=SPEC.digest)


@dataclass
class Control:
    registry: Registry


@dataclass
class Log:
    """A changelog with these deltas on it."""

    deltas: list[bytes] = field(default_factory=list)
    buckets: tuple[int, ...] = ()

    async def restore(self, partition: int, state: ScoreState, identity: object) -> Log:
        for delta in self.deltas:
            state.apply(delta)
        return self


def partition(
    versions: Versions, registry: Registry, log: Log | None = None, *, caught_up: bool = True
) -> ScoreWork:
    """An open partition."""
    work = ScoreWork(
        0,
        CONTEXT,
        cast("Changelog", log or Log()),
        cast("ModelFeed", versions),
        cast("ControlFeed", Control(registry)),
        decision_policy(settings()),
        lambda: caught_up,
    )
    asyncio.run(work.open())
    return work


def fresh() -> Registry:
    return Registry(initial_aliases(settings().models))


def told(step: Step) -> Adoption:
    (output,) = step.outputs
    assert (output.topic, output.key) == (CONTEXT.name("metrics"), b"deployment")
    return msgspec.json.decode(output.value or b"", type=Adoption)


def changes(step: Step) -> dict[str, Any]:
    assert step.delta is not None
    return columns.decode(step.delta).meta


def champion(work: ScoreWork) -> tuple[str, int]:
    return work.deployment.models()[0][1:]


def test_durable_then_in_use_then_told() -> None:
    """The models before score until the step that makes those after durable is done."""
    registry = fresh()
    work = partition(Versions({("logistic", 1), ("other", 4)}), registry)
    registry.take(Move(1, "promote", Pin("other")))
    steps = work._adopt_models()
    first = next(steps)
    assert msgspec.convert(changes(first)["slots"], Slots) == Slots(("other", 4), (("logistic", 1),), move=1)
    assert first.outputs == ()
    assert champion(work) == ("logistic", 0)
    record = told(next(steps))
    assert champion(work) == ("other", 4)
    assert (record.move, record.champion, record.shadows) == (
        1,
        ModelRef("other", 4),
        [ModelRef("logistic", 1)],
    )
    assert list(steps) == []
    assert list(work._adopt_models()) == []


def test_a_restarted_partition_goes_on_with_what_it_used() -> None:
    """Until nothing is left of what may have been scored already; then it takes over what has come."""
    versions, registry = Versions({("logistic", 1), ("logistic", 2)}), fresh()
    state = ScoreState(SPEC, lateness_ms=HOUR)
    log = Log([state.delta(None, None, ScoreStep(slots=Slots(("logistic", 1))))])
    behind = partition(versions, registry, log, caught_up=False)
    (again,) = behind.tick()
    assert told(again).champion == ModelRef("logistic", 1)
    assert champion(behind) == ("logistic", 1)
    assert list(behind._adopt_models()) == []
    done = partition(versions, registry, log)
    again, durable, then = done.tick()
    assert told(again).champion == ModelRef("logistic", 1)
    assert changes(durable)["slots"]["champion"] == ["logistic", 2]
    assert told(then).champion == ModelRef("logistic", 2)


def test_versions_that_are_gone_are_not_waited_for() -> None:
    """What cannot be scored again as it was is scored with what there is."""
    state = ScoreState(SPEC, lateness_ms=HOUR)
    log = Log([state.delta(None, None, ScoreStep(slots=Slots(("logistic", 1))))])
    work = partition(Versions({("logistic", 9)}), fresh(), log, caught_up=False)
    list(work._adopt_models())
    assert champion(work) == ("logistic", 9)


def test_a_model_that_nobody_has_does_not_take_the_champion_s_place(caplog: pytest.LogCaptureFixture) -> None:
    """Said once, and taken over as soon as it is there."""
    versions, registry = Versions({("logistic", 1)}), fresh()
    work = partition(versions, registry)
    list(work._adopt_models())
    registry.take(Move(1, "promote", Pin("nobody")))
    for _ in range(3):
        assert list(work._adopt_models()) == []
    assert champion(work) == ("logistic", 1)
    assert caplog.text.count("not all models that should score are at hand") == 1
    versions.there.add(("nobody", 1))
    list(work._adopt_models())
    assert champion(work) == ("nobody", 1)


def test_versions_that_come_at_once_are_one_change() -> None:
    """A learner that catches up after hours makes many versions; only the last one is taken."""
    versions = Versions({("logistic", 1)})
    work = partition(versions, fresh())
    list(work._adopt_models())
    versions.there |= {("logistic", number) for number in range(2, 40)}
    durable, then = work._adopt_models()
    assert changes(durable)["slots"]["champion"] == ["logistic", 39]
    assert told(then).champion == ModelRef("logistic", 39)
    assert list(work._adopt_models()) == []


def test_a_shadow_that_is_not_there_is_left_out() -> None:
    """The others go on and get their new versions; it comes in later."""
    versions, registry = Versions({("logistic", 1)}), fresh()
    work = partition(versions, registry)
    registry.take(Move(1, "shadow-add", Pin("late", 3)))
    list(work._adopt_models())
    assert list(work.deployment.models()) == [("champion", "logistic", 1)]
    versions.there |= {("logistic", 2), ("late", 3)}
    list(work._adopt_models())
    assert list(work.deployment.models()) == [("champion", "logistic", 2), ("shadow", "late", 3)]
