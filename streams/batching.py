"""A Faust transport that hands whole partition batches to agents and commits exactly what they finish.

Stock Faust delivers one event at a time and acknowledges it when the agent asks for the next one, or raises. Here an agent gets what was
fetched from a partition in one piece and says itself when its effects are durable:

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
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, TypeVar, cast

import aiokafka
import faust
from aiokafka.coordinator.assignors.range import RangePartitionAssignor
from aiokafka.errors import ConsumerStoppedError
from faust.transport.drivers import aiokafka as driver
from faust.types import TP, ConsumerMessage
from mode.supervisors import CrashingSupervisor
from yarl import URL

from streams.batches import PartitionBook, PartitionProgress, Record, RecordBatch

if TYPE_CHECKING:
    from faust.types import AppT, EventT, Message, StreamT, TopicT

__all__ = [
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

logger = logging.getLogger(__name__)

T = TypeVar("T")
Partitions = frozenset[TP]
PartitionsCallback = Callable[[Partitions], Awaitable[None]]


@dataclass(frozen=True, slots=True)
class BatchingOptions:
    """How records are fetched and handed out.

    Attributes:
        max_batch: records of one partition in one batch, at most.
        max_in_flight: batches of one partition handed out and not finished, at most; with the 1 MiB that aiokafka prefetches per partition
            this bounds the memory.
        fetch_max_wait_ms: how long the broker may hold a fetch of nothing. Faust's own consumer waits 1500 ms.
        max_fetch_bytes: bytes of one partition in one fetch.
        isolation_level: whether records of open and aborted transactions are seen.
        drain_timeout: seconds a rebalance or a stop waits for batches that agents are working on.
    """

    max_batch: int = 2000
    max_in_flight: int = 2
    fetch_max_wait_ms: int = 10
    max_fetch_bytes: int = 1024 * 1024
    isolation_level: Literal["read_committed", "read_uncommitted"] = "read_committed"
    drain_timeout: float = 4.0


@dataclass(frozen=True, slots=True)
class _Slice:
    """What one partition gave to one fetch; `position` is where it goes on, past markers and compacted offsets."""

    tp: TP
    records: Sequence[Record]
    position: int
    highwater: int | None


class _Thread(driver.AIOKafkaConsumerThread):
    """The aiokafka consumer in a thread and loop of its own, so that heartbeats go on while agents compute."""

    consumer: _Consumer
    wakes = 0  # counts calls of `wake`; a fetch that was asked for before the last one does not wait
    _woken: asyncio.Future[None] | None = None
    _turn = 0

    def _create_worker_consumer(self, transport: Any) -> aiokafka.AIOKafkaConsumer:
        conf = self.app.conf
        options = self.consumer.options
        # Range, not round robin: topics with equal partition counts are assigned alike, which stages that join two of them rely on.
        self._assignor = RangePartitionAssignor
        return aiokafka.AIOKafkaConsumer(
            client_id=conf.broker_client_id,
            group_id=conf.id,
            group_instance_id=conf.consumer_group_instance_id,
            bootstrap_servers=driver.server_list(transport.url, transport.default_port),
            partition_assignment_strategy=[self._assignor],
            enable_auto_commit=False,
            auto_offset_reset=conf.consumer_auto_offset_reset,
            max_poll_interval_ms=int(conf.broker_max_poll_interval * 1000),
            max_partition_fetch_bytes=options.max_fetch_bytes,
            fetch_max_wait_ms=options.fetch_max_wait_ms,
            request_timeout_ms=int(conf.broker_request_timeout * 1000),
            check_crcs=conf.broker_check_crcs,
            session_timeout_ms=int(conf.broker_session_timeout * 1000),
            rebalance_timeout_ms=int(conf.broker_rebalance_timeout * 1000),
            heartbeat_interval_ms=int(conf.broker_heartbeat_interval * 1000),
            isolation_level=options.isolation_level,
            metadata_max_age_ms=conf.consumer_metadata_max_age_ms,
            connections_max_idle_ms=conf.consumer_connections_max_idle_ms,
            **driver.credentials_to_aiokafka_auth(conf.broker_credentials, conf.ssl_context),
        )

    async def call(self, coroutine: Coroutine[Any, Any, T]) -> T:
        """Run a coroutine in this thread's loop, beside the method queue: a fetch that waits must not delay a commit."""
        return await asyncio.wrap_future(asyncio.run_coroutine_threadsafe(coroutine, self.thread_loop))

    def wake(self) -> None:
        """End the wait of the fetch under way; called in the app's loop."""
        self.wakes += 1
        if not self.thread_loop.is_closed():
            self.thread_loop.call_soon_threadsafe(self._end_wait)

    def _end_wait(self) -> None:
        if self._woken is not None and not self._woken.done():
            self._woken.set_result(None)

    async def fetch(
        self, wanted: Mapping[TP, int | None], max_records: int, timeout: float, wakes: int
    ) -> list[_Slice]:
        """At most one slice of each partition in `wanted` (with the position known so far), waiting up to `timeout` s for the first."""
        consumer = self._ensure_consumer()
        fetcher = consumer._fetcher
        subscriptions = fetcher._subscriptions
        if consumer._closed or fetcher._closed:
            raise ConsumerStoppedError
        if subscriptions.reassignment_in_progress:
            return []
        assignment = subscriptions.subscription.assignment
        with subscriptions.fetch_context():
            slices = await self._drain(fetcher, assignment, wanted, max_records)
            if not slices and wakes == self.wakes:
                self._woken = self.thread_loop.create_future()
                try:
                    arrival = fetcher._create_fetch_waiter()
                    await asyncio.wait(
                        {arrival, self._woken}, timeout=timeout, return_when=asyncio.FIRST_COMPLETED
                    )
                    if arrival.done():
                        arrival.result()  # raises what the fetcher has met
                    else:
                        arrival.cancel()
                finally:
                    self._woken = None
                # After a rebalance the positions are those of the new assignment: nothing of it may be taken before it is announced.
                if (
                    subscriptions.reassignment_in_progress
                    or subscriptions.subscription.assignment is not assignment
                ):
                    return []
                slices = await self._drain(fetcher, assignment, wanted, max_records)
            return slices

    async def _drain(
        self, fetcher: Any, assignment: Any, wanted: Mapping[TP, int | None], max_records: int
    ) -> list[_Slice]:
        slices = []
        self._turn += 1
        order = sorted(wanted)
        shift = self._turn % len(order)
        for tp in order[shift:] + order[:shift]:
            if tp not in assignment.tps:
                continue
            # One partition at a time: asked for several, aiokafka gives one partition's whole prefetch before the next one's.
            fetched = await fetcher.fetched_records([tp], timeout=0, max_records=max_records)
            state = assignment.state_value(tp)
            if state is None or not state.has_valid_position:
                continue
            records = fetched.get(tp, ())
            if records or state.position != wanted[tp]:
                slices.append(_Slice(tp, records, state.position, self._end_of(state)))
        return slices

    def _end_of(self, state: Any) -> int | None:
        end: int | None = state.highwater
        if (
            self.consumer.options.isolation_level == "read_committed"
            and state.lso is not None
            and state.lso >= 0
        ):
            end = state.lso
        return end

    def end_of(self, tp: TP) -> int | None:
        """The end of a partition by the latest fetch response; None before the first."""
        if self._consumer is None:
            return None
        subscription = self._consumer._fetcher._subscriptions.subscription
        assignment = None if subscription is None else subscription.assignment
        state = None if assignment is None else assignment.state_value(tp)
        return None if state is None else self._end_of(state)

    async def committed_offsets(self, tps: Iterable[TP]) -> dict[TP, int | None]:
        """What the group has committed."""
        consumer = self._ensure_consumer()
        wanted = list(tps)
        return dict(
            zip(wanted, await asyncio.gather(*(consumer.committed(tp) for tp in wanted)), strict=True)
        )

    async def move_to(self, tp: TP, offset: int) -> None:
        """Fetch from `offset` next."""
        self._ensure_consumer().seek(tp, offset)


