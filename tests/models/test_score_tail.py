"""The sketch of recent scores: bins, edges, counts."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from models.score_tail import BINS, ScoreTail, bins_of, score_of

SCORES = st.floats(0.0, 1.0)


@given(SCORES, SCORES)
def test_bins_keep_the_order(one: float, other: float) -> None:
    """A higher score is never in a lower bin."""
    low, high = sorted([one, other])
    first, second = bins_of(np.array([low, high])).tolist()
    assert 0 <= first <= second < BINS


@given(st.integers(1, BINS - 1))
def test_the_edge_of_a_bin_is_its_lowest_score(edge: int) -> None:
    """The edge is in the bin, and what is a little lower in odds is not."""
    score = score_of(edge)
    below = score * (1 - 1e-6) / (1 - score * 1e-6)
    assert bins_of(np.array([score, below])).tolist() == [edge, edge - 1]


def test_the_ends_take_everything() -> None:
    """No score is below the lowest edge, none but 1 at the highest."""
    assert (score_of(0), score_of(BINS)) == (0.0, 1.0)
    assert bins_of(np.array([0.0, 1e-300, 1.0])).tolist() == [0, 0, BINS - 1]


@given(st.lists(st.floats(1e-5, 1 - 1e-5), min_size=1, max_size=50), st.floats(1e-5, 1 - 1e-5))
def test_counts_above_are_those_of_the_scores(scores: list[float], threshold: float) -> None:
    """Up to the bin of the threshold, whose odds differ by less than 1.6 %."""
    tail, array = ScoreTail(), np.array(scores)
    tail.add(bins_of(array))
    tail.fold(0.5)
    found = tail.above()[bins_of(np.array([threshold]))[0]]
    odds = array / (1 - array)
    at = threshold / (1 - threshold)
    assert (odds >= at * 1.016).sum() <= found <= (odds >= at / 1.016).sum()


def test_older_scores_count_less_and_sketches_add_up() -> None:
    """A fold keeps the share `decay` of what was before; two sketches merged are one of all scores."""
    one, other, both = ScoreTail(), ScoreTail(), ScoreTail()
    scores = np.array([0.1, 0.5, 0.9, 0.9])
    for tails, seen in (((one, both), scores[:2]), ((other, both), scores[2:])):
        for tail in tails:
            tail.add(bins_of(seen))
    for tail in (one, other, both):
        tail.fold(0.5)
        tail.add(bins_of(scores[:1]))
    both.add(bins_of(scores[:1]))
    one.merge(other)
    assert one.above().tolist() == both.above().tolist()
    assert one.present.tolist() == both.present.tolist()
    assert one.above()[0] == 4
    one.fold(0.25)
    assert one.above()[0] == 4 * 0.25 + 2
