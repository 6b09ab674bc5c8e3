"""Dead letters: original bytes, reasons in headers, redaction, sizes; and the limit."""

from __future__ import annotations

import json
import random
import time

import pytest

from streams.contract import cards
from streams.contract.cards import is_card_number, luhn, redact, redact_text
from streams.contract.dead_letters import DeadLetterLimit, attempt, dead_letter
from streams.contract.records import Rejection
from streams.errors import TooManyDeadLetters
from streams.kafka.outputs import Output
from tests.streams.sources import TRANSACTION, Source, changed

BAD = Rejection("bad_json", "not one JSON value")
CARD = Rejection("card_number", "a card number in place of a token", "card_id")
PAN = "4111111111111111"


def letter(source: Source, rejection: Rejection = BAD, max_bytes: int = 1_000_000) -> Output:
    return dead_letter(source, rejection, "fraud.dead-letters.v1", stage="card", max_bytes=max_bytes)


def card_number(generator: random.Random, length: int) -> str:
    """A number of a card network's range with its check digit."""
    start = {13: "4", 14: "36", 15: "34", 19: "62"}.get(length) or generator.choice(["4", "51", "2221", "60"])
    body = start + "".join(generator.choice("0123456789") for _ in range(length - 1 - len(start)))
    return next(body + digit for digit in "0123456789" if luhn(body + digit))


def test_original_bytes_partition_and_context() -> None:
    """A dead letter is the record as it came, on its partition, coordinates and reason in headers."""
    source = Source(b'{"x":\xff', b"\x00key", (("traceparent", b"00-ab"), ("traceparent", b"\xff")))
    output = letter(source, Rejection("field_type", "an integer in place of text", "mcc"))
    assert output.topic == "fraud.dead-letters.v1"
    assert output.partition == 2
    assert output.key == source.key
    assert output.value == source.value
    assert output.headers == (
        ("traceparent", b"00-ab"),
        ("traceparent", b"\xff"),
        ("__connect.errors.topic", b"fraud.transactions.v1"),
        ("__connect.errors.partition", b"2"),
        ("__connect.errors.offset", b"41"),
        ("__connect.errors.connector.name", b"fraudstream"),
        ("__connect.errors.stage", b"card"),
        ("__connect.errors.exception.class.name", b"field_type"),
        ("__connect.errors.exception.message", b"mcc: an integer in place of text"),
        ("fraud-error-code", b"field_type"),
        ("fraud-dlq-attempt", b"1"),
    )


def test_tombstone_without_key_stays_so() -> None:
    """Absent key and value stay absent."""
    output = letter(Source(None, None))
    assert output.key is None
    assert output.value is None


def test_redriven_record_counts_its_attempts() -> None:
    """A dead letter published again and refused again has one context, with the attempt counted up."""
    first = letter(Source(b"{", headers=(("a", b"b"),)))
    again = Source(first.value, first.key, first.headers, offset=99)
    assert attempt(again) == 1
    second = dict(letter(again).headers)
    assert second["fraud-dlq-attempt"] == b"2"
    assert second["__connect.errors.offset"] == b"99"
    assert len(letter(again).headers) == len(first.headers)
    for nonsense in (b"", b"x", b"-1", "²".encode(), b"9" * 50):
        assert attempt(Source(b"{", headers=(("fraud-dlq-attempt", nonsense),))) == 0


@pytest.mark.parametrize(
    "card",
    [PAN, "4111 1111 1111 1111", "4111-1111-1111-1111", "４１１１１１１１１１１１１１１１", "1111111111117"],
)
def test_refused_card_number_is_redacted_everywhere(card: str) -> None:
    """The card number that stood for a token is in no part of its dead letter, and a header says so."""
    if card.startswith("1"):
        card = next(card[:-1] + digit for digit in "0123456789" if luhn(card[:-1] + digit))
    assert is_card_number(card)
    value = changed(TRANSACTION, card_id=card, note=f"paid with {card}")
    output = letter(Source(value, card.encode(), (("x-card", card.encode()), (card, b""))), CARD)
    everything = repr((output.key, output.value, output.headers))
    assert card not in everything
    assert repr(card.encode())[2:-1] not in everything
    assert output.value is not None
    assert json.loads(output.value)["transaction_id"] == "tx-1"
    assert ("fraud-dlq-redacted", b"true") in output.headers


@pytest.mark.parametrize("padded", [" {}", "{}   ", "#{}", "{}|", "_{}_", "\ufeff{}", "({})\n", "**4111-{}"])
def test_a_card_number_with_signs_around_it_is_no_token(padded: str) -> None:
    """Spaces and signs before and after do not make a token of it; a wrong check digit or a letter does."""
    number = PAN if "4111-" not in padded else PAN[4:]
    assert is_card_number(padded.format(number))
    assert not is_card_number(padded.format(number[:-1] + "2"))
    assert not is_card_number(padded.format(number) + "x")
    assert not is_card_number("#" * 16)


