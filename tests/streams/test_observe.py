"""Observing a partition without a broker: every row, alert and action counts exactly once."""

from __future__ import annotations

import numpy as np
import pytest

from monitoring.live_quality import role_of
from monitoring.shapes import shape_of
from monitoring.tallies import Tally, add
from streams.contract.records import Feedback
from streams.stages.columns import Columns, ColumnsError
from streams.stages.observing.core import by_model
from streams.stages.observing.gate_figures import MARK
from streams.stages.observing.reading import HOURS, MINUTES
from streams.stages.observing.shapes import pack, unpack
from streams.stages.observing.state import ObserveState, ObserveStep
from streams.times import DAY, HOUR, MINUTE
from tests.streams.made_up import START
from tests.streams.observed import (
    CORE,
    MODELS,
    PARTITIONS,
    THRESHOLD,
    actions,
    both,
    made_up,
    messages,
    observe,
)


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


def test_a_message_that_does_not_say_where_it_is_from_is_not_of_this_system() -> None:
    with pytest.raises(ColumnsError):
        CORE.scored(ObserveState(PARTITIONS), ObserveStep(), Columns())
