"""The corpus of bad input: for every case one record or one rejection with a known code, in bounded time.

The number before each case is its number in the corpus; the letters are its groups: A envelope, B encoding,
C JSON, D types, E money, F identity, G time, H network and merchant, I attributes, J labels and feedback.
"""

from __future__ import annotations

import gzip
import json
import random
import time
from typing import Any

import pytest
from _pytest.mark.structures import ParameterSet
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from msgspec import Struct

from streams.contract.codecs import Decoder, FeedbackDecoder, LabelDecoder, TransactionDecoder, encode
from streams.contract.dead_letters import dead_letter
from streams.contract.records import Feedback, Label, Rejection, Transaction
from streams.contract.rejections import CODES
from tests.streams.sources import FEEDBACK, LABEL, TRANSACTION, Source, changed

TRANSACTIONS = TransactionDecoder()
LABELS = LabelDecoder()
FEEDBACKS = FeedbackDecoder()
LIMIT = 65_536
SECONDS = 0.25
GOOD = changed(TRANSACTION)
OK = "ok"

Case = tuple[str, bytes | None, str]


def raw(old: bytes, new: bytes) -> bytes:
    """The good transaction with bytes replaced."""
    assert old in GOOD
    return GOOD.replace(old, new)


def tx(**fields: object) -> bytes:
    return changed(TRANSACTION, **fields)


def extra(text: bytes) -> bytes:
    """The good transaction with one more field written by hand."""
    return GOOD[:-1] + b"," + text + b"}"


#: Lengths of a number around the largest float, up to the longest that Python reads.
DIGITS = (20, 308, 309, 310, 400, 4000)


def long_time(record: dict[str, object], field: str, digits: int) -> bytes:
    """The record with that field a number of so many digits."""
    placed = changed(record, **{field: "HERE"})
    assert placed.count(b'"HERE"') == 1
    return placed.replace(b'"HERE"', b"-" * (digits < 0) + b"9" * abs(digits))


def padded(size: int) -> bytes:
    return extra(b'"note":"' + b"x" * (size - len(GOOD) - 10) + b'"')


