"""A deployment seen from outside: worker processes, a foreign producer and a foreign reader (librdkafka).

Nothing here imports the project; workers are started as a user starts them.
"""

from __future__ import annotations

import hashlib
import json
import os
import signal
import socket
import struct
import subprocess
import sys
import time
import urllib.request
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import xxhash
from aiokafka import AIOKafkaProducer
from aiokafka.record.util import calc_crc32c
from confluent_kafka import OFFSET_BEGINNING, Consumer, Producer, TopicPartition

ROOT = Path(__file__).resolve().parents[2]
PARTITIONS = 4
TOPICS = (
    "transactions",
    "labels",
    "feedback",
    "scores",
    "alerts",
    "dead_letters",
    "models",
    "control",
    "metrics",
)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def until(condition: Callable[[], object], *, seconds: float, what: str) -> None:
    """Wait for `condition`; the end of the time is an error that says `what` was waited for."""
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            raise AssertionError(f"not within {seconds:g} s: {what}")
        time.sleep(0.02)


class Worker:
    """A worker process; its log is kept for the report of a failure."""

    def __init__(self, config: Path, log: Path, failpoint: str, stages: str) -> None:
        self.port = free_port()
        self._log = log
        #: False for one that will be killed, or kills itself
        self.lasting = not failpoint
        environment = {name: value for name, value in os.environ.items() if not name.startswith("FRAUD")}
        if failpoint:
            environment["FRAUDSTREAM_FAILPOINT"] = failpoint
        command = [sys.executable, "-m", "streams.cli", "worker", "--config", str(config)]
        with log.open("ab") as output:
            self.process = subprocess.Popen(
                [*command, "--metrics-port", str(self.port), *(("--stages", stages) if stages else ())],
                cwd=ROOT, env=environment, stdout=output, stderr=output, stdin=subprocess.DEVNULL,
            )  # fmt: skip

    @property
    def alive(self) -> bool:
        return self.process.poll() is None

    @property
    def ready(self) -> bool:
        if not self.alive:
            raise AssertionError(f"the worker ended with {self.process.returncode}:\n{self.log()}")
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{self.port}/readyz", timeout=2) as answer:
                return bool(answer.status == 200)
        except OSError:
            return False

    def metrics(self) -> str:
        with urllib.request.urlopen(f"http://127.0.0.1:{self.port}/metrics", timeout=5) as answer:
            return str(answer.read().decode())

    def log(self) -> str:
        return self._log.read_text(errors="replace")[-4000:]

    def kill(self) -> None:
        self.lasting = False
        self.process.kill()
        self.process.wait()

    def stop(self, seconds: float = 20) -> int:
        """SIGTERM; the exit code."""
        self.lasting = False
        self.process.send_signal(signal.SIGTERM)
        try:
            return self.process.wait(seconds)
        except subprocess.TimeoutExpired:
            self.kill()
            raise AssertionError(f"the worker did not stop within {seconds:g} s:\n{self.log()}") from None


@dataclass
class Seen:
    """What has come out so far, by transaction."""

    scores: dict[str, list[dict[str, Any]]] = field(default_factory=dict)
    alerts: list[dict[str, Any]] = field(default_factory=list)
    dead: list[tuple[bytes | None, dict[str, bytes]]] = field(default_factory=list)
    versions: dict[str, set[int]] = field(default_factory=dict)
    #: the documents of every version, by name and number
    documents: dict[tuple[str, int], set[bytes]] = field(default_factory=dict)

    @property
    def published(self) -> int:
        return sum(len(each) for each in self.scores.values())

    def digest(self) -> str:
        """The feature digest of the contract, from score records alone."""
        total = 0
        for transaction, records in self.scores.items():
            features = records[0]["features"]
            row = struct.pack(f"<{len(features)}d", *features)
            total += xxhash.xxh3_128_intdigest(transaction.encode() + b"\0" + row)
        return hashlib.sha256((total % 2**128).to_bytes(16, "big")).hexdigest()[:32]

    def contradictions(self) -> list[str]:
        """Transactions whose repeated score records differ in more than the moment of scoring."""

        def essence(record: Mapping[str, Any]) -> str:
            return json.dumps({name: value for name, value in record.items() if name != "scored_at"})

        return [each for each, records in self.scores.items() if len({essence(r) for r in records}) > 1]


