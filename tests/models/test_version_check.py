"""Which versions are withheld from aliases that follow their model, and by what outcomes."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from sklearn.metrics import log_loss, roc_auc_score

from models.learners.base import Learner
from models.learners.registry import LEARNERS
from models.scorers.base import FrozenScorer
from models.version_check import MOST_ENTROPY, VersionCheck
from models.yardstick import DAY, DAYS_KEPT, LEAST_DAYS, MOST_FRAUDS, MOST_GENUINE, Comparison, Yardstick
from tests.models.learner_contract import NAMES, Floats, stream

Bools = np.ndarray[tuple[int], np.dtype[np.bool_]]
#: Labels of a day as they come, from the true ones.
Told = Callable[[Bools], Bools]


def honest(fraud: Bools) -> Bools:
    return fraud


def flipped(fraud: Bools) -> Bools:
    return ~fraud


def day_of(number: int, rows: int = 400) -> tuple[Floats, Bools]:
    return stream(rows, 100 + number)


def spend(yardstick: Yardstick, number: int, told: Told = honest, *learners: Learner) -> None:
    """A day's outcomes reach the learners and the yardstick."""
    x, fraud = day_of(number)
    for row, (values, truth) in enumerate(zip(x, told(fraud).tolist(), strict=True)):
        yardstick.add(number * DAY + row, 1_000_003 * (number * 1000 + row), truth, values.tobytes())
        for learner in learners:
            learner.learn(values, truth)


def taught(kind: str, days: int, yardstick: Yardstick) -> Learner:
    learner = LEARNERS[kind](NAMES)
    for number in range(days):
        spend(yardstick, number, honest, learner)
    return learner


class Odd:
    """Gives what it is told to."""

    kind = "odd"

    def __init__(self, score: Callable[[Floats], Floats]) -> None:
        self.score = score


def compared(
    yardstick: Yardstick, candidate: Odd | FrozenScorer, reference: FrozenScorer, least_frauds: int = 1
) -> Comparison | None:
    return yardstick.compare(candidate, reference, least_frauds=least_frauds)  # type: ignore[arg-type]


def test_losses_are_those_of_the_literature() -> None:
    """1 - AUC, and log loss over the entropy of the share: by scikit-learn, the median of the days."""
    yardstick = Yardstick()
    one = taught("logistic", 5, yardstick).freeze()
    other = Odd(lambda x: np.round(one.score(x) ** 2, 2))
    found = compared(yardstick, other, one)
    assert found is not None
    assert found.days == 5
    share = float(np.median([day_of(number)[1].mean() for number in range(5)]))
    entropy = log_loss([0, 1], [share, share], sample_weight=[1 - share, share])
    losses = []
    for sample in (yardstick.days[number] for number in range(5)):
        kept = [*sample.frauds, *sample.genuine]
        x = np.array([np.frombuffer(features) for _, features in kept])
        fraud = np.arange(len(kept)) < len(sample.frauds)
        weights = np.where(fraud, share / fraud.sum(), (1 - share) / (~fraud).sum())
        for p in (other.score(x), one.score(x)):
            costs = log_loss(fraud, np.clip(p, 1e-4, 1 - 1e-15), sample_weight=weights) / entropy
            losses.append([1 - roc_auc_score(fraud, p), costs])
    expected = np.array(losses).reshape(5, 2, 2)
    for position, each in enumerate((found.ranking, found.entropy)):
        mine, others = expected[:, 0, position], expected[:, 1, position]
        assert each.candidate == pytest.approx(np.median(mine), abs=1e-4)
        assert each.reference == pytest.approx(np.median(others), abs=1e-4)
        assert each.worse_by == pytest.approx(np.median(mine - others), abs=1e-4)


def test_a_day_says_what_it_says_however_much_comes_in_it() -> None:
    """A few of each kind by the transaction's hash, in whatever order they come; old days go."""
    one, other = Yardstick(), Yardstick()
    rows = [(7 * number, number % 10 == 0, np.array([float(number)]).tobytes()) for number in range(5000)]
    for transaction, fraud, features in rows:
        one.add(5, transaction, fraud, features)
    for transaction, fraud, features in reversed(rows):
        other.add(5, transaction, fraud, features)
    sample = one.days[0]
    assert (sample.n_frauds, sample.n_genuine) == (500, 4500)
    assert (len(sample.frauds), len(sample.genuine)) == (MOST_FRAUDS, MOST_GENUINE)
    assert sorted(sample.frauds) == sorted(other.days[0].frauds)
    assert sorted(sample.genuine) == sorted(other.days[0].genuine)
    kept = np.array([np.frombuffer(features)[0] for _, features in sample.genuine])
    assert 1500 < kept.mean() < 3500, "of the whole day"
    for number in range(20):
        one.add(number * DAY, 1, True, rows[0][2])
    assert sorted(one.days) == list(range(20 - DAYS_KEPT, 20))


def test_fewer_than_half_of_the_days_say_nothing_against_the_others() -> None:
    """What days of wrong labels say lies beyond what any honest day says, and the outcome between those."""
    yardstick = Yardstick()
    scorer = taught("logistic", 5, yardstick).freeze()
    upside_down = Odd(lambda x: 1.0 - scorer.score(x))
    honest_days = []
    for number in range(5):
        days = dict.fromkeys(range(LEAST_DAYS), yardstick.days[number])
        one = compared(Yardstick(days), upside_down, scorer)
        assert one is not None
        honest_days.append((one.ranking.worse_by, one.entropy.worse_by))
    for number in (5, 6, 7):
        spend(yardstick, number, flipped)
    found = compared(yardstick, upside_down, scorer)
    assert found is not None
    assert found.days == 8
    for measure, given in zip(zip(*honest_days, strict=True), (found.ranking, found.entropy), strict=True):
        assert 0.0 < min(measure) <= given.worse_by <= max(measure)


