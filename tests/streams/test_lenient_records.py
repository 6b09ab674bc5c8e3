"""Batches read leniently still serve aiokafka's handling of control batches."""

from __future__ import annotations

from aiokafka.record.default_records import DefaultRecordBatchBuilder

from streams.kafka.lenient_records import LenientRecords


def test_the_marker_of_a_control_batch_can_be_taken() -> None:
    """aiokafka takes the first record of a control batch with `next`, before anything is iterated."""
    builder = DefaultRecordBatchBuilder(
        magic=2, compression_type=0, is_transactional=1, producer_id=1, producer_epoch=0, base_sequence=0,
        batch_size=1000,
    )  # fmt: skip
    builder.append(0, timestamp=1, key=b"\x00\x00\x00\x00", value=b"", headers=[])
    batch = LenientRecords(bytes(builder.build())).next_batch()
    assert batch is not None
    assert next(batch).key == b"\x00\x00\x00\x00"
