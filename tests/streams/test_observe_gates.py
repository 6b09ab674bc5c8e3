"""The figures behind the gates, as the merge has them of all partitions, and what is made of them."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.metrics import average_precision_score

from models.gates import Evidence, Judgement, Limits, judge
from models.registry import Aliases, Move, Pin, Registry
from streams.stages.alignment import NEVER
from streams.stages.columns import Columns, concat
from streams.stages.observing.core import ObserveCore
from streams.stages.observing.drift import DriftState
from streams.stages.observing.gate_figures import MOST_DAYS, Pair
from streams.stages.observing.gate_moves import automatic_move, automatic_rollback, counted_since
from streams.stages.observing.merge_core import MergeCore
from streams.stages.observing.merge_state import MergeState, MergeStep, encode_step
from streams.stages.observing.state import ObserveState, ObserveStep
from streams.times import DAY
from tests.streams.made_up import START
from tests.streams.observed import made_up
from tests.streams.observed import outcomes as known

A, B, NEW = Pin("a"), Pin("b"), Pin("new", 3)
ALIASES = Aliases(A, (B,), NEW, 10.0)
LIMITS = Limits(rows=100, outcomes=100, frauds=10, days=2)
MODELS = [["champion", "a", 7], ["canary", "new", 3], ["shadow", "b", 1]]
PARTITIONS = 2
CORE, MERGE = ObserveCore(), MergeCore()


def rows(n: int, day: int, *, noise: float = 0.3, seconds: float = 1e-6, move: int = 1) -> Columns:
    """Scored rows of a day, with their outcomes: champion and canary know something, the shadow nothing."""
    made, random = made_up(n, day, hours=24, features=1), np.random.default_rng(1 + day)
    fraud = random.random(n) < 0.2
    champion = np.clip(0.5 * fraud + 0.3 * random.random(n), 0, 1)
    canary = np.clip(0.5 * fraud + noise * random.random(n), 0, 1)
    time = made.ints("watermark") + day * DAY
    made.meta |= {
        "watermark": START + (day + 1) * DAY - 1,
        "models": MODELS,
        "row_seconds": [1e-6, seconds, 1e-6],
        "move": move,
    }
    made.arrays |= {
        "event_time": time,
        "watermark": time,
        "record_time": time,
        "status": np.zeros(n, np.uint8),
        "offset": np.arange(n) + day * 10_000,
        "transaction": np.arange(n).astype(np.uint64) + np.uint64(day * 10_000),
        "champion": champion,
        "shadows": np.stack([canary, random.random(n)], axis=1),
        "threshold": np.full(n, 0.5),
        "alert": np.zeros(n, np.bool_),
        "fraud": fraud,
    }
    return made


class Observed:
    """Two partitions of cards, each in a worker of its own, and the merge; `deltas` are what it keeps."""

    def __init__(self, maturity: int = DAY) -> None:
        self._maturity = maturity
        self._cards = [ObserveState(PARTITIONS) for _ in range(PARTITIONS)]
        self.merge = self.empty()
        self.deltas: list[bytes] = []

    def empty(self) -> MergeState:
        return MergeState(PARTITIONS, DriftState(("x",), partitions=PARTITIONS), self._maturity)

    def scored(self, made: Columns) -> None:
        """Every second row is of the other partition."""
        step = MergeStep()
        for partition, state in enumerate(self._cards):
            for part in np.array_split(
                made.take(np.arange(partition, len(made), PARTITIONS)).ints("offset"), 2
            ):
                own = made.take(np.isin(made.ints("offset"), part))
                own.meta = own.meta | {"score_partition": partition, "settled": int(part[0]) - 1}
                CORE.count(state, ObserveStep(), [CORE.scored(state, ObserveStep(), own)])
            for number in range(PARTITIONS):
                state.watermarks[number] = made.meta_int("watermark")
            CORE.move(state, ObserveStep(), "scored", state.positions.get("scored", 0) + len(made))
            MERGE.parts(self.merge, step, CORE.parts(state, ObserveStep(), partition))
            MERGE.shapes(self.merge, step, CORE.shapes_told(state, ObserveStep(), partition))
        self.deltas.append(encode_step(step))
        for evaluated, _ in MERGE.drift(self.merge):
            self.deltas.append(encode_step(evaluated))

    def outcomes(self, made: Columns) -> None:
        """Every partition of labels has decided its rows."""
        step = MergeStep()
        for partition in range(PARTITIONS):
            own = made.take(np.arange(partition, len(made), PARTITIONS))
            told = known(own, partition, own.bools("fraud"), "maturity", self._maturity)
            told.meta |= made.meta | {"score_partition": 0, "settled": -1}
            MERGE.outcomes(self.merge, step, told)
            MERGE.outcomes(self.merge, step, told)
        self.deltas.append(encode_step(step))

    def evidence(self, candidate: str = "new", *, champion: str = "a", since: int = 1) -> Evidence:
        return self.merge.evidence(Pair(since, champion, candidate), canary=candidate == "new")


def observed(days: int, **changed: float) -> Observed:
    """So many days; of the last one not all is decided."""
    made = Observed()
    for day in range(days):
        made.scored(rows(500, day, **changed))  # type: ignore[arg-type]
        made.outcomes(rows(500, day, **changed))  # type: ignore[arg-type]
    return made


def test_figures_are_paired() -> None:
    """Alerts, times and label figures of both models on the same rows of both partitions; of the shadow, too.

    Outcomes that came twice count once, and a day that has not matured as a whole does not.
    """
    made, days = observed(4), [rows(500, day) for day in range(4)]
    evidence = made.evidence()
    assert (evidence.candidate.rows, evidence.candidate.failures) == (2000, 0)
    assert evidence.champion.alerts == sum((each.floats("champion") >= 0.5).sum() for each in days)
    assert evidence.candidate.seconds_per_row == pytest.approx(1e-6)
    assert evidence.champion.seconds_per_row == pytest.approx(1e-6)
    assert (evidence.outcomes, evidence.days, evidence.coverage) == (1500, 3, 1.0)
    truth, canary = (
        np.concatenate([each.bools("fraud") for each in days[:3]]),
        np.concatenate([each.floats("shadows")[:, 0] for each in days[:3]]),
    )
    assert evidence.frauds == truth.sum()
    expected = average_precision_score(truth, canary)
    assert evidence.candidate.average_precision == pytest.approx(expected, abs=0.01)
    budget = sum(int((each.floats("champion") >= 0.5).sum()) for each in days[:3])
    best = np.argsort(-canary)[:budget]
    assert evidence.candidate.precision == pytest.approx(truth[best].mean(), abs=0.02)
    beside = made.evidence("b")
    assert beside.outcomes == 1500
    assert beside.candidate.average_precision < 0.5


def test_a_worker_that_takes_over_judges_by_the_same_figures() -> None:
    """From the deltas alone, and from a checkpoint in the middle of them."""
    made = observed(4)
    from_deltas, resumed, half = made.empty(), made.empty(), made.empty()
    cut = len(made.deltas) // 2
    for delta in made.deltas[:cut]:
        half.apply(delta)
    half.evidence(Pair(1, "a", "new"), canary=True)
    for bucket in range(half.buckets):
        resumed.load(bucket, half.dump(bucket))
    for delta in made.deltas:
        from_deltas.apply(delta)
    for delta in made.deltas[cut:]:
        resumed.apply(delta)
    expected = judge(made.evidence(), LIMITS)
    assert {each.result for each in expected.findings} == {"passed"}
    for state in (from_deltas, resumed):
        assert state.evidence(Pair(1, "a", "new"), canary=True) == expected.evidence


def test_scores_that_are_all_alike_are_told_by_whole_hours() -> None:
    """Of both partitions, from the hour after the pair's first one on."""
    made = Observed()
    for day in range(3):
        part = rows(500, day)
        part.floats("shadows")[:, 0] = np.where(np.arange(500) == 7, 0.9, 0.3)
        made.scored(part)
        if not day:
            assert np.isnan(made.evidence().candidate.commonest)
    judgement = judge(made.evidence(), LIMITS)
    assert {each.gate for each in judgement.failed} >= {"score_shape"}
    assert judgement.evidence.champion.commonest < 0.5


