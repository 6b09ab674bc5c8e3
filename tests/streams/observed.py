"""A made-up day and a half behind the score stage: scored rows, feedback, outcomes; how they are observed."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from streams.contract.records import Feedback
from streams.stages.alignment import NEVER
from streams.stages.columns import Columns
from streams.stages.observing.core import ObserveCore
from streams.stages.observing.state import ObserveState, ObserveStep, encode_step
from streams.times import HOUR
from tests.streams.made_up import START

Bools = npt.NDArray[np.bool_]
PARTITIONS = 2
MODELS = [["champion", "a", 1], ["shadow", "b", 2]]
THRESHOLD = 0.8
CORE = ObserveCore()


def scored(source: int, rows: Columns, watermark: int) -> Columns:
    """A message of one score partition for one partition of cards."""
    settled = int(rows.ints("offset").min()) - 1
    meta = {"score_partition": source, "watermark": watermark, "models": MODELS, "settled": settled}
    return Columns(rows.meta | meta, rows.arrays, rows.strings)


def made_up(n: int, seed: int, *, hours: int = 36, features: int = 2, partition: int = 0) -> Columns:
    """Scored rows of one partition in the order of its offsets; a few of them late or stamped ahead."""
    random = np.random.default_rng(seed)
    time = START + np.sort(random.integers(0, hours * HOUR, n))
    watermark = time.copy()
    status = np.zeros(n, dtype=np.uint8)
    late, ahead = random.random(n) < 0.02, random.random(n) < 0.01
    time[late] -= 3 * HOUR
    time[ahead] += 400 * 24 * HOUR
    status[late], status[ahead & ~late] = 1, 2
    champion = random.random(n)
    shadow = np.where(random.random(n) < 0.1, np.nan, np.clip(champion + random.normal(0, 0.1, n), 0, 1))
    return Columns(
        {"models": MODELS},
        {
            "event_time": time,
            "watermark": watermark,
            "record_time": watermark + 1000,
            "status": status,
            "offset": np.arange(n, dtype=np.int64),
            "transaction": np.arange(n, dtype=np.uint64) * np.uint64(PARTITIONS) + np.uint64(partition),
            "card": random.integers(0, 200, n).astype(np.uint64),
            "features": random.normal(size=(n, features)),
            "champion": champion,
            "shadows": shadow[:, None],
            "threshold": np.full(n, THRESHOLD),
            "alert": champion >= THRESHOLD,
            "control": (champion >= THRESHOLD) & (np.arange(n) % 10 == 0),
            "propensity": np.where((champion >= THRESHOLD) & (np.arange(n) % 10 == 0), 0.1, 1.0),
            "amount_minor": random.integers(0, 10_000, n),
            "exponent": np.where(random.random(n) < 0.1, 0, 2).astype(np.uint8),
        },
        {"transaction_id": [f"t{partition}-{row}" for row in range(n)], "card_id": ["c"] * n},
    )


def messages(rows: Columns, seed: int, *, most: int = 40) -> list[Columns]:
    """The rows as the score partitions send them: in pieces, and some pieces twice, cut otherwise."""
    random = np.random.default_rng(seed)
    sources = random.integers(0, PARTITIONS, len(rows))
    found: list[tuple[int, Columns]] = []
    for source in range(PARTITIONS):
        own = np.flatnonzero(sources == source)
        start, watermark = 0, 0
        while start < len(own):
            stop = start + int(random.integers(1, most))
            watermark = max(watermark, int(rows.ints("watermark")[own[min(stop, len(own)) - 1]]))
            found.append((watermark, scored(source, rows.take(own[start:stop]), watermark)))
            # A crash: the end of the piece is sent once more with what follows.
            start = stop - int(random.integers(0, 5)) if random.random() < 0.2 else stop
    return [message for _, message in sorted(found, key=lambda each: each[0])]


def actions(rows: Columns, seed: int, *, delay: int = 30 * HOUR) -> list[tuple[int, Feedback]]:
    """What analysts do with the alerts up to `delay` later, and when; some of it strange."""
    random = np.random.default_rng(seed)
    found: list[tuple[int, Feedback]] = []
    for row in np.flatnonzero(rows.bools("alert")).tolist():
        transaction, at = rows.strings["transaction_id"][row], int(rows.ints("watermark")[row])
        done = ["shown", "opened", "confirmed" if random.random() < 0.4 else "dismissed"]
        for action in done[: int(random.integers(0, 4))]:
            at += int(random.integers(0, delay // 3))
            item = Feedback(f"alert {transaction}", transaction, "c", action, "x", at)  # type: ignore[arg-type]
            found.append((at, item))
    odd = Feedback("a", "t0-0", "c", "shown", "x", 4_000_000_000_000)
    return sorted([*found, (START, odd)], key=lambda each: each[0])


def outcomes(rows: Columns, partition: int, fraud: Bools, source: str, delay: int) -> Columns:
    """The outcome of each of the rows, `delay` after it."""
    arrays = {name: array for name, array in rows.arrays.items() if name != "features"}
    matured = np.full(len(rows), source == "maturity")
    known_at = rows.ints("watermark") + delay
    arrays |= {"fraud": fraud, "known_at": known_at, "labelled_at": known_at, "matured": matured}
    meta = rows.meta | {"label_partition": partition, "score_partition": 0, "watermark": 0, "models": MODELS}
    meta["settled"] = int(rows.ints("offset").min()) - 1
    meta["decided"] = int(known_at.max()) if matured.any() else NEVER
    return Columns(meta, arrays, {"source": [source] * len(rows)})


def both(rows: Columns, seed: int, *, cut: int = 40) -> list[Columns | Feedback]:
    """Scored rows and feedback, each in its order, mixed by time."""
    timed: list[tuple[int, int, Columns | Feedback]] = [
        (each.meta_int("watermark"), 0, each) for each in messages(rows, seed, most=cut)
    ]
    timed += [(at, 1, item) for at, item in actions(rows, seed)]
    return [each for _, _, each in sorted(timed, key=lambda each: each[:2])]


def observe(state: ObserveState, inputs: Sequence[Columns | Feedback]) -> list[bytes]:
    """Take the inputs one after the other; the deltas."""
    deltas = []
    for each in inputs:
        step = ObserveStep()
        if isinstance(each, Columns):
            CORE.count(state, step, [CORE.scored(state, step, each)])
        else:
            CORE.feedback(state, step, [each])
        deltas.append(encode_step(step))
    return deltas
