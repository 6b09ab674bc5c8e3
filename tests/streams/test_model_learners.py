"""Learners from the settings: what cannot be built is refused by slot, with the cure."""

from __future__ import annotations

import pytest

from models.learners.boosted import BoostedLearner
from models.spec import FeatureSpec
from streams.errors import SettingsError
from streams.sections import Models, Slot
from streams.stages import model_slots

BOOSTED = Slot(name="trees", kind="boosted_trees", negative_rate=0.1, options={"n_trees": 30})


def build(slot: Slot) -> dict[str, object]:
    return dict(model_slots.build_learners(Models(champion=slot, shadows=()), FeatureSpec.default()))


def test_a_slot_becomes_its_learner() -> None:
    """Kind, sampling and options arrive."""
    learner = build(BOOSTED)["trees"]
    assert isinstance(learner, BoostedLearner)
    assert learner.keep_one_in == 10


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (ImportError("no"), r"pip install 'fraudstream\[boosting\]'"),
        (OSError("libgomp.so.1: cannot open"), "libgomp"),
    ],
)
def test_a_kind_whose_library_is_missing_is_refused(
    monkeypatch: pytest.MonkeyPatch, error: Exception, said: str
) -> None:
    """A learner that needs an extra says which one; others do not ask for it."""

    def missing(name: str) -> None:
        raise error

    monkeypatch.setattr(model_slots, "import_module", missing)
    with pytest.raises(SettingsError, match=said) as caught:
        build(BOOSTED)
    assert "'trees'" in str(caught.value)
    assert "lightgbm" in str(caught.value)
    assert build(Slot(name="plain", kind="logistic"))


@pytest.mark.parametrize(
    ("slot", "said"),
    [
        (Slot(name="a", kind="oracle"), "unknown kind 'oracle'"),
        (Slot(name="a", kind="boosted_trees", options={"depth": 3}), "depth"),
        (Slot(name="a", kind="boosted_trees", options={"window": 10}), "window must be at least 500"),
    ],
)
def test_what_cannot_be_meant_is_refused(slot: Slot, said: str) -> None:
    """Unknown kinds, unknown options and impossible values are told by slot."""
    with pytest.raises(SettingsError, match=said) as caught:
        build(slot)
    assert "'a'" in str(caught.value)
