"""A worker process: the apps of its stages, the health endpoint, signals."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import math
import os
import signal
import sys
from collections import Counter, deque
from collections.abc import Sequence
from contextlib import AsyncExitStack
from functools import partial
from importlib.metadata import PackageNotFoundError
from importlib.metadata import version as installed_version

from models.deployment import Deployment
from monitoring.metrics import CONTENT_TYPE
from streams.app import STAGES, Flow, build
from streams.errors import FraudstreamError, SettingsError
from streams.health import HealthServer, Progress
from streams.kafka import absence
from streams.kafka.batching import transport_of
from streams.kafka.hosting import run_apps
from streams.live.compose import is_served, live_feed
from streams.live.page import routes
from streams.logs import NOTICE
from streams.sampling import PartitionSampler, counted_logging, time_event_loop
from streams.settings import Settings
from streams.stages.context import wall_ms
from streams.stages.loop import StageLoop
from streams.stages.warm_up import warm_up

logger = logging.getLogger(__name__)

_SAMPLE_SECONDS = 1.0
#: Samples that agree after a rebalance: the stages of a worker rebalance one after the other.
_AT_REST = 3
#: Without a broker there is nothing to wait for: what was not acknowledged is sent again by the replay.
_CLOSING_SECONDS = 1.0


class BrokerLost(FraudstreamError):
    """Start the broker, then the worker: it has ended because the broker stayed away."""


async def run(settings: Settings, stages: Sequence[str] = STAGES) -> signal.Signals | None:
    """Run the stages until SIGTERM or SIGINT, which is returned.

    Raises:
        SettingsError: the settings cannot be carried out.
        BrokerLost: the broker stayed away.
        FraudstreamError: a stage has failed; what was not finished is read again after a restart.
    """
    # Fetching happens in threads: at Python's 5 ms each would wait that long for a computation to let it run.
    sys.setswitchinterval(0.0005)
    flow = build(settings, stages)
    flow.metrics.build_info.set(1, _version())
    logger.info("kernels ready after %.1f s", warm_up(settings, flow.spec))
    health = Health(flow)
    feed = live_feed(settings, stages, flow.metrics, partial(_deployments, flow), _version())
    live_routes = routes(feed, loopback_only=settings.worker.live_page == "loopback")
    server = HealthServer(
        flow.metrics.exposition,
        live={"progress": health.live},
        ready={"broker": health.broker, "assigned": health.assigned, "model": health.model},
        host=settings.worker.metrics_host,
        port=settings.worker.metrics_port,
        content_type=CONTENT_TYPE,
        routes=live_routes if is_served(settings) else (),
    )
    async with AsyncExitStack() as stack:
        stack.enter_context(counted_logging(flow.metrics))
        await _listen(server)
        stack.push_async_callback(server.stop)
        address = f"http://{server.host}:{server.port}"
        pages = "/metrics, /livez, /readyz" + (", /live" if is_served(settings) else "")
        logger.log(NOTICE, "metrics and health on %s (%s)", address, pages)
        stack.push_async_callback(feed.stop)
        stack.push_async_callback(_close, flow)
        for outputs in flow.outputs:
            await outputs.start()
        if flow.apps.keys() & {"score", "learn", "observe"}:
            await flow.control.start()
            stack.push_async_callback(flow.control.stop)
        if "score" in flow.apps:
            await flow.feed.start()
            stack.push_async_callback(flow.feed.stop)
        for part in flow.parts.values():
            # Before the producer goes: whatever a partition is still working on may want to send.
            stack.push_async_callback(part.stop)
        crash = next(iter(flow.apps.values())).crash
        watching = absence.watch(flow.outputs, crash, settings.broker.bootstrap)
        for task in (health.sample(), time_event_loop(flow.metrics), watching):
            stack.callback(asyncio.create_task(task).cancel)
        try:
            received = await run_apps(list(flow.apps.values()), handle_signals=True)
            reachable = _reachable(flow)
        except FraudstreamError as error:
            if _reachable(flow):
                raise
            raise BrokerLost(
                f"no broker at {settings.broker.bootstrap} any more ({_reason(error)}); start it, then this "
                "worker: what was not finished is read again"
            ) from error
    by = "on request" if received is None else f"by {received.name}"
    if reachable:
        logger.log(NOTICE, "stopped %s; what was under way is finished and committed", by)
    else:
        logger.warning("stopped %s without a broker; what was not committed is read again", by)
    return received


def _deployments(flow: Flow) -> list[Deployment]:
    part = flow.parts.get("score")
    return [work.deployment for work in part.works.values()] if part is not None else []


def lineup(deployment: Deployment, *, stood_in: bool) -> list[str]:
    """Role, name and version of every model; of the champion what scores name, and for what it stands in."""
    told = []
    for role, name, version in deployment.models():
        reason = f"{name} v{version} fails" if stood_in else "" if version else f"{name} has no version yet"
        if role == "champion" and reason:
            told.append(f"{role} {deployment.stand_in.name} v0 ({reason})")
        else:
            told.append(f"{role} {name} v{version}")
    return told


def _reason(error: FraudstreamError) -> str:
    """What the first of the errors on purpose says, without those that only passed it on."""
    while isinstance(error.__cause__, FraudstreamError):
        error = error.__cause__
    return str(error).rstrip(".")


def _reachable(flow: Flow) -> bool:
    return absence.answering(flow.outputs)


async def _close(flow: Flow) -> None:
    """What waits for a broker that is away would hold up the end by the request timeout."""
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(None if _reachable(flow) else _CLOSING_SECONDS):
            await asyncio.gather(*(outputs.stop() for outputs in flow.outputs))


async def _listen(server: HealthServer) -> None:
    try:
        await server.start()
    except OSError as error:
        raise SettingsError(
            f"no metrics and health on {server.host}:{server.port}: "
            f"{os.strerror(error.errno) if error.errno else error}; choose another worker.metrics_port, or 0 "
            "for a free one (`--metrics-port 0`); worker.metrics_host is an address of this machine"
        ) from error


class Health:
    """Samples progress for `/livez`, `/readyz` and the lag metrics, and tells the log when it is ready."""

    def __init__(self, flow: Flow) -> None:
        self._flow = flow
        self._progress = {stage: Progress() for stage in flow.apps}
        self._sampled = PartitionSampler(flow.metrics)
        self._announced = ""
        self._held: deque[str] = deque(maxlen=_AT_REST)

    def live(self) -> tuple[bool, str]:
        """Every stage for itself: one that is stuck must not hide behind the others."""
        now = int(asyncio.get_event_loop().time() * 1000)
        checks = {stage: progress.check(now) for stage, progress in self._progress.items()}
        failing = {stage: check for stage, check in checks.items() if not check[0]}
        return not failing, "; ".join(f"{stage}: {told}" for stage, (_, told) in (failing or checks).items())

    def assigned(self) -> tuple[bool, str]:
        held = {stage: len(transport_of(app).progress()) for stage, app in self._flow.apps.items()}
        waiting = [stage for stage, app in self._flow.apps.items() if not transport_of(app).joined]
        if waiting:
            return False, f"not yet in the group: {', '.join(waiting)}"
        return True, ", ".join(f"{stage} {count}" for stage, count in held.items())

    def model(self) -> tuple[bool, str]:
        """What scores in the partitions here; failing while a champion does and the rules stand in for it."""
        if "score" not in self._flow.apps:
            return True, "no score stage here"
        works = list(self._flow.parts["score"].works.values())
        told = sorted({line for work in works for line in lineup(work.deployment, stood_in=work.stood_in)})
        return not any(work.stood_in for work in works), ", ".join(told) or "no partitions"

    def broker(self) -> tuple[bool, str]:
        silent = min(outputs.silent_for for outputs in self._flow.outputs)
        if silent < absence.SILENT_SECONDS:
            return True, "answers"
        return False, "no connection" if math.isinf(silent) else f"no answer for {silent:.0f} s"

    def _broker_answers(self) -> bool:
        return _reachable(self._flow)

    async def sample(self) -> None:
        """Look every second, until cancelled."""
        while True:
            self.look()
            await asyncio.sleep(_SAMPLE_SECONDS)

    def look(self) -> None:
        """Take in where the partitions are."""
        now = asyncio.get_running_loop().time()
        progress = {stage: transport_of(app).progress().values() for stage, app in self._flow.apps.items()}
        sampled = self._sampled
        sampled.sample(progress, now, wall_ms())
        answers = self._broker_answers()
        for stage, each in self._progress.items():
            each.sample(int(now * 1000), sampled.processed[stage], sampled.lag[stage], answers)
        self._sample_state()
        self._announce()

    def _announce(self) -> None:
        """A line when the worker is ready, and whenever it has come to hold other partitions."""
        ready, held = self.assigned()
        self._held.append(held)
        if not ready or held == self._announced:
            return
        if not self._announced:
            logger.log(NOTICE, "ready: %s partitions", held)
        elif self._holds_any() and self._held.count(held) == _AT_REST:
            logger.log(NOTICE, "rebalanced: %s partitions", held)
        else:
            return
        self._announced = held

    def _holds_any(self) -> bool:
        """False also during a rebalance, when all has been given up and nothing been given yet."""
        return any(transport_of(app).progress() for app in self._flow.apps.values())

    def _sample_state(self) -> None:
        metrics = self._flow.metrics
        unaccounted: dict[tuple[str, ...], float] = {}
        dropped: Counter[str] = Counter()
        for stage, part in self._flow.parts.items():
            if not isinstance(part, StageLoop) or stage == "learn":
                continue
            held = [work.held() for work in part.works.values()]
            metrics.state_keys.set(sum(keys for keys, _ in held), stage)
            metrics.state_bytes.set(sum(size for _, size in held), stage)
            if stage == "label":
                metrics.pending_labels.set(sum(len(work.state.verdicts) for work in part.works.values()))
            else:
                for number, work in part.works.items():
                    unaccounted[stage, str(number)] = work.unaccounted
                    dropped.update(work.dropped())
        metrics.unaccounted.set(sum(unaccounted.values()))
        metrics.partition_unaccounted.replace(unaccounted)
        for what, entries in dropped.items():
            metrics.state_dropped.set(entries, what)


def _version() -> str:
    try:
        return installed_version("fraudstream")
    except PackageNotFoundError:  # run from a tree that is not installed
        return "unknown"
