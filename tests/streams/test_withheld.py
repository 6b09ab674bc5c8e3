"""Versions that the learn stage withholds: champions stay where they were, over a restart as well."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence
from contextlib import aclosing
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from models.learners.registry import LEARNERS
from models.registry import Registry, resolved
from models.snapshot import Snapshot, decode, encode
from models.version_check import Verdict, VersionCheck
from streams.contract.model_records import is_withheld, key_of, model_key
from streams.history.backtest import Backtest
from streams.kafka.clients import read_all
from streams.sections import Broker, Models, Slot
from streams.settings import load
from streams.stages import learn as stage
from streams.stages.columns import Columns
from streams.stages.context import StageContext
from streams.stages.control_feed import initial_aliases
from streams.stages.learn import learn_rules
from streams.stages.learn_checkpoint import LearnCheckpoint, slot_terms
from streams.stages.learn_core import LearnCore, LearnRules, LearnState
from streams.stages.model_feed import ModelFeed
from streams.times import DAY
from tests.models.learner_contract import NAMES, stream
from tests.streams.learned import HOUR, MESSAGES, outcomes
from tests.streams.made_up import SPEC as SMALL
from tests.streams.made_up import history, settings
from tests.streams.test_learn_stage import Outcomes, connected, opened

SPEC = "0" * 16
ROWS = 300
KINDS = {"logistic": "logistic", "binned": "binned_logistic"}


def day_of(number: int, *, flipped: bool = False, times: int = 1) -> list[Columns]:
    """The outcomes of a day; flipped labels come many times over, of other transactions each time."""
    x, fraud = stream(ROWS, 100 + number)
    parts = []
    for repeat in range(times):
        first = (number * 100 + repeat) * ROWS
        parts.append(
            Columns(
                {},
                {
                    "transaction": (np.arange(first, first + ROWS) * 1_000_003).astype(np.uint64),
                    "fraud": ~fraud if flipped else fraud,
                    "watermark": np.full(ROWS, number * DAY),
                    "known_at": number * DAY + np.arange(ROWS),
                    "labelled_at": number * DAY + np.arange(ROWS),
                    "features": x,
                    "alert": np.zeros(ROWS, np.bool_),
                    "control": np.zeros(ROWS, np.bool_),
                    "propensity": np.ones(ROWS),
                },
                {"source": ["maturity"] * ROWS},
            )
        )
    return parts


HONEST = [part for number in range(6) for part in day_of(number)]
FLOOD = [part for number in (6, 7) for part in day_of(number, flipped=True, times=5)]
HEALED = [part for number in range(8, 30) for part in day_of(number, times=3)]


def checkpoint(names: Sequence[str] = tuple(KINDS)) -> LearnCheckpoint:
    models = Models(champion=Slot(name="a", kind="logistic"))
    return LearnCheckpoint(
        lambda: LearnState({name: LEARNERS[KINDS[name]](NAMES) for name in names}),
        dict.fromkeys(names, str(slot_terms(models))),
    )


def learned(state: LearnState, parts: Sequence[Columns], *, check_frauds: int = 50) -> list[Snapshot]:
    core = LearnCore(LearnRules(DAY // 2, SPEC, check_frauds=check_frauds))
    found: list[Snapshot] = []
    for part in parts:
        core.take(state, part)
        for snapshots in core.advance(state, int(part.ints("known_at")[-1]) + 1):
            found += snapshots
    return found


def digests(versions: Sequence[Snapshot]) -> list[bytes]:
    return [encode(each) for each in versions]


def following(versions: Sequence[Snapshot]) -> list[tuple[str, int]]:
    """The champion after each version has come, by a worker whose champion alias follows."""
    feed = ModelFeed("t", Broker(), SPEC, names=KINDS)
    champion = Slot(name=versions[0].name, kind="logistic")
    registry = Registry(initial_aliases(Models(champion=champion, shadows=())))
    found = []
    for each in versions:
        feed.take(model_key(each.name, each.version), encode(each))
        found.append(resolved(registry, feed.newest).champion)
    return found


@pytest.mark.parametrize("name", KINDS)
def test_a_champion_that_follows_its_learner_stays_through_a_flood_of_flipped_labels(name: str) -> None:
    """Its last honest version scores on until the learner has recovered; without the check it would not."""
    state = checkpoint([name]).state
    before = learned(state, HONEST)
    assert not [each for each in before if each.withheld]
    during = learned(state, FLOOD)
    after = learned(state, HEALED)
    withheld = [each for each in during if each.withheld]
    assert withheld[-1] is during[-1]
    last_good = [each.version for each in (*before, *during) if not each.withheld][-1]
    champions = [number for _, number in following([*before, *during, *after])]
    assert champions[len(before) + len(during) - 1] == last_good
    assert champions[-1] == after[-1].version
    assert not after[-1].withheld
    assert champions == sorted(champions)
    assert state.check.taken == {name: after[-1].version}
    unchecked = learned(checkpoint([name]).state, [*HONEST, *FLOOD], check_frauds=0)
    assert not [each for each in unchecked if each.withheld or "check_auc" in each.metrics]


@pytest.mark.parametrize("cut", [3, 9, 15])
def test_a_restart_anywhere_withholds_the_same_versions(cut: int) -> None:
    """To the byte: what is compared with survives in the checkpoint."""
    parts = [*HONEST, *FLOOD[:12]]
    whole = learned(checkpoint().state, parts)
    assert {bool(each.withheld) for each in whole} == {True, False}
    before, after = checkpoint(), checkpoint()
    first = learned(before.state, parts[:cut])
    after.load(0, before.dump(0))
    assert digests(first + learned(after.state, parts[cut:])) == digests(whole)
    assert digests(first) == digests(whole[: len(first)])


def test_a_learner_that_starts_anew_is_not_measured_by_the_one_before() -> None:
    """Its slot was changed: what it has learned since is all there is of it."""
    before = checkpoint()
    learned(before.state, HONEST)
    changed = checkpoint()
    changed._slots = changed._slots | {"logistic": "another"}
    changed.load(0, before.dump(0))
    assert set(changed.state.check.best) == {"binned"}
    assert changed.state.check.yardstick.days.keys() == before.state.check.yardstick.days.keys()


def test_documents_say_whether_they_are_withheld() -> None:
    """Also without being decoded as a whole; what is no document, or has never heard of it, is not."""
    versions = learned(checkpoint(["logistic"]).state, [*HONEST, *FLOOD])
    for each in versions:
        document = encode(each)
        assert decode(document, SPEC).withheld == each.withheld
        assert is_withheld(document) == bool(each.withheld)
    older = encode(versions[0]).replace(b',"withheld":""', b"")
    assert b"withheld" not in older
    assert not any(map(is_withheld, (older, b"", b"[]", b'{"withheld":7}', b"\xff")))


def test_workers_check_unless_told_otherwise() -> None:
    """By the fewest frauds of the gates."""
    assert learn_rules(load(environ={}), SPEC).check_frauds == 50
    assert learn_rules(load(overrides={"gates.withhold": False}, environ={}), SPEC).check_frauds == 0


def test_a_backtest_scores_with_what_is_not_withheld(monkeypatch: pytest.MonkeyPatch) -> None:
    """As workers whose aliases follow would."""
    judge = LearnCore._check
    last: list[int] = []

    def from_the_third_on(self: LearnCore, state: LearnState, name: str, scorer: object) -> object:
        found = judge(self, state, name, scorer)  # type: ignore[arg-type]
        last.append(state.versions[name])
        return replace(found, withheld="odd") if state.versions[name] > 2 else found

    monkeypatch.setattr(LearnCore, "_check", from_the_third_on)
    found = Backtest(settings(), SMALL, label_delay=None).run([history(600, 1)])
    assert found.versions == {"logistic": 2}
    assert max(last) > 5


@pytest.mark.broker
def test_the_version_in_force_stays_on_the_topic_and_the_others_are_counted(
    broker: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """However many have been withheld since, none of which anybody needs; it goes when another is taken."""
    monkeypatch.setattr(stage, "VERSIONS_KEPT", 2)
    judge, good = VersionCheck.judge, {1, 2}

    def the_good_ones(self: VersionCheck, name: str, version: int, *given: Any, **terms: Any) -> Verdict:
        return judge(self, name, version, *given, **terms) if version in good else Verdict("for a test")

    monkeypatch.setattr(VersionCheck, "judge", the_good_ones)

    async def kept(context: StageContext) -> list[int]:
        left: dict[bytes, bytes | None] = {}
        async with aclosing(read_all(context.settings.broker, context.name("models"))) as records:
            async for record in records:
                left[record.key] = record.value
        there = [key_of(key) for key, value in left.items() if value is not None]
        return [each[1] for each in there if each and each[0] == "champion"]

    async def scenario() -> None:
        async with connected(broker) as context:
            learning, arriving = await opened(context, []), Outcomes()
            with caplog.at_level(logging.WARNING):
                await learning.handle(arriving.batches(MESSAGES))
            last = learning.work.checkpoint.state.versions["champion"]
            assert last > 5
            assert f"champion v{last} is withheld: for a test" in caplog.text
            assert context.metrics.model_withheld.value("champion") == last - 2
            assert await kept(context) == [2, last - 1, last]
            feed = ModelFeed(context.name("models"), context.settings.broker, context.spec.digest)
            await feed.start()
            await feed.stop()
            assert (feed.newest["champion"], feed.latest["champion"].version) == (2, 2)
            assert feed.version("champion", last) is not None, "it may be named by a move"
            good.add(last + 1)
            more = [outcomes(0, 8 * HOUR - 1, [7 * HOUR + 1]), outcomes(1, 8 * HOUR - 1)]
            await learning.handle(arriving.batches(more, len(MESSAGES)))
            assert learning.work.checkpoint.state.check.taken["champion"] == last + 1
            assert await kept(context) == [last, last + 1]

    asyncio.run(scenario())
