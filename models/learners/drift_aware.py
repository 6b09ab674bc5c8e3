"""A learner that notices concept drift and is replaced by one that copes better."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from models.learners.base import DriftEvent, Learner
from models.learners.drift_detectors import DriftWatch, log_loss
from models.scorers.base import FrozenScorer

Floats = NDArray[np.float64]

REPLACE_WHEN = ("better", "trained")


class PairedLosses:
    """Log losses of two learners on the same outcomes, the older ones fading.

    They fade by number of frauds, not of outcomes, so that as many frauds decide whatever their share.
    """

    HALF_LIFE = 200.0
    """Frauds in which an outcome's say is halved."""
    DEVIATIONS = 2.0
    """How sure the difference must be, in standard deviations of its sum."""

    def __init__(self) -> None:
        self._weight = self._first = self._second = self._squares = 0.0

    def update(self, first: float, second: float, fraud: bool, weight: float) -> None:
        """Take both probabilities of fraud given to an outcome that stands for ``weight`` of them."""
        if fraud:
            fade = 0.5 ** (1.0 / self.HALF_LIFE)
            self._weight *= fade
            self._first *= fade
            self._second *= fade
            self._squares *= fade * fade
        one, two = weight * log_loss(first, fraud), weight * log_loss(second, fraud)
        self._weight += weight
        self._first += one
        self._second += two
        self._squares += (one - two) ** 2

    @property
    def second_is_better(self) -> bool:
        """Whether the second learner's losses are smaller by more than chance explains."""
        return self._first - self._second > self.DEVIATIONS * math.sqrt(self._squares)

    def means(self) -> tuple[float, float]:
        """Mean log loss of both, nats; ZeroDivisionError before the first outcome."""
        return self._first / self._weight, self._second / self._weight


class DriftAwareLearner(Learner):
    """Another learner, watched for concept drift and replaced after it.

    A warning starts a second learner beside the active one: where the learner has a ``renewed`` form, that
    one, which keeps what is known and learns faster; else a fresh one. Once drift is found it takes over as
    soon as it may. One that has learned ``PATIENCE`` frauds and was not called for is dropped. Warned and
    replaced as in Gomes et al.: Adaptive random forests for evolving data stream classification, 2017; "when
    better" is the test of Bach, Maloof: Paired learners for concept drift, ICDM 2008.

    :param make: makes a fresh learner; can be pickled.
    :param detector: one of ``models.learners.drift_detectors.DETECTORS``.
    :param replace_when: "better", once its recent log loss is lower than the active one's; "trained", once it
        has learned ``min_frauds``, whether it is better or not.
    :param min_frauds: frauds a learner has learned before it is watched, compared or takes over.
    """

    kind: ClassVar[str] = "drift_aware"

    SETTLED = 1000
    """Outcomes learned before the first is watched: a young one's errors change because it learns."""
    PATIENCE = 1000
    """Frauds after which a second learner that did not take over is dropped."""

    def __init__(
        self,
        make: Callable[[], Learner],
        detector: str = "adwin",
        replace_when: str = "better",
        min_frauds: int = 30,
    ) -> None:
        active = make()
        super().__init__(active.names, active.keep_one_in)
        self.apart, self.probabilities = active.apart, active.probabilities
        if replace_when not in REPLACE_WHEN:
            raise ValueError(f"replace_when must be one of {', '.join(REPLACE_WHEN)}, not {replace_when!r}")
        if min_frauds < 1:
            raise ValueError(f"min_frauds must be at least 1, not {min_frauds}")
        self._make = make
        self._detector = detector
        self._only_better = replace_when == "better"
        self._min_frauds = min_frauds
        self._active = active
        self._watch = DriftWatch(detector, self.keep_one_in)
        self._second: Learner | None = None
        self._second_frauds = 0
        self._losses = PairedLosses()
        self._called = False
        self._counts = {"warnings": 0, "alarms": 0, "replacements": 0}
        self._events: list[DriftEvent] = []

    def learn_feedback(self, x: Floats, fraud: bool, weight: float = 1.0) -> None:
        """Both learners learn a verdict; drift is looked for in delayed outcomes, which are of the whole
        stream.
        """
        if self._second is not None:
            self._second.learn_feedback(x, fraud, weight)
        self._active.learn_feedback(x, fraud, weight)

    def ready(self, seconds: float) -> bool:
        """Whether both learners can go on."""
        second = self._second
        return self._active.ready(seconds) and (second is None or second.ready(seconds))

    def freeze(self) -> FrozenScorer:
        """The active learner as it is now."""
        return self._active.freeze()

    def take_events(self) -> list[DriftEvent]:
        events, self._events = self._events, []
        return events

    def figures(self) -> dict[str, float]:
        """Warnings, alarms (drift found) and replacements so far, beside those of the active learner."""
        drift = {f"drift_{name}": float(count) for name, count in self._counts.items()}
        return self._active.figures() | drift

    def _score(self, x: Floats) -> float:
        return self._active.score(x)

    def _learn(self, x: Floats, fraud: bool, weight: float) -> None:
        p = self._active.score(x)
        watched = self.n_learned >= self.SETTLED and self._active.n_frauds >= self._min_frauds
        compared = self._second is not None and self._second_frauds >= self._min_frauds
        if self._second is not None:
            if compared:
                share = weight if fraud else weight * self.keep_one_in
                self._losses.update(p, self._second.score(x), fraud, share)
            self._second.learn(x, fraud, weight)
            self._second_frauds += fraud
        self._active.learn(x, fraud, weight)
        if watched:
            self._look(p, fraud)
        if compared:
            self._decide()

    def _look(self, p: float, fraud: bool) -> None:
        for finding in self._watch.update(p, fraud):
            self._counts["alarms" if finding.drift else "warnings"] += 1
            shift = finding.shift
            self._note("drift" if finding.drift else "warning", finding.signal, shift.before, shift.after)
            self._called = self._called or finding.drift
            if self._second is None:
                self._second = self._active.renewed() or self._make()
                self._second_frauds, self._losses = 0, PairedLosses()

    def _decide(self) -> None:
        """Let the second learner take over, drop it, or let it go on."""
        if self._second is None:
            return
        if self._called and (self._losses.second_is_better or not self._only_better):
            self._counts["replacements"] += 1
            self._note("replaced", "log_loss", *self._losses.means())
            self._active = self._second
            # Its errors have a level of their own, which is no news.
            self._watch = DriftWatch(self._detector, self.keep_one_in)
        elif self._second_frauds >= self.PATIENCE:
            self._note("dropped", "log_loss", *self._losses.means())
        else:
            return
        self._second, self._called = None, False

    def _note(self, what: str, signal: str, before: float, after: float) -> None:
        self._events.append(DriftEvent(what, signal, self._detector, before, after, self.n_learned + 1))
