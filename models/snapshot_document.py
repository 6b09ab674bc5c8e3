"""What a snapshot's document says of the model, read without building the scorer: no numpy, no kernels.

``read`` believes nothing of what it reads: size, digest, signature, format, kind and types. Whether the
scorer in it can be built, and scores as its writer did, is for ``models.snapshot.decode``.
"""

from __future__ import annotations

import hashlib
import hmac
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field

from models.scorers.kinds import KINDS

Json = None | bool | int | float | str | list["Json"] | dict[str, "Json"]

FORMAT = 2
MAX_DOCUMENT_BYTES = 16 << 20
"""No larger one fits on the models topic."""
MAX_VERSION = 2**31 - 1
NAME = re.compile(r"[a-z0-9][a-z0-9-]{0,39}")


class SnapshotError(ValueError):
    """The bytes are not a usable snapshot: keep the model in place."""


class SnapshotDamagedError(SnapshotError):
    """Not JSON, digest wrong, sizes wrong, or values impossible."""


class UnknownScorerError(SnapshotError):
    """The kind, or the format, is not known to this process: it is older than the writer."""


class SpecMismatchError(SnapshotError):
    """The model was learned on another feature spec."""


class SignatureError(SnapshotError):
    """Not signed, or signed with another key, and a key is configured."""


class GoldenMismatchError(SnapshotError):
    """The scorer does not give the expected scores: this process computes differently from the writer."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SnapshotHeader:
    """Where a model comes from.

    :ivar name: the model's name; ``version`` rises by one with every snapshot of that name.
    :ivar kind: of the scorer.
    :ivar n_features: that the scorer takes.
    :ivar spec_digest: digest of the feature spec the model was learned on.
    :ivar created_at_event_time: event time of the last outcome learned, epoch milliseconds.
    :ivar n_learned: outcomes learned, ``n_frauds`` of them frauds.
    :ivar parent: the version of that name that the same learner gave before; 0 for its first.
    :ivar libraries: name → version of what it was made with.
    :ivar offsets: ``topic/partition`` → next offset to learn from.
    :ivar metrics: quality figures known when it was made.
    :ivar withheld: why aliases that follow the model do not take the version; empty for one that they take.
    :ivar signature: HMAC-SHA256 of the digest, in hexadecimal digits; empty if unsigned.
    :ivar sha256: of the encoded document without ``sha256`` and ``signature``; filled in by ``read``.
    """

    name: str
    version: int
    kind: str
    n_features: int
    spec_digest: str
    created_at_event_time: int
    n_learned: int
    n_frauds: int = 0
    parent: int = 0
    libraries: Mapping[str, str] = field(default_factory=dict)
    offsets: Mapping[str, int] = field(default_factory=dict)
    metrics: Mapping[str, float] = field(default_factory=dict)
    withheld: str = ""
    signature: str = ""
    sha256: str = field(default="", compare=False)


def read_header(data: bytes, spec_digest: str | None = None, key: bytes = b"") -> SnapshotHeader:
    """The header of a document; parameters and errors are those of ``read``."""
    return read(data, spec_digest, key)[0]


def read(
    data: bytes, spec_digest: str | None = None, key: bytes = b""
) -> tuple[SnapshotHeader, dict[str, Json]]:
    """The header of a document, and the document without digest and signature.

    :param spec_digest: the feature spec in force; None accepts any.
    :param key: that it must be signed with; empty for none.
    :raises SnapshotError: by its subclass, what is wrong; nothing else is raised, whatever the bytes.
    """
    document = _parse(data)
    sha256 = document.pop("sha256", None)
    signature = _text(document, "signature")
    del document["signature"]
    if sha256 != digest_of(document):
        raise SnapshotDamagedError("the digest does not fit the content")
    if key and not hmac.compare_digest(signature_of(str(sha256), key).encode(), signature.encode()):
        raise SignatureError("the signature does not fit" if signature else "not signed")
    if document.get("format") != FORMAT:
        raise UnknownScorerError(f"format {document.get('format')!r} is not {FORMAT}")
    kind = _text(document, "kind")
    if kind not in KINDS:
        raise UnknownScorerError(f"unknown kind {kind!r}, known are {', '.join(sorted(KINDS))}")
    spec = _text(document, "spec")
    if spec_digest is not None and spec != spec_digest:
        raise SpecMismatchError(f"learned on spec {spec}, in force is {spec_digest}")
    libraries, offsets = object_in(document, "libraries"), object_in(document, "offsets")
    metrics = object_in(document, "metrics")
    header = SnapshotHeader(
        name=_name(document),
        version=_integer(document, "version", most=MAX_VERSION),
        kind=kind,
        n_features=_width(document),
        spec_digest=spec,
        created_at_event_time=_integer(document, "created_at_event_time"),
        n_learned=_integer(document, "n_learned"),
        n_frauds=_integer(document, "n_frauds"),
        parent=_integer(document, "parent"),
        libraries={name: _text(libraries, name) for name in libraries},
        offsets={name: _integer(offsets, name) for name in offsets},
        metrics={name: _number(metrics, name) for name in metrics},
        # Versions of before there were any.
        withheld=_text(document, "withheld") if "withheld" in document else "",
        signature=signature,
        sha256=sha256,
    )
    return header, document


def digest_of(document: Mapping[str, Json]) -> str:
    """SHA-256 in hexadecimal digits of a document without ``sha256`` and ``signature``.

    :raises SnapshotDamagedError: it cannot be written as JSON.
    """
    try:
        canonical = json.dumps(document, allow_nan=False, separators=(",", ":"), sort_keys=True).encode()
    except (ValueError, RecursionError) as error:
        raise SnapshotDamagedError(f"cannot be digested: {error}") from error
    return hashlib.sha256(canonical).hexdigest()


def signature_of(digest: str, key: bytes) -> str:
    """HMAC-SHA256 in hexadecimal digits of a document with that digest."""
    return hmac.new(key, b"model\0" + digest.encode(), hashlib.sha256).hexdigest()


def object_in(document: Mapping[str, Json], name: str) -> dict[str, Json]:
    """The JSON object in a field.

    :raises SnapshotDamagedError: there is none.
    """
    value = document.get(name)
    if not isinstance(value, dict):
        raise SnapshotDamagedError(f"{name} must be an object")
    return value


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


def _width(document: Mapping[str, Json]) -> int:
    """How many features there are, by the shape of their means."""
    match object_in(document, "reference").get("shape"):
        case [int(width)] if not isinstance(width, bool) and 0 <= width < 2**31:
            return width
    raise SnapshotDamagedError("reference must have a number for every feature")


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
