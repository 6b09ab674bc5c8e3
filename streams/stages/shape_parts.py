"""Distributions as they travel and are kept: only the bins that have rows."""

from __future__ import annotations

from collections.abc import Mapping

import msgspec
import numpy as np

from monitoring.shapes import BINS, SCORE_BINS, Shape

#: What the keys of messages with shapes start with.
SHAPES_KEY = b"shape/"


class PackedShape(msgspec.Struct, array_like=True, frozen=True):
    """A shape of `features` features: u32 places, i64 rows and sums there; by role u16 bins and i64 rows."""

    features: int
    places: bytes
    rows: bytes
    sums: bytes
    scores: dict[str, tuple[bytes, bytes]]


class ShapePart(msgspec.Struct, array_like=True, frozen=True):
    """What a partition has seen of the shape of an hour (`Part` says the rest)."""

    slot: int
    partition: int
    position: int
    watermark: int
    shape: PackedShape


def pack(shape: Shape) -> PackedShape:
    """The bins that are not empty."""
    places = np.flatnonzero(shape.features[0])
    scores = {}
    for role, counts in shape.scores.items():
        used = np.flatnonzero(counts)
        scores[role] = used.astype(np.uint16).tobytes(), counts[used].tobytes()
    return PackedShape(
        shape.features.shape[1] // BINS,
        places.astype(np.uint32).tobytes(),
        shape.features[0, places].tobytes(),
        shape.features[1, places].tobytes(),
        scores,
    )


def add_packed(shape: Shape, packed: PackedShape) -> None:
    """Add in place; both have the same features."""
    places = np.frombuffer(packed.places, np.uint32)
    shape.features[0, places] += np.frombuffer(packed.rows, np.int64)
    shape.features[1, places] += np.frombuffer(packed.sums, np.int64)
    for role, (bins, rows) in packed.scores.items():
        counts = shape.scores.setdefault(role, np.zeros(SCORE_BINS, dtype=np.int64))
        counts[np.frombuffer(bins, np.uint16)] += np.frombuffer(rows, np.int64)


def unpack(packed: PackedShape) -> Shape:
    """As it was packed."""
    shape = Shape.empty(packed.features)
    add_packed(shape, packed)
    return shape


def repack(shapes: Mapping[int, Shape]) -> dict[int, PackedShape]:
    """By hour."""
    return {hour: pack(shape) for hour, shape in shapes.items()}


_encode = msgspec.msgpack.Encoder().encode
encode_shapes = _encode
decode_shapes = msgspec.msgpack.Decoder(list[ShapePart]).decode
