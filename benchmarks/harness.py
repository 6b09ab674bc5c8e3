"""One runner for all contenders: fresh broker, seeded backlog, own process, outputs counted at the broker."""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import platform
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

from benchmarks import brokers, kafka
from benchmarks.processes import ContenderProcess, Usage
from benchmarks.workload import Message, Workload, messages

SOURCE = "fraud.transactions.v1"
SCORES = "fraud.scores.v1"
ALERTS = "fraud.alerts.v1"


@dataclass(frozen=True, slots=True)
class Run:
    """What a contender is told: where to read and write, a directory of its own, a stream like the one to
    come."""

    broker: str
    partitions: int
    directory: Path
    alike: Workload

    def environment(self) -> dict[str, str]:
        """The `BENCH_*` variables of contenders/work.py."""
        return {
            "BENCH_BROKER": self.broker,
            "BENCH_SOURCE": SOURCE,
            "BENCH_SCORES": SCORES,
            "BENCH_ALERTS": ALERTS,
            "BENCH_GROUP": "bench",
            "BENCH_DIRECTORY": str(self.directory),
            "BENCH_PARTITIONS": str(self.partitions),
        }


@dataclass(frozen=True, slots=True)
class Contender:
    """A pipeline to measure: its command, what it needs beforehand, and why it cannot run if it cannot.

    `absent` gives the reason or None. `prepare` runs with the broker up, before the backlog is seeded.
    `begins` is the topic on which its first record shows that it has begun: the one between the stages of a
    pipeline that has several, or what the first has done before the last one begins would not be counted.
    `beside` runs during a measurement; what it gives says whether the contender has done all that is left to
    do after the last output.
    """

    name: str
    command: Callable[[Run], Sequence[str]]
    absent: Callable[[], str | None]
    prepare: Callable[[Run], None] | None = None
    version: Callable[[], str | None] = lambda: None
    begins: str = SCORES
    beside: Callable[[Run], AbstractContextManager[Callable[[], bool]]] | None = None


@dataclass(frozen=True, slots=True)
class Measurement:
    """One run. Rates run from the first sight of records on the contender's `begins` to the last output; CPU
    and counts cover the same span, CPU also what the contender does after it (`Contender.beside`).

    `start_seconds` is from the start of the process to that first sight.
    """

    outputs: int
    seconds: float
    tx_per_second: float
    tx_per_cpu_second: float
    cpu_seconds_per_1000: float
    peak_rss_mib: float
    start_seconds: float
    complete: bool


class ContenderFailed(RuntimeError):
    """The contender ended or stayed silent; the message carries the end of its output."""


#: For what a contender does after its last output.
_SETTLE_SECONDS = 60.0


@contextmanager
def _nothing(run: Run) -> Iterator[Callable[[], bool]]:
    yield lambda: True


async def _watch(
    contender: Contender, run: Run, expected: int, seconds: float, start_timeout: float
) -> Measurement:
    marks = kafka.Watermarks(run.broker, SCORES, run.partitions)
    await marks.start()
    begins = kafka.Watermarks(run.broker, contender.begins, run.partitions)
    await begins.start()
    begun = time.monotonic()
    process = ContenderProcess(contender.command(run), run.environment(), run.directory)
    ending = ExitStack()
    ending.callback(process.stop)
    try:
        settled = ending.enter_context((contender.beside or _nothing)(run))
        peak, sampled = 0, begun
        first: tuple[float, int, Usage] | None = None
        last_output: tuple[int, float] | None = None
        while True:
            if first is None and await begins.total() > 0:
                first = (time.monotonic(), await marks.total(), process.usage())
            held, now = await marks.total(), time.monotonic()
            if now - sampled > 0.5:
                peak, sampled = max(peak, process.usage().rss_bytes), now
            if process.exit_code() is not None:
                raise ContenderFailed(f"{contender.name} ended with {process.exit_code()}:\n{process.tail()}")
            if first is None and now - begun > start_timeout:
                raise ContenderFailed(f"{contender.name}: no output in {start_timeout} s:\n{process.tail()}")
            if first is not None and (held >= expected or now - first[0] > seconds):
                last_output = last_output or (held, now)
                if settled() or now - last_output[1] > _SETTLE_SECONDS:
                    break
            await asyncio.sleep(0.005)
        last = process.usage()
        peak = max(peak, last.rss_bytes)
    finally:
        ending.close()
        await marks.stop()
        await begins.stop()
    started, before, usage = first
    held, now = last_output
    span, counted = now - started, held - before
    if counted <= 0 or span <= 0:
        raise ContenderFailed(f"{contender.name}: all {held} outputs came at once; publish more transactions")
    cpu = max(last.cpu_seconds - usage.cpu_seconds, 1e-9)
    return Measurement(
        outputs=held,
        seconds=round(span, 3),
        tx_per_second=round(counted / span, 1),
        tx_per_cpu_second=round(counted / cpu, 1),
        cpu_seconds_per_1000=round(cpu / counted * 1000, 5),
        peak_rss_mib=round(peak / 2**20, 1),
        start_seconds=round(started - begun, 2),
        complete=held >= expected,
    )


