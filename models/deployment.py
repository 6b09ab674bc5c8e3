"""Which models score: a champion whose results count, shadows beside it, a stand-in behind it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from models.snapshot import Snapshot, SpecMismatchError

Floats = NDArray[np.float64]
Clock = Callable[[], float]
"""Seconds of a monotonic clock; called, so that no clock is read in here."""


@dataclass(frozen=True, slots=True)
class Scored:
    """Scores of one batch of n rows, with s shadow slots.

    :ivar champion: f64[n]; the stand-in's scores when ``stand_in`` is set.
    :ivar shadows: f64[s, n], NaN where a shadow is off or failed.
    :ivar model: name and version of what gave ``champion``.
    :ivar seconds: spent by the champion, then by each shadow (0 where off).
    """

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
    strike, and is switched off at ``strikes_allowed`` in a row. A champion that fails is answered for by the
    stand-in, and tried again with the next batch.

    :ivar spec_digest: only models learned on this feature spec are let in.
    :ivar seconds_per_row: time budget of a shadow, for batches of at least ``rows_timed`` rows: smaller ones
        are all overhead.
    :ivar champion_failures: batches in which the stand-in answered.
    :ivar rows_not_finite: rows with features that were not finite; those features are scored as 0.
    """

    spec_digest: str
    champion: Snapshot
    stand_in: Snapshot
    seconds_per_row: float = 100e-6
    strikes_allowed: int = 3
    rows_timed: int = 32
    shadows: list[Shadow] = field(default_factory=list)
    champion_failures: int = 0
    last_champion_error: str = ""
    rows_not_finite: int = 0

    def __post_init__(self) -> None:
        for snapshot in (self.champion, self.stand_in, *(s.snapshot for s in self.shadows)):
            self._check(snapshot)

    def score(self, x: Floats, clock: Clock) -> Scored:
        """Score a batch.

        :param x: f64[n, k] in feature-spec order; never written to.
        :param clock: seconds, monotonic.
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
        shadows = np.full((len(self.shadows), len(x)), np.nan)
        for row, shadow in zip(shadows, self.shadows, strict=True):
            seconds.append(self._score_shadow(shadow, x, row, clock))
        return Scored(champion, shadows, (used.name, used.version), stood_in, tuple(seconds))

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
        """Role, name and version of every model in place, champion first."""
        shadows = [("shadow", s.snapshot.name, s.snapshot.version) for s in self.shadows]
        return [("champion", self.champion.name, self.champion.version), *shadows]

    def _score_shadow(self, shadow: Shadow, x: Floats, out: Floats, clock: Clock) -> float:
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
    scores = snapshot.scorer.score(x)
    if scores.shape != (len(x),) or scores.dtype != np.float64:
        raise ValueError(f"gave {scores.dtype}{list(scores.shape)} for {len(x)} rows")
    if not ((scores >= 0.0) & (scores <= 1.0)).all():  # NaN fails too
        raise ValueError("gave scores that are no probabilities")
    return scores
