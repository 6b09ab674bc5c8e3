"""PSI and the Kolmogorov-Smirnov distance of counts."""

from __future__ import annotations

import math

import numpy as np
import pytest

from monitoring.drift import ks, psi


def test_psi_and_ks_of_known_counts() -> None:
    """Both equal their textbook values on hand-made counts, up to the half count of smoothing."""
    reference, recent = np.array([50_000, 50_000]), np.array([75_000, 25_000])
    expected = 0.25 * math.log(0.75 / 0.5) - 0.25 * math.log(0.25 / 0.5)
    assert psi(reference, recent) == pytest.approx(expected, abs=1e-4)
    assert ks(reference, recent) == pytest.approx(0.25)
    assert psi(reference, 2 * reference) == pytest.approx(0.0, abs=1e-9)
    assert math.isnan(psi(reference, 0 * reference))
    assert math.isnan(ks(0 * reference, recent))
