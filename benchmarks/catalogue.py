"""Every contender of the throughput benchmark, once."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import sys

from benchmarks import fraudstream, peers
from benchmarks.harness import Contender, Run


def _own(name: str, module: str, package: str) -> Contender:
    """A contender in the project's interpreter."""

    def absent() -> str | None:
        return None if importlib.util.find_spec(package) else f"{package} is not installed"

    def command(_: Run) -> list[str]:
        return [sys.executable, "-m", f"benchmarks.contenders.{module}"]

    distribution = {"faust": "faust-streaming"}.get(package, package)
    return Contender(name, command, absent, version=lambda: importlib.metadata.version(distribution))


def _peer(name: str, module: str, package: str) -> Contender:
    """A contender in the peers' interpreter."""

    def absent() -> str | None:
        found = peers.version(package)
        return None if found else f"{package} is not installed; python -m benchmarks.peers install"

    def command(_: Run) -> list[str]:
        return [str(peers.interpreter()), "-m", f"benchmarks.contenders.{module}"]

    return Contender(name, command, absent, version=lambda: peers.version(package))


CONTENDERS: dict[str, Contender] = {
    one.name: one
    for one in (
        _own("raw-aiokafka", "raw_aiokafka", "aiokafka"),
        fraudstream.CONTENDER,
        _own("plain-faust", "plain_faust", "faust"),
        _peer("quix-streams", "quix_streams", "quixstreams"),
        _peer("bytewax", "bytewax_flow", "bytewax"),
        _peer("pathway", "pathway_flow", "pathway"),
    )
}
