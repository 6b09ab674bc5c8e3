"""Transactions as columns, the form in which histories and the simulator hand them on."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, fields

import numpy as np
import numpy.typing as npt

Ints = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]
Bools = npt.NDArray[np.bool_]
Rows = npt.NDArray[np.intp]

NEVER = -1
"""Report time of a row about which nothing is ever reported."""

OPTIONAL_TEXTS = ("merchant_id", "mcc", "country", "channel", "device_id", "ip")


@dataclass(frozen=True, slots=True)
class TransactionColumns:
    """Rows of the transaction contract, all columns of one length.

    Attributes:
        event_time: epoch milliseconds.
        amount_minor: minor units of `currency`.
        terminal_id: empty text where the source has no terminal.
        texts: optional fields of the contract by name; None where a row has no value.
        attributes: finite numbers by attribute name.
        fraud: the truth, where the source knows it; None where it has no such column.
        labelled_at: epoch ms at which each fraud is reported, `NEVER` for the other rows; None where the
            source does not say.
    """

    transaction_id: list[str]
    card_id: list[str]
    terminal_id: list[str]
    event_time: Ints
    amount_minor: Ints
    currency: list[str]
    texts: dict[str, list[str | None]] = field(default_factory=dict)
    attributes: dict[str, Floats] = field(default_factory=dict)
    fraud: Bools | None = None
    labelled_at: Ints | None = None

    def __len__(self) -> int:
        return len(self.transaction_id)

    def reported(self, label_delay: int | None) -> tuple[Rows, Ints]:
        """Rows whose fraud is reported, and when (epoch ms).

        The source's own report times hold where it has them, else every fraud is reported `label_delay`
        milliseconds after its transaction; with None nothing is.
        """
        if self.labelled_at is not None:
            rows = np.flatnonzero(self.labelled_at != NEVER)
            return rows, self.labelled_at[rows]
        if self.fraud is None or label_delay is None:
            return np.zeros(0, dtype=np.intp), np.zeros(0, dtype=np.int64)
        rows = np.flatnonzero(self.fraud)
        return rows, self.event_time[rows] + label_delay

    def take(self, rows: Rows) -> TransactionColumns:
        """The given rows, in that order."""
        index = rows.tolist()

        def pick(column: object) -> object:
            if isinstance(column, np.ndarray):
                return column[rows]
            if isinstance(column, list):
                return [column[row] for row in index]
            if isinstance(column, dict):
                return {name: pick(inner) for name, inner in column.items()}
            return column

        return TransactionColumns(**{each.name: pick(getattr(self, each.name)) for each in fields(self)})  # type: ignore[arg-type]


def between(batches: Iterable[TransactionColumns], start: int, end: int) -> Iterator[TransactionColumns]:
    """The rows with `start <= event_time < end` (epoch ms); batches without such a row are left out."""
    for batch in batches:
        inside = (batch.event_time >= start) & (batch.event_time < end)
        if inside.all():
            yield batch
        elif inside.any():
            yield batch.take(np.flatnonzero(inside))
