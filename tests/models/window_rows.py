"""Rows for the tests of the window store: one key by hand, many keys at random."""

from __future__ import annotations

import numpy as np

from models.spec import EntitySpec
from models.spec_reading import HOUR
from models.windows import WindowStore


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
