"""Compiled loops of the window store, over flat arrays that `models/windows.py` owns and sizes before each
call.

A key's events are sorted by (time, order of arrival) and stored in chunks of `CHUNK`, linked from newest to
oldest; all chunks but the newest are full. A scan from "now" backwards meets every window boundary once,
appending is the common case, and expiry drops whole chunks at the old end. Known frauds of a key are a linked
list, newest event first. Kernels call helpers of this file only (see `models/jit.py`).
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from models.arrays import Bools, Floats, Ints, Ints32, Words, Words32
from models.jit import inlined, kernel

CHUNK = 8
DAY = 86_400_000

# Columns of `Table.slots`: newest chunk, number of events, first fraud; -1 for none.
TAIL, COUNT, FRAUD = 0, 1, 2

# Entries of the scalar state. A free list is a first item, items ever used, items on the list.
FREE, USED, SPARE, FRAUD_FREE, FRAUD_USED, FRAUD_SPARE = 0, 1, 2, 3, 4, 5
KEYS, TRUNCATED, FRAUDS_DROPPED, CURSOR, EPOCH, WATERMARK, STATE_SIZE = 6, 7, 8, 9, 10, 11, 12

# Entries of `Plan.limits`: milliseconds, except CAP, the events (and frauds) of a key.
LATENESS, RETENTION, KNOWN_RETENTION, CAP, DELAY, SINCE_CAP, SINCE_FRAUD_CAP = 0, 1, 2, 3, 4, 5, 6
# How old an event can be and still count for a run of frauds; 0 where runs are not wanted.
RUN_REACH, LIMITS_SIZE = 7, 8

# Kinds of output column.
K_COUNT, K_SUM, K_MEAN, K_STD, K_MAX, K_OVER_MEAN, K_SINCE, K_DISTINCT = 0, 1, 2, 3, 4, 5, 6, 7
K_RISK, K_RISK_COUNT, K_KNOWN, K_SINCE_FRAUD = 8, 9, 10, 11
K_RUN, K_DAYS_RUN, K_BEFORE_RUN, K_GENUINE_SINCE, K_SINCE_OUTCOME = 12, 13, 14, 15, 16
RUN_KINDS = (K_RUN, K_DAYS_RUN, K_BEFORE_RUN, K_GENUINE_SINCE, K_SINCE_OUTCOME)

# Rows of the accumulators, one column per window.
A_COUNT, A_MATURE, A_FRAUDS, A_KNOWN, A_DISTINCT = 0, 1, 2, 3, 4
A_SUM, A_SHIFTED, A_SQUARES, A_MAX = 0, 1, 2, 3

# What is known of a row's latest run of frauds; days and ages are -1 for none.
R_LENGTH, R_DAYS, R_BEFORE, R_GENUINE, R_OUTCOME, RUN_SIZE = 0, 1, 2, 3, 4, 5

_MIX = np.uint64(0x9E3779B97F4A7C15)
_HALF = np.uint64(32)
_ONE = np.uint64(1)
_NONE = np.uint64(0)
_LOW = np.uint64(0xFFFFFFFF)


class Table(NamedTuple):
    """Open-addressing hash table with linear probing; key 0 marks a free place."""

    keys: Words
    slots: Ints32


class Events(NamedTuple):
    """Events: [chunk, place], tags [chunk, word, place]; `prev` is the next older (or next free) chunk."""

    times: Ints
    amounts: Floats
    tags: Words32
    prev: Ints32


class Frauds(NamedTuple):
    """Known frauds, each a node of its key's list or of the free list."""

    times: Ints
    known_at: Ints
    ids: Words
    next: Ints32


class Plan(NamedTuple):
    """What to compute.

    `columns` has rows (kind, window index, tag index); tag k takes `words[k]` 32-bit words, and its distinct
    count is wanted up to window `reach[k]`.
    """

    windows: Ints
    risk_windows: Ints
    known_windows: Ints
    limits: Ints
    columns: Ints
    words: Ints
    reach: Ints


class Scratch(NamedTuple):
    """One hash set per tag, [tag, place]; raising the epoch empties it."""

    values: Words
    stamps: Ints


class Rows(NamedTuple):
    """Columns of a batch, as `WindowStore.update` takes them."""

    keys: Words
    times: Ints
    amounts: Floats
    tags: Words
    insert: Bools
    watermarks: Ints


