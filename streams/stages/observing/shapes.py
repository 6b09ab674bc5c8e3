"""Distributions as they travel and are kept: only the bins that have rows, in the smallest whole numbers."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import msgspec
import numpy as np
import numpy.typing as npt

from monitoring.shapes import BINS, SCORE_BINS, Shape
from streams.stages.alignment import NEVER

#: What the keys of messages with shapes start with.
SHAPES_KEY = b"shape/"
#: A message with shapes is closed when it has so many bytes.
_FULL_MESSAGE = 256 * 1024

#: dtype and values of whole numbers.
Numbers = tuple[str, bytes]


class PackedShape(msgspec.Struct, array_like=True, frozen=True):
    """A shape of `features` features: the places that have rows, as steps from the one before, rows and sums
    there; by role bins and rows. At most 20 bytes a bin, 240 KB at 49 features; 40 KB for some hundred rows.
    """

    features: int
    places: Numbers
    rows: Numbers
    sums: Numbers
    scores: dict[str, tuple[Numbers, Numbers]]

    @property
    def size(self) -> int:
        """Bytes, but for names."""
        numbers = [
            self.places,
            self.rows,
            self.sums,
            *(part for each in self.scores.values() for part in each),
        ]
        return sum(len(values) for _, values in numbers)


class ShapesTold(msgspec.Struct, array_like=True, frozen=True):
    """All that a partition has seen of the shapes of some hours; each is told once.

    Args:
        shapes: start of the hour and shape.
        until: the last hour that the partition has told of; `NEVER` where more of the same follow.
    """

    partition: int
    shapes: list[tuple[int, PackedShape]]
    until: int


def pack(shape: Shape) -> PackedShape:
    """The bins that are not empty."""
    places = np.flatnonzero(shape.features[0])
    scores = {}
    for role, counts in shape.scores.items():
        used = np.flatnonzero(counts)
        scores[role] = _small(used), _small(counts[used])
    return PackedShape(
        shape.features.shape[1] // BINS,
        _small(np.diff(places, prepend=0)),
        _small(shape.features[0, places]),
        _small(shape.features[1, places]),
        scores,
    )


def add_packed(shape: Shape, packed: PackedShape) -> None:
    """Add in place; both have the same features."""
    places = np.cumsum(_whole(packed.places))
    shape.features[0, places] += _whole(packed.rows)
    shape.features[1, places] += _whole(packed.sums)
    for role in packed.scores:
        add_scores(shape.scores.setdefault(role, np.zeros(SCORE_BINS, dtype=np.int64)), packed, role)


def add_scores(counts: npt.NDArray[np.int64], packed: PackedShape, role: str) -> None:
    """Add the rows of a role to those by bin of the score, in place."""
    bins, rows = packed.scores[role]
    counts[_whole(bins)] += _whole(rows)


def unpack(packed: PackedShape) -> Shape:
    """As it was packed."""
    shape = Shape.empty(packed.features)
    add_packed(shape, packed)
    return shape


def add_up(packed: Sequence[PackedShape]) -> PackedShape:
    """The sum; of at least one, all with the same features."""
    if len(packed) == 1:
        return packed[0]
    shape = unpack(packed[0])
    for each in packed[1:]:
        add_packed(shape, each)
    return pack(shape)


def cut(told: ShapesTold) -> Iterator[ShapesTold]:
    """The same in pieces, each far below what a message may hold; the last one says `until`."""
    piece: list[tuple[int, PackedShape]] = []
    size = 0
    for hour, shape in told.shapes:
        if size >= _FULL_MESSAGE:
            yield ShapesTold(told.partition, piece, NEVER)
            piece, size = [], 0
        piece.append((hour, shape))
        size += shape.size
    yield ShapesTold(told.partition, piece, told.until)


def _small(values: npt.NDArray[np.integer]) -> Numbers:
    least = np.result_type(np.int8, *(np.min_scalar_type(int(end)) for end in _ends(values)))
    dtype = least if least.kind == "i" else np.dtype(np.int64)
    return dtype.str, values.astype(dtype).tobytes()


def _ends(values: npt.NDArray[np.integer]) -> tuple[int, ...]:
    return (int(values.min()), int(values.max())) if len(values) else ()


def _whole(numbers: Numbers) -> npt.NDArray[np.int64]:
    dtype, values = numbers
    return np.frombuffer(values, np.dtype(dtype)).astype(np.int64)


_encode = msgspec.msgpack.Encoder().encode
encode_shapes = _encode
decode_shapes = msgspec.msgpack.Decoder(ShapesTold).decode
