"""The observe stage without a broker: partitions count exactly, the merge puts them together exactly."""

from __future__ import annotations

import itertools
import json
from collections.abc import Sequence

import msgspec
import numpy as np
import pytest

from monitoring.live_quality import role_of
from monitoring.shapes import shape_of
from monitoring.tallies import Tally, add
from streams.contract.codecs import encode
from streams.contract.records import Feedback
from streams.stages.columns import Columns, ColumnsError
from streams.stages.observing.core import ObserveCore, by_model, by_role, shapes
from streams.stages.observing.drift import DriftState
from streams.stages.observing.gate_figures import MARK
from streams.stages.observing.merge_core import MergeCore
from streams.stages.observing.merge_state import BY_NAME, MOST_JUDGED, MergeState, MergeStep
from streams.stages.observing.merge_state import encode_step as encode_merge_step
from streams.stages.observing.reading import HOURS, MINUTES
from streams.stages.observing.shapes import PackedShape, ShapesTold, add_up, pack, unpack
from streams.stages.observing.state import ObserveState, ObserveStep, Part, encode_step
from streams.stages.observing.verdicts import Judged, keep
from streams.times import DAY, HOUR, MINUTE
from tests.streams.made_up import START
from tests.streams.observed import (
    MODELS,
    PARTITIONS,
    THRESHOLD,
    actions,
    made_up,
    messages,
    outcomes,
    scored,
)

CORE, MERGE = ObserveCore(), MergeCore()


def observe(state: ObserveState, inputs: Sequence[Columns | Feedback]) -> list[bytes]:
    """Take the inputs one after the other; the deltas."""
    deltas = []
    for each in inputs:
        step = ObserveStep()
        if isinstance(each, Columns):
            CORE.count(state, step, [CORE.scored(state, step, each)])
        else:
            CORE.feedback(state, step, [each])
        deltas.append(encode_step(step))
    return deltas


def both(rows: Columns, seed: int, *, cut: int = 40) -> list[Columns | Feedback]:
    """Scored rows and feedback, each in its order, mixed by time."""
    timed: list[tuple[int, int, Columns | Feedback]] = [
        (each.meta_int("watermark"), 0, each) for each in messages(rows, seed, most=cut)
    ]
    timed += [(at, 1, item) for at, item in actions(rows, seed)]
    return [each for _, _, each in sorted(timed, key=lambda each: each[:2])]


def whole(state: ObserveState) -> Tally:
    result: Tally = {}
    for tally in state.tallies[HOURS].values():
        add(result, tally)
    return result


def test_rows_count_once_in_the_slot_of_their_event_time() -> None:
    """Tallies are those of a loop over the rows, although pieces were sent twice; odd stamps count when they
    came.
    """
    rows, state = made_up(3000, 1), ObserveState(PARTITIONS)
    observe(state, messages(rows, 1))
    expected: dict[int, Tally] = {}
    for row in range(len(rows)):
        time, watermark = int(rows.ints("event_time")[row]), int(rows.ints("watermark")[row])
        at = time if rows.codes("status")[row] == 0 else watermark
        tally = expected.setdefault(at - at % MINUTE, {})
        alert, amount = bool(rows.bools("alert")[row]), int(rows.ints("amount_minor")[row])
        exponent, shadow = int(rows.codes("exponent")[row]), float(rows.floats("shadows")[row, 0])
        counted = {
            "transactions": 1, "transactions@by:a|champion": 1,
            "alerts": alert, "alerts@by:a|champion": alert, "control": bool(rows.bools("control")[row]),
            "late": rows.codes("status")[row] == 1, f"amount@exponent:{exponent}": amount,
            f"flagged@exponent:{exponent}": amount * alert,
        }  # fmt: skip
        if shadow == shadow:
            champion = float(rows.floats("champion")[row])
            counted["compared@shadow:b"] = 1
            counted["differs@shadow:b"] = (shadow >= THRESHOLD) != alert
            counted["gap_millionths@shadow:b"] = round(abs(shadow - champion) * 1e6)
        add(tally, {name: int(value) for name, value in counted.items()})
    assert state.tallies[MINUTES] == expected
    hours: dict[int, Tally] = {}
    for slot, tally in expected.items():
        add(hours.setdefault(slot - slot % HOUR, {}), tally)
    counted_hours = {
        slot: {name: value for name, value in tally.items() if MARK not in name}
        for slot, tally in state.tallies[HOURS].items()
    }
    assert counted_hours == hours