@kernel
def home(key: np.uint64, capacity: int) -> int:
    """The preferred place of a key: a multiplicative hash scaled to the capacity (any size below 2**31)."""
    mixed = (key * _MIX) >> _HALF
    return int(np.int64((mixed * np.uint64(capacity)) >> _HALF))


@kernel
def find(keys: Words, key: np.uint64) -> int:
    """Index of the key, or -1 - (index where it would go)."""
    capacity = keys.shape[0]
    i = home(key, capacity)
    while True:
        held = keys[i]
        if held == key:
            return i
        if held == _NONE:
            return -1 - i
        i += 1
        if i == capacity:
            i = 0


@kernel
def claim(table: Table, state: Ints, place: int, key: np.uint64) -> None:
    table.keys[place] = key
    table.slots[place, TAIL] = -1
    table.slots[place, COUNT] = 0
    table.slots[place, FRAUD] = -1
    state[KEYS] += 1


@kernel
def remove(table: Table, state: Ints, place: int) -> None:
    """Delete an entry and close the gap, so that probing needs no tombstones."""
    keys, slots = table
    capacity = keys.shape[0]
    state[KEYS] -= 1
    gap = place
    j = place
    while True:
        j += 1
        if j == capacity:
            j = 0
        if keys[j] == _NONE:
            break
        h = home(keys[j], capacity)
        stays = (gap < h and h <= j) if gap < j else (gap < h or h <= j)
        if not stays:
            keys[gap] = keys[j]
            for c in range(3):
                slots[gap, c] = slots[j, c]
            gap = j
    keys[gap] = _NONE


@kernel
def rehash(old: Table, new: Table) -> None:
    for i in range(old.keys.shape[0]):
        if old.keys[i] != _NONE:
            j = -1 - find(new.keys, old.keys[i])
            new.keys[j] = old.keys[i]
            for c in range(3):
                new.slots[j, c] = old.slots[i, c]


@kernel
def take_chunk(prev: Ints32, state: Ints) -> int:
    chunk = state[FREE]
    if chunk >= 0:
        state[FREE] = prev[chunk]
        state[SPARE] -= 1
    else:
        chunk = state[USED]
        state[USED] += 1
    return int(chunk)


@kernel
def release_chunks(prev: Ints32, state: Ints, first: int) -> int:
    """Put a chunk and all older ones on the free list; returns how many."""
    released = 0
    chunk = first
    while chunk >= 0:
        older = int(prev[chunk])
        prev[chunk] = state[FREE]
        state[FREE] = chunk
        chunk = older
        released += 1
    state[SPARE] += released
    return released


@kernel
def take_fraud(following: Ints32, state: Ints) -> int:
    node = state[FRAUD_FREE]
    if node >= 0:
        state[FRAUD_FREE] = following[node]
        state[FRAUD_SPARE] -= 1
    else:
        node = state[FRAUD_USED]
        state[FRAUD_USED] += 1
    return int(node)


@kernel
def release_fraud(table: Table, frauds: Frauds, state: Ints, place: int, before: int, node: int) -> None:
    """Unlink a fraud from the list of a key, in which `before` (-1: nothing) precedes it."""
    if before < 0:
        table.slots[place, FRAUD] = frauds.next[node]
    else:
        frauds.next[before] = frauds.next[node]
    frauds.next[node] = state[FRAUD_FREE]
    state[FRAUD_FREE] = node
    state[FRAUD_SPARE] += 1


@kernel
def trim(events: Events, state: Ints, tail: int, horizon: int, cap: int) -> int:
    """Drop the full chunks behind `tail` whose events are all forgotten or beyond the cap; how many."""
    newer = tail
    chunk = int(events.prev[tail])
    behind = 0
    while chunk >= 0:
        if behind >= cap or events.times[chunk, CHUNK - 1] <= horizon:
            events.prev[newer] = -1
            c = chunk
            while c >= 0:
                for e in range(CHUNK):
                    if events.times[c, e] > horizon:
                        state[TRUNCATED] += 1
                c = int(events.prev[c])
            return release_chunks(events.prev, state, chunk)
        behind += CHUNK
        newer = chunk
        chunk = int(events.prev[chunk])
    return 0


