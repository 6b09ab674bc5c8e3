"""The whole system in one process tree: broker, workers, a stream with labels and analysts, the accounting.

The stream runs as if it were live, at many times the speed of life: stages do not wait for each other to
align event times. Duplicates and broken records are mixed in; every record published must come out as a
score, a duplicate or a dead letter.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import signal
import socket
import sys
import time
import urllib.request
from collections import Counter
from collections.abc import AsyncIterator, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import aiokafka
import numpy as np
import orjson
from rich.console import Console
from rich.live import Live

from streams.commands.admin import create_topics
from streams.contract.codecs import encode
from streams.contract.transaction_columns import TransactionColumns
from streams.demo_tally import Tally, count_score, summary, view
from streams.errors import FraudstreamError
from streams.feature_settings import catalogue_of, feature_spec
from streams.history.analysts import Analysts
from streams.history.replay import Pace, ReplayTopics, replay
from streams.kafka.broker import EmbeddedBroker
from streams.kafka.connection import client_options
from streams.kafka.outputs import Output, Outputs, partition_for
from streams.live.compose import is_served
from streams.logs import NOTICE
from streams.settings import CONFIG_VARIABLE, Settings
from streams.topics import Catalogue

logger = logging.getLogger(__name__)

#: One worker decides, the other learns and observes, so that learning takes no time from scoring.
_WORKERS = (("card", "score", "label"), ("learn", "observe"))
#: Where the settings say nothing. Every partition costs the one worker that scores a batch of its own, and
#: the embedded broker slows down with every batch.
_PARTITIONS = 2
_STALLED_SECONDS = 60.0
_READY_SECONDS = 180.0
_EVERY_NTH_TIMED = 10
_STARTING = "starting a broker and two workers; the first time they compile kernels, for a minute or so"


class DemoFailed(FraudstreamError):
    """Look at the workers' output above: the demo could not be finished."""


class _TimedOutputs(Outputs):
    """Notes when some of the transactions are sent, by transaction id."""

    def __init__(self, settings: Settings, topic: str, tally: Tally) -> None:
        super().__init__(settings.broker.bootstrap)
        self._topic, self._tally = topic, tally

    async def send(self, records: Iterable[Output]) -> dict[tuple[str, int], int]:
        listed = list(records)
        now = time.time()
        for record in listed:
            if record.topic == self._topic:
                self._tally.published += 1
                if self._tally.published % _EVERY_NTH_TIMED == 0:
                    with contextlib.suppress(orjson.JSONDecodeError, TypeError, KeyError):
                        self._tally.sent_at[orjson.loads(record.value)["transaction_id"]] = now  # type: ignore[arg-type]
        return await super().send(listed)


async def run(
    settings: Settings,
    batches: Iterable[TransactionColumns],
    *,
    total: int | None,
    rate: float,
    label_delay: int | None,
    config: Path | None = None,
) -> dict[str, Any]:
    """Run everything; the summary.

    Args:
        config: the file that `settings` were read from, for the workers.

    Raises:
        DemoFailed: a worker ended, or nothing came out for a minute.
    """
    began = time.monotonic()
    logger.log(NOTICE, _STARTING)
    with EmbeddedBroker() as broker:
        settings = _on(broker, settings)
        await create_topics(settings)
        catalogue = catalogue_of(settings, feature_spec(settings))
        tally = Tally()
        frauds: set[str] = set()
        async with _workers(settings, config) as metrics_urls:
            logger.log(NOTICE, "workers are ready after %.0f s; the stream begins", time.monotonic() - began)
            if is_served(settings):
                # The worker with the score stage: rates, latency and models are its own.
                logger.log(NOTICE, "live page on %s/live while the stream runs", metrics_urls[0])
            streaming = time.monotonic()
            await _stream(
                settings,
                catalogue,
                tally,
                _remembering(batches, frauds),
                frauds,
                total,
                rate,
                label_delay,
                metrics_urls,
            )
            duration = time.monotonic() - streaming
            counted = await asyncio.to_thread(_counters, metrics_urls)
    return summary(tally, frauds, counted, duration, time.monotonic() - began)


