"""What every stage is given by the composition root."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field

import faust

from models.spec import FeatureSpec
from monitoring.metrics import Metrics
from streams.kafka.batching import transport_of
from streams.kafka.outputs import Outputs
from streams.settings import Settings
from streams.stages.loop import StageLoop, Work
from streams.topics import Catalogue


def wall_ms() -> int:
    """Wall clock, epoch milliseconds."""
    return time.time_ns() // 1_000_000


@dataclass(frozen=True, slots=True)
class StageContext:
    """Settings, spec, topics and the outside world of a worker.

    `now_ms` is the wall clock, for latency metrics and for deciding whether to wait; `clock` a monotonic one,
    in seconds.
    """

    settings: Settings
    spec: FeatureSpec
    catalogue: Catalogue
    outputs: Outputs
    metrics: Metrics
    now_ms: Callable[[], int] = wall_ms
    clock: Callable[[], float] = field(default=time.perf_counter)

    @property
    def partitions(self) -> int:
        return self.settings.topics.partitions

    def name(self, topic: str) -> str:
        """Name on the cluster of a topic of the catalogue."""
        return self.catalogue.name(topic)

    def report(self, stage: str) -> StageReport:
        """Where the loop of a stage reports to."""
        return StageReport(stage, self.metrics)


@dataclass(frozen=True, slots=True)
class StageReport:
    """The metrics of a stage's loop; a `Report`."""

    stage: str
    metrics: Metrics

    def worked(self, seconds: float, records: int) -> None:
        self.metrics.stage_duration.observe_repeated(seconds, 1, self.stage)
        self.metrics.batch_records.observe_repeated(records, 1, self.stage)

    def restored(self, seconds: float) -> None:
        self.metrics.restore_seconds.set(seconds, self.stage)


def follow_assignment(app: faust.App, loop: StageLoop[Work], topic: str, metrics: Metrics) -> None:
    """Open and drop the partitions of `loop` as those of `topic` come to this worker and go."""
    transport = transport_of(app)

    def partitions(tps: Iterable[faust.TP]) -> list[int]:
        return sorted(tp.partition for tp in tps if tp.topic == topic)

    @transport.on_assigned
    async def gained(tps: frozenset[faust.TP]) -> None:
        metrics.rebalances.add()
        await loop.open(partitions(tps))

    @transport.on_revoked
    async def lost(tps: frozenset[faust.TP]) -> None:
        await loop.drop(partitions(tps))

    @app.on_partitions_revoked.connect
    async def meeting(*_: object, **__: object) -> None:
        await loop.pause()

    @app.on_partitions_assigned.connect
    async def met(*_: object, **__: object) -> None:
        loop.resume()

    @app.on_before_shutdown.connect
    async def leaving(*_: object, **__: object) -> None:
        await loop.stop()


class Heartbeat:
    """To which partitions behind a stage a message is due: those with rows, and those long without news.

    Stages behind wait for the watermarks of all partitions before them, so that each must hear them; but an
    empty message costs as much as a full one.
    """

    SECONDS = 0.05

    def __init__(self, partitions: int) -> None:
        self._heard_at = dict.fromkeys(range(partitions), float("-inf"))
        self._owed: set[int] = set()

    def due(self, with_rows: Sequence[int], now: float) -> list[int]:
        """The partitions to send to at `now`, seconds of a monotonic clock; they count as told."""
        told = [p for p, at in self._heard_at.items() if p in with_rows or now - at >= self.SECONDS]
        self._heard_at.update(dict.fromkeys(told, now))
        self._owed = self._heard_at.keys() - set(told)
        return told

    def owed(self, now: float) -> list[int]:
        """The partitions that the last sending left out; they count as told."""
        owed, self._owed = sorted(self._owed), set()
        self._heard_at.update(dict.fromkeys(owed, now))
        return owed
