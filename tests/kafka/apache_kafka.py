"""One node of real Apache Kafka 4 in KRaft mode, from Maven artefacts: no Docker, no download page.

As a library::

    with ApacheKafka() as kafka:
        client = Producer({"bootstrap.servers": kafka.bootstrap})

As a broker in the foreground, until interrupted::

    python -m tests.kafka.apache_kafka --port 9092

Needs Java 17 or newer, and Maven for the first resolution. The jars are kept in a cache directory named after
the pom's digest, so later starts need no network.
"""

from __future__ import annotations

import argparse
import contextlib
import ctypes
import hashlib
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import uuid
from base64 import urlsafe_b64encode
from collections.abc import Callable, Mapping
from pathlib import Path
from types import TracebackType
from typing import Self

POM = Path(__file__).with_name("pom.xml")
PR_SET_PDEATHSIG = 1  # from linux/prctl.h
START_TIMEOUT_S = 60.0
STOP_TIMEOUT_S = 20.0


class KafkaUnavailable(RuntimeError):
    """Java or Maven is missing, or the artefacts could not be resolved."""


class KafkaFailed(RuntimeError):
    """The broker ended or did not become ready; the message holds the end of its log."""


def cache_dir() -> Path:
    """Where resolved jars are kept: below XDG_CACHE_HOME, else ~/.cache."""
    base = os.environ.get("XDG_CACHE_HOME") or str(Path.home() / ".cache")
    return Path(base) / "fraudstream"


def resolve_jars() -> Path:
    """The directory with the broker's jars, resolved with Maven once per content of the pom.

    Raises:
        KafkaUnavailable: Maven is missing or cannot resolve the artefacts.
    """
    digest = hashlib.sha256(POM.read_bytes()).hexdigest()[:12]
    jars = cache_dir() / f"apache-kafka-{digest}"
    if jars.is_dir():
        return jars
    maven = shutil.which("mvn")
    if maven is None:
        raise KafkaUnavailable("mvn is not on PATH; Apache Kafka is resolved as Maven artefacts")
    jars.parent.mkdir(parents=True, exist_ok=True)
    # Resolve beside the final place and rename, so that two processes never see half a directory.
    partial = Path(tempfile.mkdtemp(prefix=f"{jars.name}.", dir=jars.parent))
    command = [maven, "-q", "-B", "-f", str(POM), "dependency:copy-dependencies"]
    command += ["-DincludeScope=runtime", f"-DoutputDirectory={partial}"]
    done = subprocess.run(command, capture_output=True, text=True, stdin=subprocess.DEVNULL, check=False)
    if done.returncode != 0:
        shutil.rmtree(partial, ignore_errors=True)
        said = (done.stdout + done.stderr)[-2000:]
        raise KafkaUnavailable(f"Maven could not resolve Apache Kafka:\n{said}")
    try:
        partial.rename(jars)
    except OSError:  # another process was first
        shutil.rmtree(partial, ignore_errors=True)
    return jars


def die_with_parent() -> Callable[[], None] | None:
    """What the child runs before Java: on Linux it is killed when the thread that started it is gone.

    pytest-timeout ends the whole process at once, and no broker may outlive that. Elsewhere nothing.
    """
    if sys.platform != "linux":
        return None
    prctl = ctypes.CDLL(None).prctl  # looked up here: after the fork as little as possible may happen

    def arrange() -> None:
        prctl(PR_SET_PDEATHSIG, signal.SIGKILL)

    return arrange


