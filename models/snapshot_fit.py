"""Whether a learner's scorer can be a version: what ``models.snapshot.decode`` would refuse is not made."""

from __future__ import annotations

import zlib
from collections.abc import Iterable

import numpy as np
from numpy.typing import NDArray

from models.scorers.base import FrozenScorer
from models.scorers.registry import SCORERS
from models.snapshot import MAX_STEPS
from models.snapshot_arrays import LEVEL, MAX_ARRAY_BYTES
from models.snapshot_document import MAX_DOCUMENT_BYTES, UnknownScorerError

BESIDE_ARRAYS = 1 << 20
"""Bytes kept free for what a document has besides the scorer's arrays: golden rows, reference, header."""
_PIECE = 1 << 20


class TooLargeError(ValueError):
    """The scorer has outgrown what a version may have: no process would take it."""


def check_fit(scorer: FrozenScorer, most_bytes: int = MAX_DOCUMENT_BYTES) -> None:
    """Refuse a scorer that no version can hold. Its arrays cannot be written to any more.

    :param most_bytes: that the document of a version may have.
    :raises UnknownScorerError: of no kind that ``decode`` knows.
    :raises TooLargeError: more bytes or steps than a version may have.
    :raises ScorerArraysError: values that no scorer may have.
    """
    if scorer.kind not in SCORERS:
        raise UnknownScorerError(f"unknown kind {scorer.kind!r}, known are {', '.join(sorted(SCORERS))}")
    header, arrays = scorer.to_arrays()
    for array in arrays.values():
        array.flags.writeable = False  # kernels are compiled for one kind of arrays only
    if scorer.steps > MAX_STEPS:
        raise TooLargeError(f"{scorer.kind}: up to {scorer.steps} steps for a row, more than {MAX_STEPS}")
    plain = sum(array.nbytes for array in arrays.values()) + BESIDE_ARRAYS
    if plain > MAX_ARRAY_BYTES:
        raise TooLargeError(f"{scorer.kind}: arrays of {plain} bytes, more than {MAX_ARRAY_BYTES}")
    # Base64 makes four bytes of three: what is far smaller need not be packed to know that it fits.
    if plain * 1.4 > most_bytes and _packed_beyond(arrays.values(), most_bytes - BESIDE_ARRAYS):
        raise TooLargeError(f"{scorer.kind}: a document of more than {most_bytes} bytes")
    SCORERS[scorer.kind].from_arrays(header, arrays)


def _packed_beyond(arrays: Iterable[NDArray[np.generic]], most: int) -> bool:
    """Whether the data of packed arrays is more than ``most`` bytes; no more is packed than tells it."""
    size = 0.0
    for array in arrays:
        stream, data = zlib.compressobj(LEVEL), np.ascontiguousarray(array).reshape(-1).view(np.uint8).data
        for start in range(0, len(data), _PIECE):
            size += len(stream.compress(data[start : start + _PIECE])) * 4 / 3
            if size > most:
                return True
        size += len(stream.flush()) * 4 / 3
    return size > most
