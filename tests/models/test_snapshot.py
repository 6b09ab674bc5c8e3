"""Snapshots: the round trip, and bytes that are not what they should be."""

from __future__ import annotations

import base64
import json
import zlib
from dataclasses import fields
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from models import snapshot_arrays, snapshot_document
from models.learners.registry import LEARNERS
from models.scorers.kinds import KINDS
from models.scorers.registry import SCORERS
from models.scorers.rules import Rule, RulesScorer
from models.snapshot import Snapshot, decode, encode, make
from models.snapshot_document import (
    GoldenMismatchError,
    SignatureError,
    SnapshotDamagedError,
    SnapshotError,
    SnapshotHeader,
    SpecMismatchError,
    UnknownScorerError,
    digest_of,
    read_header,
)
from tests.models.learner_contract import NAMES, teach, unseen

SPEC = "0123456789abcdef"


def of_learner(kind: str) -> Snapshot:
    learner = teach(LEARNERS[kind](NAMES), 900)
    return make(
        learner.freeze(),
        name=kind.replace("_", "-"),
        version=3,
        spec_digest=SPEC,
        created_at_event_time=1_530_000_000_000,
        n_learned=learner.n_learned,
        reference=learner.reference,
        golden_x=learner.recent,
        n_frauds=4,
        parent=2,
        libraries={"river": "0.26.1"},
        offsets={"outcomes/0": 17},
        metrics={"average_precision": 0.5},
    )


SNAPSHOTS = {kind: of_learner(kind) for kind in LEARNERS}
RULES = make(RulesScorer.build(["a", "b"], [Rule("a", 1.0, 2.0)]), name="rules", version=0, spec_digest=SPEC)
ENCODED = encode(RULES)


def changed(path: list[str], value: object, *, drop: bool = False, resign: bool = True) -> bytes:
    """The rules snapshot with one field changed, its digest made right again."""
    document: dict[str, Any] = json.loads(ENCODED)
    inner = document
    for key in path[:-1]:
        inner = inner[key]
    if drop:
        del inner[path[-1]]
    else:
        inner[path[-1]] = value
    if resign and path != ["sha256"]:
        content = {k: v for k, v in document.items() if k not in ("sha256", "signature")}
        document["sha256"] = digest_of(content)
    return json.dumps(document).encode()


def packed(array: np.ndarray[Any, Any]) -> dict[str, object]:
    raw = base64.b64encode(zlib.compress(array.tobytes())).decode()
    return {"dtype": array.dtype.str, "shape": list(array.shape), "data": raw}


@pytest.mark.parametrize("kind", LEARNERS)
def test_round_trip(kind: str) -> None:
    """What was frozen comes back whole and scores the same to the bit; encoding is deterministic."""
    snapshot = SNAPSHOTS[kind]
    data = encode(snapshot)
    back = decode(data, SPEC)
    np.testing.assert_array_equal(back.scorer.score(unseen()), snapshot.scorer.score(unseen()))
    np.testing.assert_array_equal(back.reference, snapshot.reference)
    for name in (
        "name", "version", "kind", "spec_digest", "created_at_event_time", "n_learned", "n_frauds", "parent",
        "libraries",
    ):  # fmt: skip
        assert getattr(back, name) == getattr(snapshot, name)
    assert (back.offsets, back.metrics) == (snapshot.offsets, snapshot.metrics)
    assert len(back.sha256) == 64
    assert encode(back) == data == encode(snapshot)


@pytest.mark.parametrize("kind", LEARNERS)
def test_the_header_alone_says_what_the_whole_says(kind: str) -> None:
    """Every field of it, without the scorer."""
    data = encode(SNAPSHOTS[kind], b"k" * 32)
    header, whole = read_header(data, SPEC, b"k" * 32), decode(data)
    assert header == SnapshotHeader(**{each.name: getattr(whole, each.name) for each in fields(header)})
    assert (header.sha256, header.kind) == (whole.sha256, whole.scorer.kind)
    assert header.n_features == whole.scorer.n_features == len(NAMES)


def test_the_kinds_by_name_are_those_that_can_be_built() -> None:
    """A header is refused for its kind where the scorer would be."""
    assert set(SCORERS) == KINDS


