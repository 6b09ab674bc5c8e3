"""The core of the score stage: windows of the last entity, then champion and shadows on one feature matrix.

Pure but for the time budget of shadows, which reads the clock it is given.

Rows come from several card partitions; each carries its offset there, and rows of one card partition come in
the order of that offset. So the state keeps, by card partition, the offset up to which all rows are scored,
and those scored beyond it: what a restarted stage upstream sends again is dropped.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import msgspec
import numpy as np
import numpy.typing as npt

from models.admission import ACCEPTED
from models.decision import Decided, DecisionPolicy, DecisionState
from models.deployment import Deployment
from models.registry import Slots
from models.spec import FeatureSpec
from models.windows import WindowStore
from streams.stages import columns, decisions
from streams.stages.alignment import NEVER
from streams.stages.card_core import SWEEP_PER_ROW
from streams.stages.columns import Columns

_WINDOW_BUCKETS = 32
Float = npt.NDArray[np.float64]


Offsets = npt.NDArray[np.int64]


class _Head(msgspec.Struct, array_like=True):
    applied: dict[int, int]
    told: dict[int, int]
    began: int
    slots: Slots | None
    ahead: dict[int, bytes] = {}
    decisions: bytes = b""


@dataclass(frozen=True, slots=True)
class ScoreStep:
    """What one batch changed besides the windows.

    Args:
        applied: offset up to which all rows are scored, by card partition.
        ahead: offsets scored with the batch that are higher, by card partition.
        told: event time up to which the label stage has told all that takes effect, by label partition.
        began: event time of the first row, `NEVER` for unchanged.
        slots: the models in use from here on, once a swap has been decided; None for unchanged.
        decisions: what the decisions about the batch changed (`decisions.py`).
    """

    applied: Mapping[int, int] = field(default_factory=dict)
    told: Mapping[int, int] = field(default_factory=dict)
    began: int = NEVER
    slots: Slots | None = None
    ahead: Mapping[int, Offsets] = field(default_factory=dict)
    decisions: bytes = b""


class ScoreState:
    """What the score stage holds for one partition; a `PartitionState`."""

    buckets = _WINDOW_BUCKETS + 1

    def __init__(self, spec: FeatureSpec, *, lateness_ms: int) -> None:
        self.entity = spec.entities[-1] if len(spec.entities) > 1 else None
        self.windows = WindowStore(self.entity, lateness_ms=lateness_ms) if self.entity else None
        self.applied: dict[int, int] = {}
        #: by card partition, offsets scored beyond `applied`: among many rows of one watermark the order of
        #: scoring is not that of offsets
        self.ahead: dict[int, Offsets] = {}
        self.told: dict[int, int] = {}
        self.began = NEVER
        self.slots: Slots | None = None
        self.decisions = DecisionState()

    def update(self, rows: Columns) -> Float:
        """Insert the rows; their window features, (rows, columns of the entity)."""
        if self.windows is None or self.entity is None:
            return np.empty((len(rows), 0))
        features = self.windows.update(*self._window_rows(rows))
        self._sweep(rows)
        return features

    def _sweep(self, rows: Columns) -> None:
        """Free keys with nothing left to see, a few places for every row."""
        if self.windows is not None and len(rows):
            self.windows.sweep(int(rows.ints("watermark").min()), SWEEP_PER_ROW * len(rows))

    def _window_rows(
        self, rows: Columns
    ) -> tuple[
        npt.NDArray[np.uint64],
        npt.NDArray[np.int64],
        Float,
        npt.NDArray[np.uint64],
        npt.NDArray[np.bool_],
        npt.NDArray[np.int64],
    ]:
        assert self.entity is not None
        return (
            rows.words("hop"),
            rows.ints("event_time"),
            rows.floats("amount"),
            rows.words(f"tags_{self.entity.name}"),
            rows.codes("status") == ACCEPTED,
            rows.ints("watermark"),
        )

    def add_frauds(self, outcomes: Columns) -> None:
        """Outcomes become known frauds of their key; a reversal removes one."""
        if self.windows is None or not len(outcomes):
            return
        self.windows.add_frauds(
            outcomes.words("hop"),
            outcomes.ints("event_time"),
            outcomes.ints("known_at"),
            outcomes.words("transaction"),
            outcomes.bools("fraud"),
        )

    def delta(self, rows: Columns | None, outcomes: Columns | None, step: ScoreStep) -> bytes:
        """What makes a batch durable."""
        arrays: dict[str, columns.Array] = {}
        names: tuple[str, ...]
        if rows is not None and self.entity is not None:
            names = ("hop", "event_time", "amount", f"tags_{self.entity.name}", "status", "watermark")
            arrays = {name: rows.arrays[name] for name in names}
        frauds = b""
        if outcomes is not None and len(outcomes):
            names = ("hop", "event_time", "known_at", "transaction", "fraud")
            frauds = Columns({}, {name: outcomes.arrays[name] for name in names}).encode()
        meta = {
            "applied": dict(step.applied),
            "ahead": _packed(step.ahead),
            "told": dict(step.told),
            "began": step.began,
            "slots": None if step.slots is None else msgspec.to_builtins(step.slots),
            "frauds": frauds,
            "decisions": step.decisions,
        }
        return Columns(meta, arrays).encode()

    def apply(self, delta: bytes) -> None:
        rows = columns.decode(delta)
        meta = msgspec.convert(rows.meta, _DeltaMeta)
        if meta.frauds:
            self.add_frauds(columns.decode(meta.frauds))
        if len(rows) and self.windows is not None:
            self.windows.insert(*self._window_rows(rows))
            self._sweep(rows)
        decisions.apply(self.decisions, meta.decisions)
        self.advance(ScoreStep(meta.applied, meta.told, meta.began, meta.slots, _unpacked(meta.ahead)))

    def advance(self, step: ScoreStep) -> None:
        self.applied.update(step.applied)
        for partition, last in step.applied.items():
            parts = [each.get(partition, _NO_OFFSETS) for each in (self.ahead, step.ahead)]
            beyond = np.concatenate(parts)
            self.ahead[partition] = beyond[beyond > last]
            if not len(self.ahead[partition]):
                del self.ahead[partition]
        for partition, until in step.told.items():
            self.told[partition] = max(until, self.told.get(partition, until))
        self.began = max(self.began, step.began)
        self.slots = step.slots or self.slots

    def dump(self, bucket: int) -> bytes:
        if bucket < _WINDOW_BUCKETS:
            return self.windows.dump(bucket, _WINDOW_BUCKETS) if self.windows is not None else b""
        ahead, remembered = _packed(self.ahead), decisions.encode_state(self.decisions)
        return msgspec.msgpack.encode(
            _Head(self.applied, self.told, self.began, self.slots, ahead, remembered)
        )

    def load(self, bucket: int, data: bytes) -> None:
        if bucket < _WINDOW_BUCKETS:
            if self.windows is not None:
                self.windows.load(bucket, _WINDOW_BUCKETS, data)
            return
        head = msgspec.msgpack.decode(data, type=_Head)
        self.applied, self.told = head.applied, head.told
        self.began, self.slots = head.began, head.slots
        self.ahead = _unpacked(head.ahead)
        self.decisions = DecisionState()
        decisions.apply(self.decisions, head.decisions)


class _DeltaMeta(msgspec.Struct):
    applied: dict[int, int]
    told: dict[int, int]
    began: int
    slots: Slots | None
    frauds: bytes
    ahead: dict[int, bytes] = {}
    decisions: bytes = b""


_NO_OFFSETS = np.empty(0, np.int64)


def _packed(offsets: Mapping[int, Offsets]) -> dict[int, bytes]:
    return {partition: each.tobytes() for partition, each in offsets.items()}


def _unpacked(packed: Mapping[int, bytes]) -> dict[int, Offsets]:
    return {partition: np.frombuffer(each, np.int64) for partition, each in packed.items()}


def in_score_order(rows: Columns) -> Columns:
    """Rows in the order in which they are scored: watermark, card, offset.

    The order does not depend on how cards are spread over partitions, and within one card partition it is
    that of its offsets up to equal watermarks.
    """
    return rows.take(np.lexsort((rows.ints("offset"), rows.words("card"), rows.ints("watermark"))))


class ScoreCore:
    """Completes the features of rows, scores them and decides about them."""

    def __init__(self, policy: DecisionPolicy, clock: Callable[[], float]) -> None:
        self._policy = policy
        self._clock = clock
        #: what champion and shadows took for the last batch, in seconds
        self.seconds: tuple[float, ...] = ()
        #: name and version of what gave the last batch its scores, and whether that was the stand-in
        self.model: tuple[str, int] = ("", 0)
        self.stood_in = False
        #: what became of the last batch, and of the state by it, as a delta
        self.decided = Decided(np.empty(0), np.empty(0, np.bool_), np.empty(0, np.bool_), np.empty(0))
        self.change = b""

    def process(self, state: ScoreState, deployment: Deployment, rows: Columns) -> Columns:
        """The rows with all `features`, `score`, `arm`, `champion` and `shadows` scores, and the decision:
        the `threshold` in force, `alert`, `control` and `propensity`.

        `score` is what counts, that of the canary where `arm` is set. `shadows` is (rows, models beside the
        champion: the canary, if any, then the shadows), NaN where one gave none.
        """
        features = np.hstack([rows.floats("features"), state.update(rows)])
        scored = deployment.score(features, self._clock, rows.words("card"))
        self.seconds, self.model, self.stood_in = scored.seconds, scored.model, scored.stand_in
        if not self.model[1]:
            # A slot without a learned version holds the rules under its own name.
            self.model = deployment.stand_in.name, 0
        result = Columns(rows.meta, dict(rows.arrays), rows.strings)
        result.arrays["features"] = features
        result.arrays["score"] = scored.decided
        result.arrays["arm"] = scored.arm
        result.arrays["champion"] = scored.champion
        result.arrays["shadows"] = np.ascontiguousarray(scored.shadows.T)
        self._decide(state, result)
        return result

    def _decide(self, state: ScoreState, rows: Columns) -> None:
        scored = decisions.scored_rows(rows, self.model[0], stood_in=self.stood_in)
        decided = self.decided = self._policy.decide(state.decisions, scored)
        self.change = decisions.encode_change(state.decisions, decided) if self._policy.remembers else b""
        for name in ("threshold", "alert", "control", "propensity"):
            rows.arrays[name] = getattr(decided, name)
