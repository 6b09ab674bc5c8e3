"""fraudstream itself as a contender: `fraudstream worker --stages card,score`, champion and two shadows
published before.

It does more for each transaction than the peers do: two keyed stages with a hop between them, 44 features,
three models, deduplication, durable state, outputs acknowledged before offsets are committed.
"""

from __future__ import annotations

import asyncio
import functools
import importlib.util
import subprocess
import sys
from pathlib import Path

from benchmarks import training
from benchmarks.harness import Contender, Run
from benchmarks.workload import Workload
from models.spec import FeatureSpec

ROOT = Path(__file__).resolve().parent.parent
MODELS_TOPIC = "fraud.models.v1"


def command_line() -> list[str]:
    """How to start the command line in this interpreter, installed or not."""
    return [sys.executable, "-c", "import sys; from streams.cli import main; sys.exit(main())"]


@functools.cache
def trained() -> training.Trained:
    """The models, learned once for all rounds."""
    return training.train(FeatureSpec.default())


@functools.cache
def _threshold(alike: Workload) -> float:
    return training.threshold(trained(), FeatureSpec.default(), alike)


def configuration(run: Run) -> str:
    """The settings document of the worker: models by name, threshold, partitions, any free metrics port."""
    names = list(training.MODELS.items())
    slots = [f'{{ name = "{name}", kind = "{kind}" }}' for name, kind in names]
    return "\n".join(
        (
            "[broker]",
            f'bootstrap = "{run.broker}"',
            "[topics]",
            f"partitions = {run.partitions}",
            "[models]",
            f"champion = {slots[0]}",
            f"shadows = [{', '.join(slots[1:])}]",
            # No label stage runs: its silence is not worth waiting for the usual five seconds.
            "[alignment]",
            'idle_after = "250ms"',
            "[policy]",
            f"threshold = {_threshold(run.alike)}",
            "[worker]",
            "metrics_port = 0",
            "",
        )
    )


def _config(run: Run) -> Path:
    return run.directory / "fraudstream.toml"


def prepare(run: Run) -> None:
    """Write the settings, create the topics, publish the models."""
    _config(run).write_text(configuration(run))
    subprocess.run(
        [*command_line(), "topics", "create", "--config", str(_config(run))],
        check=True,
        cwd=ROOT,
        stdout=subprocess.DEVNULL,
    )
    asyncio.run(training.publish(run.broker, MODELS_TOPIC, trained()))


def command(run: Run) -> list[str]:
    """The worker."""
    return [*command_line(), "worker", "--stages", "card,score", "--config", str(_config(run))]


def absent() -> str | None:
    """Why it cannot run."""
    return None if importlib.util.find_spec("streams.cli") else "streams.cli is not there"


#: What the card stage hands on, and the score stage reads.
HOP_TOPIC = "fraud.internal.by-terminal.v1"
CONTENDER = Contender("fraudstream", command, absent, prepare, begins=HOP_TOPIC)
