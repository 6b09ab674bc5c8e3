"""Rows: the same from decoded transactions and from a history."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pytest
import xxhash

from models.spec import FeatureSpec
from streams.contract.records import Transaction
from streams.contract.transaction_columns import TransactionColumns
from streams.errors import SettingsError
from streams.stages.columns import Columns
from streams.stages.rows import (
    LARGEST_MESSAGE,
    from_history,
    from_transactions,
    hashes,
    hop_partitions,
    rows_in_message,
)
from tests.streams.made_up import START

SPEC = FeatureSpec.from_mapping(
    {
        "entities": [
            {
                "name": "card",
                "key": "card_id",
                "windows": ["1h"],
                "aggregates": ["count", "distinct_countries"],
            },
            {"name": "device", "key": "device_id", "windows": ["1h"], "aggregates": ["count"]},
        ],
        "attributes": ["v1", "v2"],
    }
)
HISTORY = TransactionColumns(
    transaction_id=["a", "b", "c"],
    card_id=["x", "y", "x"],
    terminal_id=["", "m", "m"],
    event_time=np.array([START, START + 5, START + 7]),
    amount_minor=np.array([1999, 1999, 1999]),
    currency=["EUR", "JPY", "KWD"],
    texts={"device_id": ["d", None, "e"], "country": [None, "DE", "FR"]},
    attributes={"v2": np.array([0.5, 1.5, 2.5]), "v1": np.array([-1.0, -2.0, -3.0])},
)


def test_a_history_gives_the_rows_that_its_transactions_give() -> None:
    """Replayed through Kafka or read by a backtest, a transaction becomes the same row."""
    transactions = [
        Transaction(
            HISTORY.transaction_id[row],
            HISTORY.card_id[row],
            int(HISTORY.event_time[row]),
            int(HISTORY.amount_minor[row]),
            HISTORY.currency[row],
            HISTORY.terminal_id[row],
            country=HISTORY.texts["country"][row],
            device_id=HISTORY.texts["device_id"][row],
            attributes={name: float(values[row]) for name, values in HISTORY.attributes.items()},
        )
        for row in range(3)
    ]
    sent = from_transactions(transactions, np.arange(7, 10), HISTORY.event_time, SPEC)
    read = from_history(HISTORY, 7, SPEC)
    assert sent.strings == read.strings
    assert sent.arrays.keys() == read.arrays.keys()
    for name, values in sent.arrays.items():
        np.testing.assert_array_equal(values, read.arrays[name], err_msg=name)
        assert values.dtype == read.arrays[name].dtype, name


def test_what_the_columns_hold() -> None:
    """Amounts in major units of their currency, attributes in spec order, hashes of ids, 0 for none."""
    rows = from_history(HISTORY, 0, SPEC)
    np.testing.assert_array_equal(rows.floats("amount"), [19.99, 1999.0, 1.999])
    np.testing.assert_array_equal(rows.floats("attributes"), [[-1, 0.5], [-2, 1.5], [-3, 2.5]])
    assert rows.words("hop").tolist() == [xxhash.xxh3_64_intdigest(b"d"), 0, xxhash.xxh3_64_intdigest(b"e")]
    assert rows.words("tags_card")[0].tolist() == [0]
    assert rows.words("card")[0] == rows.words("card")[2] != rows.words("card")[1]


def test_a_missing_attribute_is_named() -> None:
    """A history without a column that the spec wants is refused, with the key to set."""
    with pytest.raises(SettingsError, match=r"features\.attributes: the history has no v3"):
        from_history(HISTORY, 0, FeatureSpec.from_mapping({**SPEC.as_mapping(), "attributes": ["v1", "v3"]}))


def test_hop_partitions_spread_apart_from_state_buckets() -> None:
    """Keys of one partition fall into all 32 buckets of state, and partitions get equal shares."""
    keys = hashes([f"m{number}" for number in range(20_000)])
    partitions = hop_partitions(keys, 4)
    assert np.bincount(partitions, minlength=4).min() > 4_700
    assert len(np.unique(keys[partitions == 2] % np.uint64(32))) == 32


def test_ids_are_hashed_with_xxh3() -> None:
    """State keys are xxh3 of the UTF-8 id, as 64-bit unsigned integers; a missing id is 0."""
    hashed = hashes(["card-1", "", None, "caf\u00e9"])
    assert hashed.dtype == np.uint64
    assert hashed.tolist() == [
        xxhash.xxh3_64_intdigest(b"card-1"),
        0,
        0,
        xxhash.xxh3_64_intdigest(b"caf\xc3\xa9"),
    ]
    assert hashes([]).shape == (0,)


@pytest.mark.parametrize("numbers", [10, 300])
def test_a_full_message_fits_whatever_the_ids(numbers: int) -> None:
    """So many rows of the hop, with ids of 64 characters of four bytes each, are no larger than a message."""
    n = rows_in_message(numbers)
    ids = ["\N{MATHEMATICAL BOLD SMALL A}" * 64] * n
    fixed = ("event_time", "record_time", "offset", "amount_minor", "amount", "transaction", "card", "hop")
    arrays: dict[str, npt.NDArray[np.generic]] = {name: np.zeros(n, np.int64) for name in fixed}
    arrays |= {"watermark": np.zeros(n, np.int64), "status": np.zeros(n, np.uint8)}
    arrays |= {"tags": np.zeros((n, 8), np.uint64), "features": np.zeros((n, numbers))}
    names = ("transaction_id", "card_id", "terminal_id")
    rows = Columns({}, arrays, dict.fromkeys(names, ids) | {"currency": ["EUR"] * n})
    size = len(rows.encode())
    assert LARGEST_MESSAGE * 0.6 < size < LARGEST_MESSAGE
