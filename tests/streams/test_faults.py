"""Faults of the simulated stream: each changes what it names, from its moment on, and nothing else."""

from __future__ import annotations

import re
from dataclasses import fields, replace
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner

from streams.cli import main
from streams.contract.codecs import TransactionDecoder
from streams.contract.records import Rejection
from streams.contract.transaction_columns import NEVER, TransactionColumns
from streams.history.analysts import Analysts
from streams.history.faults import KINDS, Fault, ignored_from
from streams.history.replay import ReplayTopics, _Encoder
from streams.history.simulator import GENUINE, UNKNOWN, Simulation, Simulator
from streams.times import DAY

RUNBOOK = Path(__file__).resolve().parents[2] / "docs" / "runbook.md"
WORLD = Simulation(seed=5, transactions=20_000, cards=400, terminals=800, days=20)
AT = 8 * DAY
#: The columns that a fault may change.
TOUCHED = {
    "unit-change": {"amount_minor"},
    "optional-field": {"texts"},
    "required-field": {"terminal_id"},
    "amount-shift": {"amount_minor"},
    "new-pattern": {"fraud", "labelled_at"},
    "slow-labels": {"labelled_at"},
    "alerts-ignored": set[str](),
}


def stream(*kinds: str) -> tuple[TransactionColumns, np.ndarray]:
    ((columns, pattern),) = Simulator(
        replace(WORLD, faults=tuple(Fault(kind, AT) for kind in kinds))
    ).patterns()
    return columns, pattern


@pytest.fixture(scope="module")
def steady() -> TransactionColumns:
    return stream()[0]


@pytest.mark.parametrize("kind", KINDS)
def test_a_fault_changes_what_it_names_and_only_from_its_moment_on(
    kind: str, steady: TransactionColumns
) -> None:
    """Before it the stream is the steady one; after it only the columns of the fault differ."""
    faulty, _ = stream(kind)
    before = np.flatnonzero(steady.event_time < WORLD.start + AT)
    for name in (each.name for each in fields(TransactionColumns)):
        whole, other = getattr(steady, name), getattr(faulty, name)
        same = np.array_equal(whole, other) if isinstance(whole, np.ndarray) else whole == other
        assert same == (name not in TOUCHED[kind]), name
        first, second = (getattr(each.take(before), name) for each in (steady, faulty))
        assert np.array_equal(first, second) if isinstance(first, np.ndarray) else first == second


def test_equal_faults_give_equal_streams() -> None:
    """The frauds of a new pattern are drawn by the seed of the stream."""
    (first, pattern), (second, again) = stream("new-pattern"), stream("new-pattern")
    np.testing.assert_array_equal(first.labelled_at, second.labelled_at)
    np.testing.assert_array_equal(pattern, again)


def test_amounts_change_by_the_stated_factors(steady: TransactionColumns) -> None:
    """A unit is a hundred minor units; a shift keeps the shape."""
    after = steady.event_time >= WORLD.start + AT
    for kind, factor in (("unit-change", 0.01), ("amount-shift", 2.5)):
        changed = stream(kind)[0].amount_minor[after] / steady.amount_minor[after]
        assert np.median(changed) == pytest.approx(factor, rel=0.05)


def test_fields_vanish(steady: TransactionColumns) -> None:
    """An optional one for all; a required one for a producer, whose transactions are dead letters."""
    rows = np.flatnonzero(steady.event_time >= WORLD.start + AT)
    optional = stream("optional-field")[0].take(rows)
    assert set(optional.texts["country"]) == {None}
    assert None not in optional.texts["channel"]
    required = stream("required-field")[0].take(rows)
    share = required.terminal_id.count("") / len(required)
    assert 0.1 < share < 0.3
    named = set(required.terminal_id) - {""}
    assert not {
        name
        for name, now in zip(steady.take(rows).terminal_id, required.terminal_id, strict=True)
        if not now and name in named
    }
    encoder, decoder = _Encoder(ReplayTopics("t", "l"), 1, 1), TransactionDecoder()
    for row in (required.terminal_id.index(""), required.terminal_id.index(max(named))):
        (record,) = encoder.transactions(required, row, row + 1)
        found = decoder.decode_one(record.value, record.key)
        if required.terminal_id[row]:
            assert not isinstance(found, Rejection)
        else:
            assert isinstance(found, Rejection)
            assert (found.code, found.field) == ("field_missing", "terminal_id")


