"""Drift in the merge: references by champion, evaluations that a restart does not change."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from monitoring.drift_watch import REFERENCE_HOURS
from monitoring.shapes import BINS, SCORE_BINS, Shape, shape_of
from streams.contract.codecs import encode
from streams.feature_settings import feature_spec
from streams.settings import Settings
from streams.stages.observing.drift import HOUR_BUCKETS, DriftState, Evaluated, filling
from streams.stages.observing.shapes import ShapesTold, pack
from streams.times import HOUR
from tests.streams.made_up import START

NAMES = ("amount", "other")


def told(
    hour: int, partition: int, *, model: str = "a", factor: float = 1.0, power: float = 1.0
) -> ShapesTold:
    """The shape of an hour in a partition."""
    random = np.random.default_rng(hour * 10 + partition)
    features = np.exp(random.normal(3, 1, (120, 2)))
    features[:, 0] *= factor
    scores = {f"champion:{model}": random.random(120) ** power, "shadow:s": random.random(120)}
    shape = shape_of(features, scores, np.ones(120, np.bool_))
    return ShapesTold(partition, [(START + hour * HOUR, pack(shape))], START + hour * HOUR)


def drift(filling: tuple[int, ...] = ()) -> DriftState:
    return DriftState(NAMES, filling, partitions=2)


def run(state: DriftState, parts: list[ShapesTold]) -> list[dict[str, Any]]:
    """What is published when shapes come hour by hour."""
    records = []
    for each in parts:
        state.take(state.wanted(each))
        for hour in state.due():
            evaluated, record = state.evaluate(hour)
            state.go_on(evaluated)
            records += [record] if record is not None else []
    return records


def restore(before: DriftState, after: DriftState) -> None:
    """From a checkpoint."""
    after.load(before.dump())
    for bucket in range(HOUR_BUCKETS):
        after.load_hours(bucket, before.dump_hours(bucket))


def history(hours: range, **changes: Any) -> list[ShapesTold]:
    return [told(hour, partition, **changes) for hour in hours for partition in (0, 1)]


def test_a_week_is_the_reference_and_a_unit_is_noticed_within_an_hour() -> None:
    """Nothing is said before; the first hour in another unit is evaluated once both partitions tell it."""
    week = history(range(REFERENCE_HOURS + 30))
    assert run(drift(), week[: 2 * REFERENCE_HOURS - 1]) == []
    state = drift()
    records = run(state, week)
    assert records[0]["reference"] == {"model": "a", "start": START, "end": START + REFERENCE_HOURS * HOUR}
    assert all(record["alarms"] == [] for record in records)
    (alarmed, *later) = [
        record
        for record in run(state, history(range(REFERENCE_HOURS + 30, REFERENCE_HOURS + 34), factor=100.0))
        if record["alarms"]
    ]
    assert alarmed["alarms"] == [{"kind": "unit_change", "name": "amount", "factor": 2}]
    assert alarmed["end"] == START + (REFERENCE_HOURS + 31) * HOUR
    assert later == []


def test_a_restart_anywhere_gives_the_same_records() -> None:
    """Also while the reference is being collected, and while an alarm is on."""
    last = REFERENCE_HOURS + 6
    parts = history(range(last)) + history(range(last, last + 6), factor=0.01)
    expected = run(drift(), parts)
    assert any(record["alarms"] for record in expected)
    for cut in (2 * 50, 2 * last + 7):
        before, after = drift(), drift()
        records = run(before, parts[:cut])
        restore(before, after)
        records += run(after, parts[cut:])
        assert [encode(each) for each in records] == [encode(each) for each in expected]


def test_another_champion_has_a_reference_of_its_own() -> None:
    """The features are compared with the old one until then."""
    state, end = drift(), 2 * REFERENCE_HOURS + 20
    run(state, history(range(REFERENCE_HOURS + 10)))
    records = run(state, history(range(REFERENCE_HOURS + 10, end), model="b"))
    models = [record["reference"]["model"] for record in records]
    assert models[0] == "a"
    assert models[-1] == "b"
    assert records[-1]["reference"]["start"] == START + (REFERENCE_HOURS + 10) * HOUR
    assert records[0]["windows"]["1h"][-1]["name"] != "champion:b"
    assert {each["name"] for each in records[-1]["windows"]["24h"]} == {*NAMES, "champion:b", "shadow:s"}


def test_a_model_that_learns_after_the_reference_was_made_has_drifted_from_nothing() -> None:
    """Rules have stood in for it: its scores are watched from its own first week on, the features all the
    while. A restart forgets nothing of that.
    """
    state, learned = drift(), REFERENCE_HOURS + 40
    run(state, history(range(learned), model="a/0"))
    again = drift()
    restore(state, again)
    for each in (state, again):
        records = run(each, history(range(learned, learned + REFERENCE_HOURS + 30), power=4.0))
        assert {record["reference"]["start"] for record in records} == {START}
        assert all(record["alarms"] == [] for record in records)
        known = [
            record["end"]
            for record in records
            if any(figure["name"] == "champion:a" for figure in record["windows"]["24h"])
        ]
        assert known[0] == START + (learned + REFERENCE_HOURS) * HOUR
        assert all(any(f["name"] == "shadow:s" for f in record["windows"]["24h"]) for record in records)
        assert each.hours == 24
        end = learned + REFERENCE_HOURS + 30
        alarms = [alarm for r in run(each, history(range(end, end + 30))) for alarm in r["alarms"]]
        assert alarms == [{"kind": "score", "name": "champion:a", "factor": 0}]


def test_a_model_is_watched_from_its_first_quiet_week_on() -> None:
    """In its first week what it says of a day has nothing to do with what it said before: no shift could pass
    a limit made of that.
    """
    state = drift()
    for day in range(9):
        # Scores of a day lie where those of no other day do, or of all but the last ones.
        run(state, history(range(day * 24, day * 24 + 24), power=40.0 ** (4 - min(day, 5))))
    end = 9 * 24
    records = run(state, history(range(end, end + REFERENCE_HOURS), power=1 / 40))
    limits = [
        figure["limit"]
        for record in records
        for figure in record["windows"]["24h"]
        if figure["name"] == "champion:a"
    ]
    assert limits[0] > 1 > limits[-1]
    assert state.hours == 24
    end += REFERENCE_HOURS
    alarms = [alarm for r in run(state, history(range(end, end + 30))) for alarm in r["alarms"]]
    assert alarms == [{"kind": "score", "name": "champion:a", "factor": 0}]


def test_partitions_may_come_in_any_order() -> None:
    """An hour is the sum of its shapes; what a partition tells twice counts once."""
    parts = history(range(REFERENCE_HOURS + 4))
    swapped = [each for pair in zip(parts[1::2], parts[::2], strict=True) for each in pair]
    expected = [encode(each) for each in run(drift(), parts)]
    assert expected
    assert [encode(each) for each in run(drift(), swapped)] == expected
    twice = [each for each in parts for _ in range(2)]
    assert [encode(each) for each in run(drift(), [*twice, *parts[-3:]])] == expected


def test_features_are_alarmed_once_their_windows_are_filled() -> None:
    """A feature of the transaction at once; one with a window of ten days from then on."""
    state, end = drift((0, 240 * HOUR)), 240 + REFERENCE_HOURS + 10
    records = run(state, history(range(end)))
    starts = sorted({record["reference"]["start"] for record in records})
    assert starts == [START, START + 240 * HOUR]
    limits = [
        {each["name"]: each["limit"] for each in record["windows"]["24h"]}
        for record in (records[0], records[-1])
    ]
    assert limits[0]["amount"] < 1 < limits[0]["other"] == limits[0]["champion:a"]
    assert max(limits[1].values()) < 1
    again = drift((0, 240 * HOUR))
    restore(state, again)
    more = history(range(end, end + 5), factor=100.0)
    assert [encode(each) for each in run(again, more)] == [encode(each) for each in run(state, more)]


def test_windows_fill_for_as_long_as_they_reach_back() -> None:
    """Of the default features those of the transaction need no time, the others that of their entity."""
    spec = feature_spec(Settings())
    by_name = dict(zip(spec.names, filling(spec), strict=True))
    assert by_name["amount"] == 0
    assert by_name["card_count_30d"] == 30 * 24 * HOUR
    assert by_name["terminal_risk_30d"] >= 30 * 24 * HOUR


def wide(partitions: int, hours: int) -> DriftState:
    """After so many hours in which every partition has seen every bin of 12 features."""
    state = DriftState(tuple("abcdefghijkl"), (10**15,) * 12, partitions=partitions)
    features = np.full((2, 12 * BINS), 10**12, dtype=np.int64)
    shape = pack(Shape(features, {"champion:a": np.full(SCORE_BINS, 10**12, dtype=np.int64)}))
    for hour in range(hours):
        for partition in range(partitions):
            state.take(state.wanted(ShapesTold(partition, [(hour * HOUR, shape)], hour * HOUR)))
        for each in state.due():
            state.go_on(Evaluated(each, 0, "a", 0, [], each - (REFERENCE_HOURS - 1) * HOUR))
    return state


@pytest.mark.parametrize("partitions", [1, 16])
def test_memory_does_not_grow_with_partitions_or_time(partitions: int) -> None:
    """A reference's hours, each within what its docstring says; and its pieces are small records."""
    state = wide(partitions, REFERENCE_HOURS + 100)
    assert state.hours == REFERENCE_HOURS
    pieces = [len(state.dump_hours(bucket)) for bucket in range(HOUR_BUCKETS)]
    most = 20 * 12 * BINS + 20 * SCORE_BINS + 100
    assert REFERENCE_HOURS * most * 0.8 < sum(pieces) < REFERENCE_HOURS * most
    assert max(pieces) <= 5 * most


