"""Bytes to records or rejections, and records to bytes.

Each value goes through one typed decode; only one that fails it is looked at again, to ignore and count
unknown fields or to say what is wrong. Nothing but a record or a rejection comes out, whatever the bytes.

Beyond RFC 8259: of a field given twice the last one counts; null means absent; NaN and Infinity are refused.
"""

from __future__ import annotations

import socket
from abc import ABC, abstractmethod
from collections.abc import Callable, Collection, Sequence
from datetime import datetime
from typing import Annotated, Any, Generic, NamedTuple, TypeVar, cast

import msgspec
from msgspec import Meta, Struct

from streams.contract.cards import is_card_number, is_sensitive
from streams.contract.currencies import CANONICAL
from streams.contract.explain import MAX_AMOUNT, MAX_FIELDS, explain, read_document
from streams.contract.records import Action, Feedback, Label, Rejection, Transaction
from streams.kafka.batches import Record
from streams.times import MAX_TIME, MIN_TIME, epoch_ms, time_hint

R = TypeVar("R", bound=Struct)
W = TypeVar("W", bound=Struct)

MAX_VALUE_BYTES = 65_536
"""Largest value decoded, unless the settings say otherwise."""

_Id = Annotated[str, Meta(min_length=1, max_length=64)]
_Time = int | Annotated[datetime, Meta(tz=True)]
_Count = Annotated[int, Meta(ge=0, le=2**31 - 1)]


class _TransactionWire(Struct, gc=False, forbid_unknown_fields=True):
    transaction_id: _Id
    card_id: _Id
    event_time: _Time
    amount_minor: Annotated[int, Meta(ge=0, le=MAX_AMOUNT)]
    currency: str
    terminal_id: _Id | None = None
    merchant_id: _Id | None = None
    mcc: str | None = None
    country: str | None = None
    channel: _Id | None = None
    device_id: _Id | None = None
    ip: str | None = None
    attributes: dict[str, float] | None = None


class _LabelWire(Struct, gc=False, forbid_unknown_fields=True):
    transaction_id: _Id
    card_id: _Id
    fraud: bool
    source: _Id
    labelled_at: _Time
    revision: _Count | None = None


class _FeedbackWire(Struct, gc=False, forbid_unknown_fields=True):
    alert_id: _Id
    transaction_id: _Id
    card_id: _Id
    action: Action
    actor: _Id
    action_time: _Time


class Rejected(NamedTuple):
    """A refused record: its row in the batch and why."""

    row: int
    rejection: Rejection


class Decoded(Struct, Generic[R], frozen=True):
    """A decoded batch: `records[i]` came from row `rows[i]`; every row is in `rows` or in `rejected`."""

    records: list[R]
    rows: list[int]
    rejected: list[Rejected]
    unknown_fields: int