class _Consumer(driver.Consumer):
    """Fetches slices, hands them to the streams as batches, commits the finished prefix of each partition."""

    transport: BatchTransport
    _thread: _Thread

    def __init__(self, transport: BatchTransport, *args: Any, **kwargs: Any) -> None:
        self.options = transport.options
        self._books: dict[TP, PartitionBook] = {}
        self._announced: Partitions = frozenset()  # what the callbacks hold state for
        self._restoring: set[TP] = set()
        self._restore: asyncio.Task[None] | None = None
        self._paused: set[TP] = set()
        self._seeks: dict[TP, int] = {}
        self._generation = -1
        self._open = False  # from the committed offsets being known until the next revocation
        self._fetching: frozenset[TP] | None = None
        self._changed = asyncio.Event()
        self._commit_lock = asyncio.Lock()
        super().__init__(transport, *args, **kwargs)

    def _new_consumer_thread(self) -> _Thread:
        return _Thread(self, loop=self.loop, beacon=self.beacon)

    async def subscribe(self, topics: Iterable[str]) -> None:
        names = set(topics)
        strangers = names - self.transport.topics
        if strangers:
            raise faust.ImproperlyConfigured(f"not declared with batch_topic: {', '.join(sorted(strangers))}")
        await super().subscribe(names)

    # Delivery

    async def _drain_messages(self, fetcher: Any) -> None:
        """The fetcher service's loop."""
        try:
            while not (self.should_stop or fetcher.should_stop):
                if not self.flow_active:
                    await self.wait(self.can_resume_flow)
                    continue
                await self._carry_out_seeks()
                wanted = self._wanted()
                if not wanted:
                    await self._wait_for_change(1.0)
                    continue
                self._fetching = frozenset(wanted)
                try:
                    slices = await self._thread.call(
                        self._thread.fetch(wanted, self.options.max_batch, 1.0, self._thread.wakes)
                    )
                finally:
                    self._fetching = None
                for piece in slices:
                    # What is fetched and not delivered is not lost: flow stops for a rebalance or for good, and after a rebalance
                    # positions start from the committed offsets.
                    if not self._open or not self.flow_active:
                        break
                    await self._deliver(piece)
        except ConsumerStoppedError:
            if not self.app.should_stop:
                raise
        except asyncio.CancelledError:
            if not self.app.should_stop:
                raise
        except Exception as error:
            logger.exception("fetching failed")
            await self.crash(error)

    async def _deliver(self, piece: _Slice) -> None:
        book = self._books.get(piece.tp)
        if book is None or piece.tp in self._seeks:
            return
        if not piece.records:
            book.skip_to(piece.position, piece.highwater)
            return
        batch = book.hand_out(piece.records, piece.position, piece.highwater)
        last = piece.records[-1]
        message = ConsumerMessage(
            piece.tp.topic,
            piece.tp.partition,
            batch.last_offset,
            last.timestamp / 1000.0,
            0,
            (),
            None,
            batch,
            None,
            tp=piece.tp,
            generation_id=self.app.consumer_generation_id,
        )
        await self.wait_first(self.callback(message), self.suspend_flow.wait())

    def _wanted(self) -> dict[TP, int | None]:
        if not self._open:
            return {}
        limit = self.options.max_in_flight
        held = self._paused | self._restoring
        return {
            tp: book.position
            for tp, book in self._books.items()
            if tp not in held and book.batches_in_flight < limit
        }

    def _on_change(self) -> None:
        """A batch is finished, a hold is released, a seek is wanted, the flow changes: look again at what to fetch."""
        self._changed.set()
        if self._fetching is not None and (self._seeks or not self._fetching.issuperset(self._wanted())):
            self._thread.wake()

    async def _wait_for_change(self, timeout: float) -> None:
        self._changed.clear()
        try:
            async with asyncio.timeout(timeout):
                await self._changed.wait()
        except TimeoutError:
            pass

    async def _carry_out_seeks(self) -> None:
        while self._open and self._seeks:
            tp, offset = next(iter(self._seeks.items()))
            book = self._books.get(tp)
            if book is not None:
                await self._thread.call(self._thread.move_to(tp, offset))
                book.read_from(offset)
            if self._seeks.get(tp) == offset:
                del self._seeks[tp]

    # Commits

    async def commit(self, topics: Any = None, start_new_transaction: bool = True) -> bool:
        """Commit the finished prefix of every partition."""
        async with self._commit_lock:
            offsets = {
                tp: offset for tp, book in self._books.items() if (offset := book.committable) is not None
            }
            if not offsets or not await self._commit(offsets):
                return False
            for tp, offset in offsets.items():
                if (book := self._books.get(tp)) is not None:
                    book.committed = offset
            return True

    async def wait_empty(self) -> None:
        """Wait for the batches that agents are working on, then commit. A crashed app waits for nothing."""
        deadline = asyncio.get_running_loop().time() + self.options.drain_timeout
        while not self.app.crashed and any(book.started_batches() for book in self._books.values()):
            left = deadline - asyncio.get_running_loop().time()
            if left <= 0:
                logger.warning(
                    "batches were not finished within %g s; they are read again", self.options.drain_timeout
                )
                break
            await self._wait_for_change(left)
        await self.commit()

    async def on_stop(self) -> None:
        await self.commit()

    async def perform_seek(self) -> None:
        """Called by Faust when a new assignment is about to flow; aiokafka has its own committed positions already."""
        for tp, offset in (
            await self._thread.call(self._thread.committed_offsets(list(self._books)))
        ).items():
            if (book := self._books.get(tp)) is not None:
                book.committed = offset
        self._open = True
        if self._restoring:
            self._restore = asyncio.create_task(self._restore_state(frozenset(self._restoring)))
        self._on_change()

    async def verify_all_partitions_active(self) -> None:
        """Faust's livelock detector: replaced by `progress`."""

    # Rebalance

    async def on_partitions_revoked(self, revoked: set[TP]) -> None:
        self.stop_flow()
        self._changed.set()
        await super().on_partitions_revoked(revoked)
        self._open = False
        if self._restore is not None:
            self._restore.cancel()
            await asyncio.gather(self._restore, return_exceptions=True)
            self._restore = None
        # State stays valid over a rebalance only if nothing beyond the committed offset may have touched it.
        clean = {
            tp for tp, book in self._books.items() if not book.started_batches() and book.committable is None
        }
        self._announced_clean = self._announced & clean - self._restoring
        for book in self._books.values():
            book.close()
        self._books = {}
        self._seeks.clear()

    _announced_clean: Partitions = frozenset()

    async def on_partitions_assigned(self, assigned: set[TP], generation_id: int = 0) -> None:
        new = frozenset(assigned)
        # Only from one generation to the next is it certain that nobody else had the partition in between.
        kept = self._announced_clean & new if generation_id == self._generation + 1 else frozenset()
        self._generation = generation_id
        lost, self._announced = self._announced - kept, kept
        self._restoring = set(new - kept)
        self._paused &= new
        self._books = {tp: PartitionBook(tp.topic, tp.partition, changed=self._on_change) for tp in new}
        if lost:
            for callback in self.transport.revoked_callbacks:
                await callback(lost)
        if not self.transport.assigned_callbacks:
            self._announced, self._restoring = new, set()
        await super().on_partitions_assigned(assigned, generation_id)

    async def _restore_state(self, gained: Partitions) -> None:
        try:
            self._announced |= gained
            for callback in self.transport.assigned_callbacks:
                await callback(gained)
        except Exception as error:
            logger.exception("preparing %d partitions failed", len(gained))
            await self.crash(error)
        else:
            self._restoring -= gained
            self._on_change()

    # For the transport

    def pause(self, tps: Iterable[TP]) -> None:
        self._paused |= set(tps)

    def resume(self, tps: Iterable[TP]) -> None:
        self._paused -= set(tps)
        self._on_change()

    def request_seek(self, tp: TP, offset: int) -> None:
        if tp not in self._books:
            raise ValueError(f"{tp.topic}[{tp.partition}] is not assigned")
        self._seeks[tp] = offset
        self._on_change()

    def progress(self) -> dict[TP, PartitionProgress]:
        held = self._paused | self._restoring
        return {
            tp: book.progress(held=tp in held, highwater=self._thread.end_of(tp))
            for tp, book in self._books.items()
        }


