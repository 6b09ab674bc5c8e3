"""A history through the same cores as the stages, without a broker, in event order.

The order of things within a step of event time is that of life: what has been learned by its beginning is
published, labels that become known during it are joined, its transactions are scored. Features see a label
only from its `known_at` on.
"""

from __future__ import annotations

import hashlib
import time
from collections import deque
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt
import xxhash

from models.spec import FeatureSpec
from streams.contract.transaction_columns import TransactionColumns
from streams.history.advance import Advance
from streams.history.delayed_labels import DelayedLabels
from streams.history.investigators import Investigators
from streams.settings import Settings
from streams.stages.alignment import FOREVER, NEVER
from streams.stages.card import time_rules
from streams.stages.card_core import CardCore, CardState
from streams.stages.columns import Columns
from streams.stages.decisions import decision_policy
from streams.stages.label import label_policy
from streams.stages.label_core import LabelJoin
from streams.stages.label_state import LabelState, LabelStep
from streams.stages.learn import learn_rules
from streams.stages.learn_core import LearnCore, LearnState, ModelDrift
from streams.stages.model_slots import build_learners, initial_deployment
from streams.stages.rows import from_history
from streams.stages.score_core import ScoreCore, ScoreState
from streams.stages.waiting_rows import WaitingRows
from streams.times import DAY

_SLICE_ROWS = 20_000


class FeatureDigest:
    """A digest over the features of all transactions that does not depend on their order."""

    def __init__(self) -> None:
        self._sum = 0

    def add(self, transaction_ids: Iterable[str], features: npt.NDArray[np.float64]) -> None:
        """Takes the features (rows, columns) of the transactions."""
        rows = np.ascontiguousarray(features, dtype="<f8")
        for transaction_id, row in zip(transaction_ids, rows, strict=True):
            self._sum += xxhash.xxh3_128_intdigest(transaction_id.encode() + b"\0" + row.tobytes())

    def hex(self) -> str:
        return hashlib.sha256((self._sum % 2**128).to_bytes(16, "big")).hexdigest()[:32]


@dataclass(slots=True)
class Scores:
    """Every transaction scored, as columns; `models` maps a model's name to its scores."""

    transaction_id: list[str] = field(default_factory=list)
    card: list[npt.NDArray[np.uint64]] = field(default_factory=list)
    event_time: list[npt.NDArray[np.int64]] = field(default_factory=list)
    champion: list[npt.NDArray[np.float64]] = field(default_factory=list)
    shadows: list[npt.NDArray[np.float64]] = field(default_factory=list)

    def add(self, rows: Columns) -> None:
        self.transaction_id += rows.strings["transaction_id"]
        self.card.append(rows.words("card"))
        self.event_time.append(rows.ints("event_time"))
        self.champion.append(rows.floats("champion"))
        self.shadows.append(rows.floats("shadows"))


@dataclass(frozen=True, slots=True)
class BacktestResult:
    """What a backtest gives: scores by model in the order in which they were given, the truth, and counts."""

    transaction_id: list[str]
    card: npt.NDArray[np.uint64]
    event_time: npt.NDArray[np.int64]
    scores: dict[str, npt.NDArray[np.float64]]
    fraud: npt.NDArray[np.bool_]
    versions: dict[str, int]
    learned: dict[str, int]
    counts: dict[str, int]
    feature_digest: str
    duration_s: float
    drift: list[ModelDrift]


