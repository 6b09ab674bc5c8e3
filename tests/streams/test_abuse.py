"""Learning under attack: floods of labels, flipped labels, extreme features; what stays as it was."""

from __future__ import annotations

import tracemalloc
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from models.deployment import Deployment, Shadow
from models.gates import Limits
from models.label_floods import LabelFloods
from models.learners.base import Learner
from models.learners.registry import LEARNERS
from models.scorers.rules import RulesScorer
from models.snapshot import Snapshot, decode, encode, make
from streams.settings import load
from streams.stages.columns import Columns
from streams.stages.learn import learn_rules
from streams.stages.learn_checkpoint import LearnCheckpoint
from streams.stages.learn_core import LearnCore, LearnRules, LearnState
from streams.stages.validation import validate
from streams.times import DAY
from tests.models.learner_contract import NAMES, stream, teach

SPEC = "0" * 16
BOUNDS = {"source": 300, "terminal": 40, "card": 5}
KINDS = list(LEARNERS)


def outcomes(
    n: int, *, fraud: bool = True, source: str = "chargeback", card: int | None = None,
    terminal: int | None = None, first: int = 0, day: int = 0, x: float = 5.0,
) -> Columns:  # fmt: skip
    """Verdicts of one day, each of a card and a terminal of its own unless said otherwise."""
    own = np.arange(first + 1, first + n + 1, dtype=np.uint64)
    return Columns(
        {},
        {
            "transaction": own,
            "fraud": np.full(n, fraud),
            "watermark": np.full(n, day * DAY, np.int64),
            "known_at": np.full(n, day * DAY + 1, np.int64),
            "labelled_at": np.full(n, day * DAY + 1, np.int64),
            "features": np.full((n, len(NAMES)), x),
            "alert": np.zeros(n, np.bool_),
            "control": np.zeros(n, np.bool_),
            "propensity": np.ones(n),
            "card": own if card is None else np.full(n, card, np.uint64),
            "hop": own if terminal is None else np.full(n, terminal, np.uint64),
        },
        {"source": [source] * n},
    )


def learned(*parts: Columns, bounds: dict[str, int] = BOUNDS) -> LearnState:
    """A stage that has taken these outcomes and learned them."""
    core = LearnCore(LearnRules(1000 * DAY, SPEC, most_verdicts=bounds))
    state = LearnState({"m": LEARNERS["logistic"](NAMES)})
    for part in parts:
        core.take(state, part)
        for _ in core.advance(state, 1000 * DAY - 1):
            pass
    return state


@pytest.mark.parametrize("origin", ["card", "terminal", "source"])
@pytest.mark.parametrize("fraud", [True, False])
def test_a_flood_of_one_origin_teaches_no_more_than_its_bound(origin: str, fraud: bool) -> None:
    """A hundred thousand verdicts in a day; what others say, and what nobody says, is learned as before."""
    flood = {
        "card": outcomes(100_000, fraud=fraud, card=7),
        "terminal": outcomes(100_000, fraud=fraud, terminal=7),
        "source": outcomes(100_000, fraud=fraud, source="made up"),
    }[origin]
    others = outcomes(20, source="analyst", first=200_000)
    silent = outcomes(1000, source="maturity", fraud=False, card=7, terminal=7, first=300_000)
    state = learned(flood, others, silent)
    assert state.learners["m"].n_learned == BOUNDS[origin] + 20 + 1000
    assert state.floods.flooded == Counter({origin: 100_000 - BOUNDS[origin]})


def test_sources_that_are_made_up_share_one_bound() -> None:
    """A new name for every label is no way around it."""
    parts = [outcomes(1, source=f"source {n}", first=n) for n in range(BOUNDS["source"] + 50)]
    assert learned(*parts).learners["m"].n_learned == BOUNDS["source"]


def test_a_new_day_is_a_new_bound() -> None:
    """Days are those of the transactions, and none is given up or thrown together with others."""
    parts = [outcomes(50, card=7, day=day, first=1000 * day) for day in range(100)]
    state = learned(*parts, *(outcomes(50, card=7, day=day, first=10**6 + 1000 * day) for day in range(100)))
    assert state.learners["m"].n_learned == BOUNDS["card"] * len(parts)
    stamped = outcomes(50, card=7)
    stamped.arrays["known_at"] = np.arange(50) * DAY
    assert learned(stamped).learners["m"].n_learned == BOUNDS["card"], "a label may not choose its day"


def test_a_stamp_does_not_choose_its_day() -> None:
    """Neither does one far ahead take a day of its own, nor do a hundred different ones have a bound each."""
    spread = outcomes(100, card=7)
    spread.arrays["event_time"] = np.arange(100) * DAY
    state = learned(spread)
    assert state.learners["m"].n_learned == BOUNDS["card"]
    assert set(state.floods.counts) == {0}


