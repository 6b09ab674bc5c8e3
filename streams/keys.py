"""Secret keys in files, never in the settings themselves."""

from __future__ import annotations

from pathlib import Path

from streams.errors import SettingsError
from streams.sections import Models

#: Bytes; shorter than the digest of HMAC-SHA256 a key weakens it.
SHORTEST_KEY = 32


def checkpoint_key(models: Models) -> bytes:
    """The key that signs the learn stage's checkpoint; empty where none is configured.

    Raises:
        SettingsError: the file cannot be read or holds too little.
    """
    file = models.checkpoint_key_file
    return read_key("models.checkpoint_key_file", file) if file else b""


def signing_key(models: Models) -> bytes:
    """The key that signs model versions and moves; empty where none is configured.

    Raises:
        SettingsError: the file cannot be read or holds too little.
    """
    file = models.signing_key_file
    return read_key("models.signing_key_file", file) if file else b""


def read_key(setting: str, file: str) -> bytes:
    """The key in the file that a setting names.

    Raises:
        SettingsError: the file cannot be read or holds too little.
    """
    try:
        key = Path(file).read_bytes()
    except OSError as error:
        raise SettingsError(f"{setting}: cannot read {file}: {error.strerror}") from None
    if len(key) < SHORTEST_KEY:
        raise SettingsError(
            f"{setting}: {file} holds {len(key)} bytes, a key has {SHORTEST_KEY} or more: "
            f"`openssl rand -out {file} {SHORTEST_KEY}`"
        )
    return key
