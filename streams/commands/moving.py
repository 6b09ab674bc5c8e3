"""Making a move: what it is about is checked, it is written, and what has come of it is waited for."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterable, Awaitable, Callable
from dataclasses import replace
from typing import Any

import msgspec

from models.registry import Aliases, Move, MoveRefused, Pin, Registry, moved
from streams.commands.aliases import read_registry
from streams.commands.candidates import Evidence, described, evidence_of, read_documents
from streams.contract.moves import MoveUnusable, encode_move
from streams.contract.records import Adoption
from streams.errors import FraudstreamError
from streams.kafka.clients import arrivals, connect
from streams.kafka.connection import security_options
from streams.kafka.outputs import Output, Outputs
from streams.keys import signing_key
from streams.settings import Settings

#: The model to move, by the aliases as they are; None for a move of the alerts.
Choice = Callable[[Aliases], Awaitable[Pin | None]]


class MoveFailed(FraudstreamError):
    """Nothing has changed: the message says why, and what to do."""


class NotInUse(FraudstreamError):
    """The move counts, but not all partitions use it yet: look at the workers."""


class Made(msgspec.Struct, frozen=True):
    """A move that counts; `in_use` says of each score partition after which offsets of the transactions."""

    move: int
    kind: str
    model: str
    champion: str
    canary: str
    percent: float
    shadows: list[str]
    alerts_held: bool
    in_use: dict[int, dict[str, int]]


async def checked_and_made(
    settings: Settings, move: Move, choose: Choice, *, seconds: float, force: bool
) -> Made:
    """Make a move of the model that is chosen by the aliases as they are, with the evidence for it.

    Args:
        choose: the model by the present aliases, None for a move of the alerts.
        force: also if it fails a gate, or is withheld.

    Raises:
        NoSuchModel, NotUsable, NotFit: the model is not fit to be moved.
        MoveFailed, NotInUse: see `make_move`.
    """
    registry = await read_registry(settings)
    pin = await choose(registry.aliases)
    move = replace(move, model=pin)
    ends_canary = move.kind == "canary" and move.percent == 0.0
    if pin is not None and move.kind != "shadow-remove" and not ends_canary:
        documents = await read_documents(settings, pin.name)
        if move.kind == "rollback" and registry.crowned(pin):
            # Workers have scored with it, and check it anew: to go back never waits for a scorer to load.
            evidence = evidence_of(described(settings, pin, documents))
        else:
            validated = move.kind != "rollback" and pin != registry.aliases.canary
            evidence = await _examined(settings, pin, documents, validated=validated, force=force)
        move = replace(move, evidence=evidence)
    return await make_move(settings, registry, move, seconds=seconds)


async def _examined(
    settings: Settings, pin: Pin, documents: dict[int, bytes], *, validated: bool, force: bool
) -> Evidence:
    """The evidence for a version that is loaded here as a worker would load it, and judged if `validated`."""
    # Not before: what scores takes longer to import than all else that a move does.
    from streams.commands.judging import NotFit, failures, judged, usable

    snapshot = usable(settings, pin, documents)
    if not validated:
        return evidence_of(snapshot)
    judgement = await judged(settings, snapshot)
    if judgement.failed and not force:
        raise NotFit(f"{pin} {failures(judgement)}; --force moves it all the same")
    if snapshot.withheld and not force:
        raise NotFit(f"{pin} is withheld: {snapshot.withheld}; --force moves it all the same")
    forced = int(bool(judgement.failed or snapshot.withheld))
    return evidence_of(snapshot) | judgement.as_evidence() | {"forced": forced}


async def make_move(settings: Settings, registry: Registry, move: Move, *, seconds: float) -> Made:
    """Write the next move after those of `registry`, and wait until every partition uses it.

    Raises:
        MoveFailed: it does not count.
        NotInUse: it does, but after `seconds` a partition does not use it yet.
    """
    move = replace(move, number=registry.last + 1)
    topic, key = settings.topics.control, signing_key(settings.models)
    try:
        aliases = moved(registry.aliases, move)
        value = encode_move(move, topic, key)
    except (MoveRefused, MoveUnusable) as error:
        raise MoveFailed(f"nothing has changed: {error}") from None
    # What tells that the move is in use comes after it: the metrics of before, of days, are not read.
    async with arrivals(settings.broker, settings.topics.metrics) as told:
        await _send(settings, Output(topic, 0, (move.model.name if move.model else "alerts").encode(), value))
        after = await read_registry(settings)
        if after.last < move.number or after.history[move.number - 1].move != move:
            raise MoveFailed(
                "nothing has changed: somebody else has made a move at the same time; look at "
                "`fraudstream models history`, and decide anew"
            )
        in_use = await _in_use(told, move.number, settings.topics.partitions, seconds)
    missing = sorted(set(range(settings.topics.partitions)) - set(in_use))
    if missing:
        raise NotInUse(
            f"move {move.number} counts, but after {seconds:g} s it is not in use on partitions "
            f"{', '.join(map(str, missing))}: workers with the score stage take it over as soon as they run "
            "and are done with what was under way"
        )
    return Made(
        move=move.number,
        kind=move.kind,
        model=str(move.model or ""),
        champion=str(aliases.champion),
        canary=str(aliases.canary or ""),
        percent=aliases.percent,
        shadows=[str(pin) for pin in aliases.shadows],
        alerts_held=aliases.alerts_held,
        in_use=in_use,
    )


async def _send(settings: Settings, event: Output) -> None:
    outputs = Outputs(settings.broker.bootstrap, security=security_options(settings.broker))
    await connect(outputs, outputs.stop, settings.broker)
    try:
        await outputs.send([event])
    finally:
        await outputs.stop()


async def _in_use(
    told: AsyncIterable[Any], number: int, partitions: int, seconds: float
) -> dict[int, dict[str, int]]:
    """By score partition, after which offsets that move, or one after it, is in use; whoever has said so."""
    found: dict[int, dict[str, int]] = {}
    try:
        async with asyncio.timeout(seconds):
            async for record in told:
                if record.key != b"deployment":
                    continue
                adoption = msgspec.json.decode(record.value, type=Adoption)
                if adoption.move >= number:
                    found.setdefault(adoption.partition, adoption.applied)
                    if len(found) == partitions:
                        break
    except TimeoutError:
        pass
    return found