@inlined
def insert_row(
    table: Table, events: Events, plan: Plan, state: Ints, place: int, rows: Rows, r: int, horizon: int
) -> None:
    """Put an event at its place: after all events of its key with the same or an earlier time."""
    time = rows.times[r]
    count = int(table.slots[place, COUNT])
    chunk = int(table.slots[place, TAIL])
    e = count % CHUNK
    if e == 0:
        older = chunk
        chunk = take_chunk(events.prev, state)
        events.prev[chunk] = older
        table.slots[place, TAIL] = chunk
        count -= CHUNK * trim(events, state, chunk, horizon, plan.limits[CAP])
    table.slots[place, COUNT] = count + 1
    while True:
        before, b = chunk, e - 1
        if e == 0:
            before, b = int(events.prev[chunk]), CHUNK - 1
        if before < 0 or events.times[before, b] <= time:
            break
        events.times[chunk, e] = events.times[before, b]
        events.amounts[chunk, e] = events.amounts[before, b]
        for w in range(events.tags.shape[1]):
            events.tags[chunk, w, e] = events.tags[before, w, b]
        chunk, e = before, b
    amount = rows.amounts[r]
    events.times[chunk, e] = time
    events.amounts[chunk, e] = amount if np.isfinite(amount) else 0.0
    w = 0
    for k in range(plan.words.shape[0]):
        events.tags[chunk, w, e] = np.uint32(rows.tags[r, k] & _LOW)
        if plan.words[k] == 2:
            events.tags[chunk, w + 1, e] = np.uint32(rows.tags[r, k] >> _HALF)
        w += plan.words[k]


@kernel
def is_new(scratch: Scratch, k: int, tag: np.uint64, mask: np.uint64, epoch: int) -> bool:
    """Add a value to set k; False if it was there."""
    h = ((tag * _MIX) >> _HALF) & mask
    while True:
        p = np.int64(h)
        if scratch.stamps[k, p] != epoch:
            scratch.stamps[k, p] = epoch
            scratch.values[k, p] = tag
            return True
        if scratch.values[k, p] == tag:
            return False
        h = (h + _ONE) & mask


@kernel
def set_mask(held: int) -> np.uint64:
    """Size - 1 of a set for the values of `held` events and one more: a power of two, at most half full."""
    mask = np.uint64(7)
    while np.int64(mask) < 2 * held + 2:
        mask = (mask << _ONE) | _ONE
    return mask


@inlined
def close_window(
    ints: Ints, floats: Floats, j: int, n: int, total: float, shifted: float, squares: float, top: float
) -> None:
    """Keep what was accumulated up to the boundary of window j."""
    ints[A_COUNT, j] = n
    floats[A_SUM, j] = total
    floats[A_SHIFTED, j] = shifted
    floats[A_SQUARES, j] = squares
    floats[A_MAX, j] = top


