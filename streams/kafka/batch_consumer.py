"""The Faust consumer under the batch transport: hands out batches, commits them, follows rebalances."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Iterable, Sequence
from typing import Any, Protocol

from aiokafka.errors import ConsumerStoppedError
from faust.exceptions import ImproperlyConfigured
from faust.transport.drivers import aiokafka as driver
from faust.types import TP, ConsumerMessage

from streams.kafka.batch_fetching import BatchingOptions, FetchThread, Slice
from streams.kafka.batches import PartitionBook, PartitionProgress

logger = logging.getLogger(__name__)

#: How long the last commit of an app that stops may take.
LAST_COMMIT_SECONDS = 3.0

Partitions = frozenset[TP]
PartitionsCallback = Callable[[Partitions], Awaitable[None]]


class BatchingTransport(Protocol):
    """What the consumer needs to know of the transport it belongs to."""

    options: BatchingOptions
    topics: set[str]
    revoked_callbacks: list[PartitionsCallback]
    assigned_callbacks: list[PartitionsCallback]


class BatchConsumer(driver.Consumer):
    """Fetches slices, hands them to the streams as batches, commits the finished prefix of each partition."""

    transport: BatchingTransport
    _thread: FetchThread

    def __init__(self, transport: BatchingTransport, *args: Any, **kwargs: Any) -> None:
        self.options = transport.options
        self._books: dict[TP, PartitionBook] = {}
        self._announced: Partitions = frozenset()  # what the callbacks hold state for
        self._restoring: set[TP] = set()
        self._restore: asyncio.Task[None] | None = None
        self._paused: set[TP] = set()
        self._seeks: dict[TP, int] = {}
        self._unspoilt: Partitions = frozenset()  # of these, whose state was valid at the last revocation
        self._generation = -1
        self._epoch = 0  # counts revocations
        self._open = False  # from the committed offsets being known until the next revocation
        self._fetching: frozenset[TP] | None = None
        self._changed = asyncio.Event()
        self._commit_lock = asyncio.Lock()
        self._gave_up = False  # the last commit got no answer
        super().__init__(transport, *args, **kwargs)

    def _new_consumer_thread(self) -> FetchThread:
        return FetchThread(self, loop=self.loop, beacon=self.beacon)

    async def subscribe(self, topics: Iterable[str]) -> None:
        names = set(topics)
        strangers = names - self.transport.topics
        if strangers:
            raise ImproperlyConfigured(f"not declared with batch_topic: {', '.join(sorted(strangers))}")
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
                epoch = self._epoch
                try:
                    slices = await self._thread.call(
                        self._thread.fetch(
                            wanted,
                            self.options.max_batch,
                            1.0,
                            self._thread.wakes,
                            paused=self._paused.__contains__,
                        )
                    )
                finally:
                    self._fetching = None
                # What is fetched and not delivered is not lost: flow stops for a rebalance or for good, and
                # after a rebalance positions start from the committed offsets.
                messages = [self._message(piece, epoch) for piece in slices]
                if any(messages):
                    await self.wait_first(self._deliver(messages), self.suspend_flow.wait())
        except ConsumerStoppedError:
            if not self.app.should_stop:
                raise
        except asyncio.CancelledError:
            if not self.app.should_stop:
                raise
        except Exception as error:
            logger.exception("fetching failed")
            await self.crash(error)

    def _message(self, piece: Slice, epoch: int) -> ConsumerMessage | None:
        book = self._books.get(piece.tp)
        flowing = self._open and self.flow_active and epoch == self._epoch
        if book is None or not flowing or piece.tp in self._seeks:
            return None
        if not piece.records:
            book.skip_to(piece.position, piece.highwater)
            return None
        batch = book.hand_out(piece.records, piece.position, piece.highwater)
        return ConsumerMessage(
            topic=batch.topic,
            partition=batch.partition,
            offset=batch.last_offset,
            timestamp=piece.records[-1].timestamp / 1000,
            timestamp_type=0,
            headers=(),
            key=None,
            value=batch,
            checksum=None,
            tp=piece.tp,
            generation_id=self.app.consumer_generation_id,
        )

    async def _deliver(self, messages: Sequence[ConsumerMessage | None]) -> None:
        # In one go: an agent that takes groups finds the batches of all partitions waiting.
        for message in messages:
            if message is not None:
                await self.callback(message)

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
        """Something is finished, resumed or to be read again: look again at what to fetch."""
        self._changed.set()
        if self._fetching is not None and (self._seeks or not self._fetching.issuperset(self._wanted())):
            self._thread.wake()

    async def _wait_for_change(self, seconds: float) -> None:
        self._changed.clear()
        try:
            async with asyncio.timeout(seconds):
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
                # A short time is set where batches stay unfinished on purpose.
                logger.log(
                    logging.WARNING if self.options.drain_timeout >= 1 else logging.INFO,
                    "batches were not finished within %g s; they are read again",
                    self.options.drain_timeout,
                )
                break
            await self._wait_for_change(left)
        await self._commit_at_the_end()

    async def on_stop(self) -> None:
        await self._commit_at_the_end()

    async def _commit_at_the_end(self) -> None:
        """Commit; an app that stops waits for a broker only so long: aiokafka would ask again and again."""
        if self.app.crashed or self._gave_up:  # a crash ends the thread that commits, too
            return
        try:
            async with asyncio.timeout(LAST_COMMIT_SECONDS if self.app.should_stop else None):
                await self.commit()
        except TimeoutError:
            self._gave_up = True
            logger.warning(
                "nothing could be committed within %g s; what was finished is read again", LAST_COMMIT_SECONDS
            )
        except asyncio.CancelledError:
            task = asyncio.current_task()
            if task is None or task.cancelling():
                raise
            # Not this task, the commit: the thread that makes it has ended under a crash.
            self._gave_up = True

    async def perform_seek(self) -> None:
        """Called by Faust when a new assignment is about to flow; aiokafka has set the positions itself."""
        epoch = self._epoch
        committed = await self._thread.call(self._thread.committed_offsets(list(self._books)))
        if epoch != self._epoch:  # revoked again meanwhile; the next assignment comes here by itself
            return
        for tp, offset in committed.items():
            self._books[tp].committed = offset
        self._open = True
        if self._restoring and self._restore is None:
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
        self._epoch += 1
        if self._restore is not None:
            self._restore.cancel()
            await asyncio.gather(self._restore, return_exceptions=True)
            self._restore = None
        # State stays valid over a rebalance only if nothing beyond the committed offset may have touched it.
        clean = {
            tp for tp, book in self._books.items() if not book.started_batches() and book.committable is None
        }
        self._unspoilt = self._announced & (clean - self._restoring)
        for book in self._books.values():
            book.close()
        self._books = {}
        self._seeks.clear()

    async def on_partitions_assigned(self, assigned: set[TP], generation_id: int = 0) -> None:
        new = frozenset(assigned)
        # Only from one generation to the next is it certain that nobody else had the partition in between.
        kept = self._unspoilt & new if generation_id == self._generation + 1 else frozenset()
        # Topics that a stage joins share the state of a partition: it is kept for all of them or for none.
        spoilt = {tp.partition for tp in (new | self._announced) - kept}
        kept = frozenset(tp for tp in kept if tp.partition not in spoilt)
        self._generation = generation_id
        lost, self._announced = self._announced - kept, kept
        self._restoring = set(new - kept)
        self._paused &= new
        self._books = {tp: PartitionBook(tp.topic, tp.partition, changed=self._on_change) for tp in new}
        try:
            for callback in self.transport.revoked_callbacks if lost else ():
                await callback(lost)
        except Exception as error:
            # aiokafka would log it and go on.
            logger.exception("giving up %d partitions failed", len(lost))
            await self.crash(error)
            return
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

    @property
    def assigned(self) -> bool:
        return self._open

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

    @property
    def ready(self) -> bool:
        """Whether an assignment has been received and nothing of it waits for its state."""
        return self._generation >= 0 and not self._restoring

    def progress(self) -> dict[TP, PartitionProgress]:
        held = self._paused | self._restoring
        return {
            tp: book.progress(held=tp in held, highwater=self._thread.end_of(tp))
            for tp, book in self._books.items()
        }
