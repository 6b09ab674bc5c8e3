"""Workers that are refused at their start, and what is left for those that are not."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.e2e.harness import Deployment

pytestmark = pytest.mark.broker

ANOTHER_SPEC = """
[[features.entities]]
name = "card"
key = "card_id"
windows = ["2h"]
aggregates = ["count"]
[[features.entities]]
name = "terminal"
key = "terminal_id"
windows = ["2h"]
aggregates = ["count"]
"""


def test_a_worker_with_another_spec_is_refused_and_the_right_one_goes_on(broker: str, tmp_path: Path) -> None:
    """Exit code 1 with the difference and the cure; with the old value back the worker starts again."""
    deployment = Deployment(broker, tmp_path, partitions=1)
    try:
        assert deployment.start(stages="card").stop() == 0
        back = deployment.set(ANOTHER_SPEC)
        refused = deployment.start(stages="card", wait=False)
        refused.lasting = False
        assert refused.process.wait(60) == 1
        assert "features (its digest) was" in refused.log()
        assert "topics.internal_prefix" in refused.log()
        assert [line for line in refused.log().splitlines() if "ERROR" in line or "Traceback" in line] == []
        assert refused.log().count("features (its digest) was") == 1
        back()
        assert deployment.start(stages="card").stop() == 0
    finally:
        deployment.close()
