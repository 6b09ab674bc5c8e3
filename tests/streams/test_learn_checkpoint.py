"""The learn stage over a restart: what its checkpoint keeps, what it refuses, what it does not unpickle."""

from __future__ import annotations

import logging
from pathlib import Path

import msgspec
import pytest

from models.learners.boosted import BoostedLearner
from models.learners.checkpoint import seal
from streams.app import build
from streams.errors import SettingsError, StateMismatch
from streams.keys import checkpoint_key
from streams.sections import Models, Option, Slot
from streams.settings import load
from streams.stages import learn_checkpoint
from streams.stages.alignment import NEVER
from tests.streams.learned import CHAMPION, HOUR, MESSAGES, SHADOW, checkpoint, digests, learn, outcomes

OTHER = seal(msgspec.msgpack.encode({"format": "other"}), b"")


def test_nothing_is_learned_until_every_label_partition_has_spoken() -> None:
    """A partition that has said nothing yet holds the clock back, from the first message on."""
    state = checkpoint([CHAMPION]).state
    assert state.watermarks == {0: NEVER, 1: NEVER}
    assert learn(state, MESSAGES[:2]) == []
    assert state.learners["champion"].n_learned == 0


@pytest.mark.parametrize("cut", range(1, len(MESSAGES)))
def test_a_restart_anywhere_gives_the_same_versions(cut: int) -> None:
    """Versions, and what is in them, do not depend on where the stage went on from a checkpoint."""
    whole = learn(checkpoint([CHAMPION, SHADOW]).state, MESSAGES)
    assert len(whole) > 4
    before, after = checkpoint([CHAMPION, SHADOW]), checkpoint([CHAMPION, SHADOW])
    parts = learn(before.state, MESSAGES[:cut])
    before.next_offset = cut
    after.load(0, before.dump(0))
    assert after.next_offset == cut
    assert digests(parts + learn(after.state, MESSAGES[cut:])) == digests(whole)


@pytest.mark.parametrize("cut", [5, 6, 7])
def test_a_restart_while_trees_are_fitted_gives_the_same_versions(cut: int) -> None:
    """A fit that a restart interrupts begins anew, and its trees come in with the same version."""
    options: dict[str, Option | dict[str, Option]] = {"n_trees": 5, "window": 600, "refit_every": 150}
    trees = Slot(name="trees", kind="boosted_trees", options=options)
    step, minute = 130, HOUR // 60
    messages = [outcomes(1, 30 * HOUR)]
    for first in range(1, 900, step):
        known_at = [number * minute for number in range(first, first + step)]
        messages.append(outcomes(0, known_at[-1], known_at))
    before, after = checkpoint([trees]), checkpoint([trees])
    parts = learn(before.state, messages[:cut])
    learner = before.state.learners["trees"]
    assert isinstance(learner, BoostedLearner)
    assert (learner._started >= 0) == (cut < 7)  # 520 and 650 learned: during a fit; 780: after it
    after.load(0, before.dump(0))
    parts += learn(after.state, messages[cut:])
    assert digests(parts) == digests(learn(checkpoint([trees]).state, messages))
    sizes = [len(snapshot.scorer.to_arrays()[1]["root"]) for snapshot in parts]
    assert (sizes[0], sizes[-1]) == (0, 5)


def test_slots_that_come_change_and_go() -> None:
    """An unchanged slot goes on, a changed or new one starts anew, a removed one stops; numbers only rise."""
    before = checkpoint([CHAMPION, SHADOW])
    first = learn(before.state, MESSAGES[:4])
    last = {name: max(each.version for each in first if each.name == name) for name in ("champion", "shadow")}
    changed = SHADOW.model_copy(update={"options": {"learning_rate": 0.01}})
    new = Slot(name="new", kind="logistic")
    after = checkpoint([new, changed, CHAMPION])
    after.load(0, before.dump(0))
    learners = after.state.learners
    assert learners["champion"].n_learned == before.state.learners["champion"].n_learned > 0
    assert learners["shadow"].n_learned == learners["new"].n_learned == 0
    second = learn(after.state, MESSAGES[4:])
    for name, version in (*last.items(), ("new", 0)):
        assert min(each.version for each in second if each.name == name) == version + 1

    without = checkpoint([CHAMPION])
    without.load(0, after.dump(0))
    assert list(without.state.learners) == ["champion"]
    again = checkpoint([CHAMPION, SHADOW])
    again.load(0, without.dump(0))
    assert again.state.versions["shadow"] == after.state.versions["shadow"]


def test_learners_of_other_libraries_are_never_unpickled(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """A checkpoint of another River keeps its numbers; its learners are not even looked at."""
    before, after = checkpoint([CHAMPION]), checkpoint([CHAMPION])
    learn(before.state, MESSAGES)
    data = before.dump(0)
    monkeypatch.setattr("river.__version__", "0.0.0")
    monkeypatch.setattr("pickle.loads", lambda _: pytest.fail("unpickled"))
    with caplog.at_level(logging.WARNING):
        after.load(0, data)
    assert "champion starts anew: river is" in caplog.text
    assert after.state.learners["champion"].n_learned == 0
    assert after.state.versions == before.state.versions
    assert after.state.waiting == before.state.waiting


@pytest.mark.parametrize(("written", "read"), [(b"", b"k" * 32), (b"k" * 32, b"x"), (b"k" * 32, b"")])
def test_a_checkpoint_that_is_not_signed_with_the_key_is_refused(
    written: bytes, read: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Unsigned, signed with another key, or signed and no key to check it: nothing of it is unpickled."""
    data = checkpoint([CHAMPION], written).dump(0)
    checkpoint([CHAMPION], written).load(0, data)
    monkeypatch.setattr("pickle.loads", lambda _: pytest.fail("unpickled"))
    with pytest.raises(StateMismatch, match="to the key that it was written with"):
        checkpoint([CHAMPION], read).load(0, data)


def test_the_key_comes_from_a_file_of_its_own(tmp_path: Path) -> None:
    """As it stands there; a file that is missing or too short is refused by the name of the setting."""
    file = tmp_path / "key"

    def key() -> bytes:
        return checkpoint_key(Models(checkpoint_key_file=str(file)))

    with pytest.raises(SettingsError, match="checkpoint_key_file: cannot read"):
        key()
    file.write_bytes(b"k" * 31)
    with pytest.raises(SettingsError, match="31 bytes"):
        key()
    file.write_bytes(b"k" * 31 + b"\n")
    assert key() == b"k" * 31 + b"\n"
    assert checkpoint_key(Models()) == b""
    with pytest.raises(SettingsError, match="checkpoint_key_file"):
        build(load(overrides={"models.checkpoint_key_file": str(tmp_path / "none")}, environ={}), ["learn"])


@pytest.mark.parametrize("data", [b"unsigned\n", b"unsigned\n\x80\x05.", OTHER])
def test_what_is_no_checkpoint_is_refused(data: bytes) -> None:
    """Anything but a checkpoint of this format raises instead of being loaded."""
    with pytest.raises(ValueError, match="checkpoint"):
        checkpoint([CHAMPION]).load(0, data)


def test_another_format_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """A checkpoint says which format it has."""
    monkeypatch.setattr(learn_checkpoint, "FORMAT", "fraudstream-learn-0")
    data = checkpoint([CHAMPION]).dump(0)
    monkeypatch.undo()
    with pytest.raises(ValueError, match="fraudstream-learn-0"):
        checkpoint([CHAMPION]).load(0, data)
