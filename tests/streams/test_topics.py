"""The topic catalogue, and its creation on a broker."""

from __future__ import annotations

import asyncio
import re
from pathlib import Path

import pytest
from aiokafka.admin import AIOKafkaAdminClient

from streams import app
from streams.app import STAGES
from streams.contract.rejections import CODES
from streams.errors import SettingsError, TopicMismatch, TopicRefused
from streams.kafka.connection import client_options
from streams.settings import Settings, load
from streams.topics import Catalogue
from tests.streams.clients import topic_names

ROOT = Path(__file__).resolve().parents[2]
PUBLIC = {
    "fraud.transactions.v1",
    "fraud.labels.v1",
    "fraud.feedback.v1",
    "fraud.scores.v1",
    "fraud.alerts.v1",
    "fraud.dead-letters.v1",
    "fraud.models.v1",
    "fraud.control.v1",
    "fraud.metrics.v1",
}


def named(prefix: str, broker: str = "localhost:9092", **flags: object) -> Settings:
    """Settings in which every topic name starts with the prefix."""
    more = {key.replace("__", "."): value for key, value in flags.items()}
    return load(overrides={**topic_names(prefix), "broker.bootstrap": broker, **more}, environ={})


def flow_table(text: str) -> dict[str, tuple[set[str], set[str]]]:
    """What each stage reads and writes, by a table with that in the second and the last column."""

    def topics(cell: str) -> set[str]:
        plain = re.sub(r" \([^)]*\)", "", cell).replace("<last entity>", "terminal")
        return {topic.strip() for topic in plain.split(",")}

    found: dict[str, tuple[set[str], set[str]]] = {}
    for line in text.splitlines():
        row = [cell.strip() for cell in line.strip("|").split("|")]
        stage = row[0].partition(",")[0]  # a stage may have a row for each of its loops
        if stage in STAGES:
            reads, writes = found.setdefault(stage, (set(), set()))
            reads |= topics(row[1])
            writes |= topics(row[-1])
    return found


@pytest.mark.parametrize("text", [app.__doc__ or "", (ROOT / "docs" / "architecture.md").read_text()])
def test_flow_tables_are_those_of_the_catalogue(text: str) -> None:
    """Whoever looks for the way of a transaction finds the same one in the composition root and the docs."""
    flow = [topic for topic in Catalogue.from_settings(Settings()) if not topic.id.endswith("-state")]
    assert flow_table(text) == {
        stage: (
            {topic.id for topic in flow if stage in topic.readers},
            {topic.id for topic in flow if stage in topic.writers},
        )
        for stage in STAGES
    }


def test_public_names_are_those_of_the_contract() -> None:
    """The default names of public topics are fixed; all others start with the internal prefix."""
    catalogue = Catalogue.from_settings(Settings())
    names = {topic.name for topic in catalogue}
    assert {name for name in names if not name.startswith("fraud.internal.")} == PUBLIC
    assert len(names) == len(catalogue.topics) == len({topic.id for topic in catalogue})
    assert catalogue.name("dead-letters") == "fraud.dead-letters.v1"
    assert catalogue.name("by-terminal") == "fraud.internal.by-terminal.v1"
    with pytest.raises(KeyError):
        catalogue["nothing"]


def test_every_name_is_a_setting() -> None:
    """A renamed topic is renamed in the catalogue, internal ones through their prefix."""
    catalogue = Catalogue.from_settings(named("bank"), entities=("device",))
    assert all(topic.name.startswith("bank.") for topic in catalogue)
    assert catalogue.name("by-device") == "bank.internal_prefix.by-device.v1"


def test_a_public_topic_is_no_internal_one() -> None:
    """Records of two kinds on one topic would end a stage, or be taken for its own."""
    settings = load(overrides={"topics.scores": "fraud.internal.by-terminal.v1"}, environ={})
    with pytest.raises(SettingsError, match="is the name of two topics"):
        Catalogue.from_settings(settings)