def test_rows_without_a_score_are_failures_and_uncovered() -> None:
    """Where the candidate gave nothing nothing is compared."""
    made = Observed()
    for day in range(4):
        part = rows(500, day)
        part.floats("shadows")[:250, 0] = np.nan
        made.scored(part)
        made.outcomes(part)
    evidence = made.evidence()
    assert evidence.candidate.failures == 1000
    assert (evidence.outcomes, evidence.coverage) == (750, 0.5)


def test_a_model_that_has_not_learned_yet_is_judged_by_its_rules() -> None:
    """Scored rows and outcomes of version 0 are those of the pair."""
    made = Observed()
    for day in range(3):
        part = rows(500, day)
        part.meta["models"] = [[role, name, 0] for role, name, _ in MODELS]
        made.scored(part)
        made.outcomes(part)
    assert (made.evidence().candidate.rows, made.evidence().outcomes) == (1500, 1000)


def test_an_outcome_that_is_taken_back_counts_no_more() -> None:
    """A verdict on an alert that is revised is one outcome, with the last verdict."""
    made, part = Observed(), rows(2, 0)
    part.arrays["alert"] = np.ones(2, np.bool_)
    for fraud in (True, False, True):
        part.arrays["fraud"] = np.array([fraud, True])
        made.outcomes(part)
    made.outcomes(rows(500, 2))
    evidence = made.evidence()
    assert (evidence.outcomes, evidence.frauds) == (2, 2)