def _on(broker: EmbeddedBroker, settings: Settings) -> Settings:
    own = settings.topics.partitions if "partitions" in settings.topics.model_fields_set else _PARTITIONS
    return settings.model_copy(
        update={
            "broker": settings.broker.model_copy(update={"bootstrap": broker.address}),
            "topics": settings.topics.model_copy(update={"partitions": own}),
        }
    )


def _remembering(batches: Iterable[TransactionColumns], frauds: set[str]) -> Iterator[TransactionColumns]:
    for batch in batches:
        if batch.fraud is not None:
            frauds.update(batch.transaction_id[row] for row in np.flatnonzero(batch.fraud).tolist())
        yield batch


@contextlib.asynccontextmanager
async def _workers(settings: Settings, config: Path | None) -> AsyncIterator[list[str]]:
    """Worker processes, ready; stopped in the end. Gives the addresses of their metrics."""
    ports = [_free_port() for _ in _WORKERS]
    processes = []
    for stages, port in zip(_WORKERS, ports, strict=True):
        environment = {
            **os.environ,
            "FRAUD_BROKER__BOOTSTRAP": settings.broker.bootstrap,
            "FRAUD_TOPICS__PARTITIONS": str(settings.topics.partitions),
            "FRAUD_WORKER__METRICS_PORT": str(port),
            "FRAUD_ALIGNMENT__IDLE_AFTER": "0s",
        }
        if config is not None:
            environment[CONFIG_VARIABLE] = str(config)
        processes.append(
            await asyncio.create_subprocess_exec(
                *(sys.executable, "-m", "streams.cli", "--log-level", "warning"),
                *("worker", "--stages", ",".join(stages)),
                env=environment,
                stdout=sys.stderr,
            )
        )
    urls = [f"http://127.0.0.1:{port}" for port in ports]
    watch = asyncio.create_task(_first_end(processes))
    try:
        ready = asyncio.create_task(_all_ready(urls))
        await asyncio.wait({watch, ready}, return_when=asyncio.FIRST_COMPLETED)
        if watch.done():
            raise DemoFailed(f"a worker ended with exit code {watch.result()} before it was ready")
        ready.result()
        yield urls
    finally:
        watch.cancel()
        for process in processes:
            if process.returncode is None:
                process.send_signal(signal.SIGTERM)
        for process in processes:
            try:
                async with asyncio.timeout(15):
                    await process.wait()
            except TimeoutError:
                process.kill()


async def _first_end(processes: Sequence[asyncio.subprocess.Process]) -> int | None:
    done, _ = await asyncio.wait(
        {asyncio.create_task(process.wait()) for process in processes}, return_when=asyncio.FIRST_COMPLETED
    )
    return next(iter(done)).result()


async def _all_ready(urls: Sequence[str]) -> None:
    async with asyncio.timeout(_READY_SECONDS):
        for url in urls:
            while not await asyncio.to_thread(_is_ready, url):  # noqa: ASYNC110 -- another process's event
                await asyncio.sleep(0.2)


def _is_ready(url: str) -> bool:
    try:
        with urllib.request.urlopen(f"{url}/readyz", timeout=2) as answer:  # noqa: S310 -- our own loopback address
            return bool(answer.status == 200)
    except OSError:
        return False


def _counters(urls: Sequence[str]) -> Counter[str]:
    """The workers' transaction counters by outcome."""
    counters: Counter[str] = Counter()
    for url in urls:
        with urllib.request.urlopen(f"{url}/metrics", timeout=5) as answer:  # noqa: S310 -- our own loopback address
            for line in answer.read().decode().splitlines():
                if line.startswith("fraud_transactions_total{"):
                    counters[line.split('"')[1]] += int(float(line.rsplit(" ", 1)[1]))
    return counters