@inlined
def scan_events(
    table: Table,
    events: Events,
    plan: Plan,
    scratch: Scratch,
    state: Ints,
    place: int,
    rows: Rows,
    r: int,
    amount: float,
    horizon: int,
    ints: Ints,
    floats: Floats,
) -> tuple[int, int]:
    """Accumulate the earlier events of each window of row r, newest first.

    Returns the ages of the latest one and of the latest as old as the risk delay; -1 for none.
    """
    n_windows, n_risk, n_tags = plan.windows.shape[0], plan.risk_windows.shape[0], plan.words.shape[0]
    time = rows.times[r]
    cap, delay = plan.limits[CAP], plan.limits[DELAY]
    held = int(table.slots[place, COUNT]) if place >= 0 else 0
    chunk = int(table.slots[place, TAIL]) if place >= 0 else -1

    state[EPOCH] += 1
    epoch = state[EPOCH]
    mask = set_mask(min(held, cap))
    reach = -1
    for k in range(n_tags):
        reach = max(reach, plan.reach[k])
        tag = rows.tags[r, k]
        if plan.words[k] == 1:
            tag &= _LOW
        present = tag != _NONE and is_new(scratch, k, tag, mask, epoch)
        for j in range(n_windows):
            ints[A_DISTINCT + k, j] = 1 if present else 0

    n, n_mature, since, since_outcome = 0, 0, -1, -1
    total, shifted, squares, top = 0.0, 0.0, 0.0, amount
    j, jr = 0, 0
    edge = plan.windows[0]
    risk_edge = delay + plan.risk_windows[0] if n_risk else -1
    position = 0
    e = (held - 1) % CHUNK
    scanning = True
    while scanning and chunk >= 0:
        while e >= 0:
            event_time = events.times[chunk, e]
            position += 1
            if position > cap or event_time <= horizon:
                scanning = False
                break
            age = time - event_time
            if age >= 0:
                while j < n_windows and age >= edge:
                    close_window(ints, floats, j, n, total, shifted, squares, top)
                    j += 1
                    if j < n_windows:
                        edge = plan.windows[j]
                        for k in range(n_tags):
                            ints[A_DISTINCT + k, j] = ints[A_DISTINCT + k, j - 1]
                while jr < n_risk and age >= risk_edge:
                    ints[A_MATURE, jr] = n_mature
                    jr += 1
                    if jr < n_risk:
                        risk_edge = delay + plan.risk_windows[jr]
                if j == n_windows and jr == n_risk:
                    scanning = False
                    break
                if since < 0:
                    since = age
                if age >= delay:
                    n_mature += 1
                    if since_outcome < 0:
                        since_outcome = age
                if j < n_windows:
                    x = events.amounts[chunk, e]
                    n += 1
                    total += x
                    d = x - amount
                    shifted += d
                    squares += d * d
                    top = max(top, x)
                    if j <= reach:
                        w = 0
                        for k in range(n_tags):
                            if j <= plan.reach[k]:
                                tag = np.uint64(events.tags[chunk, w, e])
                                if plan.words[k] == 2:
                                    tag |= np.uint64(events.tags[chunk, w + 1, e]) << _HALF
                                if tag != _NONE and is_new(scratch, k, tag, mask, epoch):
                                    ints[A_DISTINCT + k, j] += 1
                            w += plan.words[k]
            e -= 1
        chunk = int(events.prev[chunk])
        e = CHUNK - 1
    while j < n_windows:
        close_window(ints, floats, j, n, total, shifted, squares, top)
        j += 1
        if j < n_windows:
            for k in range(n_tags):
                ints[A_DISTINCT + k, j] = ints[A_DISTINCT + k, j - 1]
    while jr < n_risk:
        ints[A_MATURE, jr] = n_mature
        jr += 1
    return since, since_outcome


@inlined
def scan_frauds(
    table: Table,
    frauds: Frauds,
    plan: Plan,
    place: int,
    time: int,
    horizon: int,
    known_horizon: int,
    ints: Ints,
) -> int:
    """Count the known frauds of each window; returns how long ago the last became known, or -1."""
    n_risk, n_known = plan.risk_windows.shape[0], plan.known_windows.shape[0]
    delay = plan.limits[DELAY]
    for k in range(n_risk):
        ints[A_FRAUDS, k] = 0
    for k in range(n_known):
        ints[A_KNOWN, k] = 0
    last = -1
    node = int(table.slots[place, FRAUD]) if place >= 0 else -1
    while node >= 0:
        known_age = time - frauds.known_at[node]
        if known_age >= 0:
            age = time - frauds.times[node]
            if age >= delay and frauds.times[node] > horizon:
                for k in range(n_risk):
                    if age < delay + plan.risk_windows[k]:
                        ints[A_FRAUDS, k] += 1
            if frauds.known_at[node] > known_horizon:
                if last < 0 or known_age < last:
                    last = known_age
                for k in range(n_known):
                    if known_age < plan.known_windows[k]:
                        ints[A_KNOWN, k] += 1
        node = int(frauds.next[node])
    return last


@kernel
def next_known(frauds: Frauds, node: int, time: int, oldest: int) -> int:
    """From a node of a key's list on the first fraud that is known at `time` and happened after `oldest`; or
    -1.
    """
    while node >= 0 and (frauds.known_at[node] > time or frauds.times[node] > time):
        node = int(frauds.next[node])
    return node if node >= 0 and frauds.times[node] > oldest else -1


