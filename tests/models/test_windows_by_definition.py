"""Every feature of the window store against its definition, over any history."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from models.admission import ACCEPTED, DUPLICATE, FUTURE, LATE, Admission
from models.spec import EntitySpec
from models.spec_reading import DAY
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
