"""A learner that notes what it is told apart, and outcomes for it."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from models.learners.feedback_delayed import FeedbackDelayedLearner
from streams.stages.columns import Columns

MATURITY = 100

#: What a learner was told: "delayed" or "feedback", transaction time, fraud, weight.
Told = tuple[str, int, bool, float]


class Apart(FeedbackDelayedLearner):
    """Notes what it is told; its only feature is the transaction's time."""

    def __init__(self, keep_one_in: int = 1) -> None:
        super().__init__(("time",), keep_one_in, {"kind": "logistic"}, {"kind": "logistic"})
        self.told: list[Told] = []

    def learn(
        self, x: np.ndarray[tuple[int], np.dtype[np.float64]], fraud: bool, weight: float = 1.0
    ) -> None:
        super().learn(x, fraud, weight)
        self.told.append(("delayed", int(x[0]), fraud, weight))

    def learn_feedback(
        self, x: np.ndarray[tuple[int], np.dtype[np.float64]], fraud: bool, weight: float = 1.0
    ) -> None:
        super().learn_feedback(x, fraud, weight)
        self.told.append(("feedback", int(x[0]), fraud, weight))


#: Time of the transaction (its id, too), when and by whom it was determined, fraud.
Given = tuple[int, int, str, bool]


def outcomes(given: Sequence[Given], *, alert: bool = True, propensity: float = 1.0) -> Columns:
    n = len(given)
    times = np.array([time for time, *_ in given], np.int64)
    return Columns(
        {},
        {
            "transaction": times.astype(np.uint64),
            "fraud": np.array([fraud for *_, fraud in given], np.bool_),
            "known_at": np.array([known_at for _, known_at, *_ in given], np.int64),
            "labelled_at": np.array([known_at for _, known_at, *_ in given], np.int64),
            "event_time": times,
            "watermark": times,
            "features": times.astype(np.float64)[:, None],
            "alert": np.full(n, alert),
            "control": np.zeros(n, np.bool_),
            "propensity": np.full(n, propensity),
        },
        {"source": [source for _, _, source, _ in given]},
    )
