"""Learners that learn verdicts apart, restarted and changed in between."""

from __future__ import annotations

import numpy as np
import pytest

from models.spec import FeatureSpec
from streams.sections import Models, Slot
from streams.stages.columns import Columns
from streams.stages.learn_checkpoint import LearnCheckpoint, slot_terms
from streams.stages.learn_core import LearnCore, LearnRules, LearnState
from streams.stages.model_slots import build_learners
from tests.streams.learning_apart import MATURITY, Given, outcomes

SPEC = FeatureSpec.default()
CHAMPION = Slot(
    name="both",
    kind="feedback_and_delayed",
    options={"min_feedback": 3, "feedback": {"kind": "logistic"}, "delayed": {"kind": "logistic"}},
)
PLAIN = Slot(name="plain", kind="logistic")
HOUR = 3_600_000


def checkpoint(*slots: Slot) -> LearnCheckpoint:
    models = Models(champion=slots[0], shadows=slots[1:])
    return LearnCheckpoint(lambda: LearnState(build_learners(models, SPEC)), slot_terms(models))


def rows(step: int) -> Columns:
    """Ten transactions an hour; three of them alerts with a verdict, one of which is contradicted later."""
    given: list[Given] = [(step * 10 + n, step * 10 + n + 2, "maturity", n == 9) for n in range(3, 10)]
    given += [(step * 10 + n, step * 10 + n + 15, "analyst", n == 1) for n in range(3)]
    given += [(step * 10, step * 10 + 40, "chargeback", True)]
    made = outcomes(given)
    made.arrays["features"] = np.random.default_rng(step).random((len(given), len(SPEC.names)))
    made.arrays["alert"] = np.array([source != "maturity" for _, _, source, _ in given])
    return made


STEPS = 40


def learned(state: LearnState, first: int, last: int) -> list[tuple[str, int, int, float, tuple[float, ...]]]:
    core = LearnCore(LearnRules(publish_every_ms=20, spec_digest=SPEC.digest, maturity_ms=MATURITY))
    found = []
    for step in range(first, last):
        core.take(state, rows(step))
        for snapshots in core.advance(state, step * 10):
            for each in snapshots:
                told = each.metrics.get("feedback_learned", 0.0)
                found.append((each.name, each.version, each.n_learned, told, tuple(each.golden_scores)))
    return found


@pytest.mark.parametrize("slots", [(CHAMPION, PLAIN), (PLAIN, CHAMPION)])
@pytest.mark.parametrize("cut", [1, 3, 9, 14, 27])
def test_a_restart_anywhere_gives_the_same_versions(slots: tuple[Slot, Slot], cut: int) -> None:
    """As champion and as shadow: verdicts, corrections and what waits for maturity survive in one piece."""
    whole = learned(checkpoint(*slots).state, 0, STEPS)
    before, after = checkpoint(*slots), checkpoint(*slots)
    parts = learned(before.state, 0, cut)
    if cut > 5:
        assert before.state.judged
    after.load(0, before.dump(0))
    assert parts + learned(after.state, cut, STEPS) == whole
    assert max(told for _, _, _, told, _ in whole) > 3 * (STEPS - 5)
    alone = learned(checkpoint(PLAIN).state, 0, STEPS)
    assert [each for each in whole if each[0] == "plain"] == alone


def test_a_slot_that_begins_to_learn_apart_gets_the_verdicts_that_wait() -> None:
    """So does it when it comes back; one that stops leaves nothing behind."""
    before, after, without = checkpoint(PLAIN), checkpoint(CHAMPION), checkpoint(PLAIN)
    learned(before.state, 0, 20)
    after.load(0, before.dump(0))
    learned(after.state, 20, 30)
    told = after.state.learners["both"].figures()["feedback_learned"]
    assert told >= 3 * (30 - 20)
    assert after.state.judged
    without.load(0, after.dump(0))
    assert without.state.judged == {}
    learned(without.state, 30, STEPS)
