"""The frozen form in which a model travels from the learn stage to the score stage.

One JSON document: a header, and the scorer's arrays as zlib-compressed little-endian bytes in base64. Nothing
in it can run code. ``decode`` believes nothing: digest, sizes, dtypes, shapes, finite values, structure, that
a score takes a bounded number of steps, and that the scorer gives the expected scores for the golden rows.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import json
import math
import re
import zlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import cast

import numpy as np
from numpy.typing import NDArray

from models.scorers.base import FrozenScorer, ScorerArraysError
from models.scorers.registry import SCORERS

Json = None | bool | int | float | str | list["Json"] | dict[str, "Json"]
Floats = NDArray[np.float64]

FORMAT = 2
MAX_DOCUMENT_BYTES = 16 << 20
"""No larger one fits on the models topic."""
MAX_ARRAY_BYTES = 128 << 20
"""Of all arrays of a snapshot together, decompressed."""
MAX_STEPS = 100_000
"""For the score of one row: a fraction of a millisecond. A forest of ten trees takes a hundredth of it."""
BESIDE_ARRAYS = 1 << 20
"""Bytes kept free for what a document has besides the scorer's arrays: golden rows, reference, header."""
GOLDEN_TOLERANCE = 1e-12
MAX_VERSION = 2**31 - 1
NAME = re.compile(r"[a-z0-9][a-z0-9-]{0,39}")
_LEVEL = 6
_PIECE = 1 << 20
_DTYPES: dict[str, type[np.float64] | type[np.int32]] = {"<f8": np.float64, "<i4": np.int32}


class SnapshotError(ValueError):
    """The bytes are not a usable snapshot: keep the model in place."""


class SnapshotDamagedError(SnapshotError):
    """Not JSON, digest wrong, sizes wrong, or values impossible."""


class TooLargeError(SnapshotError):
    """The scorer has outgrown what a version may have: no process would take it."""


class UnknownScorerError(SnapshotError):
    """The kind, or the format, is not known to this process: it is older than the writer."""


class SpecMismatchError(SnapshotError):
    """The model was learned on another feature spec."""


class SignatureError(SnapshotError):
    """Not signed, or signed with another key, and a key is configured."""


class GoldenMismatchError(SnapshotError):
    """The scorer does not give the expected scores: this process computes differently from the writer."""


@dataclass(frozen=True, slots=True)
class Snapshot:
    """A scorer with its origin.

    :ivar name: the model's name; ``version`` rises by one with every snapshot of that name.
    :ivar spec_digest: digest of the feature spec the model was learned on.
    :ivar created_at_event_time: event time of the last outcome learned, epoch milliseconds.
    :ivar n_learned: outcomes learned, ``n_frauds`` of them frauds.
    :ivar parent: the version of that name that the same learner gave before; 0 for its first.
    :ivar reference: mean of the features, f64[k], what reasons compare with.
    :ivar golden_x: f64[g, k] rows, and the scores ``golden_scores`` f64[g] that the scorer must give for
        them.
    :ivar libraries: name → version of what it was made with.
    :ivar offsets: ``topic/partition`` → next offset to learn from.
    :ivar metrics: quality figures known when it was made.
    :ivar withheld: why aliases that follow the model do not take the version; empty for one that they take.
    :ivar signature: HMAC-SHA256 of the digest, in hexadecimal digits; empty if unsigned.
    :ivar sha256: of the encoded document without ``sha256`` and ``signature``; filled in by ``decode``.
    """

    name: str
    version: int
    scorer: FrozenScorer
    spec_digest: str
    created_at_event_time: int
    n_learned: int
    reference: Floats
    golden_x: Floats
    golden_scores: Floats
    n_frauds: int = 0
    parent: int = 0
    libraries: Mapping[str, str] = field(default_factory=dict)
    offsets: Mapping[str, int] = field(default_factory=dict)
    metrics: Mapping[str, float] = field(default_factory=dict)
    withheld: str = ""
    signature: str = ""
    sha256: str = field(default="", compare=False)

    @property
    def kind(self) -> str:
        """Kind of the scorer."""
        return self.scorer.kind


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
        "arrays": {name: _pack(array) for name, array in arrays.items()},
        "reference": _pack(snapshot.reference),
        "golden_x": _pack(snapshot.golden_x),
        "golden_scores": _pack(snapshot.golden_scores),
    }
    digest = document["sha256"] = _digest(document)
    document["signature"] = _signature(digest, key) if key else snapshot.signature
    return json.dumps(document, allow_nan=False, separators=(",", ":"), sort_keys=True).encode()


