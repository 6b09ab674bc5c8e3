"""Records of the models topic, as far as they are understood without loading a model."""

from __future__ import annotations

import msgspec

from models.snapshot_document import MAX_VERSION, NAME

_DIGITS = len(str(MAX_VERSION))


def model_key(name: str, version: int) -> bytes:
    """Key of a version on the models topic."""
    return f"{name}/{version}".encode()


def key_of(key: bytes | None) -> tuple[str, int] | None:
    """Name and version of a key on the models topic; None for a key of another form."""
    name, _, text = (key or b"").decode(errors="replace").rpartition("/")
    if NAME.fullmatch(name) is None or not (text.isascii() and text.isdigit() and len(text) <= _DIGITS):
        return None
    return (name, int(text)) if int(text) <= MAX_VERSION else None


class _Head(msgspec.Struct):
    """What is read of a document to know whether it is withheld."""

    withheld: str = ""


def is_withheld(document: bytes) -> bool:
    """Whether a version says that aliases do not follow to it; the document is not checked otherwise."""
    try:
        return bool(msgspec.json.decode(document, type=_Head).withheld)
    except msgspec.MsgspecError:
        return False