ENVELOPE: list[Case] = [
    ("1 empty value", b"", "value_empty"),
    ("2 tombstone", None, "value_empty"),
    ("5 key is not the card", tx(card_id="card-2"), "key_mismatch"),
    ("7 one byte", b"x", "bad_json"),
    ("7 one zero byte", b"\x00", "confluent_framed"),
    ("8 value of the largest size", padded(LIMIT), OK),
    ("9 one byte more", padded(LIMIT + 1), "value_too_large"),
    ("11 gzip bytes", gzip.compress(GOOD), "compressed"),
    ("12 zstd frame", b"\x28\xb5\x2f\xfd" + b"\x00" * 40, "compressed"),
    ("15 schema registry frame", b"\x00\x00\x00\x00\x07" + GOOD, "confluent_framed"),
    ("15 other magic byte", b"\x01\x00\x00\x00\x07" + GOOD, "bad_json"),
    ("16 Avro bytes", b"Obj\x01\x04\x16avro.schema\xc2\x01", "bad_json"),
    ("16 Protobuf bytes", b"\x0a\x04tx-1\x12\x06card-1", "bad_json"),
    ("18 a label", changed(LABEL), "field_missing"),
]
ENCODING: list[Case] = [
    ("19 invalid UTF-8 in an id", raw(b"tx-1", b"tx-\xff"), "bad_encoding"),
    ("19 invalid UTF-8 in an ignored field", extra(b'"note":"\xff"'), "bad_encoding"),
    ("20 overlong UTF-8", raw(b"tx-1", b"\xc0\xaf"), "bad_encoding"),
    ("21 UTF-16 with mark", GOOD.decode().encode("utf-16"), "bad_encoding"),
    ("21 UTF-16 without mark", GOOD.decode().encode("utf-16-le"), "bad_encoding"),
    ("21 UTF-16 big-endian without mark", GOOD.decode().encode("utf-16-be"), "bad_encoding"),
    ("21 UTF-32 with mark", GOOD.decode().encode("utf-32"), "bad_encoding"),
    ("22 UTF-8 with mark", b"\xef\xbb\xbf" + GOOD, "bad_encoding"),
    ("23 escaped lone surrogate", raw(b"tx-1", b"\\ud800"), "bad_json"),
    ("23 encoded lone surrogate", raw(b"tx-1", b"\xed\xa0\x80"), "bad_encoding"),
    ("24 escaped NUL", raw(b"tx-1", b"tx\\u00001"), "field_characters"),
    ("25 raw control character", raw(b"tx-1", b"tx\x011"), "bad_json"),
    ("25 escaped control character", raw(b"tx-1", b"tx\\u001b1"), "field_characters"),
    ("25 DEL", tx(transaction_id="tx\x7f1"), "field_characters"),
    ("25 C1 control", tx(terminal_id="t\x85"), "field_characters"),
    ("26 non-character", tx(transaction_id="tx\ufffe"), "field_characters"),
    ("27 right-to-left override", tx(merchant_id="shop\u202e"), "field_characters"),
    ("27 zero width", tx(device_id="d\u200b1"), "field_characters"),
    ("28 composed", tx(merchant_id="caf\u00e9"), OK),
    ("28 decomposed", tx(merchant_id="cafe\u0301"), OK),
    ("29 homoglyph", tx(merchant_id="\u0410mazon"), OK),
    ("30 emoji", tx(merchant_id="shop \U0001f600"), OK),
    ("31 long text in a field", tx(merchant_id="x" * 60_000), "field_length"),
    ("31 long text in an ignored field", tx(note="x" * 60_000), OK),
    ("32 log injection", tx(terminal_id='t\n{"level":"INFO"'), "field_characters"),
    ("33 ANSI escape", tx(channel="\x1b[31mred"), "field_characters"),
]
SYNTAX: list[Case] = [
    ("34 truncated", GOOD[:-1], "bad_json"),
    ("34 truncated in a text", GOOD[:30], "bad_json"),
    ("35 trailing comma", GOOD[:-1] + b",}", "bad_json"),
    ("36 two objects", GOOD + GOOD, "bad_json"),
    ("36 two lines", GOOD + b"\n" + GOOD, "bad_json"),
    ("37 trailing garbage", GOOD + b"x", "bad_json"),
    ("37 trailing blanks", GOOD + b" \n", OK),
    ("38 array", b"[" + GOOD + b"]", "not_an_object"),
    ("38 number", b"12", "not_an_object"),
    ("38 text", b'"x"', "not_an_object"),
    ("38 null", b"null", "not_an_object"),
    ("38 true", b"true", "not_an_object"),
    ("39 nested 32 deep", extra(b'"n":' + b"[" * 31 + b"]" * 31), OK),
    ("39 nested 33 deep", extra(b'"n":' + b"[" * 32 + b"]" * 32), "too_deep"),
    ("39 nested 1,000 deep", extra(b'"n":' + b"[" * 1_000 + b"]" * 1_000), "too_deep"),
    ("39 33 brackets in a text", tx(note="[" * 33), OK),
    ("39 33 flat lists", extra(b'"n":[' + b",".join([b"[]"] * 33) + b"]"), OK),
    ("40 never closed", b"[" * 60_000, "too_deep"),
    ("41 too many keys", tx(**{f"k{i}": 1 for i in range(300)}), "too_many_fields"),
    ("42 duplicate key, last wins", extra(b'"amount_minor":7'), OK),
    ("43 duplicate key by escape, last wins", extra(b'"amount\\u005fminor":7'), OK),
    ("44 NaN", raw(b"1234", b"NaN"), "bad_json"),
    ("44 Infinity", raw(b"1234", b"Infinity"), "bad_json"),
    ("44 -Infinity in an ignored field", extra(b'"x":-Infinity'), "bad_json"),
    ("45 1e400", raw(b"1234", b"1e400"), "number_out_of_range"),
    ("45 1e400 in an ignored field", extra(b'"x":1e400'), "number_out_of_range"),
    ("46 5,000 digits", raw(b"1234", b"9" * 5_000), "number_out_of_range"),
    ("47 400 digits", raw(b"1234", b"9" * 400), "field_range"),
    (
        "47 400 digits in an attribute",
        extra(b'"attributes":{"a":' + b"9" * 400 + b"}"),
        "number_out_of_range",
    ),
    ("48 -0", raw(b"1234", b"-0"), OK),
    ("48 -0.0", raw(b"1234", b"-0.0"), "field_type"),
    ("49 leading zero", raw(b"1234", b"01"), "bad_json"),
    ("49 plus", raw(b"1234", b"+1"), "bad_json"),
    ("49 no digit before the point", raw(b"1234", b".5"), "bad_json"),
    ("49 no digit after the point", raw(b"1234", b"1."), "bad_json"),
    ("50 comment", raw(b"1234", b"1234/*x*/"), "bad_json"),
    ("50 single quotes", GOOD.replace(b'"', b"'"), "bad_json"),
    ("51 odd keys", tx(**{"__proto__": 1, "__class__": 2, "$ref": 3, "": 4}), OK),
]
TYPES: list[Case] = [
    *((f"53 without {name}", tx(**{name: ...}), "field_missing") for name in TRANSACTION),
    *((f"54 {name} null", tx(**{name: None}), "field_missing") for name in TRANSACTION),
    *((f"55 {name} a list", tx(**{name: []}), "field_type") for name in TRANSACTION),
    *((f"62 {name} an object", tx(**{name: {}}), "field_type") for name in TRANSACTION),
    ("54 optional fields null", tx(mcc=None, country=None, ip=None, attributes=None, merchant_id=None), OK),
    ("55 id a number", tx(transaction_id=17), "field_type"),
    ("55 attributes a list", tx(attributes=[1.0]), "field_type"),
    ("55 attribute text", tx(attributes={"a": "1"}), "field_type"),
    ("56 true as amount", tx(amount_minor=True), "field_type"),
    ("56 true as attribute", tx(attributes={"a": True}), "field_type"),
    *(
        (f"57 amount {text!r}", tx(amount_minor=text), "field_type")
        for text in ("12,50", " 1 ", "１２３", "1_000", "infinity", "sNaN", "")
    ),
    ("58 an unknown field", tx(shop="x"), OK),
    ("59 many unknown fields", tx(**{f"k{i}": i for i in range(250)}), OK),
    ("60 other case", tx(card_id=..., Card_ID="card-1"), "field_missing"),
]
MONEY: list[Case] = [
    ("64 zero", tx(amount_minor=0), OK),
    ("65 negative", tx(amount_minor=-1), "field_range"),
    ("67 fraction", tx(amount_minor=0.001), "field_type"),
    ("68 1e15 written so", raw(b"1234", b"1e15"), "field_type"),
    ("68 the largest", tx(amount_minor=10**15), OK),
    ("68 above", tx(amount_minor=10**15 + 1), "field_range"),
    ("68 2^63", tx(amount_minor=2**63), "field_range"),
    ("70 lower case", tx(currency="eur"), OK),
    ("70 mixed case", tx(currency="Eur"), "currency_unknown"),
    ("70 XXX", tx(currency="XXX"), "currency_unknown"),
    ("70 unknown", tx(currency="ZZZ"), "currency_unknown"),
    ("70 retired", tx(currency="DEM"), "currency_unknown"),
    ("70 numeric", tx(currency="978"), "currency_unknown"),
    ("70 empty", tx(currency=""), "currency_unknown"),
    ("71 no minor unit", tx(currency="JPY"), OK),
    ("71 three digits", tx(currency="KWD"), OK),
    ("72 decimal text", tx(amount_minor="12.34"), "field_type"),
    ("73 denormal", tx(attributes={"a": 5e-324}), OK),
]
IDENTITY: list[Case] = [
    ("76 empty id", tx(transaction_id=""), "field_length"),
    ("76 64 characters", tx(transaction_id="x" * 64), OK),
    ("76 65 characters", tx(transaction_id="x" * 65), "field_length"),
    ("76 SQL", tx(transaction_id="'; DROP TABLE x; --"), OK),
    ("76 path", tx(transaction_id="../../etc/passwd"), OK),
    ("77 trailing blank", tx(transaction_id="tx-1 "), OK),
    *(
        (f"78 card number {card}", tx(card_id=card), "card_number")
        for card in (
            "4111111111111111",
            "378282246310005",
            "4222222222222",
            "6304000000000000000",
            "4111 1111 1111 1111",
            "4111-1111-1111-1111",
            "４１１１１１１１１１１１１１１１",
            "٤١١١١١١١١١١١١١١١",
        )
    ),
    ("79 card number in an ignored field", tx(note="4111111111111111"), OK),
    ("81 digits that fail the check", tx(card_id="4111111111111112"), "key_mismatch"),
    ("81 twelve digits", tx(card_id="411111111111"), "key_mismatch"),
    ("81 hexadecimal token", tx(card_id="4f9619ff-8b86-d011-b42d-00cf4fc964f0"), "key_mismatch"),
    ("83 verification code", tx(cvv="123"), "sensitive_field"),
    ("83 other spelling", tx(CVC2="123"), "sensitive_field"),
    ("83 nested", tx(card={"Track-2": "x"}), "sensitive_field"),
    ("83 nested in a list", tx(cards=[{"pin": "1234"}]), "sensitive_field"),
    ("83 among the attributes", tx(attributes={"cvv": 123.0}), "sensitive_field"),
]
TIME: list[Case] = [
    ("85 no zone", tx(event_time="2024-05-01T12:00:00"), "time_format"),
    ("85 date only", tx(event_time="2024-05-01"), "time_format"),
    ("86 +14:00", tx(event_time="2024-05-01T12:00:00+14:00"), OK),
    ("86 -12:00", tx(event_time="2024-05-01T12:00:00-12:00"), OK),
    ("86 +99:99", tx(event_time="2024-05-01T12:00:00+99:99"), "time_format"),
    ("87 leap second", tx(event_time="2016-12-31T23:59:60Z"), "time_format"),
    ("88 30 February", tx(event_time="2024-02-30T12:00:00Z"), "time_format"),
    ("88 29 February", tx(event_time="2023-02-29T12:00:00Z"), "time_format"),
    ("89 seconds", tx(event_time=1_714_564_800), "time_range"),
    ("89 milliseconds", tx(event_time=1_714_564_800_123), OK),
    ("89 microseconds", tx(event_time=1_714_564_800_123_000), "time_range"),
    ("89 nanoseconds", tx(event_time=1_714_564_800_123_000_000), "time_range"),
    ("89 seconds with a fraction", tx(event_time=1_714_564_800.123), "field_type"),
    ("89 number as text", tx(event_time="1714564800123"), "time_format"),
    ("89 true", tx(event_time=True), "field_type"),
    ("90 negative", tx(event_time=-1), "time_range"),
    ("90 zero", tx(event_time=0), "time_range"),
    ("90 2038", tx(event_time="2038-01-19T03:14:08Z"), OK),
    ("90 9999", tx(event_time="9999-12-31T23:59:59Z"), "time_range"),
    ("90 9999 west of Greenwich", tx(event_time="9999-12-31T23:59:59-05:00"), "time_range"),
    ("90 year 0001 east of Greenwich", tx(event_time="0001-01-01T00:00:00+05:00"), "time_range"),
    ("90 2^70", tx(event_time=2**70), "time_range"),
    *((f"90 {n} digits", long_time(TRANSACTION, "event_time", n), "time_range") for n in DIGITS),
    *((f"90 {n} digits, negative", long_time(TRANSACTION, "event_time", -n), "time_range") for n in DIGITS),
    ("90 20,000 digits", long_time(TRANSACTION, "event_time", 20_000), "number_out_of_range"),
    ("91 in a year", tx(event_time="2099-12-31T23:59:59.999Z"), OK),
    ("93 local zone name", tx(event_time="2024-03-31T02:30:00 Europe/Berlin"), "time_format"),
]
MERCHANT: list[Case] = [
    ("98 IPv4", tx(ip="192.0.2.1"), OK),
    ("98 IPv6", tx(ip="2001:db8::1"), OK),
    ("98 mapped", tx(ip="::ffff:192.0.2.1"), OK),
    ("98 private", tx(ip="10.0.0.1"), OK),
    ("98 no address", tx(ip="999.1.1.1"), "field_format"),
    ("98 host name", tx(ip="localhost"), "field_format"),
    ("98 zero byte", tx(ip="1.2.3.4\x00"), "field_format"),
    ("98 other digits", tx(ip="１.2.3.4"), "field_format"),
    ("98 empty", tx(ip=""), "field_format"),
    ("99 Kosovo", tx(country="XK"), OK),
    ("99 lower case", tx(country="de"), OK),
    ("99 three letters", tx(country="DEU"), "field_format"),
    ("99 sharp s grows when upper-cased", tx(country="\u00df"), "field_format"),
    ("100 code as a number", tx(mcc=742), "field_type"),
    ("100 leading zero", tx(mcc="0742"), OK),
    ("100 three digits", tx(mcc="742"), "field_format"),
    ("100 other digits", tx(mcc="０７４２"), "field_format"),
]
ATTRIBUTES: list[Case] = [
    ("107 256 attributes", tx(attributes={f"a{i}": i for i in range(256)}), OK),
    ("107 257 attributes", tx(attributes={f"a{i}": i for i in range(257)}), "too_many_fields"),
    ("108 the largest double", tx(attributes={"a": 1.7976931348623157e308}), OK),
    ("108 attribute of 300 digits", extra(b'"attributes":{"a":' + b"9" * 300 + b"}"), OK),
]


