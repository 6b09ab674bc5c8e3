"""Learners of which no version can be made: too large, not compiled, broken; those beside them go on."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import ClassVar, cast

import numpy as np
import pytest
from river.tree import HoeffdingTreeClassifier
from river.tree.splitter import HistogramSplitter

from models.arrays import Floats
from models.deployment import Deployment
from models.learners.base import Learner
from models.learners.freezing import freeze_tree
from models.learners.logistic import LogisticLearner
from models.registry import Registry
from models.scorers.base import FrozenScorer
from models.scorers.boosted import BoostedScorer
from models.snapshot import Snapshot, decode, encode, make
from models.snapshot_arrays import MAX_ARRAY_BYTES
from models.snapshot_fit import TooLargeError, check_fit
from streams.app import build
from streams.errors import SettingsError
from streams.kafka.batches import RecordBatch
from streams.kafka.changelog import Changelog
from streams.kafka.outputs import Output
from streams.sections import Models, Slot
from streams.stages.control_feed import initial_aliases
from streams.stages.learn import LearnWork
from streams.stages.model_slots import build_learners, initial_deployment
from streams.stages.rows import LARGEST_MESSAGE
from tests.models.test_snapshot_bounds import boosted
from tests.streams.learned import (
    CHAMPION,
    CONTEXT,
    HOUR,
    MESSAGES,
    SHADOW,
    checkpoint,
    digests,
    learn,
    outcomes,
    settings,
)
from tests.streams.test_learn_stage import Outcomes

NAMES = CONTEXT.spec.names


def leaves(count: int, width: int = len(NAMES)) -> BoostedScorer:
    """One tree of a single leaf in use, and values that no compression makes smaller."""
    none, value = np.empty(0, np.int32), np.random.default_rng(count).random(count)
    return BoostedScorer(width, 0.0, np.array([-1], np.int32), none, np.empty(0), none, none, value)


class Doubling(LogisticLearner):
    """Freezes into twice as much each time, from 3.2 MB on."""

    kind: ClassVar[str] = "doubling"
    frozen = 0

    def freeze(self) -> FrozenScorer:  # type: ignore[override]  # a learner gone wrong
        self.frozen += 1
        return leaves(200_000 * 2**self.frozen)


class Uncompiled(Learner):
    """River's tree with observers that `models/learners/freezing.py` knows nothing of."""

    kind: ClassVar[str] = "uncompiled"

    def __init__(self, names: Sequence[str], keep_one_in: int = 1) -> None:
        super().__init__(names, keep_one_in)
        self._model = HoeffdingTreeClassifier(
            leaf_prediction="nb", nb_threshold=0, splitter=HistogramSplitter()
        )

    def _learn(self, x: Floats, fraud: bool, weight: float) -> None:
        self._model.learn_one(dict(zip(self.names, x.tolist(), strict=True)), fraud)

    def _score(self, x: Floats) -> float:
        return float(
            self._model.predict_proba_one(dict(zip(self.names, x.tolist(), strict=True))).get(True, 0.0)
        )

    def freeze(self) -> FrozenScorer:
        return freeze_tree(self._model, self.names, self.keep_one_in)


class Broken(LogisticLearner):
    """Weights that have become NaN."""

    kind: ClassVar[str] = "nan"

    def freeze(self) -> FrozenScorer:  # type: ignore[override]  # a learner gone wrong
        scorer = leaves(1)
        scorer.value[0] = np.nan
        return scorer


class Work:
    """The learn stage without a broker, with another learner in a slot."""

    def __init__(self, name: str, learner: Learner) -> None:
        self.context = build(settings(), ["learn"]).contexts["learn"]
        registry = Registry(initial_aliases(self.context.settings.models))
        self.work = LearnWork(0, self.context, cast("Changelog", None), lambda _: None, registry)
        self.work.checkpoint.state.learners[name] = learner

    def outputs(self, batches: list[RecordBatch]) -> list[Output]:
        return [output for step in self.work.handle(batches) for output in step.outputs]

    def versions(self, batches: list[RecordBatch]) -> dict[str, list[Snapshot]]:
        """Those published, by model; each small enough for the producer, and taken by whoever reads it."""
        found: dict[str, list[Snapshot]] = {"champion": [], "shadow": []}
        for output in self.outputs(batches):
            assert len(output.value or b"") < self.context.outputs.max_record_bytes - 1000
            snapshot = decode(output.value or b"", self.context.spec.digest)
            found[snapshot.name].append(snapshot)
        return found

    def refused(self, name: str) -> float:
        return self.context.metrics.model_refused.value(name)


