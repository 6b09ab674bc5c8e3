"""Internal columnar records: many rows in one Kafka message.

The topics between stages carry batches, not single transactions: named numpy arrays, lists of strings and a
small dictionary of metadata, in one MessagePack document, so that decoding costs per message, not per row.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import TypeVar, cast

import msgspec
import numpy as np
import numpy.typing as npt

Array = npt.NDArray[np.generic]
Dtype = TypeVar("Dtype", bound=np.generic)

_FORMAT = 3
#: Every array begins at a multiple of this.
_ALIGNMENT = 8
_DTYPES = {
    np.dtype(kind).str: np.dtype(kind)
    for kind in ("b1", "i1", "i2", "i4", "i8", "u1", "u2", "u4", "u8", "f4", "f8")
}


class _Packed(msgspec.Struct, array_like=True):
    """`data` holds the arrays in the order of `arrays`, their types and shapes; one piece of memory is made
    into many arrays much faster than many pieces.
    """

    format: int
    meta: dict[str, object]
    arrays: dict[str, tuple[str, tuple[int, ...]]]
    data: memoryview
    strings: dict[str, list[str]]


_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(_Packed).decode


class ColumnsError(ValueError):
    """A message on an internal topic is not a columnar record of this format."""


@dataclass(slots=True)
class Columns:
    """Rows as columns: an array has the rows on its first axis, a string list has one entry per row."""

    meta: dict[str, object] = field(default_factory=dict)
    arrays: dict[str, Array] = field(default_factory=dict)
    strings: dict[str, list[str]] = field(default_factory=dict)

    def __len__(self) -> int:
        for array in self.arrays.values():
            return len(array)
        for strings in self.strings.values():
            return len(strings)
        return 0

    def ints(self, name: str) -> npt.NDArray[np.int64]:
        """The i8 column `name`.

        This and the accessors below raise `ColumnsError` where there is no column of that name and type.
        """
        return self._typed(name, np.int64)

    def floats(self, name: str) -> npt.NDArray[np.float64]:
        return self._typed(name, np.float64)

    def words(self, name: str) -> npt.NDArray[np.uint64]:
        """Hashes."""
        return self._typed(name, np.uint64)

    def codes(self, name: str) -> npt.NDArray[np.uint8]:
        """Small codes."""
        return self._typed(name, np.uint8)

    def bools(self, name: str) -> npt.NDArray[np.bool_]:
        return self._typed(name, np.bool_)

    def _typed(self, name: str, dtype: type[Dtype]) -> npt.NDArray[Dtype]:
        array = self.arrays.get(name)
        if array is None or array.dtype != dtype:
            found = "missing" if array is None else str(array.dtype)
            raise ColumnsError(f"column {name!r} is {found}, not {dtype.__name__}")
        return cast("npt.NDArray[Dtype]", array)

    def meta_int(self, name: str) -> int:
        """The whole number `name` of the metadata.

        Raises:
            ColumnsError: there is none.
        """
        value = self.meta.get(name)
        if not isinstance(value, int):
            raise ColumnsError(f"metadata {name!r} is {value!r}, not a whole number")
        return value

    def take(self, rows: npt.NDArray[np.intp] | npt.NDArray[np.bool_]) -> Columns:
        """The given rows (indices or a mask), in that order, with the same metadata."""
        index = np.flatnonzero(rows) if rows.dtype == np.bool_ else rows
        if len(index) == len(self) and bool(np.all(index[1:] > index[:-1])):
            return self
        positions = index.tolist()
        return Columns(
            self.meta,
            # By far the faster way each.
            {
                name: array[index] if array.ndim == 1 else array.take(index, axis=0)
                for name, array in self.arrays.items()
            },
            {name: [values[i] for i in positions] for name, values in self.strings.items()},
        )

    def part(self, start: int, stop: int) -> Columns:
        """The rows from `start` to before `stop`, not copied."""
        if start == 0 and stop >= len(self):
            return self
        return Columns(
            self.meta,
            {name: array[start:stop] for name, array in self.arrays.items()},
            {name: values[start:stop] for name, values in self.strings.items()},
        )

    def split(self, destination: npt.NDArray[np.int64]) -> dict[int, Columns]:
        """The rows of each destination, in order, by destination; those without rows are left out."""
        if not len(destination):
            return {}
        order = np.argsort(destination, kind="stable")
        rows, found = self.take(order), destination[order]
        starts = [0, *(np.flatnonzero(found[1:] != found[:-1]) + 1).tolist()]
        return {
            int(found[start]): rows.part(start, stop)
            for start, stop in zip(starts, [*starts[1:], len(found)], strict=True)
        }

    def encode(self) -> bytes:
        """The columns as one message.

        Raises:
            ColumnsError: an array holds neither numbers nor truth values of a fixed width.
        """
        chunks = []
        for name, array in self.arrays.items():
            if array.dtype.str not in _DTYPES:
                raise ColumnsError(f"column {name!r} is {array.dtype}")
            chunks.append(array.tobytes())
            chunks.append(bytes(-array.nbytes % _ALIGNMENT))
        arrays = {name: (array.dtype.str, array.shape) for name, array in self.arrays.items()}
        return _encode(_Packed(_FORMAT, self.meta, arrays, memoryview(b"".join(chunks)), self.strings))


def decode(data: bytes) -> Columns:
    """The columns of one message.

    Raises:
        ColumnsError: the bytes are not such a record.
    """
    try:
        packed = _decode(data)
        if packed.format != _FORMAT:
            raise ColumnsError(f"columnar format {packed.format} is not {_FORMAT}")
        # Copied, because a compiled kernel is compiled once more for arrays that cannot be written to.
        memory, start = bytearray(packed.data), 0
        arrays: dict[str, Array] = {}
        for name, (dtype, shape) in packed.arrays.items():
            array: Array = np.ndarray(shape, _DTYPES[dtype], memory, start)
            arrays[name] = array
            start += array.nbytes + -array.nbytes % _ALIGNMENT
    except (msgspec.DecodeError, msgspec.ValidationError, KeyError, TypeError, ValueError) as error:
        raise ColumnsError(f"not a columnar record: {error}") from error
    return Columns(packed.meta, arrays, packed.strings)


def concat(parts: Sequence[Columns]) -> Columns:
    """All rows of `parts` in order, with the metadata of the first; the parts have the same columns."""
    if len(parts) == 1:
        return parts[0]
    first = parts[0]
    return Columns(
        first.meta,
        {name: np.concatenate([part.arrays[name] for part in parts]) for name in first.arrays},
        {name: _chain(part.strings[name] for part in parts) for name in first.strings},
    )


def _chain(lists: Iterable[list[str]]) -> list[str]:
    return [value for values in lists for value in values]
