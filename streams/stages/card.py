"""The card stage: where a transaction enters.

Reads transactions (key: card). Decodes them, sends what cannot be used to the dead letters, drops duplicates,
adds the features of the transaction and of the card's windows. Writes the rows to the hop topic, keyed by the
last entity (the terminal).

State by partition: recent transaction ids, watermark, card windows (`card_core.py`). Order: rows keep
the order of the partition. A batch that is read again after a crash gives the same rows; the score stage
drops what it has seen.
"""

from __future__ import annotations

from collections.abc import Iterator

import faust
import numpy as np

from models.admission import DUPLICATE, LATE
from streams.contract.codecs import TransactionDecoder
from streams.contract.dead_letters import DeadLetterLimit, dead_letter
from streams.kafka.batches import RecordBatch
from streams.kafka.batching import batch_topic, batches
from streams.kafka.changelog import Changelog
from streams.kafka.outputs import Output
from streams.settings import Settings
from streams.stages.absent_fields import absent
from streams.stages.belonging import identity, require_applied
from streams.stages.card_core import CardCore, CardState, TimeRules
from streams.stages.columns import Columns
from streams.stages.context import Heartbeat, StageContext, follow_assignment
from streams.stages.loop import BREATH, StageLoop, Step
from streams.stages.rows import from_transactions, hop_partitions, rows_in_message

#: Transactions worked on at once; bounds the size of a message to the hop.
MOST_ROWS = 4096
#: Bytes of refused values searched for card numbers before others may run: a second for some megabyte.
_SEARCHED_AT_ONCE = 262_144
#: How often, and for how long after its last transactions, a partition repeats its watermark.
_REPEAT_SECONDS = 2.0
_REPEAT_FOR_SECONDS = 60.0
#: What the score stage needs of a row, beside the tags of the last entity.
_FORWARDED = (
    "event_time", "record_time", "offset", "amount_minor", "amount", "transaction", "card", "hop", "status",
    "watermark", "features",
)  # fmt: skip


def time_rules(settings: Settings) -> TimeRules:
    """The limits of admission, from the settings."""
    time = settings.time
    return TimeRules(
        allowed_lateness_ms=time.allowed_lateness,
        future_tolerance_ms=time.future_tolerance,
        watermark_jump_ms=time.watermark_jump,
        dedupe_horizon_ms=time.dedupe_horizon,
        max_ids=time.dedupe_max_ids,
    )


