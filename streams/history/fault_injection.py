"""What goes wrong in a simulated stream from some moment on: at producers, in the world, with the people.

A fault changes what it names and nothing else: ids, times and all other values are those of the same stream
without it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Final

import numpy as np

from streams.contract.transaction_columns import NEVER, Bools, TransactionColumns
from streams.history.faults import NEW_SHARE, SHIFT, Fault
from streams.times import DAY

_REPORTED_SHARE: Final = 0.97


def _unit_change(columns: TransactionColumns, hit: Bools) -> TransactionColumns:
    units = np.rint(columns.amount_minor / 100).astype(np.int64)
    return replace(columns, amount_minor=np.where(hit, units, columns.amount_minor))


def _amount_shift(columns: TransactionColumns, hit: Bools) -> TransactionColumns:
    shifted = np.rint(columns.amount_minor * SHIFT).astype(np.int64)
    return replace(columns, amount_minor=np.where(hit, shifted, columns.amount_minor))


def _optional_field(columns: TransactionColumns, hit: Bools) -> TransactionColumns:
    given = zip(columns.texts["country"], hit.tolist(), strict=True)
    country = [None if gone else value for value, gone in given]
    return replace(columns, texts={**columns.texts, "country": country})


def _required_field(columns: TransactionColumns, hit: Bools) -> TransactionColumns:
    given = zip(columns.terminal_id, hit.tolist(), strict=True)
    # The tokens are evenly spread, so their first digit tells the terminals of one producer.
    return replace(columns, terminal_id=["" if gone and name[5] < "3" else name for name, gone in given])


def _slow_labels(columns: TransactionColumns, hit: Bools) -> TransactionColumns:
    assert columns.labelled_at is not None
    times, reported = columns.event_time, columns.labelled_at
    late = times + 2 * (reported - times)
    return replace(columns, labelled_at=np.where(hit & (reported != NEVER), late, reported))


def _nothing(columns: TransactionColumns, hit: Bools) -> TransactionColumns:
    return columns


_CHANGES: Final[dict[str, Callable[[TransactionColumns, Bools], TransactionColumns]]] = {
    "unit-change": _unit_change,
    "optional-field": _optional_field,
    "required-field": _required_field,
    "amount-shift": _amount_shift,
    "slow-labels": _slow_labels,
    "alerts-ignored": _nothing,
}


def inject(
    columns: TransactionColumns,
    faults: tuple[Fault, ...],
    start: int,
    random: np.random.Generator,
    report_days: float,
) -> TransactionColumns:
    """The rows as they are with the faults, in the order in which these are given.

    Args:
        columns: with truth and report times.
        start: of the stream, epoch ms.
        random: draws the frauds of a new pattern.
        report_days: median delay until one of these is reported.
    """
    for fault in faults:
        hit = columns.event_time >= start + fault.at
        if fault.kind == "new-pattern":
            columns = _new_pattern(columns, hit, random, report_days)
        elif hit.any():
            columns = _CHANGES[fault.kind](columns, hit)
    return columns


def _new_pattern(
    columns: TransactionColumns, hit: Bools, random: np.random.Generator, report_days: float
) -> TransactionColumns:
    assert columns.fraud is not None
    assert columns.labelled_at is not None
    rows = len(columns)
    new = hit & ~columns.fraud & (random.random(rows) < NEW_SHARE)
    delay = np.clip(random.lognormal(np.log(report_days), 0.6, rows), 0.05, 60.0) * DAY
    reported = columns.event_time + delay.astype(np.int64)
    labelled_at = np.where(random.random(rows) < _REPORTED_SHARE, reported, NEVER)
    return replace(
        columns,
        fraud=columns.fraud | new,
        labelled_at=np.where(new, labelled_at, columns.labelled_at),
    )
