"""Which cards a canary decides: a salted hash of the card, so that the choice is fixed without any memory."""

from __future__ import annotations

import hashlib

import numpy as np
from numpy.typing import NDArray

U64 = NDArray[np.uint64]


def in_canary(cards: U64, canary: str, percent: float) -> NDArray[np.bool_]:
    """Which rows the canary decides: bool[n].

    A card that is in at some share is in at every larger one. Every canary has cards of its own: its name
    salts the hash, so that the same customers are not always the first to meet a new model.

    :param cards: u64[n] hashes of the cards.
    :param percent: share of the cards, 0 to 100.
    """
    if percent >= 100.0:
        return np.ones(len(cards), np.bool_)
    salt = int.from_bytes(hashlib.blake2b(canary.encode(), digest_size=8, person=b"canary").digest(), "big")
    return np.asarray(_mixed(cards ^ np.uint64(salt)) < np.uint64(percent / 100.0 * 2.0**64), np.bool_)


def _mixed(words: U64) -> U64:
    """The finalizer of SplitMix64 (Steele, Lea, Flood: Fast Splittable Pseudorandom Number Generators)."""
    words = (words ^ (words >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    words = (words ^ (words >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return words ^ (words >> np.uint64(31))
