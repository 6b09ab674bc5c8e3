"""What the score stage tells the stages that learn and observe: the rows it has scored, and how far it is."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from models.deployment import Deployment
from streams.kafka.outputs import Output
from streams.stages.alignment import NEVER
from streams.stages.columns import Columns
from streams.stages.context import Heartbeat, StageContext
from streams.stages.rows import exponents
from streams.stages.score_core import ScoreCore

#: Fewest rows of a batch that tells what a model takes for a row.
_ROWS_TIMED = 32
_COLUMNS = (
    "event_time", "watermark", "offset", "transaction", "card", "hop", "features", "champion", "shadows",
    "arm", "alert", "control", "propensity", "threshold", "amount_minor", "status", "record_time",
)  # fmt: skip


class ScoredRecords:
    """Records of one score partition, which is their key; on the partition that the transactions came from.

    A record without rows, a mark, tells only how far scoring is and what it has seen.
    """

    def __init__(self, context: StageContext, partition: int) -> None:
        self._context = context
        self._partition = partition
        self._topic = context.name("scored")
        self._heartbeat = Heartbeat(context.partitions)
        self._marked_at = context.clock()
        #: watermark up to which every row is scored
        self.until = NEVER

    def marked_before(self, seconds: float) -> bool:
        """Whether the last mark to all partitions is longer ago."""
        return self._context.clock() - self._marked_at > seconds

    def owed(self) -> list[int]:
        """Partitions that have not heard the last watermark; they count as told."""
        return self._heartbeat.owed(self._context.clock())

    def marks(self, partitions: Iterable[int], deployment: Deployment, newest: int) -> list[Output]:
        """A mark for each partition.

        Args:
            newest: the largest watermark among the rows that wait.
        """
        self._marked_at = self._context.clock()
        mark = Columns(self._meta(deployment, newest)).encode()
        return [self._output(partition, mark) for partition in partitions]

    def rows(
        self,
        rows: Columns,
        core: ScoreCore,
        deployment: Deployment,
        newest: int,
        applied: Mapping[int, int],
        *,
        everywhere: bool,
    ) -> list[Output]:
        """The rows just scored by `core`.

        Args:
            newest: the largest watermark among the rows that wait.
            applied: last offset of every card partition up to which all rows stand in earlier records.
            everywhere: a record for every partition, with rows or without: they go on in step with this one.
        """
        # In small batches the time is all overhead.
        seconds = [each / len(rows) for each in core.seconds] if len(rows) >= _ROWS_TIMED else []
        arrays = {name: rows.arrays[name] for name in _COLUMNS}
        kept = Columns(
            self._meta(deployment, newest)
            | {"row_seconds": seconds, "stood_in": core.stood_in}
            | {"threshold": float(rows.floats("threshold")[-1])},
            arrays | {"exponent": exponents(rows.strings["currency"])},
            {name: rows.strings[name] for name in ("transaction_id", "card_id")},
        )
        parts, nothing = kept.split(rows.ints("card_partition")), kept.part(0, 0)
        told = range(self._context.partitions) if everywhere else list(parts)
        outputs = []
        for partition in self._heartbeat.due(told, self._context.clock()):
            part = parts.get(partition, nothing)
            meta = kept.meta | {"settled": applied.get(partition, -1)}
            outputs.append(self._output(partition, Columns(meta, part.arrays, part.strings).encode()))
        return outputs

    def _output(self, partition: int, record: bytes) -> Output:
        return Output(self._topic, partition, b"%d" % self._partition, record)

    def _meta(self, deployment: Deployment, newest: int) -> dict[str, object]:
        return {
            "score_partition": self._partition,
            "spec": self._context.spec.digest,
            "watermark": self.until,
            "seen": max(self.until, newest),
            "models": [list(model) for model in deployment.models()],
        }