@kernel
def scan_run(
    table: Table,
    events: Events,
    frauds: Frauds,
    plan: Plan,
    place: int,
    time: int,
    horizon: int,
    run: Ints,
) -> None:
    """The latest run of known frauds: back from the newest one to where an event that is decided, and no
    fraud, lies between two of them. One pass over frauds and events, both newest first.

    Leaves `run` as it is where no fraud is known.
    """
    oldest = max(horizon, time - plan.limits[RUN_REACH])
    decided = time - plan.limits[DELAY]
    cap = plan.limits[CAP]
    node = next_known(frauds, int(table.slots[place, FRAUD]), time, oldest)
    if node < 0:
        return
    run[R_GENUINE] = 0
    newest = frauds.times[node]
    last = newest
    held = int(table.slots[place, COUNT])
    chunk = int(table.slots[place, TAIL])
    e = (held - 1) % CHUNK
    position = 0
    whole = False
    while not whole and chunk >= 0:
        while e >= 0:
            event_time = events.times[chunk, e]
            position += 1
            if position > cap or event_time <= oldest:
                whole = True
                break
            if event_time > newest:
                run[R_GENUINE] += event_time <= decided
            elif event_time <= decided:
                while node >= 0 and frauds.times[node] >= event_time:
                    last = frauds.times[node]
                    run[R_LENGTH] += 1
                    node = next_known(frauds, int(frauds.next[node]), time, oldest)
                if last > event_time:
                    run[R_DAYS] = time // DAY - last // DAY
                    run[R_BEFORE] = time - event_time
                    return
            e -= 1
        chunk = int(events.prev[chunk])
        e = CHUNK - 1
    while node >= 0:
        last = frauds.times[node]
        run[R_LENGTH] += 1
        node = next_known(frauds, int(frauds.next[node]), time, oldest)
    run[R_DAYS] = time // DAY - last // DAY


