from __future__ import annotations

import json
from collections.abc import Callable
from decimal import Decimal
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet as pq
import pytest

from streams.contract.transaction_columns import TransactionColumns, between
from streams.history.mapping import HistoryError, HistoryMapping, detect_mapping, load_mapping, ready_mappings
from streams.history.reading import count_rows, id_column, read_history

NOON = 1_522_584_000_000  # 2018-04-01T12:00:00Z


def handbook(rows: int = 5) -> pa.Table:
    return pa.table(
        {
            "TRANSACTION_ID": pa.array(range(rows), pa.int32()),
            "TX_DATETIME": pa.array([NOON + 1000 * row for row in range(rows)], pa.timestamp("ms")),
            "CUSTOMER_ID": pa.array([596 + row for row in range(rows)], pa.int32()),
            "TERMINAL_ID": pa.array([3156 + row for row in range(rows)], pa.int32()),
            "TX_AMOUNT": [57.16 + row for row in range(rows)],
            "TX_TIME_SECONDS": pa.array(range(rows), pa.int32()),
            "TX_FRAUD": pa.array([row % 2 for row in range(rows)], pa.int8()),
        }
    )


def write(table: pa.Table, path: Path) -> Path:
    if path.suffix == ".parquet":
        pq.write_table(table, path, row_group_size=3)
    elif path.suffix == ".csv":
        pa.csv.write_csv(table, path)
    else:
        path.write_text("".join(json.dumps(row, default=str) + "\n" for row in table.to_pylist()))
    return path


def read(*paths: Path, mapping: Any = None, batch_rows: int = 50_000) -> list[dict[str, Any]]:
    """All rows of a history, one dictionary each."""
    rows = []
    for batch in read_history(paths, mapping, batch_rows):
        for row in range(len(batch)):
            rows.append(
                {
                    "transaction_id": batch.transaction_id[row],
                    "card_id": batch.card_id[row],
                    "terminal_id": batch.terminal_id[row],
                    "event_time": int(batch.event_time[row]),
                    "amount_minor": int(batch.amount_minor[row]),
                    "currency": batch.currency[row],
                    **{name: texts[row] for name, texts in batch.texts.items()},
                    **{name: float(values[row]) for name, values in batch.attributes.items()},
                    **({} if batch.fraud is None else {"fraud": bool(batch.fraud[row])}),
                }
            )
    return rows


@pytest.mark.parametrize("suffix", [".parquet", ".csv", ".jsonl"])
@pytest.mark.parametrize("batch_rows", [2, 1000])
def test_every_format_gives_the_same_rows(tmp_path: Path, suffix: str, batch_rows: int) -> None:
    """The Handbook's columns are recognised in each format and give the rows of the contract."""
    path = write(handbook(), tmp_path / f"history{suffix}")
    rows = read(path, batch_rows=batch_rows)
    assert len(rows) == 5
    assert rows[3] == {
        "transaction_id": "3",
        "card_id": "599",
        "terminal_id": "3159",
        "event_time": NOON + 3000,
        "amount_minor": 6016,
        "currency": "EUR",
        "fraud": True,
    }


def test_files_are_read_in_the_given_order_and_in_bounded_batches(tmp_path: Path) -> None:
    """Several files follow each other, and no batch is larger than asked for."""
    first = write(handbook(5), tmp_path / "b.parquet")
    second = write(handbook(4), tmp_path / "a.csv")
    sizes = [len(batch) for batch in read_history([first, second], batch_rows=3)]
    assert max(sizes) <= 3
    assert [row["transaction_id"] for row in read(first, second)] == list("012340123")
    assert count_rows([first]) == 5
    assert count_rows([first, second]) is None


def test_the_column_with_the_ids_is_known_by_its_own_name(tmp_path: Path) -> None:
    """Scores can be written under the id column of the history they belong to."""
    path = write(handbook(), tmp_path / "h.parquet")
    assert id_column([path]) == id_column([path], "handbook") == "TRANSACTION_ID"
    assert id_column([path], load_mapping("creditcard")) == "transaction_id"