@pytest.mark.parametrize("seed", range(3))
def test_a_restart_anywhere_gives_the_same_state(seed: int) -> None:
    """From the deltas alone, and from a checkpoint cut in the middle of them, as the changelog writes it."""
    inputs = both(made_up(2000, seed), seed)
    straight = ObserveState(PARTITIONS)
    deltas = observe(straight, inputs)
    from_deltas, cut = ObserveState(PARTITIONS), len(deltas) // 2
    for delta in deltas:
        from_deltas.apply(delta)
    halfway, resumed = ObserveState(PARTITIONS), ObserveState(PARTITIONS)
    for delta in deltas[:cut]:
        halfway.apply(delta)
    for bucket in range(halfway.buckets):
        resumed.load(bucket, halfway.dump(bucket))
    observe(resumed, inputs[cut:])
    for state in (from_deltas, resumed):
        assert state.tallies == straight.tallies
        assert state.alerts == straight.alerts
        assert state.waiting == straight.waiting
        assert state.untold == straight.untold
        assert state.watermarks == straight.watermarks
        assert state.seen.dump() == straight.seen.dump()
        assert {hour: pack(shape) for hour, shape in state.shapes.items()} == {
            hour: pack(shape) for hour, shape in straight.shapes.items()
        }


def test_a_history_is_counted_by_the_hour() -> None:
    """Rows that came a day after they happened have no minutes, neither have the actions on their alerts."""
    rows, state = made_up(500, 7), ObserveState(PARTITIONS)
    rows.arrays["record_time"] = rows.ints("record_time") + np.where(np.arange(500) < 250, DAY, 0)
    observe(state, [*messages(rows, 7), *(item for _, item in actions(rows, 7))])
    assert sum(tally["transactions"] for tally in state.tallies[MINUTES].values()) == 250
    assert whole(state)["transactions"] == 500
    shown = sum(tally.get("shown", 0) for tally in state.tallies[MINUTES].values())
    assert 0 < shown < whole(state)["shown"]
    assert sum("transactions" not in tally for tally in state.tallies[MINUTES].values()) == 0


def test_shapes_are_those_of_the_rows_of_an_hour() -> None:
    """Scores of all rows, features of one in four; told once, an hour after its end."""
    rows, state = made_up(2000, 6, hours=3), ObserveState(PARTITIONS)
    observe(state, messages(rows, 6))
    state.watermarks = dict.fromkeys(range(PARTITIONS), START + 3 * HOUR)
    told = CORE.shapes_told(state, ObserveStep(), 0)
    assert [hour for hour, _ in told.shapes] == [START, START + HOUR]
    assert told.until == START + HOUR
    status = rows.codes("status")
    times = np.where(status == 0, rows.ints("event_time"), rows.ints("watermark"))
    chosen = (times >= START) & (times < START + HOUR)
    sampled = rows.words("transaction")[chosen] % np.uint64(4) == 0
    scores = {
        "champion:a": rows.floats("champion")[chosen],
        "shadow:b": rows.floats("shadows")[chosen, 0],
    }
    assert 0 < sampled.sum() < chosen.sum()
    assert told.shapes[0][1] == pack(shape_of(rows.floats("features")[chosen], scores, sampled))
    assert CORE.shapes_told(state, ObserveStep(), 0).shapes == []
    late = rows.take(np.array([0]))
    late.arrays["offset"] = np.array([9999])
    late.arrays["event_time"], late.arrays["status"] = np.array([START]), np.zeros(1, np.uint8)
    late.meta |= {"score_partition": 0, "watermark": START + 4 * HOUR, "settled": -1}
    observe(state, [late])
    state.watermarks = dict.fromkeys(range(PARTITIONS), START + 4 * HOUR)
    assert [hour for hour, _ in CORE.shapes_told(state, ObserveStep(), 0).shapes] == [START + 2 * HOUR]
    assert state.tallies[HOURS][START]["transactions"] > int(chosen.sum())


