"""Making a move: what it is about is checked, it is written, and what has come of it is waited for."""

from __future__ import annotations

import asyncio
from contextlib import aclosing
from dataclasses import replace

import msgspec

from models.gates import Judgement, Limits
from models.registry import Move, MoveRefused, Pin, Registry, moved
from models.snapshot import Snapshot, decode
from models.snapshot_document import SnapshotError
from streams.commands.aliases import read_registry
from streams.contract.model_records import is_withheld, key_of
from streams.contract.moves import MoveUnusable, encode_move
from streams.contract.records import Adoption
from streams.errors import FraudstreamError, NoSuchModel
from streams.feature_settings import catalogue_of, feature_spec
from streams.kafka.clients import connect, follow, read_all, read_tail
from streams.kafka.connection import security_options
from streams.kafka.outputs import Output, Outputs
from streams.keys import signing_key
from streams.settings import Settings
from streams.stages import columns
from streams.stages.validation import validate

#: Messages of outcomes, each of many rows, that a version is judged on.
OUTCOME_MESSAGES = 500


class NotUsable(FraudstreamError):
    """Choose another version: this one would be refused by the workers."""


class NotFit(FraudstreamError):
    """Look at the figures: the version fails a gate on stored outcomes."""


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


def pin_of(text: str) -> Pin:
    """`NAME` or `NAME/VERSION`.

    Raises:
        ValueError: it is neither.
    """
    name, slash, number = text.partition("/")
    if slash and not (number.isascii() and number.isdigit() and int(number)):
        raise ValueError("a version is a whole number from 1 on, for instance binned/12")
    return Pin(name, int(number) if slash else None)


async def read_documents(settings: Settings, name: str) -> dict[int, bytes]:
    """The versions of a model that are on the topic, by number, as they stand there."""
    found: dict[int, bytes] = {}
    async with aclosing(read_all(settings.broker, settings.topics.models)) as records:
        async for record in records:
            key = key_of(record.key)
            if key is None or key[0] != name:
                continue
            if record.value is None:
                found.pop(key[1], None)
            else:
                found[key[1]] = record.value
    return found


def newest(documents: dict[int, bytes], before: int | None = None) -> int:
    """The newest version that aliases follow to, among those below `before`; 0 if there is none."""
    return max(
        (n for n, each in documents.items() if (before is None or n < before) and not is_withheld(each)),
        default=0,
    )


def usable(settings: Settings, pin: Pin, documents: dict[int, bytes]) -> Snapshot:
    """The version that a pin stands for now, as a worker would load it.

    Raises:
        NoSuchModel: there is none.
        NotUsable: workers would refuse it.
    """
    if pin.version not in documents and (pin.version is not None or not newest(documents)):
        raise NoSuchModel(
            f"no {pin} on {settings.topics.models}; `fraudstream models list` shows what there is"
        )
    number = pin.version or newest(documents)
    try:
        return decode(documents[number], feature_spec(settings).digest, signing_key(settings.models))
    except SnapshotError as error:
        raise NotUsable(f"{pin.name}/{number} cannot be used: {type(error).__name__}: {error}") from None


async def judged(settings: Settings, snapshot: Snapshot) -> Judgement:
    """What the gates say of a version on the outcomes stored last."""
    topic = catalogue_of(settings, feature_spec(settings)).name("outcomes")
    records = await read_tail(settings.broker, topic, OUTCOME_MESSAGES)
    return validate(
        snapshot,
        (columns.decode(record.value or b"") for record in records),
        threshold=settings.policy.threshold,
        limits=Limits(frauds=settings.gates.min_frauds, days=0.0),
    )


def evidence_of(snapshot: Snapshot) -> dict[str, float | int | str | None]:
    """What a version says of itself, for the record of a move."""
    return {
        "version": snapshot.version,
        "sha256": snapshot.sha256,
        "learned": snapshot.n_learned,
        "learned_until": snapshot.created_at_event_time,
    }


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
    outputs = Outputs(settings.broker.bootstrap, security=security_options(settings.broker))
    await connect(outputs, outputs.stop, settings.broker)
    try:
        name = move.model.name if move.model else "alerts"
        await outputs.send([Output(topic, 0, name.encode(), value)])
    finally:
        await outputs.stop()
    after = await read_registry(settings)
    if after.last < move.number or after.history[move.number - 1].move != move:
        raise MoveFailed(
            "nothing has changed: somebody else has made a move at the same time; look at "
            "`fraudstream models history`, and decide anew"
        )
    in_use = await _in_use(settings, move.number, seconds)
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


async def _in_use(settings: Settings, number: int, seconds: float) -> dict[int, dict[str, int]]:
    """By score partition, after which offsets that move, or one after it, is in use."""
    found: dict[int, dict[str, int]] = {}

    async def look() -> None:
        async with aclosing(follow(settings.broker, settings.topics.metrics, from_beginning=True)) as records:
            async for record in records:
                if record.key != b"deployment":
                    continue
                adoption = msgspec.json.decode(record.value, type=Adoption)
                if adoption.move >= number:
                    found.setdefault(adoption.partition, adoption.applied)
                    if len(found) == settings.topics.partitions:
                        return

    looking = asyncio.create_task(look())
    try:
        ended, _ = await asyncio.wait([looking], timeout=seconds)
    finally:
        # Again and again: aiokafka loses a cancellation that comes while it connects.
        while not looking.done():
            looking.cancel()
            await asyncio.wait([looking], timeout=0.5)
    for each in ended:
        each.result()
    return found
