"""The example of docs/histories.md, read out of it and run on made-up rows."""

from __future__ import annotations

import json
import re
import tomllib
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet as pq
import pytest
from click.testing import CliRunner

from streams.cli import main
from streams.history.mapping import FIELDS, load_mapping, ready_mappings

ROOT = Path(__file__).parents[2]
DOCUMENT = ROOT / "docs" / "histories.md"
N = 300


@pytest.fixture
def example(tmp_path: Path) -> tuple[Path, Path]:
    """The mapping file and the settings file of the document."""
    blocks = [part.split("```")[0] for part in DOCUMENT.read_text().split("```toml\n")[1:]]
    assert len(blocks) == 2
    files = tmp_path / "payments.toml", tmp_path / "fraud.toml"
    for file, block in zip(files, blocks, strict=True):
        file.write_text(block)
    return files


def payments(path: Path) -> Path:
    """Rows with the columns that the document names."""
    random = np.random.default_rng(4)
    fraud = random.random(N) < 0.1
    numbers = {f"V{n}": random.normal(size=N) + (fraud * 3 if n == 14 else 0) for n in range(1, 29)}
    table = pa.table(
        {
            "id": [f"p{n}" for n in range(N)],
            "account": random.integers(0, 40, N),
            "seconds": np.sort(random.integers(0, 20 * 86_400, N)),
            "eur": random.integers(1, 100_000, N) / 100,
            **numbers,
            "is_fraud": fraud.astype(np.int64),
        }
    )
    pyarrow.csv.write_csv(table, path)
    return path


def test_the_example_scores_every_row(example: tuple[Path, Path], tmp_path: Path) -> None:
    """28 anonymised numbers, a card and no terminal: every row is scored under its id, time and truth."""
    mapping, config = map(str, example)
    history, scores = str(payments(tmp_path / "a.csv")), tmp_path / "a.parquet"
    options = ("--mapping", mapping, "--config", config, "--scores", str(scores), "--json")
    result = CliRunner().invoke(main, ["backtest", history, *options], catch_exceptions=False)
    assert result.exit_code == 0, result.output
    document = json.loads(result.stdout)
    assert document["transactions"] == document["scored"] == N
    written = pq.read_table(scores).to_pydict()
    assert sorted(written["id"]) == sorted(f"p{n}" for n in range(N))
    assert min(written["event_time"]).date().isoformat() == "2025-01-01"
    assert 0 < sum(written["fraud"]) == document["frauds"]


def test_the_example_maps_what_its_spec_names(example: tuple[Path, Path]) -> None:
    """The attributes of the mapping are those of the feature spec, in its order."""
    mapping, config = example
    spec = tomllib.loads(config.read_text())["features"]
    assert list(load_mapping(mapping).attributes) == spec["attributes"]


def test_the_document_names_every_field_and_ready_mapping() -> None:
    """The list of fields is that of the code, and each mapping that comes with the project is named."""
    text = DOCUMENT.read_text()
    listed = text.split("\nFields are ")[1].split(".")[0]
    assert [each.strip("`\n ") for each in listed.split(",")] == list(FIELDS)
    assert all(f"`{name}`" in text for name in ready_mappings())


def test_the_document_names_every_field_of_a_backtest(example: tuple[Path, Path], tmp_path: Path) -> None:
    """What `--json` prints is described field by field, and the README says that there are intervals."""
    mapping, config = map(str, example)
    history, settings = str(payments(tmp_path / "a.csv")), tmp_path / "b.toml"
    shadow = 'shadows = [{ name = "logistic", kind = "logistic" }]'
    settings.write_text(f"{Path(config).read_text()}\n[models]\n{shadow}\n")
    options = ("--mapping", mapping, "--config", str(settings), "--json")
    document = json.loads(CliRunner().invoke(main, ["backtest", history, *options]).stdout)
    champion, logistic = document["models"]
    (week,) = {tuple(week) for week in document["weeks"]}
    (figures,) = {tuple(figure) for week in logistic["weeks"] for figure in week.values()}
    section = DOCUMENT.read_text().split("## What a backtest prints")[1].split("\n## ")[0]
    named = set(re.findall(r"`(?:models\[\]\.)?([a-z_@0-9]+)`", section))
    assert {*document, *champion, *logistic, *week, *figures} <= named
    assert "of every model and week with 95 % intervals" in (ROOT / "README.md").read_text()
    assert document["confidence"] == 0.95


@pytest.mark.parametrize("command", ["replay", "backtest"])
def test_help_and_readme_lead_to_the_document(command: str) -> None:
    """Who asks a command for its options, or reads the README, learns where mappings are described."""
    assert "docs/histories.md" in CliRunner().invoke(main, [command, "--help"]).output
    assert "(docs/histories.md)" in (ROOT / "README.md").read_text()