@pytest.mark.parametrize(
    ("data", "spec", "key", "error"),
    [
        pytest.param(ENCODED[:-20], SPEC, b"", SnapshotDamagedError, id="cut off"),
        pytest.param(changed(["version"], 7, resign=False), SPEC, b"", SnapshotDamagedError, id="digest"),
        pytest.param(changed(["kind"], "quantum"), SPEC, b"", UnknownScorerError, id="kind"),
        pytest.param(changed(["format"], 99), SPEC, b"", UnknownScorerError, id="format"),
        pytest.param(ENCODED, "another", b"", SpecMismatchError, id="spec"),
        pytest.param(ENCODED, SPEC, b"k" * 32, SignatureError, id="unsigned"),
        pytest.param(changed(["reference"], []), SPEC, b"", SnapshotDamagedError, id="no means"),
        pytest.param(changed(["reference", "shape"], [True]), SPEC, b"", SnapshotDamagedError, id="bool"),
        pytest.param(changed(["reference", "shape"], [-1]), SPEC, b"", SnapshotDamagedError, id="negative"),
        pytest.param(changed(["reference", "shape"], [2, 2]), SPEC, b"", SnapshotDamagedError, id="matrix"),
    ],
)
def test_a_header_is_refused_as_the_whole_is(
    data: bytes, spec: str, key: bytes, error: type[SnapshotError]
) -> None:
    """By the same error."""
    for reader in (read_header, decode):
        with pytest.raises(error):
            reader(data, spec, key)


def test_another_spec_is_refused() -> None:
    """A model of another feature spec is refused by name; without a spec to hold it to it is accepted."""
    with pytest.raises(SpecMismatchError, match=SPEC):
        decode(ENCODED, "another")
    assert decode(ENCODED).spec_digest == SPEC


def test_unknown_kind_and_format_are_refused() -> None:
    """A kind or format of a newer writer is told apart from damage."""
    with pytest.raises(UnknownScorerError, match="quantum"):
        decode(changed(["kind"], "quantum"), SPEC)
    with pytest.raises(UnknownScorerError, match="format"):
        decode(changed(["format"], 99), SPEC)


def test_other_arithmetic_is_refused() -> None:
    """A process that does not compute the expected scores refuses the model."""
    scores = RULES.golden_scores + 1e-9
    with pytest.raises(GoldenMismatchError, match="off by"):
        decode(changed(["golden_scores"], packed(scores)), SPEC)


def test_a_changed_weight_is_refused() -> None:
    """A tampered number fails the digest; with a digest of its own it fails the golden vectors."""
    weights = packed(np.array([-3.0]))
    with pytest.raises(SnapshotDamagedError, match="digest"):
        decode(changed(["arrays", "log_odds"], weights, resign=False), SPEC)
    x = np.array([[2.0, 0.0]])
    golden = make(RULES.scorer, name="rules", version=0, spec_digest=SPEC, golden_x=x)
    document = json.loads(encode(golden))
    document["arrays"]["log_odds"] = weights
    document["sha256"] = digest_of({k: v for k, v in document.items() if k not in ("sha256", "signature")})
    with pytest.raises(GoldenMismatchError):
        decode(json.dumps(document).encode(), SPEC)


def test_only_the_key_signs() -> None:
    """With a key, what is unsigned, signed with another one, or changed after signing is refused; the digest
    is that of the content alone."""
    key = b"k" * 32
    signed = encode(RULES, key)
    assert decode(signed, SPEC, key).sha256 == decode(ENCODED).sha256
    assert decode(signed, SPEC).signature
    assert encode(decode(signed)) == signed
    for other in (ENCODED, encode(RULES, b"o" * 32), changed(["signature"], "0" * 64, resign=False)):
        with pytest.raises(SignatureError):
            decode(other, SPEC, key)
    altered = json.loads(signed)
    altered["version"] = 7
    content = {name: value for name, value in altered.items() if name not in ("sha256", "signature")}
    altered["sha256"] = digest_of(content)
    with pytest.raises(SignatureError, match="does not fit"):
        decode(json.dumps(altered).encode(), SPEC, key)


BOMB = {
    "dtype": "<f8",
    "shape": [1],
    "data": base64.b64encode(zlib.compress(bytes(50_000_000))).decode(),
}


