"""Every reason for refusing a record, with what to do about it.

The codes stand in the `fraud-error-code` header of dead letters and in metrics; they are never renamed.
`docs/records.md` lists the same table.
"""

from __future__ import annotations

CODES: dict[str, str] = {
    "value_empty": "Send a value; tombstones have no meaning on this topic.",
    "value_too_large": "Send less per record or raise input.max_value_bytes.",
    "compressed": "Send plain JSON; let the Kafka producer compress (compression.type).",
    "confluent_framed": "Send plain JSON without the schema registry's five-byte prefix.",
    "bad_encoding": "Encode the value as UTF-8 without a byte order mark.",
    "bad_json": "Send one JSON object with standard syntax, without NaN, Infinity or unpaired surrogates.",
    "not_an_object": "Send a JSON object at the top level.",
    "too_deep": "Nest objects and lists at most 32 deep.",
    "too_many_fields": "Send at most 256 fields and at most 256 attributes.",
    "number_out_of_range": "Send numbers that fit a 64-bit integer or a finite double.",
    "field_missing": "Send the required field with a value.",
    "field_type": "Send the field with the JSON type given in its description.",
    "field_length": "Send text of 1 to 64 characters.",
    "field_characters": "Send printable text: no control, format or line separator characters.",
    "field_range": "Send a number within the range given in the field's description.",
    "field_format": "Send the field in the format given in its description.",
    "time_format": "Send RFC 3339 with an explicit zone, or integer epoch milliseconds.",
    "time_range": "Send epoch milliseconds between the years 2000 and 2100, no other unit.",
    "currency_unknown": "Send a current ISO 4217 code of a currency with minor units.",
    "attribute_missing": "Send every attribute the feature spec declares.",
    "key_missing": "Publish with the card_id as the record key.",
    "key_mismatch": "Publish with the card_id as the record key: key and card_id differ.",
    "card_number": "Send a token as card_id, never a card number.",
    "sensitive_field": "Never send verification codes, track data or PINs.",
    "invalid": "Send every field once: given twice, the last one counts but all must be valid.",
}
"""Code of a rejection -> what the producer of the record should do."""
