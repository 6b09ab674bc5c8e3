"""Seeded card transactions, shaped like a month of a small portfolio, as contract JSON."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import orjson

#: 2026-01-01T00:00:00Z.
EPOCH_START = 1_767_225_600_000
HOUR = 3_600_000


@dataclass(frozen=True, slots=True)
class Message:
    """One Kafka message: the card id and the transaction document."""

    key: bytes
    value: bytes


@dataclass(frozen=True, slots=True)
class Workload:
    """What is published: sizes, spacing of the event times, seed.

    `stolen` is the share of transactions with a stolen card, `compromised` the share of terminals all whose
    transactions are fraud. The defaults give each card about two transactions a day, as in the Handbook's
    history, so that a 7-day window holds about fourteen. `spacing_ms` is the mean gap between two
    transactions of the whole stream.
    """

    transactions: int
    cards: int = 5_000
    terminals: int = 10_000
    spacing_ms: float = 9_000.0
    start_ms: int = EPOCH_START
    seed: int = 7
    stolen: float = 0.003
    compromised: float = 0.01


@dataclass(frozen=True, slots=True)
class Columns:
    """The drawn columns, one row a transaction, in event order; `fraud` is the truth a label would tell."""

    card: np.ndarray
    terminal: np.ndarray
    event_time: np.ndarray
    amount_minor: np.ndarray
    fraud: np.ndarray


def draw(workload: Workload) -> Columns:
    """Draw the columns: each card has its own spending level; a stolen card spends five times as much."""
    rng = np.random.default_rng(workload.seed)
    n = workload.transactions
    card = rng.integers(0, workload.cards, n)
    terminal = rng.integers(0, workload.terminals, n)
    level = rng.uniform(1_000.0, 10_000.0, workload.cards)
    amount = np.maximum(rng.normal(level[card], level[card] / 2.0), 100.0)
    compromised = rng.random(workload.terminals) < workload.compromised
    stolen = rng.random(n) < workload.stolen
    amount = np.where(stolen, amount * 5.0, amount).astype(np.int64)
    gaps = rng.exponential(workload.spacing_ms, n)
    event_time = workload.start_ms + np.cumsum(gaps).astype(np.int64)
    return Columns(card, terminal, event_time, amount, stolen | compromised[terminal])


def transaction_id(index: int) -> str:
    """The id of the transaction in row `index`; `row_of` is its inverse."""
    return f"t{index:09d}"


def row_of(identifier: str) -> int:
    """The row of a transaction id made by `transaction_id`."""
    return int(identifier[1:])


def document(columns: Columns, row: int, event_time: int | None = None) -> dict[str, str | int]:
    """The contract's transaction document of one row; `event_time` replaces the drawn one."""
    return {
        "transaction_id": transaction_id(row),
        "card_id": f"card-{int(columns.card[row]):06d}",
        "terminal_id": f"terminal-{int(columns.terminal[row]):06d}",
        "event_time": int(columns.event_time[row]) if event_time is None else event_time,
        "amount_minor": int(columns.amount_minor[row]),
        "currency": "EUR",
        "country": "DE",
        "channel": "pos",
    }


def messages(workload: Workload) -> list[Message]:
    """All transactions as messages in event order."""
    columns = draw(workload)
    documents = (document(columns, row) for row in range(workload.transactions))
    return [Message(str(one["card_id"]).encode(), orjson.dumps(one)) for one in documents]
