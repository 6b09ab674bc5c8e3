"""Fresh internal topics: what the refusals of state recommend loses nothing."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.e2e.harness import Deployment
from tests.e2e.stream import Stream, settings

pytestmark = pytest.mark.broker


def test_what_was_on_the_way_between_stages_is_scored(broker: str, tmp_path: Path) -> None:
    """The card stage has read everything and nothing was scored: with fresh internal topics all of it is."""
    stream = Stream(600, late=0, duplicates=0)
    deployment = Deployment(broker, tmp_path, settings())
    try:
        worker = deployment.start(stages="card")
        for topic, key, value in stream.events:
            deployment.publish(topic, [(key, value)])
        deployment.flush()
        deployment.wait_for_commit("card", "transactions", seconds=30)
        assert worker.stop() == 0
        deployment.start_afresh()
        worker = deployment.start()
        deployment.read_scores(len(stream.good), seconds=60)
        assert worker.stop() == 0
        assert deployment.seen.scores.keys() == {each["transaction_id"] for each in stream.good}
    finally:
        deployment.close()
