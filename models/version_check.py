"""Whether aliases that follow a model take its next version: not one that is much worse than those before it.

A learner that was taught flipped labels, or whose weights have exploded, goes on freezing versions. Each is
compared with the best one of late on the outcomes of the last days (`models/yardstick.py`). One that is much
worse is withheld: it is published and can be looked at, and nobody follows it. The best one is replaced by
the first that is no worse, so that many small steps down are withheld like a large one.

The learner goes on: once what it learned has faded, or the days have shown that it is right, its versions are
taken again. Where too little is known to compare, nothing is withheld.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from models.scorers.base import FrozenScorer
from models.yardstick import Comparison, Yardstick

#: Largest rise of 1 - AUC, and of the normalised entropy. Honest versions on the Handbook's history came up
#: to 0.19 and 0.35 once a week had been learned.
MOST_RANKING, MOST_ENTROPY = 0.2, 0.5


@dataclass(frozen=True, slots=True)
class Verdict:
    """What became of a version.

    :ivar withheld: why it is withheld; empty for one that is taken.
    """

    withheld: str = ""
    comparison: Comparison | None = None

    def figures(self) -> dict[str, float]:
        """For the version's header."""
        found = self.comparison
        if found is None:
            return {}
        return {
            "check_days": float(found.days),
            "check_auc": 1.0 - found.ranking.candidate,
            "check_auc_best": 1.0 - found.ranking.reference,
            "check_entropy": found.entropy.candidate,
            "check_entropy_best": found.entropy.reference,
        }


@dataclass(slots=True)
class VersionCheck:
    """What versions are compared with.

    :ivar best: number and scorer of the best version of late, by model name.
    :ivar taken: the last version that was not withheld, by model name.
    """

    yardstick: Yardstick = field(default_factory=Yardstick)
    best: dict[str, tuple[int, FrozenScorer]] = field(default_factory=dict)
    taken: dict[str, int] = field(default_factory=dict)

    def judge(
        self,
        name: str,
        version: int,
        scorer: FrozenScorer,
        *,
        least_frauds: int,
        keep_one_in: int = 1,
        probabilities: bool = True,
    ) -> Verdict:
        """Decide on a version, the next of its model.

        What cannot be compared is taken.

        :param least_frauds: see ``Yardstick.compare``, as is ``keep_one_in``.
        :param probabilities: whether the scores are meant to be; else only how they rank counts.
        """
        found = None
        if name in self.best:
            number, best = self.best[name]
            found = self.yardstick.compare(scorer, best, least_frauds=least_frauds, keep_one_in=keep_one_in)
            if found is not None and (reason := _much_worse(found, probabilities)):
                return Verdict(f"{reason} in version {number}, over {found.days} days of outcomes", found)
        self.taken[name] = version
        if found is None or _no_worse(found, probabilities):
            self.best[name] = version, scorer
        return Verdict("", found)


def _much_worse(found: Comparison, probabilities: bool) -> str:
    ranking, entropy = found.ranking, found.entropy
    if ranking.worse_by > MOST_RANKING:
        return f"AUC {1 - ranking.candidate:.3f} against {1 - ranking.reference:.3f}"
    if probabilities and entropy.worse_by > MOST_ENTROPY:
        return f"normalised entropy {entropy.candidate:.3f} against {entropy.reference:.3f}"
    return ""


def _no_worse(found: Comparison, probabilities: bool) -> bool:
    return found.ranking.worse_by <= 0.0 and (not probabilities or found.entropy.worse_by <= 0.0)
