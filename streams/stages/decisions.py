"""The decision policy of the settings, and its memory as bytes: of a batch's change, and as a whole."""

from __future__ import annotations

import msgspec
import numpy as np

from models.alert_budget import BudgetPolicy, BudgetState
from models.control_group import ControlGroup
from models.decision import Decided, DecisionPolicy, DecisionState, ScoredRows
from models.policy import CostPolicy, ThresholdPolicy
from streams.contract.currencies import EXPONENTS
from streams.errors import SettingsError
from streams.keys import read_key
from streams.settings import Settings
from streams.stages import columns
from streams.stages.columns import Columns

#: Fields of `BudgetState` that are written whole; its counts are written apart.
_SCALARS = tuple(name for name in BudgetState.__dataclass_fields__ if name != "tail")


class _Budget(msgspec.Struct):
    """The fields of `BudgetState` but the counts."""

    threshold: float
    version: int
    model: str
    clock: int
    until: int
    since: int
    credit: float
    spent: int
    rows: float
    traffic: float
    days: float
    present_rows: int
    seen: dict[int, int]
    counted: dict[int, int]


class _Meta(msgspec.Struct):
    clock: int
    whole: bool
    budget: _Budget | None


def decision_policy(settings: Settings) -> DecisionPolicy:
    """What decides, with these settings.

    Raises:
        SettingsError: the key of the control group cannot be read, or a currency is unknown.
    """
    policy = settings.policy
    threshold: ThresholdPolicy | CostPolicy | BudgetPolicy = ThresholdPolicy(policy.threshold)
    if policy.kind == "budget":
        threshold = BudgetPolicy(policy.alerts_per_day, settings.topics.partitions, policy.threshold)
    elif policy.kind == "cost":
        if unknown := sorted(policy.investigation_cost.keys() - EXPONENTS.keys()):
            raise SettingsError(
                f"policy.investigation_cost: {unknown[0]} is no current ISO 4217 code with minor units"
            )
        threshold = CostPolicy(policy.investigation_cost, policy.threshold)
    control = None
    if policy.control_share:
        key = read_key("policy.control_key_file", policy.control_key_file)
        control = ControlGroup(policy.control_share, key)
    return DecisionPolicy(threshold, cooldown_ms=policy.cooldown, control=control)


def scored_rows(rows: Columns, model: str, *, stood_in: bool) -> ScoredRows:
    """Rows with the `score` that counts, as the policy takes them."""
    return ScoredRows(
        scores=rows.floats("score"),
        card=rows.words("card"),
        card_id=rows.strings["card_id"],
        watermark=rows.ints("watermark"),
        source=rows.ints("card_partition"),
        offset=rows.ints("offset"),
        amount_minor=rows.ints("amount_minor"),
        currency=rows.strings["currency"],
        model=model,
        stood_in=stood_in,
    )


def encode_change(state: DecisionState, decided: Decided) -> bytes:
    """What `decided`, the decision made last, has changed of the state."""
    cards, until = [card for card, _ in decided.cooled], [until for _, until in decided.cooled]
    arrays: dict[str, columns.Array] = {}
    if decided.stepped:
        arrays = _counts(state)
    elif decided.bins:
        arrays["bins"] = np.concatenate(decided.bins).astype(np.uint16)
    return _encode(state, cards, until, arrays, whole=decided.stepped)


def encode_state(state: DecisionState) -> bytes:
    """All of it; nothing where nothing is remembered."""
    if state == DecisionState():
        return b""
    return _encode(state, list(state.cooling), list(state.cooling.values()), _counts(state), whole=True)


def apply(state: DecisionState, data: bytes) -> None:
    """Bring the state to what it was when `encode_change` or `encode_state` gave these bytes."""
    if not data:
        return
    message = columns.decode(data)
    meta = msgspec.convert(message.meta, _Meta)
    state.clock = meta.clock
    for card, until in zip(message.words("card").tolist(), message.ints("until").tolist(), strict=True):
        state.cooling.pop(card, None)
        state.cooling[card] = until
    state.forget()
    if meta.budget is None:
        return
    tail = state.budget.tail if state.budget is not None else None
    state.budget = BudgetState(**msgspec.structs.asdict(meta.budget))
    if tail is not None:
        state.budget.tail = tail
    tail = state.budget.tail
    if meta.whole:
        tail.before[:], tail.present[:] = 0.0, 0
        tail.before[message.arrays["at"]] = message.floats("before")
        tail.present[message.arrays["at"]] = message.ints("present")
    elif "bins" in message.arrays:
        tail.add(message.arrays["bins"].astype(np.int64))


def _encode(
    state: DecisionState, cards: list[int], until: list[int], arrays: dict[str, columns.Array], *, whole: bool
) -> bytes:
    budget = None
    if state.budget is not None:
        budget = {name: getattr(state.budget, name) for name in _SCALARS}
    arrays["card"] = np.array(cards, np.uint64)
    arrays["until"] = np.array(until, np.int64)
    return Columns({"clock": state.clock, "whole": whole, "budget": budget}, arrays).encode()


def _counts(state: DecisionState) -> dict[str, columns.Array]:
    """The bins that hold something."""
    if state.budget is None:
        return {}
    tail = state.budget.tail
    at = np.flatnonzero((tail.before > 0.0) | (tail.present > 0))
    return {"at": at.astype(np.uint16), "before": tail.before[at], "present": tail.present[at]}
