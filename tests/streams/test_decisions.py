"""What the decision policy remembers travels with the state of the score stage: restarts change nothing."""

from __future__ import annotations

import itertools
import time
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from models.alert_budget import BudgetPolicy
from models.control_group import ControlGroup
from models.decision import DecisionPolicy, DecisionState, ScoredRows
from models.policy import CostPolicy, ThresholdPolicy
from models.scorers.rules import Rule, RulesScorer
from models.snapshot import make
from streams.errors import SettingsError
from streams.settings import load
from streams.stages.card_core import CardCore, CardState
from streams.stages.decisions import apply, decision_policy, encode_change, encode_state
from streams.stages.model_slots import initial_deployment
from streams.stages.rows import from_history
from streams.stages.score_core import ScoreCore, ScoreState, ScoreStep, in_score_order
from tests.models.decided import DAY, START, decide, part, scored
from tests.streams.made_up import HOUR, RULES, SPEC, history, settings

KEY = b"k" * 32
POLICIES = {
    "cooldown": DecisionPolicy(ThresholdPolicy(0.3), cooldown_ms=5 * HOUR),
    "budget": DecisionPolicy(BudgetPolicy(20, 1, 0.2)),
    "all": DecisionPolicy(BudgetPolicy(20, 1, 0.2), cooldown_ms=5 * HOUR, control=ControlGroup(0.3, KEY)),
}


def few_days(seed: int, n: int = 1500) -> ScoredRows:
    random = np.random.default_rng(seed)
    watermark = START + np.sort(random.integers(0, 3 * DAY, n))
    return scored(random.beta(0.3, 8, n) ** 0.5, watermark=watermark, cards=random.integers(0, 40, n))


@given(
    cuts=st.lists(st.integers(1, 1499), min_size=2, max_size=8, unique=True).map(sorted),
    restart=st.integers(0, 6),
    name=st.sampled_from(sorted(POLICIES)),
)
def test_a_restart_changes_no_decision(cuts: list[int], restart: int, name: str) -> None:
    """From deltas or from a whole dump after any batch: the rest is decided as if nothing had happened."""
    policy, rows = POLICIES[name], few_days(len(cuts) % 3)
    plain = decide(policy, rows)
    at = cuts[min(restart, len(cuts) - 1)]
    state, followed, loaded = DecisionState(), DecisionState(), DecisionState()
    edges = [0, *[cut for cut in cuts if cut <= at]]
    for start, stop in itertools.pairwise(edges):
        decided = policy.decide(state, part(rows, slice(start, stop)))
        apply(followed, encode_change(state, decided))
    apply(loaded, encode_state(state))
    assert encode_state(followed) == encode_state(loaded) == encode_state(state)
    for restored in (followed, loaded):
        rest = decide(policy, part(rows, slice(at, None)), state=restored)
        np.testing.assert_array_equal(rest.alert, plain.alert[at:])
        np.testing.assert_array_equal(rest.threshold, plain.threshold[at:])
        np.testing.assert_array_equal(rest.control, plain.control[at:])
        assert rest.changes == [each for each in plain.changes if each in rest.changes]
    assert plain.alert.sum() > 20


def test_a_change_is_small_between_two_steps() -> None:
    """A batch within a step of event time adds two bytes a row, not the whole sketch."""
    policy, state = POLICIES["budget"], DecisionState()
    rows = few_days(1)
    policy.decide(state, part(rows, slice(0, 1400)))
    one_hour = part(rows, slice(1400, 1500))
    within = np.flatnonzero(one_hour.watermark < int(one_hour.watermark[0]) - START % HOUR + 1)
    decided = policy.decide(state, part(one_hour, within))
    assert len(encode_change(state, decided)) < 400 + 2 * len(within) < len(encode_state(state))


