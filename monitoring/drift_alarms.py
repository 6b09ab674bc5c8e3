"""When drift is an alarm: which figures have passed their limit, and which have come back."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from monitoring.drift_watch import Distance

#: What an alarm can be of, the most telling first.
KINDS = ("unit_change", "missing", "out_of_range", "unseen", "data", "score")
#: What is below this many times its limit ends an alarm.
RELEASE = 0.5


@dataclass(slots=True)
class Alarms:
    """Which figures are beyond their limit, by kind and name."""

    raised: set[tuple[str, str]] = field(default_factory=set)

    def update(self, found: Mapping[str, Sequence[Distance]]) -> list[tuple[str, str]]:
        """Take the distances of all windows; the alarms that are new, as kind and name.

        Where the values themselves are wrong, drift of what is made of them is no alarm of its own. A figure
        that is already one keeps its kind until a more telling one is found: the first hours of another unit
        are but values out of range in their day.
        """
        by_name: dict[str, list[Distance]] = {}
        for each in (each for window in found.values() for each in window):
            by_name.setdefault(each.name, []).append(each)
        now = {
            (min((each.kind for each in figures if each.kind), key=KINDS.index), name)
            for name, figures in by_name.items()
            if any(each.kind for each in figures)
        }
        calm = {
            name
            for name, figures in by_name.items()
            if all(each.js <= each.limit * RELEASE and not each.kind for each in figures)
        }
        self.raised = {(kind, name) for kind, name in self.raised if name not in calm}
        known = {name: kind for kind, name in self.raised}
        fresh = sorted(
            (kind, name)
            for kind, name in now
            if name not in known or KINDS.index(kind) < KINDS.index(known[name])
        )
        told = {name for _, name in fresh}
        self.raised = {(kind, name) for kind, name in self.raised if name not in told} | set(fresh)
        wrong = any(kind not in ("data", "score") for kind, _ in self.raised)
        return [(kind, name) for kind, name in fresh if not (wrong and kind in ("data", "score"))]
