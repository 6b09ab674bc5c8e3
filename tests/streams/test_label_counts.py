"""What the label stage counts of the labels it reads."""

from __future__ import annotations

from typing import cast

import msgspec

from streams.app import build
from streams.kafka.batches import PartitionBook
from streams.kafka.changelog import Changelog
from streams.settings import load
from streams.stages.label import LabelWork
from streams.stages.late_reader import LateReader
from tests.streams.sources import Source


class NothingLate:
    """No scored row matures."""

    def first(self, score_partition: int) -> None:
        return None

    def place(self, score_partition: int) -> int:
        return 0


def test_labels_are_counted_by_what_became_of_them_and_what_they_contradict() -> None:
    """Two labels wait for their transactions, one of them is reversed by an unknown source; read once more
    nothing is counted that was counted before.
    """
    context = build(load(environ={}), ["label"]).contexts["label"]
    changelog = Changelog(context.name("label-state"), context.settings.broker, context.outputs)
    work = LabelWork(0, context, changelog, cast("LateReader", NothingLate()), lambda _: False)
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