def test_the_contract_s_own_names_need_no_mapping(tmp_path: Path) -> None:
    """A file of published transactions reads back, attributes and optional fields included."""
    path = tmp_path / "history.jsonl"
    path.write_text(
        '{"transaction_id": "t1", "card_id": "c1", "terminal_id": "m1", "event_time": "2018-04-01T12:00:00Z",'
        ' "amount_minor": 1200, "currency": "jpy", "mcc": "0742", "attributes": {"V1": 1.5}}\n\n'
        '{"transaction_id": "t2", "card_id": "c2", "terminal_id": "m1", "amount_minor": 7, "currency": "KWD",'
        ' "event_time": "2018-04-01T14:00:00+02:00", "mcc": null, "attributes": {"V1": 2}}\n'
    )
    first, second = read(path)
    assert first == {
        "transaction_id": "t1",
        "card_id": "c1",
        "terminal_id": "m1",
        "event_time": NOON,
        "amount_minor": 1200,
        "currency": "JPY",
        "mcc": "0742",
        "V1": 1.5,
    }
    assert (second["event_time"], second["mcc"], second["V1"]) == (NOON, None, 2.0)


def test_parquet_types_of_other_writers(tmp_path: Path) -> None:
    """Structs, dictionaries, decimals, dates and ids that a table library made floats are read as meant."""
    table = pa.table(
        {
            "transaction_id": pa.array([1.0, 2.0]),
            "card_id": pa.array(["c1", "c1"]).dictionary_encode(),
            "event_time": pa.array([17_622, 17_623], pa.date32()),
            "amount": pa.array([Decimal("12.34"), Decimal("0.29")], pa.decimal128(8, 2)),
            "currency": pa.array(["EUR", "EUR"]).dictionary_encode(),
            "mcc": pa.array([742, 5411]),
            "fraud": pa.array([True, False]),
            "attributes": pa.array([{"V1": 0.5, "V2": 1}, {"V1": 1.5, "V2": 2}]),
        }
    )
    first, second = read(write(table, tmp_path / "h.parquet"))
    assert first == {
        "transaction_id": "1",
        "card_id": "c1",
        "terminal_id": "",
        "event_time": 17_622 * 86_400_000,
        "amount_minor": 1234,
        "currency": "EUR",
        "mcc": "0742",
        "V1": 0.5,
        "V2": 1.0,
        "fraud": True,
    }
    assert (second["amount_minor"], second["mcc"], second["fraud"]) == (29, "5411", False)


def test_a_damaged_file_is_named_after_its_good_rows(tmp_path: Path) -> None:
    """Rows before the damage are given, then the error names the file."""
    path = write(handbook(40_000), tmp_path / "cut.csv")
    with path.open("a") as file:
        file.write("1,2\n")
    batches = read_history([path])
    assert len(next(batches)) > 0
    with pytest.raises(HistoryError, match=r"cut\.csv"):
        list(batches)


def mapped(
    tmp_path: Path, table: dict[str, Any], time: str, suffix: str = ".parquet"
) -> list[dict[str, Any]]:
    mapping = tmp_path / "mapping.toml"
    mapping.write_text(
        '[columns]\ntransaction_id = "#row"\ncard_id = "card"\nevent_time = "when"\namount = "money"\n'
        'currency = "cur"\n[constants]\nterminal_id = "web"\n'
        '[prefixes]\ntransaction_id = "tx-"\ncard_id = "c-"\n'
        f'[time]\n{time}\n[attributes]\nspeed = "kmh"\n'
    )
    columns = {"card": [1, 2], "money": [1.005, 2], "cur": ["EUR", "JPY"], "kmh": [1, 2]} | table
    return read(write(pa.table(columns), tmp_path / f"h{suffix}"), mapping=mapping)