def test_shapes_do_not_depend_on_how_far_apart_score_partitions_are() -> None:
    """Within a day of each other, as in a fast replay, nothing is lost."""
    rows = made_up(1500, 8, hours=20)
    in_turn = messages(rows, 8)
    found = []
    for sent in (in_turn, sorted(in_turn, key=lambda each: each.meta_int("score_partition"))):
        state = ObserveState(PARTITIONS)
        shapes = []
        for each in sent:
            observe(state, [each])
            shapes += CORE.shapes_told(state, ObserveStep(), 0).shapes
        found.append([(hour, unpack(shape)) for hour, shape in shapes])
    assert [hour for hour, _ in found[0]] == [START + hour * HOUR for hour in range(18)]
    assert [(hour, pack(shape)) for hour, shape in found[0]] == [
        (hour, pack(shape)) for hour, shape in found[1]
    ]


def test_inputs_may_come_in_any_order() -> None:
    """Feedback before its alert waits for it; what is counted in the end is the same."""
    rows = made_up(500, 4)
    scored, acted = messages(rows, 4), [item for _, item in actions(rows, 4)]
    states = []
    orders: list[list[Columns | Feedback]] = [
        [*scored, *acted],
        [*acted, *scored],
        [*acted[::-1], *scored],
    ]
    for inputs in orders:
        state = ObserveState(PARTITIONS)
        observe(state, inputs)
        states.append(state)
    assert whole(states[0])["shown"] > 10
    assert all(state.tallies == states[0].tallies for state in states)


def test_an_action_a_day_later_belongs_to_its_alert() -> None:
    """It counts in the minute and the hour of the alert, and only their parts are sent again."""
    rows, state = made_up(300, 5, hours=2), ObserveState(PARTITIONS)
    observe(state, messages(rows, 5))
    CORE.parts(state, ObserveStep(), 0)
    later = Columns({"score_partition": 0, "watermark": START + DAY, "models": MODELS})
    CORE.scored(state, ObserveStep(), later)
    row = int(np.flatnonzero(rows.bools("alert") & (rows.codes("status") == 0))[0])
    time = int(rows.ints("event_time")[row])
    item = Feedback("a", rows.strings["transaction_id"][row], "c", "confirmed", "x", START + DAY)
    CORE.feedback(state, ObserveStep(), [item])
    parts = CORE.parts(state, ObserveStep(), 0)
    assert {(part.kind, part.slot) for part in parts} == {
        (MINUTES, time - time % MINUTE),
        (HOURS, time - time % HOUR),
    }
    assert all(part.tally["confirmed"] == 1 for part in parts)


def begun(saved: ObserveState) -> ObserveState:
    """Another worker has taken over what was kept, and has kept that it has."""
    state = ObserveState(PARTITIONS)
    for bucket in range(saved.buckets):
        state.load(bucket, saved.dump(bucket))
    state.apply(encode_step(state.next_generation()))
    return state