class BatchTransport(driver.Transport):
    """The transport of one app; every topic of the app must come from `batch_topic`."""

    Consumer = _Consumer

    def __init__(self, url: list[URL], app: AppT, options: BatchingOptions) -> None:
        super().__init__(url, app)
        self.options = options
        self.topics: set[str] = set()
        self.revoked_callbacks: list[PartitionsCallback] = []
        self.assigned_callbacks: list[PartitionsCallback] = []

    def on_revoked(self, callback: PartitionsCallback) -> PartitionsCallback:
        """Await `callback` with partitions that may have gone to another worker: drop their state.

        Called when the next assignment is known. A partition that this worker keeps through a rebalance is in neither callback.
        """
        self.revoked_callbacks.append(callback)
        return callback

    def on_assigned(self, callback: PartitionsCallback) -> PartitionsCallback:
        """Await `callback` with partitions that are new here: restore their state.

        Their batches are held until it returns, however long that takes; other partitions flow. A rebalance cancels it.
        """
        self.assigned_callbacks.append(callback)
        return callback

    def progress(self) -> dict[TP, PartitionProgress]:
        """Where every assigned partition stands; empty before the first assignment."""
        consumer = self._consumer()
        return {} if consumer is None else consumer.progress()

    def pause(self, tps: Iterable[TP]) -> None:
        """Fetch nothing more from these partitions; what is handed out stays so. Ends with `resume` or revocation."""
        self._running().pause(tps)

    def resume(self, tps: Iterable[TP]) -> None:
        self._running().resume(tps)

    def seek(self, tp: TP, offset: int) -> None:
        """Go on at `offset`; batches of the partition handed out before count as revoked. Backwards, it does not uncommit."""
        self._running().request_seek(tp, offset)

    def _consumer(self) -> _Consumer | None:
        return cast("_Consumer | None", getattr(self.app, "_consumer", None))

    def _running(self) -> _Consumer:
        consumer = self._consumer()
        if consumer is None:
            raise RuntimeError("the app has not been started")
        return consumer


