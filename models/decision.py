"""The decision about scored rows: threshold, cooldown of the card, budget, control group.

Pure: the same rows in the same order give the same decisions however they are cut into batches. Time is the
watermark at which a row was admitted, never its own stamp, which may be odd.

1. Rows with a score at or above their threshold are would-be alerts.
2. Of those, one within the **cooldown** of its card, or without **credit** in the budget, is suppressed: no
   alert.
3. An alert of a card of the **control group** is marked.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from models.alert_budget import AlertBudget, BudgetPolicy, BudgetState, ThresholdChange
from models.arrays import Bools, Floats, Ints, Words
from models.control_group import ControlGroup
from models.policy import AlertNames, CostPolicy, ThresholdPolicy

COOLDOWN, BUDGET = "cooldown", "budget"
SUPPRESSED = (COOLDOWN, BUDGET)
"""Why a would-be alert is none."""

_NEVER = -(2**62)
#: Cards whose cooldown is remembered in a partition.
MOST_COOLING = 100_000


@dataclass(frozen=True, slots=True)
class ScoredRows:
    """n rows as the champion, or the stand-in, has scored them.

    :ivar scores: f64[n] in [0, 1].
    :ivar watermark: i64[n], epoch ms.
    :ivar source, offset: i64[n], the partition that a row was published to and its place there.
    :ivar model: whose scores are comparable with each other: a model's name.
    :ivar stood_in: the champion failed, and something else has scored this batch.
    """

    scores: Floats
    card: Words
    card_id: Sequence[str]
    watermark: Ints
    source: Ints
    offset: Ints
    amount_minor: Ints
    currency: Sequence[str]
    model: str
    stood_in: bool = False


@dataclass(slots=True)
class DecisionState:
    """What one partition remembers.

    :ivar clock: latest watermark seen, epoch ms.
    :ivar cooling: until when (epoch ms) a card raises no other alert, by its hash, soonest first.
    :ivar budget: of a policy with a budget, from its first rows on.
    """

    clock: int = _NEVER
    cooling: dict[int, int] = field(default_factory=dict)
    budget: BudgetState | None = None

    def forget(self) -> None:
        """Cards that have cooled down, and the oldest ones beyond `MOST_COOLING`."""
        while self.cooling:
            card = next(iter(self.cooling))
            if self.cooling[card] > self.clock and len(self.cooling) <= MOST_COOLING:
                break
            del self.cooling[card]


@dataclass(slots=True)
class Decided:
    """What became of n rows, and what changed by it.

    :ivar threshold: f64[n], in force for each row.
    :ivar propensity: f64[n], chance of a row to be treated as it is; 1 for what raises no alert.
    :ivar suppressed: would-be alerts by the reason why they are none.
    :ivar stepped: the budget's state has changed by more than ``bins``.
    :ivar bins: i64, the scores that the budget has counted, as bins of `score_tail`.
    :ivar cooled: hash and end of cooldown of the cards that have raised an alert.
    """

    threshold: Floats
    alert: Bools
    control: Bools
    propensity: Floats
    suppressed: dict[str, int] = field(default_factory=dict)
    changes: list[ThresholdChange] = field(default_factory=list)
    stepped: bool = False
    bins: list[Ints] = field(default_factory=list)
    cooled: list[tuple[int, int]] = field(default_factory=list)


class DecisionPolicy:
    """A threshold policy with what is laid over it.

    :param cooldown_ms: event time after an alert in which its card raises no other one; 0 for none.
    """

    def __init__(
        self,
        threshold: ThresholdPolicy | CostPolicy | BudgetPolicy,
        *,
        cooldown_ms: int = 0,
        control: ControlGroup | None = None,
    ) -> None:
        self.name = threshold.name
        self.alert_id = AlertNames(threshold.name)
        self.control = control
        self._cooldown_ms = cooldown_ms
        self._fixed = None if isinstance(threshold, BudgetPolicy) else threshold
        self._start = threshold.start
        self._budget = AlertBudget(threshold) if isinstance(threshold, BudgetPolicy) else None
        #: whether decisions depend on earlier rows
        self.remembers = bool(cooldown_ms or self._budget)

    def threshold(self, state: DecisionState) -> float:
        """In force for the next rows; that of the settings where each row has its own."""
        if self._budget is not None and state.budget is not None:
            return state.budget.threshold
        return self._start

    def decide(self, state: DecisionState, rows: ScoredRows) -> Decided:
        """Decide about rows in the order in which they are scored; moves ``state``."""
        if self._budget is None:
            assert self._fixed is not None
            threshold = self._fixed.thresholds(rows.amount_minor, rows.currency)
        else:
            threshold = np.full(len(rows.scores), self._start)
        n = len(threshold)
        decided = Decided(threshold, rows.scores >= threshold, np.zeros(n, np.bool_), np.ones(n))
        if self.remembers and n:
            clock = np.maximum(np.maximum.accumulate(rows.watermark), state.clock)
            state.clock = int(clock[-1])
            if self._budget is None:
                self._raise(state, decided, rows, clock, 0, n)
            else:
                self._within_budget(state, decided, rows, clock, self._budget)
            state.forget()
        if self.control is not None:
            for row in np.flatnonzero(decided.alert).tolist():
                held = self.control.holds(rows.card_id[row])
                decided.control[row], decided.propensity[row] = held, self.control.propensity(held)
        return decided

    def _within_budget(
        self, state: DecisionState, decided: Decided, rows: ScoredRows, clock: Ints, control: AlertBudget
    ) -> None:
        """Step after step of event time, as the threshold may move from one to the next."""
        budget = state.budget
        if budget is None:
            budget = state.budget = control.fresh()
        n = len(clock)
        if rows.stood_in:
            control.pause(budget, int(clock[-1]), rows.source, rows.offset)
            self._raise(state, decided, rows, clock, 0, n)
            return
        version = budget.model, budget.until
        decided.changes += control.pass_time(budget, int(clock[0]))
        decided.changes += control.adopt(budget, rows.model, int(clock[0]))
        start = 0
        while start < n:
            decided.changes += control.pass_time(budget, int(clock[start]))
            stop = n if clock[-1] < budget.until else int(np.searchsorted(clock, budget.until))
            part = slice(start, stop)
            decided.threshold[part] = budget.threshold
            decided.alert[part] = rows.scores[part] >= budget.threshold
            cooling = self._raise(state, decided, rows, clock, start, stop)
            decided.bins.append(
                control.count(budget, rows.scores[part], rows.source[part], rows.offset[part], cooling)
            )
            budget.clock = int(clock[stop - 1])
            start = stop
        decided.stepped = version != (budget.model, budget.until)

    def _raise(
        self, state: DecisionState, decided: Decided, rows: ScoredRows, clock: Ints, start: int, stop: int
    ) -> list[int]:
        """Would-be alerts among rows ``start`` to ``stop``, one after the other.

        :returns: those of them whose card was cooling, counted from ``start``.
        """
        budget = state.budget if self._budget is not None else None
        span = self._cooldown_ms
        held = []
        for row in (start + np.flatnonzero(decided.alert[start:stop])).tolist():
            card, now = int(rows.card[row]), int(clock[row])
            reason = ""
            if span and state.cooling.get(card, _NEVER) > now:
                reason = COOLDOWN
                held.append(row - start)
            elif budget is not None and not budget.left:
                reason = BUDGET
            if reason:
                decided.alert[row] = False
                decided.suppressed[reason] = decided.suppressed.get(reason, 0) + 1
                continue
            if budget is not None:
                budget.spent += 1
            if span:
                state.cooling.pop(card, None)
                state.cooling[card] = now + span
                decided.cooled.append((card, now + span))
        return held
