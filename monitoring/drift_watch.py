"""Drift of features and scores against a reference, each with the limit that chance alone hardly passes.

The reference is the first week of hours in which one model was champion; with another champion it starts
anew. Distances are Jensen-Shannon divergences over about 20 groups of bins with equal shares of the
reference, over the last hour and the last day. A feature beyond its limit is looked at more closely: a change
of unit, of missing values, of the range or of the values known is told apart from drift.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import numpy.typing as npt

from monitoring.drift import ks, psi
from monitoring.limits import limit
from monitoring.live_quality import STAND_IN
from monitoring.shapes import (
    BINS,
    DECADE,
    GROUPS,
    NEAR_ZERO,
    ZERO,
    Floats,
    Ints,
    Shape,
    feature_bins,
    grouped,
    labels_of,
)
from monitoring.shapes import jensen_shannon as js

Bools = npt.NDArray[np.bool_]
REFERENCE_HOURS = 168
#: Lengths of the windows that are compared, in hours.
WINDOWS = {"1h": 1, "24h": 24}
#: A window with fewer rows says nothing, nor does an hour of the reference.
FEWEST_ROWS = 100
#: More zeros by this share of rows are missing values.
NOTABLE = 0.02
#: Share and number of rows from which unseen or out-of-range values are an alarm whatever the distance; the
#: share is larger where windows of the reference have such values themselves.
_STRANGE, _STRANGE_ROWS = 0.05, 10
#: The largest divergence there is.
_MOST = 1.0
#: A change of unit explains this much of the distance, at least.
_EXPLAINED = 0.75
_CENTRES = np.sinh((np.arange(BINS) - ZERO) * (np.log(10) / DECADE)) * NEAR_ZERO


@dataclass(frozen=True, slots=True)
class Distance:
    """One figure over one window.

    Args:
        name: of the feature, or the role.
        effect: of a feature, by how much its new distribution moves the mean logit of the champion; NaN for
            scores.
        missing, out_of_range, unseen: shares of rows: 0 beyond what the reference has of it; outside of the
            reference's values; between them, where it has none.
        kind: why it is beyond its limit, empty if it is not.
        factor: of a change of unit, the power of ten.
    """

    name: str
    psi: float
    js: float
    ks: float
    limit: float
    effect: float = math.nan
    missing: float = 0.0
    out_of_range: float = 0.0
    unseen: float = 0.0
    kind: str = ""
    factor: int = 0


@dataclass(slots=True)
class Reference:
    """What is compared with.

    Args:
        model: name of the champion of that time.
        start, end: event time, epoch ms.
        features: names, in the order of the shape.
        limits: by window, of each feature; by window and role, of the scores.
        outside, unseen: by window, of each feature's shares of such values.
    """

    model: str
    start: int
    end: int
    features: tuple[str, ...]
    shape: Shape
    limits: dict[str, list[float]] = field(default_factory=dict)
    score_limits: dict[str, dict[str, float]] = field(default_factory=dict)
    outside: dict[str, list[float]] = field(default_factory=dict)
    unseen: dict[str, list[float]] = field(default_factory=dict)
    _known: _Known | None = None

    @property
    def known(self) -> _Known:
        """What is derived from the shape, computed once."""
        if self._known is None:
            self._known = _Known.of(self.shape, len(self.features))
        return self._known


@dataclass(frozen=True, slots=True)
class _Known:
    """Of F features: `labels` i64[F * BINS], the group of each bin; `expected` i64[F, GROUPS]; `inside` and
    `seen` bool[F, BINS], bins within the range and with rows; `shares` and `logits` f64[F, BINS].
    """

    labels: Ints
    expected: Ints
    inside: Bools
    seen: Bools
    shares: Floats
    logits: Floats

    @classmethod
    def of(cls, shape: Shape, features: int) -> _Known:
        counts = shape.features[0].reshape(features, BINS)
        labels = np.stack([labels_of(each) for each in counts]) + np.arange(features)[:, None] * GROUPS
        seen, inside = counts > 0, _inside(counts)
        sums = shape.features[1].reshape(features, BINS)
        mean = sums.sum(axis=1, keepdims=True) / counts.sum(axis=1, keepdims=True)
        logits = np.where(seen, sums / np.maximum(counts, 1), mean) / 1000.0
        expected = _in_groups(labels.ravel(), shape.features[0], features)
        shares = counts / counts.sum(axis=1, keepdims=True)
        return cls(labels.ravel(), expected, inside, seen, shares, logits)


def _in_groups(labels: Ints, counts: Ints, features: int) -> Ints:
    return np.bincount(labels, counts, features * GROUPS).astype(np.int64).reshape(features, GROUPS)


def champion_of(shape: Shape) -> str:
    """The one champion of a time, also while rules stood in for it; empty if there were several or none."""
    models = [role.partition(":")[2] for role in shape.scores if role.startswith("champion:")]
    names = {model.removesuffix(STAND_IN) for model in models}
    return names.pop() if len(names) == 1 else ""


def build_reference(
    model: str, features: tuple[str, ...], start: int, end: int, hours: Sequence[Shape]
) -> Reference:
    """The reference of some hours with one champion, and the limits that their own variation gives.

    Args:
        model: its name, as it was when the hours were over: what is told of them late may name another one.
    """
    whole = Shape.empty(len(features))
    for each in hours:
        whole.merge(each)
    reference = Reference(model, start, end, features, whole)
    roles = sorted(role for role in whole.scores if _learned(role) and _in_all(role, hours))
    figures = (3 * len(features) + len(roles)) * len(WINDOWS)
    # Bins without rows in any hour say nothing here.
    by_feature = [
        np.array([each.of_feature(number) for each in hours])[:, whole.of_feature(number) > 0]
        for number in range(len(features))
    ]
    for window, length in WINDOWS.items():
        reference.limits[window] = [
            limit(_daily(np.array(grouped(each.sum(axis=0), *each)[1:]), length, _divergences), figures)
            for each in by_feature
        ]
        for name, shares in (("outside", _outside), ("unseen", _unseen)):
            getattr(reference, name)[window] = [
                max(_STRANGE, limit(_daily(each, length, shares), figures)) for each in by_feature
            ]
        reference.score_limits[window] = {}
    return with_scores(reference, roles, hours)


def lacking(reference: Reference, recent: Shape) -> list[str]:
    """The models that have scored and have no reference that says anything.

    They began to score after it was made; or were still learning so much in their week that their days differ
    more than two distributions can.
    """
    limits = reference.score_limits["24h"]
    return sorted(role for role in recent.scores if _learned(role) and limits.get(role, math.inf) >= _MOST)


def with_scores(reference: Reference, roles: Sequence[str], hours: Sequence[Shape]) -> Reference:
    """The reference with the scores of these hours, and their limits, for models that scored in each.

    Rules that stand in for a model have none: the model that takes over from them is another one.
    """
    scores, limits = dict(reference.shape.scores), reference.score_limits
    figures = (3 * len(reference.features) + len(limits["24h"]) + len(roles)) * len(WINDOWS)
    added: dict[str, dict[str, float]] = {window: {} for window in WINDOWS}
    for role in roles:
        by_hour = [each.scores[role] for each in hours]
        scores[role] = np.sum(by_hour, axis=0)
        groups = np.array(grouped(scores[role], *by_hour)[1:])
        for window, length in WINDOWS.items():
            added[window][role] = limit(_daily(groups, length, _divergences), figures)
    return replace(
        reference,
        shape=Shape(reference.shape.features, scores),
        score_limits={window: limits[window] | added[window] for window in WINDOWS},
    )


def _learned(role: str) -> bool:
    return not role.endswith(STAND_IN)


def _in_all(role: str, hours: Sequence[Shape]) -> bool:
    return all(role in each.scores for each in hours)


def _daily(hours: Ints, length: int, figure: Callable[[Ints, Ints], Floats]) -> list[float]:
    """Of every day, the largest figure of a window of that many hours and of all the others together.

    Args:
        hours: rows by bin, i64[hours, bins].
        figure: of the others and of the window, each i64[windows, bins].
    """
    sums = np.concatenate([hours[:1] * 0, np.cumsum(hours, axis=0)])
    windows = sums[length:] - sums[:-length]
    rest = sums[-1] - windows
    usable = np.flatnonzero((windows.sum(axis=1) >= FEWEST_ROWS) & (rest.sum(axis=1) > 0))
    if not len(usable):
        return []
    values, days = figure(rest[usable], windows[usable]), usable // 24
    return [float(values[days == day].max()) for day in np.unique(days)]


def _inside(counts: Ints) -> Bools:
    """By row, the bins between the first and the last that have rows."""
    seen = counts > 0
    ends = np.logical_or.accumulate(seen, axis=1), np.logical_or.accumulate(seen[:, ::-1], axis=1)[:, ::-1]
    inside: Bools = ends[0] & ends[1]
    return inside


def _outside(rest: Ints, windows: Ints) -> Floats:
    """Share of rows outside of the range of the rest; of one more row, for none says nothing of the next."""
    return _share(windows, ~_inside(rest))


def _unseen(rest: Ints, windows: Ints) -> Floats:
    """Share of rows in bins within the range of the rest where that has none, of one more row."""
    return _share(windows, _inside(rest) & (rest == 0))


def _share(windows: Ints, strange: Bools) -> Floats:
    shares: Floats = ((windows * strange).sum(axis=1) + 1) / windows.sum(axis=1)
    return shares


def distances(reference: Reference, window: str, recent: Shape) -> list[Distance]:
    """One entry per feature, then per role with a reference; none where there are too few rows."""
    found = _features(reference, window, recent) if recent.rows >= FEWEST_ROWS else []
    for role, most in reference.score_limits[window].items():
        counts = recent.scores.get(role)
        if counts is not None and counts.sum() >= FEWEST_ROWS:
            expected, actual = grouped(reference.shape.scores[role], counts)
            value = js(expected, actual)
            kind = "score" if value > most else ""
            found.append(Distance(role, psi(expected, actual), value, ks(expected, actual), most, kind=kind))
    return found


def _features(reference: Reference, window: str, recent: Shape) -> list[Distance]:
    count, known = len(reference.features), reference.known
    after = recent.features[0].reshape(count, BINS)
    actual = _in_groups(known.labels, recent.features[0], count)
    rows = recent.rows
    shares = after / rows
    missing = np.maximum(shares[:, ZERO] - known.shares[:, ZERO], 0.0)
    outside = (shares * ~known.inside).sum(axis=1)
    unseen = (shares * (known.inside & ~known.seen)).sum(axis=1)
    # Of one feature alone, as associated with the score: those of features that move together do not add up.
    effects = ((shares - known.shares) * known.logits).sum(axis=1)
    indices, divergences, gaps = by_row(known.expected, actual)
    found = []
    for number, name in enumerate(reference.features):
        most = reference.limits[window][number]
        value, kind, factor = float(divergences[number]), "", 0
        if value > most:
            before = reference.shape.of_feature(number)
            strange = {
                "out_of_range": bool(outside[number] > reference.outside[window][number]),
                "unseen": bool(unseen[number] > reference.unseen[window][number]),
            }
            kind, factor = _reason(before, after[number], known.inside[number], value, most, strange)
        elif outside[number] > reference.outside[window][number] and outside[number] * rows >= _STRANGE_ROWS:
            kind = "out_of_range"
        elif unseen[number] > reference.unseen[window][number] and unseen[number] * rows >= _STRANGE_ROWS:
            kind = "unseen"
        found.append(
            Distance(
                name,
                float(indices[number]),
                value,
                float(gaps[number]),
                most,
                float(effects[number]),
                float(missing[number]),
                float(outside[number]),
                float(unseen[number]),
                kind,
                factor,
            )
        )
    return found


def by_row(expected: Ints, actual: Ints) -> tuple[Floats, Floats, Floats]:
    """PSI, Jensen-Shannon and Kolmogorov-Smirnov of two matrices of counts, row by row."""
    smooth = [(each + 0.5) / (each + 0.5).sum(axis=1, keepdims=True) for each in (expected, actual)]
    indices = ((smooth[1] - smooth[0]) * np.log(smooth[1] / smooth[0])).sum(axis=1)
    p, q = (each / each.sum(axis=1, keepdims=True) for each in (expected, actual))
    return indices, _divergences(expected, actual), np.abs(np.cumsum(p - q, axis=1)).max(axis=1)


def _divergences(expected: Ints, actual: Ints) -> Floats:
    """Jensen-Shannon divergences, row by row."""
    p, q = (each / each.sum(axis=1, keepdims=True) for each in (expected, actual))
    middle = (p + q) / 2
    logs = [np.log2(np.divide(each, middle, out=np.ones_like(each), where=each > 0)) for each in (p, q)]
    divergences: Floats = np.maximum((p * logs[0] + q * logs[1]).sum(axis=1) / 2, 0.0)
    return divergences


def _reason(
    before: Ints, after: Ints, inside: Bools, value: float, most: float, strange: Mapping[str, bool]
) -> tuple[str, int]:
    """Why the feature is beyond its limit; of a change of unit also the power of ten."""
    rows = after.sum()

    def settled(first: Ints, second: Ints) -> bool:
        """What is left differs no more than by chance, or by little of what there was."""
        if not first.sum() or not second.sum():
            return not second.sum()
        rest = js(*grouped(first, second))
        return rest <= most or rest <= value * (1 - _EXPLAINED)

    for power in (1, -1, 2, -2, 3, -3):
        if after[ZERO] < rows / 2 and settled(rescaled(before, power), after):
            return "unit_change", power
    others = np.arange(BINS) != ZERO
    if after[ZERO] / rows - before[ZERO] / before.sum() >= NOTABLE and settled(
        before * others, after * others
    ):
        return "missing", 0
    if strange["out_of_range"] and settled(before, after * inside):
        return "out_of_range", 0
    if strange["unseen"] and settled(before, after * (before > 0)):
        return "unseen", 0
    return "data", 0


def rescaled(counts: Ints, power: int) -> Ints:
    """The counts as they would be had every value been 10**power times as large."""
    moved = feature_bins(_CENTRES * 10.0**power)
    return np.bincount(moved, counts, BINS).astype(np.int64)


def ranked(found: Sequence[Distance]) -> list[Distance]:
    """By the effect on the score, largest first."""
    return sorted(found, key=lambda each: (-abs(each.effect) if each.effect == each.effect else 0, each.name))
