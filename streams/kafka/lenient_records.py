"""Record batches whose header names are not UTF-8.

A Kafka broker takes any bytes as the name of a header. aiokafka decodes names strictly while it iterates over
a batch, so that one such record would end every consumer that comes to it, again after each restart. Here the
names of such a batch are decoded with their odd bytes spelled out; keys, values and header values are bytes
anyway.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from aiokafka.consumer import fetcher
from aiokafka.record.default_records import _DefaultRecordBatchPy
from aiokafka.record.memory_records import MemoryRecords

#: Of a batch: offset of its first record and length of the rest.
_HEAD_BYTES = 12


class _Spelled(bytearray):
    """Bytes whose parts decode always."""

    def __getitem__(self, place: Any) -> Any:
        part = super().__getitem__(place)
        return _Spelled(part) if isinstance(place, slice) else part

    def decode(self, encoding: str = "utf-8", errors: str = "strict") -> str:
        return bytes(self).decode(encoding, "backslashreplace")


class _LenientBatch:
    """A batch of aiokafka's that can be iterated whatever its header names are."""

    def __init__(self, batch: Any, data: bytes) -> None:
        self._batch = batch
        self._data = data

    def __getattr__(self, name: str) -> Any:
        return getattr(self._batch, name)

    def __next__(self) -> Any:
        """The next record; aiokafka takes the marker of a control batch so."""
        return next(self._batch)

    def __iter__(self) -> Iterator[Any]:
        try:
            return iter(list(self._batch))
        except UnicodeDecodeError:
            plain = _DefaultRecordBatchPy(bytearray(self._data))
            plain._maybe_uncompress()
            plain._buffer = _Spelled(plain._buffer)
            return iter(plain)


class LenientRecords:
    """`MemoryRecords` of aiokafka, with lenient batches."""

    def __init__(self, data: bytes) -> None:
        self._records = MemoryRecords(data)
        self._data = data
        self._position = 0

    def size_in_bytes(self) -> int:
        return int(self._records.size_in_bytes())

    def has_next(self) -> bool:
        return bool(self._records.has_next())

    def next_batch(self) -> _LenientBatch | None:
        batch = self._records.next_batch()
        if batch is None:
            return None
        start = self._position
        length = int.from_bytes(self._data[start + 8 : start + _HEAD_BYTES], "big")
        self._position = start + _HEAD_BYTES + length
        return _LenientBatch(batch, self._data[start : self._position])


def install() -> None:
    """Have every consumer of this process read leniently: aiokafka offers no other place for it."""
    fetcher.MemoryRecords = LenientRecords
