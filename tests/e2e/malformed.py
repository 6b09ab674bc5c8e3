"""Records that cannot be transactions, and the error code of each one's dead letter."""

from __future__ import annotations

GOOD = (
    b'{"transaction_id":"x","card_id":"c","terminal_id":"t","event_time":1735700000000,'
    b'"amount_minor":1,"currency":"EUR"}'
)
BAD = {
    b"\xff\xfe{": "bad_encoding",
    GOOD[:-1]: "bad_json",
    b"[1]": "not_an_object",
    GOOD.replace(b'"amount_minor":1,', b""): "field_missing",
    GOOD.replace(b":1,", b':"1",'): "field_type",
    GOOD.replace(b'"c"', b'"4111111111111111"'): "card_number",
}
