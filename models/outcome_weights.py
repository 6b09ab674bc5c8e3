"""How much an outcome teaches, when what was done about alerts changes what comes of them."""

from __future__ import annotations

import numpy as np

from models.arrays import Bools, Floats

MOST = 20.0
"""Largest weight, so that no outcome outshouts all others: truncated weights are a little biased and far less
variable (Ionides: Truncated importance sampling, JCGS 2008)."""


def outcome_weights(alert: Bools, control: Bools, propensity: Floats, judged: Bools) -> Floats:
    """The weight of each of n outcomes: f64[n].

    * Of the control group: 1 / propensity. Their outcomes came by themselves, and speak for all alerts alike
      (Horvitz and Thompson, JASA 1952).
    * Other alerts, where there is a control group: 1 with a verdict, 0 without. That no fraud was reported
      says nothing about a card that was blocked.
    * All else: 1. So without a control group nothing is weighted.

    Among alerts alike the weights do not depend on the label, but for verdicts that are given on frauds
    rather than on genuine ones; these weigh less, the more alerts the control group speaks for.

    :param propensity: chance of an alert to be treated as it is; 1 for what is no alert.
    :param judged: somebody has said whether it was a fraud.
    """
    hidden = alert & ~control & (propensity < 1.0) & ~judged
    weight = np.where(control, 1.0 / np.maximum(propensity, 1.0 / MOST), 1.0)
    return np.where(hidden, 0.0, weight)


def feedback_weights(propensity: Floats) -> Floats:
    """The weight of verdicts among verdicts: 1 / propensity, so that a verdict on an alert that would hardly
    have been left to analysts speaks for those that were not: f64[n].

    :param propensity: chance of the alert to be treated as it was.
    """
    return 1.0 / np.maximum(propensity, 1.0 / MOST)
