"""Arrays in a JSON document: zlib-compressed little-endian bytes in base64."""

from __future__ import annotations

import base64
import binascii
import math
import zlib

import numpy as np
from numpy.typing import NDArray

from models.arrays import Floats
from models.snapshot_document import Json, SnapshotDamagedError

MAX_ARRAY_BYTES = 128 << 20
"""Of all arrays of a snapshot together, decompressed."""
LEVEL = 6
"""Of the compression."""
_DTYPES: dict[str, type[np.float64] | type[np.int32]] = {"<f8": np.float64, "<i4": np.int32}


def pack(array: NDArray[np.generic]) -> dict[str, Json]:
    """The array as ``Unpacking`` reads it.

    :raises ValueError: its type is not one that travels.
    """
    little = array.astype(array.dtype.newbyteorder("<"), copy=False)
    if little.dtype.str not in _DTYPES:
        raise ValueError(f"arrays of {array.dtype} do not travel")
    raw = zlib.compress(np.ascontiguousarray(little).tobytes(), LEVEL)
    return {
        "dtype": little.dtype.str,
        "shape": [int(n) for n in array.shape],
        "data": base64.b64encode(raw).decode(),
    }


class Unpacking:
    """Unpacks arrays until the bytes allowed are used up, so that a small document cannot fill the memory.

    What it raises, whatever it is given, is ``SnapshotDamagedError``. Arrays cannot be written to.
    """

    def __init__(self) -> None:
        self._left = MAX_ARRAY_BYTES

    def unpack(self, name: str, packed: Json) -> NDArray[np.generic]:
        """The array of that name, of one or two dimensions."""
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
        """Finite f64 of that shape; None stands for any length."""
        array = self.unpack(name, packed)
        fits = array.ndim == len(shape) and all(
            w in (None, n) for w, n in zip(shape, array.shape, strict=True)
        )
        if array.dtype != np.float64 or not fits or not np.isfinite(array).all():
            raise SnapshotDamagedError(f"{name} must be finite floats of shape {shape}")
        return array.astype(np.float64, copy=False)
