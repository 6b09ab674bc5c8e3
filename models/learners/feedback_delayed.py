"""Verdicts of analysts and delayed labels learned apart, and the two opinions combined."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import ClassVar

from models.learners.base import Floats, Learner
from models.learners.single import SINGLE
from models.scorers.mean import MeanScorer

Options = Mapping[str, bool | int | float | str]

DEFAULT = "binned_logistic"


class FeedbackDelayedLearner(Learner):
    """Two learners: one learns what analysts said of alerts, the other what became known of all transactions
    in time. The score is the weighted mean of their probabilities.

    Verdicts are few, early, and about alerts only; delayed labels are many, about everything, and late. In
    one training set the many drown the few. Dal Pozzolo, Boracchi, Caelen, Alippi, Bontempi: Credit card
    fraud detection and concept-drift adaptation with delayed supervised information, IJCNN 2015; Credit card
    fraud detection: a realistic modeling and a novel learning strategy, IEEE TNNLS 29, 2018.

    The delayed learner learns every transaction once, by what is known when it has matured, those with a
    verdict included. A verdict that is contradicted later is corrected for the learner of verdicts as well:
    it is to learn which alerts are frauds, not how analysts err.

    :param feedback: ``kind`` and options of the learner of verdicts; it samples nothing.
    :param delayed: the same of the other one.
    :param feedback_weight: the weight of the former, in [0, 1]; one half in both papers.
    :param min_feedback: verdicts learned before they have any weight.
    """

    kind: ClassVar[str] = "feedback_and_delayed"
    apart = True
    probabilities = False
    parts: ClassVar[tuple[str, ...]] = ("feedback", "delayed")

    def __init__(
        self,
        names: Sequence[str],
        keep_one_in: int = 1,
        feedback: Options | None = None,
        delayed: Options | None = None,
        feedback_weight: float = 0.5,
        min_feedback: int = 100,
    ) -> None:
        super().__init__(names, keep_one_in)
        if not 0.0 <= feedback_weight <= 1.0:
            raise ValueError(f"feedback_weight must lie between 0 and 1, not {feedback_weight}")
        if min_feedback < 0:
            raise ValueError(f"min_feedback must not be negative, not {min_feedback}")
        self.feedback_weight, self.min_feedback = float(feedback_weight), min_feedback
        self._feedback = _part(feedback or {}, names, 1)
        self._delayed = _part(delayed or {}, names, keep_one_in)

    def learn_feedback(self, x: Floats, fraud: bool, weight: float = 1.0) -> None:
        """Learn a verdict."""
        self._feedback.learn(x, fraud, weight)

    def ready(self, seconds: float) -> bool:
        """Whether both can go on."""
        return self._feedback.ready(seconds) and self._delayed.ready(seconds)

    def freeze(self) -> MeanScorer:
        """Both as they are now, with the weight that verdicts have now."""
        return MeanScorer(self._feedback.freeze(), self._delayed.freeze(), self._weight)

    def figures(self) -> dict[str, float]:
        """Verdicts learned, and the frauds among them."""
        return {
            "feedback_learned": float(self._feedback.n_learned),
            "feedback_frauds": float(self._feedback.n_frauds),
        }

    @property
    def _weight(self) -> float:
        return self.feedback_weight if self._feedback.n_learned >= self.min_feedback else 0.0

    def _learn(self, x: Floats, fraud: bool, weight: float) -> None:
        self._delayed.learn(x, fraud, weight)

    def _score(self, x: Floats) -> float:
        weight = self._weight
        return weight * self._feedback.score(x) + (1.0 - weight) * self._delayed.score(x)


def _part(options: Options, names: Sequence[str], keep_one_in: int) -> Learner:
    terms = dict(options)
    kind = terms.pop("kind", DEFAULT)
    if kind not in SINGLE:
        raise ValueError(f"unknown kind {kind!r}; known are {', '.join(sorted(SINGLE))}")
    make: type[Learner] = SINGLE[str(kind)]
    return make(names, keep_one_in, **terms)