def label(**fields: object) -> bytes:
    return changed(LABEL, **fields)


WRONG_FLAGS: tuple[object, ...] = ("fraud", "true", 1, 0, 2, -1, 0.5, [])
LABEL_CASES: list[Case] = [
    ("J good", label(), OK),
    *((f"109 fraud {item!r}", label(fraud=item), "field_type") for item in WRONG_FLAGS),
    ("109 fraud null", label(fraud=None), "field_missing"),
    ("109 fraud NaN", label().replace(b"true", b"NaN"), "bad_json"),
    ("114 revision 3", label(revision=3), OK),
    ("114 revision negative", label(revision=-1), "field_range"),
    ("114 revision huge", label(revision=2**31), "field_range"),
    ("114 revision true", label(revision=True), "field_type"),
    ("115 time in seconds", label(labelled_at=1_714_564_800), "time_range"),
    *((f"90 {n} digits", long_time(LABEL, "labelled_at", n), "time_range") for n in DIGITS),
    ("115 time without zone", label(labelled_at="2024-05-01T12:00:00"), "time_format"),
    ("116 source empty", label(source=""), "field_length"),
    ("116 source with a line break", label(source="x\ny"), "field_characters"),
    ("117 weight is ignored", label(weight=-1.0), OK),
    ("78 card number", label(card_id="4111111111111111"), "card_number"),
    ("5 key is not the card", label(card_id="card-2"), "key_mismatch"),
    ("18 a transaction", GOOD, "field_missing"),
    *((f"53 without {name}", label(**{name: ...}), "field_missing") for name in LABEL),
]
FEEDBACK_CASES: list[Case] = [
    ("J good", changed(FEEDBACK), OK),
    ("61 unknown action", changed(FEEDBACK, action="closed"), "field_format"),
    ("61 action in other case", changed(FEEDBACK, action="Confirmed"), "field_format"),
    ("61 action a number", changed(FEEDBACK, action=1), "field_type"),
    ("76 actor empty", changed(FEEDBACK, actor=""), "field_length"),
    ("33 ANSI escape in actor", changed(FEEDBACK, actor="\x1b[31m"), "field_characters"),
    ("89 seconds", changed(FEEDBACK, action_time=1_714_564_800), "time_range"),
    *((f"90 {n} digits", long_time(FEEDBACK, "action_time", n), "time_range") for n in DIGITS),
    ("78 card number", changed(FEEDBACK, card_id="4111111111111111"), "card_number"),
    *((f"53 without {name}", changed(FEEDBACK, **{name: ...}), "field_missing") for name in FEEDBACK),
]
GROUPS = {
    "A": ENVELOPE,
    "B": ENCODING,
    "C": SYNTAX,
    "D": TYPES,
    "E": MONEY,
    "F": IDENTITY,
    "G": TIME,
    "H": MERCHANT,
    "I": ATTRIBUTES,
}


