"""The control group: cards whose alerts are left alone, drawn by a keyed hash.

An alert that is acted upon hides whether it was right: the card is blocked, and no fraud happens. Of the
alerts of the control group downstream keeps its hands off, so that their outcomes are those that would have
come by themselves. As the group is drawn by a hash, every alert's chance to be in it is known.
"""

from __future__ import annotations

import hashlib
import math

#: Bytes; what a keyed BLAKE2b takes.
_LONGEST_KEY = 64


class ControlGroup:
    """Cards drawn with probability ``share`` in (0, 1), the same ones for as long as the key is the same.

    Without the key nobody can tell which cards are left alone, or make one that is. A card is drawn, not a
    transaction, because what is done about one alert changes what comes next on the same card.
    """

    def __init__(self, share: float, key: bytes) -> None:
        if not (math.isfinite(share) and 0.0 < share < 1.0):
            raise ValueError(f"a control group is a share between 0 and 1, not {share}")
        if not key:
            raise ValueError("a control group needs a key")
        self.share = share
        self._key = key if len(key) <= _LONGEST_KEY else hashlib.blake2b(key).digest()
        self._limit = int(share * 2.0**64)

    def holds(self, card_id: str) -> bool:
        """Whether this card is in the group."""
        digest = hashlib.blake2b(card_id.encode(), digest_size=8, key=self._key).digest()
        return int.from_bytes(digest, "big") < self._limit

    def propensity(self, control: bool) -> float:
        """The chance of an alert to be treated as it is: left alone, or not."""
        return self.share if control else 1.0 - self.share
