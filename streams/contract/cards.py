"""Card numbers: telling a token from a card number, and removing card numbers from what is stored.

A card number is 13 to 19 digits whose last is the check digit of Luhn (ISO/IEC 7812-1). One in ten other
numbers of that length passes too. As a `card_id` any of them is refused; in the text of a dead letter any of
them is redacted, save 13 digits that start with 1, 2 or 3: no card number of 13 digits does, epoch times do.
"""

from __future__ import annotations

import math
import re
import unicodedata
from collections.abc import Collection, Iterator
from functools import lru_cache
from itertools import accumulate

import msgspec

_SENSITIVE = """
cvv cvv2 cvc cvc2 cav2 csc cvn card_verification_value card_verification_code security_code
track track1 track2 track_1 track_2 track_data track1_data track2_data magstripe pin pin_block pinblock
"""
SENSITIVE = frozenset(_SENSITIVE.split())
"""Names, in lower case with underscores, of what must not be stored after authorisation (PCI DSS 3.3.1)."""

REDACTED = "[redacted]"
_LONGEST_SENSITIVE = max(map(len, SENSITIVE))

_SEPARATORS = r"[ \t\x00./_\u00a0\u00ad\u2002-\u200b\u2010-\u2015\u202f\u3000\-]"
# Python's \d matches every decimal digit of Unicode, full-width ones among them.
_RUN = re.compile(rf"\d(?:{_SEPARATORS}{{0,2}}\d){{12,}}")
_GROUP = re.compile(r"\d+")
_STRIP = re.compile(rf"{_SEPARATORS}+")
_ESCAPE = re.compile(r"\\u([0-9a-fA-F]{4})")
# From the first letter or digit to the last.
_CORE = re.compile(r"[^\W_].*[^\W_]", re.DOTALL)
_SENSITIVE_VALUE = re.compile(
    rf'("(?:{"|".join(sorted(SENSITIVE))})"\s*:\s*)("(?:[^"\\]|\\.)*"?|[^\s,}}\]]+)', re.IGNORECASE
)
_PLAIN = bytes.maketrans(b"0123456789", bytes(range(10)))
_DOUBLED = bytes.maketrans(b"0123456789", bytes((0, 2, 4, 6, 8, 1, 3, 5, 7, 9)))
_LONGEST_RUN = 200
#: Characters in runs of digits that are looked at, of a value as JSON and again as text.
_MOST_SEARCHED = 65_536
_MAX_DEPTH = 64
#: A float from here on has more digits than a card number, up to 309 for the six characters of 1e308.
_NO_CARD_NUMBER = 10.0**19


def _float(text: str) -> float:
    value = float(text)
    if math.isinf(value):
        raise ValueError("out of range")
    return value


# msgspec's own way takes 10 microseconds for a number such as 1e308.
_decode = msgspec.json.Decoder(float_hook=_float).decode


def is_sensitive(name: str) -> bool:
    """Whether a field of this name holds verification codes, track data or a PIN."""
    return len(name) <= _LONGEST_SENSITIVE and _is_sensitive(name)


@lru_cache(maxsize=4096)
def _is_sensitive(name: str) -> bool:
    return name.lower().replace("-", "_") in SENSITIVE


def luhn(digits: str) -> bool:
    """Whether decimal digits, full-width ones among them, end in their Luhn check digit."""
    if not digits.isascii():
        digits = "".join(str(unicodedata.decimal(digit)) for digit in digits)
    backwards = digits.encode()[::-1]
    return (sum(backwards[::2].translate(_PLAIN)) + sum(backwards[1::2].translate(_DOUBLED))) % 10 == 0


def is_card_number(text: str) -> bool:
    """Whether the text is a card number, perhaps with separators, full-width digits or signs around it."""
    if len(text) < 13 or text.lower() != text.upper():  # a letter: the quick way out for hexadecimal tokens
        return False
    core = _CORE.search(text)
    if core is None:
        return False
    digits = _STRIP.sub("", core.group())
    return 13 <= len(digits) <= 19 and digits.isdecimal() and luhn(digits)


class _Search:
    """The search of one value for card numbers.

    It looks into the runs of digits and separators within a value of the size that transactions have. What a
    larger one has more of them is redacted unseen: to look at each of its digits would take seconds, in which
    nothing is scored.
    """

    __slots__ = ("_left",)

    def __init__(self) -> None:
        self._left = _MOST_SEARCHED

    def redact(self, text: str) -> str:
        return _RUN.sub(self._redact_run, text)

    def _redact_run(self, match: re.Match[str]) -> str:
        run, parts, at = match.group(), [], 0
        if len(run) > _LONGEST_RUN or len(run) > self._left:  # too many ways to read it
            return REDACTED
        self._left -= len(run)
        for start, end in _spans(run):
            if start >= at:
                parts += [run[at:start], REDACTED]
            at = max(at, end)
        return "".join([*parts, run[at:]])


