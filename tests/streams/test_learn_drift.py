"""Concept drift in the learn stage: a slot asks for it, it is told with event time, counted, in versions."""

from __future__ import annotations

import json
import tomllib
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from pydantic import ValidationError

from models.learners.base import DriftEvent
from models.learners.drift_aware import DriftAwareLearner
from models.learners.logistic import LogisticLearner
from models.registry import Registry
from streams.app import build
from streams.history.backtest import Backtest
from streams.history.backtest_report import report
from streams.kafka.batches import PartitionBook
from streams.kafka.changelog import Changelog
from streams.kafka.outputs import Output
from streams.sections import Models
from streams.settings import Settings, load
from streams.stages.columns import Columns
from streams.stages.control_feed import initial_aliases
from streams.stages.learn import LearnWork
from streams.stages.learn_checkpoint import slot_terms
from streams.stages.learn_core import LearnCore, LearnRules, LearnState, ModelDrift
from streams.stages.model_slots import build_learners
from tests.streams import made_up
from tests.streams.sources import Source

HOUR = 3_600_000
WATCHED = """
shadows = []
champion = { name = "watched", kind = "logistic", drift = { detector = "adwin", min_frauds = 20 } }
"""


def settings(models: str = WATCHED) -> Settings:
    made = load(overrides={"topics.partitions": 1}, environ={})
    return made.model_copy(update={"models": Models.model_validate(tomllib.loads(models))})


def outcomes(known_at: list[int], fraud: list[bool], features: np.ndarray, spec: str) -> Columns:
    return Columns(
        {"label_partition": 0, "spec": spec, "watermark": max(known_at)},
        {
            "transaction": np.array(known_at, np.uint64) + np.uint64(1),
            "fraud": np.array(fraud),
            "known_at": np.array(known_at, np.int64),
            "labelled_at": np.array(known_at, np.int64),
            "watermark": np.array(known_at, np.int64),
            "features": features,
            "alert": np.zeros(len(known_at), np.bool_),
            "control": np.zeros(len(known_at), np.bool_),
            "propensity": np.ones(len(known_at)),
        },
        {"source": ["maturity"] * len(known_at)},
    )


