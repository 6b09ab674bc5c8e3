"""The core of the learn stage: outcomes in event order into every learner, frozen versions out.

Outcomes arrive when they are determined, which in a fast replay is before they take effect; they wait here
until the scoring watermark has passed their `known_at`. Versions are published at fixed steps of event time,
so that the same history gives the same versions however it is cut into batches.

A learner that learns verdicts apart (`models/learners/feedback_delayed.py`) is told an analyst's verdict on
an alert when it is known, and the outcome once more when the transaction has matured, by what is known then.
What contradicts the verdict meanwhile, a chargeback or the analyst, is told as a correction of the verdict.
"""

from __future__ import annotations

import heapq
import logging
import platform
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import river

from models.label_floods import LabelFloods, verdict_keys
from models.learners.base import DriftEvent, Learner
from models.outcome_weights import feedback_weights, outcome_weights
from models.sampling import keep_mask
from models.scorers.base import FrozenScorer
from models.snapshot import Snapshot, make
from models.snapshot_document import MAX_DOCUMENT_BYTES
from models.snapshot_fit import check_fit
from models.version_check import Verdict, VersionCheck
from monitoring.metrics import bounded_source
from streams.stages.alignment import NEVER
from streams.stages.columns import Columns
from streams.stages.label_core import MATURITY
from streams.stages.label_state import ANALYST

logger = logging.getLogger(__name__)

#: What waits: an outcome; one that an analyst gave of an alert; the same once more when it has matured.
OUTCOME, VERDICT, MATURED = range(3)


class Waiting(NamedTuple):
    """An outcome that waits for its time; ordered by time, transaction and arrival.

    `wanted` are the learners that `learn` it, as a bit mask; `feedback_weight` is its weight among verdicts.
    A transaction has matured at `matured_at`.
    """

    time: int
    transaction: int
    arrival: int
    fraud: bool
    wanted: int
    features: bytes
    weight: float
    kind: int
    feedback_weight: float
    matured_at: int


#: What a version is made with.
LIBRARIES = {
    "python": platform.python_version(),
    "numpy": np.__version__,
    "river": river.__version__,
}
#: Outcomes learned between two chances for others to run.
SLICE = 8
#: Seconds that a learner may take for itself before others get a chance to run.
PATIENCE = 0.05
#: Transactions whose verdict is remembered, so that none is learned twice.
REMEMBERED = 200_000


@dataclass(frozen=True, slots=True)
class LearnRules:
    """
    Args:
        publish_every_ms: event time between two versions of a model.
        spec_digest: digest of the feature spec whose columns the outcomes have.
        min_outcomes: a model that has learned fewer is not published: it would replace the rules, or what has
            learned more. A genuine outcome counts for all those that a model's sampling has it stand for.
        min_frauds: the same for frauds.
        maturity_ms: event time after which a transaction has matured.
        most_verdicts: on the transactions of a day, by `source`, `terminal` and `card`, that are learned.
        check_frauds: fewest frauds by which a version may be withheld (`models/version_check.py`); 0 for
            never.
        most_bytes: of the document of a version; one that would be larger is not made.
    """

    publish_every_ms: int
    spec_digest: str
    min_outcomes: int = 0
    min_frauds: int = 0
    maturity_ms: int = 0
    most_verdicts: Mapping[str, int] = field(default_factory=dict)
    check_frauds: int = 0
    most_bytes: int = MAX_DOCUMENT_BYTES

    def suffices(self, learner: Learner) -> bool:
        """Whether the learner has learned enough for a version."""
        outcomes = learner.n_frauds + (learner.n_learned - learner.n_frauds) * learner.keep_one_in
        return outcomes >= self.min_outcomes and learner.n_frauds >= self.min_frauds


@dataclass(frozen=True, slots=True)
class ModelDrift:
    """What the learner of a model noticed about drift, at the outcome that took effect at `event_time`."""

    model: str
    event_time: int
    event: DriftEvent

    def record(self) -> dict[str, int | float | str]:
        """The same as it is published."""
        return {"event_time": self.event_time, "model": self.model, **asdict(self.event)}


