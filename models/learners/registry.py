"""Every learner shipped, by the name configuration uses."""

from __future__ import annotations

from models.learners.base import Learner
from models.learners.feedback_delayed import FeedbackDelayedLearner
from models.learners.single import SINGLE

LEARNERS: dict[str, type[Learner]] = {**SINGLE, FeedbackDelayedLearner.kind: FeedbackDelayedLearner}
