"""The layers of docs/architecture.md, read from the imports themselves.

    streams  →  models, monitoring        models ↛ monitoring, streams        monitoring ↛ models, streams

    cli, demo → commands → app, worker → history → stages → contract → kafka → the rest of streams

Imports inside functions count, imports under TYPE_CHECKING too: an edge that is only needed by types is still
knowledge of the upper layer.
"""

from __future__ import annotations

import ast
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
PACKAGES = ("models", "monitoring", "streams")
STANDARD = sys.stdlib_module_names
# What a leaf may import beside the standard library and itself.
ALLOWED = {
    "models": {"numpy", "numba", "river", "lightgbm"},
    "monitoring": {"numpy", "prometheus_client"},
}
# The rooms of streams, from the lowest up.
ROOMS = (
    {"kafka"},
    {"contract"},
    {"stages"},
    {"history", "live"},
    {"app", "sampling", "worker"},
    {"commands"},
    {"demo", "cli"},
)
FAUST = {"faust", "mode"}
TRANSPORT = {"streams.kafka.batching", "streams.kafka.batch_consumer", "streams.kafka.batch_fetching"}
MAY_KNOW_FAUST = TRANSPORT | {"streams.kafka.hosting", "streams.app", "streams.worker"}


def source_files(package: str) -> list[Path]:
    return sorted((ROOT / package).rglob("*.py"))


def module_name(file: Path) -> str:
    parts = file.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def imported_names(file: Path) -> Iterator[str]:
    """Dotted names a file imports; `from a import b` gives `a.b`, which may be a module or a name in one."""
    package = module_name(file) if file.name == "__init__.py" else module_name(file).rpartition(".")[0]
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                above = package.split(".")[: len(package.split(".")) - node.level + 1]
                base = ".".join([*above, base]).rstrip(".")
            yield from (f"{base}.{alias.name}" for alias in node.names)


def known_modules() -> dict[str, Path]:
    return {module_name(file): file for package in PACKAGES for file in source_files(package)}


def module_graph() -> dict[str, set[str]]:
    """Every module of ours with the modules of ours that it imports."""
    modules = known_modules()
    graph: dict[str, set[str]] = {}
    for name, file in modules.items():
        targets = set()
        for target in imported_names(file):
            for candidate in (target, target.rpartition(".")[0]):
                if candidate in modules and candidate != name:
                    targets.add(candidate)
                    break
        graph[name] = targets
    return graph


def find_cycle(graph: dict[str, set[str]]) -> list[str]:
    """One import cycle as the list of its modules, or an empty list."""
    done: set[str] = set()

    def visit(name: str, path: list[str]) -> list[str]:
        if name in path:
            return [*path[path.index(name) :], name]
        if name in done:
            return []
        for target in sorted(graph[name]):
            if cycle := visit(target, [*path, name]):
                return cycle
        done.add(name)
        return []

    return next((cycle for name in sorted(graph) if (cycle := visit(name, []))), [])


@pytest.mark.parametrize("package", sorted(ALLOWED))
def test_leaf_imports_only_what_it_may(package: str) -> None:
    """models/ and monitoring/ know neither each other nor streams/, Faust, Kafka or a codec."""
    foreign = {
        f"{file.relative_to(ROOT)}: {name}"
        for file in source_files(package)
        for name in imported_names(file)
        if (top := name.partition(".")[0]) not in STANDARD and top != package and top not in ALLOWED[package]
    }
    assert source_files(package)
    assert foreign == set()


def test_no_import_cycle() -> None:
    """Our modules form a directed acyclic graph."""
    assert find_cycle(module_graph()) == []


def level(name: str) -> int:
    """How high in `streams` a module stands; settings, times, errors and the like are at the bottom."""
    room = name.split(".")[1] if "." in name else ""
    return next((height for height, rooms in enumerate(ROOMS, 1) if room in rooms), 0)


def test_rooms_of_streams_point_down() -> None:
    """No room of `streams` knows one that stands above it."""
    edges = [
        (name, target)
        for name, targets in module_graph().items()
        for target in targets
        if name.startswith("streams.") and target.startswith("streams.")
    ]
    assert {level(name) for name, _ in edges} == set(range(len(ROOMS) + 1))
    assert [f"{name} → {target}" for name, target in edges if level(target) > level(name)] == []


def test_stages_do_not_know_who_composes_them() -> None:
    """Nothing in streams/stages imports the app, the worker, the command line or a runner."""
    upper = {f"streams.{name}" for name in ("app", "worker", "cli", "demo", "replay", "backtest")}
    graph = module_graph()
    upward = {
        f"{name} → {target}"
        for name, targets in graph.items()
        if name.startswith("streams.stages")
        for target in targets & upper
    }
    assert upward == set()


def test_only_the_attachments_know_faust() -> None:
    """Faust is imported by the transport, the stages and what composes them, and by nothing below."""
    files = known_modules()
    guilty = {
        name
        for name, file in files.items()
        if any(target.partition(".")[0] in FAUST for target in imported_names(file))
        and name not in MAY_KNOW_FAUST
        and not name.startswith("streams.stages.")
    }
    assert guilty == set()


def test_looking_at_topics_loads_no_learner() -> None:
    """What `topics` needs of ours is free of Faust, stages and learners, which take seconds to load."""
    files, graph = known_modules(), module_graph()
    needed, todo = set[str](), ["streams.commands.admin"]
    while todo:
        if (name := todo.pop()) not in needed:
            needed.add(name)
            todo.extend(graph[name])
    heavy = FAUST | {"river", "numba"}
    guilty = {
        name
        for name in needed
        if name.startswith(("streams.stages", "models.learners"))
        or any(target.partition(".")[0] in heavy for target in imported_names(files[name]))
    }
    assert "streams.topics" in needed
    assert guilty == set()


def test_packages_export_nothing() -> None:
    """Names are imported from the module that defines them: an `__init__` holds a docstring and no import."""
    heavy = {
        str(file.relative_to(ROOT))
        for package in PACKAGES
        for file in source_files(package)
        if file.name == "__init__.py" and list(imported_names(file))
    }
    assert heavy == set()


def test_cycle_finder_finds_cycles() -> None:
    """The graph walk used above reports a cycle where there is one and none where there is none."""
    assert find_cycle({"a": {"b"}, "b": {"c"}, "c": {"b"}}) == ["b", "c", "b"]
    assert find_cycle({"a": {"b", "c"}, "b": {"c"}, "c": set()}) == []
