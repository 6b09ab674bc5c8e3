"""Decoding of batches, encoding of records, hashing of ids."""

from __future__ import annotations

import json

import msgspec
import pytest
from aiokafka.structs import ConsumerRecord

from streams.contract.codecs import LabelDecoder, TransactionDecoder, encode
from streams.contract.currencies import CANONICAL, EXPONENTS
from streams.contract.records import (
    Alert,
    Label,
    ModelRef,
    Reason,
    Rejection,
    Score,
    ShadowScore,
    Transaction,
    alert_of,
)
from streams.kafka.batches import Record
from streams.times import duration_ms, duration_text, rfc3339
from tests.streams.sources import LABEL, TRANSACTION, Source, changed

SCORE = Score(
    transaction_id="tx-1",
    card_id="card-1",
    terminal_id="t-1",
    event_time=1_714_564_800_123,
    scored_at=1_714_564_800_130,
    amount_minor=1234,
    currency="EUR",
    score=0.25,
    threshold=0.5,
    alert=False,
    arm="champion",
    model=ModelRef("logistic", 3),
    shadows=[ShadowScore("forest", 2, 0.125)],
    features=[1.0, 0.1, -3.5],
    spec="5pec",
    config="c0nf16",
)


def test_batch_keeps_rows_and_counts_unknown_fields() -> None:
    """Every row of a batch is either a record at its row or a rejection at its row."""
    batch: list[Record] = [
        Source(changed(TRANSACTION, transaction_id="a")),
        Source(b"{"),
        Source(changed(TRANSACTION, transaction_id="b", shop=1, till=2)),
        Source(None),
        Source(changed(TRANSACTION), key=None),
        Source(changed(TRANSACTION, transaction_id="c", shop=1)),
        Source(changed(TRANSACTION, shop=1), key=b"other"),
    ]
    decoded = TransactionDecoder().decode(batch)
    assert [each.transaction_id for each in decoded.records] == ["a", "b", "c"]
    assert decoded.rows == [0, 2, 5]
    assert [(each.row, each.rejection.code) for each in decoded.rejected] == [
        (1, "bad_json"),
        (3, "value_empty"),
        (4, "key_missing"),
        (6, "key_mismatch"),
    ]
    assert decoded.unknown_fields == 3


def test_consumer_records_of_aiokafka_are_decoded() -> None:
    """The decoder reads what aiokafka's consumer delivers."""
    value = changed(LABEL)
    source: Record = ConsumerRecord(
        topic="t",
        partition=0,
        offset=0,
        timestamp=0,
        timestamp_type=0,
        key=b"card-1",
        value=value,
        checksum=None,
        serialized_key_size=6,
        serialized_value_size=len(value),
        headers=(),
    )
    assert LabelDecoder().decode([source]).records == [
        Label("tx-1", "card-1", True, "chargeback", 1_714_564_800_123, 0)
    ]


def test_transaction_is_normalised() -> None:
    """Times become epoch milliseconds rounded down, currency and country upper case, null absent."""
    value = changed(
        TRANSACTION,
        event_time="2024-05-01T14:00:00.1239+02:00",
        currency="kwd",
        country="de",
        mcc="0742",
        ip=None,
        attributes={"V1": 1},
    )
    assert TransactionDecoder(["V1"]).decode_one(value, b"card-1") == Transaction(
        transaction_id="tx-1",
        card_id="card-1",
        event_time=1_714_564_800_123,
        amount_minor=1234,
        currency="KWD",
        terminal_id="t-1",
        mcc="0742",
        country="DE",
        attributes={"V1": 1.0},
    )


def test_unknown_fields_change_nothing_but_the_count() -> None:
    """The second look at a record with unknown fields gives what the first would have given without them."""
    decoder = TransactionDecoder()
    plain = decoder.decode_one(changed(TRANSACTION, mcc="5411"), b"card-1")
    assert isinstance(plain, Transaction)
    assert decoder.decode_one(changed(TRANSACTION, mcc="5411", shop={"a": [1]}), b"card-1") == plain


def test_declared_attributes_are_required() -> None:
    """An attribute of the feature spec that a transaction lacks is named; more may be sent."""
    decoder = TransactionDecoder(["V1", "V2"])
    missing = decoder.decode_one(changed(TRANSACTION, attributes={"V1": 0.0, "V3": 0.0}), b"card-1")
    assert missing == Rejection("attribute_missing", "V2 is declared by the feature spec", "attributes")
    more = decoder.decode_one(changed(TRANSACTION, attributes={"V1": 0, "V2": 0, "V3": 0}), b"card-1")
    assert isinstance(more, Transaction)


