"""The window store's features: where windows begin and end, risk and runs of frauds, any amount."""

from __future__ import annotations

import statistics

import numpy as np
import pytest

from models.spec_reading import DAY, HOUR
from models.windows import WindowStore
from tests.models.window_rows import card, feed, fraud, random_batch


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


def test_columns_are_the_same_whatever_else_is_computed() -> None:
    """A spec with chosen windows per aggregate gives the same columns as the full one of the same names."""
    full = card(["1h", "24h", "7d"], ["count", "mean", "std", "distinct_terminals", "distinct_cards"])
    part = card(["1h", "24h", "7d"], {"distinct_cards": ["24h"], "std": ["7d"], "count": ["1h", "7d"]})
    batch = random_batch(np.random.default_rng(5), full, rows=3000, keys=20, span=9 * DAY)
    whole = WindowStore(full, lateness_ms=HOUR).update(*batch)
    some = WindowStore(part, lateness_ms=HOUR).update(*batch[:3], batch[3][:, 1:], *batch[4:])
    chosen = [full.names.index(name) for name in part.names]
    np.testing.assert_array_equal(some, whole[:, chosen])


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
