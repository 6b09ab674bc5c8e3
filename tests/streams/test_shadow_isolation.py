"""What the champion gives with shadows beside it, good and broken ones, is what it gives alone."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import cast

import numpy as np
import numpy.typing as npt
import pyarrow.parquet as pq
import pytest
from click.testing import CliRunner

from models.deployment import Deployment, Shadow
from models.learners.registry import LEARNERS
from models.scorers.base import FrozenScorer
from models.scorers.rules import RulesScorer
from models.snapshot import Snapshot, make
from streams.cli import main
from tests.models.learner_contract import NAMES, stream, teach
from tests.streams.test_documented_histories import DOCUMENT, payments

Floats = npt.NDArray[np.float64]
SPEC = "spec"
HEADER = """
[labels]
maturity = "2d"
[time]
watermark_jump = "2d"
[models]
champion = { name = "logistic", kind = "logistic" }
shadows = [SHADOWS]
publish_every = "6h"
min_outcomes = 0
min_frauds = 0
"""


def test_a_backtest_with_shadows_gives_the_champion_s_scores_of_one_without(tmp_path: Path) -> None:
    """Learners, versions and scores of the champion owe nothing to those beside it."""
    mapping, features = (part.split("```")[0] for part in DOCUMENT.read_text().split("```toml\n")[1:])
    (tmp_path / "mapping.toml").write_text(mapping)
    history = payments(tmp_path / "payments.csv")
    found = []
    for shadows in (
        "",
        '{ name = "forest", kind = "adaptive_forest" }, { name = "tree", kind = "hoeffding_tree" }',
    ):
        config, scores = tmp_path / "fraud.toml", tmp_path / "scores.parquet"
        config.write_text(HEADER.replace("SHADOWS", shadows) + features)
        options = (
            "--mapping",
            str(tmp_path / "mapping.toml"),
            "--config",
            str(config),
            "--label-delay",
            "2d",
        )
        done = CliRunner().invoke(main, ["backtest", str(history), *options, "--scores", str(scores)])
        assert done.exit_code == 0, done.output
        table = pq.read_table(scores).to_pydict()
        found.append({name: table[name] for name in ("id", "score")})
    assert len({*found[0]["score"]}) > 100, "the champion has learned nothing: the rules decide"
    assert found[0] == found[1]


def raises(x: Floats) -> Floats:
    raise MemoryError("no more")


def grows(x: Floats) -> Floats:
    return np.full(2 * len(x), 0.5)


FAULTS: dict[str, Callable[[Floats], Floats]] = {
    "raises": raises,
    "NaN": lambda x: np.full(len(x), np.nan),
    "twice as many scores": grows,
}


@pytest.mark.parametrize("kind", LEARNERS)
@pytest.mark.parametrize("fault", FAULTS)
def test_a_broken_shadow_changes_no_byte(kind: str, fault: str) -> None:
    """It is off with a reason after the first batch, a slow one after three, by the clock that times it."""

    class Broken:
        kind = "broken"
        n_features = len(NAMES)
        steps = 1
        score = staticmethod(FAULTS[fault])

    now = 0.0

    def slow(x: Floats) -> Floats:
        nonlocal now
        now += 1.0
        return np.full(len(x), 0.5)

    class Slow(Broken):
        score = staticmethod(slow)

    champion = make(teach(LEARNERS[kind](NAMES), 600).freeze(), name="m", version=1, spec_digest=SPEC)
    rules = make(RulesScorer.build(NAMES), name="rules", version=0, spec_digest=SPEC)

    def shadow(scorer: object, name: str) -> Snapshot:
        return replace(rules, name=name, scorer=cast("FrozenScorer", scorer))

    alone = Deployment(SPEC, champion, rules)
    beside = Deployment(
        SPEC, champion, rules, shadows=[Shadow(shadow(Broken(), "broken")), Shadow(shadow(Slow(), "slow"))]
    )
    for seed in range(4):
        x = stream(64, seed)[0]
        with_them, without = beside.score(x.copy(), lambda: now), alone.score(x.copy(), lambda: now)
        assert with_them.decided.tobytes() == without.decided.tobytes()
        assert with_them.champion.tobytes() == without.champion.tobytes()
    broken, late = beside.shadows
    assert broken.off
    assert broken.failures == 1
    assert (late.off or "").startswith("slow")