class _BatchSchema(faust.Schema):
    """Passes the batch on as the event's value; records are decoded, and rejected, one by one in the agent."""

    def compile(self, app: AppT, **_: Any) -> Callable[..., Awaitable[EventT]]:
        async def decode(message: Message, *, propagate: bool = False) -> EventT:
            return cast("EventT", app.create_event(None, message.value, None, message))

        return decode


def install(app: AppT, broker: str, options: BatchingOptions | None = None) -> BatchTransport:
    """Make `app` read in batches; before its first topic or agent is declared."""
    url = [URL(f"kafka://{address.strip()}") for address in broker.split(",")]
    transport = BatchTransport(url, app, options or BatchingOptions())
    app.transport = transport
    return transport


def transport_of(app: AppT) -> BatchTransport:
    """The transport that `install` or `create_app` has given to `app`."""
    transport = app.transport
    if not isinstance(transport, BatchTransport):
        raise TypeError(f"app {app.conf.id!r} has no batch transport")
    return transport


def batch_topic(app: AppT, *names: str) -> TopicT:
    """A Faust topic whose events are `RecordBatch`es of the named topics."""
    transport = transport_of(app)
    transport.topics.update(names)
    # Faust acknowledges in a `finally`, also when the agent has raised: acks=False takes it out of the matter altogether.
    return cast("TopicT", app.topic(*names, schema=_BatchSchema(), acks=False))


async def batches(stream: StreamT[RecordBatch]) -> AsyncIterator[RecordBatch]:
    """The batches of a stream of `batch_topic`, without those whose partition is gone by the time they come up."""
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
) -> faust.App:
    """A Faust app with the batch transport and nothing of Faust that this project does not use.

    Args:
        app_id: name of the app and of its consumer group.
        broker: `host:port`, several separated by commas.
        session_timeout: seconds after which the group gives a silent worker's partitions to others; heartbeats go at a third of it.
        commit_interval: seconds between commits; after a crash up to this much is read again.
    """
    app = faust.App(
        app_id,
        broker=f"kafka://{broker}",
        broker_client_id=client_id,
        autodiscover=False,
        web_enabled=False,
        topic_disable_leader=True,
        topic_allow_declare=False,
        table_standby_replicas=0,
        stream_recovery_delay=0.0,
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