def test_days_count_although_verdicts_of_later_ones_are_in() -> None:
    """Analysts answer the same day, the rest of it matures 30 days later: 28 days that have matured count, of
    however many, and no more days are kept than it takes.
    """
    made, maturity = Observed(30 * DAY), 30
    for day in range(maturity + 32):
        prompt = rows(2, day)
        prompt.arrays |= {
            "alert": np.ones(2, np.bool_),
            "transaction": prompt.words("transaction") + np.uint64(5_000),
        }
        prompt.meta["decided"] = NEVER
        made.outcomes(prompt)
        if day >= maturity:
            made.outcomes(rows(20, day - maturity))
            assert made.evidence().days == min(day - maturity, MOST_DAYS)
    assert len(made.merge.pair_days.dump()) <= maturity + 1 + MOST_DAYS


def test_outcomes_of_days_that_are_gone_are_left_out() -> None:
    """They neither come back nor displace others, also in one message with newer ones."""
    made, reverse = Observed(), Observed()
    days = [rows(20, day) for day in range(50)]
    for each in days:
        made.outcomes(each)
    for each in (days[49], *days[:49]):
        reverse.outcomes(each)
    assert reverse.merge.pair_days.dump() == made.merge.pair_days.dump()
    once = Observed()
    once.outcomes(concat(days))
    assert once.merge.pair_days.dump() == made.merge.pair_days.dump()


def test_only_rows_since_the_move_of_the_pair_count() -> None:
    """Those of before, or beside another champion, are not its."""
    made = Observed()
    for move in (1, 2, 3):
        made.scored(rows(500, move, move=move))
    other = rows(500, 4, move=4)
    other.meta["models"] = [["champion", "x", 1], *MODELS[1:]]
    made.scored(other)
    assert [made.evidence(since=since).candidate.rows for since in (1, 2, 3, 4)] == [1500, 1000, 500, 0]
    assert made.evidence(champion="x", since=4).candidate.rows == 500


def test_counting_starts_anew_with_another_champion_or_canary() -> None:
    """A shadow that becomes the canary has to show itself there; a larger share changes nothing."""
    log = Registry(Aliases(A, (NEW, B)))
    assert counted_since(log) == {NEW: 0, B: 0}
    expected: list[tuple[Move, dict[Pin, int]]] = [
        (Move(1, "canary", NEW, 10.0), {NEW: 1, B: 0}),
        (Move(2, "canary", NEW, 50.0), {NEW: 1, B: 0}),
        (Move(3, "shadow-remove", B), {NEW: 1}),
        (Move(4, "shadow-add", B), {NEW: 1, B: 4}),
        (Move(5, "canary", NEW, 0.0), {B: 4, NEW: 1}),
        (Move(6, "promote", B), {NEW: 6, A: 6}),
        (Move(7, "canary", NEW, 10.0), {NEW: 7, A: 6}),
    ]
    for move, since in expected:
        log.take(move)
        assert counted_since(log) == since


def judged(noise: float = 0.3, seconds: float = 1e-6, days: int = 5) -> Judgement:
    return judge(observed(days, noise=noise, seconds=seconds).evidence(), LIMITS)


