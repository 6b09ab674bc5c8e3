"""The models topic as every worker sees it: all versions still on the topic, kept up to date.

Models are broadcast, not partitioned (`streams/kafka/broadcast.py`). A version that cannot be used is counted
and left out; it never disturbs scoring. To decode a version is to score its golden rows, which compiles what
there is to compile: one that is handed out is ready.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Collection
from contextlib import aclosing
from functools import partial

from models.snapshot import Snapshot, decode
from models.snapshot_document import SnapshotDamagedError, SnapshotError
from streams.contract.model_records import key_of, model_key
from streams.kafka.absence import patiently
from streams.kafka.broadcast import Broadcast
from streams.kafka.clients import read_all
from streams.sections import Broker

logger = logging.getLogger(__name__)

#: Name in metrics for whatever does not bear the name of a model.
OTHER = "other"


async def highest_versions(broker: Broker, topic: str) -> dict[str, int]:
    """By model name the highest version that the topic tells of, usable or not, or deleted since.

    Raises:
        BrokerUnreachable: no broker has answered for half a minute.
        TopicMissing: there is no such topic.
    """
    return await patiently(partial(_highest_versions, broker, topic), broker.bootstrap)


async def _highest_versions(broker: Broker, topic: str) -> dict[str, int]:
    highest: dict[str, int] = {}
    async with aclosing(read_all(broker, topic)) as records:
        async for record in records:
            if (found := key_of(record.key)) is not None:
                highest[found[0]] = max(found[1], highest.get(found[0], 0))
    return highest


class ModelFeed(Broadcast):
    """Follows the models topic.

    Args:
        topic: the models topic, one partition.
        broker: how to reach the cluster.
        spec_digest: versions learned on another feature spec are left out.
        on_refused: told of the name of every model of which a version was refused, `OTHER` for one that is
            neither among `names` nor has any usable version.
        key: that versions must be signed with; empty if none is configured.
        names: of the models of the settings.
    """

    def __init__(
        self,
        topic: str,
        broker: Broker,
        spec_digest: str,
        on_refused: Callable[[str], None] = lambda _: None,
        key: bytes = b"",
        names: Collection[str] = (),
    ) -> None:
        super().__init__(topic, broker, "models")
        self._names = frozenset(names)
        self._spec_digest = spec_digest
        self._on_refused = on_refused
        self._key = key
        self._versions: dict[tuple[str, int], Snapshot] = {}
        self._latest: dict[str, Snapshot] = {}
        self.newest: dict[str, int] = {}
        self.refused = 0

    @property
    def latest(self) -> dict[str, Snapshot]:
        """The highest version of each name that is not withheld, as `newest` has its number."""
        return self._latest

    def version(self, name: str, version: int) -> Snapshot | None:
        """That version, if it is still on the topic."""
        return self._versions.get((name, version))

    def take(self, key: bytes | None, value: bytes | None) -> None:
        if value is None:
            if (gone := key_of(key)) is not None:
                self._versions.pop(gone, None)
            return
        try:
            snapshot = decode(value, self._spec_digest, self._key)
            self._check(key, snapshot)
        except SnapshotError as error:
            self.refused += 1
            name = (key_of(key) or (OTHER, 0))[0]
            self._on_refused(name if name in self._names or name in self.newest else OTHER)
            logger.warning("model %r refused: %s: %s", (key or b"")[:80], type(error).__name__, error)
            return
        self._versions[snapshot.name, snapshot.version] = snapshot
        if snapshot.withheld:
            logger.info("%s v%d is withheld: %s", snapshot.name, snapshot.version, snapshot.withheld)
        elif snapshot.version > self.newest.get(snapshot.name, 0):
            self._latest[snapshot.name] = snapshot
            self.newest[snapshot.name] = snapshot.version

    def _check(self, key: bytes | None, snapshot: Snapshot) -> None:
        """Versions never change, and one stands under its own name.

        Raises:
            SnapshotError: not so.
        """
        if key != model_key(snapshot.name, snapshot.version):
            raise SnapshotDamagedError(f"the document is {snapshot.name}/{snapshot.version}")
        held = self._versions.get((snapshot.name, snapshot.version))
        if held is not None and held.sha256 != snapshot.sha256:
            raise SnapshotDamagedError("another document than the one of that version")