def measure(
    contender: Contender,
    workload: Workload,
    backlog: Sequence[Message],
    kind: brokers.BrokerKind,
    *,
    partitions: int,
    seconds: float,
    start_timeout: float = 90.0,
) -> Measurement:
    """One contender once on a broker of its own, for at most `seconds` after its first output.

    `backlog` are the messages of `workload`, made once for all runs.
    """
    with tempfile.TemporaryDirectory(prefix="bench-") as folder, brokers.running(kind) as broker:
        run = Run(broker, partitions, Path(folder), workload)
        asyncio.run(kafka.create_topics(broker, (SOURCE, SCORES, ALERTS), partitions))
        if contender.prepare is not None:
            contender.prepare(run)
        asyncio.run(kafka.seed(broker, SOURCE, backlog, partitions))
        return asyncio.run(_watch(contender, run, len(backlog), seconds, start_timeout))


def interleaved(
    contenders: Sequence[Contender], rounds: int, once: Callable[[Contender], Measurement]
) -> dict[str, list[Measurement] | str]:
    """Round after round, every contender once; one that fails is reported and left out from then on."""
    results: dict[str, list[Measurement] | str] = {}
    for contender in contenders:
        reason = contender.absent()
        results[contender.name] = [] if reason is None else f"absent: {reason}"
    for index in range(rounds):
        for contender in contenders:
            so_far = results[contender.name]
            if isinstance(so_far, str):
                continue
            try:
                one = once(contender)
            except ContenderFailed as failure:
                results[contender.name] = f"failed: {failure}"
                note(f"round {index + 1} {failure}")
                continue
            so_far.append(one)
            note(f"round {index + 1} {contender.name}: {one.tx_per_second:,.0f} tx/s")
    return results


def measure_all(
    contenders: Sequence[Contender], workload: Workload, options: argparse.Namespace
) -> dict[str, list[Measurement] | str]:
    """Every contender over the same backlog, by the options of `run_options`."""
    backlog = messages(workload)

    def once(contender: Contender) -> Measurement:
        return measure(
            contender,
            workload,
            backlog,
            options.broker,
            partitions=options.partitions,
            seconds=options.seconds,
        )

    return interleaved(contenders, options.rounds, once)


def spread(values: Iterable[float]) -> dict[str, float]:
    """Median with the extremes."""
    ordered = sorted(values)
    return {"median": statistics.median(ordered), "min": ordered[0], "max": ordered[-1]}


def summary(measurements: Sequence[Measurement]) -> dict[str, object]:
    """Medians with min and max of every figure, and the single runs."""
    figures = ("tx_per_second", "tx_per_cpu_second", "cpu_seconds_per_1000", "peak_rss_mib", "start_seconds")
    combined: dict[str, object] = {
        name: spread(getattr(one, name) for one in measurements) for name in figures
    }
    combined["runs"] = [asdict(one) for one in measurements]
    return combined


def parser(description: str | None) -> argparse.ArgumentParser:
    """The command line of a benchmark, so far `--json`."""
    made = argparse.ArgumentParser(description=description)
    made.add_argument("--json", action="store_true")
    return made


def run_options(parser: argparse.ArgumentParser, *, transactions: int, seconds: float) -> None:
    """Add what `measure_all` and its workload are told, with these defaults."""
    parser.add_argument("--transactions", type=int, default=transactions)
    parser.add_argument("--seconds", type=float, default=seconds, help="longest measured span of one run")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--partitions", type=int, default=4)
    parser.add_argument("--seed", type=int, default=7)
    parser.add_argument("--broker", choices=brokers.kinds(), default="embedded")


def settings(chosen: argparse.Namespace) -> dict[str, object]:
    """The options that a run was made with."""
    return {name: value for name, value in vars(chosen).items() if name != "json"}


def machine() -> dict[str, object]:
    """What the numbers were measured on."""
    return {
        "cores": os.cpu_count(),
        "python": platform.python_version(),
        "system": f"{platform.system()} {platform.machine()}",
        "load_before": os.getloadavg()[0],
    }


def note(text: str) -> None:
    """Progress, on stderr and only on a terminal or when asked for."""
    if sys.stderr.isatty() or os.environ.get("BENCH_PROGRESS"):
        print(text, file=sys.stderr, flush=True)


def emit(result: dict[str, object], as_json: bool) -> None:
    """Print the result: JSON alone with `--json`, indented otherwise."""
    print(json.dumps(result) if as_json else json.dumps(result, indent=2))