#: Enough for a version in each of six hours.
MANY = [
    *(outcomes(0, (hour + 1) * HOUR, [hour * HOUR + 7]) for hour in range(1, 7)),
    *(outcomes(1, (hour + 1) * HOUR, [hour * HOUR + 9]) for hour in range(1, 7)),
]


@pytest.mark.parametrize("slot", ["champion", "shadow"])
def test_a_learner_that_doubles_stops_publishing_before_the_broker_refuses(
    slot: str, caplog: pytest.LogCaptureFixture
) -> None:
    """The third one is not published, nor any after it, told and counted; the other model misses nothing."""
    healthy = learn(checkpoint([CHAMPION, SHADOW]).state, MANY)
    doubling, other = Work(slot, Doubling(NAMES)), {"champion": "shadow", "shadow": "champion"}[slot]
    found = doubling.versions(Outcomes().batches(MANY))
    assert [each.version for each in found[slot]] == [1, 2]
    expected = [each for each in healthy if each.name == other]
    assert len(expected) > 4
    assert digests([replace(each, offsets={}) for each in found[other]]) == digests(expected)
    not_made = len(expected) - 2
    assert (doubling.refused(slot), doubling.refused(other)) == (not_made, 0)
    assert caplog.text.count(f"{slot}: no version could be made: TooLargeError: boosted: ") == (not_made)
    state = doubling.work.checkpoint.state
    assert (state.versions[slot], state.parents[slot]) == (2, 2)


def test_what_the_check_lets_through_fits() -> None:
    """Compressed well or not at all, at the edge of the limit."""
    sizes = range(1_000_000, 1_300_000, 50_000)
    fits = []
    for count in sizes:
        scorer = leaves(count)
        try:
            check_fit(scorer, LARGEST_MESSAGE)
        except TooLargeError:
            continue
        fits.append(count)
        document = encode(make(scorer, name="m", version=1, spec_digest="s"))
        assert len(document) < LARGEST_MESSAGE - 1000
        decode(document)
    assert 0 < len(fits) < len(sizes)
    assert fits == list(sizes)[: len(fits)]
    zeros = replace(leaves(1), value=np.zeros(4_000_000))
    check_fit(zeros, LARGEST_MESSAGE)
    decode(encode(make(zeros, name="m", version=1, spec_digest="s")))


@pytest.mark.parametrize(
    ("scorer", "said"),
    [
        pytest.param(lambda: boosted(1_000_000, 1), "2000000 steps", id="steps"),
        pytest.param(lambda: leaves(MAX_ARRAY_BYTES // 8), "arrays of", id="bytes in memory"),
    ],
)
def test_what_scorers_would_refuse_is_not_published(scorer: object, said: str) -> None:
    """By the same limits."""
    with pytest.raises(TooLargeError, match=said):
        check_fit(cast("FrozenScorer", scorer()), MAX_ARRAY_BYTES)  # type: ignore[operator]


@pytest.mark.parametrize(
    ("learner", "said"),
    [
        pytest.param(
            Uncompiled,
            "CannotFreezeError: naive Bayes over HistogramSplitter is not known",
            id="not compiled",
        ),
        pytest.param(Broken, "ScorerArraysError: array 'value' has values that are not finite", id="NaN"),
    ],
)
@pytest.mark.parametrize("slot", ["champion", "shadow"])
def test_a_learner_that_cannot_be_compiled_never_scores(
    slot: str, learner: type[Learner], said: str, caplog: pytest.LogCaptureFixture
) -> None:
    """It goes on learning; as champion the rules decide in its place; the reason is told each time."""
    work = Work(slot, learner(NAMES))
    found = work.versions(Outcomes().batches(MESSAGES))
    other = {"champion": "shadow", "shadow": "champion"}[slot]
    assert found[slot] == []
    assert len(found[other]) > 2
    assert f"{slot}: no version could be made: {said}" in caplog.text
    assert work.refused(slot) > 2
    assert work.refused(other) == 0
    assert work.work.checkpoint.state.learners[slot].n_learned > 3
    deployment: Deployment = initial_deployment(work.context.settings.models, work.context.spec)
    for snapshot in found[other]:
        deployment.swap(snapshot)
    assert deployment.models()[slot == "shadow"][1:] == (slot, 0)


def test_a_kind_that_is_none_of_the_compiled_is_refused_at_the_start() -> None:
    """As champion and as shadow, with what there is instead."""
    good = Slot(name="good", kind="logistic")
    bad = Slot(name="bad", kind=Uncompiled.kind)
    for champion, shadows in ((bad, ()), (good, (bad,))):
        with pytest.raises(
            SettingsError, match=r"'bad': unknown kind 'uncompiled'; known are adaptive_forest"
        ):
            build_learners(Models(champion=champion, shadows=shadows), CONTEXT.spec)