def params(groups: dict[str, list[Case]]) -> list[ParameterSet]:
    return [
        pytest.param(value, expected, id=f"{letter}{name}")
        for letter, cases in groups.items()
        for name, value, expected in cases
    ]


def check(result: object, expected: str, seconds: float) -> None:
    if isinstance(result, Rejection):
        assert result.code == expected
        assert result.code in CODES
    else:
        assert expected == OK
    assert seconds < SECONDS


@pytest.mark.parametrize(("value", "expected"), params(GROUPS))
def test_transaction_case(value: bytes | None, expected: str) -> None:
    """A transaction of the corpus gives the stated outcome."""
    start = time.perf_counter()
    result = TRANSACTIONS.decode_one(value, b"card-1")
    check(result, expected, time.perf_counter() - start)


@pytest.mark.parametrize(("value", "expected"), params({"J": LABEL_CASES}))
def test_label_case(value: bytes | None, expected: str) -> None:
    """A label of the corpus gives the stated outcome."""
    start = time.perf_counter()
    result = LABELS.decode_one(value, b"card-1")
    check(result, expected, time.perf_counter() - start)


@pytest.mark.parametrize(("value", "expected"), params({"J": FEEDBACK_CASES}))
def test_feedback_case(value: bytes | None, expected: str) -> None:
    """Feedback of the corpus gives the stated outcome."""
    start = time.perf_counter()
    result = FEEDBACKS.decode_one(value, b"card-1")
    check(result, expected, time.perf_counter() - start)