def redact_text(text: str) -> str:
    """The text with every card number replaced."""
    return _Search().redact(text)


class _Digits:
    """Decimal digits, and whether a part of them ends in its check digit: at one cost, however long it is."""

    __slots__ = ("_sums",)

    def __init__(self, digits: str) -> None:
        if not digits.isascii():
            digits = "".join(str(unicodedata.decimal(digit)) for digit in digits)
        text = digits.encode()
        #: by parity of the last place, which is not doubled: sums of the places before each
        self._sums: list[list[int]] = []
        for parity in (0, 1):
            weighed = bytearray(len(text))
            weighed[parity::2] = text[parity::2].translate(_PLAIN)
            weighed[1 - parity :: 2] = text[1 - parity :: 2].translate(_DOUBLED)
            self._sums.append([0, *accumulate(weighed)])

    def checks(self, start: int, end: int) -> bool:
        sums = self._sums[(end - 1) & 1]
        return (sums[end] - sums[start]) % 10 == 0


def _spans(run: str) -> Iterator[tuple[int, int]]:
    """The parts of a run of digits and separators that may be card numbers; some overlap."""
    groups = [match.span() for match in _GROUP.finditer(run)]
    digits = _Digits(_STRIP.sub("", run))
    offsets = [0, *accumulate(end - start for start, end in groups)]
    after = 0  # the group behind the last one that ends within 19 digits
    for first, (start, end) in enumerate(groups):
        while after < len(groups) and offsets[after + 1] - offsets[first] <= 19:
            after += 1
        for last in range(after - 1, first - 1, -1):
            if offsets[last + 1] - offsets[first] < 13:
                break
            stop = groups[last][1]
            if digits.checks(offsets[first], offsets[last + 1]) and not _is_time(run[start:stop]):
                yield start, stop
                break
        if end - start > 19:
            for within, stop in _within(run[start:end], digits, offsets[first]):
                yield start + within, start + stop


def _within(group: str, digits: _Digits, offset: int) -> Iterator[tuple[int, int]]:
    """Card numbers of the common lengths inside more than 19 digits without a separator."""
    start, end = 0, len(group)
    while start <= end - 15:
        if group[start] in "2456" and start + 16 <= end:
            length = 16
        elif group[start : start + 2] in ("34", "37"):
            length = 15
        else:
            length = 0
        if length and digits.checks(offset + start, offset + start + length):
            yield start, start + length
            start += length - 1
        start += 1


def _is_time(text: str) -> bool:
    return len(text) == 13 and text[0] in "123" and text.isascii() and text.isdecimal()


def redact(value: bytes, known: Collection[str] = ()) -> bytes:
    """The bytes of a key, value or header without card numbers, sensitive fields and the `known` texts.

    JSON is searched after decoding, so that escapes hide nothing, and written anew if something was found;
    other bytes are searched as UTF-8 text, in which undecodable bytes survive and escapes of JSON are read.
    """
    escapes = False
    try:
        document = _decode(value)
        cleaned = _redact_json(document, known, _Search(), 0)
        if cleaned != document:
            value = msgspec.json.encode(cleaned)
    except (msgspec.DecodeError, UnicodeError, RecursionError):
        escapes = b"\\u" in value
    text = value.decode("utf-8", "surrogateescape")
    if escapes:
        text = _ESCAPE.sub(_unescaped, text)
    cleaned_text = redact_text(_SENSITIVE_VALUE.sub(rf'\1"{REDACTED}"', text))
    for secret in known:
        cleaned_text = cleaned_text.replace(secret, REDACTED)
    return value if cleaned_text == text else cleaned_text.encode("utf-8", "surrogateescape")


def _unescaped(match: re.Match[str]) -> str:
    """A letter, digit or separator in place of its escape; what could break the text around it stays."""
    character = chr(int(match.group(1), 16))
    return character if character.isalnum() or _STRIP.fullmatch(character) else match.group()


def _redact_json(item: object, known: Collection[str], search: _Search, depth: int) -> object:
    if isinstance(item, str):
        return REDACTED if item in known else search.redact(item)
    if isinstance(item, bool) or item is None:
        return item
    if isinstance(item, int | float):
        if isinstance(item, float) and abs(item) >= _NO_CARD_NUMBER:
            return item  # its digits are looked at as they are written, with the rest of the text
        digits = str(item) if isinstance(item, int) else f"{item:.0f}"
        return REDACTED if search.redact(digits) != digits else item
    if depth >= _MAX_DEPTH:
        return REDACTED
    if isinstance(item, list):
        return [_redact_json(each, known, search, depth + 1) for each in item]
    if isinstance(item, dict):
        return {
            search.redact(name): (
                REDACTED if is_sensitive(name) else _redact_json(each, known, search, depth + 1)
            )
            for name, each in item.items()
        }
    return item
