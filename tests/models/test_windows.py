"""The window store against the definition of its features, and its bounds."""

from __future__ import annotations

import statistics
import time as clock
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from models.admission import ACCEPTED, DUPLICATE, FUTURE, LATE, Admission
from models.spec import EntitySpec, FeatureSpec
from models.spec_reading import DAY, HOUR
from models.windows import WindowStore
from tests.models.oracle import AdmissionOracle, Fraud, Row, WindowOracle

ENTITY: dict[str, object] = {
    "name": "card",
    "key": "card_id",
    "windows": ["2s", "5s", "20s"],
    "aggregates": [
        "count",
        "sum",
        "mean",
        "std",
        "max",
        "distinct_terminals",
        "distinct_countries",
        "amount_over_mean",
        "seconds_since_last",
    ],
    "risk": {"delay": "5s", "windows": ["3s", "20s"], "known_windows": ["4s", "30s"], "runs": True},
}
TAGS = ("distinct_terminals", "distinct_countries")
STATUS = {"accepted": ACCEPTED, "late": LATE, "future": FUTURE, "duplicate": DUPLICATE}
LATENESS, TOLERANCE, JUMP, HORIZON, MAX_IDS = 10_000, 3_000, 15_000, 30_000, 20


@dataclass
class Restart:
    """Between two batches: dump all state and go on from the dump; sweep some places of the table."""

    sweep: int


def entity(mapping: dict[str, object]) -> EntitySpec:
    return EntitySpec.from_mapping(mapping, "entity")


def admission() -> Admission:
    return Admission(
        lateness_ms=LATENESS, future_tolerance_ms=TOLERANCE, jump_ms=JUMP, horizon_ms=HORIZON, max_ids=MAX_IDS
    )


def tag_matrix(rows: list[Row]) -> np.ndarray[tuple[int, int], np.dtype[np.uint64]]:
    return np.array([[row.tags[tag] or 0 for tag in TAGS] for row in rows], np.uint64).reshape(len(rows), 2)


class Pipeline:
    """Admission and windows of one partition, as the card stage runs them."""

    def __init__(self, mapping: dict[str, object]) -> None:
        self.spec = entity(mapping)
        self.admission = admission()
        self.store = WindowStore(self.spec, lateness_ms=LATENESS)
        self.names = [name.removeprefix(f"{self.spec.name}_") for name in self.spec.names]

    def rows(self, rows: list[Row], *, compute: bool = True) -> tuple[list[int], list[dict[str, float]]]:
        """Status of every row, features of those that are no duplicates."""
        status, watermarks = self.admission.admit(
            np.array([row.id for row in rows], np.uint64),
            np.array([row.key for row in rows], np.uint64),
            np.array([row.time for row in rows], np.int64),
            np.array([row.record_time for row in rows], np.int64),
        )
        kept = status != DUPLICATE
        arguments = (
            np.array([row.key for row in rows], np.uint64)[kept],
            np.array([row.time for row in rows], np.int64)[kept],
            np.array([row.amount for row in rows])[kept],
            tag_matrix(rows)[kept],
            status[kept] == ACCEPTED,
            watermarks[kept],
        )
        if not compute:
            self.store.insert(*arguments)
            return status.tolist(), []
        matrix = self.store.update(*arguments)
        assert np.isfinite(matrix).all()
        return status.tolist(), [dict(zip(self.names, line, strict=True)) for line in matrix.tolist()]

    def frauds(self, reports: list[Fraud]) -> None:
        self.store.add_frauds(
            np.array([report.key for report in reports], np.uint64),
            np.array([report.time for report in reports], np.int64),
            np.array([report.known_at for report in reports], np.int64),
            np.array([report.id for report in reports], np.uint64),
            np.array([report.fraud for report in reports], np.bool_),
        )

    def restart(self, buckets: int) -> None:
        admission_dump, dumps = self.admission.dump(), self.dumps(buckets)
        self.admission = admission()
        self.admission.load(admission_dump)
        self.store = WindowStore(self.spec, lateness_ms=LATENESS)
        for bucket, data in enumerate(dumps):
            self.store.load(bucket, buckets, data)
        assert self.dumps(buckets) == dumps
        assert self.admission.dump() == admission_dump

    def dumps(self, buckets: int) -> list[bytes]:
        return [self.store.dump(bucket, buckets) for bucket in range(buckets)]