class CardWork:
    """One partition of transactions."""

    def __init__(self, partition: int, context: StageContext, changelog: Changelog) -> None:
        settings = context.settings
        self._partition = partition
        self._context = context
        self._changelog = changelog
        self._decoder = TransactionDecoder(
            context.spec.attributes,
            terminal_required=any(entity.key == "terminal_id" for entity in context.spec.entities),
            max_value_bytes=settings.input.max_value_bytes,
        )
        self._core = CardCore(context.spec)
        self._limit = DeadLetterLimit(settings.input.dead_letter_ratio, settings.input.dead_letter_window)
        self._hop = context.name(f"by-{context.spec.entities[-1].name}")
        self._tags = f"tags_{context.spec.entities[-1].name}"
        self._heartbeat = Heartbeat(context.partitions)
        self._worked_at = self._told_at = context.clock()
        #: records read that were neither forwarded nor duplicates nor dead letters; always 0
        self.unaccounted = 0
        self.state = CardState(context.spec, time_rules(settings))

    async def open(self) -> None:
        await self._changelog.restore(self._partition, self.state, identity(self._context, "transactions"))
        await require_applied(self._context, "transactions", {self._partition: self.state.next_offset})

    async def close(self) -> None:
        pass

    def tick(self) -> Iterator[Step]:
        """Tell the partitions of the hop the last watermark: now those that have not heard it, later all.

        A score partition that has moved to another worker meanwhile would wait for it.
        """
        now = self._context.clock()
        owed = self._heartbeat.owed(now)
        if now - self._worked_at < _REPEAT_FOR_SECONDS and now - self._told_at > _REPEAT_SECONDS:
            owed = list(range(self._context.partitions))
        if owed:
            self._told_at = now
            marker = Columns(self._hop_meta()).encode()
            yield Step([Output(self._hop, partition, None, marker) for partition in owed])

    def handle(self, batches: list[RecordBatch]) -> Iterator[Step]:
        """From bytes to rows of the hop, dead letters and what changed in the windows."""
        self._worked_at = self._context.clock()
        records = [
            record for batch in batches for record in batch.records if record.offset >= self.state.next_offset
        ]
        if records:
            decoded = self._decoder.decode(records)
            offsets = np.fromiter((records[row].offset for row in decoded.rows), np.int64, len(decoded.rows))
            times = np.fromiter((records[row].timestamp for row in decoded.rows), np.int64, len(decoded.rows))
            rows = from_transactions(decoded.records, offsets, times, self._context.spec)
            kept = self._core.process(self.state, rows)
            outputs = self._hop_records(kept)
            searched = 0
            for item in decoded.rejected:
                source = records[item.row]
                outputs.append(
                    dead_letter(source, item.rejection, self._context.name("dead-letters"), stage="card")
                )
                searched += len(source.value or b"")
                if searched > _SEARCHED_AT_ONCE:
                    searched = 0
                    yield BREATH
            self.state.next_offset = batches[-1].next_offset
            delta = self.state.delta(rows, self.state.next_offset)
            yield Step(outputs, delta, finishes=batches, ahead=True)
            for name, count in absent(decoded.records).items():
                self._context.metrics.missing_fields.add(count, name)
            self._count(rows, decoded.unknown_fields, [item.rejection.code for item in decoded.rejected])
            duplicates = len(rows) - len(kept)
            self.unaccounted += len(records) - len(kept) - duplicates - len(decoded.rejected)
            self._limit.add(len(records), len(decoded.rejected))
        else:
            yield Step(finishes=batches)

    def _hop_meta(self) -> dict[str, object]:
        return {
            "card_partition": self._partition,
            "spec": self._context.spec.digest,
            "watermark": self.state.admission.settled_watermark,
        }

    def _hop_records(self, rows: Columns) -> list[Output]:
        """A message for every partition of the hop that has rows, or has not heard the watermark lately."""
        forwarded = Columns(
            self._hop_meta(), {name: rows.arrays[name] for name in (*_FORWARDED, self._tags)}, rows.strings
        )
        parts = forwarded.split(hop_partitions(rows.words("hop"), self._context.partitions))
        nothing = forwarded.part(0, 0)
        return [
            Output(self._hop, partition, None, parts.get(partition, nothing).encode())
            for partition in self._heartbeat.due(list(parts), self._context.clock())
        ]

    def _count(self, rows: Columns, unknown_fields: int, codes: list[str]) -> None:
        metrics = self._context.metrics
        status = rows.codes("status")
        metrics.transactions.add(int((status == DUPLICATE).sum()), "duplicate")
        metrics.transactions.add(int((status == LATE).sum()), "late")
        metrics.transactions.add(len(codes), "dead_lettered")
        metrics.unknown_fields.add(unknown_fields)
        for code in codes:
            metrics.dead_letters.add(1, code)

    def dropped(self) -> dict[str, int]:
        """What the state has given up before its time, by the names of `fraud_state_dropped`."""
        return {
            "transaction_ids": self.state.admission.forgotten,
            "window_events": self.state.windows.truncated,
            "known_frauds": self.state.windows.frauds_dropped,
        }

    def held(self) -> tuple[int, int]:
        """Keys and bytes of the state."""
        return self.state.windows.n_keys, self.state.windows.nbytes + self.state.admission.nbytes


def attach(app: faust.App, context: StageContext) -> StageLoop[CardWork]:
    """Read transactions in batches."""
    changelog = Changelog(context.name("card-state"), context.settings.broker, context.outputs)
    loop = StageLoop(
        "card",
        lambda partition: CardWork(partition, context, changelog),
        context.outputs,
        changelog,
        app.crash,
        most=min(MOST_ROWS, rows_in_message(len(context.spec.names))),
        report=context.report("card"),
    )
    topic = context.name("transactions")
    follow_assignment(app, loop, topic, context.metrics)

    @app.agent(batch_topic(app, topic), name="card")
    async def card(stream: faust.Stream[RecordBatch]) -> None:
        async for batch in batches(stream):
            loop.put(batch)

    return loop
