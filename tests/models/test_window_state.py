"""The window store's state: dumped, loaded, swept, and bounded for a key."""

from __future__ import annotations

import time as clock
from collections.abc import Callable

import numpy as np
import pytest

from models.spec import FeatureSpec
from models.spec_reading import DAY, HOUR
from models.windows import WindowStore
from tests.models.window_rows import card, cut_out, feed, fraud, random_batch


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
