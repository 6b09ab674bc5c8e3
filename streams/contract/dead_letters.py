"""Dead letters: what could not be used, as it came, with the reason in headers; and when to stop instead.

Key, value and headers are the original bytes, on the partition number of the source, so that a dead
letter can be published again as it is. Three exceptions, each told by a header: card numbers,
verification codes, track data and PINs are redacted (`fraud-dlq-redacted`), a value too large for the
broker is cut (`fraud-dlq-truncated`: its length before), and headers too large are left out
(`fraud-dlq-headers-dropped`: their number).

The error context uses the names of Kafka Connect, which existing tools read, without payload or stack trace.
"""

from __future__ import annotations

from collections import deque

import msgspec

from streams.contract.cards import redact
from streams.contract.records import Rejection
from streams.errors import TooManyDeadLetters
from streams.kafka.batches import Record
from streams.kafka.outputs import Output

CONNECT = "__connect.errors."
ERROR_CODE = "fraud-error-code"
ATTEMPT = "fraud-dlq-attempt"
REDACTED = "fraud-dlq-redacted"
TRUNCATED = "fraud-dlq-truncated"
HEADERS_DROPPED = "fraud-dlq-headers-dropped"

_CONTEXT = (CONNECT, ERROR_CODE, REDACTED, TRUNCATED, HEADERS_DROPPED, ATTEMPT)
_HEADER_SHARE = 4
_KEPT_OF_CUT = 65_536
"""Of a value too large for the broker: enough to tell what it was. It cannot be published again anyway."""
_DIGITS_AT_END = b"0123456789 \t./_-"


def dead_letter(
    source: Record,
    rejection: Rejection,
    topic: str,
    *,
    stage: str,
    max_bytes: int = 1_000_000,
) -> Output:
    """The record to send to the dead-letter topic for a refused one.

    Args:
        source: the refused record.
        rejection: why it was refused.
        topic: name of the dead-letter topic; it has as many partitions as the source.
        stage: the stage that refused it.
        max_bytes: largest sum of key, value and headers the broker takes (Kafka's default limit is 1 MiB).
    """
    known = _card_in(source) if rejection.code == "card_number" else ()
    share = max_bytes // _HEADER_SHARE
    original = [(name, data or b"") for name, data in source.headers]
    kept = [(name, data) for name, data in original if not name.startswith(_CONTEXT)]
    dropped = len(kept) if _size(kept) > share else 0
    kept = [] if dropped else kept
    # Cut before it is searched: a producer that compresses gets far more past the broker than fits back.
    raw_key = _start(source.key, share, share)
    raw_value = _start(source.value, max_bytes, min(_KEPT_OF_CUT, max_bytes))
    headers = [(redact(name.encode(), known).decode(), redact(data, known)) for name, data in kept]
    key = None if raw_key is None else redact(raw_key, known)
    value = None if raw_value is None else redact(raw_value, known)
    redacted = key != raw_key or value != raw_value or headers != kept

    message = f"{rejection.field}: {rejection.message}" if rejection.field else rejection.message
    context = [
        (CONNECT + "topic", source.topic.encode()),
        (CONNECT + "partition", b"%d" % source.partition),
        (CONNECT + "offset", b"%d" % source.offset),
        (CONNECT + "connector.name", b"fraudstream"),
        (CONNECT + "stage", stage.encode()),
        (CONNECT + "exception.class.name", rejection.code.encode()),
        (CONNECT + "exception.message", message.encode()),
        (ERROR_CODE, rejection.code.encode()),
        (ATTEMPT, b"%d" % (attempt(source) + 1)),
    ]
    if redacted:
        context.append((REDACTED, b"true"))
    if dropped or _size(headers) > share:
        context.append((HEADERS_DROPPED, b"%d" % (dropped or len(headers))))
        headers = []
    if source.key is not None and key is not None and (len(source.key) > share or len(key) > share):
        context.append((CONNECT + "key.length", b"%d" % len(source.key)))
        key = key[:share]
    room = max_bytes - _size(headers) - _size(context) - len(key or b"") - 64
    if source.value is not None and value is not None and max(len(source.value), len(value)) > room:
        context.append((TRUNCATED, b"%d" % len(source.value)))
        value = value[:room]
    return Output(topic, source.partition, key, value, (*headers, *context))


def attempt(source: Record) -> int:
    """How many times a record has been dead-lettered before; 0 without a readable header."""
    for name, data in source.headers:
        if name == ATTEMPT and data is not None and data.isdigit() and len(data) < 10:
            return int(data)
    return 0


def _start(data: bytes | None, limit: int, kept: int) -> bytes | None:
    """What is longer than `limit` cut to `kept` bytes, and not within a number: its rest would go unseen."""
    return data if data is None or len(data) <= limit else data[:kept].rstrip(_DIGITS_AT_END)


def _card_in(source: Record) -> tuple[str, ...]:
    """The card number that stands where the token should, whatever its digits look like."""
    try:
        document = msgspec.json.decode(source.value or b"")
    except (msgspec.DecodeError, ValueError, RecursionError):
        return ()
    card = document.get("card_id") if isinstance(document, dict) else None
    return (card,) if isinstance(card, str) and card else ()


def _size(headers: list[tuple[str, bytes]]) -> int:
    return sum(len(name.encode()) + len(data) + 10 for name, data in headers)


class DeadLetterLimit:
    """Stops where most records are bad: then the producer is at fault, or this configuration.

    A burst of bad records among good ones never reaches it, nor does a small number of records of any kind.

    Args:
        ratio: the largest share of dead letters among the last records.
        window: over at least how many records the share is taken.
    """

    def __init__(self, ratio: float = 0.5, window: int = 10_000) -> None:
        self.ratio = ratio
        self.window = window
        self._batches: deque[tuple[int, int]] = deque()
        self._total = 0
        self._bad = 0

    def add(self, total: int, bad: int) -> None:
        """Counts a batch of `total` records, `bad` of them dead letters.

        Raises:
            TooManyDeadLetters: when more than `ratio` of at least `window` records were bad.
        """
        self._batches.append((total, bad))
        self._total += total
        self._bad += bad
        while self._total - self._batches[0][0] >= self.window:
            oldest_total, oldest_bad = self._batches.popleft()
            self._total -= oldest_total
            self._bad -= oldest_bad
        if self._total >= self.window and self._bad > self.ratio * self._total:
            raise TooManyDeadLetters(
                f"{self._bad} of the last {self._total} records could not be used; "
                "their reasons stand in the fraud-error-code headers of the dead letters"
            )
