"""The observe stage with its changelogs: restarts change nothing, and no record is large."""

from __future__ import annotations

import asyncio
import json

import numpy as np
import numpy.typing as npt
import pytest

from streams.contract.codecs import encode
from streams.kafka import state_log
from streams.settings import load
from streams.stages.observing import merge
from streams.stages.observing.core import slot_times
from streams.times import DAY, HOUR
from tests.streams.made_up import START, settings
from tests.streams.observe_stage import Died, Stage
from tests.streams.observed import actions, made_up, messages, outcomes

PARTITIONS = 2
HOURS = 12 * 24
ROWS = HOURS * 14
#: From then on an amount comes in another unit; frauds change their looks before, in the middle.
SHIFTED = START + (HOURS - 30) * HOUR
#: What comes before is history, without minutes.
LIVE = START + (HOURS - 6) * HOUR
FLIPPED = START + 6 * DAY
#: When, topic, partition, messages.
Input = tuple[int, str, int, list[bytes]]


def stage() -> Stage:
    return Stage(settings(topics={"partitions": PARTITIONS}))


def stream(stage: Stage) -> list[Input]:
    """What comes, in the order of event time."""
    spec = stage.context.spec
    found: list[Input] = []
    for partition in range(PARTITIONS):
        rows = made_up(ROWS, partition, hours=HOURS, features=len(spec.names), partition=partition)
        rows.meta["spec"] = spec.digest
        watermark = rows.ints("watermark")
        rows.arrays["features"] = np.exp(rows.floats("features"))
        rows.arrays["features"][watermark >= SHIFTED, 0] *= 100
        rows.arrays["record_time"] = watermark + np.where(watermark < LIVE, DAY, 1000)
        own = [(each.meta_int("watermark"), "scored", each) for each in messages(rows, partition, most=300)]
        champion = rows.floats("champion")
        chance = np.where(watermark < FLIPPED, champion, 1 - champion)
        fraud, alert = np.random.default_rng(partition).random(ROWS) < chance, rows.bools("alert")
        for chosen in np.array_split(np.flatnonzero(~alert), 36):
            matured = outcomes(rows.take(chosen), partition, fraud[chosen], "maturity", DAY)
            own.append((int(matured.ints("known_at")[-1]), "outcomes", matured))
        for chosen in np.array_split(np.flatnonzero(alert), 24):
            for verdict, delay in ((~fraud[chosen], HOUR), (fraud[chosen], 2 * HOUR)):
                given = outcomes(rows.take(chosen[::9]), partition, verdict[::9], "analyst", delay)
                own.append((int(given.ints("known_at")[-1]), "outcomes", given))
        found += [(at, topic, partition, [each.encode()]) for at, topic, each in own]
        acted = actions(rows, partition)
        for start in range(0, len(acted), 100):
            items = acted[start : start + 100]
            found.append((items[-1][0], "feedback", partition, [encode(item) for _, item in items]))
    return sorted(found, key=lambda each: each[:3])


def feed(stage: Stage, inputs: list[Input], *, restarts: bool) -> None:
    """Carry the inputs through; with restarts a worker ends at every fifth step, one way or another."""
    for number, (_, topic, partition, values) in enumerate(inputs):
        stage.send(topic, 0 if topic == "outcomes" else partition, values)
        kind = number % 20 if restarts else -1
        if topic != "outcomes":
            try:
                stage.observe(partition, dies=kind == 0)
            except Died:
                stage.restart(partition)
                stage.observe(partition)
            if kind == 5:
                stage.restart(partition)
        try:
            stage.put_together(dies=kind == 10)
        except Died:
            stage.restart_merge()
            stage.put_together()
        if kind == 15:
            stage.restart_merge()


