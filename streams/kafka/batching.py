"""A Faust transport that hands whole partition batches to agents and commits exactly what they finish.

Stock Faust delivers one event at a time and acknowledges it when the agent asks for the next one, or raises.
Here an agent gets what was fetched from a partition in one piece and says itself when its effects are
durable:

    app = create_app("score", "localhost:9092")

    @app.agent(batch_topic(app, "transactions"))
    async def score(stream: StreamT[RecordBatch]) -> None:
        async for batch in batches(stream):
            await outputs.send(work(batch.records))
            batch.finish()

`docs/batch-agents.md` has the guarantees, what it breaks, and the traps.
"""

from __future__ import annotations

import asyncio
import logging
import tempfile
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import faust
from faust.exceptions import ImproperlyConfigured
from faust.tables.manager import TableManager
from faust.transport.drivers import aiokafka as driver
from faust.types import TP
from mode.supervisors import CrashingSupervisor
from yarl import URL

from streams.kafka.batch_consumer import BatchConsumer, PartitionsCallback
from streams.kafka.batch_fetching import BatchingOptions
from streams.kafka.batches import PartitionProgress, RecordBatch

if TYPE_CHECKING:
    from faust.types import AppT, EventT, Message, StreamT, TopicT
    from faust.types.auth import CredentialsT

__all__ = [
    "TP",
    "BatchTransport",
    "BatchingOptions",
    "PartitionProgress",
    "RecordBatch",
    "batch_topic",
    "batches",
    "create_app",
    "install",
    "transport_of",
]


class BatchTransport(driver.Transport):
    """The transport of one app; every topic of the app must come from `batch_topic`."""

    Consumer = BatchConsumer

    def __init__(self, url: list[URL], app: AppT, options: BatchingOptions) -> None:
        super().__init__(url, app)
        self.options = options
        self.topics: set[str] = set()
        self.revoked_callbacks: list[PartitionsCallback] = []
        self.assigned_callbacks: list[PartitionsCallback] = []

    def on_revoked(self, callback: PartitionsCallback) -> PartitionsCallback:
        """Await `callback` with partitions that may have gone to another worker: drop their state.

        Called when the next assignment is known; heartbeats wait for it, so it has to be short. A partition
        that this worker keeps through a rebalance, with everything it worked on committed, is in neither
        callback.
        """
        self.revoked_callbacks.append(callback)
        return callback

    def on_assigned(self, callback: PartitionsCallback) -> PartitionsCallback:
        """Await `callback` with partitions that are new here: restore their state.

        Their batches are held until it returns, however long that takes; other partitions flow. A rebalance
        cancels it.
        """
        self.assigned_callbacks.append(callback)
        return callback

    @property
    def joined(self) -> bool:
        """Whether the app is in its group and has restored the state of every partition that it was given."""
        consumer = self._consumer()
        return consumer is not None and consumer.ready

    def progress(self) -> dict[TP, PartitionProgress]:
        """Where every assigned partition stands; empty before the first assignment."""
        consumer = self._consumer()
        return {} if consumer is None else consumer.progress()

    @property
    def assigned(self) -> bool:
        """Whether the app takes part in its group just now; False while joining and during a rebalance."""
        consumer = self._consumer()
        return consumer is not None and consumer.assigned

    def pause(self, tps: Iterable[TP]) -> None:
        """Fetch nothing more from these partitions, until `resume` or revocation.

        What is handed out stays so, and a fetch under way may still add one batch.
        """
        self._running().pause(tps)

    def resume(self, tps: Iterable[TP]) -> None:
        self._running().resume(tps)

    def seek(self, tp: TP, offset: int) -> None:
        """Go on at `offset`; batches of the partition handed out before are void. Back is not uncommitted."""
        self._running().request_seek(tp, offset)

    def _consumer(self) -> BatchConsumer | None:
        return cast("BatchConsumer | None", getattr(self.app, "_consumer", None))

    def _running(self) -> BatchConsumer:
        consumer = self._consumer()
        if consumer is None:
            raise RuntimeError("the app has not been started")
        return consumer


