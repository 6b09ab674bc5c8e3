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

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import xxhash

from models.spec import FeatureSpec
from streams.columns import Columns
from streams.currencies import EXPONENTS
from streams.records import Transaction

U64 = npt.NDArray[np.uint64]
_SCALES = {currency: 10.0**digits for currency, digits in EXPONENTS.items()}


def hashes(values: Sequence[str | None]) -> U64:
    """64-bit hashes of ids, 0 for a missing one."""
    digest = xxhash.xxh3_64_intdigest
    return np.array([digest(value.encode()) if value else 0 for value in values], dtype=np.uint64)


def field_values(transactions: Sequence[Transaction], field: str) -> list[str | None]:
    """One field of all transactions."""
    return [getattr(transaction, field) for transaction in transactions]


def from_transactions(
    transactions: Sequence[Transaction],
    offsets: npt.NDArray[np.int64],
    record_times: npt.NDArray[np.int64],
    spec: FeatureSpec,
) -> Columns:
    """Decoded transactions as rows, before admission."""
    n = len(transactions)
    currency = [t.currency for t in transactions]
    scale = np.array([_SCALES[code] for code in currency])
    amount_minor = np.fromiter((t.amount_minor for t in transactions), np.int64, n)
    cards = [t.card_id for t in transactions]
    terminals = [t.terminal_id for t in transactions]
    identifiers = [t.transaction_id for t in transactions]
    known: dict[str, U64] = {"card_id": hashes(cards), "terminal_id": hashes(terminals)}
    attributes = np.empty((n, len(spec.attributes)))
    for column, name in enumerate(spec.attributes):
        attributes[:, column] = [t.attributes[name] for t in transactions]
    arrays: dict[str, npt.NDArray[np.generic]] = {
        "event_time": np.fromiter((t.event_time for t in transactions), np.int64, n),
        "record_time": record_times,
        "offset": offsets,
        "amount_minor": amount_minor,
        "amount": amount_minor / scale,
        "transaction": hashes(identifiers),
        "card": known["card_id"],
        "attributes": attributes,
    }
    hop_key = spec.entities[-1].key
    if hop_key not in known:
        known[hop_key] = hashes(field_values(transactions, hop_key))
    arrays["hop"] = known[hop_key]
    for entity in spec.entities:
        tags = np.zeros((n, len(entity.tags)), dtype=np.uint64)
        for column, field in enumerate(entity.tags):
            if field not in known:
                known[field] = hashes(field_values(transactions, field))
            tags[:, column] = known[field]
        arrays[f"tags_{entity.name}"] = tags
    strings = {"transaction_id": identifiers, "card_id": cards, "terminal_id": terminals, "currency": currency}
    return Columns({}, arrays, strings)


def hop_partitions(hop: U64, partitions: int) -> npt.NDArray[np.int64]:
    """The partition of the hop topic of each row; from the upper half of the hash, the lower half chooses buckets of state."""
    return ((hop >> np.uint64(32)) % np.uint64(partitions)).astype(np.int64)