class Noticing(LogisticLearner):
    """Notices something at every third outcome."""

    def take_events(self) -> list[DriftEvent]:
        if self.n_learned % 3:
            return []
        return [DriftEvent("warning", "calibration", "adwin", 0.0, 0.1, self.n_learned)]

    def figures(self) -> dict[str, float]:
        return {"drift_warnings": float(self.n_learned // 3)}


def test_what_is_noticed_bears_the_time_of_its_outcome() -> None:
    """Event time is when the outcome took effect, and a version carries the learner's figures."""
    state = LearnState({"plain": LogisticLearner(["a"]), "noticing": Noticing(["a"])})
    known_at = [3, 4, 7, 9, 14, 16, 17]
    core = LearnCore(LearnRules(publish_every_ms=10, spec_digest="0" * 16))
    core.take(state, outcomes(known_at, [False] * 7, np.zeros((7, 1)), "0" * 16))
    published = [each for found in core.advance(state, 20) for each in found]
    assert [(each.model, each.event_time, each.event.n_learned) for each in state.drift] == [
        ("noticing", 7, 3),
        ("noticing", 16, 6),
    ]
    assert [(s.name, s.version, dict(s.metrics)) for s in published] == [
        ("plain", 1, {}),
        ("noticing", 1, {"drift_warnings": 1.0}),
        ("plain", 2, {}),
        ("noticing", 2, {"drift_warnings": 2.0}),
    ]


def test_the_stage_tells_and_counts_drift() -> None:
    """Frauds that change their looks: records under the key `drift` on the metrics topic, alarms counted."""
    context = build(settings(), ["learn"]).contexts["learn"]
    changelog = Changelog(context.name("learn-state"), context.settings.broker, context.outputs)
    registry = Registry(initial_aliases(context.settings.models))
    work = LearnWork(0, context, changelog, lambda _: None, registry)
    book = PartitionBook("outcomes", 0)
    rng = np.random.default_rng(0)
    n = 3_000
    features = rng.normal(size=(n, len(context.spec.names)))
    fraud = (features[:, 0] > 0.5) ^ (np.arange(n) >= n // 2)
    times = (np.arange(n) * HOUR // 20).tolist()
    sent: list[Output] = []
    for start in range(0, n, 500):
        part = slice(start, start + 500)
        rows = outcomes(times[part], fraud[part].tolist(), features[part], context.spec.digest)
        batch = book.hand_out([Source(rows.encode(), offset=start)], start + 1, None)
        sent += [output for step in work.handle([batch]) for output in step.outputs]
    records = [json.loads(out.value or b"") for out in sent if out.key == b"drift"]
    assert {out.topic for out in sent if out.key == b"drift"} == {"fraud.metrics.v1"}
    late = [each for each in records if each["n_learned"] > n // 2]
    assert [each["what"] for each in late][:2] == ["warning", "drift"]
    assert "replaced" in {each["what"] for each in late}
    for each in records:
        assert each["model"] == "watched"
        assert each["event_time"] == times[each["n_learned"] - 1]
        assert each.keys() == {
            "event_time", "model", "what", "signal", "detector", "before", "after", "n_learned",
        }  # fmt: skip
    alarms = sum(each["what"] == "drift" for each in records)
    assert context.metrics.drift_alarms.value("concept") == alarms > 0
    assert work.checkpoint.state.drift == []


def test_a_slot_says_whether_its_learner_is_watched() -> None:
    """With `drift` it is, whatever its kind; without it is not."""
    spec = build(settings(), ["learn"]).contexts["learn"].spec
    for kind in ("logistic", "binned_logistic", "adaptive_forest", "hoeffding_tree"):
        for drift, watched in (("", False), (", drift = {}", True)):
            text = f'shadows = []\nchampion = {{ name = "m", kind = "{kind}", negative_rate = 0.1{drift} }}'
            learner = build_learners(settings(text).models, spec)["m"]
            assert isinstance(learner, DriftAwareLearner) == watched
            assert (learner.names, learner.keep_one_in) == (spec.names, 10)


@pytest.mark.parametrize(
    "drift", ['{ detector = "ddm" }', '{ replace_when = "never" }', "{ min_frauds = 0 }"]
)
def test_other_options_are_refused(drift: str) -> None:
    """When the settings are read, by the name of the option."""
    option = drift.split()[1]
    with pytest.raises(ValidationError, match=f"champion.drift.{option}"):
        settings(f'champion = {{ name = "m", kind = "logistic", drift = {drift} }}')


def test_shown_settings_load_again(tmp_path: Path) -> None:
    """With a watched champion and an unwatched shadow, and the other way round."""
    watched = {"name": "a", "kind": "logistic", "drift": {"min_frauds": 9}}
    other = {"name": "b", "kind": "logistic"}
    for champion, shadow in ((watched, other), (other, watched)):
        models = Models.model_validate({"champion": champion, "shadows": [shadow]})
        made = load(environ={}).model_copy(update={"models": models})
        (tmp_path / "fraud.toml").write_text(made.as_toml())
        assert load(tmp_path / "fraud.toml", environ={}).models == models


def test_a_learner_starts_anew_when_its_watch_changes() -> None:
    """The terms of a slot tell its options of drift apart, and are what they were for a slot without."""
    texts = ["", ", drift = {}", ", drift = { min_frauds = 9 }"]
    terms = [
        slot_terms(settings(f'shadows = []\nchampion = {{ name = "m", kind = "logistic"{text} }}').models)[
            "m"
        ]
        for text in texts
    ]
    assert terms[0] == '["logistic", {}, 1.0]'
    assert len(set(terms)) == 3


def test_a_backtest_reports_drift() -> None:
    """As it would have been published."""
    result = Backtest(made_up.settings(), made_up.SPEC, label_delay=None).run([made_up.history(300, 1)])
    assert report(result, None, None, None)["drift"] == []
    event = DriftEvent("drift", "fraud_loss", "adwin", 0.1, 0.2, 7)
    noticed = ModelDrift("m", 5, event)
    (record,) = report(replace(result, drift=[noticed]), None, None, None)["drift"]
    assert record == {
        "event_time": 5, "model": "m", "what": "drift", "signal": "fraud_loss", "detector": "adwin",
        "before": 0.1, "after": 0.2, "n_learned": 7,
    }  # fmt: skip
