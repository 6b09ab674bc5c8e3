"""Gradient-boosted trees, refitted in the background on a sliding window of outcomes."""

from __future__ import annotations

import math
import threading
from collections.abc import Sequence
from concurrent.futures import Future, wait
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from models.learners.base import Learner
from models.learners.boosting import fit, freeze, predict
from models.scorers.boosted import BoostedScorer

Floats = NDArray[np.float64]

FIRST_FIT = 500
"""Outcomes after which trees are fitted for the first time; until then the base rate is the score."""
GROWTH = 1.5
"""Until fits are ``refit_every`` apart, the next one comes when the outcomes have grown by this factor."""
MAGNITUDE = 1e30
"""Values are cut at ±MAGNITUDE in the window, which holds single precision."""


class BoostedLearner(Learner):
    """LightGBM's gradient-boosted trees on the last outcomes.

    Online learning by refitting: the last ``window`` outcomes learned are kept, and every ``refit_every`` of
    them trees are fitted to all of them, genuine ones weighted by ``keep_one_in``. A fit runs in a thread of
    its own, on one core. Its trees take over after another quarter of ``refit_every`` outcomes, not when it
    happens to be done: what is scored does not depend on how fast a machine is. Who must not be blocked asks
    ``ready`` before learning.

    Ke et al.: LightGBM: a highly efficient gradient boosting decision tree, NIPS 2017.

    :param window: outcomes kept; each takes 4 bytes a feature, in the checkpoint too.
    :param refit_every: outcomes between two fits.
    :param n_trees: trees of at most ``leaves`` leaves, each of at least ``min_rows`` outcomes.
    """

    kind: ClassVar[str] = "boosted_trees"
    library: ClassVar[str] = "lightgbm"
    extra: ClassVar[str] = "boosting"

    def __init__(
        self,
        names: Sequence[str],
        keep_one_in: int = 10,
        window: int = 100_000,
        refit_every: int = 4_000,
        n_trees: int = 200,
        leaves: int = 15,
        learning_rate: float = 0.05,
        min_rows: int = 50,
        regularisation: float = 5.0,
        feature_share: float = 1.0,
        prior: float = 0.01,
        seed: int = 7,
    ) -> None:
        super().__init__(names, keep_one_in)
        if window < FIRST_FIT or refit_every < 4:
            raise ValueError(f"window must be at least {FIRST_FIT} and refit_every at least 4")
        if not 0.0 < prior < 1.0:
            raise ValueError(f"prior must lie between 0 and 1, not {prior}")
        self.window, self.refit_every, self.prior = window, refit_every, prior
        self._terms: dict[str, Any] = {
            "n_trees": n_trees,
            "leaves": leaves,
            "learning_rate": learning_rate,
            "min_rows": min_rows,
            "regularisation": regularisation,
            "feature_share": feature_share,
            "seed": seed,
        }
        self._rows = np.empty((0, len(self.names)), np.float32)
        self._frauds = np.empty(0, np.bool_)
        self._weights = np.empty(0)
        self._seen = 0
        self._text = ""  # the trees in use, as LightGBM writes them
        self._started = -1  # the value of _seen at which the running fit began; -1 for none
        self._adopt_at = 0
        self._next_fit = FIRST_FIT
        self._fit: Future[str] | None = None

    def ready(self, seconds: float) -> bool:
        """Whether the next outcome can be learned without waiting for a fit; waits up to ``seconds``."""
        if self._started < 0 or self._seen + 1 < self._adopt_at:
            return True
        return bool(wait([self._running()], seconds).done)

    def freeze(self) -> BoostedScorer:
        """The trees in use; before the first fit, the base rate."""
        return freeze(self._text, len(self.names)) if self._text else self._base_rate()

    def _learn(self, x: Floats, fraud: bool, weight: float) -> None:
        if self._started >= 0 and self._seen + 1 >= self._adopt_at:
            self._adopt()
        self._keep(x, fraud, weight if fraud else weight * self.keep_one_in)
        if self._seen >= self._next_fit:
            gap = max(1, min(self.refit_every, int(self._seen * (GROWTH - 1))))
            self._started, self._adopt_at = self._seen, self._seen + max(1, gap // 4)
            self._next_fit = self._seen + gap
            self._running()

    def _score(self, x: Floats) -> float:
        if not self._text:
            return float(self._base_rate().score(x.reshape(1, -1))[0])
        return predict(self._text, x)

    def _adopt(self) -> None:
        """The trees of the running fit take over; if it failed, those before stay.

        :raises ValueError: it failed.
        """
        running, self._fit, self._started = self._running(), None, -1
        try:
            self._text = running.result()
        except Exception as error:  # whatever the library raises
            raise ValueError(f"trees could not be fitted: {error}") from error

    def _keep(self, x: Floats, fraud: bool, weight: float) -> None:
        """Into the ring, which has room for the rows that come while a fit is running."""
        capacity = self.window + self.refit_every
        if self._seen == len(self._frauds) < capacity:
            size = min(capacity, max(1024, 2 * self._seen))
            self._rows = np.resize(self._rows, (size, len(self.names)))
            self._frauds = np.resize(self._frauds, size)
            self._weights = np.resize(self._weights, size)
        at = self._seen % capacity
        self._rows[at] = np.clip(x, -MAGNITUDE, MAGNITUDE)
        self._frauds[at] = fraud
        self._weights[at] = weight
        self._seen += 1

    def _running(self) -> Future[str]:
        """The fit begun at ``_started``; begun anew where a checkpoint had interrupted it."""
        if self._fit is None:
            at = np.arange(max(0, self._started - self.window), self._started)
            at %= self.window + self.refit_every
            window = self._rows[at], self._frauds[at], self._weights[at]
            self._fit = Future()
            # A daemon: a worker that ends does not wait for trees it will never use.
            threading.Thread(target=_run, args=(self._fit, window, self._terms), daemon=True).start()
        return self._fit

    def _base_rate(self) -> BoostedScorer:
        """The share of frauds by weight, the prior counting for one outcome."""
        share = self._weights[: self._seen]
        bad = float(share[self._frauds[: self._seen]].sum()) + self.prior
        good = float(share.sum()) + 1.0 - bad
        none, empty = np.empty(0), np.empty(0, np.int32)
        return BoostedScorer(
            len(self.names), math.log(bad / good), empty, empty, none, empty, empty.copy(), none.copy()
        )

    def __getstate__(self) -> dict[str, Any]:
        """All but the running fit, which begins anew on the same rows and gives the same trees."""
        held = min(self._seen, len(self._frauds))
        arrays = {name: getattr(self, name)[:held].copy() for name in ("_rows", "_frauds", "_weights")}
        return self.__dict__ | arrays | {"_fit": None}


def _run(
    future: Future[str],
    window: tuple[NDArray[np.float32], NDArray[np.bool_], Floats],
    terms: dict[str, Any],
) -> None:
    try:
        future.set_result(fit(*window, **terms))
    except BaseException as error:  # whoever waits is told
        future.set_exception(error)
