"""The observe core: figures by model from scored rows, outcomes and feedback."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.metrics import average_precision_score, precision_score, recall_score, roc_auc_score

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
            "alert": random.random(n) < np.where(fraud, 0.6, 0.1),
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


def test_a_canary_is_a_role_of_its_own() -> None:
    """Its scores of all rows, whichever arm decided them."""
    rows = sample(10, 1)
    rows.meta["models"] = [["champion", "a", 1], ["canary", "b", 2], ["shadow", "c", 1]]
    rows.arrays["shadows"] = np.random.default_rng(1).random((10, 2))
    scores = by_model(rows)
    assert list(scores) == ["champion", "canary", "shadow:c"]
    np.testing.assert_array_equal(scores["canary"], rows.floats("shadows")[:, 0])


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


def test_alerts_are_compared_with_what_was_said_of_them() -> None:
    """Agreement, precision and recall over the days that have matured, of alerts held back too."""
    core, days = ObserveCore(("x", "y"), 2 * DAY), [sample(1000, 1, day=day) for day in range(6)]
    for rows in days:
        core.scored(rows)
        core.outcomes(rows)
    found = core.report()["decisions"]
    # A row of a day happened an hour before it.
    matured = days[:4]
    alert, fraud = (np.concatenate([rows.bools(name) for rows in matured]) for name in ("alert", "fraud"))
    assert found["outcomes"] == len(alert)
    assert found["agreement"] == pytest.approx((alert == fraud).mean())
    assert found["precision"] == pytest.approx(precision_score(fraud, alert))
    assert found["recall"] == pytest.approx(recall_score(fraud, alert))
    assert np.isnan(ObserveCore(("x",)).report()["decisions"]["recall"])
