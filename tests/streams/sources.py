"""Kafka records made by hand."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass

TRANSACTION: dict[str, object] = {
    "transaction_id": "tx-1",
    "card_id": "card-1",
    "terminal_id": "t-1",
    "event_time": "2024-05-01T12:00:00.123Z",
    "amount_minor": 1234,
    "currency": "EUR",
}
LABEL: dict[str, object] = {
    "transaction_id": "tx-1",
    "card_id": "card-1",
    "fraud": True,
    "source": "chargeback",
    "labelled_at": 1_714_564_800_123,
}
FEEDBACK: dict[str, object] = {
    "alert_id": "a-1",
    "transaction_id": "tx-1",
    "card_id": "card-1",
    "action": "confirmed",
    "actor": "analyst-7",
    "action_time": "2024-05-01T12:00:00Z",
}


@dataclass(frozen=True)
class Source:
    """A consumed record."""

    value: bytes | None
    key: bytes | None = b"card-1"
    headers: tuple[tuple[str, bytes], ...] = ()
    topic: str = "fraud.transactions.v1"
    partition: int = 2
    offset: int = 41
    timestamp: int = 1_714_564_800_500


def changed(base: Mapping[str, object], **fields: object) -> bytes:
    """JSON of a record with fields replaced or added; Ellipsis removes one."""
    merged = {name: item for name, item in {**base, **fields}.items() if item is not ...}
    return json.dumps(merged, ensure_ascii=False).encode("utf-8", "surrogatepass")