@pytest.mark.parametrize(
    "value",
    [
        b'{"note":"\\u0034111111111111111"}',
        b'{"note":4111111111111111}',
        b'{"note":4111111111111111.0}',
        b'{"4111111111111111":1}',
        b'{"a":[{"b":["x 4111 1111 1111 1111 y"]}]}',
        b'{"note":"4111111111111111',
        b'{"note":"\\u0034111111111111111',
        b'{"note":"4111' + b"\\u0020" + b"1111\\u002d11111111",
        b'{"note":"' + b"".join(b"\\uff1%d" % int(digit) for digit in PAN) + b'"',
        b"\xff 4111.1111.1111.1111 \xfe",
        b"id-12-4111 1111 1111 1111",
        b"%B4111111111111111^DOE/J^2512",
        b"411111111111111125121010000012",
        PAN.encode("utf-16"),
        PAN.encode("utf-16-be"),
    ],
)
def test_card_numbers_are_found_however_written(value: bytes) -> None:
    """Escapes, numbers, keys, separators, broken JSON and other encodings hide no card number."""
    cleaned = redact(value)
    digits = cleaned.replace(b"\x00", b"")
    assert b"1111111111" not in digits
    assert b"1111 1111 1111" not in digits
    assert b"1111.1111.1111" not in digits
    assert b"[redacted]" in cleaned


def test_sensitive_fields_are_redacted() -> None:
    """Verification codes, track data and PINs leave no trace, in sound and in broken JSON."""
    sound = redact(
        b'{"cvv":"737","card":{"Track-2":"secret"},"pin":1234,"list":[{"CVC":{"a":"secret"}}],"keep":1}'
    )
    assert json.loads(sound) == {
        "cvv": "[redacted]",
        "card": {"Track-2": "[redacted]"},
        "pin": "[redacted]",
        "list": [{"CVC": "[redacted]"}],
        "keep": 1,
    }
    assert redact(b'{"\\u0063vv":"737", "x') == b'{"cvv":"[redacted]", "x'
    assert redact(b'{"\\u0063at":"\\u0031", "x') == b'{"\\u0063at":"\\u0031", "x'
    assert redact(b'{"cvv" : "7\\"37", "pin":1234, "x') == b'{"cvv" : "[redacted]", "pin":"[redacted]", "x'


def test_other_numbers_are_kept() -> None:
    """Epoch times, amounts and numbers that fail the check stay as they are, so do the bytes around them."""
    for value in (
        b'{ "event_time":1714564800123, "amount_minor":123456789012 }',
        b"4111111111111112",
        b"2024-05-01T12:00:00.123Z",
        b"\xff\x00\xfe" * 50,
        b"",
    ):
        assert redact(value) == value
    for at in range(1_714_564_800_000, 1_714_564_801_000):
        assert redact_text(f'"event_time":{at}') == f'"event_time":{at}'


def test_no_card_number_survives_in_10000() -> None:
    """10,000 card numbers in records refused for any reason leave no digits of theirs in dead letters."""
    generator = random.Random(7)
    for _ in range(10_000):
        pan = card_number(generator, generator.choice([13, 14, 15, 16, 16, 19]))
        written = generator.choice(
            [pan, " ".join(pan[i : i + 4] for i in range(0, len(pan), 4)), "-".join((pan[:6], pan[6:]))]
        )
        text = generator.choice(
            ["{}", "card {}.", '{{"note":"{}"}}', '{{"note":"x{}y', "[{}", "1 {}", "{} 12", "1234567890 {}"]
        )
        cleaned = redact(text.format(written).encode())
        assert written.encode() not in cleaned
        assert pan.encode() not in cleaned


@pytest.mark.parametrize(
    "value",
    [
        b"1 " * 32_000,
        b"1" * 65_000,
        (b"1 " * 95 + b"x") * 340,
        b"[1," * 20_000,
        b'"cvv":' * 10_000,
        b'\\"' * 30_000,
    ],
)
def test_redaction_takes_bounded_time(value: bytes) -> None:
    """No 64 kB value keeps the redaction busy for long."""
    start = time.perf_counter()
    redact(value)
    assert time.perf_counter() - start < 2.0