class LearnState:
    """The learners, the outcomes that wait, and how far the scoring watermark is known.

    Args:
        learners: by model name.
        partitions: label partitions, each of which reports the scoring watermark that it has seen.
    """

    def __init__(self, learners: dict[str, Learner], partitions: int = 0) -> None:
        self.learners = learners
        #: last version published, by model name; names of former models stay, so that no version comes twice
        self.versions = dict.fromkeys(learners, 0)
        #: the last version that the present learner has given, by model name
        self.parents: dict[str, int] = {}
        self.learned = dict.fromkeys(learners, 0)
        #: outcomes that could not be learned, by model name
        self.refused = dict.fromkeys(learners, 0)
        #: versions that could not be made, by model name; counted from the start of the process
        self.not_made = dict.fromkeys(learners, 0)
        #: scoring watermark, by label partition
        self.watermarks = dict.fromkeys(range(partitions), NEVER)
        self.clock = NEVER
        self.published_at = NEVER
        #: a heap
        self.waiting: list[Waiting] = []
        #: what learners noticed about drift, for whoever reports it to take away
        self.drift: list[ModelDrift] = []
        #: outcomes that have arrived
        self.arrived = 0
        #: verdict learned last, by transaction; the oldest are forgotten
        self.seen: dict[int, bool] = {}
        #: what is known of transactions with a verdict that have not matured; while a learner learns apart
        self.judged: dict[int, bool] = {}
        #: the learners that learn verdicts apart, as a bit mask
        self.apart = sum(1 << position for position, learner in enumerate(learners.values()) if learner.apart)
        self.floods = LabelFloods({})
        self.check = VersionCheck()

    def observe(self, partition: int, watermark: int) -> int:
        """A label partition has seen the scoring watermark; returns how far all of them have."""
        self.watermarks[partition] = max(watermark, self.watermarks.get(partition, NEVER))
        return min(self.watermarks.values())

    def wants(
        self, transactions: npt.NDArray[np.uint64], fraud: npt.NDArray[np.bool_]
    ) -> npt.NDArray[np.int64]:
        """Which learners learn an outcome, as a bit mask; each samples for itself, by transaction hash."""
        wanted = np.zeros(len(transactions), np.int64)
        for position, learner in enumerate(self.learners.values()):
            wanted |= keep_mask(transactions, fraud, learner.keep_one_in).astype(np.int64) << position
        return wanted


