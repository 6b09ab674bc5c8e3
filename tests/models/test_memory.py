"""Memory that shadows take: what counts for a version and what does not; no scorer shipped takes any."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator

import numpy as np
import pytest

from models import memory
from models.deployment import Deployment, Shadow
from models.learners.registry import LEARNERS
from models.memory import MemoryWatch, Reading, read_memory
from models.scorers.rules import RulesScorer
from models.snapshot import make
from tests.models.learner_contract import NAMES, stream, teach

MB = 1_000_000
A, B = ("a", 1), ("b", 1)


class System:
    """What the system tells, as a test says; each page fault brings in a huge page."""

    def __init__(self) -> None:
        self.now = Reading(500 * MB, 100)

    def __call__(self) -> Reading:
        return self.now

    def more(self, megabytes: int, *, elsewhere: bool = False) -> None:
        faults = 0 if elsewhere or megabytes < 0 else megabytes
        self.now = Reading(self.now.resident + megabytes * MB, self.now.faults + faults)


@pytest.fixture
def system() -> System:
    return System()


@pytest.fixture
def watch(system: System) -> MemoryWatch:
    return MemoryWatch(100 * MB, system)


def call(watch: MemoryWatch, system: System, version: tuple[str, int], *megabytes: int) -> None:
    watch.begin()
    for each in megabytes:
        system.more(each)
    watch.called(version)


def test_what_calls_leave_behind_adds_up_by_version(watch: MemoryWatch, system: System) -> None:
    """What is given back is taken off; what others take between the calls is theirs; the limit is a fault."""
    for _ in range(3):
        call(watch, system, A, 30)
        call(watch, system, B, 200, -200)
        system.more(70)
    assert (watch.taken(A), watch.taken(B)) == (90 * MB, 0)
    assert watch.fault(A) is None
    call(watch, system, A, -40)
    assert watch.taken(A) == 50 * MB
    call(watch, system, A, 51)
    assert watch.fault(A) == "memory: 101 MB more by scoring"
    assert watch.fault(B) is None
    assert watch.fault(("a", 2)) is None


def test_what_another_thread_takes_meanwhile_does_not_count(watch: MemoryWatch, system: System) -> None:
    """A call that has touched no new page has taken nothing, whatever the process holds more after it."""
    call(watch, system, A)
    for _ in range(10):
        watch.begin()
        system.more(50, elsewhere=True)
        watch.called(A)
    assert watch.taken(A) == 0


def test_what_is_given_back_between_the_calls_does_not_add_up(watch: MemoryWatch, system: System) -> None:
    """Pages that an allocator keeps from a call and gives back later are touched anew by each."""
    for _ in range(1000):
        call(watch, system, A, 1)
        system.more(-1)
    assert watch.taken(A) <= MB


def test_nobody_is_remembered_for_ever(watch: MemoryWatch, system: System) -> None:
    """The oldest versions are forgotten."""
    for number in range(2 * memory.MOST_VERSIONS):
        call(watch, system, ("a", number), 1)
    assert len(watch._accounts) == memory.MOST_VERSIONS
    assert (watch.taken(("a", 0)), watch.taken(("a", number))) == (0, MB)


def test_the_system_tells_what_is_touched() -> None:
    """An array that is written to shows in both figures of this thread."""
    before = read_memory()
    array = np.ones(8 * 1024 * 1024)
    after = read_memory()
    assert 0.9 * array.nbytes < after.resident - before.resident < 1.5 * array.nbytes
    assert (after.faults - before.faults) * memory._LARGEST_PAGE >= array.nbytes


def test_another_thread_s_page_faults_are_not_those_of_this_one() -> None:
    """A fit in the background is not told as growth of whoever scores meanwhile."""
    held: list[object] = []
    watch = MemoryWatch(MB)
    watch.begin()
    thread = threading.Thread(target=lambda: held.append(np.ones(8 * 1024 * 1024)))
    thread.start()
    thread.join()
    watch.called(A)
    assert held
    assert watch.taken(A) < 8 * MB  # a few pages of the thread's own stack


@pytest.fixture
def elsewhere(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A system without /proc."""

    def missing(*_: object) -> int:
        raise FileNotFoundError

    memory._statm.cache_clear()
    with monkeypatch.context() as patched:
        patched.setattr(os, "open", missing)
        yield
    memory._statm.cache_clear()


def test_where_the_system_does_not_tell_nothing_is_seen(elsewhere: None) -> None:
    """Shadows score as they do without a watch."""
    assert read_memory() == Reading(0, 0)
    watch = MemoryWatch(MB)
    watch.begin()
    held = np.ones(8 * 1024 * 1024)
    watch.called(A)
    assert len(held)
    assert watch.fault(A) is None


@pytest.mark.parametrize("kind", LEARNERS)
def test_no_scorer_shipped_takes_memory(kind: str) -> None:
    """In batches of all sizes, ten megabytes of rows: a hundredth of the default limit at most."""
    rules = make(RulesScorer.build(NAMES), name="rules", version=0, spec_digest="spec")
    shadow = make(teach(LEARNERS[kind](NAMES), 600).freeze(), name="m", version=1, spec_digest="spec")
    watch = MemoryWatch(256 * MB)
    both = Deployment("spec", rules, rules, memory=watch, shadows=[Shadow(shadow), Shadow(rules)])
    x = stream(2048)[0]
    for number in range(200):
        both.score(x[: 1 + 61 * number % len(x)], lambda: 0.0)
    assert watch.taken(("m", 1)) < 2.56 * MB
    assert watch.taken(("rules", 0)) < 2.56 * MB
    assert [each.off for each in both.shadows] == [None, None]