class Backtest:
    """One run; see the module.

    Args:
        label_delay: milliseconds until a fraud is reported where the history does not say; None for never.
        analysts: alerts of the champion that are investigated a day, with the verdict back the next day.
    """

    def __init__(
        self, settings: Settings, spec: FeatureSpec, *, label_delay: int | None, analysts: int = 0
    ) -> None:
        self._spec = spec
        self._settings = settings
        self._cards = CardState(spec, time_rules(settings))
        self._card_core = CardCore(spec)
        self._score_state = ScoreState(spec, lateness_ms=settings.time.allowed_lateness)
        self._score_core = ScoreCore(decision_policy(settings), time.perf_counter)
        self._deployment = initial_deployment(settings.models, spec)
        # Time budgets depend on the machine; a backtest must not.
        self._deployment.seconds_per_row = float("inf")
        self._labels = LabelState()
        self._join = LabelJoin(label_policy(settings))
        self._learn_core = LearnCore(learn_rules(settings, spec.digest))
        self._learning = LearnState(build_learners(settings.models, spec))
        self._delayed = DelayedLabels(label_delay)
        self._undecided: deque[tuple[int, Columns]] = deque()
        self._waiting: WaitingRows[None] = WaitingRows({})
        self._published = NEVER
        self._messages = 0
        self._read = 0
        self._scores = Scores()
        self._digest = FeatureDigest()
        self._frauds: set[str] = set()
        self._investigators = Investigators(self._frauds, analysts)

    def run(
        self, batches: Iterable[TransactionColumns], advance: Advance = lambda _done, _remark: None
    ) -> BacktestResult:
        """Everything from the first transaction to the last."""
        began = time.perf_counter()
        for batch in batches:
            self._delayed.add(batch)
            if batch.fraud is not None:
                self._frauds.update(batch.transaction_id[i] for i in np.flatnonzero(batch.fraud).tolist())
            rows = from_history(batch, self._read, self._spec)
            rows.meta["card_partition"] = 0
            self._read += len(batch)
            for start in range(0, len(rows), _SLICE_ROWS):
                self._admit(rows.take(np.arange(start, min(start + _SLICE_ROWS, len(rows)))))
            advance(
                self._read, f"{self._settings.models.champion.name} v{max(self._learning.versions.values())}"
            )
        self._release(FOREVER)
        return self._result(time.perf_counter() - began)

    def _admit(self, rows: Columns) -> None:
        """Rows in the order of the history; those of the newest watermark wait for more of the same."""
        self._waiting.put([self._card_core.process(self._cards, rows)], None)
        self._release(self._cards.admission.settled_watermark - 1)

    def _release(self, frontier: int) -> None:
        for chunk in self._waiting.take(frontier, _SLICE_ROWS):
            for part in self._slices(chunk.rows):
                self._step(part)
        self._waiting.done(frontier)

    def _slices(self, rows: Columns) -> Iterator[Columns]:
        """Rows that no publication separates, in order."""
        publication = rows.ints("watermark") // self._settings.models.publish_every
        # A verdict on a row takes effect `soonest` after it: in a slice after its own.
        effect = rows.ints("watermark") // max(1, self._settings.labels.soonest)
        day = rows.ints("watermark") // DAY  # analysts choose among all the alerts of a day
        cuts = np.flatnonzero(np.diff(publication) | np.diff(effect) | np.diff(day)) + 1
        for part in np.split(np.arange(len(rows)), cuts):
            yield rows.take(part)

    def _step(self, rows: Columns) -> None:
        first, last = int(rows.ints("watermark")[0]), int(rows.ints("watermark")[-1])
        publication = first // self._settings.models.publish_every
        if publication > self._published:
            # Learning at publications only keeps the order of outcomes free of how the rows are sliced.
            self._published = publication
            for snapshots in self._learn_core.advance(self._learning, first):
                for snapshot in snapshots:
                    if not snapshot.withheld:
                        self._deployment.swap(snapshot)
        self._join_labels(last)
        scored = self._score_core.process(self._score_state, self._deployment, rows)
        scored.meta = {
            "score_partition": 0,
            "watermark": last,
            "models": [list(model) for model in self._deployment.models()],
        }
        self._take_outcomes(self._join.scored(self._labels, LabelStep(), scored))
        self._undecided.append((self._messages, scored))
        self._messages += 1
        self._investigators.see(scored)
        self._scores.add(scored)
        self._digest.add(scored.strings["transaction_id"], scored.floats("features"))

    def _join_labels(self, until: int) -> None:
        """Labels up to `until`, and the transactions that mature by then."""
        labels = [*self._investigators.due(until), *self._delayed.due(until)]
        labels.sort(key=lambda label: label.labelled_at)
        self._take_outcomes(self._join.labels(self._labels, LabelStep(), labels))
        ripe = until - self._settings.labels.maturity
        while self._undecided:
            offset, rows = self._undecided[0]
            outcomes, done = self._join.mature(self._labels, LabelStep(), rows, offset, ripe)
            self._take_outcomes(outcomes)
            if not done:
                break
            self._undecided.popleft()

    def _take_outcomes(self, outcomes: list[Columns]) -> None:
        for rows in outcomes:
            self._score_state.add_frauds(rows.take(rows.bools("fraud")))
            self._learn_core.take(self._learning, rows)

    def _result(self, duration: float) -> BacktestResult:
        scores, learning = self._scores, self._learning
        champion, *shadows = self._deployment.models()
        by_model = {champion[1]: _joined(scores.champion)}
        shadow_scores = np.vstack(scores.shadows) if scores.shadows else np.empty((0, len(shadows)))
        for column, (_, name, _) in enumerate(shadows):
            by_model[name] = shadow_scores[:, column]
        frauds = self._frauds
        return BacktestResult(
            transaction_id=scores.transaction_id,
            card=np.concatenate(scores.card) if scores.card else np.empty(0, np.uint64),
            event_time=np.concatenate(scores.event_time) if scores.event_time else np.empty(0, np.int64),
            scores=by_model,
            fraud=np.fromiter(
                (each in frauds for each in scores.transaction_id), np.bool_, len(scores.transaction_id)
            ),
            versions={name: version for _, name, version in self._deployment.models()},
            learned={name: learner.n_learned for name, learner in learning.learners.items()},
            counts={"transactions": self._read, "scored": len(scores.transaction_id)},
            feature_digest=self._digest.hex(),
            duration_s=duration,
            drift=learning.drift,
        )


def _joined(parts: list[npt.NDArray[np.float64]]) -> npt.NDArray[np.float64]:
    return np.concatenate(parts) if parts else np.empty(0)
