"""Which optional fields are missing, by field."""

from __future__ import annotations

from typing import Any

from monitoring.metrics import OPTIONAL_FIELDS
from streams.contract.records import Transaction
from streams.contract.transaction_columns import OPTIONAL_TEXTS
from streams.stages.absent_fields import absent


def test_every_optional_field_is_counted_apart() -> None:
    """A field that some transactions do not have, one that none has, and those that all have."""
    given: dict[str, Any] = dict.fromkeys(OPTIONAL_TEXTS, "DE")
    whole = Transaction("a", "c", 1, 2, "EUR", "t", **given)
    partly = Transaction("b", "c", 1, 2, "EUR", "t", **{**given, "country": None, "ip": None})
    bare = Transaction("d", "c", 1, 2, "EUR", "t", mcc="5411")
    expected = dict.fromkeys(OPTIONAL_TEXTS, 1) | {"country": 2, "ip": 2, "mcc": 0}
    assert absent([whole, partly, bare]) == expected
    assert absent([]) == dict.fromkeys(OPTIONAL_TEXTS, 0)


def test_the_metric_knows_the_fields_of_the_contract() -> None:
    """Both name them, for neither may import the other."""
    assert OPTIONAL_FIELDS == OPTIONAL_TEXTS