class Decoder(ABC, Generic[W, R]):
    """Decodes batches of one record type.

    Args:
        wire: the JSON form of the record.
        max_value_bytes: values above are refused unread.
    """

    def __init__(self, wire: type[W], max_value_bytes: int = MAX_VALUE_BYTES) -> None:
        self._wire = wire
        self._max_value_bytes = max_value_bytes
        self._strict: Callable[[bytes], W] = msgspec.json.Decoder(wire).decode
        # The same fields without the refusal of unknown ones: only the second look can afford to skip them.
        name = f"{wire.__name__}Lenient"
        lenient = cast(type[W], msgspec.defstruct(name, [], bases=(wire,), forbid_unknown_fields=False))
        self._lenient: Callable[[bytes], W] = msgspec.json.Decoder(lenient).decode
        self._fields = frozenset(wire.__struct_fields__)

    @abstractmethod
    def _accept(self, wire: W, key: bytes) -> R | Rejection:
        """The record, or what is wrong with its content or key."""

    def decode(self, records: Sequence[Record]) -> Decoded[R]:
        """Decodes a batch in order."""
        good: list[R] = []
        rows: list[int] = []
        rejected: list[Rejected] = []
        unknown_fields = 0
        strict, accept, limit = self._strict, self._accept, self._max_value_bytes
        for row, source in enumerate(records):
            key, value = source.key, source.value
            result: R | Rejection
            if not key or not value or len(value) > limit:
                result = self._refuse_envelope(key, value)
            else:
                try:
                    result = accept(strict(value), key)
                except Exception:  # whatever a record does to a parser, it must not stop the stream
                    result, unknown = self._look_again(value, key)
                    unknown_fields += unknown
            if isinstance(result, Rejection):
                rejected.append(Rejected(row, result))
            else:
                good.append(result)
                rows.append(row)
        return Decoded(good, rows, rejected, unknown_fields)

    def decode_one(self, value: bytes | None, key: bytes | None) -> R | Rejection:
        """Decodes a single value with its key."""
        if not key or not value or len(value) > self._max_value_bytes:
            return self._refuse_envelope(key, value)
        try:
            return self._accept(self._strict(value), key)
        except Exception:  # as in `decode`
            return self._look_again(value, key)[0]

    def _refuse_envelope(self, key: bytes | None, value: bytes | None) -> Rejection:
        if not value:
            return Rejection("value_empty", "tombstone" if value is None else "empty value")
        if len(value) > self._max_value_bytes:
            return Rejection("value_too_large", f"{len(value)} bytes, limit {self._max_value_bytes}")
        return Rejection("key_missing", "empty key" if key is not None else "no key")

    def _look_again(self, value: bytes, key: bytes) -> tuple[R | Rejection, int]:
        """What the strict decode refused: a record with unknown fields, or the reason in words."""
        try:
            document = read_document(value)
            if isinstance(document, Rejection):
                return document, 0
            try:
                wire = self._lenient(value)
            except (msgspec.MsgspecError, ValueError, RecursionError) as error:
                return explain(document, self._wire) or _unclear(error), 0
            result = self._accept(wire, key)
        except Exception as error:
            return _unclear(error), 0
        return result, 0 if isinstance(result, Rejection) else len(document.keys() - self._fields)


def _unclear(error: Exception) -> Rejection:
    """Without the message of the parser, which may quote the value."""
    return Rejection("invalid", f"refused by the parser: {type(error).__name__}")


class TransactionDecoder(Decoder[_TransactionWire, Transaction]):
    """Decodes transactions.

    Args:
        attributes: names every transaction must carry.
        terminal_required: refuse a transaction without `terminal_id`; false where no entity is keyed by it.
        max_value_bytes: values above are refused unread.
    """

    def __init__(
        self,
        attributes: Collection[str] = (),
        terminal_required: bool = True,
        max_value_bytes: int = MAX_VALUE_BYTES,
    ) -> None:
        super().__init__(_TransactionWire, max_value_bytes)
        self._attributes = frozenset(attributes)
        if any(map(is_sensitive, self._attributes)):
            raise ValueError("an attribute is named like a verification code, track data or a PIN")
        self._terminal_required = terminal_required

    def _accept(self, wire: _TransactionWire, key: bytes) -> Transaction | Rejection:
        card, terminal, attributes = wire.card_id, wire.terminal_id, wire.attributes
        time = _time(wire.event_time)
        if not MIN_TIME <= time < MAX_TIME:
            return _time_range("event_time", time)
        currency = CANONICAL.get(wire.currency)
        if currency is None:
            return Rejection("currency_unknown", "no current ISO 4217 currency with minor units", "currency")
        problem = _refuse_card(card, key)
        if problem is not None:
            return problem
        if not wire.transaction_id.isprintable():
            return _characters("transaction_id")
        if terminal is None:
            if self._terminal_required:
                return Rejection("field_missing", "the feature spec has an entity keyed by it", "terminal_id")
            terminal = ""
        elif not terminal.isprintable():
            return _characters("terminal_id")
        if attributes is None:
            attributes = {}
        elif len(attributes) > MAX_FIELDS:
            return Rejection("too_many_fields", f"more than {MAX_FIELDS} attributes", "attributes")
        if attributes.keys() != self._attributes:
            if any(map(is_sensitive, attributes)):
                return Rejection("sensitive_field", "among the attributes", "attributes")
            if not self._attributes <= attributes.keys():
                missing = min(self._attributes - attributes.keys())
                return Rejection(
                    "attribute_missing", f"{missing} is declared by the feature spec", "attributes"
                )
        merchant, mcc, country, ip = wire.merchant_id, wire.mcc, wire.country, wire.ip
        if mcc is not None and not (len(mcc) == 4 and mcc.isascii() and mcc.isdecimal()):
            return Rejection("field_format", "a merchant category code is text of four digits", "mcc")
        if country is not None:
            if not (len(country) == 2 and country.isascii() and country.isalpha()):
                return Rejection("field_format", "a country is its ISO 3166 code of two letters", "country")
            country = country.upper()
        if ip is not None and not _is_address(ip):
            return Rejection("field_format", "neither an IPv4 nor an IPv6 address", "ip")
        if merchant is not None and not merchant.isprintable():
            return _characters("merchant_id")
        channel, device = wire.channel, wire.device_id
        if channel is not None and not channel.isprintable():
            return _characters("channel")
        if device is not None and not device.isprintable():
            return _characters("device_id")
        return Transaction(
            wire.transaction_id,
            card,
            time,
            wire.amount_minor,
            currency,
            terminal,
            merchant,
            mcc,
            country,
            channel,
            device,
            ip,
            attributes,
        )


