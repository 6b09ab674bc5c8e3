"""The backtest: one result for one history, and no label seen before its time."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

from streams.contract.transaction_columns import NEVER, TransactionColumns
from streams.history.backtest import Backtest, BacktestResult
from streams.history.backtest_report import report
from streams.stages.learn import learn_rules
from tests.streams.made_up import HOUR, SPEC, START, history, settings

N = 600


def run(
    columns: TransactionColumns,
    batch_rows: int = N,
    analysts: int = 0,
    **sections: dict[str, object],
) -> BacktestResult:
    def batches() -> Iterator[TransactionColumns]:
        for start in range(0, len(columns), batch_rows):
            yield columns.take(np.arange(start, min(start + batch_rows, len(columns))))

    return Backtest(settings(**sections), SPEC, label_delay=None, analysts=analysts).run(batches())


def test_batches_do_not_matter() -> None:
    """One batch, many, a row at a time: the same features and scores, though many rows share a minute."""
    whole = run(history(N, 1))
    assert whole.versions["logistic"] > 5
    for batch_rows in (N, 97, 10, 1):
        again = run(history(N, 1), batch_rows)
        assert again.feature_digest == whole.feature_digest
        assert again.transaction_id == whole.transaction_id
        np.testing.assert_array_equal(again.scores["logistic"], whole.scores["logistic"])
        assert (again.versions, again.learned) == (whole.versions, whole.learned)


def test_the_digest_tells_histories_apart() -> None:
    """A different amount somewhere gives another digest."""
    columns = history(N, 1)
    columns.amount_minor[300] += 1
    assert run(columns).feature_digest != run(history(N, 1)).feature_digest


def test_features_see_a_fraud_only_once_it_is_known() -> None:
    """The known-fraud share of a terminal equals the count over the raw history, label by label."""
    columns = history(N, 5)
    captured: dict[str, float] = {}
    backtest = Backtest(settings(), SPEC, label_delay=None)
    risk = SPEC.names.index("terminal_risk_3d")
    add = backtest._digest.add

    def spy(identifiers: list[str], features: np.ndarray[tuple[int, ...], np.dtype[np.float64]]) -> None:
        captured.update(zip(identifiers, features[:, risk].tolist(), strict=True))
        add(identifiers, features)

    backtest._digest.add = spy  # type: ignore[method-assign, assignment]
    result = backtest.run([columns])
    accepted, watermarks = _admitted(columns)
    alerted = dict(
        zip(result.transaction_id, result.scores["logistic"] >= settings().policy.threshold, strict=True)
    )
    seen = 0
    for row, name in enumerate(columns.transaction_id):
        time = int(columns.event_time[row])
        inside = [
            other
            for other in range(N)
            if columns.terminal_id[other] == columns.terminal_id[row]
            and accepted[other]
            and time - 78 * HOUR < columns.event_time[other] <= time - 6 * HOUR
        ]
        known = 0
        for other in inside:
            reported, matures = int(columns.labelled_at[other]), watermarks[other] + 24 * HOUR  # type: ignore[index]
            if reported == NEVER or reported > matures:
                continue
            known += (reported if alerted[columns.transaction_id[other]] else matures) <= time
        expected = known / len(inside) if inside else 0.0
        assert captured[name] == pytest.approx(expected, abs=1e-12), name
        seen += known > 0
    assert seen > 50


def _admitted(columns: TransactionColumns) -> tuple[list[bool], list[int]]:
    """By definition: a row more than an allowed lateness behind the largest time before it is late."""
    lateness = settings().time.allowed_lateness
    accepted, watermarks, watermark = [], [], 0
    for time in columns.event_time.tolist():
        accepted.append(time >= watermark - lateness)
        watermark = max(watermark, time)
        watermarks.append(watermark)
    return accepted, watermarks


def test_labels_from_after_the_end_change_nothing() -> None:
    """Scores up to a time are the same if every label known later is taken away."""
    columns = history(N, 2)
    assert columns.labelled_at is not None
    cut = START + 60 * HOUR
    hidden = columns.take(np.arange(N))
    assert hidden.labelled_at is not None
    hidden.labelled_at[hidden.labelled_at > cut] = NEVER
    whole, without = run(columns), run(hidden)
    before = whole.event_time < cut - HOUR
    np.testing.assert_array_equal(whole.scores["logistic"][before], without.scores["logistic"][before])
    assert not np.array_equal(whole.scores["logistic"], without.scores["logistic"])


def test_verdicts_of_analysts_act_from_the_next_day_on() -> None:
    """Scores are those without analysts until their first verdicts; how the rows are read changes nothing."""
    columns = history(N, 2)
    sections: dict[str, Any] = {"labels": {"maturity": "2d"}, "policy": {"threshold": 0.001}}
    without, whole = run(columns, **sections), run(columns, analysts=9, **sections)
    again = run(columns, 7, analysts=9, **sections)
    np.testing.assert_array_equal(again.scores["logistic"], whole.scores["logistic"])
    before = whole.event_time < START + 24 * HOUR
    np.testing.assert_array_equal(whole.scores["logistic"][before], without.scores["logistic"][before])
    assert not np.array_equal(whole.scores["logistic"], without.scores["logistic"])


def test_verdicts_are_learned_apart_by_champion_and_shadow() -> None:
    """Each with a learner of its own: the same scores in either place, however the rows are read; not those
    of one learner for all.
    """
    columns = history(N, 2)
    single: dict[str, Any] = {"name": "single", "kind": "logistic"}
    apart: dict[str, Any] = {
        "kind": "feedback_and_delayed",
        "options": {"min_feedback": 5, "feedback": {"kind": "logistic"}, "delayed": {"kind": "logistic"}},
    }
    first, second = {"name": "first", **apart}, {"name": "second", **apart}
    rules = {"publish_every": "6h", "min_outcomes": 0, "min_frauds": 0}
    sections: dict[str, Any] = {
        "labels": {"maturity": "2d"},
        "policy": {"threshold": 0.001},
        "models": {"champion": first, "shadows": [second, single], **rules},
    }
    whole, again = run(columns, analysts=9, **sections), run(columns, 7, analysts=9, **sections)
    for name in ("first", "second", "single"):
        np.testing.assert_array_equal(again.scores[name], whole.scores[name])
    np.testing.assert_array_equal(whole.scores["first"], whole.scores["second"])
    assert not np.array_equal(whole.scores["first"], whole.scores["single"])
    # Without a verdict there is one learner only, and it is the single one.
    quiet = run(columns, **sections | {"policy": {"threshold": 1.0}})
    np.testing.assert_array_equal(quiet.scores["first"], quiet.scores["single"])


def test_maturity_is_that_of_the_settings() -> None:
    """The learn stage and the backtest take it from labels.maturity."""
    assert learn_rules(settings(labels={"maturity": "3d"}), "0").maturity_ms == 72 * HOUR


def test_the_report_covers_its_window() -> None:
    """Counts and figures are those of the rows between the two dates."""
    result = run(history(N, 3))
    start, end = START + 24 * HOUR, START + 72 * HOUR
    document = report(result, start, end, None)
    inside = (result.event_time >= start) & (result.event_time < end)
    assert (document["transactions"], document["scored"]) == (N, N)
    assert document["evaluated"] == inside.sum()
    assert document["frauds"] == result.fraud[inside].sum()
    assert [model["name"] for model in document["models"]] == ["logistic"]
    assert 0.0 <= document["models"][0]["auc_roc"] <= 1.0


def test_an_empty_history_gives_an_empty_result() -> None:
    """No rows, no scores, and a report without figures."""
    document = report(run(history(N, 1).take(np.arange(0))), None, None, None)
    assert document["scored"] == 0
    assert document["models"][0]["auc_roc"] is None
