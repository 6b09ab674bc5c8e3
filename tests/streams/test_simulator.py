from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from streams.contract.cards import is_card_number
from streams.contract.transaction_columns import NEVER, TransactionColumns
from streams.history.simulator import CARD, GENUINE, LARGE, TERMINAL, TESTING, Simulation, Simulator
from streams.times import DAY, HOUR, MINUTE

WORLD = Simulation(seed=3, transactions=120_000, cards=1_500, terminals=3_000, days=60)
NAMES = ("transaction_id", "card_id", "terminal_id", "currency")
ARRAYS = ("event_time", "amount_minor", "fraud", "labelled_at")


def joined(simulation: Simulation) -> tuple[TransactionColumns, np.ndarray]:
    """The whole stream as one batch, and the pattern of each row."""
    batches = list(Simulator(simulation).patterns())
    columns = [batch for batch, _ in batches]
    whole = TransactionColumns(
        transaction_id=[value for each in columns for value in each.transaction_id],
        card_id=[value for each in columns for value in each.card_id],
        terminal_id=[value for each in columns for value in each.terminal_id],
        event_time=np.concatenate([each.event_time for each in columns]),
        amount_minor=np.concatenate([each.amount_minor for each in columns]),
        currency=[value for each in columns for value in each.currency],
        fraud=np.concatenate([each.fraud for each in columns if each.fraud is not None]),
        labelled_at=np.concatenate([each.labelled_at for each in columns if each.labelled_at is not None]),
        texts={n: [v for each in columns for v in each.texts[n]] for n in ("mcc", "country", "channel")},
    )
    return whole, np.concatenate([pattern for _, pattern in batches])


@pytest.fixture(scope="module")
def stream() -> tuple[TransactionColumns, np.ndarray]:
    return joined(WORLD)


def test_equal_settings_give_equal_streams_and_another_seed_another(
    stream: tuple[TransactionColumns, np.ndarray],
) -> None:
    """The stream is a function of its settings."""
    again, _ = joined(WORLD)
    other, _ = joined(Simulation(seed=4, transactions=120_000, cards=1_500, terminals=3_000, days=60))
    for name in NAMES:
        assert getattr(again, name) == getattr(stream[0], name)
    for name in ARRAYS:
        np.testing.assert_array_equal(getattr(again, name), getattr(stream[0], name))
    assert not set(other.transaction_id) & set(again.transaction_id)
    assert not set(other.card_id) & set(again.card_id)


def test_the_stream_is_in_order_complete_and_of_the_stated_density(
    stream: tuple[TransactionColumns, np.ndarray],
) -> None:
    """Exactly the asked number of rows, in event order, within the asked days, evenly over them."""
    columns, _ = stream
    times = columns.event_time
    assert len(columns) == len(set(columns.transaction_id)) == 120_000
    assert np.all(np.diff(times) >= 0)
    assert times[0] >= WORLD.start
    assert times[-1] < WORLD.end
    per_day = np.bincount((times - WORLD.start) // DAY, minlength=60)
    assert per_day.min() > 1_800
    assert per_day.max() < 2_200
    hours = np.bincount((times % DAY) // HOUR, minlength=24)
    assert hours[3] < hours[12] / 10


def test_rows_are_valid_transactions(stream: tuple[TransactionColumns, np.ndarray]) -> None:
    """Amounts are positive, ids are tokens and no card numbers, optional fields are well formed."""
    columns, _ = stream
    assert columns.amount_minor.min() > 0
    assert 1_000 < np.median(columns.amount_minor) < 10_000
    assert not any(map(is_card_number, set(columns.card_id)))
    assert len(set(columns.card_id)) > 1_400
    assert {len(mcc or "") for mcc in columns.texts["mcc"]} == {4}
    assert len(set(columns.texts["country"])) == 12


def test_every_pattern_of_fraud_occurs_and_looks_like_it(
    stream: tuple[TransactionColumns, np.ndarray],
) -> None:
    """About one percent is fraud, by all four patterns, each with its mark."""
    columns, pattern = stream
    assert columns.fraud is not None
    np.testing.assert_array_equal(columns.fraud, pattern != GENUINE)
    assert 0.006 < columns.fraud.mean() < 0.015
    counts = np.bincount(pattern, minlength=5)
    assert counts[1:].min() > 30
    amount = columns.amount_minor
    assert amount[pattern == LARGE].min() > 20_000
    assert np.median(amount[pattern == CARD]) > 2 * np.median(amount[pattern == GENUINE])
    assert np.median(amount[pattern == TESTING]) < 300
    terminals = np.array(columns.terminal_id)
    hit = set(terminals[pattern == TERMINAL])
    rows = np.isin(terminals, list(hit))
    assert np.mean(pattern[rows] == TERMINAL) > 0.1


def test_card_testing_is_a_burst_on_one_card_and_terminal(
    stream: tuple[TransactionColumns, np.ndarray],
) -> None:
    """Tiny purchases follow each other within minutes, and a large one ends them."""
    columns, pattern = stream
    rows = np.flatnonzero(pattern == TESTING)
    bursts: dict[tuple[str, str], list[int]] = {}
    for row in rows.tolist():
        bursts.setdefault((columns.card_id[row], columns.terminal_id[row]), []).append(row)
    sizes = [len(burst) for burst in bursts.values()]
    assert min(sizes) >= 5
    for burst in bursts.values():
        if len(burst) <= 15:
            assert columns.event_time[burst[-1]] - columns.event_time[burst[0]] < 20 * MINUTE
            assert columns.amount_minor[burst[-1]] > 5_000


def test_frauds_are_reported_late_and_not_all(stream: tuple[TransactionColumns, np.ndarray]) -> None:
    """Reports come after the transaction with the stated median delay; genuine rows have none."""
    columns, _ = stream
    assert columns.fraud is not None
    assert columns.labelled_at is not None
    assert np.all(columns.labelled_at[~columns.fraud] == NEVER)
    reported = columns.labelled_at != NEVER
    assert 0.93 < reported[columns.fraud].mean() < 1.0
    delay = columns.labelled_at[reported] - columns.event_time[reported]
    assert delay.min() > 0
    assert np.median(delay) == pytest.approx(5 * DAY, rel=0.1)


def test_drift_changes_the_second_half_only() -> None:
    """Before the middle the drifting stream is the steady one; after it behaviour has changed."""
    settings = Simulation(seed=3, transactions=200_000, cards=1_500, terminals=3_000, days=60)
    steady, steady_pattern = joined(settings)
    drifting, drifting_pattern = joined(replace(settings, drift=True))
    half = 100_000
    np.testing.assert_array_equal(steady.amount_minor[:half], drifting.amount_minor[:half])
    assert steady.card_id[:half] == drifting.card_id[:half]
    genuine = drifting_pattern[half:] == GENUINE
    steady_median = np.median(steady.amount_minor[half:][steady_pattern[half:] == GENUINE])
    assert np.median(drifting.amount_minor[half:][genuine]) == pytest.approx(1.3 * steady_median, rel=0.05)
    assert np.sum(drifting_pattern[half:] == TESTING) > 2 * np.sum(steady_pattern[half:] == TESTING)


def test_a_small_stream_and_a_wrong_one() -> None:
    """One transaction is a stream; none is an error."""
    (batch,) = Simulator(Simulation(transactions=1)).batches()
    assert len(batch) == 1
    with pytest.raises(ValueError):
        Simulation(transactions=0)