def free_port() -> int:
    """A TCP port on 127.0.0.1 that was free a moment ago."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def server_properties(port: int, controller_port: int, log_dir: Path) -> dict[str, str]:
    """Settings of a single broker and controller on 127.0.0.1, one replica of everything."""
    listeners = f"PLAINTEXT://127.0.0.1:{port}"
    return {
        "process.roles": "broker,controller",
        "node.id": "1",
        "controller.quorum.voters": f"1@127.0.0.1:{controller_port}",
        "listeners": f"{listeners},CONTROLLER://127.0.0.1:{controller_port}",
        "advertised.listeners": listeners,
        "listener.security.protocol.map": "PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT",
        "inter.broker.listener.name": "PLAINTEXT",
        "controller.listener.names": "CONTROLLER",
        "log.dirs": str(log_dir),
        "auto.create.topics.enable": "false",
        "num.partitions": "1",
        "default.replication.factor": "1",
        "min.insync.replicas": "1",
        "offsets.topic.replication.factor": "1",
        "offsets.topic.num.partitions": "4",
        "transaction.state.log.replication.factor": "1",
        "transaction.state.log.min.isr": "1",
        "transaction.state.log.num.partitions": "4",
        "share.coordinator.state.topic.replication.factor": "1",
        "share.coordinator.state.topic.min.isr": "1",
        "group.initial.rebalance.delay.ms": "0",
        "group.min.session.timeout.ms": "1000",
        # A killed broker is let in again when the session of its former life has run out (9 s by default).
        "broker.heartbeat.interval.ms": "500",
        "broker.session.timeout.ms": "2000",
        # Compaction at once, so that tests can wait for it.
        "log.cleaner.backoff.ms": "500",
        "num.network.threads": "2",
        "num.io.threads": "4",
    }


class ApacheKafka:
    """A broker of its own: own ports, own temporary directory, ended with the object.

    Args:
        port: port of the client listener; a free one by default. The same port is kept over `restart`.
        heap_mb: size of the Java heap.
        settings: server properties that replace or extend `server_properties`.
    """

    def __init__(
        self, port: int | None = None, *, heap_mb: int = 384, settings: Mapping[str, str] | None = None
    ) -> None:
        self.port = port or free_port()
        self.heap_mb = heap_mb
        self.settings = dict(settings or {})
        self._directory: Path | None = None
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def bootstrap(self) -> str:
        """`host:port` for clients."""
        return f"127.0.0.1:{self.port}"

    @property
    def pid(self) -> int | None:
        """Process id of the running broker."""
        return self._process.pid if self._process else None

    def start(self) -> Self:
        """Start the broker and return when it answers on its client port.

        Raises:
            KafkaUnavailable: no Java or no jars.
            KafkaFailed: it ended or was not ready within `START_TIMEOUT_S`.
        """
        jars = resolve_jars()
        if shutil.which("java") is None:
            raise KafkaUnavailable("java is not on PATH; Apache Kafka 4 needs Java 17 or newer")
        if self._directory is None:
            directory = Path(tempfile.mkdtemp(prefix="fraudstream-kafka-"))
            try:
                self._format(jars, directory)
            except BaseException:
                shutil.rmtree(directory, ignore_errors=True)
                raise
            self._directory = directory
        log = (self._directory / "broker.log").open("ab")
        with log:
            self._process = subprocess.Popen(
                [*self._java(jars), "kafka.Kafka", str(self._directory / "server.properties")],
                stdout=log,
                stderr=subprocess.STDOUT,
                stdin=subprocess.DEVNULL,
                preexec_fn=die_with_parent(),
                start_new_session=True,  # Ctrl-C at the terminal reaches us; we then stop the broker in order
            )
        try:
            self._wait_until_ready()
        except BaseException:
            self.kill()
            raise
        return self

    def stop(self) -> None:
        """Stop in order and remove the data."""
        self._end(signal.SIGTERM)
        if self._directory is not None:
            shutil.rmtree(self._directory, ignore_errors=True)
            self._directory = None

    def kill(self) -> None:
        """End at once, as a power cut would; the data stay for `start`."""
        self._end(signal.SIGKILL)

    def restart(self) -> Self:
        """Stop in order and start again on the same port and the same data."""
        self._end(signal.SIGTERM)
        return self.start()

    def log_tail(self, lines: int = 40) -> str:
        """The end of the broker's own log."""
        if self._directory is None:
            return ""
        with contextlib.suppress(FileNotFoundError):
            text = (self._directory / "broker.log").read_text(errors="replace")
            return "\n".join(text.splitlines()[-lines:])
        return ""

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def _java(self, jars: Path) -> list[str]:
        return [
            "java",
            f"-Xms{self.heap_mb}m",
            f"-Xmx{self.heap_mb}m",
            "-XX:+UseSerialGC",  # a concurrent collector would take the few cores from the clients
            "-Djava.awt.headless=true",
            "-Dorg.slf4j.simpleLogger.defaultLogLevel=warn",
            "-Dorg.slf4j.simpleLogger.showDateTime=true",
            "-cp",
            f"{jars}/*",
        ]

    def _format(self, jars: Path, directory: Path) -> None:
        properties = server_properties(self.port, free_port(), directory / "data") | self.settings
        file = directory / "server.properties"
        file.write_text("".join(f"{name}={value}\n" for name, value in properties.items()))
        cluster = urlsafe_b64encode(uuid.uuid4().bytes).decode().rstrip("=")
        command = [*self._java(jars), "kafka.tools.StorageTool", "format"]
        command += [f"--cluster-id={cluster}", "--config", str(file)]  # the id may begin with a dash
        done = subprocess.run(command, capture_output=True, text=True, stdin=subprocess.DEVNULL, check=False)
        if done.returncode != 0:
            raise KafkaFailed(f"formatting the log directory failed:\n{done.stdout}{done.stderr}")

    def _wait_until_ready(self) -> None:
        assert self._process is not None
        deadline = time.monotonic() + START_TIMEOUT_S
        while time.monotonic() < deadline:
            if self._process.poll() is not None:
                raise KafkaFailed(f"the broker ended with {self._process.returncode}:\n{self.log_tail()}")
            # The port opens only after the broker is registered and unfenced, so a connection means ready.
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", self.port), 0.2):
                return
            time.sleep(0.05)
        raise KafkaFailed(f"the broker was not ready after {START_TIMEOUT_S:.0f} s:\n{self.log_tail()}")

    def _end(self, how: signal.Signals) -> None:
        process, self._process = self._process, None
        if process is None:
            return
        process.send_signal(how)
        try:
            process.wait(STOP_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def main() -> int:
    """Run a broker in the foreground until SIGINT or SIGTERM."""
    parser = argparse.ArgumentParser(prog="python -m tests.kafka.apache_kafka", description=main.__doc__)
    parser.add_argument("--port", type=int, default=None, help="client port (a free one by default)")
    parser.add_argument("--heap", type=int, default=512, help="Java heap in MB")
    parser.add_argument("--resolve", action="store_true", help="only resolve the jars, print where")
    options = parser.parse_args()
    if options.resolve:
        print(resolve_jars())
        return 0
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    with ApacheKafka(options.port, heap_mb=options.heap) as kafka:
        print(kafka.bootstrap, flush=True)
        with contextlib.suppress(KeyboardInterrupt):
            signal.pause()
    return 0


if __name__ == "__main__":
    sys.exit(main())
