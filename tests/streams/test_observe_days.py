"""Days whose outcomes are in: when they are judged, and what raises an alarm."""

from __future__ import annotations

from typing import Any

import numpy as np

from monitoring.live_quality import DAY_MS, DAYS, DayQuality
from streams.contract.codecs import encode
from streams.stages.observing.days import PATIENCE, JudgedDays
from streams.times import DAY, HOUR
from tests.streams.made_up import START

MATURITY = 7 * DAY
FIRST = START // DAY_MS
Quality = dict[int, dict[str, DayQuality]]


def add_day(
    days: JudgedDays,
    quality: Quality,
    day: int,
    *,
    flipped: bool = False,
    delay: int = DAY,
    labelled: int = 10,
) -> None:
    """Outcomes of a day: two models, calibrated unless the world has changed."""
    random = np.random.default_rng(day)
    rows = 4000
    score = 1 / (1 + np.exp(-random.normal(-3, 1.5, rows)))
    truth = random.random(rows) < (score[::-1] if flipped else score)
    held = quality.setdefault(FIRST + day, {})
    for role in ("champion", "shadow:b"):
        held[role] = DayQuality()
        held[role].update(random.integers(0, 500, rows), truth, score)
    wiggle = int(random.integers(-HOUR, HOUR))
    noise = int(random.integers(0, 3))
    days.add(
        FIRST + day,
        {
            "outcomes": rows,
            "frauds": 300 + int(random.integers(-20, 20)),
            "alerts_known": 200,
            "caught": 150,
            "labels@source:chargeback": labelled * 10 + noise,
            "label_ms@source:chargeback": (labelled * 10 + noise) * (delay + wiggle),
        },
    )


def judge(days: JudgedDays, quality: Quality, count: int, **changed: Any) -> list[dict[str, Any]]:
    """The records of so many days; `changed` from the twentieth on."""
    records = []
    for day in range(count):
        add_day(days, quality, day, **(changed if day >= 20 else {}))
        for label_partition in (0, 1):
            days.decide(label_partition, START + (day + 1) * DAY + MATURITY)
        for due in days.due():
            judged, record = days.evaluate(due, quality)
            days.go_on(judged)
            records.append(record)
    return records


def alarms(records: list[dict[str, Any]]) -> list[tuple[str, str]]:
    return [(alarm["kind"], alarm["name"]) for record in records for alarm in record["alarms"]]


def test_a_day_is_judged_when_all_of_it_is_decided() -> None:
    """By the slower of two label partitions, although nothing has been heard of it yet; where one is silent,
    when the other has decided a day more.
    """
    days, quality = JudgedDays(MATURITY, 2), Quality()
    add_day(days, quality, 0)
    end = START + DAY + MATURITY
    assert days.due() == []
    days.decide(0, end + PATIENCE - 1)
    assert days.due() == []
    for slower in (True, False):
        silent = JudgedDays(MATURITY, 2)
        silent.load(days.dump())
        if slower:
            silent.decide(1, end - 1)
            assert silent.due() == []
            silent.decide(1, end)
        else:
            silent.decide(0, end + PATIENCE)
        assert silent.due() == [FIRST]
    days.decide(1, end)
    judged, record = days.evaluate(FIRST, quality)
    assert record["models"]["champion"]["outcomes"] == record["labels"]["outcomes"] == 4000
    decisions, frauds = record["decisions"], record["labels"]["base_rate"] * 4000
    assert decisions["precision"] == 0.75
    assert decisions["recall"] == 150 / frauds
    assert decisions["agreement"] == (4000 - 50 - (frauds - 150)) / 4000
    assert record["labels"]["sources"]["chargeback"]["coverage"] > 0.02
    days.go_on(judged)
    assert days.due() == []


def test_what_comes_after_a_day_was_judged_changes_its_record_and_those_of_later_days() -> None:
    """Their figures; their alarms are those of then, and no more. A restart loses nothing of that."""
    days, quality = JudgedDays(MATURITY), Quality()
    records = {record["end"]: record for record in judge(days, quality, 30, delay=2 * DAY)}
    alarmed = next(end for end, record in records.items() if record["alarms"])
    assert days.due_again() == []
    days.add(FIRST + 20, {"outcomes": 100, "frauds": 50})
    again = JudgedDays(MATURITY)
    again.load(days.dump())
    for each in (days, again):
        told = {}
        for day in each.due_again():
            judged, record = each.again(day, quality)
            each.go_on(judged)
            told[record["end"]] = record
        assert each.due_again() == each.due() == []
        assert list(told) == [START + (day + 1) * DAY for day in range(20, 30)]
        first = told[START + 21 * DAY]
        assert first["labels"]["outcomes"] == 4100
        for end, record in told.items():
            before = records[end]
            assert record["decisions"]["outcomes"] == before["decisions"]["outcomes"] + 100
            assert (record["alarms"], record["raised"]) == (before["alarms"], before["raised"])
        assert alarmed in told


def test_quiet_days_raise_nothing() -> None:
    """Of forty."""
    records = judge(JudgedDays(MATURITY), Quality(), 40)
    assert len(records) == 40
    assert alarms(records) == []


def test_what_has_changed_is_named_once() -> None:
    """Scores that mean nothing any more, labels that take twice as long, a source that says less."""
    flipped = judge(JudgedDays(MATURITY), Quality(), 30, flipped=True)
    assert set(alarms(flipped)) == {("concept", "champion"), ("concept", "shadow:b")}
    assert len(alarms(flipped)) == 2
    slower = judge(JudgedDays(MATURITY), Quality(), 30, delay=2 * DAY)
    assert alarms(slower) == [("label", "delay:chargeback")]
    fewer = judge(JudgedDays(MATURITY), Quality(), 30, labelled=5)
    assert alarms(fewer) == [("label", "coverage:chargeback")]


def test_a_small_change_is_one_alarm() -> None:
    """Labels that take 50 minutes longer are beyond the limit on some days and not on others: the alarm stays
    on until the change has left the window, and is over then.
    """
    records = judge(JudgedDays(MATURITY), Quality(), 70, delay=DAY + HOUR * 5 // 6)
    assert alarms(records) == [("label", "delay:chargeback")]
    on = [day for day, record in enumerate(records) if record["raised"]]
    assert on == list(range(on[0], on[-1] + 1))
    assert 20 + 20 < on[-1] <= 20 + DAYS


def test_a_restart_goes_on_where_it_was() -> None:
    """With an alarm on, it is not raised again."""
    days, quality = JudgedDays(MATURITY), Quality()
    assert alarms(judge(days, quality, 30, delay=2 * DAY))
    again = JudgedDays(MATURITY)
    again.load(days.dump())
    records = []
    for each in (days, again):
        add_day(each, quality, 30, delay=2 * DAY)
        records.append(encode(each.evaluate(FIRST + 30, quality)[1]))
    assert records[0] == records[1]
    assert b'"alarms":[]' in records[0]
    assert b"delay:chargeback" in records[0]
