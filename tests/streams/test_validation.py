"""A version judged on stored outcomes, and the reading of them."""

from __future__ import annotations

import asyncio
import tracemalloc
from collections.abc import Callable
from dataclasses import replace
from typing import cast

import numpy as np
import numpy.typing as npt
import pytest

from models.gates import Judgement, Limits
from models.scorers.base import FrozenScorer
from models.scorers.rules import Rule, RulesScorer
from models.snapshot import Snapshot, make
from streams.kafka.clients import read_tail
from streams.sections import Broker
from streams.stages.columns import Columns
from streams.stages.validation import validate
from streams.times import DAY
from tests.streams.clients import new_topic, publish
from tests.streams.made_up import START

Act = Callable[[npt.NDArray[np.float64]], object]
LIMITS = Limits(rows=500, outcomes=500, frauds=20, days=0)
RULES = [Rule("risk", 0.8, 6.0), Rule("amount", 0.9, 1.0)]


def version(act: Act | None = None) -> Snapshot:
    snapshot = make(RulesScorer.build(["risk", "amount"], RULES), name="m", version=1, spec_digest="spec")
    if act is None:
        return snapshot
    acting: Act = act

    class Scripted:
        kind = "scripted"
        n_features = 2
        score = staticmethod(acting)

    return replace(snapshot, scorer=cast("FrozenScorer", Scripted()))


def outcomes(spec: str = "spec") -> list[Columns]:
    """A thousand outcomes in messages of many rows and of few; the champion is that version itself."""
    random = np.random.default_rng(2)
    found = []
    for day, n in enumerate([400, 400, 195, 5]):
        features = random.random((n, 2))
        fraud = features[:, 0] + 0.1 * random.normal(size=n) > 0.9
        arrays = {
            "event_time": np.full(n, START + day * DAY),
            "features": features,
            "fraud": fraud,
            "champion": version().scorer.score(features),
        }
        found.append(Columns({"spec": spec}, arrays, {}))
    return found


def judgement(snapshot: Snapshot, rows: list[Columns]) -> Judgement:
    clock = iter(np.arange(0, 1, 1e-4).tolist())
    return validate(snapshot, rows, threshold=0.3, limits=LIMITS, clock=lambda: next(clock))


def test_a_version_like_the_champion_passes() -> None:
    """On the features as they were scored; times are those of the larger messages."""
    found = judgement(version(), outcomes())
    assert found.all_passed
    evidence = found.evidence
    assert (evidence.outcomes, evidence.coverage) == (1000, 1.0)
    assert evidence.candidate.average_precision == evidence.champion.average_precision
    expected = (1e-4 * 3) / 995
    assert evidence.candidate.seconds_per_row == pytest.approx(expected, rel=1e-3)


@pytest.mark.parametrize(
    ("act", "gate"),
    [
        (lambda x: np.full(len(x), 0.99), "alert_rate"),
        (lambda x: np.zeros(len(x)), "score_shape"),
        (lambda x: np.full(len(x), np.nan), "failures"),
        (lambda x: np.zeros((len(x), 3)), "failures"),
        (lambda x: 1 / 0, "failures"),
        (lambda x: 1 - version().scorer.score(x), "average_precision"),
    ],
)
def test_a_version_that_is_no_good_fails(act: Act, gate: str) -> None:
    """By the gate that is about it; whatever it does is a finding and no error."""
    assert gate in {each.gate for each in judgement(version(act), outcomes()).failed}


def test_too_few_outcomes_say_nothing() -> None:
    """None at all, few, or of another feature spec."""
    for rows in ([], outcomes()[:1], outcomes("other")):
        found = judgement(version(lambda x: np.full(len(x), 0.99)), rows)
        assert not found.failed
        assert not found.all_passed


def test_memory_does_not_grow_with_the_days_of_stamps() -> None:
    """Whatever is sent as the time of a transaction: a thousand days take no more than four, and count."""
    usual, odd = outcomes(), outcomes()
    first = 0
    for rows in odd:
        rows.arrays["event_time"] = START + np.arange(first, first + len(rows)) * DAY
        first += len(rows)
    judgement(version(), usual)
    found, most = [], []
    for each in (usual, odd):
        tracemalloc.start()
        try:
            found.append(judgement(version(), each).evidence)
            most.append(tracemalloc.get_traced_memory()[1])
        finally:
            tracemalloc.stop()
    assert [evidence.days for evidence in found] == [4.0, 1000.0]
    assert found[1].candidate.average_precision == found[0].candidate.average_precision
    assert most[1] < most[0] + 1_000_000


@pytest.mark.broker
def test_the_tail_of_a_topic(broker: str) -> None:
    """The last records of every partition, all where there are fewer, and none of an empty one."""

    async def scenario() -> None:
        topic = await new_topic(broker, 3)
        await publish(broker, topic, {0: [b"%d" % n for n in range(25)], 1: [b"a", b"b"]}, per_batch=10)
        found = await read_tail(Broker(bootstrap=broker), topic, 7)
        values = {p: [each.value for each in found if each.partition == p] for p in range(3)}
        assert values == {0: [b"%d" % n for n in range(18, 25)], 1: [b"a", b"b"], 2: []}

    asyncio.run(scenario())
