"""Snapshots that would take a worker's time, memory or name: refused when they are read, with the reason."""

from __future__ import annotations

import json
import pickle
import subprocess
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from models.learners.registry import LEARNERS
from models.scorers.boosted import BoostedScorer
from models.scorers.forest import ForestScorer
from models.scorers.rules import MOST_RULES, Rule, RulesScorer
from models.snapshot import MAX_STEPS, decode, encode, make
from models.snapshot_arrays import pack
from models.snapshot_document import SignatureError, SnapshotDamagedError, SnapshotError, digest_of
from tests.models.learner_contract import NAMES, teach

SPEC = "0123456789abcdef"
KEY = b"k" * 32
RULES = make(RulesScorer.build(["a", "b"], [Rule("a", 1.0, 2.0)]), name="rules", version=0, spec_digest=SPEC)
LEARNED = {kind: teach(LEARNERS[kind](NAMES), 900).freeze() for kind in LEARNERS}


def boosted(trees: int, depth: int) -> BoostedScorer:
    """Trees that share one chain of branches."""
    left = np.arange(1, depth + 1, dtype=np.int32)
    left[-1] = -1
    return BoostedScorer(
        width=1, base=0.0, root=np.zeros(trees, np.int32), feature=np.zeros(depth, np.int32),
        threshold=np.full(depth, 1.0), left=left, right=np.full(depth, -1, np.int32), value=np.zeros(1),
    )  # fmt: skip


def forest(trees: int, terms: int) -> ForestScorer:
    """Trees of one naive Bayes leaf; all leaves share their terms."""
    return ForestScorer(
        width=1, normalise=True, keep_one_in=1, root=np.arange(trees, dtype=np.int32),
        tree_weight=np.ones(trees), feature=np.full(trees, -1, np.int32), threshold=np.zeros(trees),
        left=np.full(trees, -1, np.int32), right=np.full(trees, -1, np.int32),
        alternate=np.full(trees, -1, np.int32), votes=np.ones((trees, 2)), error=np.zeros(trees),
        bayes=np.full((trees, 2), 2, np.int32), prior=np.zeros((trees, 2)), first=np.zeros(trees, np.int32),
        last=np.full(trees, terms, np.int32), nb_feature=np.zeros(terms, np.int32),
        nb_mean=np.zeros((terms, 2)), nb_divisor=np.full((terms, 2), -2.0), nb_offset=np.zeros((terms, 2)),
    )  # fmt: skip


def document(scorer: Any, **arrays: np.ndarray[Any, Any]) -> bytes:
    """A document whose digest is right, with some of the scorer's arrays replaced; it is never scored."""
    k = scorer.n_features
    bare = replace(
        RULES, name="m", version=1, kind=scorer.kind, n_features=k, scorer=scorer, reference=np.zeros(k),
        golden_x=np.zeros((1, 1)), golden_scores=np.zeros(1),
    )  # fmt: skip
    return redigested(json.loads(encode(bare)), {name: pack(array) for name, array in arrays.items()})


def redigested(changed: dict[str, Any], arrays: Mapping[str, object] = {}) -> bytes:
    changed["arrays"] |= arrays
    content = {name: value for name, value in changed.items() if name not in ("sha256", "signature")}
    changed["sha256"] = digest_of(content)
    return json.dumps(changed).encode()


def altered(path: str, value: object) -> bytes:
    """The rules with one field changed, the digest right again."""
    changed = json.loads(encode(RULES))
    *above, last = path.split(".")
    inner = changed
    for name in above:
        inner = inner[name]
    inner[last] = value
    return redigested(changed)


@pytest.mark.parametrize("kind", LEARNED)
def test_what_is_learned_is_far_within_the_bound(kind: str) -> None:
    """Every learner's scorer takes a small part of the steps that are allowed."""
    assert 0 < LEARNED[kind].steps < MAX_STEPS / 20


def walked(scorer: Any, row: np.ndarray[Any, Any]) -> int:
    """Steps that a row takes, tree by tree, counted one by one."""
    steps = 0
    if isinstance(scorer, BoostedScorer):
        for root in scorer.root.tolist():
            node, steps = root, steps + 1
            while node >= 0:
                right = row[scorer.feature[node]] > scorer.threshold[node]
                node, steps = int((scorer.right if right else scorer.left)[node]), steps + 1
        return steps
    waiting = scorer.root.tolist()
    while waiting:
        node, steps = waiting.pop(), steps + 1
        if scorer.feature[node] < 0:
            steps += 2 * int(scorer.last[node] - scorer.first[node])
            continue
        right = row[scorer.feature[node]] > scorer.threshold[node]
        waiting.append(int((scorer.right if right else scorer.left)[node]))
        if scorer.alternate[node] >= 0:
            waiting.append(int(scorer.alternate[node]))
    return steps


@pytest.mark.parametrize(
    "kind", [k for k, s in LEARNED.items() if isinstance(s, ForestScorer | BoostedScorer)]
)
@given(row=st.lists(st.floats(-10, 10), min_size=len(NAMES), max_size=len(NAMES)))
def test_no_row_takes_more_steps_than_said(kind: str, row: list[float]) -> None:
    """Counted by walking the trees."""
    assert 0 < walked(LEARNED[kind], np.array(row)) <= LEARNED[kind].steps


