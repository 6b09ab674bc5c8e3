"""Which of the models that should score can, and that the others change nothing."""

from __future__ import annotations

from models.registry import NOWHERE, Slots
from models.scorers.rules import RulesScorer
from models.snapshot import Snapshot, make
from streams.stages.model_slots import at_hand, fitting, initial_deployment, install
from tests.streams.made_up import SPEC, settings


def version_of(name: str, number: int) -> Snapshot | None:
    """There are versions 1 and 2 of a, and 1 of b."""
    if (name, number) not in {("a", 1), ("a", 2), ("b", 1)}:
        return None
    return make(RulesScorer.build(SPEC.names), name=name, version=number, spec_digest=SPEC.digest)


RULES = make(RulesScorer.build(SPEC.names), name="rules", version=0, spec_digest=SPEC.digest)


def test_what_is_at_hand_is_installed() -> None:
    """Every slot with its version; version 0 are the rules under the model's name."""
    slots = Slots(("a", 2), (("b", 1), ("c", 0)), ("a", 1), "a/1", 5.0)
    found = at_hand(slots, RULES, version_of)
    assert found is not None
    deployment = initial_deployment(settings().models, SPEC)
    install(deployment, slots, found)
    assert deployment.models() == [
        ("champion", "a", 2), ("canary", "a", 1), ("shadow", "b", 1), ("shadow", "c", 0),
    ]  # fmt: skip
    assert (deployment.canary_name, deployment.percent) == ("a/1", 5.0)
    assert deployment.shadows[1].snapshot.scorer is RULES.scorer
    fit = fitting(slots, RULES, version_of)
    assert fit is not None
    assert (fit[0], fit[1].keys()) == (slots, found.keys())


def test_what_is_not_at_hand_is_left_out() -> None:
    """Shadows and the canary alone; without its champion nothing is changed."""
    slots = Slots(("a", 2), (("b", 9), ("b", 1), ("nobody", NOWHERE)), ("a", 7), "a/7", 5.0, move=3)
    assert at_hand(slots, RULES, version_of) is None
    fit = fitting(slots, RULES, version_of)
    assert fit is not None
    assert fit[0] == Slots(("a", 2), (("b", 1),), move=3)
    assert fitting(Slots(("nobody", NOWHERE), (("b", 1),)), RULES, version_of) is None
