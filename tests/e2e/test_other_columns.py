"""A stream with other columns through a running worker: the example of docs/histories.md, no terminal."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.e2e.harness import Deployment
from tests.streams.test_documented_histories import DOCUMENT, N, payments

pytestmark = pytest.mark.broker


def test_card_only_with_anonymous_attributes_runs_as_documented(broker: str, tmp_path: Path) -> None:
    """Two workers score what `replay` publishes by the mapping, with the features of `backtest`."""
    mapping, features = (block.split("```")[0] for block in DOCUMENT.read_text().split("```toml\n")[1:])
    (tmp_path / "payments.toml").write_text(mapping)
    history = payments(tmp_path / "payments.csv")
    options = (str(history), "--mapping", str(tmp_path / "payments.toml"), "--label-delay", "7d")
    deployment = Deployment(broker, tmp_path, features)
    try:
        tested = json.loads(deployment.command("backtest", *options, "--json"))
        assert tested["transactions"] == tested["scored"] == N
        for _ in range(2):
            deployment.start()
        deployment.command("replay", *options)
        deployment.read_scores(N, seconds=60)
        deployment.settle()
        seen = deployment.seen
        assert seen.scores.keys() == {f"p{number}" for number in range(N)}
        assert seen.dead == []
        assert seen.contradictions() == []
        assert seen.digest() == tested["feature_digest"]
        records = [each for each, *_ in seen.scores.values()]
        assert {each["terminal_id"] for each in records} == {""}
        assert all(len(each["features"]) > 28 for each in records)
        assert [worker.stop() for worker in deployment.workers] == [0, 0]
    finally:
        deployment.close()
