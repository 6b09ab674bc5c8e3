"""The rows that travel between the stages, as columns.

| column | dtype | what |
|---|---|---|
| `event_time`, `record_time` | i8 | epoch ms: when it happened; when Kafka got it |
| `offset` | i8 | offset in the transactions partition (`meta["card_partition"]`) |
| `amount_minor`, `amount` | i8, f8 | as published; in major units |
| `transaction`, `card` | u8 | 64-bit hashes of the ids |
| `hop` | u8 | hash of the key of the last entity (the terminal), by which the rows are partitioned next |
| `tags_<entity>` | u8, 2-d | hashes of the fields whose distinct values the entity counts, 0 where absent |
| `attributes` | f8, 2-d | declared attributes |
| `status` | u1 | admission: accepted, late, future, duplicate |
| `watermark` | i8 | watermark of the card partition after the row |
| `features` | f8, 2-d | features so far, in spec order |

Strings: `transaction_id`, `card_id`, `terminal_id`, `currency`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import numpy.typing as npt
import xxhash

from models.spec import FeatureSpec
from streams.contract.currencies import EXPONENTS
from streams.contract.records import Transaction
from streams.contract.transaction_columns import TransactionColumns
from streams.errors import SettingsError, StateMismatch
from streams.stages.columns import Columns

U64 = npt.NDArray[np.uint64]
#: Bytes of a message between the stages, at most; the topics take a little more (`streams/topics.py`).
LARGEST_MESSAGE = 12 * 1024 * 1024
#: Bytes of a row but for its features and scores: four texts of 64 characters in UTF-8, and numbers.
_MOST_ROW_BYTES = 4 * 4 * 64 + 256
_SCALES = {currency: 10.0**digits for currency, digits in EXPONENTS.items()}


def hashes(values: Sequence[str | None]) -> U64:
    """64-bit hashes of ids, 0 for a missing one."""
    digest = xxhash.xxh3_64_intdigest
    return np.array([digest(value.encode()) if value else 0 for value in values], dtype=np.uint64)


def exponents(currencies: Sequence[str]) -> npt.NDArray[np.uint8]:
    """Digits of the minor unit of each currency."""
    return np.array([EXPONENTS[currency] for currency in currencies], dtype=np.uint8)


def from_transactions(
    transactions: Sequence[Transaction],
    offsets: npt.NDArray[np.int64],
    record_times: npt.NDArray[np.int64],
    spec: FeatureSpec,
) -> Columns:
    """Decoded transactions as rows, before admission."""
    n = len(transactions)
    return _rows(
        spec,
        lambda field: [getattr(transaction, field) for transaction in transactions],
        event_time=np.fromiter((t.event_time for t in transactions), np.int64, n),
        amount_minor=np.fromiter((t.amount_minor for t in transactions), np.int64, n),
        attributes=[[t.attributes[name] for t in transactions] for name in spec.attributes],
        offsets=offsets,
        record_times=record_times,
    )


def from_history(batch: TransactionColumns, first_offset: int, spec: FeatureSpec) -> Columns:
    """Transactions of a history as rows; they count as received when they happened.

    Raises:
        SettingsError: the history has no column for an attribute of the spec.
    """
    missing = [name for name in spec.attributes if name not in batch.attributes]
    if missing:
        raise SettingsError(
            f"features.attributes: the history has no {', '.join(missing)}; map it in the mapping file"
        )

    def field(name: str) -> Sequence[str | None]:
        if name in batch.texts:
            return batch.texts[name]
        return getattr(batch, name, None) or [None] * len(batch)

    return _rows(
        spec,
        field,
        event_time=batch.event_time,
        amount_minor=batch.amount_minor,
        attributes=[batch.attributes[name] for name in spec.attributes],
        offsets=np.arange(first_offset, first_offset + len(batch), dtype=np.int64),
        record_times=batch.event_time,
    )


def _rows(
    spec: FeatureSpec,
    field: Callable[[str], Sequence[str | None]],
    *,
    event_time: npt.NDArray[np.int64],
    amount_minor: npt.NDArray[np.int64],
    attributes: Sequence[Sequence[float] | npt.NDArray[np.float64]],
    offsets: npt.NDArray[np.int64],
    record_times: npt.NDArray[np.int64],
) -> Columns:
    n = len(event_time)
    strings = {name: list(field(name)) for name in ("transaction_id", "card_id", "terminal_id", "currency")}
    hashed: dict[str, U64] = {}

    def hash_of(name: str) -> U64:
        if name not in hashed:
            hashed[name] = hashes(strings[name] if name in strings else field(name))
        return hashed[name]

    matrix = np.empty((n, len(attributes)))
    for column, values in enumerate(attributes):
        matrix[:, column] = values
    arrays: dict[str, npt.NDArray[np.generic]] = {
        "event_time": event_time,
        "record_time": record_times,
        "offset": offsets,
        "amount_minor": amount_minor,
        "amount": amount_minor / np.array([_SCALES[str(code)] for code in strings["currency"]]),
        "transaction": hash_of("transaction_id"),
        "card": hash_of("card_id"),
        "hop": hash_of(spec.entities[-1].key),
        "attributes": matrix,
    }
    for entity in spec.entities:
        tags = np.zeros((n, len(entity.tags)), dtype=np.uint64)
        for column, name in enumerate(entity.tags):
            tags[:, column] = hash_of(name)
        arrays[f"tags_{entity.name}"] = tags
    return Columns({}, arrays, {name: [value or "" for value in values] for name, values in strings.items()})


def require_spec(rows: Columns, spec_digest: str) -> None:
    """Refuse rows whose features are of another spec; `meta["spec"]` is the digest of theirs.

    Raises:
        StateMismatch: they are, or do not say of which.
    """
    found = rows.meta.get("spec")
    if found != spec_digest:
        of = f"of the feature spec {found}" if found else "of an earlier version"
        raise StateMismatch(
            f"a message between the stages is {of}, this worker has {spec_digest}: run all stages with the "
            "same features, and start a new spec with fresh internal topics (topics.internal_prefix)"
        )


def rows_in_message(numbers: int) -> int:
    """How many rows with so many features and scores fit a message between the stages, whatever their ids."""
    return LARGEST_MESSAGE // (_MOST_ROW_BYTES + 8 * numbers)


def hop_partitions(hop: U64, partitions: int) -> npt.NDArray[np.int64]:
    """The partition of the hop topic of each row.

    It comes from the upper half of the hash: the lower half chooses buckets of state.
    """
    return ((hop >> np.uint64(32)) % np.uint64(partitions)).astype(np.int64)
