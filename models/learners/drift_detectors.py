"""Concept drift, from what a learner said about outcomes before it learned them.

Three signals are watched. The losses of frauds and of genuine outcomes are watched apart: frauds are too few
to move a common mean, and neither mean depends on how genuine outcomes are sampled (Wang, Minku, Yao: A
learning framework for online class imbalance learning, CIEL 2013). Calibration, outcome minus probability,
is watched over both, against the probability that holds among the outcomes the sampling keeps. An outcome
counts once whatever its weight.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, Protocol

from river import drift, stats

Signal = Literal["fraud_loss", "genuine_loss", "calibration"]
SIGNALS: tuple[Signal, ...] = ("fraud_loss", "genuine_loss", "calibration")

LOSS_CAP = 7.0
"""Nats; a probability below 0.001 for what happened counts as one of 0.001: one outcome decides nothing."""
ADWIN_CLOCK = 8
"""Values between two tests: River's 32 would be nine hours of frauds at 85 a day."""


def log_loss(p: float, fraud: bool) -> float:
    """Log loss of a probability of fraud, nats, 0 to ``LOSS_CAP``."""
    given = p if fraud else 1.0 - p
    return LOSS_CAP if given <= 0.0 else min(-math.log(given), LOSS_CAP)


RECENT = 0.02
"""Share of the newest value in a signal's recent mean: about the last fifty values make it."""


@dataclass(frozen=True, slots=True)
class Shift:
    """A change of a signal's mean.

    :ivar before: mean while it seemed not to change.
    :ivar after: recent mean.
    :ivar grew: whether the mean has grown.
    """

    before: float
    after: float
    grew: bool


class Detector(Protocol):
    """Watches the mean of one signal whose values lie within [-1, 1]."""

    def update(self, value: float) -> Shift | None:
        """Take a value; the change it reveals."""
        ...


class Adwin:
    """Bifet, Gavaldà: Learning from time-changing data with adaptive windowing, SDM 2007.

    :param delta: bound on the probability that a test of a mean that has not changed finds a change.
    """

    def __init__(self, delta: float) -> None:
        self._adwin = drift.ADWIN(delta=delta, clock=ADWIN_CLOCK)
        self._recent = stats.EWMean(RECENT)

    def update(self, value: float) -> Shift | None:
        before = self._adwin.estimation
        self._adwin.update(value)
        self._recent.update(value)
        if not self._adwin.drift_detected:
            return None
        # What ADWIN has kept still holds much from before the change: it gives the direction only.
        return Shift(before, self._recent.get(), self._adwin.estimation > before)


class PageHinkley:
    """Page: Continuous inspection schemes, Biometrika 1954; on values in standard deviations.

    :param threshold: cumulative deviation, in standard deviations, that counts as a change.
    """

    TOLERATED = 0.05
    """Standard deviations by which the mean may have moved without a change."""
    SETTLING = 30
    """Values before their standard deviation is believed."""

    def __init__(self, threshold: float) -> None:
        # River's forgetting factor would pull the sum to its minimum and alarm on any long stream: none.
        self._test = drift.PageHinkley(
            min_instances=self.SETTLING, delta=self.TOLERATED, threshold=threshold, alpha=1.0, mode="both"
        )
        self._mean, self._variance = stats.Mean(), stats.Var()
        self._recent = stats.EWMean(RECENT)

    def update(self, value: float) -> Shift | None:
        before = self._mean.get()
        self._mean.update(value)
        self._variance.update(value)
        self._recent.update(value)
        deviation = math.sqrt(self._variance.get())
        if self._mean.n < self.SETTLING or deviation == 0.0:
            return None
        self._test.update((value - before) / deviation)
        if not self._test.drift_detected:
            return None
        self._mean, self._variance = stats.Mean(), stats.Var()
        after = self._recent.get()
        return Shift(before, after, after > before)


DETECTORS: dict[str, tuple[Callable[[], Detector], Callable[[], Detector]]] = {
    "adwin": (lambda: Adwin(0.01), lambda: Adwin(0.001)),
    "page_hinkley": (lambda: PageHinkley(75.0), lambda: PageHinkley(120.0)),
}
"""By name: what makes the detector of warnings, and that of drift, which is surer and later."""


@dataclass(frozen=True, slots=True)
class Finding:
    """A detector's verdict on one signal; losses are shares of ``LOSS_CAP``."""

    drift: bool
    signal: Signal
    shift: Shift


class DriftWatch:
    """A detector of warnings and one of drift for each signal.

    :param detector: one of ``DETECTORS``.
    :param keep_one_in: the sampling of the genuine outcomes that will be given.
    """

    def __init__(self, detector: str, keep_one_in: int = 1) -> None:
        if detector not in DETECTORS:
            raise ValueError(f"unknown detector {detector!r}; known are {', '.join(sorted(DETECTORS))}")
        self._keep_one_in = keep_one_in
        self._levels = {signal: [make() for make in DETECTORS[detector]] for signal in SIGNALS}

    def update(self, p: float, fraud: bool) -> list[Finding]:
        """Take the probability that was given to an outcome; what that reveals.

        Changes for the better are no finding: losses that fall, a calibration that comes nearer to 0.
        """
        # Of those kept: the inverse of models.sampling.correct_prior.
        among_kept = p * self._keep_one_in / (p * self._keep_one_in + 1.0 - p)
        loss: Signal = "fraud_loss" if fraud else "genuine_loss"
        values: tuple[tuple[Signal, float], ...] = (
            (loss, log_loss(p, fraud) / LOSS_CAP),
            ("calibration", float(fraud) - among_kept),
        )
        found = []
        for signal, value in values:
            for level, detector in enumerate(self._levels[signal]):
                shift = detector.update(value)
                if shift is not None and _worse(signal, shift):
                    found.append(Finding(level == 1, signal, shift))
        return found


def _worse(signal: Signal, shift: Shift) -> bool:
    return abs(shift.after) > abs(shift.before) if signal == "calibration" else shift.grew
