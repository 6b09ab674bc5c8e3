"""The public records, field by field as they stand on the topics, and the reason a record is refused.

Times are integer epoch milliseconds, amounts integer minor units of the currency. Fields are encoded in the
order given here. `docs/records.md` describes each field for people outside.
"""

from __future__ import annotations

from typing import Literal

from msgspec import Struct

Action = Literal["shown", "opened", "confirmed", "dismissed"]
Arm = Literal["champion", "canary"]


class Transaction(Struct, frozen=True, gc=False, omit_defaults=True):
    """A card transaction to be scored; `terminal_id` is empty where the feature spec knows no terminal."""

    transaction_id: str
    card_id: str
    event_time: int
    amount_minor: int
    currency: str
    terminal_id: str = ""
    merchant_id: str | None = None
    mcc: str | None = None
    country: str | None = None
    channel: str | None = None
    device_id: str | None = None
    ip: str | None = None
    attributes: dict[str, float] = {}


class Label(Struct, frozen=True, gc=False):
    """What became known about a transaction at `labelled_at`; a higher revision replaces a lower one."""

    transaction_id: str
    card_id: str
    fraud: bool
    source: str
    labelled_at: int
    revision: int = 0


class Feedback(Struct, frozen=True, gc=False):
    """What an analyst did with an alert."""

    alert_id: str
    transaction_id: str
    card_id: str
    action: Action
    actor: str
    action_time: int


class ModelRef(Struct, frozen=True, gc=False):
    """A published model version."""

    name: str
    version: int


class Adoption(Struct, frozen=True, gc=False):
    """From which offsets on a score partition uses which models; keyed `deployment` on the metrics topic.

    `move` is the number of the last move in it; `applied` the offset of every transactions partition up to
    which all was scored before, `ahead` those beyond it that were, too.
    """

    partition: int
    move: int
    champion: ModelRef
    canary: ModelRef | None
    percent: float
    shadows: list[ModelRef]
    alerts_held: bool
    applied: dict[str, int]
    ahead: dict[str, list[int]]
    adopted_at: int


class ShadowScore(Struct, frozen=True, gc=False):
    """The score a shadow gave, beside the decision and without influence on it."""

    name: str
    version: int
    score: float


class Reason(Struct, frozen=True, gc=False):
    """A feature, its value and its contribution to the score in log-odds."""

    feature: str
    value: float
    contribution: float


class Score(Struct, frozen=True, gc=False):
    """The score of one accepted transaction; `features` are what it was computed from, in spec order."""

    transaction_id: str
    card_id: str
    terminal_id: str
    event_time: int
    scored_at: int
    amount_minor: int
    currency: str
    score: float
    threshold: float
    alert: bool
    arm: Arm
    model: ModelRef
    shadows: list[ShadowScore]
    features: list[float]
    spec: str
    config: str
    control_group: bool = False
    propensity: float = 1.0


class Alert(Struct, frozen=True, gc=False):
    """A suspicious transaction: everything of its score but the features, and why."""

    alert_id: str
    transaction_id: str
    card_id: str
    terminal_id: str
    event_time: int
    scored_at: int
    amount_minor: int
    currency: str
    score: float
    threshold: float
    alert: bool
    arm: Arm
    model: ModelRef
    shadows: list[ShadowScore]
    spec: str
    config: str
    control_group: bool
    propensity: float
    reasons: list[Reason]


def alert_of(score: Score, alert_id: str, reasons: list[Reason]) -> Alert:
    """The alert that belongs to a score."""
    return Alert(
        alert_id=alert_id,
        transaction_id=score.transaction_id,
        card_id=score.card_id,
        terminal_id=score.terminal_id,
        event_time=score.event_time,
        scored_at=score.scored_at,
        amount_minor=score.amount_minor,
        currency=score.currency,
        score=score.score,
        threshold=score.threshold,
        alert=score.alert,
        arm=score.arm,
        model=score.model,
        shadows=score.shadows,
        spec=score.spec,
        config=score.config,
        control_group=score.control_group,
        propensity=score.propensity,
        reasons=reasons,
    )


class Rejection(Struct, frozen=True, gc=False):
    """Why a record cannot be used: a code of `rejections.CODES`, a message without payload, a field."""

    code: str
    message: str
    field: str = ""