class Deployment:
    """Topics of its own on a broker that others may share, and the workers on them.

    Args:
        settings: tables of the settings document, beside broker, topics and worker.
    """

    def __init__(
        self, broker: str, directory: Path, settings: str = "", partitions: int = PARTITIONS
    ) -> None:
        self.broker = broker
        self.partitions = partitions
        self._directory = directory
        self._prefix = f"e{os.getpid()}-{time.time_ns()}"
        self._config = directory / "settings.toml"
        names = "\n".join(f'{topic} = "{self.topic(topic)}"' for topic in TOPICS)
        self._config.write_text(
            f'[broker]\nbootstrap = "{broker}"\n'
            f'[topics]\npartitions = {partitions}\ninternal_prefix = "{self._prefix}.internal"\n{names}\n'
            f'[worker]\nsession_timeout = "3s"\n{settings}'
        )
        self.workers: list[Worker] = []
        self._producer = Producer(
            {"bootstrap.servers": broker, "linger.ms": 5, "partitioner": "murmur2_random"}
        )
        self._failures: list[object] = []
        #: offset after the last record published, by topic and partition
        self._ends: dict[tuple[str, int], int] = {}
        #: partition of every key published as a transaction
        self.partition_of: dict[str, int] = {}
        self.seen = Seen()
        self._reader = Consumer(
            {"bootstrap.servers": broker, "group.id": self._prefix, "enable.auto.commit": False,
             "fetch.message.max.bytes": 16 * 1024 * 1024, "fetch.wait.max.ms": 20}
        )  # fmt: skip
        self.command("topics", "create")
        read = [(topic, p) for topic in ("scores", "alerts", "dead_letters") for p in range(partitions)]
        self._reader.assign(
            [TopicPartition(self.topic(topic), p, OFFSET_BEGINNING) for topic, p in [*read, ("models", 0)]]
        )

    def topic(self, name: str) -> str:
        return f"{self._prefix}.{name}"

    def set(self, table: str) -> Callable[[], object]:
        """Add a table to the settings of workers to come; what takes it out again."""
        before = self._config.read_text()
        self._config.write_text(before + table)
        return lambda: self._config.write_text(before)

    def start_afresh(self) -> None:
        """Fresh internal topics, for workers to come."""
        text = self._config.read_text()
        self._config.write_text(text.replace(f'"{self._prefix}.internal"', f'"{self._prefix}.fresh"'))
        self.command("topics", "create")

    def wait_for_commit(self, stage: str, topic: str, *, seconds: float) -> None:
        """Wait until the stage has committed everything on the topic."""
        group = Consumer({"bootstrap.servers": self.broker, "group.id": f"{self._prefix}.internal.{stage}"})
        tps = [TopicPartition(self.topic(topic), partition) for partition in range(self.partitions)]
        ends = {p: end for (name, p), end in self._ends.items() if name == self.topic(topic)}
        assert ends

        def committed() -> bool:
            return ends == {
                tp.partition: tp.offset for tp in group.committed(tps, timeout=10) if tp.offset > 0
            }

        try:
            until(committed, seconds=seconds, what=f"{stage} has committed {ends}")
        finally:
            group.close()

    def command(self, *arguments: str) -> str:
        """Run a command of the project to its end; what it printed."""
        done = subprocess.run(
            [sys.executable, "-m", "streams.cli", *arguments, "--config", str(self._config)],
            cwd=ROOT, capture_output=True, text=True, check=False,
            env={name: value for name, value in os.environ.items() if not name.startswith("FRAUD")},
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        return done.stdout

    def start(self, *, failpoint: str = "", stages: str = "", wait: bool = True) -> Worker:
        worker = Worker(self._config, self._directory / f"worker-{len(self.workers)}.log", failpoint, stages)
        self.workers.append(worker)
        if wait:
            until(lambda: worker.ready, seconds=60, what=f"the worker ready:\n{worker.log()}")
        return worker

    def publish(
        self, topic: str, records: Iterable[tuple[str, bytes]], headers: Sequence[tuple[str, bytes]] = ()
    ) -> None:
        """Keyed records, in order, acknowledged when this returns."""
        name = self.topic(topic)
        for key, value in records:
            while True:
                try:
                    self._producer.produce(
                        name, value, key.encode(), headers=list(headers), on_delivery=self._delivered
                    )
                    break
                except BufferError:
                    self._producer.poll(0.05)
            self._producer.poll(0)

    def publish_compressed(self, codec: str, records: Iterable[tuple[str, bytes]]) -> None:
        """Transactions in batches of that codec."""
        producer = Producer({"bootstrap.servers": self.broker, "compression.type": codec, "linger.ms": 50})
        for key, value in records:
            producer.produce(self.topic("transactions"), value, key.encode(), on_delivery=self._delivered)
        assert producer.flush(30) == 0

    async def publish_odd_header(self, key: str, value: bytes) -> None:
        """A transaction with a header name that is no UTF-8, which clients refuse: bytes are exchanged."""
        async with AIOKafkaProducer(bootstrap_servers=self.broker, acks="all") as producer:
            batch = producer.create_batch()
            batch.append(key=key.encode(), value=value, timestamp=None, headers=[("zzzz", b"1")])
            build = batch._build

            def altered() -> bytearray:
                data = bytearray(build()).replace(b"zzzz", b"\xff\xfe\xfd\xfc")
                data[17:21] = calc_crc32c(bytes(data[21:])).to_bytes(4, "big")
                batch._buffer = data
                return data

            batch._build = altered
            partition = self.partition_of[key]
            await (await producer.send_batch(batch, self.topic("transactions"), partition=partition))

    def flush(self) -> None:
        assert self._producer.flush(60) == 0
        assert not self._failures, self._failures

    def _delivered(self, error: object, message: Any) -> None:
        if error is not None:
            self._failures.append(error)
            return
        place = message.topic(), message.partition()
        self._ends[place] = max(message.offset() + 1, self._ends.get(place, 0))
        if message.topic() == self.topic("transactions"):
            self.partition_of[message.key().decode()] = message.partition()

    def read(self, wait: float = 0.05) -> None:
        """Take in what has come out."""
        for message in self._reader.consume(2000, wait):
            assert message.error() is None, message.error()
            self._take(message)

    def _take(self, message: Any) -> None:
        topic, value = message.topic(), message.value()
        if topic == self.topic("dead_letters"):
            self.seen.dead.append((value, dict(message.headers() or [])))
        elif topic == self.topic("models"):
            name, _, version = message.key().decode().rpartition("/")
            if value is not None:
                self.seen.versions.setdefault(name, set()).add(int(version))
                self.seen.documents.setdefault((name, int(version)), set()).add(value)
        else:
            record = json.loads(value)
            assert message.key().decode() == record["card_id"]
            if topic == self.topic("alerts"):
                self.seen.alerts.append(record)
            else:
                self.seen.scores.setdefault(record["transaction_id"], []).append(record)

    def read_until(self, condition: Callable[[], object], *, seconds: float, what: str) -> None:
        def done() -> bool:
            self.read()
            for worker in self.workers:
                assert worker.alive or not worker.lasting, "a worker has ended by itself"
            return bool(condition())

        try:
            until(done, seconds=seconds, what=what)
        except AssertionError as error:
            logs = "\n".join(f"{w.process.pid} {w.process.poll()}: {w.log()}" for w in self.workers)
            raise AssertionError(f"{error}; {len(self.seen.scores)} scored; {logs}") from None

    def read_scores(self, count: int, *, seconds: float) -> None:
        """Read until so many transactions have a score."""
        self.read_until(lambda: len(self.seen.scores) >= count, seconds=seconds, what=f"{count} scored")

    def settle(self, seconds: float = 1.0) -> None:
        """Read what still comes within `seconds`."""
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            self.read()

    def codes(self) -> Counter[str]:
        return Counter(headers["fraud-error-code"].decode() for _, headers in self.seen.dead)

    def close(self) -> None:
        for worker in self.workers:
            if worker.alive:
                worker.kill()
        self._reader.close()


def json_bytes(record: Mapping[str, object]) -> bytes:
    return json.dumps(record).encode()
