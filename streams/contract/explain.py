"""What is wrong with a record that the typed decode refused, field by field and without quoting it."""

from __future__ import annotations

import re
from collections.abc import Callable
from datetime import datetime
from typing import get_args

import msgspec
from msgspec import Struct

from streams.contract.cards import is_sensitive
from streams.contract.records import Action, Rejection

MAX_AMOUNT = 10**15
"""Largest amount in minor units; doubles hold every integer up to nine times this."""

MAX_DEPTH = 32
MAX_FIELDS = 256
_MAX_TEXT = 64
_MAX_REVISION = 2**31 - 1

_MARKS = (b"\xff\xfe", b"\xfe\xff", b"\xef\xbb\xbf", b"\x00\x00\xfe\xff")
_WIDE = re.compile(rb'[{\["\s]\x00|\x00[{\["\s]\x00')
_PACKED = (b"\x1f\x8b", b"\x28\xb5\x2f\xfd", b"\x04\x22\x4d\x18", b"\x78\x9c", b"\x82SNAPPY\x00")
_STRINGS_AND_BRACKETS = re.compile(rb'"(?:[^"\\]|\\.)*"?|[\[{]|[\]}]', re.DOTALL)


def read_document(value: bytes) -> dict[str, object] | Rejection:
    """The JSON object in a value, or why there is none that may be read."""
    if value.startswith(_MARKS) or _WIDE.match(value):
        return Rejection("bad_encoding", "UTF-16, UTF-32 or a byte order mark")
    if value[0] == 0:
        return Rejection("confluent_framed", "the value starts with the magic byte 0")
    if value.startswith(_PACKED):
        return Rejection("compressed", "the value is a compressed stream")
    # Counting is enough for nearly every record; only the few with more brackets are worth reading twice.
    if value.count(b"{") + value.count(b"[") > MAX_DEPTH and _too_deep(value):
        return Rejection("too_deep", f"nested deeper than {MAX_DEPTH}")
    try:
        document = msgspec.json.decode(value)
    except UnicodeDecodeError:
        return Rejection("bad_encoding", "not UTF-8")
    except msgspec.ValidationError:
        return Rejection("number_out_of_range", "a number fits neither a 64-bit integer nor a finite double")
    except (msgspec.DecodeError, ValueError):
        return Rejection("bad_json", "not one JSON value")
    except RecursionError:
        return Rejection("too_deep", f"nested deeper than {MAX_DEPTH}")
    if not isinstance(document, dict):
        return Rejection("not_an_object", f"the value is {_kind(document)}")
    if len(document) > MAX_FIELDS:
        return Rejection("too_many_fields", f"more than {MAX_FIELDS} fields")
    if _holds_sensitive(document):
        return Rejection("sensitive_field", "verification codes, track data or a PIN")
    return document


def explain(document: dict[str, object], wire: type[Struct]) -> Rejection | None:
    """The first field of the wire struct that is missing or has a wrong type, length or range."""
    required = len(wire.__struct_fields__) - len(wire.__struct_defaults__)
    for position, name in enumerate(wire.__struct_fields__):
        item = document.get(name)
        if item is None:
            if position < required:
                return Rejection("field_missing", "null" if name in document else "absent", name)
            continue
        problem = _RULES.get(name, _short_text)(item)
        if problem is not None:
            return Rejection(*problem, name)
    return None


_Problem = tuple[str, str] | None


def _short_text(item: object) -> _Problem:
    if not isinstance(item, str):
        return "field_type", f"{_kind(item)} in place of text"
    if not 1 <= len(item) <= _MAX_TEXT:
        return "field_length", f"{len(item)} characters"
    return None


def _text(item: object) -> _Problem:
    return None if isinstance(item, str) else ("field_type", f"{_kind(item)} in place of text")


def _flag(item: object) -> _Problem:
    return None if isinstance(item, bool) else ("field_type", f"{_kind(item)} in place of true or false")


def _whole(most: int) -> Callable[[object], _Problem]:
    def check(item: object) -> _Problem:
        if isinstance(item, bool) or not isinstance(item, int):
            return "field_type", f"{_kind(item)} in place of an integer"
        return None if 0 <= item <= most else ("field_range", f"not within 0 to {most}")

    return check


def _moment(item: object) -> _Problem:
    if isinstance(item, int) and not isinstance(item, bool):
        return None
    if not isinstance(item, str):
        return "field_type", f"{_kind(item)} in place of a time"
    try:
        moment = msgspec.convert(item, datetime)
    except msgspec.ValidationError:
        return "time_format", "not RFC 3339 or not a time that exists"
    if moment.tzinfo is None:
        return "time_format", "no zone"
    return None


def _action(item: object) -> _Problem:
    if not isinstance(item, str):
        return "field_type", f"{_kind(item)} in place of text"
    return None if item in get_args(Action) else ("field_format", f"none of {', '.join(get_args(Action))}")


def _numbers(item: object) -> _Problem:
    if not isinstance(item, dict):
        return "field_type", f"{_kind(item)} in place of an object of numbers"
    for each in item.values():
        if isinstance(each, bool) or not isinstance(each, int | float):
            return "field_type", f"{_kind(each)} in place of a number"
        if isinstance(each, int) and abs(each) >= 2**1024:
            return "number_out_of_range", "not a finite double"
    return None


_RULES: dict[str, Callable[[object], _Problem]] = {
    "event_time": _moment,
    "labelled_at": _moment,
    "action_time": _moment,
    "amount_minor": _whole(MAX_AMOUNT),
    "revision": _whole(_MAX_REVISION),
    "currency": _text,
    "mcc": _text,
    "country": _text,
    "ip": _text,
    "fraud": _flag,
    "action": _action,
    "attributes": _numbers,
}


def _kind(item: object) -> str:
    if isinstance(item, bool):
        return "true or false"
    if item is None:
        return "null"
    return {str: "text", int: "an integer", float: "a fraction", list: "a list"}.get(type(item), "an object")


def _too_deep(value: bytes) -> bool:
    depth = 0
    for match in _STRINGS_AND_BRACKETS.finditer(value):
        token = match.group()
        if token in b"[{":
            depth += 1
            if depth > MAX_DEPTH:
                return True
        elif token in b"]}":
            depth -= 1
    return False


def _holds_sensitive(item: object) -> bool:
    if isinstance(item, dict):
        return any(is_sensitive(name) or _holds_sensitive(each) for name, each in item.items())
    if isinstance(item, list):
        return any(map(_holds_sensitive, item))
    return False
