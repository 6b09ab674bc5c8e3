"""The score core: state from deltas or buckets gives the same scores; the order of scoring."""

from __future__ import annotations

import time

import numpy as np
import pytest

from models.decision import DecisionPolicy
from models.policy import ThresholdPolicy
from models.registry import Slots
from streams.stages.card_core import CardCore, CardState
from streams.stages.columns import Columns
from streams.stages.model_slots import initial_deployment
from streams.stages.rows import from_history
from streams.stages.score_core import ScoreCore, ScoreState, ScoreStep, in_score_order
from tests.streams.made_up import HOUR, RULES, SPEC, history, settings

FIXED = DecisionPolicy(ThresholdPolicy(0.5))


def scored_parts(n: int, seed: int, parts: int) -> list[Columns]:
    """Rows as the card stage sends them, in score order, cut in parts."""
    sent = in_score_order(
        CardCore(SPEC).process(CardState(SPEC, RULES), from_history(history(n, seed), 0, SPEC))
    )
    sent.arrays["card_partition"] = np.zeros(len(sent), np.int64)
    return [sent.take(index) for index in np.array_split(np.arange(len(sent)), parts)]


def frauds_of(rows: Columns) -> Columns:
    """Every fifth row is known as a fraud seven hours later."""
    chosen = rows.take(np.arange(len(rows)) % 5 == 0)
    arrays = {name: chosen.arrays[name] for name in ("hop", "event_time", "transaction")}
    arrays["known_at"] = chosen.ints("event_time") + 7 * HOUR
    arrays["fraud"] = np.ones(len(chosen), np.bool_)
    return Columns({}, arrays)


def features(state: ScoreState, parts: list[Columns]) -> np.ndarray[tuple[int, ...], np.dtype[np.float64]]:
    core, deployment = ScoreCore(FIXED, time.perf_counter), initial_deployment(settings().models, SPEC)
    return np.vstack([core.process(state, deployment, part).floats("features") for part in parts])


@pytest.mark.parametrize("seed", range(3))
def test_a_restored_state_goes_on_as_the_first(seed: int) -> None:
    """From deltas or buckets, with known frauds: features of later rows and positions are identical."""
    parts = scored_parts(500, seed, 10)
    first, followed, loaded = (ScoreState(SPEC, lateness_ms=HOUR) for _ in range(3))
    for number, part in enumerate(parts[:6]):
        features(first, [part])
        step = ScoreStep(applied={0: number}, began=number)
        first.advance(step)
        followed.apply(first.delta(part, None, step))
        known = frauds_of(part)
        first.add_frauds(known)
        step = ScoreStep(told={1: 100 - number}, began=number, slots=Slots(("m", number), (("s", 1),)))
        first.advance(step)
        followed.apply(first.delta(None, known, step))
    for bucket in range(first.buckets):
        loaded.load(bucket, first.dump(bucket))
    expected = features(first, parts[6:])
    for other in (followed, loaded):
        np.testing.assert_array_equal(features(other, parts[6:]), expected)
        assert (other.applied, other.told, other.slots) == ({0: 5}, {1: 100}, first.slots)
        assert other.began == 5
    assert first.slots == Slots(("m", 5), (("s", 1),))
    risk = SPEC.names.index("terminal_risk_3d")
    assert expected[:, risk].max() > 0


def test_the_order_of_scoring_is_that_of_watermark_card_offset() -> None:
    """However the rows come, they are put in one order."""
    rows = Columns(
        {},
        {
            "watermark": np.array([5, 4, 5, 4]),
            "card": np.array([1, 9, 1, 3], np.uint64),
            "offset": np.array([8, 1, 7, 2]),
        },
    )
    assert in_score_order(rows).ints("offset").tolist() == [2, 1, 7, 8]
    shuffled = rows.take(np.array([2, 0, 3, 1]))
    assert in_score_order(shuffled).ints("offset").tolist() == [2, 1, 7, 8]


def test_alerts_are_scores_from_the_threshold_on() -> None:
    """A score equal to the threshold is an alert."""
    part = scored_parts(100, 1, 1)[0]
    deployment = initial_deployment(settings().models, SPEC)
    scores = (
        ScoreCore(FIXED, time.perf_counter)
        .process(ScoreState(SPEC, lateness_ms=HOUR), deployment, part)
        .floats("champion")
    )
    threshold = float(np.sort(scores)[-3])
    result = ScoreCore(DecisionPolicy(ThresholdPolicy(threshold)), time.perf_counter).process(
        ScoreState(SPEC, lateness_ms=HOUR), deployment, part
    )
    np.testing.assert_array_equal(result.bools("alert"), result.floats("champion") >= threshold)
    assert result.bools("alert").sum() >= 3


def test_terminals_with_nothing_left_to_see_are_freed() -> None:
    """Keys that come once and never again do not pile up, in a restored state neither."""
    state, followed = ScoreState(SPEC, lateness_ms=HOUR), ScoreState(SPEC, lateness_ms=HOUR)
    part = scored_parts(60, 1, 1)[0]
    for turn in range(300):
        sent = Columns(part.meta, dict(part.arrays), part.strings)
        for name in ("event_time", "watermark"):
            sent.arrays[name] = part.ints(name) + turn * 100 * HOUR
        sent.arrays["hop"] = np.arange(turn * 1000 + 1, turn * 1000 + 1 + len(sent), dtype=np.uint64)
        features(state, [sent])
        followed.apply(state.delta(sent, None, ScoreStep()))
    assert state.windows is not None
    assert followed.windows is not None
    assert state.windows.n_keys < 300 * 60 / 4
    assert followed.windows.n_keys < 300 * 60 / 4