@pytest.mark.parametrize(
    ("key", "expected"),
    [
        pytest.param(None, "key_missing", id="A3 no key"),
        pytest.param(b"", "key_missing", id="A4 empty key"),
        pytest.param(b"card-2", "key_mismatch", id="A5 other key"),
        pytest.param(b"card-1 ", "key_mismatch", id="A5 key with a blank"),
        pytest.param(b'"card-1"', "key_mismatch", id="A5 key as JSON"),
        pytest.param(b"\xff\xfe", "key_mismatch", id="B19 key not UTF-8"),
        pytest.param(b"x" * 1_000_000, "key_mismatch", id="A6 key of a megabyte"),
        pytest.param(b"card-1", OK, id="A the card"),
    ],
)
def test_key_case(key: bytes | None, expected: str) -> None:
    """The key must be the card, byte for byte."""
    check(TRANSACTIONS.decode_one(GOOD, key), expected, 0.0)


def test_every_code_is_reached() -> None:
    """The cases reach every code but those of the key, of declared attributes and of repeated fields."""
    reached = {
        expected for cases in (*GROUPS.values(), LABEL_CASES, FEEDBACK_CASES) for _, _, expected in cases
    }
    assert set(CODES) - reached == {"key_missing", "attribute_missing", "invalid"}


