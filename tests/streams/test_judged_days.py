"""Days whose outcomes are in: when they are judged, and what raises an alarm."""

from __future__ import annotations

from typing import Any

import numpy as np

from monitoring.live_quality import DAY_MS, DayQuality
from streams.contract.codecs import encode
from streams.stages.judged_days import JudgedDays
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
        for due in days.due(START):
            judged, record = days.evaluate(due, quality)
            days.go_on(judged)
            records.append(record)
    return records


def alarms(records: list[dict[str, Any]]) -> list[tuple[str, str]]:
    return [(alarm["kind"], alarm["name"]) for record in records for alarm in record["alarms"]]


def test_a_day_is_judged_when_all_of_it_is_decided() -> None:
    """By the slower of two label partitions; a day later at the latest, for one may be silent."""
    days, quality = JudgedDays(MATURITY), Quality()
    add_day(days, quality, 0)
    end = START + DAY + MATURITY
    assert days.due(end) == []
    days.decide(0, end)
    days.decide(1, end - 1)
    assert days.due(end) == []
    assert days.due(end + DAY) == [FIRST]
    days.decide(1, end)
    assert days.due(end) == [FIRST]
    judged, record = days.evaluate(FIRST, quality)
    assert record["models"]["champion"]["outcomes"] == record["labels"]["outcomes"] == 4000
    decisions, frauds = record["decisions"], record["labels"]["base_rate"] * 4000
    assert decisions["precision"] == 0.75
    assert decisions["recall"] == 150 / frauds
    assert decisions["agreement"] == (4000 - 50 - (frauds - 150)) / 4000
    assert record["labels"]["sources"]["chargeback"]["coverage"] > 0.02
    days.go_on(judged)
    assert days.due(end) == []


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
