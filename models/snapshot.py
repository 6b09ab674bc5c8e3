"""The frozen form in which a model travels from the learn stage to the score stage.

One JSON document: a header (``models.snapshot_document``), and the scorer's arrays
(``models.snapshot_arrays``). Nothing in it can run code. ``decode`` believes nothing: digest, sizes, dtypes,
shapes, finite values, structure, that a score takes a bounded number of steps, and that the scorer gives the
expected scores for the golden rows.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any, cast

import numpy as np

from models.arrays import Floats
from models.scorers.base import FrozenScorer, ScorerArraysError
from models.scorers.registry import SCORERS
from models.snapshot_arrays import Unpacking, pack
from models.snapshot_document import (
    FORMAT,
    GoldenMismatchError,
    Json,
    SnapshotDamagedError,
    SnapshotHeader,
    digest_of,
    object_in,
    read,
    signature_of,
)

MAX_STEPS = 100_000
"""For the score of one row: a fraction of a millisecond. A forest of ten trees takes a hundredth of it."""
GOLDEN_TOLERANCE = 1e-12


@dataclass(frozen=True, slots=True, kw_only=True)
class Snapshot(SnapshotHeader):
    """A scorer with its origin.

    :ivar reference: mean of the features, f64[k], what reasons compare with.
    :ivar golden_x: f64[g, k] rows, and the scores ``golden_scores`` f64[g] that the scorer must give for
        them.
    """

    scorer: FrozenScorer
    reference: Floats
    golden_x: Floats
    golden_scores: Floats


def make(
    scorer: FrozenScorer,
    *,
    name: str,
    version: int,
    spec_digest: str,
    created_at_event_time: int = 0,
    n_learned: int = 0,
    reference: Floats | None = None,
    golden_x: Floats | None = None,
    n_frauds: int = 0,
    parent: int = 0,
    libraries: Mapping[str, str] | None = None,
    offsets: Mapping[str, int] | None = None,
    metrics: Mapping[str, float] | None = None,
    withheld: str = "",
) -> Snapshot:
    """A snapshot with the golden scores the scorer gives now; golden rows are zeros and ``reference`` if none
    are given. The scorer's arrays cannot be written to any more.
    """
    k = scorer.n_features
    reference = np.zeros(k) if reference is None else reference
    golden = np.vstack([np.zeros(k), reference, *([] if golden_x is None else [golden_x])])
    # As `decode` gives them: a version never changes, and kernels are compiled for one kind of arrays only.
    for array in scorer.to_arrays()[1].values():
        array.flags.writeable = False
    return Snapshot(
        name=name,
        version=version,
        kind=scorer.kind,
        n_features=k,
        scorer=scorer,
        spec_digest=spec_digest,
        created_at_event_time=created_at_event_time,
        n_learned=n_learned,
        reference=reference,
        golden_x=golden,
        golden_scores=scorer.score(golden),
        n_frauds=n_frauds,
        parent=parent,
        libraries=dict(libraries or {}),
        offsets=dict(offsets or {}),
        metrics=dict(metrics or {}),
        withheld=withheld,
    )


def encode(snapshot: Snapshot, key: bytes = b"") -> bytes:
    """The snapshot as JSON bytes, digest included, signed with ``key``; an empty one leaves it as it is.

    :raises ValueError: a figure that is not finite.
    """
    header, arrays = snapshot.scorer.to_arrays()
    document: dict[str, Json] = {
        "format": FORMAT,
        "kind": snapshot.kind,
        "name": snapshot.name,
        "version": snapshot.version,
        "spec": snapshot.spec_digest,
        "created_at_event_time": snapshot.created_at_event_time,
        "n_learned": snapshot.n_learned,
        "n_frauds": snapshot.n_frauds,
        "parent": snapshot.parent,
        "libraries": dict(snapshot.libraries),
        "offsets": dict(snapshot.offsets),
        "metrics": dict(snapshot.metrics),
        "withheld": snapshot.withheld,
        "header": dict(header),
        "arrays": {name: pack(array) for name, array in arrays.items()},
        "reference": pack(snapshot.reference),
        "golden_x": pack(snapshot.golden_x),
        "golden_scores": pack(snapshot.golden_scores),
    }
    digest = document["sha256"] = digest_of(document)
    document["signature"] = signature_of(digest, key) if key else snapshot.signature
    return json.dumps(document, allow_nan=False, separators=(",", ":"), sort_keys=True).encode()


def decode(data: bytes, spec_digest: str | None = None, key: bytes = b"") -> Snapshot:
    """The snapshot written by ``encode``, checked.

    :param spec_digest: the feature spec in force; None accepts any.
    :param key: that it must be signed with; empty for none.
    :raises SnapshotError: by its subclass, what is wrong; nothing else is raised, whatever the bytes.
    """
    header, document = read(data, spec_digest, key)
    unpacking = Unpacking()
    packed = object_in(document, "arrays")
    arrays = {name: unpacking.unpack(name, packed[name]) for name in packed}
    kind = header.kind
    try:
        scorer = SCORERS[kind].from_arrays(
            cast("dict[str, int | float | str]", object_in(document, "header")), arrays
        )
    except ScorerArraysError as error:
        raise SnapshotDamagedError(f"{kind}: {error}") from error
    if scorer.steps > MAX_STEPS:
        raise SnapshotDamagedError(f"{kind}: up to {scorer.steps} steps for a row, more than {MAX_STEPS}")
    k = scorer.n_features
    said: dict[str, Any] = {each.name: getattr(header, each.name) for each in fields(header)}
    snapshot = Snapshot(
        **said,
        scorer=scorer,
        reference=unpacking.floats("reference", document.get("reference"), (k,)),
        golden_x=unpacking.floats("golden_x", document.get("golden_x"), (None, k)),
        golden_scores=unpacking.floats("golden_scores", document.get("golden_scores"), (None,)),
    )
    _check_golden(snapshot)
    return snapshot


def _check_golden(snapshot: Snapshot) -> None:
    if len(snapshot.golden_x) != len(snapshot.golden_scores) or not len(snapshot.golden_x):
        raise SnapshotDamagedError("as many golden scores as golden rows are needed, and at least one")
    scores = snapshot.scorer.score(snapshot.golden_x)
    off = np.abs(scores - snapshot.golden_scores).max()
    if not off <= GOLDEN_TOLERANCE:
        raise GoldenMismatchError(f"golden scores are off by up to {off:.3g}")
    if scores.min() < 0.0 or scores.max() > 1.0:
        raise GoldenMismatchError("golden scores are not probabilities")
