"""LightGBM behind three functions: fit, predict, and its trees as plain arrays.

LightGBM is an optional extra and is imported when something is fitted; scoring frozen trees does without.
Models pass as the text LightGBM writes, with 17 digits a number, so nothing is lost.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from models.scorers.boosted import BoostedScorer

Floats = NDArray[np.float64]


def fit(
    rows: NDArray[np.float32],
    frauds: NDArray[np.bool_],
    weights: Floats,
    *,
    n_trees: int,
    leaves: int,
    learning_rate: float,
    min_rows: int,
    regularisation: float,
    feature_share: float,
    seed: int,
) -> str:
    """Trees fitted to f32[n, k] rows, as text; empty if all rows are of one class.

    Runs on one thread, which makes it repeatable to the bit and leaves the other cores to scoring.
    """
    if frauds.all() or not frauds.any():
        return ""
    import lightgbm

    terms = {
        "objective": "binary",
        "num_leaves": leaves,
        "learning_rate": learning_rate,
        "min_data_in_leaf": min(min_rows, max(1, int(frauds.sum()) // 2)),
        "lambda_l2": regularisation,
        "feature_fraction": feature_share,
        "seed": seed,
        "num_threads": 1,
        "deterministic": True,
        "force_row_wise": True,
        "verbose": -1,
    }
    data = lightgbm.Dataset(rows, frauds.astype(np.float64), weight=weights, params={"verbose": -1})
    text: str = lightgbm.train(terms, data, n_trees).model_to_string()
    return text


def predict(text: str, x: Floats) -> float:
    """LightGBM's own probability for one row f64[k]."""
    return float(_loaded(text).predict(x.reshape(1, -1), num_threads=1)[0])


def freeze(text: str, width: int) -> BoostedScorer:
    """The trees of a model's text as arrays.

    :raises ValueError: splits other than ``x <= threshold`` on numbers without missing values.
    """
    root: list[int] = []
    parts: dict[str, list[NDArray[np.float64]]] = {name: [] for name in _FIELDS}
    branches, leaves = 0, 0
    for block in text.split("\nTree=")[1:]:
        lines = dict(line.split("=", 1) for line in block.splitlines()[1:] if "=" in line)
        tree = {name: _numbers(lines.get(name, "")) for name in _FIELDS}
        kinds = _numbers(lines.get("decision_type", "")).astype(np.int64)
        special = int(lines.get("num_cat", "0")) or int(lines.get("is_linear", "0"))
        if special or (kinds & ~_DEFAULT_LEFT).any():
            raise ValueError("LightGBM made a split that is not on a plain number")
        root.append(branches if len(tree["threshold"]) else -1 - leaves)
        for name in ("left_child", "right_child"):
            # LightGBM writes leaf i of a tree as ~i, which is -1 - i.
            tree[name] = np.where(tree[name] >= 0, tree[name] + branches, tree[name] - leaves)
        for name, values in tree.items():
            parts[name].append(values)
        branches += len(tree["threshold"])
        leaves += len(tree["leaf_value"])
    flat = {name: np.concatenate([np.empty(0), *values]) for name, values in parts.items()}
    return BoostedScorer(
        width=width,
        base=0.0,
        root=np.array(root, np.int32),
        feature=flat["split_feature"].astype(np.int32),
        # Exactly -ZERO is zero to LightGBM: not below the threshold between the negative numbers and zero.
        threshold=np.where(flat["threshold"] == -ZERO, np.nextafter(-ZERO, -np.inf), flat["threshold"]),
        left=flat["left_child"].astype(np.int32),
        right=flat["right_child"].astype(np.int32),
        value=flat["leaf_value"],
    )


_FIELDS = ("split_feature", "threshold", "left_child", "right_child", "leaf_value")
ZERO = float(np.float32(1e-35))
"""LightGBM takes numbers of at most this magnitude for zero."""
_DEFAULT_LEFT = 2
"""Where missing values go; there are none. Other bits of a decision's type stand for categories or missing
values with a meaning.
"""


def _numbers(text: str) -> Floats:
    return np.array([float(each) for each in text.split()], np.float64)


@lru_cache(maxsize=2)
def _loaded(text: str) -> Any:
    import lightgbm

    return lightgbm.Booster(model_str=text)
