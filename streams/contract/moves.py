"""Events of the control topic: moves of models as JSON, and their signature.

The signature is HMAC-SHA256 over the name of the topic and the record without it, so that an event of one
installation is nothing to another with the same key.
"""

from __future__ import annotations

import hashlib
import hmac
from typing import Annotated

import msgspec
from msgspec import Meta, Struct

from models.registry import Kind, Move, Pin
from streams.times import MAX_TIME, MIN_TIME

#: Largest value read.
MAX_BYTES = 65_536

_ModelName = Annotated[str, Meta(pattern="^(|[a-z0-9][a-z0-9-]{0,39})$")]
_Figure = float | int | Annotated[str, Meta(max_length=200)] | None


class MoveEvent(Struct, frozen=True, forbid_unknown_fields=True):
    """A move as it stands on the topic; `name` is empty for a move of the alerts."""

    id: Annotated[int, Meta(ge=1, le=2**53)]
    kind: Kind
    name: _ModelName
    version: Annotated[int, Meta(ge=1, le=2**31 - 1)] | None
    percent: Annotated[float, Meta(ge=0.0, le=100.0)]
    who: Annotated[str, Meta(min_length=1, max_length=64)]
    at: Annotated[int, Meta(ge=MIN_TIME, lt=MAX_TIME)]
    reason: Annotated[str, Meta(max_length=500)]
    evidence: Annotated[dict[Annotated[str, Meta(max_length=100)], _Figure], Meta(max_length=64)]
    signature: Annotated[str, Meta(max_length=64)] = ""


class MoveUnusable(ValueError):
    """The record is no move, or not one of ours: it changes nothing."""


def encode_move(move: Move, topic: str, key: bytes) -> bytes:
    """The record of a move, signed where there is a key.

    Raises:
        MoveUnusable: readers would refuse it, for instance for a name or a reason that is too long.
    """
    pin = move.model or Pin("")
    event = MoveEvent(
        id=move.number,
        kind=move.kind,
        name=pin.name,
        version=pin.version,
        percent=move.percent,
        who=move.who,
        at=move.at,
        reason=move.reason,
        evidence=dict(move.evidence),
    )
    if key:
        event = msgspec.structs.replace(event, signature=_signature(event, topic, key))
    value = msgspec.json.encode(event)
    decode_move(value, topic, key)
    return value


def decode_move(value: bytes | None, topic: str, key: bytes) -> Move:
    """The move in a record.

    Args:
        topic: that it was read from.
        key: that it must be signed with; empty if none is configured.

    Raises:
        MoveUnusable: it is damaged, unsigned, or signed with another key or for another topic.
    """
    if not value or len(value) > MAX_BYTES:
        raise MoveUnusable("no value" if not value else f"{len(value)} bytes, more than {MAX_BYTES}")
    try:
        event = _decode(value)
    except (msgspec.MsgspecError, UnicodeError, RecursionError) as error:
        raise MoveUnusable(str(error)) from None
    if not (event.who.isprintable() and event.reason.isprintable()):
        raise MoveUnusable("characters that do not print")
    if bool(event.name) == event.kind.endswith("-alerts"):
        raise MoveUnusable(f"{event.kind} {'names a' if event.name else 'needs a'} model")
    if key and not hmac.compare_digest(event.signature.encode(), _signature(event, topic, key).encode()):
        raise MoveUnusable("the signature does not fit" if event.signature else "not signed")
    return Move(
        number=event.id,
        kind=event.kind,
        model=Pin(event.name, event.version) if event.name else None,
        percent=event.percent,
        who=event.who,
        at=event.at,
        reason=event.reason,
        evidence=event.evidence,
    )


def _signature(event: MoveEvent, topic: str, key: bytes) -> str:
    # Of the fields as they were understood: however they were written, they mean the same.
    content = msgspec.json.encode(msgspec.structs.replace(event, signature=""), order="deterministic")
    return hmac.new(key, topic.encode() + b"\0" + content, hashlib.sha256).hexdigest()


_decode = msgspec.json.Decoder(MoveEvent).decode