STEP = 500
amounts = st.one_of(
    st.integers(-20_000, 500_000).map(lambda minor: minor / 100),
    st.sampled_from([0.0, 1.0, 1e12, -1e12, 1e-9]),
)
#: Mostly a step forward, sometimes back beyond the lateness, or ahead beyond the jump.
moves = st.one_of(st.integers(0, 4), st.integers(-30, 8), st.sampled_from([0, 0, 40, 100]))
terminals = st.sampled_from([None, 1, 2, 1 << 32, (1 << 32) + 1])
countries = st.sampled_from([None, 1, 2, 3])
raw_rows = st.tuples(
    st.integers(1, 60), st.integers(0, 3), moves, st.integers(0, 9), amounts, terminals, countries
)
raw_frauds = st.tuples(st.integers(0, 1000), st.integers(0, 30), st.integers(0, 4))
steps = st.one_of(
    st.lists(raw_rows, min_size=1, max_size=25),
    st.lists(raw_rows, min_size=1, max_size=25),
    st.lists(raw_frauds, min_size=1, max_size=9),
    st.builds(Restart, st.integers(0, 3000)),
)
RawStep = (
    list[tuple[int, int, int, int, float, int | None, int | None]] | list[tuple[int, int, int]] | Restart
)
History = list[list[Row] | list[Fraud] | Restart]


def histories(max_steps: int = 8) -> st.SearchStrategy[History]:
    """Batches of rows and of fraud reports on one time line, with restarts between them."""
    return st.lists(steps, min_size=1, max_size=max_steps).map(on_one_time_line)


def on_one_time_line(raw: list[RawStep]) -> History:
    now = 3 * DAY - 20_000  # shortly before midnight
    sent: list[Row] = []
    history: History = []
    for step in raw:
        if isinstance(step, Restart):
            history.append(step)
            continue
        rows: list[Row] = []
        frauds: list[Fraud] = []
        for item in step:
            if len(item) == 3:
                if sent:
                    row = sent[item[0] % len(sent)]
                    frauds.append(Fraud(row.id, row.key, row.time, row.time + STEP * item[1], item[2] > 0))
                continue
            number, key, move, stamp, amount, terminal, country = item
            time = now + STEP * move
            if 0 < move < 10:
                now = time
            record_time = time if stamp else time - 5_000
            tags = {"distinct_terminals": terminal, "distinct_countries": country}
            rows.append(Row(number, key, time, record_time, amount, tags))
        sent.extend(rows)
        if rows or frauds:
            history.append(rows or frauds)
    return history


def check(history: History, mapping: dict[str, object]) -> None:
    """Run a history through the pipeline and through the oracle and compare every feature of every row."""
    pipeline, twin = Pipeline(mapping), Pipeline(mapping)
    judge = AdmissionOracle(LATENESS, TOLERANCE, JUMP, HORIZON, MAX_IDS)
    oracle = WindowOracle(mapping, LATENESS)
    largest = 1.0
    for step in history:
        if isinstance(step, Restart):
            pipeline.restart(3)
            if pipeline.admission.watermark >= 0:
                pipeline.store.sweep(pipeline.admission.watermark, step.sweep)
            continue
        if isinstance(step[0], Fraud):
            reports = [report for report in step if isinstance(report, Fraud)]
            for report in reports:
                oracle.report(report, judge.watermark)
            pipeline.frauds(reports)
            twin.frauds(reports)
            continue
        rows = [row for row in step if isinstance(row, Row)]
        status, features = pipeline.rows(rows)
        twin.rows(rows, compute=False)
        found = iter(features)
        for row, code in zip(rows, status, strict=True):
            verdict = judge.admit(row.id, row.key, row.time, row.record_time)
            assert code == STATUS[verdict]
            if verdict == "duplicate":
                continue
            expected = oracle.features(row, judge.watermark)
            got = next(found)
            largest = max(largest, abs(row.amount))
            assert got.keys() == expected.keys()
            for name, value in expected.items():
                # Rounding is relative to the largest amount in the sums, not to what is left of them.
                bound = 1e-9 * largest if name.split("_")[0] in ("sum", "mean", "std") else 0.0
                if name.startswith("amount_over_mean"):
                    assert got[name] == pytest.approx(value, rel=1e-6, abs=1e-9) or largest >= 1e12, name
                    continue
                assert got[name] == pytest.approx(value, rel=1e-9, abs=bound), name
            if verdict == "accepted":
                oracle.insert(row)
        assert pipeline.admission.watermark == judge.watermark
    probe = Row(10_000, 1, 4 * DAY, 4 * DAY, 1.0, dict.fromkeys(TAGS))
    assert twin.rows([probe])[1] == pipeline.rows([probe])[1]