def test_sensitive_attribute_cannot_be_declared() -> None:
    """A feature spec cannot ask for a verification code."""
    with pytest.raises(ValueError, match="verification code"):
        TransactionDecoder(["CVV"])


def test_terminal_may_be_absent_when_no_entity_needs_it() -> None:
    """Without a terminal entity a transaction needs no terminal, and a given one must still be sound."""
    decoder = TransactionDecoder(terminal_required=False)
    absent = decoder.decode_one(changed(TRANSACTION, terminal_id=...), b"card-1")
    assert isinstance(absent, Transaction)
    assert absent.terminal_id == ""
    empty = decoder.decode_one(changed(TRANSACTION, terminal_id=""), b"card-1")
    assert isinstance(empty, Rejection)
    assert empty.code == "field_length"


@pytest.mark.parametrize(
    ("time", "hint"),
    [
        (1_714_564_800, "epoch seconds"),
        (1_714_564_800_123_000, "epoch microseconds"),
        (1_714_564_800_123_000_000, "epoch nanoseconds"),
        (10**30, "outside the years 2000 to 2100"),
    ],
)
def test_wrong_time_unit_is_named(time: int, hint: str) -> None:
    """A time in another unit is refused with the unit it seems to have."""
    rejection = TransactionDecoder().decode_one(changed(TRANSACTION, event_time=time), b"card-1")
    assert isinstance(rejection, Rejection)
    assert hint in rejection.message


def test_messages_hold_no_payload() -> None:
    """No rejection quotes what was sent."""
    secret = "4111111111111111"
    for name in TRANSACTION:
        for item in (secret, [secret], {secret: secret}, int(secret), secret * 10):
            value = changed(TRANSACTION, **{name: item})
            rejection = TransactionDecoder([]).decode_one(value, b"card-1")
            if isinstance(rejection, Rejection):
                assert secret not in f"{rejection.message}{rejection.field}"


def test_score_is_encoded_in_declared_order() -> None:
    """A score is the JSON of the contract, fields in order, floats that read back to the same double."""
    value = encode(SCORE)
    assert list(json.loads(value)) == list(Score.__struct_fields__)
    assert json.loads(value)["model"] == {"name": "logistic", "version": 3}
    assert msgspec.json.decode(value, type=Score) == SCORE


def test_alert_is_the_score_without_features() -> None:
    """An alert carries every field of its score but the features, and its id and reasons."""
    alert = alert_of(SCORE, "a-1", [Reason("amount", 12.5, 0.75)])
    plain, of_score = json.loads(encode(alert)), json.loads(encode(SCORE))
    assert plain.pop("alert_id") == "a-1"
    assert plain.pop("reasons") == [{"feature": "amount", "value": 12.5, "contribution": 0.75}]
    del of_score["features"]
    assert plain == of_score
    assert msgspec.json.decode(encode(alert), type=Alert) == alert


def test_transactions_are_encoded_without_what_is_absent() -> None:
    """A transaction encodes to what its decoder reads back, without nulls."""
    transaction = Transaction("tx-1", "card-1", 1_714_564_800_123, 5, "JPY", mcc="5411")
    value = encode(transaction)
    assert b"null" not in value
    assert TransactionDecoder(terminal_required=False).decode_one(value, b"card-1") == transaction


def test_currency_table() -> None:
    """Codes are three capitals with 0, 2 or 3 digits; the exceptions are in it, non-currencies are not."""
    assert all(len(code) == 3 and code.isascii() and code.isupper() for code in EXPONENTS)
    assert set(EXPONENTS.values()) == {0, 2, 3}
    assert [EXPONENTS[code] for code in ("EUR", "JPY", "KRW", "KWD", "BHD", "ISK")] == [2, 0, 0, 3, 3, 0]
    assert not {"XXX", "XTS", "XAU", "CHE", "CLF", "UYW"} & CANONICAL.keys()
    assert CANONICAL["eur"] == CANONICAL["EUR"] == "EUR"


def test_times_and_durations_are_written_as_read() -> None:
    """Durations survive a round trip as text; times are written with milliseconds and Z."""
    for duration in (0, 1, 250, 90_000, 5_400_000, 7 * 86_400_000, 86_400_001):
        assert duration_ms(duration_text(duration)) == duration
    assert rfc3339(1_714_564_800_123) == "2024-05-01T12:00:00.123Z"
    for text in ("", "7", "7 days", "-1h", "1.5h", "h", "1hx"):
        with pytest.raises(ValueError, match="units"):
            duration_ms(text)
