"""Which optional fields transactions come without: a producer that stops sending one shows here first."""

from __future__ import annotations

from collections.abc import Sequence
from operator import attrgetter
from typing import Final

from streams.contract.records import Transaction
from streams.contract.transaction_columns import OPTIONAL_TEXTS

_GET: Final = {name: attrgetter(name) for name in OPTIONAL_TEXTS}


def absent(transactions: Sequence[Transaction]) -> dict[str, int]:
    """By optional field, how many of the transactions do not have it."""
    return {name: list(map(get, transactions)).count(None) for name, get in _GET.items()}
