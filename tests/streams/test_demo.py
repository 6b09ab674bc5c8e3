"""What the demo says while there is nothing to see yet."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator
from typing import Any

import pytest

from streams import demo
from streams.settings import load


def test_a_demo_says_at_once_what_it_waits_for(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, capsys: pytest.CaptureFixture[str]
) -> None:
    """Before the broker starts, and when the workers are ready; nothing of it on stdout."""
    caplog.set_level(logging.INFO)
    said: dict[str, list[str]] = {}

    def note(moment: str) -> None:
        said[moment] = [record.getMessage() for record in caplog.records]

    class NoBroker:
        address = "127.0.0.1:1"

        def __enter__(self) -> NoBroker:
            note("broker")
            return self

        def __exit__(self, *_: object) -> None:
            pass

    @contextlib.asynccontextmanager
    async def workers(*_: object) -> AsyncIterator[list[str]]:
        yield ["http://127.0.0.1:2"]

    async def nothing(*_: object) -> None:
        note("stream")

    def summed(*_: object) -> dict[str, Any]:
        return {}

    monkeypatch.setattr(demo, "EmbeddedBroker", NoBroker)
    monkeypatch.setattr(demo, "create_topics", nothing)
    monkeypatch.setattr(demo, "_workers", workers)
    monkeypatch.setattr(demo, "_stream", nothing)
    monkeypatch.setattr(demo, "_counters", summed)
    monkeypatch.setattr(demo, "summary", summed)
    asyncio.run(demo.run(load(environ={}), [], total=None, rate=0, label_delay=None))
    assert "compile" in said["broker"][0]
    assert [text for text in said["stream"] if text.startswith("workers are ready after")]
    assert capsys.readouterr().out == ""