def test_a_partition_that_stands_still_holds_the_hours_for_a_day() -> None:
    """Then it is left behind; what it tells later counts for the day, as long as that is needed."""
    state = drift()
    for hour in range(24):
        state.take(told(hour, 0))
    assert state.due() == []
    for hour in range(24, 40):
        state.take(told(hour, 0))
    assert state.due() == [START + hour * HOUR for hour in range(16)]
    for each in state.due():
        state.go_on(state.evaluate(each)[0])
    before = state.last_day().scores["champion:a"].sum()
    state.take(state.wanted(told(15, 1)))
    assert state.last_day().scores["champion:a"].sum() == before + 120
    assert state.due() == []


def test_an_hour_told_late_without_a_model_counts_against_its_week() -> None:
    """A partition a day behind tells of an hour in which the model did not score yet, amid hours in which it
    did: it has no limits until that hour is no longer among them.
    """
    state, learned, gap = drift(), REFERENCE_HOURS + 20, REFERENCE_HOURS + 22
    run(state, history(range(learned), model="a/0"))
    alone = [told(hour, 0) for hour in range(learned, learned + 40) if hour != gap]
    run(state, [*alone, told(gap, 1, model="a/0")])
    records = run(state, history(range(learned + 40, gap + REFERENCE_HOURS + 10)))
    known = [
        record["end"]
        for record in records
        if any(figure["name"] == "champion:a" for figure in record["windows"]["24h"])
    ]
    assert known[0] == START + (gap + 1 + REFERENCE_HOURS) * HOUR


def test_an_hour_told_late_with_another_champion_does_not_rename_the_reference() -> None:
    """A partition a day behind tells of the first hour of the reference, in which another model was champion
    there: the reference is that of the model whose week it was, and is not made anew every hour.
    """
    state = drift()
    run(state, history(range(1), model="b"))
    run(state, [told(hour, 0) for hour in range(1, 30)])
    run(state, [told(1, 1, model="b"), *(told(hour, 1) for hour in range(2, 30))])
    records = run(state, history(range(30, REFERENCE_HOURS + 10)))
    assert [record["reference"]["model"] for record in records] == ["a"] * len(records)
    assert {record["reference"]["start"] for record in records} == {START + HOUR}
    more = range(REFERENCE_HOURS + 10, REFERENCE_HOURS + 16)
    alarms = [record["alarms"] for record in run(state, history(more, factor=100.0))]
    assert [bool(each) for each in alarms].count(True) == 1
