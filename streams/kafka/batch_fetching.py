"""Fetching slices of partitions: the aiokafka consumer under the batch transport, in a thread of its own."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, Protocol, TypeVar

import aiokafka
from aiokafka.coordinator.assignors.range import RangePartitionAssignor
from aiokafka.errors import ConsumerStoppedError
from faust.transport.drivers import aiokafka as driver
from faust.types import TP

from streams.kafka import lenient_records
from streams.kafka.batches import Record

T = TypeVar("T")

lenient_records.install()


@dataclass(frozen=True, slots=True)
class BatchingOptions:
    """How records are fetched and handed out.

    Attributes:
        max_batch: records of one partition in one batch, at most.
        max_in_flight: batches of one partition handed out and not finished, at most. With the one fetch
            that aiokafka holds per partition this bounds the memory.
        fetch_max_wait_ms: how long the broker may hold a fetch of nothing. A partition that has just given
            its records waits that long for its next fetch when the others have none; Faust's own 1500 ms
            are its latency. An idle app costs about 6 % of a core at 10 ms, 1.5 % at 50 ms.
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
class Slice:
    """What one partition gave to one fetch; `position` is where it goes on, past markers and gaps."""

    tp: TP
    records: Sequence[Record]
    position: int
    highwater: int | None


class HasOptions(Protocol):
    """What the fetch thread needs to know of the consumer it serves."""

    options: BatchingOptions


class FetchThread(driver.AIOKafkaConsumerThread):
    """The aiokafka consumer in a thread and loop of its own: heartbeats go on while agents compute."""

    consumer: HasOptions
    wakes = 0  # counts calls of `wake`; a fetch that was asked for before the last one does not wait
    _woken: asyncio.Future[None] | None = None
    _turn = 0

    def _create_worker_consumer(self, transport: Any) -> aiokafka.AIOKafkaConsumer:
        conf = self.app.conf
        options = self.consumer.options
        # Range, not round robin: topics with equal partition counts are assigned alike, which stages that
        # join two of them rely on.
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
        """Run a coroutine in this thread's loop, beside Faust's queue: a waiting fetch delays no commit."""
        return await asyncio.wrap_future(asyncio.run_coroutine_threadsafe(coroutine, self.thread_loop))

    def wake(self) -> None:
        """End the wait of the fetch under way; called in the app's loop."""
        self.wakes += 1
        if not self.thread_loop.is_closed():
            self.thread_loop.call_soon_threadsafe(self._end_wait)

    def close(self) -> None:
        """Nothing; `on_thread_stop` closes the client.

        During a rebalance of an app that is stopping Faust closes it from the app's loop, under the hands of
        this thread, which then waits for ever for what it has asked.
        """

    def _stopped_set(self) -> None:
        if not self.thread_loop.is_closed():  # it is when the app has crashed
            super()._stopped_set()

    def _end_wait(self) -> None:
        if self._woken is not None and not self._woken.done():
            self._woken.set_result(None)

    async def fetch(
        self,
        wanted: Mapping[TP, int | None],
        max_records: int,
        wait: float,
        wakes: int,
        paused: Callable[[TP], bool],
    ) -> list[Slice]:
        """At most one slice of each partition in `wanted` (partition → position known so far).

        Waits up to `wait` seconds for the first, or until `wake`. Of a partition that is `paused` meanwhile
        nothing is taken.
        """
        consumer = self._ensure_consumer()
        fetcher = consumer._fetcher
        subscriptions = fetcher._subscriptions
        if consumer._closed or fetcher._closed:
            raise ConsumerStoppedError
        if subscriptions.reassignment_in_progress:
            return []
        assignment = subscriptions.subscription.assignment
        with subscriptions.fetch_context():
            slices = await self._drain(fetcher, assignment, wanted, max_records, paused)
            if not slices and wakes == self.wakes:
                self._woken = self.thread_loop.create_future()
                try:
                    arrival = fetcher._create_fetch_waiter()
                    await asyncio.wait(
                        {arrival, self._woken}, timeout=wait, return_when=asyncio.FIRST_COMPLETED
                    )
                    if arrival.done():
                        arrival.result()  # raises what the fetcher has met
                    else:
                        arrival.cancel()
                finally:
                    self._woken = None
                # After a rebalance the positions are those of the new assignment: nothing of it may be taken
                # before it is announced.
                if (
                    subscriptions.reassignment_in_progress
                    or subscriptions.subscription.assignment is not assignment
                ):
                    return []
                slices = await self._drain(fetcher, assignment, wanted, max_records, paused)
            return slices

    async def _drain(
        self,
        fetcher: Any,
        assignment: Any,
        wanted: Mapping[TP, int | None],
        max_records: int,
        paused: Callable[[TP], bool],
    ) -> list[Slice]:
        slices = []
        self._turn += 1
        order = sorted(wanted)
        shift = self._turn % len(order)
        for tp in order[shift:] + order[:shift]:
            if tp not in assignment.tps or paused(tp):
                continue
            # One partition at a time: asked for several, aiokafka gives one partition's whole prefetch before
            # the next one's.
            fetched = await fetcher.fetched_records([tp], timeout=0, max_records=max_records)
            state = assignment.state_value(tp)
            if state is None or not state.has_valid_position:
                continue
            records = fetched.get(tp, ())
            if records or state.position != wanted[tp]:
                slices.append(Slice(tp, records, state.position, self._end_of(state)))
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
