"""Compiled loops of the window store, over flat arrays. `models/windows.py` owns the arrays and sizes them before each call.

Layout. `keys` is an open-addressing hash table (linear probing, 0 = free) and `slots[i]` belongs to `keys[i]`: newest chunk, number of
events, first fraud. Events of a key are sorted by (time, order of arrival) in chunks of `CHUNK`, linked from newest to oldest by
`prev`; all chunks but the newest are full. So a scan from "now" backwards meets every window boundary once, appending is the
common case, and expiry drops whole chunks at the old end. Known frauds of a key are a linked list. `state` holds the scalars.
"""

from __future__ import annotations

import numpy as np

from models.arrays import Bools, Floats, Ints, Ints32, Words, Words32
from models.jit import kernel

CHUNK = 8

# Columns of `slots`.
TAIL, COUNT, FRAUD = 0, 1, 2

# Entries of `state`.
FREE, USED, SPARE = 0, 1, 2  # chunk free list, chunks ever used, chunks on the free list
FRAUD_FREE, FRAUD_USED, FRAUD_SPARE = 3, 4, 5
KEYS, TRUNCATED, FRAUDS_DROPPED, CURSOR, EPOCH, NEWEST_WATERMARK = 6, 7, 8, 9, 10, 11
STATE_SIZE = 12

# Entries of `limits`.
LATENESS, RETENTION, KNOWN_RETENTION, CAP, DELAY, SINCE_CAP, SINCE_FRAUD_CAP = 0, 1, 2, 3, 4, 5, 6

# Kinds of output column: rows of `plan` are (kind, window index, tag index).
K_COUNT, K_SUM, K_MEAN, K_STD, K_MAX, K_OVER_MEAN, K_SINCE, K_DISTINCT = 0, 1, 2, 3, 4, 5, 6, 7
K_RISK, K_RISK_COUNT, K_KNOWN, K_SINCE_FRAUD = 8, 9, 10, 11

_MIX = np.uint64(0x9E3779B97F4A7C15)
_HALF = np.uint64(32)


@kernel
def home(key: np.uint64, capacity: int) -> int:
    """The preferred place of a key: a multiplicative hash scaled to the capacity (any size below 2**31)."""
    mixed = (key * _MIX) >> _HALF
    return np.int64((mixed * np.uint64(capacity)) >> _HALF)


@kernel
def find(keys: Words, key: np.uint64) -> int:
    """Index of the key, or -1 - (index where it would go)."""
    capacity = keys.shape[0]
    i = home(key, capacity)
    while True:
        held = keys[i]
        if held == key:
            return i
        if held == np.uint64(0):
            return -1 - i
        i += 1
        if i == capacity:
            i = 0


@kernel
def claim(keys: Words, slots: Ints32, state: Ints, i: int, key: np.uint64) -> None:
    keys[i] = key
    slots[i, TAIL] = -1
    slots[i, COUNT] = 0
    slots[i, FRAUD] = -1
    state[KEYS] += 1


@kernel
def remove(keys: Words, slots: Ints32, state: Ints, i: int) -> None:
    """Delete a table entry and close the gap, so that probing needs no tombstones."""
    capacity = keys.shape[0]
    state[KEYS] -= 1
    j = i
    while True:
        j += 1
        if j == capacity:
            j = 0
        if keys[j] == np.uint64(0):
            break
        h = home(keys[j], capacity)
        stays = (i < h <= j) if i < j else (h > i or h <= j)
        if not stays:
            keys[i] = keys[j]
            for c in range(3):
                slots[i, c] = slots[j, c]
            i = j
    keys[i] = np.uint64(0)


@kernel
def rehash(keys: Words, slots: Ints32, new_keys: Words, new_slots: Ints32) -> None:
    for i in range(keys.shape[0]):
        if keys[i] != np.uint64(0):
            j = -1 - find(new_keys, keys[i])
            new_keys[j] = keys[i]
            for c in range(3):
                new_slots[j, c] = slots[i, c]