VALID = [
    GOOD,
    tx(
        event_time=1_714_564_800_123,
        attributes={"V1": -1.5, "V2": 3},
        ip="192.0.2.1",
        country="de",
        mcc="0742",
    ),
    tx(merchant_id="caf\u00e9", note={"a": [1, 2, {"b": None}]}),
    label(revision=2),
    changed(FEEDBACK),
]


def mutate(value: bytes, other: bytes, generator: random.Random) -> bytes:
    """A valid message with a few bytes flipped, removed, repeated, or spliced with another."""
    data = bytearray(value)
    for _ in range(generator.randint(1, 4)):
        at = generator.randrange(len(data) or 1)
        match generator.randrange(5):
            case 0 if data:
                data[at] ^= 1 << generator.randrange(8)
            case 1:
                del data[at : at + generator.randint(1, 8)]
            case 2:
                data[at:at] = data[at : at + generator.randint(1, 16)]
            case 3:
                data = data[:at] + other[generator.randrange(len(other)) :]
            case _:
                data[at : at + 1] = generator.choice(
                    (b"\x00", b"\\u0000", b"9" * 30, b"[[", b'"', b"\xff", b"null", b"-")
                )
    return bytes(data)


def repeats_a_field(value: bytes) -> bool:
    def check_pairs(pairs: list[tuple[str, object]]) -> bool:
        return len(dict(pairs)) < len(pairs) or any(item is True for _, item in pairs)

    return bool(json.loads(value, object_pairs_hook=check_pairs))