def test_a_new_pattern_is_reported_like_other_frauds(steady: TransactionColumns) -> None:
    """Three purchases in a hundred, by their look like any other one."""
    columns, pattern = stream("new-pattern")
    assert columns.fraud is not None
    assert columns.labelled_at is not None
    assert steady.fraud is not None
    new = pattern == UNKNOWN
    np.testing.assert_array_equal(new, columns.fraud & ~steady.fraud)
    assert steady.labelled_at is not None
    np.testing.assert_array_equal(columns.labelled_at[~new], steady.labelled_at[~new])
    after = columns.event_time >= WORLD.start + AT
    assert new.sum() == pytest.approx(0.03 * after.sum(), rel=0.2)
    reported = columns.labelled_at[new] != NEVER
    assert 0.9 < reported.mean() < 1.0
    delay = (columns.labelled_at - columns.event_time)[new][reported] / DAY
    assert np.median(delay) == pytest.approx(5, rel=0.15)
    amounts = columns.amount_minor
    assert np.median(amounts[new]) == pytest.approx(np.median(amounts[pattern == GENUINE]), rel=0.15)


def test_reports_take_twice_the_time(steady: TransactionColumns) -> None:
    """And no more frauds are reported than before."""
    slow = stream("slow-labels")[0]
    assert steady.labelled_at is not None
    assert slow.labelled_at is not None
    after = (steady.event_time >= WORLD.start + AT) & (steady.labelled_at != NEVER)
    usual = (steady.labelled_at - steady.event_time)[after]
    np.testing.assert_array_equal((slow.labelled_at - slow.event_time)[after], 2 * usual)
    np.testing.assert_array_equal(slow.labelled_at == NEVER, steady.labelled_at == NEVER)


def test_analysts_who_are_absent_open_nothing() -> None:
    """Alerts are shown all the same; those of before are opened as ever."""
    from_then = ignored_from((Fault("unit-change", 0), Fault("alerts-ignored", AT)), 1000)
    assert from_then == 1000 + AT
    analysts = Analysts(set(), absent_from=from_then)
    before, after = (
        [
            each.action
            for number in range(100)
            for each in analysts.review(f"a{number}", f"t{number}", "c", 1000 + AT + offset)
        ]
        for offset in (-1, 0)
    )
    assert before.count("opened") > 80
    assert after == ["shown"] * 100
    assert ignored_from((Fault("unit-change", 0),), 1000) is None


@pytest.mark.parametrize(
    ("given", "said"),
    [("nonsense", "unit-change, optional-field"), ("unit-change@soon", "units"), ("unit-change@30d", "ends")],
)
def test_a_wrong_fault_is_wrong_usage_and_the_cure_is_named(given: str, said: str) -> None:
    """What there is, how an offset is written, and that the stream has an end."""
    ran = CliRunner().invoke(main, ["traffic", "--fault", given])
    assert ran.exit_code == 2
    assert said in ran.output


def test_the_help_teaches_the_faults() -> None:
    """Every one by name."""
    said = CliRunner().invoke(main, ["traffic", "--help"]).output
    assert all(kind in said for kind in KINDS)


def test_a_fault_that_does_not_exist_is_an_error() -> None:
    """Also without the command."""
    with pytest.raises(ValueError, match="unit-change"):
        Fault("nonsense", 0)


def test_the_runbook_says_what_rings_for_each_fault() -> None:
    """Every fault has a row, with alerts that have a section of their own."""
    text = RUNBOOK.read_text()
    rows = dict(re.findall(r"^\| `([a-z-]+)` \| (.*?) \|", text, flags=re.MULTILINE))
    assert rows.keys() == KINDS.keys()
    for alerts in rows.values():
        assert (named := re.findall(r"Fraud\w+", alerts))
        assert all(f"### {name}\n" in text for name in named)
