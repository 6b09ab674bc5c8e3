"""How many verdicts of one origin teach: whoever floods the labels moves the learners a little only.

A verdict is an outcome that somebody has given, unlike one that was decided by silence. Of those about the
transactions of one day, only so many of one card, of one terminal and from one source count; the rest teach
nothing. That bounds what any one origin can do without trust in what it says: the share of bad examples is
what decides how far a model can be moved (Steinhardt, Koh, Liang: Certified defenses for data poisoning
attacks, NeurIPS 2017).

Days are those that the stream had reached when it had the transactions, by its watermark: neither who labels
them nor who stamps them can choose one. Counted is in the order in which outcomes come, which is that of
their topic. A label stage that was restarted gives the verdicts of its last batch again: a repeat uses up
nothing, and teaches nothing.

Memory is bounded, by 6 MB. Up to `MOST_ORIGINS` origins, all days together, counts are exact. Beyond that
they are too low by a few (Misra, Gries: Finding repeated elements, Science of Computer Programming 2, 1982):
a flood teaches so many verdicts more, at most one for every `MOST_ORIGINS` origins that were counted. No
verdict is refused for want of room.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence

import numpy as np

from models.arrays import Bools, Ints, Words

DAY = 86_400_000
#: Origins with a count, each of one day: 3 MB.
MOST_ORIGINS = 20_000
#: Verdicts remembered for their repeats: 3 MB; half of them at least, the latest ones.
MOST_REMEMBERED = 32_768
_MIX = np.uint64(0x9E3779B97F4A7C15)


def verdict_keys(transactions: Words, fraud: Bools, known_at: Ints, labelled_at: Ints) -> Words:
    """What tells verdicts apart, u64[n]: a repeat has the same key, a change of mind in time another one."""
    times = (known_at.view(np.uint64) * _MIX) ^ labelled_at.view(np.uint64)
    mixed = transactions ^ (times * _MIX)
    return (mixed << np.uint64(1)) | fraud.astype(np.uint64)


class LabelFloods:
    """Counts verdicts by day and origin.

    :ivar most: verdicts on the transactions of a day that count, by kind of origin, the narrowest kind first.
    :ivar counts: verdicts so far, by day, and by kind and origin; too low once there have been too many.
    :ivar flooded: verdicts that did not count, by the kind of origin that had too many.
    """

    def __init__(self, most: Mapping[str, int]) -> None:
        self.most = dict(most)
        self.counts: dict[int, dict[str, int]] = {}
        self.flooded: Counter[str] = Counter()
        self._origins = 0
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
                allowed[row] = False
                continue
            day = int(watermarks[row]) // DAY
            counts = self.counts.get(day, {})
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
                self._add(day, name)
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
        self._origins = sum(map(len, counts.values()))
        self._before, self._recent = (set(keys) for keys in remembered)

    def _remember(self, key: int) -> None:
        self._recent.add(key)
        if len(self._recent) >= MOST_REMEMBERED // 2:
            self._before, self._recent = self._recent, set()

    def _add(self, day: int, name: str) -> None:
        counts = self.counts.setdefault(day, {})
        if name not in counts:
            if self._origins >= MOST_ORIGINS:
                self._wear()
                return
            self._origins += 1
        counts[name] = counts.get(name, 0) + 1

    def _wear(self) -> None:
        """One more origin than there is room for: every count loses one, the new one its first."""
        worn = {
            day: {name: count - 1 for name, count in counts.items() if count > 1}
            for day, counts in self.counts.items()
        }
        self.counts = {day: counts for day, counts in worn.items() if counts}
        self._origins = sum(map(len, self.counts.values()))
