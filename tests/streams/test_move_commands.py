"""The commands that move models, where no worker runs: what they refuse, what they write, what they say."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
import threading
from collections.abc import AsyncGenerator, Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import msgspec
import pytest
from confluent_kafka import OFFSET_BEGINNING, Consumer, Producer, TopicPartition

from models.registry import Move, Pin
from models.scorers.rules import RulesScorer
from models.snapshot import encode, make
from models.spec import FeatureSpec
from streams.commands import moving
from streams.commands.aliases import read_registry
from streams.commands.moving import MoveFailed, make_move
from streams.contract.model_records import model_key
from streams.contract.records import Adoption, ModelRef
from streams.kafka.outputs import Output
from streams.settings import load
from tests.streams.clients import unique
from tests.streams.test_cli import ROOT, Cli

pytestmark = pytest.mark.broker
SPEC = FeatureSpec.default()


@pytest.fixture
def models(broker: str) -> Cli:
    """Versions of two models, one of them of another spec."""
    cli = Cli(broker, unique("moves"))
    assert cli("topics", "create").exit_code == 0
    for name, version, spec in (
        ("binned", 1, SPEC.digest),
        ("binned", 2, SPEC.digest),
        ("forest", 1, "f" * 16),
    ):
        scorer = RulesScorer.build(SPEC.names)
        document = encode(make(scorer, name=name, version=version, spec_digest=spec))
        cli.publish(Output(cli.topic("models"), 0, model_key(name, version), document))
    return cli


def history(cli: Cli) -> list[dict[str, Any]]:
    moves: list[dict[str, Any]] = json.loads(cli("models", "history", "--json").stdout)
    return moves


def listed_models(cli: Cli) -> list[dict[str, Any]]:
    versions: list[dict[str, Any]] = json.loads(cli("models", "list", "--json").stdout)
    return versions


def test_what_cannot_be_moved_is_refused(models: Cli) -> None:
    """With the reason and what to do, and nothing written."""
    for arguments, said in (
        (("promote", "nobody"), "`fraudstream models list`"),
        (("promote", "binned/3"), "no binned/3"),
        (("promote", "forest"), "SpecMismatchError"),
        (("promote", "binned"), "the champion already"),
        (("canary", "binned", "--percent", "5"), "is the champion"),
        (("canary", "binned/2", "--percent", "0"), "no canary"),
        (("shadow", "remove", "nobody"), "no shadow"),
        (("shadow", "add", "binned/1"), "champion or canary"),
        (("rollback", "--to", "binned/9"), "no binned/9"),
        (("promote", "binned/1", "--reason", "x" * 501), "reason"),
    ):
        result = models("models", *arguments)
        assert result.exit_code == 1, arguments
        assert said in result.stderr
        assert len(result.stderr.splitlines()) == 1
    for arguments in (
        ("promote", "binned/x"),
        ("canary", "binned/1", "--percent", "101"),
        ("canary", "binned/1"),
    ):
        assert models("models", *arguments).exit_code == 2
    assert models("alerts", "release").exit_code == 1
    assert history(models) == []
    assert "no move has been made; champion by the settings: binned" in models("models", "history").stdout


def test_a_move_that_no_worker_uses_yet_counts_all_the_same(models: Cli) -> None:
    """The command fails and says which partitions are missing; what has said so is not waited for."""
    for partition in (0, 1):  # of an older history of moves
        models.publish(Output(models.topic("metrics"), 0, b"deployment", adoption(partition, 9)))
    late = models("models", "rollback", "--wait", "0.3", "--who", "ada", "--reason", "v2 is no good")
    assert late.exit_code == 1
    assert "move 1 counts, but after 0.3 s it is not in use on partitions 0, 1" in late.stderr
    roles = {(each["name"], each["version"]): each["role"] for each in listed_models(models)}
    assert roles == {("binned", 1): "champion", ("binned", 2): "", ("forest", 1): "shadow"}
    (entry,) = history(models)
    assert (entry["kind"], entry["model"], entry["champion"]) == ("rollback", "binned/1", "binned/1")
    assert (entry["who"], entry["reason"], entry["evidence"]["version"]) == ("ada", "v2 is no good", 1)
    with adopting(models):
        back = models("models", "rollback")
    assert back.exit_code == 0, back.stderr
    assert "move 2, in use on all 2 partitions: champion binned; shadows forest, logistic" in back.stdout
    roles = {(each["name"], each["version"]): each["role"] for each in listed_models(models)}
    assert roles == {("binned", 2): "champion", ("forest", 1): "shadow"}
    listed = models("models", "history").stdout
    assert "v2 is no good" in listed


def test_alerts_are_held_and_released(models: Cli) -> None:
    """By moves without a model."""
    with adopting(models):
        assert models.document("alerts", "hold", "--reason", "first weeks")["alerts_held"] is True
        assert models("alerts", "hold").exit_code == 1
        assert models.document("alerts", "release")["alerts_held"] is False
    held, released = history(models)
    assert (held["alerts_held"], released["alerts_held"]) == (True, False)


def test_a_version_without_outcomes_is_validated_by_its_own_rows(models: Cli) -> None:
    """It loads; the gates know too little to say anything, which stops nobody."""
    found = models.document("models", "validate", "binned/2")
    assert (found["version"], found["failures"], found["outcomes"]) == (2, "unknown", 0)
    assert models("models", "validate", "forest").exit_code == 1


def test_a_withheld_version_is_listed_and_moves_by_force_only(models: Cli) -> None:
    """Aliases that follow stay before it; it is shown with the reason, and can be named."""
    scorer = RulesScorer.build(SPEC.names)
    made = make(scorer, name="binned", version=3, spec_digest=SPEC.digest, withheld="AUC 0.5 against 0.9")
    models.publish(Output(models.topic("models"), 0, model_key("binned", 3), encode(made)))
    roles = {(each["name"], each["version"]): each["role"] for each in listed_models(models)}
    assert roles == {("binned", 2): "champion", ("binned", 3): "", ("forest", 1): "shadow"}
    assert "withheld: AUC 0.5 against 0.9" in models("models", "list").stdout
    assert models.document("models", "show", "binned/3")["withheld"] == "AUC 0.5 against 0.9"
    assert models.document("models", "validate", "binned")["version"] == 2
    refused = models("models", "promote", "binned/3")
    assert refused.exit_code == 1
    assert "is withheld: AUC 0.5 against 0.9; --force moves it all the same" in refused.stderr
    assert models("models", "rollback", "--wait", "0").exit_code == 1
    (entry,) = history(models)
    assert entry["champion"] == "binned/1", "back from the second, not from the third"
    assert models("models", "promote", "binned/3", "--force", "--wait", "0").exit_code == 1
    assert (history(models)[-1]["champion"], history(models)[-1]["evidence"]["forced"]) == ("binned/3", 1)


def test_of_two_people_who_move_at_once_one_is_told(models: Cli) -> None:
    """Whoever has decided on aliases that have moved meanwhile has changed nothing."""
    settings = load(environ=models.environment)
    move = Move(0, "shadow-remove", Pin("logistic"), who="ada", at=1_735_689_600_000)

    async def scenario() -> None:
        seen = await read_registry(settings)
        other = Move(0, "promote", Pin("binned", 1), who="bob", at=1_735_689_600_000)
        with pytest.raises(Exception, match="counts"):
            await make_move(settings, seen, other, seconds=0)
        with pytest.raises(MoveFailed, match="somebody else"):
            await make_move(settings, seen, move, seconds=0)
        assert [entry.move.who for entry in (await read_registry(settings)).history] == ["bob"]

    asyncio.run(scenario())


def test_who_has_been_champion_comes_back_unloaded(models: Cli) -> None:
    """A version that this machine computes otherwise: refused where it has never been champion; where it has
    been, whether it can be used is for the workers to say.
    """
    made = make(RulesScorer.build(SPEC.names), name="binned", version=3, spec_digest=SPEC.digest)
    wrong = encode(replace(made, golden_scores=made.golden_scores + 1e-9))
    assert models("models", "promote", "binned/2", "--wait", "0").exit_code == 1
    models.publish(Output(models.topic("models"), 0, model_key("binned", 3), wrong))
    for refused in (("promote", "binned/3", "--force"), ("rollback", "--to", "binned/3")):
        result = models("models", *refused, "--wait", "0")
        assert "binned/3 cannot be used: GoldenMismatchError" in result.stderr
    assert "GoldenMismatchError" in models("models", "validate", "binned/3").stderr
    with adopting(models):
        assert models.document("models", "rollback")["champion"] == "binned"
    damaged = wrong.replace(b'"version":3', b'"version":4')
    models.publish(Output(models.topic("models"), 0, model_key("binned", 4), damaged))
    models("models", "promote", "binned/2", "--wait", "0")
    assert "binned/4 cannot be used: SnapshotDamagedError" in models("models", "rollback").stderr
    assert [entry["champion"] for entry in history(models)] == ["binned/2", "binned", "binned/2"]


@pytest.mark.parametrize(
    "command", ["rollback --json", "history --json", "list --json", "show binned/2 --json"]
)
def test_what_loads_no_model_waits_for_no_compiler(models: Cli, command: str) -> None:
    """It works where neither numba nor numpy can be imported."""
    models("models", "promote", "binned/1", "--wait", "0")
    without = (
        "import sys; sys.modules |= {'numba': None, 'numpy': None}; from streams.cli import main; main()"
    )
    with adopting(models):
        ran = subprocess.run(
            [sys.executable, "-c", without, "models", *command.split()], cwd=ROOT, capture_output=True,
            env={**os.environ, **models.environment},
        )  # fmt: skip
    assert ran.returncode == 0, ran.stderr
    assert json.loads(ran.stdout)


def adoption(partition: int, move: int, offset: int = 17) -> bytes:
    """What a score partition tells that uses a move."""
    models = ModelRef("binned", 2)
    return msgspec.json.encode(Adoption(partition, move, models, None, 0.0, [], False, {"0": offset}, {}, 5))


@contextmanager
def adopting(cli: Cli) -> Iterator[None]:
    """Two score partitions that use every move at once."""
    stop = threading.Event()
    reader = Consumer({"bootstrap.servers": cli.broker, "group.id": "adopting"})
    reader.assign([TopicPartition(cli.topic("control"), 0, OFFSET_BEGINNING)])
    producer = Producer({"bootstrap.servers": cli.broker})

    def adopt() -> None:
        while not stop.is_set():
            for message in reader.consume(10, 0.05):
                move = json.loads(message.value() or b"")["id"]
                for partition in (0, 1):
                    producer.produce(cli.topic("metrics"), adoption(partition, move), b"deployment")
            producer.poll(0)

    partitions = threading.Thread(target=adopt)
    partitions.start()
    try:
        yield
    finally:
        stop.set()
        partitions.join()
        producer.flush()
        reader.close()


def test_waiting_ends_with_what_has_been_told() -> None:
    """By the partitions that use the move or a later one; what else is on the topic counts for nothing."""

    class Record(msgspec.Struct):
        key: bytes
        value: bytes

    async def told() -> AsyncGenerator[Record, None]:
        for key, value in (
            (b"window/1", b"{}"),
            (b"deployment", adoption(0, 2)),
            (b"deployment", adoption(1, 1)),
            (b"deployment", adoption(2, 3)),
            (b"deployment", adoption(2, 4, offset=18)),
        ):
            yield Record(key, value)
        await asyncio.Event().wait()

    found = asyncio.run(moving._in_use(told(), 2, partitions=3, seconds=0.2))
    assert found == {0: {"0": 17}, 2: {"0": 17}}
    found = asyncio.run(moving._in_use(told(), 1, partitions=3, seconds=60))
    assert list(found) == [0, 1, 2]
