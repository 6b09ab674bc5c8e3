"""Logistic regression on one-hot bins of every feature and a few crosses."""

from __future__ import annotations

import copy
import math
import random
from collections import deque
from collections.abc import Sequence
from itertools import pairwise
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray
from river import linear_model, optim

from models.learners.base import Learner
from models.learners.bins import Bins, fit, layout
from models.scorers.binned import BinnedScorer

Floats = NDArray[np.float64]

FIRST_FIT = 500
"""Outcomes after which bins are fitted for the first time; until then the base rate is the score."""
REFIT_FACTOR = 4
"""Bins are fitted again whenever the number of outcomes has grown by this factor: windows fill, so quantiles
move.
"""
SAMPLE = 8192
"""Genuine rows kept for fitting, a uniform sample since the last fit (Vitter: algorithm R, 1985)."""
FRAUDS = 2048
"""Last frauds kept for fitting."""
RENEWED = 0.3
"""Share of its gradient history that a renewed copy keeps: AdaGrad's steps are 1.8 times as long."""

FINE = (
    "amount",
    "terminal_risk_24h",
    "terminal_risk_7d",
    "terminal_risk_30d",
    "terminal_seconds_since_fraud",
    "terminal_days_since_run",
    "terminal_seconds_since_outcome",
)
"""Features of the default spec that need resolution: hard limits on amounts, shares of small counts."""
CROSSES = (
    ("amount", "card_mean_30d"),
    ("amount", "card_amount_over_mean_30d"),
    ("card_amount_over_mean_30d", "card_max_7d"),
    ("terminal_risk_7d", "terminal_risk_30d"),
    ("terminal_known_frauds_7d", "terminal_seconds_since_fraud"),
    ("terminal_known_frauds_7d", "terminal_risk_24h"),
    ("terminal_genuine_since_fraud", "terminal_days_since_run"),
    ("terminal_genuine_since_fraud", "terminal_fraud_run"),
    ("terminal_fraud_run", "terminal_days_since_run"),
)
"""Pairs of features of the default spec that mean more together than alone."""