@pytest.mark.parametrize(
    "data",
    [
        pytest.param(b"", id="empty"),
        pytest.param(b"\xff\xfe", id="not text"),
        pytest.param(b"[]", id="no object"),
        pytest.param(b"{}", id="nothing in it"),
        pytest.param(b"[" * 100_000, id="deep"),
        pytest.param(ENCODED[:-20], id="cut off"),
        pytest.param(ENCODED.replace(b'"version":0', b'"version":NaN'), id="NaN"),
        pytest.param(changed(["version"], True), id="bool for a number"),
        pytest.param(changed(["version"], "1"), id="text for a number"),
        pytest.param(changed(["name"], None), id="no name"),
        pytest.param(changed(["sha256"], "0" * 64), id="wrong digest"),
        pytest.param(changed(["sha256"], None), id="no digest"),
        pytest.param(changed(["arrays", "feature"], 0, drop=True), id="array missing"),
        pytest.param(changed(["arrays"], []), id="arrays no object"),
        pytest.param(changed(["arrays", "log_odds"], BOMB), id="more bytes than its shape"),
        pytest.param(changed(["arrays", "log_odds", "shape"], [10**12]), id="shape too large"),
        pytest.param(changed(["arrays", "log_odds", "shape"], [-1]), id="negative shape"),
        pytest.param(changed(["arrays", "log_odds", "shape"], [2]), id="fewer bytes than its shape"),
        pytest.param(changed(["arrays", "log_odds", "shape"], [[1]]), id="shape no numbers"),
        pytest.param(changed(["arrays", "log_odds", "shape"], []), id="no dimensions"),
        pytest.param(changed(["arrays", "log_odds", "dtype"], "|O"), id="objects"),
        pytest.param(changed(["arrays", "log_odds", "data"], "§"), id="no base64"),
        pytest.param(changed(["arrays", "log_odds", "data"], "AAAA"), id="no zlib"),
        pytest.param(changed(["arrays", "log_odds"], packed(np.array([np.nan]))), id="NaN in an array"),
        pytest.param(changed(["arrays", "feature"], packed(np.array([7], np.int32))), id="out of bounds"),
        pytest.param(changed(["golden_x"], packed(np.zeros((0, 2)))), id="no golden rows"),
        pytest.param(changed(["golden_x"], packed(np.zeros((1, 3)))), id="golden rows too wide"),
        pytest.param(changed(["header", "width"], 2.5), id="header of wrong type"),
        pytest.param(changed(["offsets"], {"t/0": "x"}), id="offset no number"),
    ],
)
def test_damaged_is_refused(data: bytes) -> None:
    """Whatever is wrong with the bytes, the error is the named one."""
    with pytest.raises(SnapshotDamagedError):
        decode(data, SPEC)


@given(data=st.binary(max_size=200))
def test_any_bytes_raise_the_named_error(data: bytes) -> None:
    """Random bytes never raise anything else."""
    with pytest.raises(SnapshotError):
        decode(data, SPEC)


@given(at=st.integers(0, len(ENCODED) - 1), byte=st.integers(0, 255))
@settings(max_examples=200)
def test_one_changed_byte_is_noticed(at: int, byte: int) -> None:
    """A changed byte is refused, unless it changes white space or the signature only."""
    data = bytearray(ENCODED)
    data[at] = byte
    try:
        back = decode(bytes(data), SPEC)
    except SnapshotError:
        return
    assert back.sha256 == decode(ENCODED).sha256


def test_too_large_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """Documents and arrays beyond the limits are refused before they fill the memory."""
    monkeypatch.setattr(snapshot_document, "MAX_DOCUMENT_BYTES", len(ENCODED) - 1)
    with pytest.raises(SnapshotDamagedError, match="bytes"):
        decode(ENCODED)
    monkeypatch.setattr(snapshot_document, "MAX_DOCUMENT_BYTES", len(ENCODED))
    monkeypatch.setattr(snapshot_arrays, "MAX_ARRAY_BYTES", 10)
    with pytest.raises(SnapshotDamagedError, match="more than"):
        decode(ENCODED)


def test_figures_that_are_not_finite_do_not_encode() -> None:
    """A NaN metric is an error of the writer, not of every reader."""
    with pytest.raises(ValueError, match="JSON"):
        encode(make(RULES.scorer, name="r", version=1, spec_digest=SPEC, metrics={"ap": float("nan")}))