@kernel
def take_chunk(prev: Ints32, state: Ints) -> int:
    chunk = state[FREE]
    if chunk >= 0:
        state[FREE] = prev[chunk]
        state[SPARE] -= 1
        return chunk
    chunk = state[USED]
    state[USED] += 1
    return chunk


@kernel
def release_chunks(prev: Ints32, state: Ints, chunk: int) -> int:
    """Put a chunk and all older ones on the free list; returns how many."""
    released = 0
    while chunk >= 0:
        older = prev[chunk]
        prev[chunk] = state[FREE]
        state[FREE] = chunk
        chunk = older
        released += 1
    state[SPARE] += released
    return released


@kernel
def trim(times: Ints, prev: Ints32, state: Ints, horizon: int, cap: int, tail: int) -> int:
    """Drop the full chunks behind `tail` whose events are all forgotten or beyond the cap; returns how many."""
    newer = tail
    chunk = prev[tail]
    events = 0
    while chunk >= 0:
        if events >= cap or times[chunk, CHUNK - 1] <= horizon:
            prev[newer] = -1
            c = chunk
            while c >= 0:
                for e in range(CHUNK):
                    if times[c, e] > horizon:
                        state[TRUNCATED] += 1
                c = prev[c]
            return release_chunks(prev, state, chunk)
        events += CHUNK
        newer = chunk
        chunk = prev[chunk]
    return 0


@kernel
def insert_event(
    slots: Ints32, times: Ints, amounts: Floats, tags: Words32, prev: Ints32, state: Ints,
    slot: int, time: int, amount: float, row_tags: Words, words: Ints, horizon: int, cap: int,
) -> None:
    """Put an event at its place: after all events with the same or an earlier time."""
    count = slots[slot, COUNT]
    e = count % CHUNK
    c = np.int64(slots[slot, TAIL])
    if e == 0:
        older = c
        c = take_chunk(prev, state)
        prev[c] = older
        slots[slot, TAIL] = c
        count -= CHUNK * trim(times, prev, state, horizon, cap, c)
    n_words = tags.shape[1]
    while True:
        pc, pe = c, e - 1
        if e == 0:
            pc, pe = np.int64(prev[c]), CHUNK - 1
        if pc < 0 or times[pc, pe] <= time:
            break
        times[c, e] = times[pc, pe]
        amounts[c, e] = amounts[pc, pe]
        for w in range(n_words):
            tags[c, w, e] = tags[pc, w, pe]
        c, e = pc, pe
    times[c, e] = time
    amounts[c, e] = amount
    w = 0
    for k in range(row_tags.shape[0]):
        tag = row_tags[k]
        if words[k] == 2:
            tags[c, w, e] = np.uint32(tag)
            tags[c, w + 1, e] = np.uint32(tag >> _HALF)
            w += 2
        else:
            tags[c, w, e] = np.uint32(tag)
            w += 1
    slots[slot, COUNT] = count + 1


