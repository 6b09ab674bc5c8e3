"""A learner's private checkpoint: a signed header line, then a pickle.

Only the learn stage that wrote a checkpoint reads it. Unpickling runs code, so nothing is unpickled before
the signature and the versions in the header have been checked; scorers never read this format
(``models.snapshot`` is theirs).
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

FORMAT = 1


class CheckpointError(ValueError):
    """The checkpoint is damaged, not ours, or of other versions: learn anew from the outcomes."""


def dump(learner: Learner, key: bytes) -> bytes:
    """The learner as bytes, signed with ``key`` (HMAC-SHA256)."""
    body = pickle.dumps(learner, protocol=5)
    header = json.dumps(_versions(learner.kind) | {"bytes": len(body)}, sort_keys=True).encode()
    signature = hmac.new(key, header + b"\n" + body, hashlib.sha256).hexdigest().encode()
    return signature + b"\n" + header + b"\n" + body


def load(data: bytes, key: bytes) -> Learner:
    """The learner written by ``dump``.

    :raises CheckpointError: damaged, signed with another key, or written by another kind of Python, numpy or
        River.
    """
    signature, _, signed = data.partition(b"\n")
    if not hmac.compare_digest(hmac.new(key, signed, hashlib.sha256).hexdigest().encode(), signature):
        raise CheckpointError("the signature does not fit: damaged, or written with another key")
    head, _, body = signed.partition(b"\n")
    header = json.loads(head)
    wanted = _versions(header.get("kind", "")) | {"bytes": len(body)}
    for name, value in wanted.items():
        if header.get(name) != value:
            raise CheckpointError(f"{name} is {header.get(name)!r}, this process needs {value!r}")
    learner = pickle.loads(body)  # noqa: S301  # signed by us, checked above
    if not isinstance(learner, Learner) or learner.kind != header["kind"]:
        raise CheckpointError(f"holds a {type(learner).__name__}, not the {header['kind']} it claims")
    return learner


def _versions(kind: str) -> dict[str, str | int]:
    return {
        "format": FORMAT,
        "kind": kind,
        "river": river.__version__,
        "numpy": np.__version__,
        "python": ".".join(platform.python_version_tuple()[:2]),
    }
