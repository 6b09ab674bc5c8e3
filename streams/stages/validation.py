"""A version judged on stored outcomes before it may score beside the champion.

It scores the features that were scored then; the champion's scores of then are what it is compared with. The
outcomes at hand are those of whatever has been decided lately, verdicts on alerts among them, so that label
figures are rougher than those of the gates on live rows.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from dataclasses import replace

import numpy as np
import numpy.typing as npt

from models.gates import NAN, Judgement, Limits, judge
from models.snapshot import Snapshot
from monitoring.live_quality import BINS, logit_bins
from monitoring.tallies import Tally, add
from streams.stages.columns import Columns
from streams.stages.observing.gate_figures import PairDay, commonest, evidence, output_figures, side_by_side
from streams.times import DAY

#: In smaller batches the time is all overhead.
_ROWS_TIMED = 32

Floats = npt.NDArray[np.float64]


def validate(
    snapshot: Snapshot,
    outcomes: Iterable[Columns],
    *,
    threshold: float,
    limits: Limits,
    clock: Callable[[], float] = time.perf_counter,
) -> Judgement:
    """What the gates say of a version on these outcomes; those of another feature spec are left out."""
    tally: Tally = {}
    shapes = np.zeros((2, BINS), dtype=np.int64)
    # One sum, not one a day: stamps may lie on any day of a century.
    whole, days = PairDay(), set[int]()
    for rows in outcomes:
        if not len(rows) or rows.meta.get("spec") != snapshot.spec_digest:
            continue
        champion = rows.floats("champion")
        began = clock()
        scores = _scores(snapshot, rows.floats("features"))
        spent = (clock() - began) / len(rows) if len(rows) >= _ROWS_TIMED else NAN
        took = np.tile([spent, 0.0], (len(rows), 1))
        counted = side_by_side(scores, champion, threshold, took)
        add(tally, {name: int(values.sum()) for name, values in counted.items()})
        for shape, each in zip(shapes, (scores, champion), strict=True):
            shape += np.bincount(logit_bins(each[np.isfinite(each)]), minlength=BINS)
        whole.add(rows.bools("fraud"), scores, champion, threshold)
        days.update(np.unique(rows.ints("event_time") // DAY).tolist())
    output = output_figures(tally, (commonest(shapes[0]), commonest(shapes[1])))
    return judge(replace(evidence(output, [whole]), days=float(len(days))), limits)


def _scores(snapshot: Snapshot, features: Floats) -> Floats:
    """NaN where the version gives no probability, everywhere where it raises."""
    try:
        scores = np.asarray(snapshot.scorer.score(features), np.float64).reshape(len(features))
    except Exception:  # whatever it does, it is judged by it
        return np.full(len(features), np.nan)
    return np.where((scores >= 0.0) & (scores <= 1.0), scores, np.nan)
