"""The topic catalogue: every topic once, with key, record, shape, writers and readers; and its creation.

| topic | key | record | written by | read by |
|---|---|---|---|---|
| transactions | card | Transaction | you | card |
| labels, feedback | card | Label, Feedback | you | label, observe |
| by-<entity> | the entity | columns of a batch | card | score |
| scores, alerts | card | Score, Alert | score | you |
| scored | card | columns of a batch | score | label, observe |
| known-frauds | terminal | columns of a batch | label | score |
| outcomes | none, one partition | columns of a batch | label | learn, observe |
| observe-parts | partition, one partition | sums of slots of time | observe | observe |
| models | model | Snapshot | learn | score |
| control | model | Move | you, observe | score, learn, observe |
| metrics | metric | events | score, observe | you |
| <stage>-state | bucket | state of a stage | the stage | the stage |
| dead-letters | as it came | the bytes as they came | card, label | you |
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

from aiokafka.admin import AIOKafkaAdminClient, NewTopic
from aiokafka.errors import TopicAlreadyExistsError, for_code

from streams.errors import SettingsError, TopicMismatch, TopicRefused
from streams.settings import Settings
from streams.times import DAY

Cleanup = Literal["delete", "compact"]

STATEFUL_STAGES = ("card", "score", "label", "learn", "observe", "merge")
_FOREVER = -1
_LARGE = 16 * 1024 * 1024
_CREATION_SECONDS = 30.0
_POLL_SECONDS = 0.1


@dataclass(frozen=True, slots=True)
class Topic:
    """One topic.

    `key` names what records are keyed and partitioned by; `retention` is in milliseconds, -1 for ever;
    `setting` is the key of the setting with its name, empty for internal topics.
    """

    id: str
    name: str
    key: str
    record: str
    partitions: int
    cleanup: Cleanup
    retention: int
    writers: tuple[str, ...]
    readers: tuple[str, ...]
    setting: str = ""
    max_message_bytes: int = 0

    @property
    def config(self) -> dict[str, str]:
        """The topic configuration as brokers name it."""
        config: dict[str, str] = {"cleanup.policy": self.cleanup}
        if self.cleanup == "delete":
            config["retention.ms"] = str(self.retention)
        else:
            # Compaction starts early, so that a restore reads little more than the live state.
            config |= {"min.cleanable.dirty.ratio": "0.1", "segment.ms": str(DAY // 4)}
        if self.max_message_bytes:
            config["max.message.bytes"] = str(self.max_message_bytes)
        return config


@dataclass(frozen=True, slots=True)
class Presence:
    """A topic of the catalogue on the cluster: its partitions, 0 where it does not exist."""

    topic: Topic
    partitions: int


@dataclass(frozen=True, slots=True)
class Catalogue:
    """All topics of an installation, by id."""

    topics: tuple[Topic, ...]
    replication: int = 1

    @classmethod
    def from_settings(cls, settings: Settings, entities: Sequence[str] = ("terminal",)) -> Catalogue:
        """The catalogue for these settings and the entities beside the card, each with a hop of its own.

        Raises:
            SettingsError: two topics would have one name.
        """
        names = settings.topics
        flow, retention = names.partitions, names.retention

        def public(
            setting: str, record: str, writers: str, readers: str, key: str = "card", partitions: int = flow
        ) -> Topic:
            name = getattr(names, setting)
            return Topic(
                id=setting.replace("_", "-"),
                name=name,
                key=key,
                record=record,
                partitions=partitions,
                cleanup="compact" if setting == "models" else "delete",
                retention=_FOREVER if setting in ("models", "control") else retention,
                writers=tuple(writers.split()),
                readers=tuple(readers.split()),
                setting=f"topics.{setting}",
                max_message_bytes=_LARGE if setting == "models" else 0,
            )

        def internal(
            id: str,
            key: str,
            record: str,
            writers: str,
            readers: str,
            state: bool = False,
            partitions: int = flow,
        ) -> Topic:
            return Topic(
                id=id,
                name=f"{names.internal_prefix}.{id}.v1",
                key=key,
                record=record,
                partitions=partitions,
                cleanup="compact" if state else "delete",
                retention=_FOREVER if state else retention,
                writers=tuple(writers.split()),
                readers=tuple(readers.split()),
                max_message_bytes=_LARGE,
            )

        first = entities[0] if entities else "card"
        catalogue = cls(
            (
                public("transactions", "Transaction", "you", "card"),
                public("labels", "Label", "you", "label"),
                public("feedback", "Feedback", "you", "label observe"),
                public("scores", "Score", "score", "you"),
                public("alerts", "Alert", "score", "you"),
                public("dead_letters", "original bytes", "card label", "you", key="as it came"),
                public("models", "Snapshot", "learn", "score learn", key="model", partitions=1),
                public("control", "Move", "you observe", "score learn observe", key="model", partitions=1),
                public(
                    "metrics",
                    "Window, Drift, Quality, event",
                    "score learn observe",
                    "you",
                    key="metric",
                    partitions=1,
                ),
                *(internal(f"by-{each}", each, "columns", "card", "score") for each in entities),
                # Partitioned as the transactions are, by card.
                internal("scored", "score partition", "columns", "score", "label observe"),
                internal("known-frauds", first, "columns", "label", "score"),
                # One partition: what the learners see has one order.
                internal("outcomes", "none", "columns", "label", "learn observe", partitions=1),
                # One partition: one worker puts the parts of all partitions together.
                internal("observe-parts", "partition", "parts", "observe", "observe", partitions=1),
                *(internal(f"{s}-state", "bucket", "state", s, s, state=True) for s in STATEFUL_STAGES),
            ),
            names.replication,
        )
        seen: set[str] = set()
        for topic in catalogue:
            if topic.name in seen:
                raise SettingsError(
                    f"{topic.name} is the name of two topics; rename one, or set topics.internal_prefix"
                )
            seen.add(topic.name)
        return catalogue

    def __getitem__(self, id: str) -> Topic:
        for topic in self.topics:
            if topic.id == id:
                return topic
        raise KeyError(id)

    def __iter__(self) -> Iterator[Topic]:
        return iter(self.topics)

    def name(self, id: str) -> str:
        """The name on the cluster of the topic with this id."""
        return self[id].name

    async def describe(self, admin: AIOKafkaAdminClient) -> list[Presence]:
        """What of the catalogue exists on the cluster."""
        # All topics are asked for: asking by name makes a broker with auto-creation create them.
        found = {each["topic"]: len(each["partitions"]) for each in await admin.describe_topics()}
        return [Presence(topic, found.get(topic.name, 0)) for topic in self.topics]

    async def ensure(self, admin: AIOKafkaAdminClient) -> list[str]:
        """Creates what is missing and returns the names created; may be called by several processes at once.

        Raises:
            TopicMismatch: a topic exists with another number of partitions; nothing was created.
            TopicRefused: the broker would not create a topic, or did not show it in time.
        """
        missing = self._missing(await self.describe(admin))
        if not missing:
            return []
        response = await admin.create_topics(
            [
                NewTopic(topic.name, topic.partitions, self.replication, topic_configs=topic.config)
                for topic in missing
            ]
        )
        created = []
        for name, code, *reason in response.topic_errors:
            if code == 0:
                created.append(name)
            elif code != TopicAlreadyExistsError.errno:
                detail = reason[0] if reason and reason[0] else for_code(code).__name__
                raise TopicRefused(f"the broker refused to create {name}: {detail}")
        try:
            async with asyncio.timeout(_CREATION_SECONDS):
                while self._missing(await self.describe(admin)):  # noqa: ASYNC110 (a broker sends no event)
                    await asyncio.sleep(_POLL_SECONDS)
        except TimeoutError:
            raise TopicRefused(f"created topics not visible after {_CREATION_SECONDS:.0f} s") from None
        return created

    def _missing(self, presences: list[Presence]) -> list[Topic]:
        different = [each for each in presences if each.partitions not in (0, each.topic.partitions)]
        if different:
            raise TopicMismatch(
                "; ".join(
                    f"{topic.name} has {each.partitions} partitions, the settings say {topic.partitions}"
                    for each in different
                    for topic in (each.topic,)
                )
            )
        return [each.topic for each in presences if each.partitions == 0]
