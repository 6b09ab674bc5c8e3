"""The learner interface: one outcome in, a probability or a frozen scorer out."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from models.scorers.base import FrozenScorer, check_keep_one_in

Floats = NDArray[np.float64]

GOLDEN_ROWS = 16
"""How many of the last learned rows a learner remembers for a snapshot's golden vectors."""


@dataclass(frozen=True, slots=True)
class DriftEvent:
    """Something that a learner noticed about drift, or did about it.

    :ivar what: "warning", "drift", "replaced" or "dropped".
    :ivar signal: what was compared: "fraud_loss" and "genuine_loss" (shares of the largest loss that counts),
        "calibration" (outcome minus probability), or "log_loss" (nats) of the learner and of its replacement.
    :ivar before: the signal's mean before the change, or the learner's loss.
    :ivar after: the signal's mean since, or the replacement's loss.
    :ivar n_learned: outcomes learned, this one included.
    """

    what: str
    signal: str
    detector: str
    before: float
    after: float
    n_learned: int


class Learner(ABC):
    """An online binary classifier over dense feature vectors.

    A subclass has a constructor that stores its arguments, and three steps: ``_learn``, ``_score`` and
    ``freeze``. ``_score`` goes through the library learned with, mostly River; ``freeze`` gives the arrays
    that score alike to 1e-12.

    :param names: the features in feature-spec order.
    :param keep_one_in: the caller learns all frauds and one in so many genuine outcomes
        (``models.sampling``); the learner makes up for it, so that its probabilities are those of the whole
        stream.
    """

    kind: ClassVar[str]
    library: ClassVar[str] = ""
    """Module it learns with that not every installation has; empty for none."""
    extra: ClassVar[str] = ""
    """The optional extra of the project that installs it."""
    parts: ClassVar[tuple[str, ...]] = ()
    """Options that are learners of their own, each a table of a ``kind`` and its options."""
    apart: bool = False
    """Whether it learns verdicts of analysts on alerts apart: then they come to ``learn_feedback`` at once,
    and to ``learn`` when their transaction has matured."""

    probabilities: bool = True
    """Whether its scores are meant as probabilities of fraud for the whole stream, beside ranking it."""

    def __init__(self, names: Sequence[str], keep_one_in: int = 1) -> None:
        if not names or len(set(names)) != len(names):
            raise ValueError("feature names must be at least one and different")
        self.names = tuple(names)
        self.keep_one_in = check_keep_one_in(keep_one_in)
        self.n_learned = 0
        self.n_frauds = 0
        self._total_weight = 0.0
        self._reference = np.zeros(len(self.names))
        self._recent: deque[Floats] = deque(maxlen=GOLDEN_ROWS)

    def learn(self, x: Floats, fraud: bool, weight: float = 1.0) -> None:
        """Learn one outcome.

        :param x: f64[k], the features as they were when the transaction was scored; never written to or kept.
        :param weight: how much the outcome counts, on top of the sampling correction.
        :raises ValueError: wrong shape, or a feature or weight that is not finite; nothing was learned then.
        """
        self._check(x)
        if not (math.isfinite(weight) and weight >= 0.0):
            raise ValueError(f"weight must be finite and not negative, not {weight}")
        if weight == 0.0:
            return
        self._learn(x, bool(fraud), weight)
        self.n_learned += 1
        self.n_frauds += bool(fraud)
        share = weight * (1 if fraud else self.keep_one_in)
        self._total_weight += share
        # The difference is halved so that two opposite extreme values cannot overflow it.
        self._reference += (x / 2 - self._reference / 2) * (2 * share / self._total_weight)
        self._recent.append(x.copy())

    def learn_feedback(self, x: Floats, fraud: bool, weight: float = 1.0) -> None:
        """Learn what an analyst said of an alert; only for a learner that learns verdicts ``apart``.

        :param weight: the inverse of the alert's chance to be left to analysts.
        :raises ValueError: as ``learn``.
        """
        raise NotImplementedError(f"{self.kind} does not learn verdicts apart")

    def score(self, x: Floats) -> float:
        """Probability of fraud of f64[k], by the library's own prediction; changes nothing.

        :raises ValueError: wrong shape, or a feature that is not finite.
        """
        self._check(x)
        return self._score(x)

    def ready(self, seconds: float) -> bool:
        """Whether the next outcome can be learned without waiting; may wait up to ``seconds`` for that.

        A learner that works in the background says no while it has to catch up.
        """
        return True

    @abstractmethod
    def freeze(self) -> FrozenScorer:
        """The learner as it is now, as a scorer that shares nothing with it."""

    def renewed(self) -> Learner | None:
        """A copy that keeps what is known and learns faster; None for a learner that has no such form."""
        return None

    def take_events(self) -> list[DriftEvent]:
        """What has happened about drift since the last call; none for a learner that watches for none."""
        return []

    def figures(self) -> dict[str, float]:
        """Finite numbers about the learner that a version published of it carries."""
        return {}

    @property
    def reference(self) -> Floats:
        """Mean of the features over the stream learned from, f64[k]: what reasons compare with."""
        return self._reference.copy()

    @property
    def recent(self) -> Floats:
        """The last rows learned, f64[at most GOLDEN_ROWS, k]."""
        return np.array(self._recent).reshape(len(self._recent), len(self.names))

    @abstractmethod
    def _learn(self, x: Floats, fraud: bool, weight: float) -> None: ...

    @abstractmethod
    def _score(self, x: Floats) -> float: ...

    def _check(self, x: Floats) -> None:
        if x.shape != (len(self.names),) or x.dtype != np.float64:
            raise ValueError(f"expected float64[{len(self.names)}], got {x.dtype}{list(x.shape)}")
        if not np.isfinite(x).all():
            bad = [self.names[i] for i in np.flatnonzero(~np.isfinite(x))]
            raise ValueError(f"features are not finite: {', '.join(bad)}")
