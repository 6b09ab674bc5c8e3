"""What the label stage counts of the labels it reads."""

from __future__ import annotations

from typing import cast

import msgspec
import pytest

from streams.app import build
from streams.kafka.batches import PartitionBook
from streams.kafka.changelog import Changelog
from streams.settings import load
from streams.stages.context import StageContext
from streams.stages.label import LabelWork
from streams.stages.late_reader import LateReader
from tests.streams.sources import FEEDBACK, LABEL, Source, changed


class NothingLate:
    """No scored row matures."""

    def first(self, score_partition: int) -> None:
        return None

    def place(self, score_partition: int) -> int:
        return 0


def label_work() -> tuple[StageContext, LabelWork]:
    """A partition of the label stage that nothing was read of."""
    context = build(load(environ={}), ["label"]).contexts["label"]
    changelog = Changelog(context.name("label-state"), context.settings.broker, context.outputs)
    return context, LabelWork(0, context, changelog, cast("LateReader", NothingLate()), lambda _: False)


def test_unknown_fields_are_counted_in_labels_and_in_feedback() -> None:
    """As in transactions; the records count."""
    context, work = label_work()
    for topic, record in (("labels", LABEL), ("feedback", FEEDBACK)):
        book = PartitionBook(context.name(topic), 0)
        list(work.handle([book.hand_out([Source(changed(record, shop="x", till=7))], 1, None)]))
    assert context.metrics.unknown_fields.value() == 4
    assert context.metrics.dead_letters.total() == 0


def test_labels_are_counted_by_what_became_of_them_and_what_they_contradict() -> None:
    """Two labels wait for their transactions, one of them is reversed by an unknown source; read once more
    nothing is counted that was counted before.
    """
    context, work = label_work()
    book = PartitionBook(context.name("labels"), 0)
    said = [
        ("t1", True, "chargeback"),
        ("t2", True, "chargeback"),
        ("t1", False, "bank"),
        ("t2", True, "bank"),
    ]
    for offset, (transaction, fraud, source) in enumerate(said):
        label = {
            "transaction_id": transaction,
            "card_id": "c",
            "fraud": fraud,
            "source": source,
            "labelled_at": 1_700_000_000_000 + offset,
        }
        record = Source(msgspec.json.encode(label), b"c", offset=offset)
        list(work.handle([book.hand_out([record], offset + 1, None)]))
    metrics = context.metrics
    assert metrics.labels.value("chargeback", "pending") == 2
    assert metrics.labels.value("other", "pending") == 2
    assert metrics.labels_contradicting.value("other") == 1
    assert metrics.labels_contradicting.total() == 1


def test_the_log_says_that_what_was_lost_is_a_bound(caplog: pytest.LogCaptureFixture) -> None:
    """Messages of score partitions that had been decided further are among those that were gone."""
    flow = build(load(environ={}), ["label"])
    work = flow.parts["label"]._create(1)
    work._late._on_lost(7)
    assert "scored.v1[1]: at most 7 messages of scored rows were gone before maturity" in caplog.text
    assert flow.metrics.undecided_lost.value() == 7