class _BatchSchema(faust.Schema):
    """Passes the batch on as the event's value: the agent decodes, and rejects, record by record."""

    def compile(self, app: AppT, **_: Any) -> Callable[..., Awaitable[EventT]]:
        async def decode(message: Message, *, propagate: bool = False) -> EventT:
            return cast("EventT", app.create_event(None, message.value, None, message))

        return decode


class _NoTables(TableManager):
    """Faust waits a second for tables to be declared before it joins the group; these apps have none."""

    async def sleep(self, n: Any, **_: Any) -> None:
        await asyncio.sleep(0)


def install(app: AppT, broker: str, options: BatchingOptions | None = None) -> BatchTransport:
    """Make `app` read in batches; before its first topic or agent is declared."""
    transport = BatchTransport(_urls(broker), app, options or BatchingOptions())
    app.transport = transport
    return transport


def _urls(broker: str) -> list[URL]:
    return [URL(f"kafka://{address.strip()}") for address in broker.split(",")]


def transport_of(app: AppT) -> BatchTransport:
    """The transport that `install` or `create_app` has given to `app`."""
    transport = app.transport
    if not isinstance(transport, BatchTransport):
        raise TypeError(f"app {app.conf.id!r} has no batch transport")
    return transport


def batch_topic(app: AppT, *names: str) -> TopicT:
    """A Faust topic whose events are `RecordBatch`es of the named topics."""
    transport = transport_of(app)
    if taken := transport.topics & set(names):
        # Two agents would share each batch: the first to finish it would commit over the other.
        raise ImproperlyConfigured(f"an app reads a topic with one agent only: {', '.join(sorted(taken))}")
    transport.topics.update(names)
    # Faust acknowledges in a `finally`, also when the agent has raised: it is kept out of it altogether.
    return cast("TopicT", app.topic(*names, schema=_BatchSchema(), acks=False))


async def batches(stream: StreamT[RecordBatch]) -> AsyncIterator[RecordBatch]:
    """The batches of a stream of `batch_topic`, without those revoked before their turn."""
    async for batch in stream:
        if batch.start():
            yield batch


def create_app(
    app_id: str,
    broker: str,
    *,
    options: BatchingOptions | None = None,
    session_timeout: float = 6.0,
    commit_interval: float = 1.0,
    client_id: str = "fraudstream",
    credentials: CredentialsT | None = None,
) -> faust.App:
    """A Faust app with the batch transport and nothing of Faust that this project does not use.

    Args:
        app_id: name of the app and of its consumer group.
        broker: `host:port`, several separated by commas.
        session_timeout: seconds after which the group gives a silent worker's partitions to others;
            heartbeats go at a third of it.
        commit_interval: seconds between commits; after a crash up to this much is read again.
        credentials: how to enter the cluster; None for a plain connection.
    """
    for library in ("aiokafka", "faust", "mode"):
        # Unset, they follow the root logger; their debug calls alone cost a tenth of the time.
        if logging.getLogger(library).level == logging.NOTSET:
            logging.getLogger(library).setLevel(logging.WARNING)
    app = faust.App(
        app_id,
        broker=_urls(broker),
        broker_client_id=client_id,
        broker_credentials=credentials,
        autodiscover=False,
        web_enabled=False,
        topic_disable_leader=True,
        topic_allow_declare=False,
        # Faust makes a directory for its tables at start, in the current one unless told otherwise.
        datadir=str(Path(tempfile.gettempdir()) / "fraudstream-faust"),
        table_standby_replicas=0,
        stream_recovery_delay=0.0,
        TableManager=_NoTables,
        # An exception in an agent ends the app; Faust's default restarts the agent behind the failed batch.
        agent_supervisor=CrashingSupervisor,
        consumer_auto_offset_reset="earliest",
        broker_session_timeout=session_timeout,
        broker_heartbeat_interval=session_timeout / 3,
        broker_rebalance_timeout=max(10.0, 2 * session_timeout),
        broker_commit_interval=commit_interval,
        broker_request_timeout=max(30.0, session_timeout),
    )
    install(app, broker, options)
    return app