@pytest.mark.parametrize(
    ("scorer", "said"),
    [
        pytest.param(boosted(1_000_000, 1), "2000000 steps", id="a million trees"),
        pytest.param(boosted(1000, 1000), "1001000 steps", id="a thousand deep ones"),
        pytest.param(forest(1000, 1000), "2001000 steps", id="a thousand leaves of a thousand terms"),
    ],
)
def test_more_than_a_bounded_time_is_refused(scorer: Any, said: str) -> None:
    """Before a single row is scored; each has no more arrays than a snapshot may."""
    with pytest.raises(SnapshotDamagedError, match=said):
        decode(document(scorer))


def test_more_rules_than_a_batch_has_memory_for_are_refused() -> None:
    """A rule needs a number for every row of a batch."""
    rules = RulesScorer.build(["a"], [Rule("a", 1.0, 1.0)] * (MOST_RULES + 1))
    with pytest.raises(SnapshotDamagedError, match="1001 rules"):
        decode(document(rules))


CIRCLES: dict[str, Callable[[], bytes]] = {
    "boosted, to itself": lambda: document(boosted(1, 3), left=np.array([1, 1, -1], np.int32)),
    "boosted, back": lambda: document(boosted(1, 3), right=np.array([-1, -1, 0], np.int32)),
    "forest, to itself": lambda: document(
        forest(1, 0), feature=np.zeros(1, np.int32), left=np.zeros(1, np.int32), right=np.zeros(1, np.int32)
    ),
    "forest, alternate": lambda: document(
        forest(3, 0), root=np.zeros(1, np.int32), tree_weight=np.ones(1),
        feature=np.array([0, -1, -1], np.int32), left=np.array([1, -1, -1], np.int32),
        right=np.array([2, -1, -1], np.int32), alternate=np.array([0, -1, -1], np.int32),
    ),
}  # fmt: skip


@pytest.mark.parametrize("circle", CIRCLES)
def test_trees_in_which_a_row_would_never_arrive_are_refused(circle: str) -> None:
    """A shadow that hangs cannot be interrupted: none can be built."""
    with pytest.raises(SnapshotDamagedError, match="before"):
        decode(CIRCLES[circle]())


@pytest.mark.parametrize(
    "name",
    ["", "../champion", "..", "a/../b", "/etc/passwd", "file:///tmp/m", "http://169.254.169.254/latest",
     "a\nb", "A", "a b", "a\u202eb", "x" * 41, "x" * 1_000_000, "{name}", "%s"],
)  # fmt: skip
def test_names_that_lead_elsewhere_are_refused(name: str) -> None:
    """A name is a name; nothing is looked up by it, in a file system or elsewhere."""
    with pytest.raises(SnapshotDamagedError, match="no name of a model"):
        decode(altered("name", name))


@pytest.mark.parametrize("value", [10**400, -(10**400), 10**30, -(10**30), 2**63, 1e308])
@pytest.mark.parametrize(
    "field", ["version", "n_learned", "parent", "header.width", "header.base", "metrics.ap", "offsets.t/0"]
)
def test_numbers_of_any_size_are_refused_or_taken(field: str, value: object) -> None:
    """None gets through that another record could not carry, or raises anything else."""
    try:
        taken = decode(altered(field, value))
    except SnapshotError:
        return
    assert field in ("header.base", "metrics.ap")
    assert encode(taken)


def test_a_pickle_in_disguise_is_never_loaded(tmp_path: Path) -> None:
    """Alone, as an array, or as a text in a field: it is refused as what it is not, and does nothing."""
    trace = tmp_path / "trace"

    class Touch:
        def __reduce__(self) -> tuple[Callable[..., object], tuple[list[str]]]:
            return subprocess.check_call, (["touch", str(trace)],)

    pickled = pickle.dumps(Touch())
    array = json.loads(encode(RULES))["arrays"]["feature"]
    hidden = pack(np.frombuffer(pickled + bytes(-len(pickled) % 8), np.float64).copy())
    for value in (
        pickled,
        altered("arrays.feature", array | {"data": hidden["data"]}),
        altered("arrays.feature", array | {"dtype": "|O", "data": hidden["data"]}),
        altered("kind", pickled.decode("latin-1")),
        altered("header", {"width": pickled.decode("latin-1")}),
    ):
        with pytest.raises(SnapshotError):
            decode(value, SPEC)
    assert not trace.exists()
    pickle.loads(pickled)
    assert trace.exists(), "the pickle does nothing: this test shows nothing"


def test_every_single_flipped_byte_is_noticed() -> None:
    """In the header, the arrays, the digest, the signature: each byte, one bit of it after another."""
    signed = encode(make(RULES.scorer, name="m", version=1, spec_digest=SPEC, metrics={"ap": 0.5}), KEY)
    decode(signed, SPEC, KEY)
    for at in range(len(signed)):
        flipped = bytearray(signed)
        flipped[at] ^= 1 << at % 8
        with pytest.raises(SnapshotError):
            decode(bytes(flipped), SPEC, KEY)


def test_whoever_changes_a_version_and_its_digest_needs_the_key() -> None:
    """The digest is for accidents, the signature for people."""
    signed = json.loads(encode(RULES, KEY))
    signed["header"]["base"] = -9.0
    with pytest.raises(SignatureError, match="does not fit"):
        decode(redigested(signed), SPEC, KEY)
