"""What a partition's state belongs to: every owner's marker says it, and every restore compares it.

State restored under other settings would not fail: it would give other features, or skip every new record.
"""

from __future__ import annotations

import msgspec

#: Rises when deltas, checkpoints or the columns in them change so that older ones cannot be read.
FORMAT = 6

_CURE = (
    "put the old value back, or start with fresh internal topics: set another topics.internal_prefix, "
    "then `fraudstream topics create`"
)


class Identity(msgspec.Struct, frozen=True, kw_only=True):
    """What state belongs to.

    Args:
        spec: digest of the feature spec whose columns are in the state, empty where none are.
        partitions: of the stage's topics; keys lie elsewhere with another number.
        source: name of the topic whose offsets the state holds.
        format: of the state itself.
    """

    spec: str
    partitions: int
    source: str
    format: int = FORMAT

    def encode(self) -> bytes:
        """As the value of a marker."""
        return _encode(self)

    def refusal(self, marker: bytes) -> str | None:
        """Why state under that marker is not of this identity, with the cure; None if it is."""
        try:
            found = _decode(marker)
        except msgspec.MsgspecError:
            return f"holds state of an earlier version, which does not say what it belongs to; {_CURE}"
        differences = [
            f"{name} was {getattr(found, key)!r} and is {getattr(self, key)!r}"
            for key, name in _NAMES.items()
            if getattr(found, key) != getattr(self, key)
        ]
        return f"holds state of something else: {', '.join(differences)}; {_CURE}" if differences else None


_encode = msgspec.json.Encoder().encode
_decode = msgspec.json.Decoder(Identity).decode
_NAMES = {
    "format": "the format of the state",
    "spec": "features (its digest)",
    "partitions": "topics.partitions",
    "source": "the topic read",
}