@pytest.mark.timeout(180)
def test_restarts_change_nothing_that_is_published(monkeypatch: pytest.MonkeyPatch) -> None:
    """To the byte, although buckets are written all the time: a restore applies deltas to half of a state."""
    monkeypatch.setattr(state_log, "_MIN_BYTES_PER_BUCKET", 1)
    monkeypatch.setattr(merge, "SHOW_SECONDS", 1e9)
    straight, restarted = stage(), stage()
    inputs = stream(straight)
    feed(straight, inputs, restarts=False)
    feed(restarted, inputs, restarts=True)
    expected, found = straight.last("metrics"), restarted.last("metrics")
    assert {key.partition(b"/")[0] for key in expected} == {b"window", b"drift", b"quality"}
    drifts = [json.loads(value) for key, value in expected.items() if key.startswith(b"drift/")]
    alarms = {(each["kind"], each["name"]) for record in drifts for each in record["alarms"]}
    assert any(name == "amount" for _, name in alarms)
    days = [json.loads(value) for key, value in expected.items() if key.startswith(b"quality/")]
    assert any(record["alarms"] for record in days)
    assert found == expected
    shown, counted = gauges(straight), straight.context.metrics.drift_alarms.value("out_of_range")
    assert shown["fraud_drift_raised"]
    assert shown["fraud_concept_raised"]
    asyncio.run(straight.merge.close())
    assert gauges(straight)["fraud_drift_raised"] == {}
    straight.restart_merge()
    assert gauges(straight) == shown
    assert straight.context.metrics.drift_alarms.value("out_of_range") == counted


def gauges(stage: Stage) -> dict[str, dict[str, float]]:
    """What is shown of drift and of judged days."""
    metrics = stage.context.metrics
    shown = (
        metrics.drift_raised, metrics.feature_drift, metrics.score_drift, metrics.concept_raised,
        metrics.base_rate, metrics.label_coverage,
    )  # fmt: skip
    return {
        each.definition.name: {str(sample.labels): sample.value for sample in each.collect().samples}
        for each in shown
    }


#: What no record of a changelog, nor of the topic of parts, may reach; the broker takes 12 MiB.
MOST_BYTES = 2 * 1024 * 1024


def history(stage: Stage, hours: int, per_hour: int) -> npt.NDArray[np.int64]:
    """A history that has come as a whole before anything of it is read; when its rows count."""
    spec, partitions = stage.context.spec, stage.context.partitions
    times = []
    for partition in range(partitions):
        n = hours * per_hour
        rows = made_up(n, partition, hours=hours, features=len(spec.names), partition=partition)
        rows.meta["spec"] = spec.digest
        # Values all over the bins.
        rows.arrays["features"] = np.exp(4 * rows.floats("features"))
        rows.arrays["record_time"] = rows.ints("watermark") + 90 * DAY
        times.append(slot_times(rows))
        sent = [each.encode() for each in messages(rows, partition, most=400)]
        stage.send("scored", partition, sent)
        for chosen in np.array_split(np.flatnonzero(~rows.bools("alert")), n // 500):
            fraud = np.zeros(len(chosen), np.bool_)
            stage.send(
                "outcomes", 0, [outcomes(rows.take(chosen), partition, fraud, "maturity", 7 * DAY).encode()]
            )
    return np.concatenate(times)


def test_a_fast_replay_writes_no_large_record() -> None:
    """Ten days of four partitions at once: everything counts, in many small records.

    The gauges show the last day of the history, and no minutes of it.
    """
    replayed = Stage(load(overrides={"topics.partitions": 4}, environ={}))
    times = history(replayed, 240, 80)
    for partition in range(4):
        replayed.observe(partition)
    replayed.put_together()
    sizes = [size for log in [*replayed.logs, replayed.merge_log] for size in log.sizes]
    assert sum(sizes) > 5 * MOST_BYTES
    assert max(sizes) < MOST_BYTES
    assert max(map(len, replayed.sent("observe-parts"))) < MOST_BYTES
    assert max(map(len, replayed.sent("metrics"))) < MOST_BYTES
    state = replayed.merge.state
    assert max(len(state.dump(bucket)) for bucket in range(state.buckets)) < MOST_BYTES // 2
    windows = [json.loads(value) for key, value in replayed.last("metrics").items() if b"/24h/" in key]
    days = {each["end"]: each["transactions"] for each in windows if each["end"] % DAY == 0}
    expected = {
        START + day * DAY: int(((times >= START + (day - 1) * DAY) & (times < START + day * DAY)).sum())
        for day in range(1, 10)
    }
    assert {end: days.get(end) for end in expected} == expected
    shown = replayed.context.metrics.window_transactions
    newest = max(state.watermarks.values()) // HOUR * HOUR + HOUR
    assert shown.value("24h") == (times >= newest - DAY).sum()
    assert shown.value("1h") == shown.value("1m") == 0