class LearnCore:
    """Feeds outcomes to the learners of a `LearnState`."""

    def __init__(self, rules: LearnRules) -> None:
        self.rules = rules

    def take(self, state: LearnState, outcomes: Columns) -> int:
        """Outcomes that will be learned once they take effect; returns how many of them are kept.

        Those that say nothing (`models/outcome_weights.py`) are not.
        """
        if not len(outcomes):
            return 0
        transactions, fraud = outcomes.words("transaction"), outcomes.bools("fraud")
        # By the watermark, as the label stage has it: an odd stamp matures with the transactions around it.
        known_at, matured_at = outcomes.ints("known_at"), outcomes.ints("watermark") + self.rules.maturity_ms
        alert, propensity = outcomes.bools("alert"), outcomes.floats("propensity")
        sources = outcomes.strings["source"]
        said = np.array([source != MATURITY for source in sources], np.bool_)
        within = self._within_bounds(state, outcomes)
        weights = np.where(within, outcome_weights(alert, outcomes.bools("control"), propensity, said), 0.0)
        verdict = alert & np.array([source == ANALYST for source in sources], np.bool_)
        wanted = np.where(weights > 0.0, state.wants(transactions, fraud), 0)
        feedback = np.where(alert, feedback_weights(propensity), 0.0)
        features = np.ascontiguousarray(outcomes.floats("features"))
        # A verdict, or what may correct one, whatever the sampling of delayed labels makes of it.
        told = alert & said & within & bool(state.apart)
        keep = np.flatnonzero((wanted != 0) | told).tolist()
        for index in keep:
            item = Waiting(
                int(known_at[index]),
                int(transactions[index]),
                state.arrived,
                bool(fraud[index]),
                int(wanted[index]),
                features[index].tobytes(),
                float(weights[index]),
                VERDICT if verdict[index] else OUTCOME,
                float(feedback[index]),
                int(matured_at[index]),
            )
            heapq.heappush(state.waiting, item)
            state.arrived += 1
        return len(keep)

    def _within_bounds(self, state: LearnState, outcomes: Columns) -> npt.NDArray[np.bool_]:
        """Those that are no verdict given again, and not one too many of their source, terminal or card."""
        sources = outcomes.strings["source"]
        said = np.array([source != MATURITY for source in sources], np.bool_)
        if not said.any():
            return np.ones(len(outcomes), np.bool_)
        most = self.rules.most_verdicts
        state.floods.most = {kind: most[kind] for kind in ("card", "terminal", "source") if kind in most}
        origins: dict[str, list[object]] = {"source": [bounded_source(source) for source in sources]}
        for kind, column in (("card", "card"), ("terminal", "hop")):
            if kind in most:
                origins[kind] = outcomes.words(column).tolist()
        keys = verdict_keys(
            outcomes.words("transaction"),
            outcomes.bools("fraud"),
            outcomes.ints("known_at"),
            outcomes.ints("labelled_at"),
        )
        return state.floods.count(outcomes.ints("watermark"), said, origins, keys)

    def advance(self, state: LearnState, clock: int) -> Iterator[list[Snapshot]]:
        """Learn what has taken effect by `clock` (event time), publish at every step that it passes.

        Yields:
            the versions to publish, or nothing after every `SLICE` outcomes, so that a caller can let others
            run.
        """
        state.clock = max(state.clock, clock)
        done = 0
        while state.waiting and state.waiting[0].time <= state.clock:
            item = state.waiting[0]
            step = item.time - item.time % self.rules.publish_every_ms
            if step > state.published_at:
                yield self._publish(state, step)
                continue
            for learner in state.learners.values():
                while not learner.ready(PATIENCE):
                    yield []
            heapq.heappop(state.waiting)
            if item.kind == MATURED:
                self._mature(state, item)
            else:
                self._determine(state, item)
            self._note_drift(state, item.time)
            done += 1
            if done % SLICE == 0:
                yield []
        step = state.clock - state.clock % self.rules.publish_every_ms
        if step > state.published_at:
            yield self._publish(state, step)

    def _determine(self, state: LearnState, item: Waiting) -> None:
        """What is known now of a transaction, unless it was: a restarted label stage may give it twice."""
        transaction, fraud = item.transaction, item.fraud
        if state.judged.get(transaction, state.seen.get(transaction)) == fraud:
            return
        state.seen[transaction] = fraud
        if len(state.seen) > REMEMBERED:
            del state.seen[next(iter(state.seen))]
        wanted = item.wanted
        if wanted and self.rules.check_frauds:
            state.check.yardstick.add(item.time, transaction, fraud, item.features)
        if state.apart and (item.kind == VERDICT or transaction in state.judged):
            wanted &= ~state.apart  # they learn it when it has matured
            if transaction not in state.judged:
                heapq.heappush(state.waiting, item._replace(time=item.matured_at, kind=MATURED))
            state.judged[transaction] = fraud
            self._tell(state, state.apart, item, feedback=True)
        self._tell(state, wanted, item)

    def _mature(self, state: LearnState, item: Waiting) -> None:
        """Who learned the verdict apart learns what has become of it."""
        fraud = state.judged.pop(item.transaction)
        one = np.array([item.transaction], np.uint64), np.array([fraud])
        self._tell(state, int(state.wants(*one)[0]) & state.apart, item._replace(fraud=fraud))

    @staticmethod
    def _tell(state: LearnState, mask: int, item: Waiting, *, feedback: bool = False) -> None:
        """The learners of a bit mask learn an outcome, or a verdict."""
        features = np.frombuffer(item.features)
        for position, (name, learner) in enumerate(state.learners.items()):
            if not mask >> position & 1:
                continue
            try:
                if feedback:
                    learner.learn_feedback(features, item.fraud, item.feedback_weight)
                else:
                    learner.learn(features, item.fraud, item.weight)
            except ValueError:
                state.refused[name] += 1
            else:
                state.learned[name] += 1

    @staticmethod
    def _note_drift(state: LearnState, event_time: int) -> None:
        for name, learner in state.learners.items():
            state.drift += [ModelDrift(name, event_time, event) for event in learner.take_events()]

    def _publish(self, state: LearnState, step: int) -> list[Snapshot]:
        """A new version of every learner that has learned enough, and something since its last one."""
        first = state.published_at == NEVER
        # What has been learned since took effect within one step, so that a version bears the same time
        # whether the clock passes one step or many at once.
        created_at = state.published_at + self.rules.publish_every_ms
        state.published_at = step
        if first:
            return []
        snapshots = []
        for name, learner in state.learners.items():
            if state.learned[name] == 0 or not self.rules.suffices(learner):
                continue
            state.learned[name] = 0
            scorer = self._frozen(state, name, learner)
            if scorer is None:
                continue
            state.versions[name] += 1
            verdict = self._check(state, name, scorer)
            snapshots.append(
                make(
                    scorer,
                    name=name,
                    version=state.versions[name],
                    spec_digest=self.rules.spec_digest,
                    created_at_event_time=created_at,
                    n_learned=learner.n_learned,
                    reference=learner.reference,
                    golden_x=learner.recent,
                    n_frauds=learner.n_frauds,
                    parent=state.parents.get(name, 0),
                    libraries=LIBRARIES,
                    metrics=learner.figures() | verdict.figures(),
                    withheld=verdict.withheld,
                )
            )
            state.parents[name] = state.versions[name]
        return snapshots

    def _frozen(self, state: LearnState, name: str, learner: Learner) -> FrozenScorer | None:
        """The learner as a scorer that can travel; None where there is none, and its version before stays."""
        try:
            scorer = learner.freeze()
            check_fit(scorer, self.rules.most_bytes)
        except Exception as error:  # whatever a learner does, the others go on
            state.not_made[name] += 1
            logger.warning("%s: no version could be made: %s: %s", name, type(error).__name__, error)
            return None
        return scorer

    def _check(self, state: LearnState, name: str, scorer: FrozenScorer) -> Verdict:
        if not self.rules.check_frauds:
            return Verdict()
        return state.check.judge(
            name,
            state.versions[name],
            scorer,
            least_frauds=self.rules.check_frauds,
            keep_one_in=min(learner.keep_one_in for learner in state.learners.values()),
            probabilities=state.learners[name].probabilities,
        )