@inlined
def write_columns(
    plan: Plan,
    ints: Ints,
    floats: Floats,
    amount: float,
    since: int,
    since_fraud: int,
    run: Ints,
    out: Floats,
) -> None:
    """The features of one row from its accumulators."""
    limits = plan.limits
    for c in range(plan.columns.shape[0]):
        kind, k = plan.columns[c, 0], plan.columns[c, 1]
        n = ints[A_COUNT, k]
        total = floats[A_SUM, k]
        value = 0.0
        if kind == K_COUNT:
            value = float(n + 1)
        elif kind == K_SUM:
            value = total + amount
        elif kind == K_MEAN:
            value = (total + amount) / (n + 1)
        elif kind == K_STD:
            # Deviations from the current amount, which is in the window itself: conditioned at most `n` times
            # worse than the two-pass formula, in one pass without a division per event.
            mean = floats[A_SHIFTED, k] / (n + 1)
            value = np.sqrt(max(floats[A_SQUARES, k] / (n + 1) - mean * mean, 0.0))
        elif kind == K_MAX:
            value = floats[A_MAX, k]
        elif kind == K_OVER_MEAN:
            value = amount / (total / n) if n > 0 and total != 0.0 else 1.0
            if not np.isfinite(value):
                value = 1.0
        elif kind == K_SINCE:
            value = (since if 0 <= since < limits[SINCE_CAP] else limits[SINCE_CAP]) / 1000.0
        elif kind == K_DISTINCT:
            value = float(ints[A_DISTINCT + plan.columns[c, 2], k])
        elif kind == K_RISK:
            if ints[A_MATURE, k] > 0:
                value = min(ints[A_FRAUDS, k] / ints[A_MATURE, k], 1.0)
        elif kind == K_RISK_COUNT:
            value = float(ints[A_MATURE, k])
        elif kind == K_KNOWN:
            value = float(ints[A_KNOWN, k])
        elif kind == K_SINCE_FRAUD:
            cap = limits[SINCE_FRAUD_CAP]
            value = (since_fraud if 0 <= since_fraud < cap else cap) / 1000.0
        elif kind == K_RUN:
            value = float(run[R_LENGTH])
        elif kind == K_DAYS_RUN:
            value = float(run[R_DAYS] if run[R_DAYS] >= 0 else limits[RUN_REACH] // DAY + 1)
        elif kind == K_BEFORE_RUN:
            value = (run[R_BEFORE] if run[R_BEFORE] >= 0 else limits[RUN_REACH]) / 1000.0
        elif kind == K_GENUINE_SINCE:
            value = float(run[R_GENUINE])
        elif kind == K_SINCE_OUTCOME:
            value = (run[R_OUTCOME] if run[R_OUTCOME] >= 0 else limits[RUN_REACH]) / 1000.0
        out[c] = value if np.isfinite(value) else 0.0


@kernel
def process(
    table: Table,
    events: Events,
    frauds: Frauds,
    plan: Plan,
    scratch: Scratch,
    state: Ints,
    rows: Rows,
    out: Floats,
) -> None:
    """Rows in order: the features of each (unless `out` is empty), then its insertion."""
    n_windows = max(plan.windows.shape[0], plan.risk_windows.shape[0], plan.known_windows.shape[0])
    ints = np.zeros((A_DISTINCT + plan.words.shape[0], n_windows), np.int64)
    floats = np.zeros((4, n_windows))
    run = np.zeros(RUN_SIZE, np.int64)
    for r in range(rows.keys.shape[0]):
        key = rows.keys[r]
        oldest = rows.watermarks[r] - plan.limits[LATENESS]
        horizon = oldest - plan.limits[RETENTION]
        state[WATERMARK] = rows.watermarks[r]
        place = find(table.keys, key) if key != _NONE else -1
        if out.shape[0] > 0:
            amount = rows.amounts[r] if np.isfinite(rows.amounts[r]) else 0.0
            since, since_outcome = scan_events(
                table, events, plan, scratch, state, place, rows, r, amount, horizon, ints, floats
            )
            known_horizon = oldest - plan.limits[KNOWN_RETENTION]
            since_fraud = scan_frauds(table, frauds, plan, place, rows.times[r], horizon, known_horizon, ints)
            if plan.limits[RUN_REACH] > 0:
                run[R_LENGTH], run[R_DAYS], run[R_BEFORE] = 0, -1, -1
                run[R_GENUINE], run[R_OUTCOME] = ints[A_MATURE, plan.risk_windows.shape[0] - 1], since_outcome
                if place >= 0:
                    scan_run(table, events, frauds, plan, place, rows.times[r], horizon, run)
            write_columns(plan, ints, floats, amount, since, since_fraud, run, out[r])
        if rows.insert[r] and key != _NONE and rows.times[r] > horizon:
            if place < 0:
                place = -1 - place
                claim(table, state, place, key)
            insert_row(table, events, plan, state, place, rows, r, horizon)


@kernel
def prune_frauds(
    table: Table, frauds: Frauds, state: Ints, place: int, horizon: int, known_horizon: int
) -> int:
    """Free the frauds of a key that no window can see any more; returns how many stay."""
    kept = 0
    before = -1
    node = int(table.slots[place, FRAUD])
    while node >= 0:
        following = int(frauds.next[node])
        if frauds.times[node] <= horizon and frauds.known_at[node] <= known_horizon:
            release_fraud(table, frauds, state, place, before, node)
        else:
            before = node
            kept += 1
        node = following
    return kept


@kernel
def add_frauds(
    table: Table,
    frauds: Frauds,
    limits: Ints,
    state: Ints,
    keys: Words,
    times: Ints,
    known_at: Ints,
    ids: Words,
    fraud: Bools,
) -> None:
    """Remember or take back frauds by transaction; of two reports of one the earlier `known_at` counts."""
    horizon = state[WATERMARK] - limits[LATENESS] - limits[RETENTION]
    known_horizon = state[WATERMARK] - limits[LATENESS] - limits[KNOWN_RETENTION]
    for r in range(keys.shape[0]):
        if keys[r] == _NONE:
            continue
        place = find(table.keys, keys[r])
        kept, newer = 0, -1
        if place >= 0:
            kept = prune_frauds(table, frauds, state, place, horizon, known_horizon)
            before = -1
            node = int(table.slots[place, FRAUD])
            while node >= 0 and frauds.ids[node] != ids[r]:
                if frauds.times[node] > times[r]:
                    newer = node
                before = node
                node = int(frauds.next[node])
            if node >= 0:
                if fraud[r]:
                    frauds.known_at[node] = min(frauds.known_at[node], known_at[r])
                else:
                    release_fraud(table, frauds, state, place, before, node)
                continue
        if not fraud[r] or (times[r] <= horizon and known_at[r] <= known_horizon):
            continue
        if kept >= limits[CAP]:
            state[FRAUDS_DROPPED] += 1
            continue
        if place < 0:
            place = -1 - place
            claim(table, state, place, keys[r])
        node = take_fraud(frauds.next, state)
        frauds.times[node] = times[r]
        frauds.known_at[node] = known_at[r]
        frauds.ids[node] = ids[r]
        if newer < 0:
            frauds.next[node] = table.slots[place, FRAUD]
            table.slots[place, FRAUD] = node
        else:
            frauds.next[node] = frauds.next[newer]
            frauds.next[newer] = node


@kernel
def sweep(
    table: Table, events: Events, frauds: Frauds, limits: Ints, state: Ints, watermark: int, limit: int
) -> int:
    """Visit `limit` table entries from where the last call stopped; returns how many keys were freed."""
    horizon = watermark - limits[LATENESS] - limits[RETENTION]
    known_horizon = watermark - limits[LATENESS] - limits[KNOWN_RETENTION]
    keys, slots = table
    freed = 0
    i = int(state[CURSOR])
    for _ in range(limit):
        if i >= keys.shape[0]:
            i = 0
        if keys[i] != _NONE:
            count = int(slots[i, COUNT])
            if count == 0 or events.times[slots[i, TAIL], (count - 1) % CHUNK] <= horizon:
                release_chunks(events.prev, state, int(slots[i, TAIL]))
                slots[i, TAIL] = -1
                slots[i, COUNT] = 0
                if prune_frauds(table, frauds, state, i, horizon, known_horizon) == 0:
                    remove(table, state, i)
                    freed += 1
                    continue  # another key may have moved to this place
        i += 1
    state[CURSOR] = i
    return freed


@kernel
def discard(table: Table, events: Events, frauds: Frauds, state: Ints, keys: Words) -> None:
    """Forget keys altogether."""
    for r in range(keys.shape[0]):
        place = find(table.keys, keys[r])
        if place >= 0:
            release_chunks(events.prev, state, int(table.slots[place, TAIL]))
            while table.slots[place, FRAUD] >= 0:
                release_fraud(table, frauds, state, place, -1, int(table.slots[place, FRAUD]))
            remove(table, state, place)


@kernel
def count_frauds(table: Table, frauds: Frauds, places: Ints) -> Ints:
    counts = np.zeros(places.shape[0], np.int64)
    for r in range(places.shape[0]):
        node = int(table.slots[places[r], FRAUD])
        while node >= 0:
            counts[r] += 1
            node = int(frauds.next[node])
    return counts


class Flat(NamedTuple):
    """State of some keys, one after the other: events oldest first, frauds in list order."""

    keys: Words
    counts: Ints
    fraud_counts: Ints
    times: Ints
    amounts: Floats
    tags: Words32
    fraud_times: Ints
    fraud_known_at: Ints
    fraud_ids: Words


@kernel
def gather(table: Table, events: Events, frauds: Frauds, places: Ints, flat: Flat) -> None:
    """Copy the state at some places of the table out."""
    at, fraud_at = 0, 0
    for r in range(places.shape[0]):
        chunk = int(table.slots[places[r], TAIL])
        for i in range(at + flat.counts[r] - 1, at - 1, -1):
            e = (i - at) % CHUNK
            flat.times[i] = events.times[chunk, e]
            flat.amounts[i] = events.amounts[chunk, e]
            for w in range(flat.tags.shape[1]):
                flat.tags[i, w] = events.tags[chunk, w, e]
            if e == 0:
                chunk = int(events.prev[chunk])
        at += flat.counts[r]
        node = int(table.slots[places[r], FRAUD])
        while node >= 0:
            flat.fraud_times[fraud_at] = frauds.times[node]
            flat.fraud_known_at[fraud_at] = frauds.known_at[node]
            flat.fraud_ids[fraud_at] = frauds.ids[node]
            fraud_at += 1
            node = int(frauds.next[node])


@kernel
def scatter(table: Table, events: Events, frauds: Frauds, state: Ints, flat: Flat) -> None:
    """The inverse of `gather`, for keys that are not in the table."""
    at, fraud_at = 0, 0
    for r in range(flat.keys.shape[0]):
        place = -1 - find(table.keys, flat.keys[r])
        claim(table, state, place, flat.keys[r])
        chunk = -1
        for i in range(flat.counts[r]):
            e = i % CHUNK
            if e == 0:
                older = chunk
                chunk = take_chunk(events.prev, state)
                events.prev[chunk] = older
            events.times[chunk, e] = flat.times[at + i]
            events.amounts[chunk, e] = flat.amounts[at + i]
            for w in range(flat.tags.shape[1]):
                events.tags[chunk, w, e] = flat.tags[at + i, w]
        table.slots[place, TAIL] = chunk
        table.slots[place, COUNT] = flat.counts[r]
        at += flat.counts[r]
        last = -1
        for _ in range(flat.fraud_counts[r]):
            node = take_fraud(frauds.next, state)
            frauds.times[node] = flat.fraud_times[fraud_at]
            frauds.known_at[node] = flat.fraud_known_at[fraud_at]
            frauds.ids[node] = flat.fraud_ids[fraud_at]
            frauds.next[node] = -1
            if last < 0:
                table.slots[place, FRAUD] = node
            else:
                frauds.next[last] = node
            last = node
            fraud_at += 1
