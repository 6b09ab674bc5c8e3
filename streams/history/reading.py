"""Histories in CSV, Parquet and JSONL files, in batches of columns; memory does not grow with the file."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from itertools import islice
from pathlib import Path

import orjson
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet as pq

from streams.contract.transaction_columns import TransactionColumns
from streams.history.conversion import Conversion
from streams.history.mapping import ROW_NUMBER, HistoryError, HistoryMapping, detect_mapping, load_mapping

BATCH_ROWS = 50_000


def read_history(
    paths: Sequence[str | Path],
    mapping: HistoryMapping | str | Path | None = None,
    batch_rows: int = BATCH_ROWS,
) -> Iterator[TransactionColumns]:
    """The rows of the files, file by file in the given order, in batches of at most `batch_rows`.

    Args:
        paths: files ending in .csv, .parquet, .jsonl or .ndjson; times are put in order by the caller.
        mapping: a mapping, the name of a ready one, a TOML file, or None to detect it per file.

    Raises:
        HistoryError: a file, mapping, column or row cannot be used; rows count from 1, without a header.
    """
    chosen = mapping if isinstance(mapping, HistoryMapping) or mapping is None else load_mapping(mapping)
    seen = 0
    for path in map(Path, paths):
        columns, tables = _open(path, batch_rows)
        used = chosen or detect_mapping(columns, str(path))
        if missing := used.missing(columns):
            raise HistoryError(
                f"{path}: no column {', '.join(missing)} (mapping {used.name}); columns: {', '.join(columns)}"
            )
        start = seen
        for table in _readable(path, tables(sorted(used.sources()))):
            yield Conversion(path, table, used, seen - start, seen).columns()
            seen += table.num_rows


def id_column(paths: Sequence[str | Path], mapping: HistoryMapping | str | Path | None = None) -> str:
    """The column of the first file that holds the transaction ids; `transaction_id` if rows are numbered."""
    if isinstance(mapping, HistoryMapping):
        used = mapping
    elif mapping is not None:
        used = load_mapping(mapping)
    else:
        path = Path(paths[0])
        used = detect_mapping(_open(path, 1)[0], str(path))
    column = used.columns.get("transaction_id", "transaction_id")
    return "transaction_id" if column == ROW_NUMBER else column


def count_rows(paths: Sequence[str | Path]) -> int | None:
    """Rows of all files, or None when that would mean reading them (CSV, JSONL)."""
    if any(Path(path).suffix != ".parquet" for path in paths):
        return None
    return sum(_parquet_rows(Path(path)) for path in paths)


def _parquet_rows(path: Path) -> int:
    try:
        return int(pq.read_metadata(path).num_rows)
    except (OSError, pa.ArrowException) as error:
        raise HistoryError(f"{path}: {error}") from error


def _readable(path: Path, tables: Iterator[pa.Table]) -> Iterator[pa.Table]:
    try:
        yield from tables
    except (OSError, pa.ArrowException) as error:
        raise HistoryError(f"{path}: {error}") from error


Tables = Callable[[list[str]], Iterator[pa.Table]]


def _open(path: Path, batch_rows: int) -> tuple[list[str], Tables]:
    """Column names of a file, and what yields its tables with some of the columns."""
    kinds = {".csv": _open_csv, ".parquet": _open_parquet, ".jsonl": _open_jsonl, ".ndjson": _open_jsonl}
    opener = kinds.get(path.suffix.lower())
    if opener is None:
        raise HistoryError(f"{path}: not one of {', '.join(kinds)}")
    try:
        return opener(path, batch_rows)
    except (OSError, pa.ArrowException) as error:
        raise HistoryError(f"{path}: {error}") from error


def _open_parquet(path: Path, batch_rows: int) -> tuple[list[str], Tables]:
    file = pq.ParquetFile(path)
    nested = pa.Table.from_batches([], file.schema_arrow).flatten().column_names

    def tables(columns: list[str]) -> Iterator[pa.Table]:
        for batch in file.iter_batches(batch_rows, columns=columns):
            yield pa.Table.from_batches([batch]).flatten().select(columns)

    return nested, tables


def _open_csv(path: Path, batch_rows: int) -> tuple[list[str], Tables]:
    with pa.csv.open_csv(path) as reader:
        names = list(reader.schema.names)

    def tables(columns: list[str]) -> Iterator[pa.Table]:
        # As text: inference by block would drop leading zeros of ids and cannot say which row is wrong.
        options = pa.csv.ConvertOptions(
            include_columns=columns,
            column_types=dict.fromkeys(columns, pa.string()),
            strings_can_be_null=True,
            null_values=["", "NULL", "null", "NaN", "nan"],
        )
        with pa.csv.open_csv(path, convert_options=options) as reader:
            for block in reader:
                table = pa.Table.from_batches([block])
                for start in range(0, table.num_rows, batch_rows):
                    yield table.slice(start, batch_rows)

    return names, tables


def _open_jsonl(path: Path, batch_rows: int) -> tuple[list[str], Tables]:
    def documents() -> Iterator[dict[str, object]]:
        with path.open("rb") as lines:
            for number, line in enumerate(lines, 1):
                if line.isspace():
                    continue
                try:
                    document = orjson.loads(line)
                except orjson.JSONDecodeError as error:
                    raise HistoryError(f"{path}: row {number}: no JSON: {error}") from None
                if not isinstance(document, dict):
                    raise HistoryError(f"{path}: row {number}: not a JSON object")
                attributes = document.pop("attributes", None)
                if isinstance(attributes, dict):
                    document.update((f"attributes.{name}", value) for name, value in attributes.items())
                yield document

    # A key that only later rows have is optional; a thousand rows show the ones that matter.
    names = list(dict.fromkeys(name for document in islice(documents(), 1000) for name in document))

    def tables(columns: list[str]) -> Iterator[pa.Table]:
        rows = documents()
        while chunk := list(islice(rows, batch_rows)):
            yield pa.table({name: _json_array([row.get(name) for row in chunk]) for name in columns})

    return names, tables


def _json_array(values: list[object]) -> pa.Array:
    try:
        return pa.array(values)
    except (pa.ArrowException, OverflowError):
        # Mixed types: as text, so that the conversion of the column names the row that does not fit.
        return pa.array([None if value is None else str(value) for value in values], pa.string())
