"""Score partitions at different speeds, through the label stage."""

from __future__ import annotations

from typing import cast

import msgspec
import numpy as np

from streams.app import build
from streams.kafka.batches import PartitionBook
from streams.kafka.changelog import Changelog
from streams.settings import load
from streams.stages import columns
from streams.stages.alignment import NEVER
from streams.stages.columns import Columns
from streams.stages.context import StageContext
from streams.stages.label import LabelWork
from streams.stages.label_core import LabelJoin, LabelPolicy
from streams.stages.label_state import LabelState
from streams.stages.late_reader import LateReader
from streams.stages.late_rows import LateRows
from tests.streams.sources import Source

DAY = 86_400_000
NOW = 1_700_000_000_000
MATURITY = 7 * DAY


class LogAhead:
    """A late reader on a log that is there already."""

    def __init__(self, log: list[Source]) -> None:
        self._rows: LateRows[Source] = LateRows({0: 0, 1: 0}, 4)
        while (start := self._rows.wanted()) is not None and start < len(log):
            self._rows.take(start, log[start : start + 5])

    def first(self, source: int) -> tuple[int, Columns] | None:
        record = self._rows.first(source)
        return (record.offset, columns.decode(record.value or b"")) if record is not None else None

    def drop(self, source: int) -> None:
        self._rows.drop(source)

    def place(self, source: int) -> int:
        return self._rows.place(source)


def scored(context: StageContext, partition: int, offset: int, watermark: int) -> Source:
    """The record of one row scored at that watermark."""
    times = np.array([watermark], np.int64)
    rows = Columns(
        {"score_partition": partition, "watermark": watermark, "models": [], "spec": context.spec.digest},
        {
            "event_time": times,
            "watermark": times,
            "offset": np.array([offset], np.int64),
            "status": np.zeros(1, np.uint8),
            "amount_minor": np.zeros(1, np.int64),
            "exponent": np.zeros(1, np.uint8),
            "threshold": np.ones(1),
            "alert": np.zeros(1, np.bool_),
            "control": np.zeros(1, np.bool_),
            "propensity": np.ones(1),
            "transaction": np.array([offset], np.uint64),
            "card": np.zeros(1, np.uint64),
            "hop": np.zeros(1, np.uint64),
            "features": np.zeros((1, len(context.spec.names))),
            "champion": np.zeros(1),
            "arm": np.zeros(1, np.bool_),
            "shadows": np.zeros((1, 0)),
        },
        {"transaction_id": [f"t{offset}"], "card_id": ["c"]},
    )
    return Source(rows.encode(), b"%d" % partition, offset=offset)


def test_rows_of_a_partition_that_is_ahead_do_not_hold_back_those_of_one_behind() -> None:
    """Labels have been read up to now, and no more come: the first partition has scored almost up to now, the
    second one writes rows of a week ago behind that. Their frauds are told, and so is how far it may go on.
    """
    context = build(load(overrides={"topics.partitions": 2}, environ={}), ["label"]).contexts["label"]
    log = [scored(context, 0, offset, NOW - DAY) for offset in range(20)]
    log += [scored(context, 1, 20 + day, NOW - MATURITY - DAY + day * DAY) for day in range(3)]
    changelog = Changelog(context.name("label-state"), context.settings.broker, context.outputs)
    work = LabelWork(0, context, changelog, cast("LateReader", LogAhead(log)), lambda _: False)
    label = {
        "transaction_id": "t20",
        "card_id": "c",
        "fraud": True,
        "source": "chargeback",
        "labelled_at": NOW - DAY,
    }
    # Two cards, so that the clock of labels believes it.
    later = [
        label | {"transaction_id": f"t{card}", "card_id": f"c{card}", "labelled_at": NOW + 1}
        for card in (0, 1)
    ]
    records = [
        Source(msgspec.json.encode(each), str(each["card_id"]).encode(), offset=offset)
        for offset, each in enumerate([label, *later])
    ]
    labels = PartitionBook(context.name("labels"), 0).hand_out(records, len(records), None)
    rows = PartitionBook(context.name("scored"), 0).hand_out(log, len(log), None)
    outputs = [output for step in work.handle([labels, rows]) for output in step.outputs]
    told = [
        (output.partition, columns.decode(output.value or b""))
        for output in outputs
        if output.topic == context.name("known-frauds")
    ]
    (frauds,) = [each for partition, each in told if partition == 1 and len(each)]
    assert frauds.ints("known_at").tolist() == [NOW - DAY]
    # Up to where the rows of a day ago would be decided, as the first partition may.
    assert {partition: each.meta_int("told") for partition, each in told} == {0: NOW, 1: NOW}
    assert work.state.late == {1: (22, 0)}
    decided = [
        columns.decode(output.value or b"").meta_int("decided")
        for output in outputs
        if output.topic == context.name("outcomes")
    ]
    assert decided[-1] == NOW
    assert decided[:-1] == [NEVER] * (len(decided) - 1)


def test_what_is_decided_is_that_of_the_score_partition_behind() -> None:
    join, state = LabelJoin(LabelPolicy(MATURITY, 4 * MATURITY)), LabelState()
    state.scored, state.labels_until = {0: NOW, 1: NOW}, NOW + MATURITY + 1
    state.undecided = {0: NOW - 10, 1: NOW - 1000}
    assert join.decided(state, range(2), labels_idle=False) == NOW - 1000 + MATURITY
    # The third one has not been heard of.
    assert join.decided(state, range(3), labels_idle=False) == NOW - 10 - DAY + MATURITY