def check_fit(scorer: FrozenScorer, most_bytes: int = MAX_DOCUMENT_BYTES) -> None:
    """Refuse what ``decode`` would refuse in a version, for the scorer that it holds.

    :param most_bytes: that its document may have.
    :raises UnknownScorerError: of no kind that ``decode`` knows.
    :raises TooLargeError: more bytes or steps than a version may have.
    :raises ScorerArraysError: values that no scorer may have.
    """
    if scorer.kind not in SCORERS:
        raise UnknownScorerError(f"unknown kind {scorer.kind!r}, known are {', '.join(sorted(SCORERS))}")
    if scorer.steps > MAX_STEPS:
        raise TooLargeError(f"{scorer.kind}: up to {scorer.steps} steps for a row, more than {MAX_STEPS}")
    header, arrays = scorer.to_arrays()
    plain = sum(array.nbytes for array in arrays.values()) + BESIDE_ARRAYS
    if plain > MAX_ARRAY_BYTES:
        raise TooLargeError(f"{scorer.kind}: arrays of {plain} bytes, more than {MAX_ARRAY_BYTES}")
    # Base64 makes four bytes of three: what is far smaller need not be packed to know that it fits.
    if plain * 1.4 > most_bytes and _packed_beyond(arrays.values(), most_bytes - BESIDE_ARRAYS):
        raise TooLargeError(f"{scorer.kind}: a document of more than {most_bytes} bytes")
    SCORERS[scorer.kind].from_arrays(header, arrays)