def test_after_a_crash_newer_parts_count_and_older_ones_do_not() -> None:
    """A worker has told of rows and dies before that is kept. The next one reads feedback first: in sum it
    has read less, and knows more of the alert.
    """
    rows, kept = made_up(300, 5, hours=2), begun(ObserveState(PARTITIONS))
    first, second = rows.take(np.arange(150)), rows.take(np.arange(150, 300))
    row = int(np.flatnonzero(first.bools("alert") & (first.codes("status") == 0))[-1])
    hour, transaction = (
        int(first.ints("event_time")[row]) // HOUR * HOUR,
        first.strings["transaction_id"][row],
    )
    acted = [Feedback("a", transaction, "c", each, "x", START + DAY) for each in ("shown", "confirmed")]
    observe(kept, [scored(0, first, START)])
    CORE.move(kept, ObserveStep(), "scored", 10)
    before = CORE.parts(kept, ObserveStep(), 0)
    died, restored = begun(kept), begun(kept)
    died.generation = kept.generation
    observe(died, [scored(0, second, START + HOUR), acted[0]])
    CORE.move(died, ObserveStep(), "scored", 20)
    unkept = CORE.parts(died, ObserveStep(), 0)
    observe(restored, acted)
    CORE.move(restored, ObserveStep(), "feedback", 2)
    after = CORE.parts(restored, ObserveStep(), 0)
    merge = MergeState(PARTITIONS)

    def confirmed() -> int:
        return merge.parts[HOURS][hour][0][1].get("confirmed", 0)

    for parts, count in ((before, 0), (unkept, 0), (after, 1), (unkept, 1), (before, 1)):
        MERGE.parts(merge, MergeStep(), parts)
        assert confirmed() == count
    observe(restored, [scored(0, second, START + HOUR)])
    MERGE.parts(merge, MergeStep(), CORE.parts(restored, ObserveStep(), 0))
    for kind, slots in restored.tallies.items():
        assert {slot: parts[0][1] for slot, parts in merge.parts[kind].items()} == slots


def test_state_is_bounded_and_no_odd_stamp_keeps_it() -> None:
    """Minutes go after a day, hours and alerts after the time of labels; one of the year 2096, too."""
    state = ObserveState(PARTITIONS, maturity=DAY)
    odd = Feedback("a", "nothing", "c", "shown", "x", 4_000_000_000_000)
    observe(state, [odd])
    for day in range(10):
        rows = made_up(400, day, hours=24)
        shift = day * DAY
        rows.arrays["event_time"] = rows.ints("event_time") + shift
        rows.arrays["watermark"] = rows.ints("watermark") + shift
        rows.arrays["offset"] = rows.ints("offset") + day * 1000
        rows.strings["transaction_id"] = [f"{day}/{each}" for each in rows.strings["transaction_id"]]
        observe(state, messages(rows, day))
        CORE.parts(state, ObserveStep(), 0)
        CORE.age(state, ObserveStep())
        observe(state, [Feedback("a", f"never {day}", "c", "shown", "x", 0)])
    assert len(state.tallies[MINUTES]) <= 48 * 60 + 1
    assert 24 * 3 <= len(state.tallies[HOURS]) <= 24 * 3 + 2
    assert min(alert.time for alert in state.alerts.values()) >= START + 6 * DAY
    assert "nothing" not in state.waiting


def test_scores_of_rules_that_stand_in_have_a_name_of_their_own() -> None:
    """Before a model has learned, and while the champion fails; its role is the same."""
    rows = made_up(3, 9, hours=1)
    for models, stood_in, expected in (
        (MODELS, False, {"champion:a", "shadow:b"}),
        (MODELS, True, {"champion:a/0", "shadow:b"}),
        ([["champion", "a", 0], ["shadow", "b", 0]], False, {"champion:a/0", "shadow:b/0"}),
    ):
        rows.meta |= {"models": models, "stood_in": stood_in}
        assert by_model(rows).keys() == expected
        assert {role_of(model) for model in expected} == {"champion", "shadow:b"}
    assert by_model(Columns({"watermark": 1})) == {}


def test_rows_without_scores_give_nothing() -> None:
    """A message without rows has no models; one that does not say where it is from is not of this system."""
    assert by_role(Columns({"watermark": 1})) == {}
    with pytest.raises(ColumnsError):
        CORE.scored(ObserveState(PARTITIONS), ObserveStep(), Columns())


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
        deltas.append(encode_merge_step(step))
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


def test_a_verdict_that_is_taken_back_leaves_nothing() -> None:
    """Of all that was counted for it: what is left is the verdict of another transaction, given once."""
    rows = made_up(400, 22, hours=1)
    rows.arrays["arm"] = np.arange(len(rows)) % 3 == 0
    first, second = np.flatnonzero(rows.bools("alert"))[:2]
    rows.meta |= {"move": 4, "stood_in": False}
    straight, revised = MergeState(PARTITIONS), MergeState(PARTITIONS)

    def judge(state: MergeState, row: int, *, fraud: bool) -> None:
        told = outcomes(rows.take(np.array([row])), 0, np.array([fraud]), "analyst", HOUR)
        told.meta["models"] = [["champion", "a", 1], ["canary", "b", 2]]
        MERGE.outcomes(state, MergeStep(), told)

    for fraud in (True, False, True, False):
        judge(revised, first, fraud=fraud)
    judge(straight, first, fraud=False)
    for state in (straight, revised):
        judge(state, second, fraud=True)
    assert contents(revised) == contents(straight)
    assert len(revised.judged) == 2


