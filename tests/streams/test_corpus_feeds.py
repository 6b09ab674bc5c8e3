"""The corpus of labels (J), of moves and of model versions (K), past the decoding of `test_corpus.py`.

The number of each case is that of the corpus. What decoding decides about labels (109, 117) is there.
"""

from __future__ import annotations

import json
import pickle
from collections import Counter
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from models.learners.registry import LEARNERS
from models.registry import Aliases, Kind, Move, Pin, Registry, resolved
from models.scorers.rules import Rule, RulesScorer
from models.snapshot import encode, make
from monitoring.metrics import bounded_source
from streams.contract.model_records import key_of, model_key
from streams.contract.moves import encode_move
from streams.errors import StateMismatch
from streams.sections import Broker
from streams.stages.columns import Columns
from streams.stages.control_feed import ControlFeed
from streams.stages.label_core import MOST_VERDICTS, LabelJoin, LabelPolicy
from streams.stages.learn_core import LearnCore, LearnRules, LearnState
from streams.stages.model_feed import ModelFeed
from streams.stages.model_slots import fitting
from streams.stages.rows import require_spec
from tests.models.learner_contract import NAMES
from tests.models.test_snapshot_bounds import CIRCLES, altered
from tests.streams.joined import EXPIRY, MATURITY, Joined
from tests.streams.test_abuse import outcomes

SPEC, KEY, AT = "0123456789abcdef", b"k" * 32, 1_735_689_600_000
B = Pin("b")
START = Aliases(Pin("a"), (B,))
FRAUD, GENUINE = ("t", True, 10 + MATURITY, "chargeback"), ("t", False, 10 + MATURITY, "maturity")


def unknown_transaction(joined: Joined) -> None:
    joined.label("never", True, 50)
    joined.score({"t": (10, False), "z": (51 + EXPIRY, False)})
    assert joined.mature(10) == [GENUINE]
    assert (joined.expire(), joined.join.counts["chargeback", "unmatched"]) == (1, 1)


def before_its_transaction(joined: Joined) -> None:
    joined.label("t", True, 50)
    joined.score({"t": (10, False)})
    assert joined.mature(10) == [FRAUD]


def duplicate(joined: Joined) -> None:
    joined.score({"t": (10, False)})
    for _ in range(1000):
        joined.label("t", True, 50)
    assert joined.join.counts["chargeback", "duplicate"] == 999
    assert joined.mature(10) == [FRAUD]


def contradictory(joined: Joined) -> None:
    ends = []
    for order in ([True, False], [False, True]):
        each = Joined()
        each.score({"t": (10, False)})
        for fraud in order:
            each.label("t", fraud, 50)
        ends.append(each.mature(10))
    assert ends[0] == ends[1]


def revisions_reversed(joined: Joined) -> None:
    joined.score({"t": (10, False)})
    for revision in (3, 2, 1, 0):
        joined.label("t", revision == 3, 50, revision=revision)
    assert joined.mature(10) == [FRAUD]


def labelled_before_it_happened(joined: Joined) -> None:
    joined.join = LabelJoin(LabelPolicy(MATURITY, EXPIRY, soonest_ms=20))
    joined.score({"t": (10, False), "u": (12, True)})
    assert joined.label("t", True, 1) == []
    assert joined.label("u", True, 1) == [("u", True, 32, "chargeback")]
    assert joined.mature(10) == [FRAUD]


def source_of_any_name(joined: Joined) -> None:
    joined.score({"t": (10, False)})
    joined.label("t", True, 50, source="x" * 64)
    assert joined.mature(10) == [(*FRAUD[:3], "x" * 64)]
    assert bounded_source("x" * 64) == "other"


def flood_of_one_card(joined: Joined) -> None:
    joined.join = LabelJoin(LabelPolicy(MATURITY, EXPIRY, max_held=500))
    joined.score({"t": (10, False)})
    for number in range(1000):
        joined.label(f"made up {number}", True, 50 + number % 7, card="victim")
        joined.expire()
    for number in range(100):
        joined.label("t", number % 2 == 0, 50 + number, card="victim", revision=number)
    joined.expire()
    assert len(joined.state.verdicts) <= 500
    assert max(len(each) for each in joined.state.verdicts.values()) <= MOST_VERDICTS
    dropped = joined.join.counts["chargeback", "dropped"]
    assert dropped >= 500 + 100 - MOST_VERDICTS


@pytest.mark.parametrize(
    "case",
    [
        pytest.param(unknown_transaction, id="110 unknown transaction"),
        pytest.param(before_its_transaction, id="111 before its transaction"),
        pytest.param(duplicate, id="112 a thousand times"),
        pytest.param(contradictory, id="113 both verdicts of one rank"),
        pytest.param(revisions_reversed, id="114 revisions in reverse"),
        pytest.param(labelled_before_it_happened, id="115 labelled before it happened"),
        pytest.param(source_of_any_name, id="116 source of any name"),
        pytest.param(flood_of_one_card, id="118 a flood about one card"),
    ],
)
def test_label(case: Callable[[Joined], None]) -> None:
    """What becomes of it; restored state and deltas agree after every step."""
    case(Joined())