@pytest.mark.parametrize("suffix", [".parquet", ".csv", ".jsonl"])
@pytest.mark.parametrize(
    ("when", "time"),
    [
        ([NOON, NOON + 500], 'unit = "ms"'),
        ([NOON, NOON + 500], 'unit = "auto"'),
        ([NOON / 1000, NOON / 1000 + 0.5], 'unit = "s"'),
        ([NOON * 1000, NOON * 1000 + 500_000], 'unit = "us"'),
        ([43_200, 43_200.5], 'unit = "s"\norigin = "2018-04-01T00:00:00Z"'),
        (["2018-04-01 12:00:00", "2018-04-01 12:00:00.500"], 'unit = "datetime"'),
        (["2018-04-01T12:00:00Z", "2018-04-01T12:00:00.500Z"], 'unit = "auto"'),
        (["2018-04-01T12:00:00Z", "2018-04-01 12:00:00.5"], 'unit = "datetime"'),
    ],
)
def test_time_units(tmp_path: Path, suffix: str, when: list[Any], time: str) -> None:
    """Datetimes with and without a zone, epoch numbers of each unit, and seconds since an origin agree."""
    rows = mapped(tmp_path, {"when": when}, time, suffix)
    assert [row["event_time"] for row in rows] == [NOON, NOON + 500]


@pytest.mark.parametrize(
    ("zone", "expected"), [(None, NOON), ("UTC", NOON), ("Europe/Paris", NOON)], ids=["naive", "utc", "paris"]
)
def test_timestamp_columns(tmp_path: Path, zone: str | None, expected: int) -> None:
    """A zoned timestamp is an instant, and one without a zone is UTC."""
    when = pa.array([NOON * 1000, NOON * 1000], pa.timestamp("us", zone))
    assert mapped(tmp_path, {"when": when}, 'unit = "datetime"')[0]["event_time"] == expected


def test_constants_prefixes_row_numbers_and_minor_units(tmp_path: Path) -> None:
    """What a file lacks comes from the mapping, and amounts follow the currency's minor unit."""
    first, second = mapped(tmp_path, {"when": [NOON, NOON]}, "")
    assert first == {
        "transaction_id": "tx-0",
        "card_id": "c-1",
        "terminal_id": "web",
        "event_time": NOON,
        "amount_minor": 100,
        "currency": "EUR",
        "speed": 1.0,
    }
    assert (second["transaction_id"], second["amount_minor"], second["currency"]) == ("tx-1", 2, "JPY")


def replaced(column: str, row: int, value: object) -> Callable[[], pa.Table]:
    def make() -> pa.Table:
        table = handbook()
        values = table[column].to_pylist()
        values[row] = value
        texts = None if value is None else [v if isinstance(v, str) else str(v) for v in values]
        kind = table[column].type if value is None else pa.string()
        return table.set_column(
            table.column_names.index(column), column, pa.array(texts if texts else values, kind)
        )

    return make


@pytest.mark.parametrize(
    ("make", "row", "column"),
    [
        (replaced("TX_AMOUNT", 3, "12,50"), 4, "TX_AMOUNT"),
        (replaced("TX_AMOUNT", 2, "nan"), 3, "TX_AMOUNT"),
        (replaced("TX_AMOUNT", 2, "-1.0"), 3, "TX_AMOUNT"),
        (replaced("TX_AMOUNT", 4, None), 5, "TX_AMOUNT"),
        (replaced("TX_DATETIME", 1, "yesterday"), 2, "TX_DATETIME"),
        (replaced("TX_DATETIME", 1, "1918-04-01 12:00:00"), 2, "TX_DATETIME"),
        (replaced("TX_FRAUD", 4, "maybe"), 5, "TX_FRAUD"),
        (replaced("TX_FRAUD", 4, "2"), 5, "TX_FRAUD"),
        (replaced("CUSTOMER_ID", 0, None), 1, "CUSTOMER_ID"),
    ],
)
@pytest.mark.parametrize("suffix", [".parquet", ".csv", ".jsonl"])
def test_a_bad_row_is_named(
    tmp_path: Path, suffix: str, make: Callable[[], pa.Table], row: int, column: str
) -> None:
    """The error says which file, row and column, in a later batch as in the first."""
    path = write(make(), tmp_path / f"bad{suffix}")
    with pytest.raises(HistoryError, match=rf"bad{suffix}: row {row}: column {column}"):
        read(path, batch_rows=2)