def registry() -> Registry:
    made = Registry(Aliases(A, (B,)))
    made.take(Move(1, "canary", NEW, 10.0))
    return made


@pytest.mark.parametrize("promote", [False, True])
@pytest.mark.parametrize("abort", [False, True])
def test_the_canary_is_moved_where_configured(abort: bool, promote: bool) -> None:
    """Ended when it fails, promoted when it has passed everything, with the figures; else left alone."""
    how = {"abort": abort, "promote": promote, "now_ms": 5}
    slow = automatic_move(registry(), judged(seconds=1e-3), **how)  # type: ignore[arg-type]
    good = automatic_move(registry(), judged(), **how)  # type: ignore[arg-type]
    assert automatic_move(registry(), judged(days=1), **how) is None  # type: ignore[arg-type]
    if abort:
        assert slow is not None
        assert (slow.number, slow.kind, slow.model, slow.percent) == (2, "canary", NEW, 0.0)
        assert (slow.who, slow.reason) == ("gate", "failed: latency")
        assert slow.evidence["latency.candidate"] == pytest.approx(1e-3)
    else:
        assert slow is None
    if promote:
        assert good is not None
        assert (good.number, good.kind, good.model) == (2, "promote", NEW)
        assert good.evidence["average_precision"] == "passed"
    else:
        assert good is None


def promoted(at: int = 1_000, evidence: dict[str, float | int | str | None] | None = None) -> Registry:
    made = Registry(Aliases(A, (B,)))
    made.take(Move(1, "promote", NEW, at=at, evidence=evidence or {}))
    return made


def beside_the_former(*, stood_in: bool = False, noise: float = 0.3) -> Judgement:
    """The new champion, judged by rows on which the former one is a shadow."""
    made = Observed()
    for day in range(5):
        part = rows(500, day, noise=noise)
        part.arrays["champion"], part.floats("shadows")[:, 0] = (
            part.floats("shadows")[:, 0].copy(),
            part.floats("champion"),
        )
        part.meta["models"] = [["champion", "new", 3], ["shadow", "a", 9], ["shadow", "b", 1]]
        part.meta["stood_in"] = stood_in
        made.scored(part)
        made.outcomes(part)
    return judge(made.evidence("a", champion="new").reversed(), LIMITS)


def test_a_promotion_that_was_a_mistake_is_rolled_back() -> None:
    """To the former champion, with the figures: when it is worse, and when the rules stand in for it."""
    assert automatic_rollback(promoted(), beside_the_former(), probation_ms=100, now_ms=1_050) is None
    for judgement, gate in (
        (beside_the_former(noise=50.0), "alert_rate"),
        (beside_the_former(stood_in=True), "failures"),
    ):
        move = automatic_rollback(promoted(), judgement, probation_ms=100, now_ms=1_050)
        assert move is not None
        assert (move.number, move.kind, move.model, move.who) == (2, "rollback", A, "gate")
        assert gate in move.reason
        log = promoted()
        log.take(move)
        assert log.aliases.champion == A
        assert automatic_rollback(log, judgement, probation_ms=100, now_ms=1_060) is None


def test_a_rollback_needs_a_promotion_on_probation() -> None:
    """Not after it, not where somebody has insisted, not where nobody was promoted."""
    bad = beside_the_former(stood_in=True)
    nobody = Registry(Aliases(A, (B,)))
    for registry, now in ((promoted(), 1_101), (promoted(evidence={"forced": 1}), 1_050), (nobody, 1_050)):
        assert automatic_rollback(registry, bad, probation_ms=100, now_ms=now) is None


def test_two_observers_move_once() -> None:
    """Both make the same move of the same state: the first counts, and neither sees anything to do then."""
    log = registry()
    moves = [
        automatic_move(registry(), judged(seconds=1e-3), abort=True, promote=True, now_ms=now)
        for now in (5, 9)
    ]
    assert all(moves)
    counted = 0
    for move in moves:
        assert move is not None
        try:
            log.take(move)
            counted += 1
        except ValueError:
            continue
    assert counted == 1
    assert log.aliases.canary is None
    assert automatic_move(log, judged(seconds=1e-3), abort=True, promote=True, now_ms=9) is None
