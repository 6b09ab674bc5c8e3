"""The decision: which scores are alerts, and what an alert is called."""

from __future__ import annotations

import hashlib
import math
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True, slots=True)
class ThresholdPolicy:
    """Alert when the score is at or above ``threshold`` (a probability in [0, 1]).

    ``version`` names the policy; it changes with the threshold unless it is given.
    """

    threshold: float
    version: str = ""
    _prefix: bytes = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        if not (math.isfinite(self.threshold) and 0.0 <= self.threshold <= 1.0):
            raise ValueError(f"threshold must be in [0, 1], not {self.threshold}")
        if not self.version:
            object.__setattr__(self, "version", f"threshold-{self.threshold!r}")
        name = self.version.encode()
        # The length first: no version and transaction can run together into those of another alert.
        object.__setattr__(self, "_prefix", len(name).to_bytes(4, "big") + name)

    def decide(self, scores: NDArray[np.float64]) -> NDArray[np.bool_]:
        """Which of the scores f64[n] are alerts: bool[n]."""
        return np.asarray(scores >= self.threshold, np.bool_)

    def alert_id(self, transaction_id: str) -> str:
        """32 hexadecimal digits that depend on the transaction and the version of the policy only.

        A replayed alert is therefore the same alert, whichever model scored it.
        """
        return hashlib.blake2b(self._prefix + transaction_id.encode(), digest_size=16).hexdigest()