def test_many_origins_do_not_fill_the_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    """Beyond the cap a flood teaches one verdict more for every cap of origins that counted, whoever else
    comes between; all the others are learned.
    """
    monkeypatch.setattr("models.label_floods.MOST_ORIGINS", 100)
    honest = [outcomes(50, day=number // 3, first=1000 + 100 * number) for number in range(30)]
    flood = [outcomes(50, card=7, terminal=7, first=100_000 + 100 * number) for number in range(30)]
    state = learned(*(part for both in zip(honest, flood, strict=True) for part in both))
    assert sum(map(len, state.floods.counts.values())) <= 100
    counted = 3 * state.learners["m"].n_learned
    assert 0 <= state.learners["m"].n_learned - 30 * 50 - BOUNDS["card"] <= counted / 100
    assert set(state.floods.flooded) == {"card"}


def test_honest_verdicts_are_learned_however_full_the_memory_is() -> None:
    """With the counts of a hundred thousand cards of a hundred old days in it, and within its bytes."""
    tracemalloc.start()
    try:
        floods, before = LabelFloods(BOUNDS), tracemalloc.get_traced_memory()[0]
        for day in range(100):
            rows = np.arange(day * 1000, (day + 1) * 1000, dtype=np.uint64) * np.uint64(0x9E3779B97F4A7C15)
            names = rows.tolist()
            origins = {"card": names, "terminal": names, "source": [each % 10 for each in names]}
            days = np.full(1000, day * DAY)
            assert floods.count(days, np.ones(1000, np.bool_), origins, rows).all()
        most = tracemalloc.get_traced_memory()[1] - before
    finally:
        tracemalloc.stop()
    assert 1_000_000 < most < 6_000_000


@given(
    st.lists(st.tuples(st.booleans(), st.integers(0, 2), st.integers(0, 3), st.integers(0, 4)), max_size=60),
    st.integers(1, 60),
)
def test_how_outcomes_are_cut_changes_nothing(rows: Sequence[tuple[bool, int, int, int]], size: int) -> None:
    """One message or many; no origin has more than its bound, and silence always counts."""
    most = {"card": 2, "terminal": 4, "source": 9}

    def counted(parts: Sequence[Sequence[tuple[bool, int, int, int]]]) -> list[bool]:
        floods = LabelFloods(most)
        found: list[bool] = []
        for part in parts:
            said, source, terminal, card = (list(each) for each in zip(*part, strict=True))
            origins = {"source": source, "terminal": terminal, "card": card}
            times, keys = np.zeros(len(part), np.int64), np.arange(len(found), len(found) + len(part))
            found += floods.count(times, np.array(said, np.bool_), origins, keys.astype(np.uint64)).tolist()
        return found

    whole = counted([rows] if rows else [])
    assert counted([rows[at : at + size] for at in range(0, len(rows), size)]) == whole
    allowed = [row for row, ok in zip(rows, whole, strict=True) if ok and row[0]]
    for place, bound in ((1, 9), (2, 4), (3, 2)):
        assert max(Counter(row[place] for row in allowed).values(), default=0) <= bound
    assert all(ok for row, ok in zip(rows, whole, strict=True) if not row[0])


def test_a_restart_does_not_begin_to_count_anew() -> None:
    """What has been counted is in the checkpoint."""
    state = learned(outcomes(50, card=7))
    kept = LearnCheckpoint(lambda: LearnState({"m": LEARNERS["logistic"](NAMES)}), {"m": ""})
    kept.state = state
    again = LearnCheckpoint(lambda: LearnState({"m": LEARNERS["logistic"](NAMES)}), {"m": ""})
    again.load(0, kept.dump(0))
    core = LearnCore(LearnRules(1000 * DAY, SPEC, most_verdicts=BOUNDS))
    assert core.take(again.state, outcomes(10, card=7, first=500)) == 0
    assert core.take(again.state, outcomes(10, card=8, first=600)) == BOUNDS["card"]


@pytest.mark.parametrize("restarted", [False, True])
def test_repeated_verdicts_use_up_nothing(restarted: bool) -> None:
    """A label stage that died gives its last batch again: what others say that day is learned as ever."""
    card = outcomes(3, card=7)
    rest = outcomes(BOUNDS["card"] - 3, card=7, first=10)
    state = learned(card, card, bounds={"card": BOUNDS["card"]})
    if restarted:
        kept = LearnCheckpoint(lambda: LearnState({"m": LEARNERS["logistic"](NAMES)}), {"m": ""})
        kept.state = state
        kept.load(0, kept.dump(0))
        state = kept.state
    core = LearnCore(LearnRules(1000 * DAY, SPEC, most_verdicts={"card": BOUNDS["card"]}))
    for part in (card, rest, rest, outcomes(1, card=7, first=20)):
        core.take(state, part)
        for _ in core.advance(state, 1000 * DAY - 1):
            pass
    assert state.learners["m"].n_learned == BOUNDS["card"]
    assert state.floods.flooded["card"] == 1


def test_a_verdict_that_is_changed_and_changed_back_counts_every_time() -> None:
    """Only what is the same to the moment is a repeat: nobody goes around the bound by turning to and fro."""
    parts = []
    for number in range(20):
        part = outcomes(1, card=7, fraud=number % 2 == 0)
        part.arrays["known_at"] = part.ints("known_at") + number
        parts.append(part)
    assert learned(*parts).learners["m"].n_learned == BOUNDS["card"]


def test_repeats_are_known_among_many_others(monkeypatch: pytest.MonkeyPatch) -> None:
    """Half of those remembered at least; never more than that."""
    monkeypatch.setattr("models.label_floods.MOST_REMEMBERED", 64)
    floods, most = LabelFloods({"source": 1000}), np.ones(1, np.bool_)
    seen = 0
    for number in range(500):
        for again in (number, max(0, number - 31)):
            keys = np.full(1, again, np.uint64)
            found = floods.count(np.zeros(1, np.int64), most, {"source": ["x"]}, keys)
            assert found.all() == (again == number and floods.counts[0]["source/x"] == number + 1 > seen)
            seen = floods.counts[0]["source/x"]
        assert sum(map(len, floods.remembered)) <= 64
    assert floods.counts[0]["source/x"] == 500


def test_workers_have_bounds_unless_told_otherwise() -> None:
    """Those of the settings."""
    assert learn_rules(load(environ={}), SPEC).most_verdicts == {
        "source": 100_000,
        "terminal": 1000,
        "card": 50,
    }
    none = load(overrides={"labels.daily": {}}, environ={})
    assert learn_rules(none, SPEC).most_verdicts == {}


EXTREMES = [1e308, -1e308, 1e150, -1e150, 1e15, 5e-324, 0.0]


@pytest.mark.parametrize("kind", KINDS)
def test_extreme_features_move_no_ordinary_score_far(kind: str) -> None:
    """A handful of frauds with features as large as numbers go: ordinary rows score about as before."""
    honest, attacked = (teach(LEARNERS[kind](NAMES), 1500) for _ in range(2))
    rows = stream(400, 9)[0]
    for extreme in EXTREMES:
        attacked.learn(np.full(len(NAMES), extreme), True)
    before, after = (learner.freeze().score(rows) for learner in (honest, attacked))
    assert np.isfinite(after).all()
    assert np.abs(after - before).mean() < 0.1


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_features_that_are_no_numbers_teach_nothing(kind: str, value: float) -> None:
    """Refused, counted, and the learner's next scores are those that it would have given."""
    core = LearnCore(LearnRules(1000 * DAY, SPEC))
    state, twin = LearnState({"m": teach(LEARNERS[kind](NAMES), 700)}), teach(LEARNERS[kind](NAMES), 700)
    core.take(state, outcomes(3, x=value))
    for _ in core.advance(state, 2 * DAY):
        pass
    assert state.refused["m"] == 3
    rows = stream(100, 9)[0]
    assert state.learners["m"].freeze().score(rows).tobytes() == twin.freeze().score(rows).tobytes()


def poisoned(kind: str, share: float) -> Learner:
    """Taught 1,500 honest outcomes, then as many of which that share has its label flipped."""
    learner, random = teach(LEARNERS[kind](NAMES), 1500), np.random.default_rng(11)
    for x, fraud in zip(*stream(1500, 5), strict=True):
        learner.learn(x, bool(fraud) ^ bool(random.random() < share))
    return learner


def version(learner: Learner, number: int) -> Snapshot:
    made = make(learner.freeze(), name="m", version=number, spec_digest=SPEC, golden_x=learner.recent)
    return decode(encode(made), SPEC)


#: Learners that half of the labels flipped hardly hurts.
HARDY = {"hoeffding_tree"}


@pytest.mark.parametrize("kind", KINDS)
def test_flipped_labels_make_a_version_that_the_gates_refuse(kind: str) -> None:
    """Half and all of them flipped: refused by honest outcomes. The champion that is pinned scores on, the
    same to the bit, also while the damaged version scores beside it."""
    champion = version(teach(LEARNERS[kind](NAMES), 1500), 1)
    x, fraud = stream(3000, 21)
    arrays = {"features": x, "fraud": fraud, "champion": champion.scorer.score(x)}
    rows = Columns({"spec": SPEC}, {"event_time": np.arange(3000) * DAY // 100, **arrays})
    limits = Limits(rows=2000, outcomes=2000, frauds=20, days=0.0)
    rules = make(RulesScorer.build(NAMES), name="rules", version=0, spec_digest=SPEC)
    alone = Deployment(SPEC, champion, rules).score(x, lambda: 0.0)
    for share in (0.0, 0.5, 1.0):
        other = version(poisoned(kind, share), 2)
        found = validate(other, [rows], threshold=0.5, limits=limits)
        failed = {each.gate for each in found.failed} - {"calibration"}
        assert bool(failed) == (share == 1.0 or (share == 0.5 and kind not in HARDY)), found.findings
        beside = Deployment(SPEC, champion, rules, shadows=[Shadow(replace(other, name="n"))])
        assert beside.score(x, lambda: 0.0).decided.tobytes() == alone.decided.tobytes()