def test_broken_files_are_named(tmp_path: Path) -> None:
    """No JSON, no object, no Parquet, no file and an unknown format are errors that name the file."""
    cases = {"a.jsonl": b'{"a": 1\n', "b.jsonl": b"[1]\n", "c.parquet": b"PAR1", "d.txt": b"", "e.csv": b""}
    for name, content in cases.items():
        (tmp_path / name).write_bytes(content)
        with pytest.raises(HistoryError, match=name):
            read(tmp_path / name)
    with pytest.raises(HistoryError, match="none"):
        read(tmp_path / "none.csv")


def test_rows_of_a_file_that_is_no_parquet_are_not_counted(tmp_path: Path) -> None:
    """It is named, as it is when it is read; the progress bar asks first."""
    broken = tmp_path / "broken.parquet"
    broken.write_bytes(b"PAR1")
    with pytest.raises(HistoryError, match=r"broken\.parquet"):
        count_rows([broken])


def test_missing_columns_are_named(tmp_path: Path) -> None:
    """Without a fitting mapping the error names what is missing and what there is."""
    path = write(pa.table({"card_id": ["a"], "x": [1]}), tmp_path / "h.parquet")
    with pytest.raises(HistoryError, match="transaction_id, event_time, currency, amount_minor"):
        read(path)
    with pytest.raises(HistoryError, match="CUSTOMER_ID, TERMINAL_ID"):
        read(path, mapping="handbook")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('[columns]\ncard = "a"', "unknown field card"),
        ('[columns]\ncard_id = "a"', "no column and no constant for transaction_id"),
        (
            "[columns]\n[extra]\n",
            "unknown key extra; known are name, columns, constants, time, prefixes, attributes",
        ),
        ('[columns]\n[time]\nzone = "UTC"', "unknown key time.zone; known are time.unit, time.origin"),
        ('[columns]\nfraud_flag = "a"', "unknown field fraud_flag; fields are transaction_id, card_id"),
        ('columns = "x"', "columns"),
        ("[columns", "mapping"),
        ('[columns]\n[time]\nunit = "weeks"', "weeks"),
    ],
)
def test_a_wrong_mapping_is_refused(tmp_path: Path, text: str, message: str) -> None:
    """A mapping file with a wrong key or value is refused by name before any row is read."""
    path = tmp_path / "m.toml"
    path.write_text(text)
    with pytest.raises(HistoryError, match=message):
        load_mapping(path)


@pytest.mark.parametrize("name", ready_mappings())
def test_ready_mappings_are_valid_and_found_by_their_columns(name: str) -> None:
    """Every mapping that comes with the project loads, and its columns lead back to it."""
    mapping = load_mapping(name)
    assert isinstance(mapping, HistoryMapping)
    assert mapping.name == name
    assert detect_mapping(mapping.sources()) == mapping


def test_between_cuts_at_the_stated_times() -> None:
    """The start is included and the end is not; untouched batches pass as they are."""
    times = np.arange(10, dtype=np.int64)
    ids = [str(number) for number in range(10)]
    batch = TransactionColumns(
        ids, ids, ids, times, times, ids, {"mcc": list(ids)}, {"V1": times.astype(np.float64)}, times > 5
    )
    (cut,) = between([batch, between_none(batch)], 3, 7)
    assert cut.transaction_id == ["3", "4", "5", "6"]
    assert cut.texts["mcc"] == ["3", "4", "5", "6"]
    assert cut.fraud is not None
    assert cut.fraud.tolist() == [False, False, False, True]
    assert next(iter(between([batch], 0, 10))) is batch


def between_none(batch: TransactionColumns) -> TransactionColumns:
    return batch.take(np.array([0, 1]))