def test_mutated_messages_are_decoded_or_rejected() -> None:
    """20,000 damaged messages give a record that survives a round trip, or a known rejection, each."""
    generator = random.Random(20_240_501)
    decoders: list[tuple[Decoder[Any, Any], type[Struct]]] = [
        (TRANSACTIONS, Transaction),
        (LABELS, Label),
        (FEEDBACKS, Feedback),
    ]
    codes = set()
    for number in range(20_000):
        value = mutate(VALID[number % len(VALID)], generator.choice(VALID), generator)
        decoder, kind = decoders[max(0, number % len(VALID) - 2)]
        result: Any = decoder.decode_one(value, b"card-1")
        if isinstance(result, Rejection):
            codes.add(result.code)
            letter = dead_letter(Source(value), result, "dead", stage="card")
            assert ("fraud-error-code", result.code.encode()) in letter.headers
            assert result.code in CODES
            assert result.code != "invalid" or repeats_a_field(value)
        else:
            assert isinstance(result, kind)
            assert decoder.decode_one(encode(result), b"card-1") == result
    assert len(codes) > 12


names = st.sampled_from(
    [*TRANSACTION, *LABEL, "attributes", "mcc", "country", "ip", "merchant_id", "note", "cvv"]
)
scalars = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(max_size=70)
    | st.sampled_from([*TRANSACTION.values(), *LABEL.values()])
)
documents = st.dictionaries(
    names, st.recursive(scalars, lambda inner: st.lists(inner) | st.dictionaries(names, inner), max_leaves=6)
)


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(documents)
@example({"attributes": {"a": float("nan")}})
@example({"country": "\u00df"})
def test_any_document_is_decoded_or_rejected(document: dict[str, object]) -> None:
    """JSON with our field names and any content gives a record or a known rejection, never an exception."""
    for base, decoder in ((TRANSACTION, TRANSACTIONS), (LABEL, LABELS), (FEEDBACK, FEEDBACKS)):
        result = decoder.decode_one(json.dumps({**base, **document}).encode(), b"card-1")
        assert not isinstance(result, Rejection) or (result.code in CODES and result.code != "invalid")