@pytest.mark.parametrize("kind", LEARNERS)
@pytest.mark.parametrize("weight", [0.0, -1.0, np.inf, -np.inf, np.nan])
def test_117_weights_that_are_none_teach_nothing(kind: str, weight: float) -> None:
    """Refused by every learner, or, for zero, without effect."""
    learner = LEARNERS[kind](NAMES)
    if weight == 0.0:
        learner.learn(np.ones(len(NAMES)), True, weight)
    else:
        with pytest.raises(ValueError, match="weight"):
            learner.learn(np.ones(len(NAMES)), True, weight)
    assert learner.n_learned == 0


def test_119_a_decision_of_a_model_that_is_gone_teaches_the_present_ones() -> None:
    """The outcome holds the features; who decided then does not matter."""
    core, state = LearnCore(LearnRules(10**12, SPEC)), LearnState({"m": LEARNERS["logistic"](NAMES)})
    rows = outcomes(3)
    rows.meta["models"] = [["champion", "gone", 7]]
    assert core.take(state, rows) == 3
    list(core.advance(state, 10**6))
    assert state.learners["m"].n_learned == 3


def test_120_features_of_another_schema_are_not_learned() -> None:
    """By the digest of the spec the stage refuses to go on; of another length the learner refuses them."""
    with pytest.raises(StateMismatch):
        require_spec(Columns({"spec": "f" * 16}, {}), SPEC)
    core, state = LearnCore(LearnRules(10**12, SPEC)), LearnState({"m": LEARNERS["logistic"](NAMES)})
    rows = outcomes(3)
    rows.arrays["features"] = np.ones((3, len(NAMES) + 1))
    core.take(state, rows)
    list(core.advance(state, 10**6))
    assert (state.refused["m"], state.learners["m"].n_learned) == (3, 0)


def event(
    number: int, kind: Kind = "promote", pin: Pin | None = B, *, key: bytes = KEY, percent: float = 0.0
) -> bytes:
    return encode_move(Move(number, kind, pin, percent, "x", AT), "control", key)


def rewritten(**fields: Any) -> bytes:
    """A good event with fields changed, which leaves the signature as it was."""
    return json.dumps(json.loads(event(1)) | fields).encode()


MOVES: list[Any] = [
    pytest.param([event(1), event(1)], ["stale"], "b", id="122 replayed at once"),
    pytest.param(
        [event(1), event(2, "rollback", Pin("a")), event(1)], ["stale"], "a", id="122 an old one replayed"
    ),
    pytest.param([event(1, key=b"")], ["unusable"], "a", id="123 unsigned"),
    pytest.param([event(1, key=b"o" * 32)], ["unusable"], "a", id="123 signed by somebody else"),
    pytest.param([rewritten(name="c")], ["unusable"], "a", id="123 changed after signing"),
    pytest.param([rewritten(name="../../etc/passwd")], ["unusable"], "a", id="124 path"),
    pytest.param([rewritten(uri="file:///etc/passwd")], ["unusable"], "a", id="124 field for a place"),
    pytest.param([rewritten(name="http://169.254.169.254/")], ["unusable"], "a", id="125 address"),
    *(
        pytest.param([rewritten(kind="canary", percent=share)], ["unusable"], "a", id=f"126 share {share}")
        for share in (float("nan"), -1, 101, 1e400, "2")
    ),
    pytest.param([event(1), event(1, pin=Pin("c"))], ["stale"], "b", id="127 two with one number"),
    pytest.param([event(1), event(2, pin=Pin("b"))], ["refused"], "b", id="127 the same twice"),
    pytest.param([rewritten(version="1" * 1_000_000)], ["unusable"], "a", id="128 version of a megabyte"),
    pytest.param([rewritten(version=10**400)], ["unusable"], "a", id="128 version of 400 digits"),
    pytest.param([pickle.dumps({"id": 1})], ["unusable"], "a", id="pickle"),
    pytest.param([None, b"", b"\xff", b"[" * 60_000], ["unusable"] * 4, "a", id="no event at all"),
]


@pytest.mark.parametrize(("values", "reasons", "champion"), MOVES)
def test_move(values: list[bytes | None], reasons: list[str], champion: str) -> None:
    """Counted by reason; whoever is champion was made so by an event that counts."""
    counted: list[str] = []
    feed = ControlFeed("control", Broker(), START, KEY, counted.append)
    for value in values:
        feed.take(b"b", value)
    assert counted == reasons
    assert feed.registry.aliases.champion == Pin(champion)


def test_121_a_model_that_nobody_knows_takes_nobody_s_place() -> None:
    """The event counts, and there is nothing to put in the slot: the models stay as they are."""
    feed = ControlFeed("control", Broker(), START, KEY)
    feed.take(None, event(1, pin=Pin("nobody")))
    wanted = resolved(feed.registry, {"a": 3, "b": 1})
    rules = make(RulesScorer.build(["a"]), name="rules", version=0, spec_digest=SPEC)
    assert wanted.champion[0] == "nobody"
    assert fitting(wanted, rules, lambda name, number: rules if name in ("a", "b") else None) is None


