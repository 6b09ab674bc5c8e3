"""The observe core: figures by model from scored rows, outcomes and feedback."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.metrics import average_precision_score, roc_auc_score

from streams.stages.columns import Columns, ColumnsError
from streams.stages.observe import ObserveCore, by_model
from streams.times import DAY, HOUR
from tests.streams.made_up import START


def sample(n: int, seed: int, *, day: int = 0) -> Columns:
    """Scored rows that are outcomes too: the champion knows something, the shadow nothing."""
    random = np.random.default_rng(seed)
    fraud = random.random(n) < 0.2
    shadow = random.random((n, 1))
    shadow[::3] = np.nan
    return Columns(
        {"watermark": START + day * DAY, "models": [["champion", "a", 1], ["shadow", "b", 2]]},
        {
            "event_time": np.full(n, START + day * DAY - HOUR),
            "card": random.integers(0, 50, n).astype(np.uint64),
            "features": random.normal(size=(n, 2)),
            "champion": np.clip(0.4 * fraud + 0.6 * random.random(n), 0, 1),
            "shadows": shadow,
            "fraud": fraud,
            "watermark": np.full(n, START + day * DAY),
            "alert": fraud,
            "control": np.zeros(n, np.bool_),
            "propensity": np.ones(n),
        },
        {},
    )


def test_quality_is_that_of_the_outcomes() -> None:
    """AP and AUC are scikit-learn's up to the sketch's bins, by model; NaN scores are left out."""
    core, rows = ObserveCore(("x", "y")), sample(2000, 1)
    core.scored(rows)
    core.outcomes(rows)
    quality = core.report()["quality"]
    truth, champion = rows.bools("fraud"), rows.floats("champion")
    assert quality["champion"]["outcomes"] == 2000
    assert quality["champion"]["frauds"] == truth.sum()
    assert quality["champion"]["average_precision"] == pytest.approx(
        average_precision_score(truth, champion), abs=0.02
    )
    assert quality["champion"]["roc_auc"] == pytest.approx(roc_auc_score(truth, champion), abs=0.01)
    assert quality["shadow:b"]["outcomes"] == np.isfinite(rows.floats("shadows")).sum()


def test_rows_without_scores_give_nothing() -> None:
    """A message without rows has no models; one without a watermark is not of this system."""
    assert by_model(Columns({"watermark": 1})) == {}
    with pytest.raises(ColumnsError):
        ObserveCore(("x", "y")).scored(Columns())


def test_the_funnel_counts_feedback() -> None:
    """Alerts shown and confirmed appear in the report."""
    core = ObserveCore(("x", "y"))
    core.scored(sample(10, 2))
    for action in ("shown", "opened", "confirmed"):
        core.feedback("alert", action, START)
    report = core.report()
    assert report["alert_precision"] == 1.0
    assert report["event_time"] == START
