"""What is to be moved: the versions of a model on the topic, as their documents describe them."""

from __future__ import annotations

from contextlib import aclosing

from models.registry import Pin
from models.snapshot_document import SnapshotError, SnapshotHeader, read_header
from streams.contract.model_records import is_withheld, key_of
from streams.errors import FraudstreamError, NoSuchModel
from streams.feature_settings import feature_spec
from streams.kafka.clients import read_all
from streams.keys import signing_key
from streams.settings import Settings

Evidence = dict[str, float | int | str | None]
"""Figures by name, as `models.registry.Move` holds them."""


class NotUsable(FraudstreamError):
    """Choose another version: this one would be refused by the workers."""


def pin_of(text: str) -> Pin:
    """`NAME` or `NAME/VERSION`.

    Raises:
        ValueError: it is neither.
    """
    name, slash, number = text.partition("/")
    if slash and not (number.isascii() and number.isdigit() and int(number)):
        raise ValueError("a version is a whole number from 1 on, for instance binned/12")
    return Pin(name, int(number) if slash else None)


async def read_documents(settings: Settings, name: str) -> dict[int, bytes]:
    """The versions of a model that are on the topic, by number, as they stand there."""
    found: dict[int, bytes] = {}
    async with aclosing(read_all(settings.broker, settings.topics.models)) as records:
        async for record in records:
            key = key_of(record.key)
            if key is None or key[0] != name:
                continue
            if record.value is None:
                found.pop(key[1], None)
            else:
                found[key[1]] = record.value
    return found


def newest(documents: dict[int, bytes], before: int | None = None) -> int:
    """The newest version that aliases follow to, among those below `before`; 0 if there is none."""
    below = (n for n in sorted(documents, reverse=True) if before is None or n < before)
    return next((n for n in below if not is_withheld(documents[n])), 0)


def meant(settings: Settings, pin: Pin, documents: dict[int, bytes]) -> int:
    """The version that a pin stands for now.

    Raises:
        NoSuchModel: there is none.
    """
    number = newest(documents) if pin.version is None else pin.version
    if number not in documents:
        raise NoSuchModel(
            f"no {pin} on {settings.topics.models}; `fraudstream models list` shows what there is"
        )
    return number


def described(settings: Settings, pin: Pin, documents: dict[int, bytes]) -> SnapshotHeader:
    """The version that a pin stands for now by its document: digest, signature and feature spec are checked,
    the scorer is not loaded.

    Raises:
        NoSuchModel: there is none.
        NotUsable: workers would refuse it.
    """
    number = meant(settings, pin, documents)
    try:
        return read_header(documents[number], feature_spec(settings).digest, signing_key(settings.models))
    except SnapshotError as error:
        raise not_usable(pin, number, error) from None


def not_usable(pin: Pin, number: int, error: SnapshotError) -> NotUsable:
    return NotUsable(f"{pin.name}/{number} cannot be used: {type(error).__name__}: {error}")


def evidence_of(header: SnapshotHeader) -> Evidence:
    """What a version says of itself, for the record of a move."""
    return {
        "version": header.version,
        "sha256": header.sha256,
        "learned": header.n_learned,
        "learned_until": header.created_at_event_time,
    }
