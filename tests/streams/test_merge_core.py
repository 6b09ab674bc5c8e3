"""The merge of what partitions observe: exact whatever the order parts and outcomes come in."""

from __future__ import annotations

import itertools
import json
from collections.abc import Sequence

import msgspec
import numpy as np

from monitoring.tallies import Tally, add
from streams.contract.codecs import encode
from streams.stages.columns import Columns
from streams.stages.merge_core import MergeCore
from streams.stages.merge_state import BY_NAME, MergeState, MergeStep, encode_step
from streams.stages.observe_state import HOURS, ObserveState, ObserveStep, Part
from streams.times import DAY, HOUR
from tests.streams.made_up import START
from tests.streams.observed import CORE, PARTITIONS, both, made_up, observe, outcomes

MERGE = MergeCore()


def parts_of(seed: int) -> tuple[list[list[Part]], list[Columns]]:
    """By partition what it tells, in bundles, and the rows behind it."""
    bundles, sources = [], []
    for partition in range(PARTITIONS):
        rows = made_up(1200, seed + partition, partition=partition)
        sources.append(rows)
        state = ObserveState(PARTITIONS)
        told: list[Part] = []
        for number, each in enumerate(both(rows, seed)):
            observe(state, [each])
            CORE.move(state, ObserveStep(), "scored", number + 1)
            if number % 17 == 0:
                told += CORE.parts(state, ObserveStep(), partition)
        bundles.append([*told, *CORE.parts(state, ObserveStep(), partition)])
    return bundles, sources


def publish(state: MergeState) -> dict[tuple[str, int], bytes]:
    return {
        (record["window"], record["end"]): encode(record)
        for _, records in MERGE.publish(state, 250)
        for record in records
    }


def merged(parts: Sequence[Part], every: int) -> dict[tuple[str, int], bytes]:
    """The last record of each window when that many parts are taken at once."""
    records: dict[tuple[str, int], bytes] = {}
    state = MergeState(PARTITIONS)
    for start in range(0, len(parts), every):
        MERGE.parts(state, MergeStep(), list(parts[start : start + every]))
        records |= publish(state)
    return records


def test_windows_do_not_depend_on_how_parts_come() -> None:
    """In turn, one partition after the other, or stale ones in between: the last records are the same."""
    (first, second), _ = parts_of(10)
    in_turn = [part for pair in itertools.zip_longest(first, second) for part in pair if part is not None]
    expected = merged(in_turn, 300)
    windows = {name for name, _ in expected}
    assert windows == set(BY_NAME)
    assert merged([*first, *second], 400) == expected
    assert merged([*second, *first], 137) == expected
    # A worker that has lost a partition sends what it knew.
    assert merged([*in_turn, *first[:50]], 300) == expected


def test_windows_are_sums_over_all_partitions() -> None:
    """A window holds the rows of both partitions whose event time is in it."""
    (first, second), sources = parts_of(11)
    records = merged([*first, *second], 10_000)
    times = np.concatenate(
        [
            np.where(rows.codes("status") == 0, rows.ints("event_time"), rows.ints("watermark"))
            for rows in sources
        ]
    )
    for name, end in [("1h", START + 12 * HOUR), ("1h", START + 35 * HOUR), ("24h", START + 30 * HOUR)]:
        _, window = BY_NAME[name]
        inside = (times >= end - window.length) & (times < end)
        assert json.loads(records[name, end])["transactions"] == inside.sum() > 0
    state = MergeState(PARTITIONS)
    MERGE.parts(state, MergeStep(), [*first, *second])
    alert = np.concatenate([rows.bools("alert") for rows in sources])
    hour = max(state.watermarks.values()) // HOUR * HOUR
    assert MERGE.alerts_of_a_day(state) == (alert & (times >= hour - DAY) & (times < hour)).sum() > 0


def test_one_stalled_partition_does_not_hold_the_windows_back() -> None:
    """They are published without it, and once more when it comes."""
    (first, second), _ = parts_of(12)
    state = MergeState(PARTITIONS)
    MERGE.parts(state, MergeStep(), first)
    alone = publish(state)
    assert len(alone) > 1000
    MERGE.parts(state, MergeStep(), second)
    assert {**alone, **publish(state)} == merged([*first, *second], 10_000)


