"""A window's tally as the figures that people read: counts, the alert funnel, money, what outcomes say."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from monitoring.funnel import STEPS, ratio
from monitoring.tallies import Tally


def dimensions(tally: Mapping[str, int]) -> dict[str, dict[str, Tally]]:
    """The counts `count@kind:value` by kind, then as one tally for every value, in the order of values."""
    found: dict[str, dict[str, Tally]] = {}
    for key in sorted(tally):
        count, at, rest = key.partition("@")
        if at:
            kind, _, value = rest.partition(":")
            found.setdefault(kind, {}).setdefault(value, {})[count] = tally[key]
    return found


def figures(tally: Mapping[str, int]) -> dict[str, Any]:
    """Everything a window says, ready to be written as JSON; ratios are NaN where they say nothing.

    Counts of transactions, alerts and outcomes belong to the event time of the transaction. Money is in minor
    units by the digits of the currency's minor unit.
    """
    get = tally.get
    by = dimensions(tally)
    money = by.get("exponent", {})
    outcomes = get("outcomes", 0)
    return {
        "transactions": get("transactions", 0),
        "late": get("late", 0),
        "alerts": get("alerts", 0),
        "alert_rate": ratio(get("alerts", 0), get("transactions", 0)),
        "control": get("control", 0),
        "amount": {key: each["amount"] for key, each in money.items() if "amount" in each},
        "flagged": {key: each["flagged"] for key, each in money.items() if "flagged" in each},
        "confirmed_amount": {
            key: each["confirmed_amount"] for key, each in money.items() if "confirmed_amount" in each
        },
        "funnel": funnel(tally),
        "models": [_of_model(name, each) for name, each in by.get("by", {}).items()],
        "shadows": {name: _of_shadow(each) for name, each in by.get("shadow", {}).items()},
        "outcomes": outcomes,
        "frauds": get("frauds", 0),
        "base_rate": ratio(get("frauds", 0), outcomes),
        **_judged(tally),
        "coverage": ratio(outcomes, get("transactions", 0)),
        "fraud_amount": {key: each["fraud_amount"] for key, each in money.items() if "fraud_amount" in each},
        "labels": {
            source: {
                "count": each["labels"],
                "delay_seconds": ratio(each.get("label_ms", 0), each["labels"]) / 1000,
            }
            for source, each in by.get("source", {}).items()
            if each.get("labels")
        },
    }


def funnel(tally: Mapping[str, int]) -> dict[str, Any]:
    """The funnel of one tally with its rates: the share of the step before, decisions of the decided."""
    shown, opened, confirmed, dismissed = (tally.get(step, 0) for step in STEPS)
    decided = confirmed + dismissed
    return {
        "shown": shown,
        "opened": opened,
        "confirmed": confirmed,
        "dismissed": dismissed,
        "shown_rate": ratio(shown, tally.get("alerts", 0)),
        "ctr": ratio(opened, shown),
        "decided_rate": ratio(decided, opened),
        "precision": ratio(confirmed, decided),
        "decision_seconds": ratio(tally.get("decision_ms", 0), decided) / 1000,
    }


def _of_model(by: str, tally: Tally) -> dict[str, Any]:
    model, _, arm = by.partition("|")
    transactions, alerts = tally.get("transactions", 0), tally.get("alerts", 0)
    return {
        "model": model,
        "arm": arm,
        "transactions": transactions,
        "alerts": alerts,
        "alert_rate": ratio(alerts, transactions),
        "funnel": funnel(tally),
        **_judged(tally),
    }


def _of_shadow(tally: Tally) -> dict[str, Any]:
    compared = tally.get("compared", 0)
    return {
        "disagreement": ratio(tally.get("differs", 0), compared),
        "score_gap": ratio(tally.get("gap_millionths", 0), compared) / 1e6,
        "human_agreement": ratio(tally.get("agreed", 0), tally.get("decided", 0)),
        "precision": ratio(tally.get("caught", 0), tally.get("alerts_known", 0)),
    }


def _judged(tally: Mapping[str, int]) -> dict[str, Any]:
    """What outcomes say of the alerts."""
    caught = tally.get("caught", 0)
    return {
        "precision": ratio(caught, tally.get("alerts_known", 0)),
        "recall": ratio(caught, tally.get("frauds", 0)),
    }