def test_decisions_are_part_of_the_state_of_the_score_stage() -> None:
    """Scores, thresholds and alerts go on as they were, from deltas and from buckets, in any batches."""
    policy = DecisionPolicy(BudgetPolicy(10, 1, 0.02), cooldown_ms=6 * HOUR)
    sent = in_score_order(
        CardCore(SPEC).process(CardState(SPEC, RULES), from_history(history(900, 4), 0, SPEC))
    )
    sent.arrays["card_partition"] = np.zeros(len(sent), np.int64)
    rules = RulesScorer.build(
        SPEC.names, [Rule("amount", limit, 0.5) for limit in (100, 200, 400, 600, 800, 900)]
    )

    def run(state: ScoreState, parts: list[np.ndarray[tuple[int], np.dtype[np.intp]]]) -> list[bytes]:
        deployment = initial_deployment(settings().models, SPEC)
        deployment.promote(make(rules, name="logistic", version=1, spec_digest=SPEC.digest))
        core = ScoreCore(policy, time.perf_counter)
        found: list[bytes] = []
        for index in parts:
            scored_rows = core.process(state, deployment, sent.take(index))
            found += [
                scored_rows.floats("champion").tobytes(),
                scored_rows.floats("threshold").tobytes(),
                scored_rows.bools("alert").tobytes(),
            ]
            follower.apply(state.delta(sent.take(index), None, ScoreStep(decisions=core.change)))
        return found

    follower = ScoreState(SPEC, lateness_ms=HOUR)
    whole, first, loaded = (ScoreState(SPEC, lateness_ms=HOUR) for _ in range(3))
    expected = run(whole, [np.arange(0, 450), np.arange(450, len(sent))])
    follower = ScoreState(SPEC, lateness_ms=HOUR)
    run(first, [*np.array_split(np.arange(450), 7)])
    followed, follower = follower, ScoreState(SPEC, lateness_ms=HOUR)
    for bucket in range(first.buckets):
        loaded.load(bucket, first.dump(bucket))
    rest = [np.arange(450, len(sent))]
    assert run(followed, rest) == run(loaded, rest) == run(first, rest) == expected[3:]
    assert len({*np.frombuffer(expected[4]).tolist()}) > 1


def test_the_settings_choose_the_policy(tmp_path: Path) -> None:
    """Each kind; a control group with the key in the file."""

    def policy(**keys: object) -> DecisionPolicy:
        changed = {f"policy.{name}": value for name, value in keys.items()}
        return decision_policy(load(overrides=changed, environ={}))

    assert policy().name == ThresholdPolicy(0.2).name
    assert policy(kind="budget", alerts_per_day=40).name == BudgetPolicy(40, 4, 0.2).name
    assert policy(kind="cost", investigation_cost={"EUR": 500}).name == CostPolicy({"EUR": 500}, 0.2).name
    with pytest.raises(SettingsError, match=r"policy\.investigation_cost: EURO is no current"):
        policy(kind="cost", investigation_cost={"EUR": 500, "EURO": 500})
    assert not policy().remembers
    assert policy(cooldown="1h").remembers
    key = tmp_path / "key"
    key.write_bytes(KEY)
    drawn = policy(control_share=0.5, control_key_file=str(key)).control
    assert drawn is not None
    cards = [f"c{number}" for number in range(50)]
    expected = ControlGroup(0.5, KEY)
    assert [drawn.holds(card) for card in cards] == [expected.holds(card) for card in cards]


@pytest.mark.parametrize("content", [None, b"short"])
def test_a_control_group_without_its_key_is_refused(tmp_path: Path, content: bytes | None) -> None:
    """A missing or short key is an error that names the setting."""
    if content is not None:
        (tmp_path / "key").write_bytes(content)
    changed = {"policy.control_share": 0.5, "policy.control_key_file": str(tmp_path / "key")}
    with pytest.raises(SettingsError, match=r"policy\.control_key_file: .*(cannot read|32 or more)"):
        decision_policy(load(overrides=changed, environ={}))


def test_the_rules_are_marked_where_they_score() -> None:
    """Before anything is learned, and when a champion fails: model `rules`, version 0, and every row has a
    score.
    """
    sent = in_score_order(
        CardCore(SPEC).process(CardState(SPEC, RULES), from_history(history(50, 1), 0, SPEC))
    )
    sent.arrays["card_partition"] = np.zeros(len(sent), np.int64)
    deployment = initial_deployment(settings().models, SPEC)
    core = ScoreCore(POLICIES["cooldown"], time.perf_counter)
    state = ScoreState(SPEC, lateness_ms=HOUR)
    unlearned = core.process(state, deployment, sent)
    assert (core.model, core.stood_in) == (("rules", 0), False)
    narrow = RulesScorer.build(["amount"], [Rule("amount", 1.0, 1.0)])
    deployment.promote(make(narrow, name="logistic", version=3, spec_digest=SPEC.digest))
    failed = core.process(ScoreState(SPEC, lateness_ms=HOUR), deployment, sent)
    assert (core.model, core.stood_in) == (("rules", 0), True)
    np.testing.assert_array_equal(failed.floats("champion"), unlearned.floats("champion"))
    assert len(failed) == len(sent) == 50