class LabelDecoder(Decoder[_LabelWire, Label]):
    """Decodes labels."""

    def __init__(self, max_value_bytes: int = MAX_VALUE_BYTES) -> None:
        super().__init__(_LabelWire, max_value_bytes)

    def _accept(self, wire: _LabelWire, key: bytes) -> Label | Rejection:
        time = _time(wire.labelled_at)
        if not MIN_TIME <= time < MAX_TIME:
            return _time_range("labelled_at", time)
        problem = _refuse_card(wire.card_id, key) or _refuse_ids(wire, ("transaction_id", "source"))
        if problem is not None:
            return problem
        return Label(wire.transaction_id, wire.card_id, wire.fraud, wire.source, time, wire.revision or 0)


class FeedbackDecoder(Decoder[_FeedbackWire, Feedback]):
    """Decodes analyst feedback."""

    def __init__(self, max_value_bytes: int = MAX_VALUE_BYTES) -> None:
        super().__init__(_FeedbackWire, max_value_bytes)

    def _accept(self, wire: _FeedbackWire, key: bytes) -> Feedback | Rejection:
        time = _time(wire.action_time)
        if not MIN_TIME <= time < MAX_TIME:
            return _time_range("action_time", time)
        problem = _refuse_card(wire.card_id, key) or _refuse_ids(
            wire, ("alert_id", "transaction_id", "actor")
        )
        if problem is not None:
            return problem
        return Feedback(wire.alert_id, wire.transaction_id, wire.card_id, wire.action, wire.actor, time)


def _time(time: int | datetime) -> int:
    return time if isinstance(time, int) else epoch_ms(time)


def _time_range(field: str, time: int) -> Rejection:
    return Rejection("time_range", time_hint(time), field)


def _characters(field: str) -> Rejection:
    return Rejection("field_characters", "holds a character that does not print", field)


def _refuse_card(card: str, key: bytes) -> Rejection | None:
    if is_card_number(card):
        return Rejection("card_number", "a card number in place of a token", "card_id")
    if not card.isprintable():
        return _characters("card_id")
    if card.encode() != key:
        return Rejection("key_mismatch", "the record key is not the card_id", "card_id")
    return None


def _refuse_ids(wire: Struct, names: tuple[str, ...]) -> Rejection | None:
    for name in names:
        if not getattr(wire, name).isprintable():
            return _characters(name)
    return None


def _is_address(text: str) -> bool:
    if not text.isascii() or "\x00" in text:
        return False
    try:
        socket.inet_pton(socket.AF_INET6 if ":" in text else socket.AF_INET, text)
    except OSError:
        return False
    return True


_encoder = msgspec.json.Encoder()


def encode(record: Struct | dict[str, Any]) -> bytes:
    """JSON of a record, fields in the order of their declaration; finite numbers only."""
    return _encoder.encode(record)