@kernel
def process(
    keys: Words, slots: Ints32, times: Ints, amounts: Floats, tags: Words32, prev: Ints32,
    fraud_event: Ints, fraud_known: Ints, fraud_next: Ints32, state: Ints,
    scratch: Words, stamps: Ints,
    windows: Ints, risk_windows: Ints, known_windows: Ints, limits: Ints, plan: Ints, words: Ints, reach: Ints,
    row_keys: Words, row_times: Ints, row_amounts: Floats, row_tags: Words, row_insert: Bools, row_watermarks: Ints,
    compute: bool, out: Floats,
) -> None:
    """Rows in order: the features of each before it is inserted, then its insertion.

    `words[k]` is how many 32-bit words tag k takes, `reach[k]` the last window whose distinct count of it is wanted. `scratch` and
    `stamps` are a set that is emptied by raising the epoch.
    """
    n_windows = windows.shape[0]
    n_risk = risk_windows.shape[0]
    n_known = known_windows.shape[0]
    n_tags = words.shape[0]
    count = np.zeros(n_windows, np.int64)
    total = np.zeros(n_windows)
    shifted = np.zeros(n_windows)
    squares = np.zeros(n_windows)
    largest = np.zeros(n_windows)
    distinct = np.zeros((n_tags, n_windows), np.int64)
    seen = np.zeros(n_tags, np.int64)
    mature = np.zeros(n_risk, np.int64)
    frauds = np.zeros(n_risk, np.int64)
    known = np.zeros(n_known, np.int64)
    delay = limits[DELAY]
    cap = limits[CAP]
    epoch = state[EPOCH]

    for r in range(row_keys.shape[0]):
        key = row_keys[r]
        time = row_times[r]
        amount = row_amounts[r]
        if not np.isfinite(amount):
            amount = 0.0
        horizon = row_watermarks[r] - limits[LATENESS] - limits[RETENTION]
        known_horizon = row_watermarks[r] - limits[LATENESS] - limits[KNOWN_RETENTION]
        if row_watermarks[r] > state[NEWEST_WATERMARK]:
            state[NEWEST_WATERMARK] = row_watermarks[r]
        slot = -1
        if key != np.uint64(0):
            slot = find(keys, key)

        if compute:
            n = 0
            n_mature = 0
            sum_before = 0.0
            s = 0.0
            q = 0.0
            top = amount
            since = np.int64(-1)
            j = 0
            jr = 0
            held = 0
            chunk = np.int64(-1)
            if slot >= 0:
                held = slots[slot, COUNT]
                chunk = np.int64(slots[slot, TAIL])
            mask = np.uint64(7)
            if n_tags > 0:
                want = 2 * min(held, cap) + 2
                while np.int64(mask) < want:
                    mask = (mask << np.uint64(1)) | np.uint64(1)
            for k in range(n_tags):
                seen[k] = 0
                tag = row_tags[r, k]
                if words[k] == 1:
                    tag &= np.uint64(0xFFFFFFFF)
                if tag != np.uint64(0):
                    seen[k] = 1
                    h = (tag * _MIX >> _HALF) & mask
                    base = k * (scratch.shape[0] // n_tags)
                    scratch[base + np.int64(h)] = tag
                    stamps[base + np.int64(h)] = epoch + 1
            epoch += 1

            position = 0
            e = (held - 1) % CHUNK
            done = False
            while chunk >= 0 and not done:
                while e >= 0:
                    event_time = times[chunk, e]
                    position += 1
                    if position > cap or event_time <= horizon:
                        done = True
                        break
                    age = time - event_time
                    if age >= 0:
                        while j < n_windows and age >= windows[j]:
                            count[j] = n
                            total[j] = sum_before
                            shifted[j] = s
                            squares[j] = q
                            largest[j] = top
                            for k in range(n_tags):
                                distinct[k, j] = seen[k]
                            j += 1
                        while jr < n_risk and age >= delay + risk_windows[jr]:
                            mature[jr] = n_mature
                            jr += 1
                        if j == n_windows and jr == n_risk:
                            done = True
                            break
                        if since < 0:
                            since = age
                        if age >= delay:
                            n_mature += 1
                        if j < n_windows:
                            x = amounts[chunk, e]
                            n += 1
                            sum_before += x
                            d = x - amount
                            s += d
                            q += d * d
                            if x > top:
                                top = x
                            w = 0
                            for k in range(n_tags):
                                if j <= reach[k]:
                                    tag = np.uint64(tags[chunk, w, e])
                                    if words[k] == 2:
                                        tag |= np.uint64(tags[chunk, w + 1, e]) << _HALF
                                    if tag != np.uint64(0):
                                        base = k * (scratch.shape[0] // n_tags)
                                        h = (tag * _MIX >> _HALF) & mask
                                        while True:
                                            p = base + np.int64(h)
                                            if stamps[p] != epoch:
                                                stamps[p] = epoch
                                                scratch[p] = tag
                                                seen[k] += 1
                                                break
                                            if scratch[p] == tag:
                                                break
                                            h = (h + np.uint64(1)) & mask
                                w += words[k]
                    e -= 1
                chunk = np.int64(prev[chunk])
                e = CHUNK - 1
            while j < n_windows:
                count[j] = n
                total[j] = sum_before
                shifted[j] = s
                squares[j] = q
                largest[j] = top
                for k in range(n_tags):
                    distinct[k, j] = seen[k]
                j += 1
            while jr < n_risk:
                mature[jr] = n_mature
                jr += 1

            last_known = np.int64(-1)
            for k in range(n_risk):
                frauds[k] = 0
            for k in range(n_known):
                known[k] = 0
            if slot >= 0:
                node = np.int64(slots[slot, FRAUD])
                while node >= 0:
                    known_age = time - fraud_known[node]
                    if known_age >= 0:
                        age = time - fraud_event[node]
                        if age >= delay and fraud_event[node] > horizon:
                            for k in range(n_risk):
                                if age < delay + risk_windows[k]:
                                    frauds[k] += 1
                        if fraud_known[node] > known_horizon:
                            if last_known < 0 or known_age < last_known:
                                last_known = known_age
                            for k in range(n_known):
                                if known_age < known_windows[k]:
                                    known[k] += 1
                    node = np.int64(fraud_next[node])

            for c in range(plan.shape[0]):
                kind = plan[c, 0]
                k = plan[c, 1]
                value = 0.0
                if kind == K_COUNT:
                    value = float(count[k] + 1)
                elif kind == K_SUM:
                    value = total[k] + amount
                elif kind == K_MEAN:
                    value = (total[k] + amount) / (count[k] + 1)
                elif kind == K_STD:
                    # Deviations from the current amount, itself in the window: at most `count` times worse
                    # conditioned than the two-pass formula, in one pass without a division per event.
                    m = shifted[k] / (count[k] + 1)
                    value = np.sqrt(max(squares[k] / (count[k] + 1) - m * m, 0.0))
                elif kind == K_MAX:
                    value = largest[k]
                elif kind == K_OVER_MEAN:
                    value = 1.0
                    if count[k] > 0 and total[k] != 0.0:
                        value = amount / (total[k] / count[k])
                        if not np.isfinite(value):
                            value = 1.0
                elif kind == K_SINCE:
                    value = limits[SINCE_CAP] / 1000.0
                    if 0 <= since < limits[SINCE_CAP]:
                        value = since / 1000.0
                elif kind == K_DISTINCT:
                    value = float(distinct[plan[c, 2], k])
                elif kind == K_RISK:
                    if mature[k] > 0:
                        value = min(frauds[k] / mature[k], 1.0)
                elif kind == K_RISK_COUNT:
                    value = float(mature[k])
                elif kind == K_KNOWN:
                    value = float(known[k])
                elif kind == K_SINCE_FRAUD:
                    value = limits[SINCE_FRAUD_CAP] / 1000.0
                    if 0 <= last_known < limits[SINCE_FRAUD_CAP]:
                        value = last_known / 1000.0
                if not np.isfinite(value):
                    value = 0.0
                out[r, c] = value

        if row_insert[r] and key != np.uint64(0) and time > horizon:
            if slot < 0:
                slot = -1 - slot
                claim(keys, slots, state, slot, key)
            insert_event(
                slots, times, amounts, tags, prev, state, slot, time, amount, row_tags[r], words, horizon, cap
            )
    state[EPOCH] = epoch


@kernel
def prune_frauds(
    slots: Ints32, fraud_event: Ints, fraud_known: Ints, fraud_next: Ints32, state: Ints,
    slot: int, horizon: int, known_horizon: int,
) -> int:
    """Free the frauds of a key that no window can see any more; returns how many stay."""
    before = np.int64(-1)
    node = np.int64(slots[slot, FRAUD])
    kept = 0
    while node >= 0:
        following = np.int64(fraud_next[node])
        if fraud_event[node] <= horizon and fraud_known[node] <= known_horizon:
            if before < 0:
                slots[slot, FRAUD] = following
            else:
                fraud_next[before] = following
            fraud_next[node] = state[FRAUD_FREE]
            state[FRAUD_FREE] = node
            state[FRAUD_SPARE] += 1
        else:
            before = node
            kept += 1
        node = following
    return kept


@kernel
def take_fraud(fraud_next: Ints32, state: Ints) -> int:
    node = state[FRAUD_FREE]
    if node >= 0:
        state[FRAUD_FREE] = fraud_next[node]
        state[FRAUD_SPARE] -= 1
        return node
    node = state[FRAUD_USED]
    state[FRAUD_USED] += 1
    return node


@kernel
def add_frauds(
    keys: Words, slots: Ints32, fraud_event: Ints, fraud_known: Ints, fraud_id: Words, fraud_next: Ints32, state: Ints,
    limits: Ints, row_keys: Words, row_events: Ints, row_known: Ints, row_ids: Words, row_fraud: Bools,
) -> None:
    """Remember or take back frauds by transaction; of two reports of one fraud the earlier `known_at` counts."""
    horizon = state[NEWEST_WATERMARK] - limits[LATENESS] - limits[RETENTION]
    known_horizon = state[NEWEST_WATERMARK] - limits[LATENESS] - limits[KNOWN_RETENTION]
    for r in range(row_keys.shape[0]):
        key = row_keys[r]
        if key == np.uint64(0):
            continue
        slot = find(keys, key)
        kept = 0
        if slot >= 0:
            kept = prune_frauds(slots, fraud_event, fraud_known, fraud_next, state, slot, horizon, known_horizon)
            before = np.int64(-1)
            node = np.int64(slots[slot, FRAUD])
            while node >= 0 and fraud_id[node] != row_ids[r]:
                before = node
                node = np.int64(fraud_next[node])
            if node >= 0:
                if row_fraud[r]:
                    fraud_known[node] = min(fraud_known[node], row_known[r])
                else:
                    if before < 0:
                        slots[slot, FRAUD] = fraud_next[node]
                    else:
                        fraud_next[before] = fraud_next[node]
                    fraud_next[node] = state[FRAUD_FREE]
                    state[FRAUD_FREE] = node
                    state[FRAUD_SPARE] += 1
                continue
        if not row_fraud[r] or (row_events[r] <= horizon and row_known[r] <= known_horizon):
            continue
        if kept >= limits[CAP]:
            state[FRAUDS_DROPPED] += 1
            continue
        if slot < 0:
            slot = -1 - slot
            claim(keys, slots, state, slot, key)
        node = take_fraud(fraud_next, state)
        fraud_event[node] = row_events[r]
        fraud_known[node] = row_known[r]
        fraud_id[node] = row_ids[r]
        fraud_next[node] = slots[slot, FRAUD]
        slots[slot, FRAUD] = node


@kernel
def release_key(slots: Ints32, prev: Ints32, fraud_next: Ints32, state: Ints, slot: int) -> None:
    """Free the chunks and the frauds of a table entry."""
    release_chunks(prev, state, np.int64(slots[slot, TAIL]))
    node = np.int64(slots[slot, FRAUD])
    while node >= 0:
        following = np.int64(fraud_next[node])
        fraud_next[node] = state[FRAUD_FREE]
        state[FRAUD_FREE] = node
        state[FRAUD_SPARE] += 1
        node = following


@kernel
def sweep(
    keys: Words, slots: Ints32, times: Ints, prev: Ints32, fraud_event: Ints, fraud_known: Ints, fraud_next: Ints32,
    state: Ints, limits: Ints, watermark: int, limit: int,
) -> int:
    """Visit `limit` table entries from where the last call stopped; returns how many keys were freed."""
    horizon = watermark - limits[LATENESS] - limits[RETENTION]
    known_horizon = watermark - limits[LATENESS] - limits[KNOWN_RETENTION]
    i = state[CURSOR]
    freed = 0
    for _ in range(limit):
        if i >= keys.shape[0]:
            i = 0
        if keys[i] != np.uint64(0):
            count = slots[i, COUNT]
            if count == 0 or times[slots[i, TAIL], (count - 1) % CHUNK] <= horizon:
                release_chunks(prev, state, np.int64(slots[i, TAIL]))
                slots[i, TAIL] = -1
                slots[i, COUNT] = 0
                if prune_frauds(slots, fraud_event, fraud_known, fraud_next, state, i, horizon, known_horizon) == 0:
                    remove(keys, slots, state, i)
                    freed += 1
                    continue  # another key may have moved to this place
        i += 1
    state[CURSOR] = i
    return freed


@kernel
def discard(keys: Words, slots: Ints32, prev: Ints32, fraud_next: Ints32, state: Ints, row_keys: Words) -> None:
    """Forget keys altogether."""
    for r in range(row_keys.shape[0]):
        slot = find(keys, row_keys[r])
        if slot >= 0:
            release_key(slots, prev, fraud_next, state, slot)
            remove(keys, slots, state, slot)


@kernel
def count_frauds(slots: Ints32, fraud_next: Ints32, chosen: Ints) -> Ints:
    counts = np.zeros(chosen.shape[0], np.int64)
    for r in range(chosen.shape[0]):
        node = np.int64(slots[chosen[r], FRAUD])
        while node >= 0:
            counts[r] += 1
            node = np.int64(fraud_next[node])
    return counts


@kernel
def gather(
    slots: Ints32, times: Ints, amounts: Floats, tags: Words32, prev: Ints32,
    fraud_event: Ints, fraud_known: Ints, fraud_id: Words, fraud_next: Ints32, chosen: Ints,
    flat_times: Ints, flat_amounts: Floats, flat_tags: Words32, flat_fraud_times: Ints, flat_fraud_ids: Words,
) -> None:
    """Copy the events (oldest first) and frauds (in list order) of the chosen table entries to flat arrays."""
    at = 0
    fraud_at = 0
    for r in range(chosen.shape[0]):
        held = np.int64(slots[chosen[r], COUNT])
        chunk = np.int64(slots[chosen[r], TAIL])
        for i in range(held - 1, -1, -1):
            e = i % CHUNK
            flat_times[at + i] = times[chunk, e]
            flat_amounts[at + i] = amounts[chunk, e]
            for w in range(tags.shape[1]):
                flat_tags[at + i, w] = tags[chunk, w, e]
            if e == 0:
                chunk = np.int64(prev[chunk])
        at += held
        node = np.int64(slots[chosen[r], FRAUD])
        while node >= 0:
            flat_fraud_times[fraud_at, 0] = fraud_event[node]
            flat_fraud_times[fraud_at, 1] = fraud_known[node]
            flat_fraud_ids[fraud_at] = fraud_id[node]
            fraud_at += 1
            node = np.int64(fraud_next[node])


@kernel
def scatter(
    keys: Words, slots: Ints32, times: Ints, amounts: Floats, tags: Words32, prev: Ints32,
    fraud_event: Ints, fraud_known: Ints, fraud_id: Words, fraud_next: Ints32, state: Ints,
    row_keys: Words, counts: Ints, fraud_counts: Ints,
    flat_times: Ints, flat_amounts: Floats, flat_tags: Words32, flat_fraud_times: Ints, flat_fraud_ids: Words,
) -> None:
    """The inverse of `gather` for keys that are not in the table."""
    at = 0
    fraud_at = 0
    for r in range(row_keys.shape[0]):
        slot = -1 - find(keys, row_keys[r])
        claim(keys, slots, state, slot, row_keys[r])
        chunk = np.int64(-1)
        for i in range(counts[r]):
            e = i % CHUNK
            if e == 0:
                older = chunk
                chunk = take_chunk(prev, state)
                prev[chunk] = older
            times[chunk, e] = flat_times[at + i]
            amounts[chunk, e] = flat_amounts[at + i]
            for w in range(tags.shape[1]):
                tags[chunk, w, e] = flat_tags[at + i, w]
        slots[slot, TAIL] = chunk
        slots[slot, COUNT] = counts[r]
        at += counts[r]
        last = np.int64(-1)
        for _ in range(fraud_counts[r]):
            node = take_fraud(fraud_next, state)
            fraud_event[node] = flat_fraud_times[fraud_at, 0]
            fraud_known[node] = flat_fraud_times[fraud_at, 1]
            fraud_id[node] = flat_fraud_ids[fraud_at]
            fraud_next[node] = -1
            if last < 0:
                slots[slot, FRAUD] = node
            else:
                fraud_next[last] = node
            last = node
            fraud_at += 1
