"""Learners from the settings: what cannot be built is refused by slot, with the cure."""

from __future__ import annotations

import inspect
import re
import tomllib
from pathlib import Path
from typing import Any

import pytest

from models.learners.binned import BinnedLearner
from models.learners.boosted import BoostedLearner
from models.learners.feedback_delayed import FeedbackDelayedLearner
from models.learners.logistic import LogisticLearner
from models.learners.registry import LEARNERS
from models.spec import FeatureSpec
from streams.errors import SettingsError
from streams.sections import Models, Slot
from streams.settings import load
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


def test_a_slot_of_two_learners() -> None:
    """Kinds and options of both arrive; without any, both are of the default kind. Each slot has its own."""
    options: dict[str, Any] = {
        "feedback_weight": 0.25,
        "feedback": {"kind": "logistic", "learning_rate": 0.01},
    }
    learner = build(Slot(name="two", kind="feedback_and_delayed", negative_rate=0.2, options=options))["two"]
    assert isinstance(learner, FeedbackDelayedLearner)
    assert (learner.feedback_weight, learner.keep_one_in, learner.apart) == (0.25, 5, True)
    feedback, delayed = learner._feedback, learner._delayed
    assert isinstance(feedback, LogisticLearner)
    assert isinstance(delayed, BinnedLearner)
    assert (feedback.keep_one_in, delayed.keep_one_in) == (1, 5)
    slots = [Slot(name=name, kind="feedback_and_delayed") for name in ("a", "b")]
    built = model_slots.build_learners(Models(champion=slots[0], shadows=(slots[1],)), FeatureSpec.default())
    one, other = built["a"], built["b"]
    assert isinstance(one, FeedbackDelayedLearner)
    assert isinstance(other, FeedbackDelayedLearner)
    assert one._feedback is not other._feedback


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"feedback": {"kind": "oracle"}}, r"options\.feedback: unknown kind 'oracle'"),
        ({"delayed": {"kind": "feedback_and_delayed"}}, r"options\.delayed: unknown kind"),
        ({"delayed": {"depth": 3}}, r"options\.delayed: binned_logistic has no option depth"),
        (
            {"feedback": {"kind": "boosted_trees", "window": 9}},
            r"options\.feedback: window must be at least 500",
        ),
        ({"delayed": "logistic"}, r"options\.delayed: must be a table"),
        ({"feedback_weight": 2.0}, r"options: feedback_weight must lie between 0 and 1, not 2"),
        ({"feedback_weight": {"a": 1}}, r"options\.feedback_weight: must be a value, not a table"),
        ({"weight": 0.5}, "feedback_and_delayed has no option weight"),
    ],
)
def test_the_options_of_two_learners_are_refused_by_key(options: dict[str, Any], said: str) -> None:
    """Each of them by the key it stands under."""
    with pytest.raises(SettingsError, match=said) as caught:
        build(Slot(name="a", kind="feedback_and_delayed", options=options))
    assert "models, 'a'" in str(caught.value)


@pytest.mark.parametrize("value", [[1], None, {"kind": ["logistic"]}])
def test_an_option_is_a_value_or_a_table_of_values(value: object) -> None:
    """Anything else is refused by its key, in one sentence."""
    slot = {"name": "a", "kind": "feedback_and_delayed", "options": {"feedback": value}}
    with pytest.raises(SettingsError, match=r"options\.feedback: an option is a number, text") as caught:
        load(overrides={"models.champion": slot}, environ={})
    assert len(str(caught.value).splitlines()) == 1


def test_a_library_that_is_missing_is_told_by_part(monkeypatch: pytest.MonkeyPatch) -> None:
    """Also where only one of two learners needs it."""

    def missing(name: str) -> None:
        raise ImportError("no")

    monkeypatch.setattr(model_slots, "import_module", missing)
    options: dict[str, Any] = {"delayed": {"kind": "boosted_trees"}}
    with pytest.raises(SettingsError, match=r"options\.delayed: kind 'boosted_trees' needs lightgbm"):
        build(Slot(name="a", kind="feedback_and_delayed", options=options))


def test_the_documented_learners_are_those_there_are() -> None:
    """docs/learners.md lists every kind, with options that it has, and its examples can be used."""
    text = (Path(__file__).parents[2] / "docs" / "learners.md").read_text()
    table = text.split("\n## ")[0]
    listed = dict(re.findall(r"^\| `(\w+)` \|.*\| (.*) \|$", table, re.MULTILINE))
    assert sorted(listed) == sorted(LEARNERS)
    for kind, options in listed.items():
        named = set(re.findall(r"`(\w+)`", options))
        assert named <= set(inspect.signature(LEARNERS[kind]).parameters)
        assert named >= set(LEARNERS[kind].parts)
    examples = [part.split("```")[0] for part in text.split("```toml\n")[1:]]
    assert len(examples) == 2
    for example in examples:
        models = Models.model_validate(tomllib.loads(example)["models"])
        assert model_slots.build_learners(models, FeatureSpec.default())