def decode(data: bytes, spec_digest: str | None = None, key: bytes = b"") -> Snapshot:
    """The snapshot written by ``encode``, checked.

    :param spec_digest: the feature spec in force; None accepts any.
    :param key: that it must be signed with; empty for none.
    :raises SnapshotError: by its subclass, what is wrong; nothing else is raised, whatever the bytes.
    """
    document = _parse(data)
    sha256 = document.pop("sha256", None)
    signature = _text(document, "signature")
    del document["signature"]
    if sha256 != _digest(document):
        raise SnapshotDamagedError("the digest does not fit the content")
    if key and not hmac.compare_digest(_signature(str(sha256), key).encode(), signature.encode()):
        raise SignatureError("the signature does not fit" if signature else "not signed")
    if document.get("format") != FORMAT:
        raise UnknownScorerError(f"format {document.get('format')!r} is not {FORMAT}")
    kind = _text(document, "kind")
    if kind not in SCORERS:
        raise UnknownScorerError(f"unknown kind {kind!r}, known are {', '.join(sorted(SCORERS))}")
    spec = _text(document, "spec")
    if spec_digest is not None and spec != spec_digest:
        raise SpecMismatchError(f"learned on spec {spec}, in force is {spec_digest}")
    budget = _Budget(MAX_ARRAY_BYTES)
    packed = _object(document, "arrays")
    arrays = {name: budget.unpack(name, packed[name]) for name in packed}
    try:
        scorer = SCORERS[kind].from_arrays(
            cast("dict[str, int | float | str]", _object(document, "header")), arrays
        )
    except ScorerArraysError as error:
        raise SnapshotDamagedError(f"{kind}: {error}") from error
    if scorer.steps > MAX_STEPS:
        raise SnapshotDamagedError(f"{kind}: up to {scorer.steps} steps for a row, more than {MAX_STEPS}")
    k = scorer.n_features
    snapshot = Snapshot(
        name=_name(document),
        version=_integer(document, "version", most=MAX_VERSION),
        scorer=scorer,
        spec_digest=spec,
        created_at_event_time=_integer(document, "created_at_event_time"),
        n_learned=_integer(document, "n_learned"),
        reference=budget.floats("reference", document.get("reference"), (k,)),
        golden_x=budget.floats("golden_x", document.get("golden_x"), (None, k)),
        golden_scores=budget.floats("golden_scores", document.get("golden_scores"), (None,)),
        n_frauds=_integer(document, "n_frauds"),
        parent=_integer(document, "parent"),
        libraries={
            name: _text(_object(document, "libraries"), name) for name in _object(document, "libraries")
        },
        offsets={name: _integer(_object(document, "offsets"), name) for name in _object(document, "offsets")},
        metrics={name: _number(_object(document, "metrics"), name) for name in _object(document, "metrics")},
        # Versions of before there were any.
        withheld=_text(document, "withheld") if "withheld" in document else "",
        signature=signature,
        sha256=sha256,
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


def _parse(data: bytes) -> dict[str, Json]:
    if len(data) > MAX_DOCUMENT_BYTES:
        raise SnapshotDamagedError(f"{len(data)} bytes, more than {MAX_DOCUMENT_BYTES}")
    try:
        document = json.loads(data, parse_constant=_refuse_constant)
    except (ValueError, RecursionError) as error:
        raise SnapshotDamagedError(f"not JSON: {error}") from error
    if not isinstance(document, dict):
        raise SnapshotDamagedError("not a JSON object")
    return document


def _refuse_constant(name: str) -> float:
    raise ValueError(f"{name} is not JSON")


def _digest(document: Mapping[str, Json]) -> str:
    try:
        canonical = json.dumps(document, allow_nan=False, separators=(",", ":"), sort_keys=True).encode()
    except (ValueError, RecursionError) as error:
        raise SnapshotDamagedError(f"cannot be digested: {error}") from error
    return hashlib.sha256(canonical).hexdigest()


def _signature(digest: str, key: bytes) -> str:
    return hmac.new(key, b"model\0" + digest.encode(), hashlib.sha256).hexdigest()


def _pack(array: NDArray[np.generic]) -> dict[str, Json]:
    little = array.astype(array.dtype.newbyteorder("<"), copy=False)
    if little.dtype.str not in _DTYPES:
        raise ValueError(f"arrays of {array.dtype} do not travel")
    return {
        "dtype": little.dtype.str,
        "shape": [int(n) for n in array.shape],
        "data": base64.b64encode(zlib.compress(np.ascontiguousarray(little).tobytes(), _LEVEL)).decode(),
    }


def _packed_beyond(arrays: Iterable[NDArray[np.generic]], most: int) -> bool:
    """Whether the data of packed arrays is more than ``most`` bytes; no more is packed than tells it."""
    size = 0.0
    for array in arrays:
        stream, data = zlib.compressobj(_LEVEL), np.ascontiguousarray(array).reshape(-1).view(np.uint8).data
        for start in range(0, len(data), _PIECE):
            size += len(stream.compress(data[start : start + _PIECE])) * 4 / 3
            if size > most:
                return True
        size += len(stream.flush()) * 4 / 3
    return size > most


class _Budget:
    """Unpacks arrays until the bytes allowed are used up, so that a small document cannot fill the memory."""

    def __init__(self, allowed: int) -> None:
        self._left = allowed

    def unpack(self, name: str, packed: Json) -> NDArray[np.generic]:
        match packed:
            case {"dtype": str(code), "shape": list(shape), "data": str(text)} if code in _DTYPES:
                dtype = np.dtype(_DTYPES[code])
            case _:
                raise SnapshotDamagedError(f"array {name!r} has no dtype, shape and data this process knows")
        sizes = [n for n in shape if isinstance(n, int) and not isinstance(n, bool) and 0 <= n <= self._left]
        if len(sizes) != len(shape) or not 1 <= len(shape) <= 2:
            raise SnapshotDamagedError(f"array {name!r} has an impossible shape {shape}")
        size = math.prod(sizes) * dtype.itemsize
        self._left -= size
        if self._left < 0:
            raise SnapshotDamagedError(f"the arrays need more than {MAX_ARRAY_BYTES} bytes")
        try:
            stream = zlib.decompressobj()
            raw = stream.decompress(base64.b64decode(text, validate=True), size + 1)
        except (zlib.error, binascii.Error, ValueError) as error:
            raise SnapshotDamagedError(f"array {name!r} cannot be unpacked: {error}") from error
        if len(raw) != size:
            raise SnapshotDamagedError(f"array {name!r} does not have the {size} bytes of its shape")
        array = np.frombuffer(raw, dtype.newbyteorder("<")).astype(dtype).reshape(sizes)
        array.flags.writeable = False
        return array

    def floats(self, name: str, packed: Json, shape: tuple[int | None, ...]) -> Floats:
        array = self.unpack(name, packed)
        fits = array.ndim == len(shape) and all(
            w in (None, n) for w, n in zip(shape, array.shape, strict=True)
        )
        if array.dtype != np.float64 or not fits or not np.isfinite(array).all():
            raise SnapshotDamagedError(f"{name} must be finite floats of shape {shape}")
        return array.astype(np.float64, copy=False)


def _object(document: Mapping[str, Json], name: str) -> dict[str, Json]:
    value = document.get(name)
    if not isinstance(value, dict):
        raise SnapshotDamagedError(f"{name} must be an object")
    return value


def _text(document: Mapping[str, Json], name: str) -> str:
    value = document.get(name)
    if not isinstance(value, str):
        raise SnapshotDamagedError(f"{name} must be a string")
    return value


def _name(document: Mapping[str, Json]) -> str:
    """It becomes part of keys, metrics and log lines."""
    name = _text(document, "name")
    if NAME.fullmatch(name) is None:
        raise SnapshotDamagedError(f"{name[:60]!r} is no name of a model")
    return name


def _integer(document: Mapping[str, Json], name: str, most: int = 2**63 - 1) -> int:
    value = document.get(name)
    if isinstance(value, bool) or not isinstance(value, int) or not -most <= value <= most:
        raise SnapshotDamagedError(f"{name} must be an integer of at most {most}")
    return value


def _number(document: Mapping[str, Json], name: str) -> float:
    value = document.get(name)
    if isinstance(value, bool) or not isinstance(value, int | float) or abs(value) > 2**1000:
        raise SnapshotDamagedError(f"{name} must be a number")
    return float(value)
