"""A small card stream as plain dictionaries, and what its score records have to say by independent code.

Labels come exactly at maturity, in order with the transactions, as in a history that is replayed.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

import numpy as np

from tests.e2e.harness import json_bytes
from tests.models.oracle import AdmissionOracle, Fraud, Row, WindowOracle

HOUR, DAY = 3_600_000, 86_400_000
MATURITY, LATENESS = 2 * DAY, HOUR
START = 1_735_689_600_000

ENTITIES: list[dict[str, Any]] = [
    {
        "name": "card",
        "key": "card_id",
        "windows": ["1h", "24h", "7d"],
        "aggregates": ["count", "sum", "mean", "std", "max", "distinct_terminals", "amount_over_mean"],
    },
    {
        "name": "terminal",
        "key": "terminal_id",
        "windows": ["6h", "24h", "7d"],
        "aggregates": ["count", "mean", "distinct_cards", "seconds_since_last"],
        "risk": {"delay": "2d", "windows": ["24h", "7d"], "known_windows": ["24h", "7d"]},
    },
]
COLUMNS = (
    *("amount", "amount_log", "hour", "day_of_week", "weekend", "night"),
    *(f"card_{a}_{w}" for a in ENTITIES[0]["aggregates"] for w in ENTITIES[0]["windows"]),
    *(f"terminal_{a}_{w}" for a in ENTITIES[1]["aggregates"][:-1] for w in ENTITIES[1]["windows"]),
    "terminal_seconds_since_last",
    *(f"terminal_{name}" for name in ("risk_24h", "risk_7d", "risk_count_24h", "risk_count_7d")),
    *("terminal_known_frauds_24h", "terminal_known_frauds_7d", "terminal_seconds_since_fraud"),
)


def settings(*, idle_after: str = "3s", publish_every: str = "6h") -> str:
    """The settings document's tables for this stream."""

    def toml(value: object) -> str:
        if isinstance(value, Mapping):
            return "{ " + ", ".join(f"{key} = {toml(item)}" for key, item in value.items()) + " }"
        if isinstance(value, list):
            return "[" + ", ".join(map(toml, value)) + "]"
        return f'"{value}"'

    return (
        f'[alignment]\nidle_after = "{idle_after}"\n'
        '[labels]\nmaturity = "2d"\n'
        # The stream is thin: a partition may be silent for hours.
        '[time]\nwatermark_jump = "2d"\n'
        "[policy]\nthreshold = 0.2\n"
        f'[models]\npublish_every = "{publish_every}"\nmin_outcomes = 0\nmin_frauds = 0\n'
        f"[features]\nentities = {toml(ENTITIES)}\n"
    )


