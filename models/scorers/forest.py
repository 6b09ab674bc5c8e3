"""Trees and forests of Hoeffding trees.

All trees of a forest lie in one set of node arrays. A node with ``feature >= 0`` is a branch: a row goes to
``left`` when ``x[feature] <= threshold``, otherwise to ``right``, and besides to ``alternate`` when the
branch has one (Hoeffding adaptive trees). Other nodes are leaves; they give a pair of votes (genuine, fraud):
constants, or naive Bayes with one Gaussian per class and observed feature (``first`` up to ``last`` in the
``nb_*`` arrays).

The arithmetic follows River 0.26 operation by operation, so that the probabilities agree to 1e-12 even where
the log likelihoods are so large that their last bit decides.

* Domingos, Hulten: Mining high-speed data streams, KDD 2000.
* Gomes et al.: Adaptive random forests for evolving data stream classification, Machine Learning 106, 2017.
* Dal Pozzolo et al.: Calibrating probability with undersampling for unbalanced classification, SSCI 2015.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, fields
from typing import ClassVar, Self

import numpy as np
from numpy.typing import NDArray

from models.jit import kernel
from models.scorers.base import (
    Arrays,
    Floats,
    Header,
    Ints,
    ScorerArraysError,
    as_matrix,
    check_keep_one_in,
    floats,
    header_int,
    ints,
)

ABSENT, ZERO_WEIGHT, OBSERVED = 0, 1, 2
"""States of a class in a naive Bayes leaf; River gives a class of weight zero a log vote of 0."""

MAGNITUDE = 1e100
"""Values are cut at ±MAGNITUDE before naive Bayes: beyond it River's variances and log densities overflow and
raise.
"""

_HALF_LOG_TAU = 0.5 * math.log(math.tau)


@kernel
def _log_vote(
    row: Floats,
    c: int,
    prior: float,
    first: int,
    last: int,
    nb_feature: Ints,
    nb_mean: Floats,
    nb_divisor: Floats,
    nb_offset: Floats,
    two: float,
) -> float:
    vote = prior
    for t in range(first, last):
        divisor = nb_divisor[t, c]
        if divisor == 0.0:  # the class was not seen often enough to have a variance
            continue
        d = min(max(row[nb_feature[t]], -MAGNITUDE), MAGNITUDE) - nb_mean[t, c]
        square = d * d
        if square > -100.0 * divisor:
            # Far out, one unit in the last place of the square moves the result: use the C library's pow, as
            # Python does. `two` is a run-time argument, or the compiler would fold the call into d * d.
            square = d**two
        log_density = square / divisor - _HALF_LOG_TAU - nb_offset[t, c]
        if log_density > -math.inf:
            vote += log_density
    return vote


@kernel
def _score(
    x: Floats,
    root: Ints,
    tree_weight: Floats,
    feature: Ints,
    threshold: Floats,
    left: Ints,
    right: Ints,
    alternate: Ints,
    n_alternates: int,
    votes: Floats,
    error: Floats,
    bayes: Ints,
    prior: Floats,
    first: Ints,
    last: Ints,
    nb_feature: Ints,
    nb_mean: Floats,
    nb_divisor: Floats,
    nb_offset: Floats,
    normalise: bool,
    keep_one_in: float,
    two: float,
) -> Floats:
    n = x.shape[0]
    out = np.empty(n)
    stack = np.empty(n_alternates + 1, np.int32)
    for i in range(n):
        row = x[i]
        sum_genuine, sum_fraud = 0.0, 0.0
        for tree in range(len(root)):
            stack[0] = root[tree]
            depth = 1
            while depth > 0:
                depth -= 1
                node = stack[depth]
                while feature[node] >= 0:
                    if alternate[node] >= 0:
                        stack[depth] = alternate[node]
                        depth += 1
                    node = left[node] if row[feature[node]] <= threshold[node] else right[node]
                genuine, fraud = votes[node, 0], votes[node, 1]
                has_genuine, has_fraud = bayes[node, 0], bayes[node, 1]
                if has_genuine != ABSENT or has_fraud != ABSENT:
                    a, b = -math.inf, -math.inf
                    if has_genuine == ZERO_WEIGHT:
                        a = 0.0
                    elif has_genuine == OBSERVED:
                        a = _log_vote(
                            row, 0, prior[node, 0], first[node], last[node],
                            nb_feature, nb_mean, nb_divisor, nb_offset, two,
                        )  # fmt: skip
                    if has_fraud == ZERO_WEIGHT:
                        b = 0.0
                    elif has_fraud == OBSERVED:
                        b = _log_vote(
                            row, 1, prior[node, 1], first[node], last[node],
                            nb_feature, nb_mean, nb_divisor, nb_offset, two,
                        )  # fmt: skip
                    top = max(a, b)
                    if math.isinf(top):
                        genuine, fraud = 0.0, 0.0
                    else:
                        total = top + math.log(math.exp(a - top) + math.exp(b - top))
                        genuine, fraud = math.exp(a - total), math.exp(b - total)
                if error[node] > 0.0:
                    factor = (genuine + fraud) * error[node] * error[node]
                    if factor != 0.0:
                        genuine *= 1.0 / factor
                        fraud *= 1.0 / factor
                sum_genuine += genuine * tree_weight[tree]
                sum_fraud += fraud * tree_weight[tree]
        total = sum_genuine + sum_fraud
        p = sum_fraud
        if normalise:
            p = sum_fraud / total if total > 0.0 else 0.0
        p = min(p, 1.0)
        if keep_one_in > 1.0:
            p = p / (p + keep_one_in * (1.0 - p))
        out[i] = p
    return out


@kernel
def _costliest(
    root: Ints, feature: Ints, left: Ints, right: Ints, alternate: Ints, first: Ints, last: Ints
) -> int:
    """Sum over the trees of the nodes and naive Bayes terms that a row may pass, alternates included."""
    cost = np.empty(len(feature), np.int64)
    for node in range(len(feature) - 1, -1, -1):  # children and alternates come after their parent
        if feature[node] < 0:
            cost[node] = 1 + 2 * max(0, last[node] - first[node])
            continue
        cost[node] = 1 + max(cost[left[node]], cost[right[node]])
        if alternate[node] >= 0:
            cost[node] += cost[alternate[node]]
    total = 0
    for tree in range(len(root)):
        total += cost[root[tree]]
    return total


@dataclass(frozen=True, slots=True)
class ForestScorer:
    """Weighted vote of Hoeffding trees, corrected for the sampling of genuine outcomes.

    With ``normalise`` the fraud votes are divided by all votes. A single tree of River's leaves its votes as
    they are; naive Bayes far out of the training range makes them sum to something else than 1.

    Shapes, with m nodes, t trees and s naive Bayes terms: ``root``, ``tree_weight`` [t]; ``feature``,
    ``threshold``, ``left``, ``right``, ``alternate``, ``error``, ``first``, ``last`` [m]; ``votes``,
    ``bayes``, ``prior`` [m, 2]; ``nb_feature`` [s]; ``nb_mean``, ``nb_divisor``, ``nb_offset`` [s, 2]. A
    tree's parents come before its children.
    """

    kind: ClassVar[str] = "forest"

    width: int
    normalise: bool
    keep_one_in: int
    root: Ints
    tree_weight: Floats
    feature: Ints
    threshold: Floats
    left: Ints
    right: Ints
    alternate: Ints
    votes: Floats
    error: Floats
    bayes: Ints
    prior: Floats
    first: Ints
    last: Ints
    nb_feature: Ints
    nb_mean: Floats
    nb_divisor: Floats
    nb_offset: Floats

    @property
    def n_features(self) -> int:
        """Number of columns ``score`` expects."""
        return self.width

    @property
    def steps(self) -> int:
        """Most steps for a row: the costliest way through each of the trees, with the terms of its leaves."""
        return int(
            _costliest(self.root, self.feature, self.left, self.right, self.alternate, self.first, self.last)
        )

    def score(self, x: Floats) -> Floats:
        """Fraud probabilities f64[n] of f64[n, n_features]; ValueError on another shape or values not
        finite.
        """
        x = as_matrix(x, self.width)
        result: Floats = _score(
            x, self.root, self.tree_weight, self.feature, self.threshold, self.left, self.right,
            self.alternate, int((self.alternate >= 0).sum()), self.votes, self.error, self.bayes, self.prior,
            self.first, self.last, self.nb_feature, self.nb_mean, self.nb_divisor, self.nb_offset,
            self.normalise, float(self.keep_one_in), 2.0,
        )  # fmt: skip
        return result

    def to_arrays(self) -> tuple[dict[str, int | float | str], dict[str, NDArray[np.generic]]]:
        """Header and arrays for a snapshot."""
        header: dict[str, int | float | str] = {
            "width": self.width,
            "normalise": int(self.normalise),
            "keep_one_in": self.keep_one_in,
        }
        return header, {name: getattr(self, name) for name in _ARRAYS}

    @classmethod
    def from_arrays(cls, header: Header, arrays: Arrays) -> Self:
        """The inverse of ``to_arrays``; ScorerArraysError on anything else."""
        width = header_int(header, "width")
        feature = ints(arrays, "feature", [None], -1, width)
        m = len(feature)
        nb_feature = ints(arrays, "nb_feature", [None], 0, width)
        s = len(nb_feature)
        root = ints(arrays, "root", [None], 0, m)
        scorer = cls(
            width=width,
            normalise=bool(header_int(header, "normalise")),
            keep_one_in=check_keep_one_in(header_int(header, "keep_one_in")),
            root=root,
            tree_weight=floats(arrays, "tree_weight", [len(root)]),
            feature=feature,
            threshold=floats(arrays, "threshold", [m]),
            left=ints(arrays, "left", [m], -1, m),
            right=ints(arrays, "right", [m], -1, m),
            alternate=ints(arrays, "alternate", [m], -1, m),
            votes=floats(arrays, "votes", [m, 2]),
            error=floats(arrays, "error", [m]),
            bayes=ints(arrays, "bayes", [m, 2], ABSENT, OBSERVED + 1),
            prior=floats(arrays, "prior", [m, 2]),
            first=ints(arrays, "first", [m], 0, s + 1),
            last=ints(arrays, "last", [m], 0, s + 1),
            nb_feature=nb_feature,
            nb_mean=floats(arrays, "nb_mean", [s, 2]),
            nb_divisor=floats(arrays, "nb_divisor", [s, 2]),
            nb_offset=floats(arrays, "nb_offset", [s, 2]),
        )
        branch = feature >= 0
        own = np.arange(m)[branch]
        # Children after their parents: no walk can go round in a circle.
        if (scorer.left[branch] <= own).any() or (scorer.right[branch] <= own).any():
            raise ScorerArraysError("a branch must come before its children")
        alternate = scorer.alternate[branch]
        if ((alternate >= 0) & (alternate <= own)).any() or (scorer.alternate[~branch] >= 0).any():
            raise ScorerArraysError("only a branch may have an alternate, and comes before it")
        seen = np.concatenate([root, scorer.left[branch], scorer.right[branch], alternate[alternate >= 0]])
        if len(np.unique(seen)) != len(seen):
            raise ScorerArraysError("a node may be reached in one way only")
        if (scorer.votes < 0).any() or (scorer.tree_weight < 0).any() or (scorer.nb_divisor > 0).any():
            raise ScorerArraysError("votes and weights must not be negative, divisors not positive")
        return scorer


_ARRAYS = tuple(f.name for f in fields(ForestScorer) if f.name not in ("width", "normalise", "keep_one_in"))