@settings(max_examples=120, deadline=None)
@given(histories())
def test_every_feature_equals_its_definition(history: History) -> None:
    """Whatever the order, lateness, duplicates, stamps, restarts and sweeps: the brute-force values."""
    check(history, ENTITY)


@settings(max_examples=60, deadline=None)
@given(histories())
def test_a_full_key_keeps_its_newest_events(history: History) -> None:
    """With room for three events a key, the windows hold the newest three by event time."""
    check(history, {**ENTITY, "max_events_per_key": 3})


def card(windows: list[str], aggregates: object, **more: object) -> EntitySpec:
    mapping = {"name": "card", "key": "card_id", "windows": windows, "aggregates": aggregates, **more}
    return EntitySpec.from_mapping(mapping, "entity")


def feed(store: WindowStore, times: list[int], amounts: list[float], key: int = 7) -> list[list[float]]:
    """Rows of one key, one batch each, all inserted; the watermark is the largest time so far."""
    found = []
    watermark = times[0]
    for time, amount in zip(times, amounts, strict=True):
        watermark = max(watermark, time)
        found += store.update(
            np.array([key], np.uint64),
            np.array([time]),
            np.array([amount]),
            np.zeros((1, len(store.entity.tags)), np.uint64),
            np.array([True]),
            np.array([watermark]),
        ).tolist()
    return found


def test_a_window_is_open_at_its_old_end_and_closed_at_the_new_one() -> None:
    """An event exactly one window old is out, one with the same time is in.

    seconds   0    1    2    3    4
    events    a    b         c,d  e
    at c           (---------]        2 s: c            (b at 1 is exactly 2 s old: out)
    at d           (---------]        2 s: c d
    at e                (---------]   2 s: c d e
    """
    store = WindowStore(card(["2s"], ["count", "sum"]), lateness_ms=0)
    found = feed(store, [0, 1000, 3000, 3000, 4000], [1, 2, 4, 8, 16])
    assert found == [[1, 1], [2, 3], [1, 4], [2, 12], [3, 28]]


def test_a_late_event_is_inserted_where_it_belongs() -> None:
    """What comes late counts from then on in every window that covers its time.

    arrival   a@0  b@10  late@4  c@12
    at late   windows (-1, 4] of 5 s: a, late        b is later: not seen
    at c      windows (7, 12] of 5 s: b, c           late is out
              windows (2, 12] of 10 s: late, b, c
    """
    store = WindowStore(card(["5s", "10s"], ["count", "max", "seconds_since_last"]), lateness_ms=8_000)
    found = feed(store, [0, 10_000, 4_000, 12_000], [1, 2, 9, 3])
    assert found[2] == [2, 2, 9, 9, 4.0]
    assert found[3] == [2, 3, 3, 9, 2.0]