@dataclass
class Stream:
    """A seeded stream: `events` are (topic, key, value), in the order of publication."""

    transactions: int
    seed: int = 7
    cards: int = 60
    terminals: int = 40
    late: int = 20
    duplicates: int = 40
    frauds: set[str] = field(default_factory=set)
    good: list[dict[str, Any]] = field(default_factory=list)
    late_ids: set[str] = field(default_factory=set)
    events: list[tuple[str, str, bytes]] = field(default_factory=list)

    def __post_init__(self) -> None:
        random = np.random.default_rng(self.seed)
        step = 10 * DAY // self.transactions
        late_at = set(random.choice(np.arange(500, self.transactions), self.late, replace=False).tolist())
        again = set(random.choice(np.arange(1, self.transactions), self.duplicates, replace=False).tolist())
        found: list[tuple[int, int, tuple[str, str, bytes]]] = []
        for number in range(self.transactions):
            moment = START + number * step + int(random.integers(0, step))
            terminal = int(random.integers(self.terminals))
            fraud = random.random() < (0.5 if terminal < 3 else 0.01)
            transaction = self._transaction(random, number, moment, terminal)
            if number in late_at:
                transaction["event_time"] -= int(random.integers(2 * HOUR, 60 * HOUR))
                transaction["card_id"] = found[-1][2][1]  # where the watermark is known to be past it
                self.late_ids.add(transaction["transaction_id"])
                fraud = False
            self.good.append(transaction)
            record = ("transactions", transaction["card_id"], json_bytes(transaction))
            found.append((moment, 1, record))
            if number in again:
                found.append((moment, 2, record))
            if fraud:
                self.frauds.add(transaction["transaction_id"])
                label = self._label(transaction)
                found.append((label["labelled_at"], 0, ("labels", label["card_id"], json_bytes(label))))
        self.events = [record for _, _, record in sorted(found, key=lambda each: each[:2])]

    def _transaction(
        self, random: np.random.Generator, number: int, moment: int, terminal: int
    ) -> dict[str, Any]:
        return {
            "transaction_id": f"tx-{number}",
            "card_id": f"card-{int(random.integers(self.cards))}",
            "terminal_id": f"t-{terminal}",
            "event_time": moment,
            "amount_minor": int(random.integers(100, 90_000)),
            "currency": "EUR",
        }

    @staticmethod
    def _label(transaction: dict[str, Any]) -> dict[str, Any]:
        given = {"fraud": True, "source": "chargeback", "labelled_at": transaction["event_time"] + MATURITY}
        return {**{name: transaction[name] for name in ("transaction_id", "card_id")}, **given}

    def expected(self, partition_of: Mapping[str, int]) -> Iterator[tuple[str, dict[str, float]]]:
        """Transaction id and features by column, from the raw history."""
        gates = {
            p: AdmissionOracle(LATENESS, 5 * 60_000, 2 * DAY, DAY, 1_000_000) for p in partition_of.values()
        }
        windows = {entity["name"]: WindowOracle(entity, LATENESS) for entity in ENTITIES}
        ids: dict[str, int] = {}
        rows = []
        for number, transaction in enumerate(self.good):
            partition = partition_of[transaction["card_id"]]
            card = ids.setdefault(transaction["card_id"], len(ids) + 1)
            moment = transaction["event_time"]
            status = gates[partition].admit(number, card, moment, 1 << 60)
            rows.append((gates[partition].watermark, number, status, transaction))
        features: dict[str, dict[str, float]] = {t["transaction_id"]: own_features(t) for t in self.good}
        for name, key, other in (("card", "card_id", "terminal_id"), ("terminal", "terminal_id", "card_id")):
            oracle = windows[name]
            tag = "distinct_terminals" if name == "card" else "distinct_cards"
            # A terminal's rows come from all partitions, in the order of the watermarks at their admission.
            ordered = rows if name == "card" else sorted(rows, key=lambda row: row[:2])
            for watermark, number, status, transaction in ordered:
                row = Row(
                    id=number,
                    key=ids.setdefault(transaction[key], len(ids) + 1),
                    time=transaction["event_time"],
                    record_time=1 << 60,
                    amount=transaction["amount_minor"] / 100,
                    tags={tag: ids.setdefault(transaction[other], len(ids) + 1)},
                )
                found = oracle.features(row, watermark)
                features[transaction["transaction_id"]] |= {f"{name}_{k}": v for k, v in found.items()}
                if status == "accepted":
                    oracle.insert(row)
                if name == "terminal" and transaction["transaction_id"] in self.frauds:
                    known_at = watermark + MATURITY
                    oracle.report(Fraud(number, row.key, row.time, known_at, True), watermark)
        yield from features.items()


def own_features(transaction: Mapping[str, Any]) -> dict[str, float]:
    amount = transaction["amount_minor"] / 100
    moment = datetime.fromtimestamp(transaction["event_time"] / 1000, UTC)
    return {
        "amount": amount,
        "amount_log": math.log1p(amount),
        "hour": moment.hour,
        "day_of_week": moment.weekday(),
        "weekend": float(moment.weekday() >= 5),
        "night": float(moment.hour <= 6),
    }
