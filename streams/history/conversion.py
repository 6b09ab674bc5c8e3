"""One table of a history file to transaction columns, or an error that names file, row and column."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from streams.contract.currencies import CANONICAL, EXPONENTS
from streams.contract.transaction_columns import OPTIONAL_TEXTS, Bools, Floats, Ints, TransactionColumns
from streams.history.mapping import ROW_NUMBER, HistoryError, HistoryMapping
from streams.times import MAX_TIME, MIN_TIME, epoch_ms, time_hint

_PER_SECOND = {"s": 1, "ms": 1_000, "us": 1_000_000, "ns": 1_000_000_000}
_TRUTHS = {"1": True, "true": True, "yes": True, "0": False, "false": False, "no": False}


class Conversion:
    """The columns of one table under a mapping.

    `first_row` is the number of rows before the table in its file, `first_overall` in all files.
    """

    def __init__(
        self, path: Path, table: pa.Table, mapping: HistoryMapping, first_row: int, first_overall: int
    ) -> None:
        self._path, self._table, self._mapping = path, table, mapping
        self._first_row, self._first_overall = first_row, first_overall
        self._rows: int = table.num_rows

    def columns(self) -> TransactionColumns:
        """Raises HistoryError at the first value that does not fit its field."""
        mapping = self._mapping
        currency = self._currency()
        return TransactionColumns(
            transaction_id=self._ids("transaction_id"),
            card_id=self._ids("card_id"),
            terminal_id=self._ids("terminal_id") if self._given("terminal_id") else [""] * self._rows,
            event_time=self._event_time(),
            amount_minor=self._amount(currency),
            currency=currency,
            texts={name: self._text(name) for name in OPTIONAL_TEXTS if self._given(name)},
            attributes={name: self._finite(column) for name, column in mapping.attributes.items()},
            fraud=self._fraud() if "fraud" in mapping.columns else None,
        )

    def _given(self, field: str) -> bool:
        return field in self._mapping.columns or field in self._mapping.constants

    def _ids(self, field: str) -> list[str]:
        prefix = self._mapping.prefixes.get(field, "")
        column = self._mapping.columns.get(field)
        if column is None:
            return [prefix + self._mapping.constants[field]] * self._rows
        if column == ROW_NUMBER:
            start = self._first_overall
            return [f"{prefix}{number}" for number in range(start, start + self._rows)]
        values = self._required(column)
        if pa.types.is_floating(values.type):
            # A table library turns integers with gaps into floats; "17.0" would be another id than "17".
            values = self._cast(column, values, pa.int64(), "an id")
        texts: list[str] = self._cast(column, values, pa.string(), "an id").to_pylist()
        if "" in texts:
            raise self._error(column, texts.index(""), "is empty")
        return [prefix + text for text in texts] if prefix else texts

    def _text(self, field: str) -> list[str | None]:
        if field in self._mapping.constants:
            return [self._mapping.constants[field]] * self._rows
        column = self._mapping.columns[field]
        texts: list[str | None] = self._cast(column, self._table[column], pa.string(), "text").to_pylist()
        if field == "mcc":
            # A number lost the leading zeros of the code.
            return [text and text.zfill(4) for text in texts]
        return [text or None for text in texts]

    def _currency(self) -> list[str]:
        if "currency" in self._mapping.constants:
            codes = [self._mapping.constants["currency"]] * self._rows
        else:
            codes = self._required(self._mapping.columns["currency"]).cast(pa.string()).to_pylist()
        for code in set(codes):
            if code not in CANONICAL:
                raise self._error(
                    "currency", codes.index(code), f"{code!r} is no ISO 4217 code of a currency"
                )
        return [CANONICAL[code] for code in codes]

    def _amount(self, currency: Sequence[str]) -> Ints:
        major = self._mapping.columns.get("amount")
        if major is None:
            minor = self._mapping.columns["amount_minor"]
            amounts = self._integers(minor)
        else:
            minor = major
            scales = {code: 10.0 ** EXPONENTS[code] for code in set(currency)}
            scale = np.array([scales[code] for code in currency])
            amounts = np.rint(self._finite(major) * scale).astype(np.int64)
        if len(amounts) and amounts.min() < 0:
            raise self._error(minor, int(np.argmax(amounts < 0)), "is negative")
        return amounts

    def _event_time(self) -> Ints:
        column = self._mapping.columns["event_time"]
        times = self._times(column)
        wrong = (times < MIN_TIME) | (times >= MAX_TIME)
        if wrong.any():
            row = int(np.argmax(wrong))
            raise self._error(
                column, row, f"{times[row]} as epoch milliseconds: {time_hint(int(times[row]))}"
            )
        return times

    def _times(self, column: str) -> Ints:
        values, time = self._required(column), self._mapping.time
        if pa.types.is_timestamp(values.type) or pa.types.is_date(values.type):
            zone = getattr(values.type, "tz", None)
            return _numbers(values.cast(pa.timestamp("ms", zone), safe=False).cast(pa.int64()))
        unit = time.unit
        if unit == "auto":
            unit = "datetime" if pa.types.is_string(values.type) and not _numeric(values) else "ms"
        if unit == "datetime":
            if not pa.types.is_string(values.type):
                raise self._error(
                    column, 0, f"{values[0]} is a number; the mapping's time.unit says datetime"
                )
            return self._parsed(column, values)
        scale = _PER_SECOND[unit]
        if pa.types.is_integer(values.type) or (pa.types.is_string(values.type) and _whole(values)):
            numbers = self._integers(column)
            in_ms = numbers * (1000 // scale) if scale <= 1000 else numbers // (scale // 1000)
        else:
            in_ms = np.rint(self._finite(column) * (1000 / scale)).astype(np.int64)
        return in_ms + time.origin_ms

    def _parsed(self, column: str, values: pa.ChunkedArray) -> Ints:
        for kind in (pa.timestamp("us"), pa.timestamp("us", "UTC")):
            try:
                return _numbers(values.cast(kind).cast(pa.int64())) // 1000
            except pa.ArrowInvalid:
                continue
        times = np.empty(self._rows, dtype=np.int64)
        for row, text in enumerate(values.to_pylist()):
            try:
                moment = datetime.fromisoformat(text.strip())
            except ValueError:
                raise self._error(column, row, f"{text[:40]!r} is no ISO 8601 time") from None
            times[row] = epoch_ms(moment if moment.tzinfo else moment.replace(tzinfo=UTC))
        return times

    def _fraud(self) -> Bools:
        column = self._mapping.columns["fraud"]
        values = self._required(column)
        if pa.types.is_boolean(values.type):
            return np.asarray(values.to_numpy(), dtype=np.bool_)
        if pa.types.is_string(values.type):
            texts = [text.lower() for text in values.to_pylist()]
            for row, text in enumerate(texts):
                if text not in _TRUTHS:
                    raise self._error(column, row, f"{text[:40]!r} is neither 0 nor 1, true nor false")
            return np.array([_TRUTHS[text] for text in texts], dtype=np.bool_)
        numbers = self._integers(column)
        odd = (numbers != 0) & (numbers != 1)
        if odd.any():
            row = int(np.argmax(odd))
            raise self._error(column, row, f"{numbers[row]} is neither 0 nor 1")
        return np.equal(numbers, 1)

    def _integers(self, column: str) -> Ints:
        return _numbers(self._cast(column, self._required(column), pa.int64(), "an integer"))

    def _finite(self, column: str) -> Floats:
        values = self._cast(column, self._required(column), pa.float64(), "a number")
        numbers = np.asarray(values.to_numpy(), dtype=np.float64)
        finite = np.isfinite(numbers)
        if not finite.all():
            raise self._error(column, int(np.argmin(finite)), "is not finite")
        return numbers

    def _required(self, column: str) -> pa.ChunkedArray:
        values = self._table[column]
        if values.null_count:
            raise self._error(column, int(np.argmax(values.is_null().to_numpy())), "is empty")
        return values.cast(values.type.value_type) if pa.types.is_dictionary(values.type) else values

    def _cast(self, column: str, values: pa.ChunkedArray, kind: pa.DataType, what: str) -> pa.ChunkedArray:
        try:
            return values.cast(kind)
        except (pa.ArrowInvalid, pa.ArrowNotImplementedError):
            for row, value in enumerate(values):
                try:
                    value.cast(kind)
                except (pa.ArrowInvalid, pa.ArrowNotImplementedError):
                    text = str(value.as_py())[:40]
                    raise self._error(column, row, f"{text!r} is not {what}") from None
            raise

    def _error(self, column: str, row: int, problem: str) -> HistoryError:
        return HistoryError(f"{self._path}: row {self._first_row + row + 1}: column {column} {problem}")


def _numbers(values: pa.ChunkedArray) -> Ints:
    return np.asarray(values.to_numpy(), dtype=np.int64)


def _numeric(values: pa.ChunkedArray) -> bool:
    first = values[0].as_py() if len(values) else ""
    return first.strip().lstrip("-").replace(".", "", 1).isdecimal()


def _whole(values: pa.ChunkedArray) -> bool:
    return bool(pc.all(pc.match_substring_regex(values, r"^-?\d+$")).as_py())