def test_too_little_withholds_nothing() -> None:
    """Few days, few frauds, or features that no model can score."""
    yardstick = Yardstick()
    learner = taught("logistic", LEAST_DAYS - 1, yardstick)
    worst = Odd(lambda x: np.ones(len(x)))
    assert compared(yardstick, worst, learner.freeze()) is None
    spend(yardstick, LEAST_DAYS - 1)
    yardstick.add((LEAST_DAYS - 1) * DAY, 0, True, np.full(len(NAMES), np.nan).tobytes())
    assert compared(yardstick, worst, learner.freeze()) is not None
    assert compared(yardstick, worst, learner.freeze(), least_frauds=10_000) is None


def judge(check: VersionCheck, version: int, scorer: FrozenScorer | Odd, **terms: bool) -> str:
    found = check.judge("m", version, scorer, least_frauds=50, **terms)  # type: ignore[arg-type]
    return found.withheld


@pytest.mark.parametrize("kind", sorted(LEARNERS))
def test_versions_of_an_honest_learner_are_taken(kind: str) -> None:
    """From its first outcomes on, two a day."""
    check, learner = VersionCheck(), LEARNERS[kind](NAMES)
    for number in range(12):
        x, fraud = day_of(number, 200)
        for row, (values, truth) in enumerate(zip(x, fraud.tolist(), strict=True)):
            check.yardstick.add(number * DAY, 1_000_003 * (number * 1000 + row), truth, values.tobytes())
            learner.learn(values, truth)
            if row % 100 == 99:
                version = 2 * number + row // 100 + 1
                found = check.judge(
                    "m", version, learner.freeze(), least_frauds=50, probabilities=learner.probabilities
                )
                assert not found.withheld
                assert found.figures() or number < LEAST_DAYS
    assert check.taken == {"m": version}


#: Learners that keep enough of what was true before, or forget it too fast to be hurt for long.
HARDY = {"hoeffding_tree", "adaptive_forest", "boosted_trees"}


@pytest.mark.parametrize("kind", sorted(set(LEARNERS) - HARDY))
def test_a_learner_of_flipped_labels_is_withheld_and_comes_back(kind: str) -> None:
    """Two days of them, while the yardstick itself has them too; honest days heal the learner."""
    check = VersionCheck()
    learner = taught(kind, 6, check.yardstick)
    terms = {"probabilities": learner.probabilities}
    assert judge(check, 1, learner.freeze(), **terms) == ""
    for number in (6, 7):
        spend(check.yardstick, number, flipped, *[learner] * 6)
    assert "version 1" in judge(check, 2, learner.freeze(), **terms)
    assert (check.taken["m"], check.best["m"][0]) == (1, 1)
    version = 2
    for number in range(8, 40):
        spend(check.yardstick, number, honest, *[learner] * 3)
        version += 1
        if judge(check, version, learner.freeze(), **terms) == "":
            break
    assert check.taken["m"] == version < 40


DAMAGED: dict[str, Callable[[Floats, Floats], Floats]] = {
    "constant": lambda x, p: np.full(len(p), 0.3),
    "all alerts": lambda x, p: np.full(len(p), 1.0),
    "none": lambda x, p: np.zeros(len(p)),
    "exploded": lambda x, p: (x[:, 0] * 1e6 % 1.0 > 0.5).astype(np.float64),
    "upside down": lambda x, p: 1.0 - p,
    "not a number": lambda x, p: np.full(len(p), np.nan),
    "beyond one": lambda x, p: 2.0 + p,
    "far too sure": lambda x, p: p**0.02,
}


@pytest.mark.parametrize("damage", DAMAGED)
def test_damaged_scorers_are_withheld(damage: str) -> None:
    """Whatever has become of a model; of one whose scores are no probabilities, what ranks wrongly."""
    check = VersionCheck()
    scorer = taught("logistic", 6, check.yardstick).freeze()
    assert judge(check, 1, scorer) == ""
    damaged = Odd(lambda x: DAMAGED[damage](x, scorer.score(x)))
    assert judge(check, 2, damaged) != ""
    assert check.best["m"][1] is scorer
    assert bool(judge(check, 3, damaged, probabilities=False)) == (damage != "far too sure")


def test_many_small_steps_down_are_withheld_like_a_large_one() -> None:
    """The best version of late is what is compared with, not the last one."""
    check = VersionCheck()
    scorer = taught("logistic", 6, check.yardstick).freeze()
    assert judge(check, 1, scorer) == ""
    taken = []
    for step in range(1, 60):
        worse = Odd(lambda x, step=step: scorer.score(x) ** (1.0 + 0.05 * step))  # type: ignore[misc]
        if judge(check, 1 + step, worse) == "":
            taken.append(step)
    assert taken == list(range(1, len(taken) + 1))
    assert 0 < len(taken) < 59
    found = compared(check.yardstick, Odd(lambda x: scorer.score(x) ** (1.0 + 0.05 * len(taken))), scorer)
    assert found is not None
    assert 0.0 < found.entropy.worse_by <= MOST_ENTROPY
    assert found.ranking.worse_by == 0.0


def test_models_are_compared_with_themselves_only() -> None:
    """Another model's best version is none of its business."""
    check = VersionCheck()
    learner = taught("logistic", 6, check.yardstick)
    assert judge(check, 1, learner.freeze()) == ""
    assert check.judge("n", 1, LEARNERS["logistic"](NAMES).freeze(), least_frauds=50).withheld == ""
    assert set(check.best) == {"m", "n"}
