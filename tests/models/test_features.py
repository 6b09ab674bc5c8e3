"""Transaction columns, assembly, and finiteness."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from models.features import assemble, transaction_features, zero_non_finite
from models.spec import FeatureSpec

NO_ATTRIBUTES = np.empty((1, 0))
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


@given(st.integers(-(10**12), 10**13))
def test_the_calendar_is_that_of_the_standard_library(ms: int) -> None:
    """Hour, weekday, weekend and night are those of datetime in UTC, before 1970 too."""
    moment = EPOCH + timedelta(milliseconds=ms)
    [row] = transaction_features(np.array([1.0]), np.array([ms]), NO_ATTRIBUTES)
    weekday = moment.weekday()
    assert row[2:].tolist() == [moment.hour, weekday, weekday >= 5, moment.hour <= 6]


def test_amount_and_attributes_pass_through() -> None:
    """The amount, its signed logarithm and the attributes in order; what is not finite becomes 0."""
    attributes = np.array([[1.5, float("nan")], [float("-inf"), -2.0]])
    rows = transaction_features(np.array([np.e - 1, -(np.e - 1)]), np.array([0, 0]), attributes, calendar=())
    np.testing.assert_allclose(rows, [[np.e - 1, 1, 1.5, 0], [1 - np.e, -1, 0, -2.0]], rtol=1e-15)


def test_the_calendar_columns_asked_for_come_in_their_order() -> None:
    """A spec with another calendar gets exactly its columns; an unknown one is an error."""
    day = 86_400_000
    [row] = transaction_features(np.array([0.0]), np.array([2 * day]), NO_ATTRIBUTES, ("weekend", "hour"))
    assert row.tolist() == [0, 0, 1, 0]
    with pytest.raises(ValueError):
        transaction_features(np.array([0.0]), np.array([0]), NO_ATTRIBUTES, ("moon",))


def test_blocks_are_joined_in_spec_order() -> None:
    """The matrix has the columns of `names`; a block of another width is refused."""
    spec = FeatureSpec.default()
    widths = [len(spec.transaction_names), *(len(entity.names) for entity in spec.entities)]
    blocks = [np.full((3, width), float(i)) for i, width in enumerate(widths)]
    matrix = assemble(spec, blocks[0], blocks[1:])
    assert matrix.shape == (3, len(spec.names))
    assert [
        matrix[0, spec.names.index(name)] for name in ("amount", "card_count_1h", "terminal_risk_7d")
    ] == [0, 1, 2]
    with pytest.raises(ValueError, match="columns wide"):
        assemble(spec, blocks[0], blocks[:0:-1])


def test_an_overflowing_sum_is_not_taken_for_a_bad_value() -> None:
    """Huge but finite values stay, infinities and NaN go and are counted."""
    matrix = np.array([[1e308, 1e308], [np.nan, np.inf]])
    assert zero_non_finite(matrix) == 2
    assert matrix.tolist() == [[1e308, 1e308], [0, 0]]
