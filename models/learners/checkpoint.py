"""A learner's private checkpoint: a header line, then a pickle; and the seal of what holds checkpoints.

Unpickling runs code: ``load`` is for what ``unseal`` has let through, or for a process's own bytes. The
header is checked before the pickle is touched. Scorers never read this format (``models.snapshot`` is
theirs).
"""

from __future__ import annotations

import hashlib
import hmac
import json
import pickle
import platform

import numpy as np
import river

from models.learners.base import Learner

FORMAT = 2
_UNSIGNED = b"unsigned"


class CheckpointError(ValueError):
    """The checkpoint is damaged or not ours."""


class OtherVersions(CheckpointError):
    """The checkpoint was written by another kind of Python, numpy, River or learner: learn anew."""


def seal(document: bytes, key: bytes) -> bytes:
    """The document behind its signature (HMAC-SHA256 with ``key``); an empty key leaves it unsigned."""
    return (_signature(document, key) if key else _UNSIGNED) + b"\n" + document


def unseal(data: bytes, key: bytes) -> bytes:
    """The document that was sealed with the same key.

    :raises CheckpointError: damaged, signed with another key, unsigned though there is a key, or signed
        though there is none to check it with.
    """
    signature, _, document = data.partition(b"\n")
    if not key:
        if signature != _UNSIGNED:
            raise CheckpointError("the checkpoint is signed, or damaged, and no key is configured")
        return document
    if signature == _UNSIGNED:
        raise CheckpointError("the checkpoint is unsigned and a key is configured")
    if not hmac.compare_digest(_signature(document, key), signature):
        raise CheckpointError("the signature does not fit: damaged, or written with another key")
    return document


def dump(learner: Learner) -> bytes:
    """The learner as bytes."""
    body = pickle.dumps(learner, protocol=5)
    return json.dumps(_versions(learner.kind) | {"bytes": len(body)}, sort_keys=True).encode() + b"\n" + body


def load(data: bytes) -> Learner:
    """The learner written by ``dump``.

    :raises OtherVersions: written by another kind of Python, numpy or River.
    :raises CheckpointError: no checkpoint, or not of a learner.
    """
    head, _, body = data.partition(b"\n")
    try:
        header = json.loads(head)
    except ValueError as error:
        raise CheckpointError(f"no header: {error}") from error
    if not isinstance(header, dict) or header.get("bytes") != len(body):
        raise CheckpointError("no header, or a truncated body")
    for name, value in _versions(header.get("kind", "")).items():
        if header.get(name) != value:
            raise OtherVersions(f"{name} is {header.get(name)!r}, this process needs {value!r}")
    learner = pickle.loads(body)  # noqa: S301  # sealed by us, see above
    if not isinstance(learner, Learner) or learner.kind != header["kind"]:
        raise CheckpointError(f"holds a {type(learner).__name__}, not the {header['kind']} it claims")
    return learner


def _signature(document: bytes, key: bytes) -> bytes:
    return hmac.new(key, document, hashlib.sha256).hexdigest().encode()


def _versions(kind: str) -> dict[str, str | int]:
    return {
        "format": FORMAT,
        "kind": kind,
        "river": river.__version__,
        "numpy": np.__version__,
        "python": ".".join(platform.python_version_tuple()[:2]),
    }
