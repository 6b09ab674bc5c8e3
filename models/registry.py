"""Which model holds which alias, as a function of the moves that people and gates have made.

Versions never change; aliases move: champion, canary, shadows. A move is an event with a number, and counts
only if its number follows that of the last one that counted. So a move read twice, an old one replayed by
somebody, and the later of two made at the same time change nothing, for every reader of the same log alike;
and whoever decides on evidence decides on the aliases that the evidence is about.

A pin without a version follows the newest version of its model; one with a version stays there. A name is in
one slot only, except that champion and canary may be two pins of one model.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Literal

Kind = Literal[
    "promote", "rollback", "canary", "shadow-add", "shadow-remove", "hold-alerts", "release-alerts"
]
#: Kinds of moves that give a champion its place.
CROWNING = ("promote", "rollback")
#: Former champions that a rollback can go back to.
FORMER_KEPT = 20
MOST_SHADOWS = 16


class MoveIgnored(ValueError):
    """The move does not count: look at the aliases as they are, and decide anew."""


class StaleMove(MoveIgnored):
    """Its number is not the next one: it was made on other aliases, or is a repetition."""


class MoveRefused(MoveIgnored):
    """It makes no sense for the aliases as they are."""


@dataclass(frozen=True, slots=True)
class Pin:
    """A model, at a version or (None) at the newest one."""

    name: str
    version: int | None = None

    def __str__(self) -> str:
        return self.name if self.version is None else f"{self.name}/{self.version}"


@dataclass(frozen=True, slots=True)
class Move:
    """One event of the control topic.

    :ivar number: 1 for the first move, one more for every further one.
    :ivar model: what is moved; None for a move of the alerts.
    :ivar percent: share of cards of a canary, 0 to 100; 0 ends it.
    :ivar who: who made it, ``gate`` for an automatic one.
    :ivar at: when, epoch milliseconds.
    :ivar evidence: figures that it was made on.
    """

    number: int
    kind: Kind
    model: Pin | None = None
    percent: float = 0.0
    who: str = ""
    at: int = 0
    reason: str = ""
    evidence: Mapping[str, float | int | str | None] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Aliases:
    """Who holds which slot.

    :ivar percent: share of cards that the canary decides.
    :ivar former: champions before this one, the last one last.
    :ivar alerts_held: system shadow mode: scores are published, alerts are not.
    """

    champion: Pin
    shadows: tuple[Pin, ...] = ()
    canary: Pin | None = None
    percent: float = 0.0
    former: tuple[Pin, ...] = ()
    alerts_held: bool = False

    def pins(self) -> tuple[Pin, ...]:
        """Everything that scores, the champion first, then the canary."""
        return (self.champion, *([self.canary] if self.canary else []), *self.shadows)


def moved(aliases: Aliases, move: Move) -> Aliases:
    """The aliases after the move.

    :raises MoveRefused: it makes no sense.
    """
    match move.kind:
        case "hold-alerts" | "release-alerts":
            held = move.kind == "hold-alerts"
            if aliases.alerts_held == held:
                raise MoveRefused(f"alerts are {'held back' if held else 'published'} already")
            return replace(aliases, alerts_held=held)
        case _ if move.model is None:
            raise MoveRefused(f"{move.kind} of no model")
        case "promote" | "rollback":
            return _crowned(aliases, move.model, back=move.kind == "rollback")
        case "canary":
            return _canary(aliases, move.model, move.percent)
        case "shadow-add":
            return _with_shadow(aliases, move.model)
        case "shadow-remove":
            kept = tuple(pin for pin in aliases.shadows if pin.name != move.model.name)
            if len(kept) == len(aliases.shadows):
                raise MoveRefused(f"{move.model.name} is no shadow")
            return replace(aliases, shadows=kept)


def _crowned(aliases: Aliases, model: Pin, *, back: bool) -> Aliases:
    """The model is the champion; who was champion or canary before scores on as a shadow."""
    if model == aliases.champion:
        raise MoveRefused(f"{model} is the champion already")
    former = aliases.former
    former = former[:-1] if back and former and former[-1] == model else (*former, aliases.champion)
    shadows = aliases.shadows
    for pin in (aliases.champion, aliases.canary):
        if pin is not None and pin.name not in {each.name for each in shadows}:
            shadows = (*shadows, pin)
    shadows = tuple(pin for pin in shadows if pin.name != model.name)
    return replace(
        aliases, champion=model, shadows=shadows, canary=None, percent=0.0, former=former[-FORMER_KEPT:]
    )


def _canary(aliases: Aliases, model: Pin, percent: float) -> Aliases:
    if not (math.isfinite(percent) and 0.0 <= percent <= 100.0):
        raise MoveRefused(f"{percent} is not a share in percent")
    now = aliases.canary
    if percent == 0.0:
        if now != model:
            raise MoveRefused(f"{model} is no canary")
        names = {pin.name for pin in (aliases.champion, *aliases.shadows)}
        shadows = aliases.shadows if model.name in names else (*aliases.shadows, model)
        return replace(aliases, canary=None, percent=0.0, shadows=shadows)
    if model == aliases.champion:
        raise MoveRefused(f"{model} is the champion")
    if now is not None and now != model:
        raise MoveRefused(f"{now} is the canary: end it first, with 0 percent")
    if now == model and percent == aliases.percent:
        raise MoveRefused(f"{model} is the canary of {percent:g} % of the cards already")
    shadows = tuple(pin for pin in aliases.shadows if pin.name != model.name)
    return replace(aliases, canary=model, percent=percent, shadows=shadows)


def _with_shadow(aliases: Aliases, model: Pin) -> Aliases:
    if model.name in {pin.name for pin in (aliases.champion, aliases.canary) if pin is not None}:
        raise MoveRefused(f"{model.name} is champion or canary")
    if model in aliases.shadows:
        raise MoveRefused(f"{model} is a shadow already")
    others = tuple(pin for pin in aliases.shadows if pin.name != model.name)
    if len(others) >= MOST_SHADOWS:
        raise MoveRefused(f"{MOST_SHADOWS} shadows are the most there may be")
    return replace(aliases, shadows=(*others, model))


@dataclass(frozen=True, slots=True)
class Entry:
    """A move with the next number, with the aliases after it.

    :ivar refused: why it changed nothing; empty for one that did.
    """

    move: Move
    aliases: Aliases
    refused: str = ""


class Registry:
    """The aliases after all moves so far, and the moves."""

    def __init__(self, initial: Aliases) -> None:
        self.initial = initial
        self.history: list[Entry] = []

    @property
    def aliases(self) -> Aliases:
        return self.history[-1].aliases if self.history else self.initial

    @property
    def last(self) -> int:
        """Number of the last move, one that was refused included; 0 before the first."""
        return len(self.history)

    def take(self, move: Move) -> None:
        """Let the move count.

        :raises StaleMove: nothing has changed.
        :raises MoveRefused: only the number has been used up. So numbers depend on the log alone: a move that
            makes no sense any more, after a change of the settings, does not void those after it.
        """
        if move.number != self.last + 1:
            raise StaleMove(f"it is move {move.number}, the next one is {self.last + 1}")
        try:
            aliases = moved(self.aliases, move)
        except MoveRefused as error:
            self.history.append(Entry(move, self.aliases, str(error)))
            raise
        self.history.append(Entry(move, aliases))

    @property
    def promotion(self) -> Move | None:
        """The move that the present champion owes its place to, if that was a promotion."""
        crowned = [each.move for each in self.history if not each.refused and each.move.kind in CROWNING]
        return crowned[-1] if crowned and crowned[-1].kind == "promote" else None

    def crowned(self, pin: Pin) -> bool:
        """Whether the pin is or has been the champion, by the settings or by a move."""
        return pin == self.initial.champion or any(entry.aliases.champion == pin for entry in self.history)

    def names(self, name: str, version: int) -> bool:
        """Whether any move has named that version: it may be rolled back to, and is kept."""
        return any(entry.move.model == Pin(name, version) for entry in self.history)


Version = tuple[str, int]
"""Name and version of a model; version 0 is the rules that stand in before its first one."""
NOWHERE = -1
"""The newest version of a model that nobody has ever heard of."""


@dataclass(frozen=True, slots=True)
class Slots:
    """Aliases with every pin at a version: what scores, exactly.

    :ivar move: number of the last move in them.
    :ivar canary: of the cards, those of `canary_name` at `percent` (`models.arms`).
    """

    champion: Version
    shadows: tuple[Version, ...] = ()
    canary: Version | None = None
    canary_name: str = ""
    percent: float = 0.0
    alerts_held: bool = False
    move: int = 0

    def versions(self) -> tuple[Version, ...]:
        """Everything that scores, the champion first, then the canary."""
        return (self.champion, *([self.canary] if self.canary else []), *self.shadows)


def resolved(registry: Registry, newest: Mapping[str, int]) -> Slots:
    """The slots for the present aliases.

    The rules stand in for the models of the settings only, before they have learned: a move to another model
    without any version gives `NOWHERE`.

    :param newest: the newest version of every model that has one.
    """
    aliases = registry.aliases
    learning = {pin.name for pin in registry.initial.pins()}

    def at(pin: Pin) -> Version:
        first = 0 if pin.name in learning else NOWHERE
        return pin.name, newest.get(pin.name, first) if pin.version is None else pin.version

    return Slots(
        champion=at(aliases.champion),
        shadows=tuple(at(pin) for pin in aliases.shadows),
        canary=None if aliases.canary is None else at(aliases.canary),
        canary_name="" if aliases.canary is None else str(aliases.canary),
        percent=aliases.percent,
        alerts_held=aliases.alerts_held,
        move=registry.last,
    )
