"""The checks of `fraudstream doctor`: each says what it found and, where it failed, the cure."""

from __future__ import annotations

import asyncio
import sys
import time
from collections.abc import Iterable
from importlib import metadata
from pathlib import Path
from typing import Literal

import msgspec
from packaging.requirements import Requirement

from streams.errors import FraudstreamError
from streams.sections import Broker
from streams.settings import Settings, load

Status = Literal["ok", "failed", "skipped"]

_OLDEST_PYTHON = (3, 11)
_DISTRIBUTION = "fraudstream"
_PORT_SECONDS = 5.0


class Check(msgspec.Struct, frozen=True):
    """What a check found; `cure` is empty unless it failed."""

    name: str
    status: Status
    found: str
    cure: str = ""


async def diagnose(config: Path | None, broker: str | None) -> list[Check]:
    """Every check, in the order in which a failure explains the later ones."""
    checks = [check_python(sys.version_info[:3]), *check_libraries(_requirements())]
    try:
        settings = load(config, {"broker.bootstrap": broker})
    except FraudstreamError as error:
        checks.append(
            Check("settings", "failed", str(error), "correct the keys named; `fraudstream config show`")
        )
        return [*checks, *(Check(name, "skipped", "no settings") for name in ("broker", "topics", "models"))]
    checks.append(await asyncio.to_thread(check_settings, settings))
    ports = await asyncio.gather(*(_check_port(address) for address in settings.broker.bootstrap.split(",")))
    checks += ports
    if all(check.status == "failed" for check in ports):
        return [*checks, *(Check(name, "skipped", "no broker") for name in ("broker", "topics", "models"))]
    entered = await _check_broker(settings.broker)
    checks.append(entered)
    if entered.status == "failed":
        return [*checks, *(Check(name, "skipped", "no broker") for name in ("topics", "models"))]
    return [*checks, await _check_topics(settings), await _check_models(settings)]


def check_python(version: tuple[int, ...]) -> Check:
    """Python is new enough."""
    found = ".".join(map(str, version))
    if version >= _OLDEST_PYTHON:
        return Check("python", "ok", found)
    return Check("python", "failed", found, "install Python 3.11 or later and make the environment with it")


def check_libraries(requirements: Iterable[Requirement]) -> list[Check]:
    """Every library is there in a version of the supported range."""
    checks = []
    for each in requirements:
        wanted = f"{each.name} {each.specifier}"
        cure = f"pip install '{each.name}{each.specifier}', or `make install` for the tested versions"
        try:
            version = metadata.version(each.name)
        except metadata.PackageNotFoundError:
            checks.append(Check(each.name, "failed", f"not installed, {wanted} is needed", cure))
            continue
        if each.specifier.contains(version, prereleases=True):
            checks.append(Check(each.name, "ok", version))
        else:
            checks.append(Check(each.name, "failed", f"{version}, {wanted} is supported", cure))
    return checks or [
        Check(
            "libraries", "skipped", "run from a source tree that is not installed: no ranges to compare with"
        )
    ]


def _requirements() -> list[Requirement]:
    """What this installation needs, without extras; nothing if it is not installed."""
    try:
        texts = metadata.requires(_DISTRIBUTION) or []
    except metadata.PackageNotFoundError:
        return []
    required = map(Requirement, texts)
    return [each for each in required if each.marker is None or each.marker.evaluate({"extra": ""})]


def check_settings(settings: Settings) -> Check:
    """The feature spec and the learners of the settings can be built."""
    from streams.feature_settings import feature_spec
    from streams.stages.model_slots import build_learners

    try:
        build_learners(settings.models, feature_spec(settings))
    except FraudstreamError as error:
        return Check("settings", "failed", str(error), "correct the key named; `fraudstream config check`")
    return Check("settings", "ok", f"digest {settings.digest}")


async def _check_port(address: str) -> Check:
    host, _, port = address.rpartition(":")
    name = f"port {address}"
    began = time.perf_counter()
    try:
        async with asyncio.timeout(_PORT_SECONDS):
            _, writer = await asyncio.open_connection(host, int(port))
    except TimeoutError:
        return Check(
            name, "failed", f"no answer in {_PORT_SECONDS:g} s", "look at the address and the firewall"
        )
    except OSError as error:
        cure = "start a broker (`fraudstream broker`) or correct broker.bootstrap or --broker"
        return Check(name, "failed", error.strerror or type(error).__name__, cure)
    writer.close()
    return Check(name, "ok", f"open, {(time.perf_counter() - began) * 1000:.0f} ms")


async def _check_broker(broker: Broker) -> Check:
    from streams.kafka.clients import admin_client

    began = time.perf_counter()
    try:
        async with admin_client(broker) as admin:
            cluster = await admin.describe_cluster()
    except FraudstreamError as error:
        cure = "compare broker.security, ca_file, sasl_mechanism and user with the listener's"
        return Check("broker", "failed", str(error), cure)
    count = len(cluster["brokers"])
    took = (time.perf_counter() - began) * 1000
    return Check(
        "broker", "ok", f"{count} broker{'s' if count != 1 else ''}, {broker.security}, {took:.0f} ms"
    )


async def _check_topics(settings: Settings) -> Check:
    from streams.commands.admin import describe_topics

    try:
        presences = await describe_topics(settings)
    except FraudstreamError as error:
        return Check("topics", "failed", str(error), "look at the broker's log")
    missing = [each.topic.name for each in presences if not each.partitions]
    if missing:
        return Check("topics", "failed", f"missing: {', '.join(missing)}", "`fraudstream topics create`")
    different = [each for each in presences if each.partitions != each.topic.partitions]
    if different:
        found = "; ".join(
            f"{each.topic.name} has {each.partitions} partitions, the settings say {each.topic.partitions}"
            for each in different
        )
        cure = (
            "set topics.partitions to what the topics have, or choose other names: state is kept by partition"
        )
        return Check("topics", "failed", found, cure)
    return Check("topics", "ok", f"{len(presences)} topics, flow of {settings.topics.partitions} partitions")


async def _check_models(settings: Settings) -> Check:
    from models.snapshot import decode
    from streams.commands.model_versions import read_versions
    from streams.feature_settings import feature_spec

    try:
        versions = await read_versions(settings, read=decode)
        spec = feature_spec(settings).digest
    except FraudstreamError as error:
        return Check(
            "models", "failed", str(error), "`fraudstream topics create`; `fraudstream config check`"
        )
    mine = [each for each in versions if each.role]
    bad = [f"{each.name} v{each.version}: {each.problem}" for each in mine if each.problem]
    if bad:
        cure = "run the version of fraudstream that wrote it, or let the learn stage publish the next one"
        return Check("models", "failed", "; ".join(bad), cure)
    foreign = [f"{each.name} v{each.version}" for each in mine if each.spec != spec]
    if foreign:
        cure = (
            "restore the [features] they were learned on, or let them learn anew: rules stand in until then"
        )
        return Check("models", "failed", f"learned on another feature spec: {', '.join(foreign)}", cure)
    listed = ", ".join(f"{each.role} {each.name} v{each.version}" for each in mine)
    return Check("models", "ok", listed or "none published yet: rules stand in")