async def _stream(
    settings: Settings,
    catalogue: Catalogue,
    tally: Tally,
    batches: Iterable[TransactionColumns],
    frauds: set[str],
    total: int | None,
    rate: float,
    label_delay: int | None,
    metrics_urls: Sequence[str],
) -> None:
    """Publish and read until everything has come out."""
    transactions = catalogue.name("transactions")
    analysts = Analysts(frauds)
    reader = aiokafka.AIOKafkaConsumer(
        *(catalogue.name(topic) for topic in ("scores", "alerts", "dead-letters", "models")),
        **client_options(settings.broker),
        auto_offset_reset="earliest",
        fetch_max_wait_ms=20,
        max_partition_fetch_bytes=16 * 1024 * 1024,
    )
    console = Console(stderr=True)
    async with _TimedOutputs(settings, transactions, tally) as outputs:
        await reader.start()
        live = Live(view(tally, total), console=console, transient=True) if console.is_terminal else None
        reading = asyncio.create_task(
            _read(reader, outputs, catalogue, tally, analysts, settings.topics.partitions)
        )
        publishing = asyncio.create_task(
            replay(
                outputs,
                ReplayTopics(transactions, catalogue.name("labels")),
                _with_trouble(batches),
                label_delay=label_delay,
                pace=Pace(rate=rate) if rate else None,
            )
        )
        try:
            with live or contextlib.nullcontext():
                await _until_done(publishing, reading, tally, total, live, metrics_urls)
        finally:
            for task in (publishing, reading):
                task.cancel()
            await asyncio.gather(publishing, reading, return_exceptions=True)
            await reader.stop()


async def _until_done(
    publishing: asyncio.Task[Any],
    reading: asyncio.Task[None],
    tally: Tally,
    total: int | None,
    live: Live | None,
    metrics_urls: Sequence[str],
) -> None:
    moved_at, seen = time.monotonic(), -1
    while True:
        await asyncio.wait({publishing, reading}, timeout=0.25, return_when=asyncio.FIRST_COMPLETED)
        if reading.done():
            reading.result()
        if live is not None:
            live.update(view(tally, total))
        out = len(tally.scored) + tally.dead_lettered
        if out != seen:
            moved_at, seen = time.monotonic(), out
        if publishing.done():
            publishing.result()
            duplicates = (await asyncio.to_thread(_counters, metrics_urls))["duplicate"]
            if out + duplicates >= tally.published:
                return
            await asyncio.sleep(0.25)
        if time.monotonic() - moved_at > _STALLED_SECONDS:
            raise DemoFailed(
                f"nothing came out for {_STALLED_SECONDS:.0f} s; {out} of {tally.published} done"
            )


async def _read(
    reader: aiokafka.AIOKafkaConsumer,
    outputs: Outputs,
    catalogue: Catalogue,
    tally: Tally,
    analysts: Analysts,
    partitions: int,
) -> None:
    """Count what comes out; analysts answer alerts."""
    scores, alerts, models = (catalogue.name(topic) for topic in ("scores", "alerts", "models"))
    feedback = catalogue.name("feedback")
    while True:
        answers: list[Output] = []
        for tp, records in (await reader.getmany(timeout_ms=200)).items():
            if tp.topic == scores:
                now = time.time()
                for record in records:
                    count_score(tally, orjson.loads(record.value), now)
            elif tp.topic == alerts:
                for record in records:
                    alert = orjson.loads(record.value)
                    tally.alerts += 1
                    key = alert["card_id"].encode()
                    for item in analysts.review(
                        alert["alert_id"], alert["transaction_id"], alert["card_id"], alert["event_time"]
                    ):
                        answers.append(Output(feedback, partition_for(key, partitions), key, encode(item)))
            elif tp.topic == models:
                for record in records:
                    if record.value is not None:
                        model = orjson.loads(record.value)
                        tally.learned[model["name"]] = max(tally.learned[model["name"]], model["n_learned"])
            else:
                tally.dead_lettered += len(records)
        if answers:
            await outputs.send(answers)


def _with_trouble(batches: Iterable[TransactionColumns]) -> Iterator[TransactionColumns]:
    """Every 500th transaction comes twice, every 1000th has a card number for a card."""
    for batch in batches:
        twice = np.sort(np.concatenate([np.arange(len(batch)), np.arange(0, len(batch), 500)]))
        repeated = batch.take(twice)
        for row in range(250, len(repeated), 1000):
            repeated.card_id[row] = "4111111111111111"
            repeated.transaction_id[row] += "-broken"
        yield repeated


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port
