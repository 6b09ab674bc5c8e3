"""Assembly of the feature matrix: columns of the transaction itself, then a block per entity."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from models.arrays import Floats, Ints
from models.spec import CALENDAR_COLUMNS, FeatureSpec
from models.spec_reading import DAY, HOUR

_NIGHT_ENDS = 6  # the Handbook's night: hours 0 to 6 UTC


def transaction_features(
    amount: Floats, event_time: Ints, attributes: Floats, calendar: Sequence[str] = CALENDAR_COLUMNS
) -> Floats:
    """Columns that need no state: amount, sign(amount) ln(1 + |amount|), the calendar columns asked for,
    attributes.

    Args:
        amount: f64[n], major units.
        event_time: i64[n], epoch ms; the calendar is UTC, Monday is day 0.
        attributes: f64[n, a], passed through.
        calendar: a part of `CALENDAR_COLUMNS`, in the spec's order.

    Returns:
        f64[n, 2 + len(calendar) + a]; a value that is not finite becomes 0.
    """
    n = len(amount)
    fixed = 2 + len(calendar)
    out = np.empty((n, fixed + attributes.shape[1]), np.float64)
    out[:, 0] = amount
    out[:, 1] = np.sign(amount) * np.log1p(np.abs(amount))
    days, ms_of_day = np.divmod(event_time, DAY)
    hour = ms_of_day // HOUR
    day_of_week = (days + 3) % 7  # 1 January 1970 was a Thursday
    for column, name in enumerate(calendar, 2):
        if name == "hour":
            out[:, column] = hour
        elif name == "day_of_week":
            out[:, column] = day_of_week
        elif name == "weekend":
            out[:, column] = day_of_week >= 5
        elif name == "night":
            out[:, column] = hour <= _NIGHT_ENDS
        else:
            raise ValueError(f"unknown calendar column {name!r}")
    out[:, fixed:] = attributes
    zero_non_finite(out)
    return out


def assemble(spec: FeatureSpec, transaction: Floats, blocks: Sequence[Floats]) -> Floats:
    """The matrix f64[n, len(spec.names)] from the transaction columns and one block per entity."""
    parts = [transaction, *blocks]
    widths = [len(spec.transaction_names), *(len(entity.names) for entity in spec.entities)]
    if [part.shape[1] for part in parts] != widths:
        raise ValueError(
            f"blocks are {[part.shape[1] for part in parts]} columns wide, the spec says {widths}"
        )
    return np.hstack(parts)


def zero_non_finite(matrix: Floats) -> int:
    """Replace NaN and infinities by 0, in place; returns how many there were."""
    with np.errstate(over="ignore", invalid="ignore"):
        if np.isfinite(matrix.sum()):  # nearly always, and one pass without a temporary
            return 0
    bad = ~np.isfinite(matrix)
    matrix[bad] = 0.0
    return int(bad.sum())