def test_topics_that_meet_in_a_stage_have_the_same_partitions() -> None:
    """What is keyed by card has the partitions of the setting, dead letters too; models have one."""
    catalogue = Catalogue.from_settings(load(overrides={"topics.partitions": 7}, environ={}))
    keys = ("card", "terminal", "score partition", "bucket", "as it came")
    assert {topic.partitions for topic in catalogue if topic.key in keys} == {7}
    assert {catalogue[id].partitions for id in ("models", "control", "metrics")} == {1}


def test_state_is_compacted_and_flow_is_retained_longer_than_maturity() -> None:
    """State and models are compacted and never expire; what is read late outlives the maturity of labels."""
    settings = Settings()
    for topic in Catalogue.from_settings(settings):
        compacted = topic.id == "models" or topic.id.endswith("-state")
        assert topic.cleanup == ("compact" if compacted else "delete")
        if not compacted and topic.id != "control":
            assert int(topic.config["retention.ms"]) > settings.labels.maturity
        if compacted:
            assert "retention.ms" not in topic.config


def test_every_written_topic_is_read_and_every_read_topic_written() -> None:
    """No topic lacks a writer or a reader."""
    for topic in Catalogue.from_settings(Settings()):
        assert topic.writers, topic.id
        assert topic.readers, topic.id


@pytest.mark.broker
def test_creation_is_idempotent_and_mismatches_are_refused(broker: str) -> None:
    """Missing topics are created once, by however many at a time; other numbers of partitions are refused."""

    async def run() -> None:
        settings = named("topics-test", broker)
        catalogue = Catalogue.from_settings(settings)
        first = AIOKafkaAdminClient(**client_options(settings.broker))
        second = AIOKafkaAdminClient(**client_options(settings.broker))
        await first.start()
        await second.start()
        try:
            assert {each.partitions for each in await catalogue.describe(first)} == {0}
            created = await asyncio.gather(catalogue.ensure(first), catalogue.ensure(second))
            assert sorted(created[0] + created[1]) == sorted(topic.name for topic in catalogue)
            assert all(each.partitions == each.topic.partitions for each in await catalogue.describe(second))
            assert await catalogue.ensure(second) == []
            other = Catalogue.from_settings(named("topics-test", broker, topics__partitions=3))
            with pytest.raises(
                TopicMismatch, match=r"topics-test\.scores has 4 partitions, the settings say 3"
            ):
                await other.ensure(first)
        finally:
            await first.close()
            await second.close()

    asyncio.run(run())


def test_refusal_of_the_broker_is_told() -> None:
    """A topic the broker will not create is an error with its name and the reason."""

    class Refusing:
        async def describe_topics(self) -> list[dict[str, object]]:
            return []

        async def create_topics(self, topics: list[object]) -> object:
            class Response:
                topic_errors = (("fraud.scores.v1", 38, "replication factor above the number of brokers"),)

            return Response()

    with pytest.raises(TopicRefused, match=r"fraud\.scores\.v1: replication factor"):
        asyncio.run(Catalogue.from_settings(Settings()).ensure(Refusing()))


def rows(text: str, heading: str) -> list[list[str]]:
    """The cells of the table below a heading of a Markdown text."""
    section = re.split(r"^## ", text.split(f"## {heading}\n", 1)[1], maxsplit=1, flags=re.MULTILINE)[0]
    lines = [line for line in section.splitlines() if line.startswith("|")][2:]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]


def test_documented_codes_are_those_of_the_table() -> None:
    """docs/records.md lists every rejection code with its cure, in the order of the code."""
    documented = rows((ROOT / "docs" / "records.md").read_text(), "Rejection codes")
    assert documented == [[f"`{code}`", cure] for code, cure in CODES.items()]


def test_documented_topics_are_those_of_the_catalogue() -> None:
    """docs/records.md lists every topic with key, partitions, cleanup, writers and readers."""
    documented = rows((ROOT / "docs" / "records.md").read_text(), "Topics")
    assert documented == [
        [
            f"`{topic.name}`",
            topic.key,
            topic.record,
            "1" if topic.partitions == 1 else "flow",
            topic.cleanup,
            ", ".join(topic.writers),
            ", ".join(topic.readers),
        ]
        for topic in Catalogue.from_settings(Settings())
    ]
