"""A threshold held to so many alerts a day, by the event time of the stream.

At every full step of event time the threshold is compared with what recent scores (`score_tail.py`, older
ones counting less) would have given. Within a fifth, or what chance alone would give, it stays; else it moves
to where they would have given what is due. So every move stands on evidence, and the same rows give the same
moves however they are cut into batches.

* **Due** is the budget, a little more or less: alerts are paid from a credit that grows with the budget and
  holds a day of it at most. With more than half of that left alerts may come faster, with less slower, which
  takes away what a drift of the scores would otherwise add up to. Without credit there is no alert: no `d`
  days have more than `d + 1` days' budget, whatever the model says. This is the token bucket of network
  traffic policing.
* **Partitions** do not talk to each other. Each takes of the budget what it has of the traffic: it counts its
  own rows, and the offsets that all sources have gone through, which it sees in its rows. The shares add up
  to one, however uneven they are. As keys are spread by hash, the parts have the same distribution of scores
  up to chance, and so the same threshold up to chance as one over all would be.
* **At the start**, and when another model takes over, the threshold is the one of the settings. It rises as
  soon as recent scores show that it is too low, and falls once enough time has passed to tell.
* Scores of a **stand-in** are decided by the threshold of the settings, and count nowhere.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import numpy as np

from models.arrays import Floats, Ints
from models.score_tail import BINS, ScoreTail, bins_of, score_of

STEP_MS = 3_600_000
DAY_MS = 86_400_000
_DAY_STEPS = DAY_MS // STEP_MS
#: A score of a day ago counts one half.
_DECAY = 0.5 ** (1 / _DAY_STEPS)
_NEVER = -(2**62)
#: Fewer scores above the threshold do not say that it is too low.
_EVIDENCE = 5.0
_TOLERANCE = 0.2


@dataclass(frozen=True, slots=True)
class BudgetPolicy:
    """
    :ivar alerts_per_day: over all partitions.
    :ivar partitions: among which the traffic is spread; at least one alert a day for each.
    :ivar start: threshold in [0, 1] until recent scores say better.
    """

    alerts_per_day: float
    partitions: int
    start: float

    def __post_init__(self) -> None:
        if not (math.isfinite(self.alerts_per_day) and self.alerts_per_day >= self.partitions >= 1):
            raise ValueError(
                f"{self.alerts_per_day:g} alerts a day are fewer than one for each of {self.partitions} "
                "partitions: recent scores would say too little"
            )
        if not 0.0 <= self.start <= 1.0:
            raise ValueError(f"threshold must be in [0, 1], not {self.start}")

    @property
    def name(self) -> str:
        return f"budget-{self.alerts_per_day:g}"


@dataclass(frozen=True, slots=True)
class ThresholdChange:
    """A move of the threshold of a partition, for rows from ``event_time`` on.

    :ivar event_time: epoch ms: a full step, or that of the row with which another model took over.
    :ivar version: counts the moves of this partition, from 1.
    :ivar model: whose scores it is for.
    :ivar expected: alerts a day that recent scores would have given with the former threshold, in this
        partition; None where they are of another model.
    :ivar budget: alerts a day for this partition.
    """

    event_time: int
    version: int
    threshold: float
    former: float
    model: str
    expected: float | None
    budget: float


@dataclass(slots=True)
class BudgetState:
    """What one partition knows.

    :ivar threshold: in force.
    :ivar version: of the threshold; 0 for that of the settings at the start.
    :ivar model: whose scores have been counted.
    :ivar clock: latest event time seen, epoch ms.
    :ivar until: end of the present step.
    :ivar since: from when on the present step has been counted.
    :ivar credit, spent: alerts that may be given, as of the beginning of the step; those given in it.
    :ivar rows, traffic, days: own rows, rows of all partitions and length of the earlier steps, decayed
        alike.
    :ivar present_rows: own rows in the present step.
    :ivar seen, counted: last offset seen by source, and the one up to which ``traffic`` counts.
    """

    threshold: float
    version: int = 0
    model: str = ""
    clock: int = _NEVER
    until: int = _NEVER
    since: int = _NEVER
    credit: float = 1.0
    spent: int = 0
    rows: float = 0.0
    traffic: float = 0.0
    days: float = 0.0
    present_rows: int = 0
    seen: dict[int, int] = field(default_factory=dict)
    counted: dict[int, int] = field(default_factory=dict)
    tail: ScoreTail = field(default_factory=ScoreTail)

    @property
    def left(self) -> int:
        """Alerts that may still be given in this step."""
        return max(0, int(self.credit) - self.spent)


class AlertBudget:
    """Moves the threshold of a `BudgetState` as rows come by, in the order in which they are scored."""

    def __init__(self, policy: BudgetPolicy) -> None:
        self.policy = policy

    def fresh(self) -> BudgetState:
        return BudgetState(
            self.policy.start, credit=max(1.0, self.policy.alerts_per_day / self.policy.partitions / 2)
        )

    def adopt(self, state: BudgetState, model: str, event_time: int) -> list[ThresholdChange]:
        """Scores come from this model now; those of another one say nothing about them."""
        if model == state.model:
            return []
        former, first = state.threshold, not state.model
        state.model, state.threshold = model, self.policy.start
        state.tail, state.days, state.rows, state.traffic = ScoreTail(), 0.0, 0.0, 0.0
        state.present_rows, state.since, state.counted = 0, max(event_time, state.clock), dict(state.seen)
        if first or former == state.threshold:
            return []
        state.version += 1
        return [
            ThresholdChange(
                state.since, state.version, state.threshold, former, model, None, self._budget(state)
            )
        ]

    def pass_time(self, state: BudgetState, event_time: int) -> list[ThresholdChange]:
        """A row of this event time comes, maybe as the first one of a step."""
        self._begin(state, event_time)
        state.clock = max(state.clock, event_time)
        if state.clock < state.until:
            return []
        empty = (state.clock - state.until) // STEP_MS
        self._fold(state)
        # A longer silence is an outage, not a lack of alerts.
        for _ in range(empty if empty < _DAY_STEPS else 0):
            state.since = state.until
            state.until += STEP_MS
            self._fold(state)
        state.until = state.clock - state.clock % STEP_MS + STEP_MS
        state.since = state.until - STEP_MS
        self._pay(state, 1 + empty)
        return self._judge(state)

    def count(
        self, state: BudgetState, scores: Floats, source: Ints, offset: Ints, left_out: list[int]
    ) -> Ints:
        """Rows of the present step; gives the bins i64 of the scores that count, all but those ``left_out``.

        :param source, offset: i64[n], from which source each row came and its place there.
        """
        bins = bins_of(np.delete(scores, left_out) if left_out else scores)
        state.tail.add(bins)
        state.present_rows += len(scores)
        _see(state, source, offset)
        return bins

    def pause(self, state: BudgetState, event_time: int, source: Ints, offset: Ints) -> None:
        """Rows that say nothing, the last one of this event time: neither they nor their time count."""
        self._begin(state, event_time)
        state.days += (state.clock - state.since) / DAY_MS
        state.rows += state.present_rows
        state.traffic += _unseen(state)
        state.present_rows = 0
        state.clock = state.since = max(state.clock, event_time)
        if state.clock >= state.until:
            steps = 1 + (state.clock - state.until) // STEP_MS
            state.until += steps * STEP_MS
            self._pay(state, steps)
        _see(state, source, offset)
        state.counted = dict(state.seen)

    @staticmethod
    def _begin(state: BudgetState, event_time: int) -> None:
        if state.clock == _NEVER:
            state.clock = state.since = event_time
            state.until = event_time - event_time % STEP_MS + STEP_MS

    @staticmethod
    def _fold(state: BudgetState) -> None:
        """The step is over."""
        state.tail.fold(_DECAY)
        state.rows = state.rows * _DECAY + state.present_rows
        state.traffic = state.traffic * _DECAY + _unseen(state)
        state.days = state.days * _DECAY + (state.until - state.since) / DAY_MS
        state.present_rows, state.counted = 0, dict(state.seen)

    def _budget(self, state: BudgetState) -> float:
        """Alerts a day by the part of the traffic that comes here; an equal part before any is counted."""
        share = 1.0 / self.policy.partitions
        if state.rows > 0.0:
            share = min(1.0, state.rows / max(state.traffic, state.rows))
        return self.policy.alerts_per_day * share

    def _pay(self, state: BudgetState, steps: int) -> None:
        """Credit for so many steps, and less of it for what was spent."""
        budget = self._budget(state)
        state.credit = min(max(1.0, budget), state.credit - state.spent + budget * steps / _DAY_STEPS)
        state.spent = 0

    def _judge(self, state: BudgetState) -> list[ThresholdChange]:
        budget = self._budget(state)
        pace = min(2.0, max(0.5, 2.0 * state.credit / max(1.0, budget)))
        due = budget * state.days * pace
        above = state.tail.above()
        at = BINS if state.threshold >= 1.0 else int(bins_of(np.array([state.threshold]))[0])
        found = float(above[at])
        chance = max(_TOLERANCE * due, math.sqrt(due))
        if not (found < due - chance or (found > due + chance and found >= _EVIDENCE)):
            return []
        # From bin to bin `above` falls: of the two bins around what is due, the nearer one.
        high = int(np.searchsorted(-above, -max(due, 1.0)))
        low = max(high - 1, 0)
        threshold = score_of(low if above[low] - due <= due - above[high] else high)
        if threshold == state.threshold:
            return []
        former, state.threshold = state.threshold, threshold
        state.version += 1
        expected = found / state.days
        return [ThresholdChange(state.since, state.version, threshold, former, state.model, expected, budget)]


def _unseen(state: BudgetState) -> int:
    """Rows of all partitions since ``counted``."""
    return sum(last - state.counted[source] for source, last in state.seen.items())


def _see(state: BudgetState, source: Ints, offset: Ints) -> None:
    """How far the sources have come; a new one counts from its first row here."""
    sources = set(source.tolist())
    for each in sources:
        own = offset if len(sources) == 1 else offset[source == each]
        state.counted.setdefault(each, int(own[0]) - 1)
        state.seen[each] = max(int(own.max()), state.seen.get(each, int(own[0])))