def test_risk_looks_only_at_what_labels_can_have_reached() -> None:
    """Risk at t shares out the events older than the delay; a fraud counts from the moment it is known.

    days      0   1   2   3   4   5   6   7   8   9
    events    F   g       g                       ?
    at 8, delay 5, window 4: (-1, 3] holds F g g; F known at 6: risk 1/3, known in the last 4 days: 1
    """
    risk = {"delay": "5d", "windows": ["4d"], "known_windows": ["4d"]}
    store = WindowStore(card(["24h"], ["count"], risk=risk), lateness_ms=0)
    feed(store, [0, DAY, 3 * DAY], [1, 1, 1])
    store.add_frauds(*fraud(id=1, time=0, known_at=6 * DAY))
    [early] = feed(store, [6 * DAY - 1], [1])
    assert dict(zip(store.entity.names, early, strict=True))["card_known_frauds_4d"] == 0
    [row] = feed(store, [8 * DAY], [1])
    assert dict(zip(store.entity.names, row, strict=True)) == {
        "card_count_24h": 1,
        "card_risk_4d": pytest.approx(1 / 3),
        "card_risk_count_4d": 3,
        "card_known_frauds_4d": 1,
        "card_seconds_since_fraud": 2 * DAY / 1000,
    }
    store.add_frauds(*fraud(id=1, time=0, known_at=9 * DAY, is_fraud=False))
    [reversed_] = feed(store, [8 * DAY], [1])
    assert dict(zip(store.entity.names, reversed_, strict=True))["card_risk_4d"] == 0


