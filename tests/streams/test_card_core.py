"""The card core: a state rebuilt from deltas or buckets gives the same features to the last bit."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from models.admission import ACCEPTED, DUPLICATE, LATE
from streams.stages.card_core import CardCore, CardState
from streams.stages.columns import Columns
from streams.stages.rows import from_history
from tests.streams.made_up import HOUR, RULES, SPEC, START, history, rows, transaction


def messages(n: int, seed: int) -> list[Columns]:
    """Four hours in batches of random sizes, every fifth transaction sent again half an hour later."""
    random = np.random.default_rng(seed)
    places = np.concatenate([np.arange(n), np.arange(0, n, 5) + n // 8])
    order = np.concatenate([np.arange(n), np.arange(0, n, 5)])[np.argsort(places, kind="stable")]
    columns = history(n, seed, hours=4).take(order)
    cuts = np.sort(random.choice(np.arange(1, len(order)), 12, replace=False))
    parts, first = [], 0
    for index in np.split(np.arange(len(order)), cuts):
        parts.append(from_history(columns.take(index), first, SPEC))
        first += len(index)
    return parts


def features(state: CardState, parts: list[Columns]) -> np.ndarray[tuple[int, ...], np.dtype[np.float64]]:
    core = CardCore(SPEC)
    return np.vstack(
        [core.process(state, Columns({}, dict(p.arrays), p.strings)).floats("features") for p in parts]
    )


@pytest.mark.parametrize("seed", range(4))
def test_a_restored_state_goes_on_as_the_first(seed: int) -> None:
    """From deltas as from buckets, at any point: the features of all later rows are bit-identical."""
    parts = messages(400, seed)
    cut = 3 + seed * 2
    first, followed = CardState(SPEC, RULES), CardState(SPEC, RULES)
    core = CardCore(SPEC)
    for part in parts[:cut]:
        core.process(first, part)
        followed.apply(first.delta(part, int(part.ints("offset")[-1]) + 1))
    loaded = CardState(SPEC, RULES)
    for bucket in range(first.buckets):
        loaded.load(bucket, first.dump(bucket))
    assert followed.next_offset == int(parts[cut - 1].ints("offset")[-1]) + 1
    expected = features(first, parts[cut:])
    np.testing.assert_array_equal(features(followed, parts[cut:]), expected)
    np.testing.assert_array_equal(features(loaded, parts[cut:]), expected)


@pytest.mark.parametrize("seed", range(4))
def test_buckets_written_at_different_times_restore_the_last_state(seed: int) -> None:
    """A checkpoint is written bucket by bucket between deltas, and restores the state of the last delta.

    The deltas from before it are gone, and the windows are read before the admission.
    """
    parts = messages(400, seed)
    state, core, log = CardState(SPEC, RULES), CardCore(SPEC), list[tuple[int, bytes]]()
    per_batch = -(-state.buckets // 6)
    for number, part in enumerate(parts):
        core.process(state, part)
        if number >= 4:
            log.append((-1, state.delta(part, number)))
        for bucket in range((number - 4) * per_batch, min((number - 3) * per_batch, state.buckets)):
            if bucket >= 0:
                log.append((bucket, state.dump(bucket)))
    restored = CardState(SPEC, RULES)
    for bucket, data in log:
        if bucket < 0:
            restored.apply(data)
        else:
            restored.load(bucket, data)
    later = history(200, seed + 100, hours=6)
    later.transaction_id[:] = [f"later-{name}" for name in later.transaction_id]
    more = [from_history(later, 10_000, SPEC)]
    np.testing.assert_array_equal(features(restored, more), features(state, more))


def test_other_time_limits_do_not_change_what_is_restored() -> None:
    """What was admitted under the former settings is restored as it was; what comes is under the new ones."""
    times = [START, START + 60 * HOUR, START + 1000, START + 2000]
    parts = [rows([transaction(n, n, 0, at)]) for n, at in enumerate(times)]
    former, restored = CardState(SPEC, RULES), CardState(SPEC, replace(RULES, watermark_jump_ms=99 * HOUR))
    for number, part in enumerate(parts):
        former.admit(part)
        restored.apply(former.delta(part, number + 1))
    assert restored.admission.watermark == former.admission.watermark == START + 2000
    restored.admit(rows([transaction(9, 9, 0, START + 90 * HOUR)]))
    assert restored.admission.watermark == START + 90 * HOUR


def test_status_decides_what_windows_see() -> None:
    """A duplicate is left out, a late row is scored but not counted by those after it."""
    state, core = CardState(SPEC, RULES), CardCore(SPEC)
    batch = rows(
        [
            transaction(1, 1, 1, START + 5 * HOUR),
            transaction(1, 1, 1, START + 5 * HOUR),
            transaction(2, 1, 1, START + 3 * HOUR),
            transaction(3, 1, 1, START + 5 * HOUR + 1),
        ]
    )
    result = core.process(state, batch)
    assert batch.codes("status").tolist() == [ACCEPTED, DUPLICATE, LATE, ACCEPTED]
    assert result.strings["transaction_id"] == ["t1", "t2", "t3"]
    count = SPEC.names.index("card_count_24h")
    assert result.floats("features")[:, count].tolist() == [1, 1, 2]
