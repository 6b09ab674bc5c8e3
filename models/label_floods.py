"""How many verdicts of one origin teach: whoever floods the labels moves the learners a little only.

A verdict is an outcome that somebody has given, unlike one that was decided by silence. Of those about the
transactions of one day, only so many of one card, of one terminal and from one source count; the rest teach
nothing. That bounds what any one origin can do without trust in what it says: the share of bad examples is
what decides how far a model can be moved (Steinhardt, Koh, Liang: Certified defenses for data poisoning
attacks, NeurIPS 2017).

Days are those of the transactions, which who labels them cannot choose. Counted is in the order in which
outcomes come, which is that of their topic.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from models.arrays import Bools

DAY = 86_400_000
#: Days of which counts are kept; the oldest go first.
DAYS_KEPT = 64
#: Origins counted in a day; those that come later are not bounded.
MOST_ORIGINS = 200_000


class LabelFloods:
    """Counts verdicts by day and origin.

    :ivar most: verdicts on the transactions of a day that count, by kind of origin, the narrowest kind first.
    :ivar counts: verdicts so far, by day, and by kind and origin.
    :ivar flooded: verdicts that did not count, by the kind of origin that had too many.
    """

    def __init__(self, most: Mapping[str, int]) -> None:
        self.most = dict(most)
        self.counts: dict[int, dict[str, int]] = {}
        self.flooded: Counter[str] = Counter()

    def count(
        self, event_times: NDArray[np.int64], said: Bools, origins: Mapping[str, Sequence[object]]
    ) -> Bools:
        """Which of n outcomes may teach: bool[n].

        :param event_times: i64[n] of the transactions, epoch milliseconds.
        :param said: bool[n], the verdicts; others always count.
        :param origins: by kind the origins of all n.
        """
        allowed = np.ones(len(said), np.bool_)
        for row in np.flatnonzero(said).tolist():
            counts = self._of(int(event_times[row]) // DAY)
            for kind, most in self.most.items():
                origin = f"{kind}/{origins[kind][row]}"
                if origin not in counts and len(counts) >= MOST_ORIGINS:
                    continue
                if counts.get(origin, 0) >= most:
                    # What one card has too much is none of its source's share.
                    allowed[row] = False
                    self.flooded[kind] += 1
                    break
                counts[origin] = counts.get(origin, 0) + 1
        return allowed

    def _of(self, day: int) -> dict[str, int]:
        if len(self.counts) >= DAYS_KEPT:
            day = max(day, min(self.counts))  # what is older than all that is kept counts with the oldest
        counts = self.counts.setdefault(day, {})
        if len(self.counts) > DAYS_KEPT:
            self.counts.pop(min(self.counts))
        return counts
