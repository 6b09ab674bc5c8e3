"""Which models score: a champion, a canary that decides for some cards, shadows, a stand-in behind them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from models.arms import U64, in_canary
from models.memory import MemoryWatch
from models.snapshot import Snapshot
from models.snapshot_document import SpecMismatchError

Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]
Clock = Callable[[], float]
"""Seconds of a monotonic clock; called, so that no clock is read in here."""


@dataclass(frozen=True, slots=True)
class Scored:
    """Scores of one batch of n rows, with s slots beside the champion: the canary, if any, then the shadows.

    :ivar decided: f64[n], what counts: the canary's where ``arm`` is set, else the champion's.
    :ivar arm: bool[n], rows that the canary has decided.
    :ivar champion: f64[n]; the stand-in's scores when ``stand_in`` is set.
    :ivar shadows: f64[s, n], NaN where one is off or failed.
    :ivar model: name and version of what gave ``champion``.
    :ivar seconds: spent by the champion, then by each of the others (0 where off).
    """

    decided: Floats
    arm: Bools
    champion: Floats
    shadows: Floats
    model: tuple[str, int]
    stand_in: bool
    seconds: tuple[float, ...]


@dataclass(slots=True)
class Shadow:
    """A shadow slot: a model, and what it has done wrong.

    :ivar off: why it is switched off, or None while it runs.
    :ivar failures: batches in which it raised or gave no probabilities.
    :ivar strikes: batches over the time budget since the last one within it.
    """

    snapshot: Snapshot
    off: str | None = None
    failures: int = 0
    strikes: int = 0


@dataclass(slots=True)
class Deployment:
    """Scores every row with the champion and, apart from it, with the shadows.

    The champion runs first, on its own memory; a shadow sees a read-only view and cannot delay it except
    within a batch it has struck out of. A shadow that raises, or gives a wrong shape or something that is no
    probability, is switched off at once; one that is over ``seconds_per_row`` on average over a batch gets a
    strike, and is switched off at ``strikes_allowed`` in a row; one that has taken too much memory is
    switched off before its next batch. A champion that fails is answered for by the stand-in, and tried again
    with the next batch. A canary scores every row and decides those of its cards; where it raises or gives no
    probability, the champion decides, and it is tried again with the next batch.

    :ivar spec_digest: only models learned on this feature spec are let in.
    :ivar seconds_per_row: time budget of a shadow, for batches of at least ``rows_timed`` rows: smaller ones
        are all overhead.
    :ivar memory: watches what shadows take, here and in the other partitions of the process; None for nobody.
    :ivar canary: scores every row; decides for ``percent`` of the cards, chosen by ``canary_name``.
    :ivar champion_failures: batches in which the stand-in answered.
    :ivar canary_failures: rows of the canary's cards for which the champion answered.
    :ivar rows_not_finite: rows with features that were not finite; those features are scored as 0.
    """

    spec_digest: str
    champion: Snapshot
    stand_in: Snapshot
    seconds_per_row: float = 100e-6
    strikes_allowed: int = 3
    rows_timed: int = 32
    memory: MemoryWatch | None = None
    shadows: list[Shadow] = field(default_factory=list)
    canary: Snapshot | None = None
    canary_name: str = ""
    percent: float = 0.0
    champion_failures: int = 0
    last_champion_error: str = ""
    canary_failures: int = 0
    last_canary_error: str = ""
    rows_not_finite: int = 0

    def __post_init__(self) -> None:
        for snapshot in (self.champion, self.stand_in, *(s.snapshot for s in self.shadows)):
            self._check(snapshot)

    def install(
        self,
        champion: Snapshot,
        shadows: Sequence[Snapshot] = (),
        canary: Snapshot | None = None,
        *,
        canary_name: str = "",
        percent: float = 0.0,
    ) -> None:
        """Put these in the slots, from the next batch on; a shadow that stays keeps what it has done wrong.

        :raises SpecMismatchError: one was learned on another feature spec; nothing changed.
        """
        for snapshot in (champion, *shadows, *([canary] if canary else [])):
            self._check(snapshot)
        held = {(s.snapshot.name, s.snapshot.version): s for s in self.shadows}
        self.shadows = [held.get((each.name, each.version)) or Shadow(each) for each in shadows]
        self.champion, self.canary = champion, canary
        self.canary_name, self.percent = canary_name, percent

    def score(self, x: Floats, clock: Clock, cards: U64 | None = None) -> Scored:
        """Score a batch.

        :param x: f64[n, k] in feature-spec order; never written to.
        :param clock: seconds, monotonic.
        :param cards: u64[n] hashes of the cards; needed where there is a canary.
        """
        x = self._finite(x)
        begin = clock()
        used, stood_in = self.champion, False
        try:
            champion = probabilities(self.champion, x)
        except Exception as error:  # whatever a model does, the batch must be scored
            self.champion_failures += 1
            self.last_champion_error = f"{type(error).__name__}: {error}"
            used, stood_in = self.stand_in, True
            champion = probabilities(self.stand_in, x)
        seconds = [clock() - begin]
        beside = int(self.canary is not None)
        others = np.full((beside + len(self.shadows), len(x)), np.nan)
        decided, arm = champion, np.zeros(len(x), np.bool_)
        if self.canary is not None:
            if cards is None:
                raise ValueError("a canary needs to know the cards")
            begin = clock()
            others[0] = self._canary_scores(self.canary, x)
            chosen = in_canary(cards, self.canary_name, self.percent)
            arm = chosen & ~np.isnan(others[0])
            self.canary_failures += int(chosen.sum() - arm.sum())
            decided = np.where(arm, others[0], champion)
            seconds.append(clock() - begin)
        if self.memory is not None and self.shadows:
            self.memory.begin()
        for row, shadow in zip(others[beside:], self.shadows, strict=True):
            seconds.append(self._score_shadow(shadow, x, row, clock))
        model = (used.name, used.version)
        return Scored(decided, arm, champion, others, model, stood_in, tuple(seconds))

    def promote(self, snapshot: Snapshot) -> None:
        """Make ``snapshot`` the champion, from the next batch on.

        :raises SpecMismatchError: it was learned on another feature spec; the champion stays.
        """
        self._check(snapshot)
        self.champion = snapshot

    def swap(self, snapshot: Snapshot) -> list[str]:
        """Put a newer version in every slot that holds a model of its name.

        A shadow that was switched off gets its new version a fresh start. An older or equal version changes
        nothing.

        :returns: the roles that changed: ``champion``, ``shadow``, or none.
        :raises SpecMismatchError: it was learned on another feature spec; nothing changed.
        """
        self._check(snapshot)
        roles = []
        if snapshot.name == self.champion.name and snapshot.version > self.champion.version:
            self.champion = snapshot
            roles.append("champion")
        for i, shadow in enumerate(self.shadows):
            if snapshot.name == shadow.snapshot.name and snapshot.version > shadow.snapshot.version:
                self.shadows[i] = Shadow(snapshot)
                roles.append("shadow")
        return roles

    def add_shadow(self, snapshot: Snapshot) -> None:
        """Add a shadow slot, or replace the one of that name.

        :raises SpecMismatchError: it was learned on another feature spec; nothing changed.
        """
        self._check(snapshot)
        self.remove_shadow(snapshot.name)
        self.shadows.append(Shadow(snapshot))

    def remove_shadow(self, name: str) -> bool:
        """Remove the shadow slot of that name; whether there was one."""
        kept = [s for s in self.shadows if s.snapshot.name != name]
        removed = len(kept) < len(self.shadows)
        self.shadows = kept
        return removed

    def models(self) -> Sequence[tuple[str, str, int]]:
        """Role, name and version of every model in place: the champion, the canary if any, the shadows."""
        canary = [("canary", self.canary.name, self.canary.version)] if self.canary is not None else []
        shadows = [("shadow", s.snapshot.name, s.snapshot.version) for s in self.shadows]
        return [("champion", self.champion.name, self.champion.version), *canary, *shadows]

    def _canary_scores(self, canary: Snapshot, x: Floats) -> Floats:
        """The canary's scores f64[n]; NaN where it gives no probability, everywhere where it raises."""
        view = x.view()
        view.flags.writeable = False
        try:
            scores = _shaped(canary, view)
        except Exception as error:  # the champion answers
            self.last_canary_error = f"{type(error).__name__}: {error}"
            return np.full(len(x), np.nan)
        possible = (scores >= 0.0) & (scores <= 1.0)
        if not possible.all():
            self.last_canary_error = "gave scores that are no probabilities"
        return np.where(possible, scores, np.nan)

    def _score_shadow(self, shadow: Shadow, x: Floats, out: Floats, clock: Clock) -> float:
        version = shadow.snapshot.name, shadow.snapshot.version
        if self.memory is not None and shadow.off is None:
            shadow.off = self.memory.fault(version)
        if shadow.off is not None:
            return 0.0
        begin = clock()
        view = x.view()
        view.flags.writeable = False
        try:
            out[:] = probabilities(shadow.snapshot, view)
        except Exception as error:  # a shadow must not disturb the champion
            shadow.failures += 1
            shadow.off = f"{type(error).__name__}: {error}"
        spent = clock() - begin
        if self.memory is not None:
            self.memory.called(version)
        if len(x) >= self.rows_timed:
            over = spent > self.seconds_per_row * len(x)
            shadow.strikes = shadow.strikes + 1 if over else 0
            if shadow.strikes >= self.strikes_allowed and shadow.off is None:
                shadow.off = f"slow: {spent / len(x) * 1e6:.0f} µs a row"
        return spent

    def _finite(self, x: Floats) -> Floats:
        finite = np.isfinite(x)
        if finite.all():
            return x
        self.rows_not_finite += int((~finite).any(axis=1).sum())
        return np.where(finite, x, 0.0)

    def _check(self, snapshot: Snapshot) -> None:
        if snapshot.spec_digest != self.spec_digest:
            raise SpecMismatchError(
                f"{snapshot.name} v{snapshot.version} was learned on spec {snapshot.spec_digest}, "
                f"in force is {self.spec_digest}"
            )


def probabilities(snapshot: Snapshot, x: Floats) -> Floats:
    """The snapshot's scores f64[n].

    :raises ValueError: the scorer gave another shape, or something that is no probability.
    """
    scores = _shaped(snapshot, x)
    if not ((scores >= 0.0) & (scores <= 1.0)).all():  # NaN fails too
        raise ValueError("gave scores that are no probabilities")
    return scores


def _shaped(snapshot: Snapshot, x: Floats) -> Floats:
    scores = snapshot.scorer.score(x)
    if scores.shape != (len(x),) or scores.dtype != np.float64:
        raise ValueError(f"gave {scores.dtype}{list(scores.shape)} for {len(x)} rows")
    return scores
