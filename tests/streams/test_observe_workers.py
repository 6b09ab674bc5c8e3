"""The observe stage in worker processes: what is published does not depend on how many there are."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import aiokafka
import numpy as np
import pytest
from aiokafka.admin import AIOKafkaAdminClient

from streams.contract.codecs import encode
from streams.contract.records import Feedback
from streams.feature_settings import catalogue_of, feature_spec
from streams.settings import Settings, load
from streams.stages.columns import Columns
from streams.stages.merge_core import MergeCore
from streams.stages.merge_state import MergeState, MergeStep
from streams.stages.observe_core import ObserveCore
from streams.stages.observe_state import ObserveState, ObserveStep
from streams.times import DAY, HOUR
from tests.streams.clients import topic_names, unique
from tests.streams.observed import PARTITIONS, actions, made_up, messages, outcomes

ROOT = Path(__file__).resolve().parents[2]
SPEC = feature_spec(Settings())
Records = dict[bytes, bytes]


class Inputs:
    """What there is to observe, by topic and partition, in two halves."""

    def __init__(self) -> None:
        self.scored: list[list[Columns]] = []
        self.feedback: list[list[Feedback]] = []
        self.outcomes: list[Columns] = []
        for partition in range(PARTITIONS):
            rows = made_up(500, partition, hours=30, features=len(SPEC.names), partition=partition)
            rows.meta["spec"] = SPEC.digest
            self.scored.append(messages(rows, partition))
            self.feedback.append([item for _, item in actions(rows, partition)])
            alert, fraud = rows.bools("alert"), np.random.default_rng(partition).random(len(rows)) < 0.3
            for row in np.flatnonzero(alert).tolist():
                one = rows.take(np.array([row]))
                said = np.array([fraud[row]])
                for verdict in (~said, said):
                    self.outcomes.append(outcomes(one, partition, verdict, "analyst", HOUR))
            others = np.flatnonzero(~alert)
            for chosen in np.array_split(others, 10):
                matured = rows.take(chosen)
                self.outcomes.append(outcomes(matured, partition, fraud[chosen], "maturity", DAY))

    def expected(self) -> Records:
        """The last record of every window, from the cores alone."""
        core, merge, state = ObserveCore(), MergeCore(), MergeState(PARTITIONS)
        for partition in range(PARTITIONS):
            cards = ObserveState(PARTITIONS)
            for rows in self.scored[partition]:
                core.count(cards, ObserveStep(), [core.scored(cards, ObserveStep(), rows)])
            core.feedback(cards, ObserveStep(), self.feedback[partition])
            merge.parts(state, MergeStep(), core.parts(cards, ObserveStep(), partition))
        for rows in self.outcomes:
            merge.outcomes(state, MergeStep(), rows)
        return {
            f"window/{record['window']}/{record['end']}".encode(): encode(record)
            for _, records in merge.publish(state, 250)
            for record in records
        }


class Installation:
    """Topics of their own, workers that observe them."""

    def __init__(self, broker: str, folder: Path) -> None:
        prefix = unique("observe")
        names = topic_names(prefix)
        values = {**names, "broker.bootstrap": broker, "topics.partitions": PARTITIONS}
        self.settings = load(overrides=values, environ={})
        self.catalogue = catalogue_of(self.settings, SPEC)
        self.broker = broker
        topics = "\n".join(f'{key.removeprefix("topics.")} = "{name}"' for key, name in names.items())
        self._config = folder / f"{prefix}.toml"
        self._config.write_text(
            f'[broker]\nbootstrap = "{broker}"\n[topics]\npartitions = {PARTITIONS}\n{topics}\n'
            '[worker]\nmetrics_port = 0\nsession_timeout = "6s"\n'
        )
        self._workers: list[subprocess.Popen[bytes]] = []

    def worker(self) -> subprocess.Popen[bytes]:
        command = [sys.executable, "-m", "streams.cli", "worker", "--stages", "observe"]
        worker = subprocess.Popen(
            [*command, "--config", str(self._config)], cwd=ROOT, stdin=subprocess.DEVNULL
        )
        self._workers.append(worker)
        return worker

    async def __aenter__(self) -> Installation:
        admin = AIOKafkaAdminClient(bootstrap_servers=self.broker)
        await admin.start()
        try:
            await self.catalogue.ensure(admin)
        finally:
            await admin.close()
        return self

    async def __aexit__(self, *_: object) -> None:
        for worker in self._workers:
            worker.kill()
            worker.wait()

    async def send(self, inputs: Inputs, half: int) -> None:
        """The first (0) or the second (1) half of all inputs."""

        def chosen(values: Sequence[bytes]) -> list[bytes]:
            middle = len(values) // 2
            return list(values[middle:] if half else values[:middle])

        feedback = {p: [encode(item) for item in inputs.feedback[p]] for p in range(PARTITIONS)}
        topics = {
            "scored": {p: [rows.encode() for rows in inputs.scored[p]] for p in range(PARTITIONS)},
            "feedback": feedback,
            "outcomes": {0: [rows.encode() for rows in inputs.outcomes]},
        }
        async with aiokafka.AIOKafkaProducer(bootstrap_servers=self.broker, acks="all") as producer:
            for topic, values in topics.items():
                name = self.catalogue.name(topic)
                sent = [
                    await producer.send(name, value, b"c", partition)
                    for partition, each in values.items()
                    for value in chosen(each)
                ]
                await asyncio.gather(*sent)

    async def published(self, wanted: Records) -> Records:
        """The last record of every window, once they are as wanted; else what there is after a while."""
        tp = aiokafka.TopicPartition(self.catalogue.name("metrics"), 0)
        last: Records = {}
        async with aiokafka.AIOKafkaConsumer(
            bootstrap_servers=self.broker, auto_offset_reset="earliest"
        ) as consumer:
            consumer.assign([tp])
            try:
                async with asyncio.timeout(90):
                    while any(last.get(key) != value for key, value in wanted.items()):
                        for record in (await consumer.getmany(tp, timeout_ms=200)).get(tp, ()):
                            last[record.key] = record.value
            except TimeoutError:
                pass
        return last


@pytest.mark.broker
@pytest.mark.parametrize("case", ["one", "two", "killed"])
def test_windows_are_the_same_with_one_worker_two_and_one_killed(
    case: str, broker: str, tmp_path: Path
) -> None:
    """To the digit what the cores alone give, also when the worker is killed half way and another goes on."""
    inputs = Inputs()
    expected = inputs.expected()
    windows = {key for key in expected if key.startswith(b"window/")}
    assert len(windows) > 500

    async def scenario() -> Records:
        async with Installation(broker, tmp_path) as installation:
            first = installation.worker()
            if case == "two":
                installation.worker()
            await installation.send(inputs, 0)
            if case == "killed":
                early = next(iter(sorted(windows)))
                await installation.published({early: expected[early]})
                first.kill()
                first.wait()
                installation.worker()
            await installation.send(inputs, 1)
            return await installation.published(expected)

    found = asyncio.run(scenario())
    assert {key: found.get(key) for key in expected} == expected
    assert windows == {key for key in found if key.startswith(b"window/")}
