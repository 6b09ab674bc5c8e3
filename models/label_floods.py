"""How many verdicts of one origin teach: whoever floods the labels moves the learners a little only.

A verdict is an outcome that somebody has given, unlike one that was decided by silence. Of those about the
transactions of one day, only so many of one card, of one terminal and from one source count; the rest teach
nothing. That bounds what any one origin can do without trust in what it says: the share of bad examples is
what decides how far a model can be moved (Steinhardt, Koh, Liang: Certified defenses for data poisoning
attacks, NeurIPS 2017).

Days are those that the stream had reached when it had the transactions, by its watermark: neither who labels
them nor who stamps them can choose one. Counted is in the order in which outcomes come, which is that of
their topic. A label stage that was restarted gives the verdicts of its last batch again: a repeat uses up
nothing.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence

import numpy as np

from models.arrays import Bools, Ints, Words

DAY = 86_400_000
#: Days of which counts are kept; the oldest go first.
DAYS_KEPT = 64
#: Origins counted in a day; those that come later are not bounded.
MOST_ORIGINS = 200_000
#: Verdicts remembered for their repeats, 3 MB; half of them at least, the latest ones.
MOST_REMEMBERED = 32_768
_MIX = np.uint64(0x9E3779B97F4A7C15)


def verdict_keys(transactions: Words, fraud: Bools, known_at: Ints) -> Words:
    """What tells verdicts apart, u64[n]: a repeat has the same key, a change of mind in time another one."""
    mixed = transactions ^ (known_at.view(np.uint64) * _MIX)
    return (mixed << np.uint64(1)) | fraud.astype(np.uint64)


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
        self._recent: set[int] = set()
        self._before: set[int] = set()

    def count(
        self, watermarks: Ints, said: Bools, origins: Mapping[str, Sequence[object]], keys: Words
    ) -> Bools:
        """Which of n outcomes may teach: bool[n].

        :param watermarks: i64[n], where the stream was at the transactions, epoch milliseconds.
        :param said: bool[n], the verdicts; others always count.
        :param origins: by kind the origins of all n.
        :param keys: u64[n], ``verdict_keys``.
        """
        allowed = np.ones(len(said), np.bool_)
        for row in np.flatnonzero(said).tolist():
            key = int(keys[row])
            if key in self._recent or key in self._before:
                continue
            counts = self._of(int(watermarks[row]) // DAY)
            names = {kind: f"{kind}/{origins[kind][row]}" for kind in self.most}
            full = next(
                (kind for kind, name in names.items() if counts.get(name, 0) >= self.most[kind]), None
            )
            if full is not None:
                # What one card has too much is none of its source's share.
                allowed[row] = False
                self.flooded[full] += 1
                continue
            self._remember(key)
            for name in names.values():
                if name in counts or len(counts) < MOST_ORIGINS:
                    counts[name] = counts.get(name, 0) + 1
        return allowed

    @property
    def remembered(self) -> tuple[list[int], list[int]]:
        """Keys of the verdicts counted lately, the older ones first."""
        return list(self._before), list(self._recent)

    def restore(
        self, counts: Mapping[int, Mapping[str, int]], remembered: tuple[Iterable[int], Iterable[int]]
    ) -> None:
        """Go on from the ``counts`` and the ``remembered`` of another."""
        self.counts = {day: dict(origins) for day, origins in counts.items()}
        self._before, self._recent = (set(keys) for keys in remembered)

    def _remember(self, key: int) -> None:
        self._recent.add(key)
        if len(self._recent) >= MOST_REMEMBERED // 2:
            self._before, self._recent = self._recent, set()

    def _of(self, day: int) -> dict[str, int]:
        if len(self.counts) >= DAYS_KEPT:
            day = max(day, min(self.counts))  # what is older than all that is kept counts with the oldest
        counts = self.counts.setdefault(day, {})
        if len(self.counts) > DAYS_KEPT:
            self.counts.pop(min(self.counts))
        return counts