def good(name: str = "m", spec: str = SPEC, key: bytes = KEY, version: int = 1, **made: Any) -> bytes:
    scorer = RulesScorer.build(["a", "b"], [Rule("a", 1.0, 2.0)])
    return encode(make(scorer, name=name, version=version, spec_digest=spec, **made), key)


def off_golden() -> bytes:
    document = make(RulesScorer.build(["a"]), name="m", version=1, spec_digest=SPEC)
    object.__setattr__(document, "golden_scores", document.golden_scores + 1e-9)
    return encode(document, KEY)


def flipped(at: int) -> bytes:
    data = bytearray(good())
    data[at] ^= 1
    return bytes(data)


VERSIONS: list[Any] = [
    pytest.param(flipped(good().index(b'"arrays"') + 90), "SnapshotDamagedError", id="a flipped byte"),
    pytest.param(good()[:-40], "SnapshotDamagedError", id="cut off"),
    pytest.param(b"", "SnapshotDamagedError", id="empty"),
    pytest.param(good(spec="f" * 16), "SpecMismatchError", id="another feature spec"),
    pytest.param(good(key=b""), "SignatureError: not signed", id="unsigned"),
    pytest.param(good(key=b"o" * 32), "SignatureError", id="signed by somebody else"),
    pytest.param(altered("version", 1), "SignatureError", id="changed, with a digest of its own"),
    pytest.param(good(name="../../models/m"), "no name of a model", id="124 path for a name"),
    pytest.param(good(name="http://169.254.169.254/"), "no name of a model", id="125 address for a name"),
    pytest.param(good(name="other"), "the document is other/1", id="under another name"),
    pytest.param(pickle.dumps([1]), "not JSON", id="a pickle"),
    pytest.param(off_golden(), "GoldenMismatchError", id="other arithmetic"),
]


@pytest.mark.parametrize(("document", "reason"), VERSIONS)
def test_version(document: bytes, reason: str, caplog: pytest.LogCaptureFixture) -> None:
    """Refused with its reason in the log and counted; the version before it stays the newest."""
    refused: list[str] = []
    feed = ModelFeed("models", Broker(), SPEC, on_refused=refused.append, key=KEY, names=["m"])
    feed.take(model_key("m", 1), good())
    kept = feed.version("m", 1)
    feed.take(model_key("m", 1), document)
    assert refused == ["m"]
    assert reason in caplog.text
    assert feed.version("m", 1) is kept is feed.latest["m"]


def test_version_written_again_after_a_newer_one() -> None:
    """Signed as it is, an old version takes nobody back: aliases follow the highest number."""
    feed = ModelFeed("models", Broker(), SPEC, key=KEY, names=["m"])
    registry = Registry(Aliases(Pin("m")))
    for number in (1, 3, 2, 1):
        feed.take(model_key("m", number), good(version=number))
    assert (feed.newest, feed.latest["m"].version, feed.refused) == ({"m": 3}, 3, 0)
    assert resolved(registry, feed.newest).champion == ("m", 3)


@pytest.mark.parametrize("circle", CIRCLES)
def test_version_that_would_never_answer(circle: str, caplog: pytest.LogCaptureFixture) -> None:
    """Trees with a circle, from somebody who writes without a key where none is asked for."""
    feed = ModelFeed("models", Broker(), SPEC)
    feed.take(model_key("m", 1), CIRCLES[circle]())
    assert (feed.refused, feed.version("m", 1)) == (1, None)
    assert "before" in caplog.text


def test_version_of_another_river_counts_by_what_it_scores() -> None:
    """It is plain numbers: the golden rows say whether this process scores as its writer did."""
    feed = ModelFeed("models", Broker(), SPEC, key=KEY)
    feed.take(model_key("m", 1), good(libraries={"river": "0.1.0"}))
    assert feed.newest == {"m": 1}


@pytest.mark.parametrize(
    "key", [None, b"", b"m", b"m/", b"/1", b"m/-1", b"m/1.0", b"m/" + b"9" * 5000, b"m/" + b"1" * 1_000_000,
            b"m/99999999999", "m/\u0661".encode(), b"../m/1", b"\xff/1"],
)  # fmt: skip
@pytest.mark.parametrize("value", [None, b"x"])
def test_128_keys_that_name_no_version(key: bytes | None, value: bytes | None) -> None:
    """Tombstones and documents under any key leave the versions as they are, and the worker alive."""
    refused: Counter[str] = Counter()
    feed = ModelFeed("models", Broker(), SPEC, on_refused=lambda name: refused.update([name]), key=KEY)
    feed.take(model_key("m", 1), good())
    feed.take(key, value)
    assert key_of(key) is None
    assert feed.newest == {"m": 1}
    assert refused == ({} if value is None else {"other": 1})
