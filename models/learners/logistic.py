"""Logistic regression on scaled features."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray
from river import linear_model, optim, preprocessing

from models.learners.base import Learner
from models.scorers.linear import LogisticScorer

#: Outcomes after which the scale is held to be known.
_SCALED = 100


class LogisticLearner(Learner):
    """River's logistic regression on the signed logarithm of the features, standardised over the outcomes
    learned.

    Amounts, counts and ages have heavy tails; ``sign(x) log(1 + |x|)`` tames them and leaves shares and flags
    nearly as they are.

    :param learning_rate: of stochastic gradient descent.
    :param limit: standardised values are clipped to ±limit, so that one absurd value cannot wreck the
        weights, nor the scale.
    """

    kind: ClassVar[str] = "logistic"

    def __init__(
        self,
        names: Sequence[str],
        keep_one_in: int = 1,
        learning_rate: float = 0.003,
        limit: float = 20.0,
        prior: float = 0.01,
    ) -> None:
        super().__init__(names, keep_one_in)
        self.limit = limit
        self._scaler = preprocessing.StandardScaler()
        self._model = linear_model.LogisticRegression(
            optimizer=optim.SGD(learning_rate), intercept_init=math.log(prior / (1 - prior))
        )

    def _learn(self, x: NDArray[np.float64], fraud: bool, weight: float) -> None:
        logged = self._logarithm(x)
        self._scaler.learn_one(self._winsorised(logged))
        share = weight if fraud else weight * self.keep_one_in
        self._model.learn_one(self._clip(self._scaler.transform_one(logged)), fraud, w=share)

    def _score(self, x: NDArray[np.float64]) -> float:
        if self.n_learned == 0:  # River's scaler would add the features it is asked about
            return float(self._model.predict_proba_one({})[True])
        scaled = self._clip(self._scaler.transform_one(self._logarithm(x)))
        return float(self._model.predict_proba_one(scaled)[True])

    def freeze(self) -> LogisticScorer:
        """The scaling and the weights."""
        weights = self._model.weights
        means, variances = self._scaler.means, self._scaler.vars
        return LogisticScorer(
            mean=np.array([means.get(name, 0.0) for name in self.names]),
            deviation=np.array([variances.get(name, 0.0) ** 0.5 for name in self.names]),
            weight=np.array([weights.get(name, 0.0) for name in self.names]),
            intercept=float(self._model.intercept),
            limit=self.limit,
            logarithm=True,
        )

    def _logarithm(self, x: NDArray[np.float64]) -> dict[str, float]:
        return {
            name: math.copysign(math.log(1.0 + abs(v)), v)
            for name, v in zip(self.names, x.tolist(), strict=True)
        }

    def _winsorised(self, logged: dict[str, float]) -> dict[str, float]:
        """Values at most ``limit`` deviations from the mean so far: one absurd value moves the scale by which
        all others are judged no further than that.
        """
        if self.n_learned < _SCALED:
            return logged
        means, variances = self._scaler.means, self._scaler.vars
        bounded = {}
        for name, v in logged.items():
            reach = self.limit * variances[name] ** 0.5
            bounded[name] = min(max(v, means[name] - reach), means[name] + reach) if reach > 0.0 else v
        return bounded

    def _clip(self, scaled: dict[str, float]) -> dict[str, float]:
        return {name: min(max(v, -self.limit), self.limit) for name, v in scaled.items()}