class BinnedLearner(Learner):
    """River's logistic regression with AdaGrad over one weight per bin: piecewise constant, so that no
    feature needs scaling.

    When the bins are fitted anew, every new bin inherits the weight and the gradient history of the old bin
    its middle lay in: nothing learned is lost, its resolution improves.

    :param crosses: pairs of features whose coarse bins are crossed; pairs with names that are not there are
        left out.
    :param bins: about how many bins a feature gets.
    :param fine: features that get ``fine_bins`` instead.
    :param coarse: about how many coarse bins a crossed feature gets.
    """

    kind: ClassVar[str] = "binned_logistic"

    def __init__(
        self,
        names: Sequence[str],
        keep_one_in: int = 1,
        crosses: Sequence[Sequence[str]] = CROSSES,
        bins: int = 16,
        fine: Sequence[str] = FINE,
        fine_bins: int = 256,
        coarse: int = 10,
        learning_rate: float = 0.4,
        prior: float = 0.01,
        seed: int = 7,
    ) -> None:
        super().__init__(names, keep_one_in)
        at = {name: i for i, name in enumerate(self.names)}
        self._crosses = [(at[a], at[b]) for a, b in map(tuple, crosses) if a in at and b in at]
        self._n_bins = [fine_bins if name in fine else bins for name in self.names]
        self._coarse = coarse
        self._bins: list[Bins] = []
        self._starts: list[int] = []
        self._cross_starts: list[int] = []
        self._n_weights = 0
        self._optimizer = optim.AdaGrad(learning_rate)
        self._model = linear_model.LogisticRegression(
            optimizer=self._optimizer, intercept_init=math.log(prior / (1 - prior)), intercept_lr=0.002
        )
        self._rng = random.Random(seed)
        self._waiting: list[tuple[Floats, bool, float]] = []
        self._sample: list[Floats] = []
        self._sampled = 0
        self._frauds: deque[Floats] = deque(maxlen=FRAUDS)
        self._next_fit = FIRST_FIT

    def _learn(self, x: Floats, fraud: bool, weight: float) -> None:
        self._remember(x, fraud)
        if self._bins:
            self._step(x, fraud, weight)
        else:
            self._waiting.append((x.copy(), fraud, weight))
        if self.n_learned + 1 >= self._next_fit:
            self._refit()
            self._next_fit *= REFIT_FACTOR

    def _score(self, x: Floats) -> float:
        return float(self._model.predict_proba_one(self._keys(x))[True])

    def freeze(self) -> BinnedScorer:
        """The edges and the weights as tables."""
        bins = self._bins or [Bins((), (0,)) for _ in self.names]
        crosses = self._crosses if self._bins else []
        weights: dict[int, float] = self._model.weights
        flat = np.zeros(self._n_weights if self._bins else len(self.names))
        if weights:
            flat[np.fromiter(weights.keys(), np.int64)] = np.fromiter(weights.values(), np.float64)
        n_plain = sum(len(b.coarse) for b in bins)
        return BinnedScorer(
            edges=np.array([e for b in bins for e in b.edges], np.float64),
            start=np.cumsum([0, *(len(b.edges) for b in bins)]).astype(np.int32),
            weight=flat[:n_plain].copy(),
            coarse=np.array([c for b in bins for c in b.coarse], np.int32),
            n_coarse=np.array([b.n_coarse for b in bins], np.int32),
            cross_a=np.array([a for a, _ in crosses], np.int32),
            cross_b=np.array([b for _, b in crosses], np.int32),
            cross_start=np.array(self._cross_starts if crosses else [], np.int32) - np.int32(n_plain),
            cross_weight=flat[n_plain:].copy(),
            intercept=float(self._model.intercept),
        )

    def renewed(self) -> BinnedLearner:
        """A copy with the same weights and most of the gradient history forgotten, which is what makes steps
        short.
        """
        twin = copy.deepcopy(self)
        for key in twin._optimizer.g2:
            twin._optimizer.g2[key] *= RENEWED
        return twin

    def _keys(self, x: Floats) -> dict[int, float]:
        if not self._bins:
            return {}
        found = [b.find(v) for b, v in zip(self._bins, x.tolist(), strict=True)]
        keys = dict.fromkeys((s + f for s, f in zip(self._starts, found, strict=True)), 1.0)
        for start, (a, b) in zip(self._cross_starts, self._crosses, strict=True):
            first, second = self._bins[a], self._bins[b]
            keys[start + first.coarse[found[a]] * second.n_coarse + second.coarse[found[b]]] = 1.0
        return keys

    def _step(self, x: Floats, fraud: bool, weight: float) -> None:
        self._model.learn_one(self._keys(x), fraud, w=weight if fraud else weight * self.keep_one_in)

    def _remember(self, x: Floats, fraud: bool) -> None:
        if fraud:
            self._frauds.append(x.copy())
            return
        self._sampled += 1
        if len(self._sample) < SAMPLE:
            self._sample.append(x.copy())
        elif (slot := self._rng.randrange(self._sampled)) < SAMPLE:
            self._sample[slot] = x.copy()

    def _refit(self) -> None:
        k = len(self.names)
        genuine = np.array(self._sample).reshape(-1, k)
        frauds = np.array(self._frauds).reshape(-1, k)
        old = (self._bins, self._starts, self._cross_starts)
        self._bins = [fit(genuine[:, j], frauds[:, j], self._n_bins[j], self._coarse) for j in range(k)]
        self._starts, self._cross_starts, self._n_weights = layout(self._bins, self._crosses)
        if old[0]:
            self._inherit(*old)
        self._sample, self._sampled = [], 0
        waiting, self._waiting = self._waiting, []
        for row, fraud, weight in waiting:
            self._step(row, fraud, weight)

    def _inherit(self, bins: list[Bins], starts: list[int], cross_starts: list[int]) -> None:
        """Move weights and gradient sums from the old numbering to the new one."""
        source: dict[int, int] = {}  # new key → old key
        coarse_of: list[list[int]] = []  # by feature: new coarse bin → old coarse bin
        for j, (new, before) in enumerate(zip(self._bins, bins, strict=True)):
            found = [before.find(v) for v in new.middles()]
            source.update({self._starts[j] + i: starts[j] + f for i, f in enumerate(found)})
            first = [new.coarse.index(c) for c in range(new.n_coarse)] + [len(new.coarse)]
            coarse_of.append([before.coarse[found[(a + b - 1) // 2]] for a, b in pairwise(first)])
        for c, (a, b) in enumerate(self._crosses):
            for p, old_p in enumerate(coarse_of[a]):
                for q, old_q in enumerate(coarse_of[b]):
                    new_key = self._cross_starts[c] + p * self._bins[b].n_coarse + q
                    source[new_key] = cross_starts[c] + old_p * bins[b].n_coarse + old_q
        weights: dict[int, float] = self._model.weights
        squares: dict[int, float] = dict(self._optimizer.g2)
        self._model._weights = type(self._model._weights)(
            {new: weights[o] for new, o in source.items() if o in weights}
        )
        self._optimizer.g2.clear()
        self._optimizer.g2.update({new: squares[o] for new, o in source.items() if o in squares})
