"""The core of the card stage: admission and the windows of the card, over the rows of one partition.

Pure: the same rows in the same order give the same state and the same features, under Faust, in `backtest`
and in tests.
"""

from __future__ import annotations

from dataclasses import dataclass

import msgspec
import numpy as np

from models.admission import ACCEPTED, DUPLICATE, Admission
from models.features import transaction_features
from models.spec import FeatureSpec
from models.windows import WindowStore
from streams.stages import columns
from streams.stages.columns import Columns

_WINDOW_BUCKETS = 32
#: Places of a window table looked at for every row: more than one, or keys that come once would pile up, as a
#: row adds a key and not every place has one to free.
SWEEP_PER_ROW = 4
#: What a delta keeps of a row: enough to admit it and insert it again. Its status is kept too:
#: a checkpoint is read bucket by bucket, and the windows can be ahead of the admission until its own is read.
_DELTA = ("transaction", "card", "event_time", "record_time", "amount", "status", "watermark")


@dataclass(frozen=True, slots=True)
class TimeRules:
    """Event-time limits of admission, in milliseconds.

    Args:
        allowed_lateness_ms: rows further below the watermark are late.
        future_tolerance_ms: rows stamped further ahead of their Kafka timestamp are future.
        watermark_jump_ms: a longer step of the watermark needs a second card.
        dedupe_horizon_ms: how long a transaction id is remembered.
        max_ids: transaction ids remembered per partition at most.
    """

    allowed_lateness_ms: int
    future_tolerance_ms: int
    watermark_jump_ms: int
    dedupe_horizon_ms: int
    max_ids: int


class _Head(msgspec.Struct, array_like=True):
    next_offset: int
    admission: bytes


class CardState:
    """What the card stage holds for one partition; a `PartitionState`."""

    buckets = _WINDOW_BUCKETS + 1

    def __init__(self, spec: FeatureSpec, time: TimeRules) -> None:
        entity = spec.entities[0]
        self._tags = f"tags_{entity.name}"
        self.windows = WindowStore(entity, lateness_ms=time.allowed_lateness_ms)
        self.admission = Admission(
            lateness_ms=time.allowed_lateness_ms,
            future_tolerance_ms=time.future_tolerance_ms,
            jump_ms=time.watermark_jump_ms,
            horizon_ms=time.dedupe_horizon_ms,
            max_ids=time.max_ids,
        )
        self.next_offset = 0

    def admit(self, rows: Columns) -> None:
        """Adds `status` and `watermark` to the rows."""
        rows.arrays["status"], rows.arrays["watermark"] = self.admission.admit(
            rows.words("transaction"), rows.words("card"), rows.ints("event_time"), rows.ints("record_time")
        )

    def apply(self, delta: bytes) -> None:
        rows = columns.decode(delta)
        if len(rows):
            self.admission.admit_again(
                msgspec.convert(rows.meta["limits"], list[int]),
                rows.words("transaction"),
                rows.words("card"),
                rows.ints("event_time"),
                rows.ints("record_time"),
            )
            kept = rows.take(rows.codes("status") != DUPLICATE)
            self.windows.insert(
                kept.words("card"),
                kept.ints("event_time"),
                kept.floats("amount"),
                kept.words(self._tags),
                kept.codes("status") == ACCEPTED,
                kept.ints("watermark"),
            )
            self.windows.sweep(int(rows.ints("watermark")[-1]), SWEEP_PER_ROW * len(rows))
        self.next_offset = rows.meta_int("next_offset")

    def delta(self, rows: Columns, next_offset: int) -> bytes:
        """What makes the admitted rows durable."""
        kept = {name: rows.arrays[name] for name in (*_DELTA, self._tags)}
        # The settings may be others when it is read.
        meta = {"next_offset": next_offset, "limits": self.admission.time_limits}
        return Columns(meta, kept).encode()

    def dump(self, bucket: int) -> bytes:
        if bucket < _WINDOW_BUCKETS:
            return self.windows.dump(bucket, _WINDOW_BUCKETS)
        return msgspec.msgpack.encode(_Head(self.next_offset, self.admission.dump()))

    def load(self, bucket: int, data: bytes) -> None:
        if bucket < _WINDOW_BUCKETS:
            self.windows.load(bucket, _WINDOW_BUCKETS, data)
            return
        head = msgspec.msgpack.decode(data, type=_Head)
        self.next_offset = head.next_offset
        self.admission.load(head.admission)


class CardCore:
    """Adds admission, transaction features and card windows to rows."""

    def __init__(self, spec: FeatureSpec) -> None:
        self._entity = spec.entities[0]
        self._calendar = spec.calendar

    def process(self, state: CardState, rows: Columns) -> Columns:
        """The rows to score, with `status`, `watermark` and `features`; duplicates are left out.

        `rows` itself receives `status` and `watermark`, for all its rows.
        """
        state.admit(rows)
        kept = rows.take(rows.codes("status") != DUPLICATE)
        windows = state.windows.update(
            kept.words("card"),
            kept.ints("event_time"),
            kept.floats("amount"),
            kept.words(f"tags_{self._entity.name}"),
            kept.codes("status") == ACCEPTED,
            kept.ints("watermark"),
        )
        own = transaction_features(
            kept.floats("amount"), kept.ints("event_time"), kept.floats("attributes"), self._calendar
        )
        state.windows.sweep(state.admission.watermark, SWEEP_PER_ROW * len(rows))
        result = Columns(kept.meta, dict(kept.arrays), kept.strings)
        result.arrays["features"] = np.hstack([own, windows])
        return result