def judged(sources: Sequence[Columns]) -> list[Columns]:
    """Verdicts on alerts, some of them revised, then all others as they mature; some of it twice."""
    found = []
    for partition, rows in enumerate(sources):
        random = np.random.default_rng(partition)
        fraud = random.random(len(rows)) < 0.3
        for row in np.flatnonzero(rows.bools("alert")).tolist():
            chosen = np.array([row])
            said = fraud[chosen]
            for verdict in [said, said] if random.random() < 0.8 else [~said, said, said]:
                found.append(outcomes(rows.take(chosen), partition, verdict, "analyst", HOUR))
        others = np.flatnonzero(~rows.bools("alert"))
        for start in range(0, len(others), 100):
            chosen = others[max(0, start - 7) : start + 100]
            mature = rows.take(chosen)
            found.append(outcomes(mature, partition, fraud[chosen], "maturity", 7 * DAY))
    return found


def contents(state: MergeState) -> list[object]:
    """All that is saved, whatever the order of names."""
    return [msgspec.msgpack.decode(state.dump(bucket), strict=False) for bucket in range(state.buckets)]


def test_outcomes_count_once_in_the_hour_of_their_transaction() -> None:
    """Repeated outcomes count once, a revised verdict replaces the one before it; quality follows."""
    (first, second), sources = parts_of(13)
    state = MergeState(PARTITIONS)
    MERGE.parts(state, MergeStep(), [*first, *second])
    publish(state)
    deltas = []
    for rows in judged(sources):
        step = MergeStep()
        MERGE.outcomes(state, step, rows)
        deltas.append(encode_step(step))
    total: Tally = {}
    for slots in state.parts[HOURS].values():
        for partition, (_, tally) in slots.items():
            if partition == -1:
                add(total, tally)
    assert total["outcomes"] == sum(map(len, sources))
    assert total["alerts_known"] == sum(int(rows.bools("alert").sum()) for rows in sources)
    quality = MERGE.quality(state)
    assert quality["champion"]["outcomes"] == total["outcomes"]
    assert quality["champion"]["frauds"] == total["frauds"]
    assert quality["shadow:b"]["outcomes"] < total["outcomes"]
    revised = publish(state)
    assert {name for name, _ in revised} == {"24h"}
    again = MergeState(PARTITIONS)
    MERGE.parts(again, MergeStep(), [*first, *second])
    publish(again)
    for delta in deltas:
        again.apply(delta)
    assert publish(again) == revised
    assert MERGE.quality(again) == quality
    loaded = MergeState(PARTITIONS)
    for bucket in range(state.buckets):
        loaded.load(bucket, state.dump(bucket))
    assert MERGE.quality(loaded) == quality
    assert loaded.decisions.dump() == state.decisions.dump() == again.decisions.dump()
    assert state.decisions.naive().alerts == total["alerts_known"]
    assert state.decisions.naive().caught == total["caught"]
    assert contents(loaded) == contents(state)
    assert len(loaded.seen.dump()) == PARTITIONS


def test_one_odd_stamp_does_not_stop_the_quality() -> None:
    """An outcome of a transaction that was stamped ten years ahead counts when it came."""
    rows = made_up(100, 20, hours=1)
    rows.arrays["event_time"] = rows.ints("event_time").copy()
    rows.arrays["event_time"][0] += 3650 * DAY
    rows.arrays["status"][0] = 2
    state = MergeState(PARTITIONS)
    for start in (0, 50):
        chosen = np.arange(start, start + 50)
        these = outcomes(rows.take(chosen), 0, np.ones(50, np.bool_), "maturity", DAY)
        MERGE.outcomes(state, MergeStep(), these)
    assert MERGE.quality(state)["champion"]["outcomes"] == 100


def test_a_label_partition_may_send_much_again() -> None:
    """All of it counts once, and only the offsets of the last message are remembered."""
    rows = made_up(400, 21, hours=1)
    others = np.flatnonzero(~rows.bools("alert"))
    state = MergeState(PARTITIONS)
    for _ in range(2):
        for chosen in np.array_split(others, 5):
            fraud = np.zeros(len(chosen), np.bool_)
            MERGE.outcomes(state, MergeStep(), outcomes(rows.take(chosen), 0, fraud, "maturity", DAY))
    assert MERGE.quality(state)["champion"]["outcomes"] == len(others)
    assert [len(offsets) // 8 for _, offsets in state.seen.dump().values()] == [
        len(others) - 4 * (len(others) // 5 + 1) if len(others) % 5 else len(others) // 5
    ]