def test_verdicts_are_kept_in_little_space() -> None:
    """As many as there may be: no bucket of them is large, and each of them is all there again."""
    row = outcomes(made_up(50, 23).take(np.array([0])), 0, np.ones(1, np.bool_), "chargeback", DAY)
    state, kept = MergeState(PARTITIONS), keep(row, START)
    state.judged = {
        number: Judged((START + number).to_bytes(8, "little") + kept.numbers[8:], kept.lineup)
        for number in range(MOST_JUDGED)
    }
    assert state.judged[7].time == START + 7
    sizes = [len(state.dump(bucket)) for bucket in range(state.buckets)]
    assert max(sizes) < 1024 * 1024
    loaded = MergeState(PARTITIONS)
    for bucket in range(state.buckets):
        loaded.load(bucket, state.dump(bucket))
    assert loaded.judged == state.judged
    assert list(loaded.judged) == sorted(loaded.judged)


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


def test_after_a_promotion_the_estimate_is_of_the_new_champion() -> None:
    """By its own scores since then, and by what they meant when it was a shadow; none in the hour of the
    promotion, when two models have decided.
    """
    before, after = made_up(6000, 30, hours=24), made_up(8000, 31, hours=48)
    promoted = START + 36 * HOUR + HOUR // 2
    after = after.take(after.ints("watermark") >= START + 24 * HOUR)
    state = MergeState(PARTITIONS, DriftState(("x", "y")))
    # A shadow whose scores are chances, beside a champion that has it all wrong.
    good = np.random.default_rng(1).random(len(before))
    fraud = np.random.default_rng(2).random(len(before)) < good
    before.arrays |= {"champion": 1 - good, "shadows": good[:, None]}
    before.arrays["alert"] = np.zeros(len(before), np.bool_)
    for chosen in np.array_split(np.arange(len(before)), 3):
        MERGE.outcomes(state, MergeStep(), outcomes(before.take(chosen), 0, fraud[chosen], "maturity", DAY))
    # Few frauds since.
    good = np.random.default_rng(3).random(len(after)) * 0.2
    crowned = after.ints("watermark") >= promoted
    after.arrays["counts"] = np.full(len(after), 7, np.uint8)
    told: dict[int, list[PackedShape]] = {}
    for rows, champion, shadow, models in (
        (after.take(~crowned), 1 - good[~crowned], good[~crowned], MODELS),
        (after.take(crowned), good[crowned], 1 - good[crowned], [["champion", "b", 2], ["shadow", "a", 1]]),
    ):
        rows.meta["models"] = models
        rows.arrays |= {"champion": champion, "shadows": shadow[:, None]}
        for hour, shape in shapes(rows).items():
            told.setdefault(hour, []).append(shape)
    found = {}
    for hour, parts in sorted(told.items()):
        MERGE.shapes(state, MergeStep(), ShapesTold(0, [(hour, add_up(parts))], hour))
        assert len(list(MERGE.drift(state))) == 1
        found[(hour - START) // HOUR] = MERGE.estimates(state)
    assert {hour for hour, each in found.items() if "champion" not in each} == {36}
    # The shadow knew; what the champion says means nothing but that every second one is a fraud.
    assert found[35]["shadow:b"][0] == pytest.approx(0.1, abs=0.02)
    assert found[35]["champion"][0] == pytest.approx(0.5, abs=0.02)
    for hour in (37, 47):
        assert found[hour]["champion"][0] == pytest.approx(0.1, abs=0.02)
        assert found[hour]["shadow:a"][0] == pytest.approx(0.5, abs=0.02)
        assert found[hour]["champion"][1] > 0.11