def test_a_run_of_frauds_ends_at_the_first_genuine_outcome() -> None:
    """Back from the newest known fraud, up to a decided event that is none; younger events decide nothing.

    days      0   1   2   3   4   5   6   7   8   9
    events    F   g   F   F   g   g               ?
    before 8, delay 5: F at 2 is the run; of the fraud at 3 nothing is known yet
    at 9.5:            F at 2 and 3 are the run; one genuine outcome since, at 4; 5 is not decided yet
    """
    risk = {"delay": "5d", "windows": ["20d"], "known_windows": ["20d"], "runs": True}
    store = WindowStore(card(["20d"], ["count"], risk=risk), lateness_ms=0)
    feed(store, [day * DAY for day in range(6)], [1] * 6)
    for day in (2, 0, 3):  # in no order
        store.add_frauds(*fraud(id=1 + day, time=day * DAY, known_at=(day + 5) * DAY))
    columns = (
        "fraud_run",
        "days_since_run",
        "seconds_since_before_run",
        "genuine_since_fraud",
        "seconds_since_outcome",
    )
    found = []
    for time in (5 * DAY - 1, 8 * DAY - 1, 9 * DAY + DAY // 2):
        [row] = feed(store, [time], [1])
        known = dict(zip(store.entity.names, row, strict=True))
        found.append([known[f"card_{name}"] for name in columns])
    assert found == [
        [0, 26, 25 * DAY / 1000, 0, 25 * DAY / 1000],
        [1, 5, (7 * DAY - 1) / 1000, 0, (6 * DAY - 1) / 1000],
        [2, 7, 8.5 * DAY / 1000, 1, 5.5 * DAY / 1000],
    ]


def test_the_risk_window_is_open_at_its_old_end_and_closed_at_the_new_one() -> None:
    """Of frauds exactly delay + window, just less, exactly the delay and just less old, the middle two count.

    seconds   0     1 ms later     4     1 ms later     9 = t, delay 5, window 4
    frauds    out   in             in    out
    """
    risk = {"delay": "5s", "windows": ["4s"], "known_windows": ["5s"]}
    store = WindowStore(card(["20s"], ["count"], risk=risk), lateness_ms=0)
    times = [0, 1, 4000, 4001]
    feed(store, times, [1, 1, 1, 1])
    for id, time in enumerate(times):
        store.add_frauds(*fraud(id=id, time=time, known_at=4000 + id))
    [row] = feed(store, [4003], [1])
    known = dict(zip(store.entity.names, row, strict=True))
    assert known["card_known_frauds_5s"] == 4  # the last became known just now
    assert known["card_seconds_since_fraud"] == 0
    [row] = feed(store, [9000], [1])
    found = dict(zip(store.entity.names, row, strict=True))
    assert (found["card_risk_4s"], found["card_risk_count_4s"]) == (1, 2)
    assert found["card_known_frauds_5s"] == 3  # the one known at 4 is exactly 5 s old
    assert found["card_seconds_since_fraud"] == 4.997
    store.add_frauds(*fraud(id=1, time=1, known_at=0, is_fraud=False))
    [row] = feed(store, [9000], [1])
    assert dict(zip(store.entity.names, row, strict=True))["card_risk_4s"] == 0.5


def fraud(
    *, id: int, time: int, known_at: int, key: int = 7, is_fraud: bool = True
) -> tuple[
    np.ndarray[tuple[int], np.dtype[np.uint64]],
    np.ndarray[tuple[int], np.dtype[np.int64]],
    np.ndarray[tuple[int], np.dtype[np.int64]],
    np.ndarray[tuple[int], np.dtype[np.uint64]],
    np.ndarray[tuple[int], np.dtype[np.bool_]],
]:
    return (
        np.array([key], np.uint64),
        np.array([time]),
        np.array([known_at]),
        np.array([id], np.uint64),
        np.array([is_fraud]),
    )


def test_columns_are_the_same_whatever_else_is_computed() -> None:
    """A spec with chosen windows per aggregate gives the same columns as the full one of the same names."""
    full = card(["1h", "24h", "7d"], ["count", "mean", "std", "distinct_terminals", "distinct_cards"])
    part = card(["1h", "24h", "7d"], {"distinct_cards": ["24h"], "std": ["7d"], "count": ["1h", "7d"]})
    batch = random_batch(np.random.default_rng(5), full, rows=3000, keys=20, span=9 * DAY)
    whole = WindowStore(full, lateness_ms=HOUR).update(*batch)
    some = WindowStore(part, lateness_ms=HOUR).update(*batch[:3], batch[3][:, 1:], *batch[4:])
    chosen = [full.names.index(name) for name in part.names]
    np.testing.assert_array_equal(some, whole[:, chosen])


Batch = tuple[
    np.ndarray[tuple[int], np.dtype[np.uint64]],
    np.ndarray[tuple[int], np.dtype[np.int64]],
    np.ndarray[tuple[int], np.dtype[np.float64]],
    np.ndarray[tuple[int, int], np.dtype[np.uint64]],
    np.ndarray[tuple[int], np.dtype[np.bool_]],
    np.ndarray[tuple[int], np.dtype[np.int64]],
]


def random_batch(
    rng: np.random.Generator, spec: EntitySpec, *, rows: int, keys: int, span: int, start: int = 0
) -> Batch:
    """Rows with hashed keys in nearly ascending order of time; the watermark is the running maximum."""
    times = start + np.sort(rng.integers(0, span, rows)) - rng.integers(0, HOUR // 2, rows)
    hashes = (rng.integers(1, keys + 1, rows).astype(np.uint64)) * np.uint64(0x9E3779B97F4A7C15)
    tags = rng.integers(0, 30, (rows, len(spec.tags))).astype(np.uint64)
    return hashes, times, rng.random(rows) * 100, tags, np.ones(rows, bool), np.maximum.accumulate(times)


def cut_out(batch: Batch, cut: slice) -> Batch:
    keys, times, amounts, tags, insert, watermarks = batch
    return keys[cut], times[cut], amounts[cut], tags[cut], insert[cut], watermarks[cut]


def test_batches_and_restarts_leave_no_trace() -> None:
    """One batch, many batches, replay by `insert`, and dump and load in between end in the same bytes."""
    spec = FeatureSpec.default().entities[1]
    batch = random_batch(np.random.default_rng(1), spec, rows=20_000, keys=150, span=60 * DAY)
    whole, parts, replayed = (WindowStore(spec, lateness_ms=HOUR) for _ in range(3))
    expected = whole.update(*batch)
    found = []
    for start in range(0, 20_000, 700):
        cut = slice(start, start + 700)
        rows = cut_out(batch, cut)
        if start % 2100 == 0:
            dumps = [parts.dump(bucket, 4) for bucket in range(4)]
            parts = WindowStore(spec, lateness_ms=HOUR)
            for bucket in (2, 0, 3, 1):
                parts.load(bucket, 4, dumps[bucket])
        found.append(parts.update(*rows))
        replayed.insert(*rows)
    np.testing.assert_array_equal(np.concatenate(found), expected)
    for store in (parts, replayed):
        assert [store.dump(bucket, 8) for bucket in range(8)] == [
            whole.dump(bucket, 8) for bucket in range(8)
        ]


def test_loading_a_bucket_replaces_it_and_frees_what_was_there() -> None:
    """Loading the same buckets again and again neither changes nor grows anything."""
    spec = FeatureSpec.default().entities[1]
    store = WindowStore(spec, lateness_ms=HOUR)
    store.update(*random_batch(np.random.default_rng(2), spec, rows=5000, keys=100, span=30 * DAY))
    store.add_frauds(*fraud(id=1, time=29 * DAY, known_at=30 * DAY))
    dumps = [store.dump(bucket, 2) for bucket in range(2)]
    store.load(0, 2, dumps[0])
    size = store.nbytes
    for _ in range(5):
        for bucket in range(2):
            store.load(bucket, 2, dumps[bucket])
    assert store.nbytes == size
    assert [store.dump(bucket, 2) for bucket in range(2)] == dumps


@pytest.mark.parametrize(
    "damage", [lambda d: b"", lambda d: b"XXXX" + d[4:], lambda d: d[:-8], lambda d: d + b"\0"]
)
def test_a_damaged_dump_is_refused(damage: Callable[[bytes], bytes]) -> None:
    """A dump that is empty, foreign, cut or longer raises ValueError and changes nothing."""
    store = WindowStore(card(["1h"], ["count"]), lateness_ms=0)
    feed(store, [0, 1], [1, 1])
    before = store.dump(0, 1)
    with pytest.raises(ValueError):
        store.load(0, 1, damage(before))
    assert store.dump(0, 1) == before


def test_a_dump_of_another_bucket_or_shape_is_refused() -> None:
    """Key 7 is in bucket 1 of 2, and an entity that counts terminals does not read events without tags."""
    store = WindowStore(card(["1h"], ["count"]), lateness_ms=0)
    feed(store, [0], [1])
    with pytest.raises(ValueError, match="bucket 0 of 2"):
        store.load(0, 2, store.dump(1, 2))
    with pytest.raises(ValueError, match="words"):
        WindowStore(card(["1h"], ["distinct_terminals"]), lateness_ms=0).load(0, 1, store.dump(0, 1))


def test_expired_keys_are_swept_and_their_memory_serves_the_next() -> None:
    """Ten times 20,000 new keys, each gone a window later: memory stays that of one generation."""
    spec = card(["24h"], ["count", "distinct_terminals"])
    store = WindowStore(spec, lateness_ms=HOUR)
    rng = np.random.default_rng(3)
    sizes = []
    for generation in range(10):
        start = generation * 3 * DAY
        keys = np.arange(20_000, dtype=np.uint64) + np.uint64(generation * 20_000 + 1)
        tags = rng.integers(0, 9, (20_000, 1)).astype(np.uint64)
        times = np.full(20_000, start)
        store.update(keys, times, np.ones(20_000), tags, np.ones(20_000, bool), times)
        assert store.n_keys == 20_000
        freed = sum(store.sweep(start + 2 * DAY, 1000) for _ in range(100))
        assert freed == 20_000
        assert store.n_keys == 0
        sizes.append(store.nbytes)
    assert sizes[-1] == sizes[0]


def test_a_steady_key_takes_no_more_memory_with_time() -> None:
    """Sixty events a month for two years stay in the chunks of about two months."""
    store = WindowStore(card(["30d"], ["count"]), lateness_ms=DAY)
    rows = 60 * 24
    times = np.arange(rows) * (DAY // 2)
    found = store.update(
        np.full(rows, 7, np.uint64),
        times,
        np.ones(rows),
        np.empty((rows, 0), np.uint64),
        np.ones(rows, bool),
        times,
    )
    assert found[-1, 0] == 60
    assert len(store.dump(0, 1)) < 16 * (60 + 2 + 16) + 100


def test_a_hot_key_is_bounded_in_time_and_memory() -> None:
    """A key with 100,000 events in a window keeps the newest 512, says so, and stays quick."""
    spec = card(["30d"], ["count", "std", "distinct_terminals"], max_events_per_key=512)
    store = WindowStore(spec, lateness_ms=DAY)
    rows = 100_000
    times = np.arange(rows)
    tags = np.arange(1, rows + 1, dtype=np.uint64).reshape(rows, 1)
    keys = np.full(rows, 7, np.uint64)
    started = clock.process_time()
    found = store.update(keys, times, np.ones(rows), tags, np.ones(rows, bool), times)
    assert clock.process_time() - started < 20
    assert found[-1].tolist() == [513, 0, 513]
    assert rows - 512 - 8 <= store.truncated <= rows - 512
    assert len(store.dump(0, 1)) < 24 * (512 + 16) + 100


def test_labels_of_one_key_are_bounded() -> None:
    """Of a thousand frauds at a key with room for a hundred, a hundred are kept and the rest is counted."""
    risk = {"delay": "1h", "windows": ["24h"], "known_windows": ["24h"]}
    store = WindowStore(card(["24h"], ["count"], risk=risk, max_events_per_key=100), lateness_ms=0)
    n = 1000
    stamps = np.arange(n)
    store.add_frauds(np.full(n, 7, np.uint64), stamps, stamps, stamps.astype(np.uint64), np.ones(n, bool))
    assert store.frauds_dropped == 900
    [row] = feed(store, [2000], [1])
    assert dict(zip(store.entity.names, row, strict=True))["card_known_frauds_24h"] == 100


def test_a_row_without_the_entity_sees_only_itself() -> None:
    """Key 0 stands for a missing merchant or device: no state, features of a first event."""
    store = WindowStore(card(["1h"], ["count", "amount_over_mean", "seconds_since_last"]), lateness_ms=0)
    assert feed(store, [0, 1], [5, 6], key=0) == [[1, 1, 3600], [1, 1, 3600]]
    assert store.n_keys == 0


def test_any_amount_gives_finite_features() -> None:
    """NaN and infinities count as 0, and extremes overflow to no infinity."""
    aggregates = ["sum", "mean", "std", "max", "amount_over_mean"]
    store = WindowStore(card(["1h", "24h"], aggregates), lateness_ms=0)
    odd = [float("nan"), float("inf"), 1e308, 1e308, -1e308, 5e-324, 0.0, -0.0, 1e-300]
    assert np.isfinite(feed(store, list(range(len(odd))), odd)).all()


def test_the_standard_deviation_survives_large_offsets() -> None:
    """Cents of spread on amounts of a million come out as by the two-pass formula."""
    amounts = [1_000_000 + cents / 100 for cents in (1, 5, 2, 8, 3, 3, 9)]
    store = WindowStore(card(["1h"], ["std"]), lateness_ms=0)
    assert feed(store, list(range(7)), amounts)[-1][0] == pytest.approx(statistics.pstdev(amounts), rel=1e-7)


def test_columns_of_different_length_are_refused() -> None:
    """A batch that does not fit is an error before any row is processed."""
    store = WindowStore(card(["1h"], ["count", "distinct_terminals"]), lateness_ms=0)
    key, one = np.array([7], np.uint64), np.array([1])
    with pytest.raises(ValueError, match="terminal_id"):
        store.update(key, one, np.ones(1), np.empty((1, 0), np.uint64), np.array([True]), one)
    with pytest.raises(ValueError, match="length"):
        store.update(key, one, np.ones(2), np.ones((1, 1), np.uint64), np.array([True]), one)
    assert store.n_keys == 0
