"""Weights of outcomes: what is learned of alerts is not what acting on them has made of it."""

from __future__ import annotations

import numpy as np
import pytest

from models.outcome_weights import MOST, outcome_weights

SHARE = 0.2


def test_weights_by_kind_of_outcome() -> None:
    """No alert; control group; an alert with a verdict, one without; and alerts where there is no control
    group.
    """
    alert = np.array([False, True, True, True, True, True])
    control = np.array([False, True, False, False, False, False])
    propensity = np.array([1.0, SHARE, 1 - SHARE, 1 - SHARE, 1.0, 1.0])
    judged = np.array([False, False, True, False, True, False])
    found = outcome_weights(alert, control, propensity, judged)
    assert found.tolist() == [1.0, 1 / SHARE, 1.0, 0.0, 1.0, 1.0]


def test_no_outcome_outshouts_the_others() -> None:
    """The smallest control group's outcomes have a largest weight."""
    one = np.array([True])
    assert outcome_weights(one, one, np.array([1e-6]), ~one).tolist() == [MOST]


@pytest.mark.parametrize("verdicts", [0.0, 0.5])
def test_the_share_of_frauds_among_alerts_is_that_of_a_world_without_interference(verdicts: float) -> None:
    """Blocked cards bring no fraud: unweighted, alerts look genuine; weighted, they look as they are.

    Verdicts on some of the other alerts, given by chance, change nothing.
    """
    random = np.random.default_rng(2)
    n = 200_000
    alert = random.random(n) < 0.3
    truth = random.random(n) < np.where(alert, 0.6, 0.02)
    control = alert & (random.random(n) < SHARE)
    judged = alert & ~control & (random.random(n) < verdicts)
    seen = np.where(alert & ~control & ~judged, False, truth)
    propensity = np.where(control, SHARE, np.where(alert, 1 - SHARE, 1.0))
    weight = outcome_weights(alert, control, propensity, judged)
    naive = seen[alert].mean()
    weighted = (seen * weight)[alert].sum() / weight[alert].sum()
    assert weighted == pytest.approx(0.6, abs=0.01)
    assert naive < 0.4
    assert (seen * weight)[~alert].sum() == truth[~alert].sum()
