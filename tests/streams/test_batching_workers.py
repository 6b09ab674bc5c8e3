"""Several workers of one group: killed, stopped, joining and leaving under load, with and without Faust's
Cython.
"""

from __future__ import annotations

import asyncio
import os
import random
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from streams.kafka.batching import TP, batch_topic, batches, transport_of
from tests.streams.clients import (
    committed,
    new_app,
    new_topic,
    numbered,
    publish,
    read,
    running,
    unique,
    until,
)

pytestmark = [pytest.mark.broker, pytest.mark.chaos]

ROOT = Path(__file__).parents[2]


@contextmanager
def _worker(
    broker: str, group: str, topic: str, log: Path, *, cython: bool = True
) -> Iterator[subprocess.Popen[bytes]]:
    environment = {**os.environ, "NO_CYTHON": "" if cython else "1"}
    arguments = [sys.executable, "-m", "tests.streams.batching_worker", broker, group, topic, str(log)]
    process = subprocess.Popen(arguments, cwd=ROOT, env=environment)
    try:
        yield process
    finally:
        process.kill()
        process.wait()


def _offsets(log: Path) -> Counter[tuple[int, int]]:
    """How often each (partition, offset) has been through the agent."""
    seen: Counter[tuple[int, int]] = Counter()
    for line in log.read_text().splitlines() if log.exists() else ():
        partition, first, last = map(int, line.split())
        seen.update((partition, offset) for offset in range(first, last + 1))
    return seen


def _wait(process: subprocess.Popen[bytes], log: Path, distinct: int, seconds: float = 25) -> None:
    deadline = time.monotonic() + seconds
    while len(_offsets(log)) < distinct:
        assert process.poll() is None, f"the worker ended with {process.returncode}"
        assert time.monotonic() < deadline, f"{len(_offsets(log))} of {distinct} records after {seconds} s"
        time.sleep(0.02)


@pytest.mark.parametrize(("cython", "kills"), [(True, 2), (False, 1)])
def test_killed_workers_lose_nothing(broker: str, tmp_path: Path, cython: bool, kills: int) -> None:
    """Over kills at random moments every record is worked on, and little more than a commit interval's worth
    twice.
    """
    each, partitions = 1500, 2
    topic, group, log = asyncio.run(new_topic(broker, partitions)), unique("group"), tmp_path / "log"
    asyncio.run(publish(broker, topic, numbered(partitions, each)))
    moments = sorted(random.Random(11).sample(range(200, each * partitions - 200), kills))
    for moment in moments:
        with _worker(broker, group, topic, log, cython=cython) as process:
            _wait(process, log, moment)
            process.send_signal(signal.SIGKILL)
            process.wait()
    with _worker(broker, group, topic, log, cython=cython) as process:
        _wait(process, log, each * partitions)
    seen = _offsets(log)
    assert seen.keys() == {(partition, offset) for partition in range(partitions) for offset in range(each)}
    # A batch of 20 takes 2 ms at least: 0.1 s between commits, and what is in flight.
    assert sum(seen.values()) - len(seen) <= kills * (2 * 100 // 2 * 20)


def test_sigterm_drains_commits_and_exits_cleanly(broker: str, tmp_path: Path) -> None:
    """After SIGTERM under load the exit code is 0 within 10 s and what was worked on is committed, no more,
    no less.
    """
    topic, group, log = asyncio.run(new_topic(broker, 2)), unique("group"), tmp_path / "log"
    asyncio.run(publish(broker, topic, numbered(2, 20_000), per_batch=1000))
    with _worker(broker, group, topic, log) as process:
        _wait(process, log, 500)
        process.send_signal(signal.SIGTERM)
        assert process.wait(10) == 0
    seen = _offsets(log)
    assert max(seen.values()) == 1
    worked_on = [sum(1 for partition, _ in seen if partition == number) for number in range(2)]
    assert sum(worked_on) < 40_000
    assert [offset or 0 for offset in asyncio.run(committed(broker, group, topic, 2))] == worked_on


def test_workers_join_and_leave_under_load(broker: str) -> None:
    """One worker, then two, then the other one alone: every record is finished, none twice, and none without
    its state.

    Both live in this process, so that "restored before, dropped after" can be checked over both at once.
    """

    async def run() -> None:
        topic, group, partitions, each = await new_topic(broker, 4), unique("group"), 4, 3000
        finished: Counter[tuple[int, int]] = Counter()
        taken: Counter[str] = Counter()
        held: dict[str, set[int]] = {"first": set(), "second": set()}

        def worker(name: str):  # type: ignore[no-untyped-def]
            app = new_app(broker, group, max_batch=20)
            transport = transport_of(app)

            @transport.on_assigned
            async def restore(gained: frozenset[TP]) -> None:
                assert not held[name] & {tp.partition for tp in gained}
                held[name] |= {tp.partition for tp in gained}

            @transport.on_revoked
            async def drop(lost: frozenset[TP]) -> None:
                held[name] -= {tp.partition for tp in lost}

            @app.agent(batch_topic(app, topic))
            async def agent(stream):  # type: ignore[no-untyped-def]
                async for batch in batches(stream):
                    assert batch.partition in held[name]
                    await asyncio.sleep(0.002)
                    if not batch.revoked:
                        finished.update((batch.partition, record.offset) for record in batch.records)
                        taken[name] += len(batch)
                        batch.finish()

            return app

        async def load() -> None:
            values = numbered(partitions, each)
            for start in range(0, each, 50):
                await publish(broker, topic, {p: v[start : start + 50] for p, v in values.items()})
                await asyncio.sleep(0.02)

        loading = asyncio.create_task(load())
        async with running(worker("second")) as second:
            async with running(worker("first")) as first:
                await until(lambda: taken["first"] > 500 and taken["second"] > 500, watched=first)
                before = taken["first"]
                await until(lambda: taken["first"] > before + 200, watched=second)
                assert {len(held["first"]), len(held["second"])} == {2}
                assert held["first"] | held["second"] == {0, 1, 2, 3}
            await until(lambda: len(finished) == partitions * each, watched=second, seconds=30)
            assert held["second"] == {0, 1, 2, 3}
        await loading
        assert max(finished.values()) == 1
        assert await committed(broker, group, topic, partitions) == [each] * partitions

    asyncio.run(run())


def test_the_documented_example_runs(broker: str, tmp_path: Path) -> None:
    """The program in docs/batch-agents.md turns words loud and ends with 0 on SIGTERM."""
    words, loud = asyncio.run(new_topic(broker, 1)), asyncio.run(new_topic(broker, 1))
    program = (ROOT / "docs" / "batch-agents.md").read_text().split("```python\n")[1].split("```")[0]
    for written, actual in {
        "localhost:9092": broker,
        "words": words,
        "loud": loud,
        '"upper"': f'"{words}"',
    }.items():
        assert written in program
        program = program.replace(written, actual)
    asyncio.run(publish(broker, words, {0: [b"abc", b"xyz"]}))
    example = tmp_path / "example.py"
    example.write_text(program)
    process = subprocess.Popen([sys.executable, str(example)], env={**os.environ, "PYTHONPATH": str(ROOT)})
    try:
        assert asyncio.run(read(broker, loud, 0, 2)) == [b"ABC", b"XYZ"]
        process.send_signal(signal.SIGTERM)
        assert process.wait(10) == 0
    finally:
        process.kill()
        process.wait()
