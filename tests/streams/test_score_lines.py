"""Batches of scores are encoded as single ones are."""

from __future__ import annotations

import math

import msgspec
import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from streams.contract.codecs import encode
from streams.contract.records import ModelRef, Score, ShadowScore
from streams.stages.score_lines import ScoreFrame, score_lines

FLOATS = st.floats(allow_nan=False, allow_infinity=False)
TEXT = st.text(min_size=1, max_size=8)


ARMS = st.sampled_from(["champion", "canary"])


@given(
    rows=st.lists(
        st.tuples(TEXT, TEXT, TEXT, st.integers(0, 2**53), FLOATS, st.booleans(), ARMS), max_size=6
    ),
    names=st.lists(TEXT, max_size=2, unique=True),
    features=st.integers(0, 3),
    data=st.data(),
)
def test_lines_decode_to_the_scores_they_stand_for(rows, names, features, data) -> None:  # type: ignore[no-untyped-def]
    """Every line holds the fields of a `Score` in its order, with equal numbers; a NaN shadow is left out."""
    numbers = data.draw(st.lists(FLOATS, min_size=len(rows) * features, max_size=len(rows) * features))
    matrix = np.array(numbers).reshape(len(rows), features)
    beside = data.draw(
        st.lists(FLOATS | st.just(math.nan), min_size=len(rows) * len(names), max_size=len(rows) * len(names))
    )
    shadows = np.array(beside, dtype=float).reshape(len(rows), len(names))
    models = {"champion": ModelRef("champion%", 3), "canary": ModelRef("new", 4)}
    frame = ScoreFrame(
        7, models["champion"], models["canary"], tuple((name, 2) for name in names), "spec", "config"
    )
    lines = score_lines(
        frame,
        transaction_id=[row[0] for row in rows],
        card_id=[row[1] for row in rows],
        terminal_id=[row[2] for row in rows],
        currency=["EUR"] * len(rows),
        event_time=np.array([row[3] for row in rows], dtype=np.int64),
        amount_minor=np.arange(len(rows), dtype=np.int64),
        score=np.array([row[4] for row in rows]),
        arm=np.array([row[6] == "canary" for row in rows], dtype=np.bool_),
        shadows=shadows,
        threshold=np.array([row[4] / 2 for row in rows]),
        alert=np.array([row[5] for row in rows], dtype=np.bool_),
        control=np.array([index % 2 == 1 for index in range(len(rows))], dtype=np.bool_),
        propensity=np.array([0.25 if index % 2 else 1.0 for index in range(len(rows))]),
        features=matrix,
    )
    expected = [
        Score(
            transaction, card, terminal, time, 7, index, "EUR", score, score / 2, alert, arm, models[arm],
            [ShadowScore(name, 2, value) for name, value in zip(names, shadows[index].tolist(), strict=True)
             if value == value],
            matrix[index].tolist(), "spec", "config", index % 2 == 1, 0.25 if index % 2 else 1.0,
        )
        for index, (transaction, card, terminal, time, score, alert, arm) in enumerate(rows)
    ]  # fmt: skip
    assert [msgspec.json.decode(line, type=Score) for line in lines] == expected
    assert [list(msgspec.json.decode(line)) for line in lines] == [
        list(msgspec.json.decode(encode(score))) for score in expected
    ]