@pytest.mark.parametrize("part", ["1 " * 95 + "x", "4" * 199 + "x", "4111 1111 1111 111 " * 9 + "x"])
@pytest.mark.parametrize("form", ['{{"a":"{}"}}', "{}"])
def test_redaction_looks_at_no_more_of_a_large_value(
    part: str, form: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Beyond 64 KiB of digits it costs no more: what is not looked at is redacted."""
    looks = 0
    checks = cards._Digits.checks

    def counted(self: cards._Digits, start: int, end: int) -> bool:
        nonlocal looks
        looks += 1
        return checks(self, start, end)

    monkeypatch.setattr(cards._Digits, "checks", counted)
    costs = []
    for size in (60_000, 120_000, 960_000):
        looks = 0
        cleaned = redact(form.format(part * (size // len(part))).encode())
        costs.append(looks)
    assert costs[0] > 10_000
    assert costs[1] < 2 * costs[0]
    assert costs[2] == costs[1]
    unseen = cleaned.decode()[-len(part) * 100 :]
    assert sum(map(str.isdigit, unseen)) == 0


def test_redaction_spells_no_number_out(monkeypatch: pytest.MonkeyPatch) -> None:
    """Six characters such as 1e308 are more digits than any card number has; what is not finite is text."""
    searched: list[str] = []
    search = cards._Search.redact

    def noted(self: cards._Search, text: str) -> str:
        searched.append(text)
        return search(self, text)

    monkeypatch.setattr(cards._Search, "redact", noted)
    value = b"[" + b",".join([b"1e308", b"-1e300", b"4.111111111111111e15", b"1.5"] * 100) + b"]"
    assert redact(value).count(b"[redacted]") == 100
    assert sum(map(len, searched)) < 2 * len(value)
    assert redact(b'{"a":1e400,"card":"4111111111111111"}') == b'{"a":1e400,"card":"[redacted]"}'


def test_too_large_records_are_cut_to_fit() -> None:
    """Key, value and headers together stay below the broker's limit, and headers say what was cut."""
    source = Source(b"v" * 5_000, b"k" * 5_000, tuple((f"h{i}", b"x" * 50) for i in range(100)))
    output = letter(source, max_bytes=4_000)
    headers = dict(output.headers)
    assert headers["fraud-dlq-truncated"] == b"5000"
    assert headers["fraud-dlq-headers-dropped"] == b"100"
    assert headers["fraud-error-code"] == b"bad_json"
    size = len(output.key or b"") + len(output.value or b"")
    size += sum(len(name) + len(data) for name, data in output.headers)
    assert 3_000 < size <= 4_000


@pytest.mark.parametrize(
    "source",
    [
        Source(b'{"note":"' + b"4" * 20_000_000 + b'"}'),
        Source(b"{", b"4" * 20_000_000),
        Source(b"{", headers=(("x", b"4" * 20_000_000),)),
    ],
    ids=["value", "key", "header"],
)
def test_what_does_not_fit_is_cut_before_it_is_searched(source: Source) -> None:
    """A few compressed kilobytes of a producer can be as large as it likes here."""
    start = time.perf_counter()
    headers = dict(letter(source).headers)
    assert time.perf_counter() - start < 2.0
    said = {"fraud-dlq-truncated", "fraud-dlq-headers-dropped", "__connect.errors.key.length"}
    assert len(said & headers.keys()) == 1


def test_a_cut_leaves_no_piece_of_a_card_number() -> None:
    """The first fifteen digits of a number at the cut are as good as all: the last is computed from them."""
    for before in range(65_510, 65_540):
        value = letter(Source(b"x" * before + PAN.encode() + b"y" * 1_000_000)).value
        assert value is not None
        assert not any(digit in value for digit in b"0123456789")


def test_record_below_the_limit_is_whole() -> None:
    """A value is cut only when it would not fit."""
    output = letter(Source(b"v" * 900_000))
    assert output.value == b"v" * 900_000
    assert "fraud-dlq-truncated" not in dict(output.headers)


def test_limit_tolerates_few_and_scattered() -> None:
    """150 bad records alone, or 200 in a row among 300,000 good ones, stop nothing."""
    small = DeadLetterLimit()
    for _ in range(150):
        small.add(1, 1)
    large = DeadLetterLimit()
    for _ in range(150):
        large.add(1_000, 0)
    for _ in range(200):
        large.add(1, 1)
    for _ in range(150):
        large.add(1_000, 0)


def test_limit_stops_when_most_are_bad() -> None:
    """More than half of the last thousand records bad is an error, however much good came before."""
    limit = DeadLetterLimit()
    for _ in range(100):
        limit.add(2_000, 0)
    with pytest.raises(TooManyDeadLetters, match="of the last"):
        list(map(limit.add, [100] * 100, [60] * 100))


def test_limit_allows_its_ratio() -> None:
    """Exactly the ratio is still tolerated, and one batch may be enough to exceed it."""
    limit = DeadLetterLimit(ratio=0.5, window=1_000)
    limit.add(1_000, 500)
    limit.add(0, 0)
    with pytest.raises(TooManyDeadLetters):
        limit.add(5_000, 2_501)
