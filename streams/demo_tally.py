"""What a demo has seen, by a client of its own: counted, shown live, summed up."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from rich.console import Console
from rich.table import Table

from monitoring.quality import average_precision


@dataclass(slots=True)
class Tally:
    """What has come out so far, counted by a client of its own."""

    published: int = 0
    scored: set[str] = field(default_factory=set)
    dead_lettered: int = 0
    alerts: int = 0
    repeated: int = 0
    identifiers: list[str] = field(default_factory=list)
    scores: dict[str, list[float]] = field(default_factory=dict)
    versions: dict[str, tuple[str, int]] = field(default_factory=dict)
    learned: Counter[str] = field(default_factory=Counter)
    sent_at: dict[str, float] = field(default_factory=dict)
    latency: list[float] = field(default_factory=list)
    event_time: int = 0


def count_score(tally: Tally, score: dict[str, Any], now: float) -> None:
    """A score record that was read at `now`, epoch seconds."""
    identifier = score["transaction_id"]
    if identifier in tally.scored:
        tally.repeated += 1
        return
    tally.scored.add(identifier)
    tally.identifiers.append(identifier)
    tally.event_time = max(tally.event_time, score["event_time"])
    by_name = {score["model"]["name"]: score["score"]} | {
        each["name"]: each["score"] for each in score["shadows"]
    }
    if score["model"]["version"]:
        # The rules stood in for it.
        tally.versions.pop("rules", None)
    tally.versions[score["model"]["name"]] = ("champion", score["model"]["version"])
    for each in score["shadows"]:
        tally.versions[each["name"]] = ("shadow", each["version"])
    for name in tally.versions:
        tally.scores.setdefault(name, []).append(by_name.get(name, float("nan")))
    sent = tally.sent_at.pop(identifier, None)
    if sent is not None:
        tally.latency.append((now - sent) * 1000)


def view(tally: Tally, total: int | None) -> Table:
    """The live view; `total` transactions are expected."""
    table = Table.grid(padding=(0, 2))
    table.add_row("published", f"{tally.published:,}" + (f" of about {total:,}" if total else ""))
    table.add_row("scored", f"{len(tally.scored):,}")
    table.add_row("alerts", f"{tally.alerts:,}")
    table.add_row("dead letters", f"{tally.dead_lettered:,}")
    if tally.latency:
        recent = np.percentile(tally.latency[-500:], [50, 99])
        table.add_row("latency p50 / p99", f"{recent[0]:.0f} / {recent[1]:.0f} ms")
    for name, (role, version) in tally.versions.items():
        table.add_row(role, f"{name} v{version}, {tally.learned[name]:,} outcomes learned")
    return table


def summary(
    tally: Tally, frauds: set[str], counted: Counter[str], duration: float, everything: float
) -> dict[str, Any]:
    """The closing summary.

    Args:
        frauds: ids of the transactions that are fraudulent.
        counted: the workers' own count of transactions by outcome.
        duration: seconds from the first transaction to the last score.
        everything: seconds with start and end.
    """
    truth = np.fromiter((each in frauds for each in tally.identifiers), np.bool_, len(tally.identifiers))
    half = len(truth) // 2
    latency = np.percentile(tally.latency, [50, 99, 99.9]) if tally.latency else [float("nan")] * 3
    models = []
    for name, (role, version) in tally.versions.items():
        scores = np.array(tally.scores[name])[-len(truth) + half :]
        precision = average_precision(truth[-len(scores) :], np.nan_to_num(scores))
        models.append(
            {
                "role": role,
                "name": name,
                "version": version,
                "learned": tally.learned[name],
                "average_precision": None if np.isnan(precision) else round(float(precision), 4),
            }
        )
    return {
        "transactions": tally.published,
        "scored": len(tally.scored),
        "duplicates": counted["duplicate"],
        "late": counted["late"],
        "alerts": tally.alerts,
        "dead_lettered": tally.dead_lettered,
        "unaccounted": tally.published - len(tally.scored) - counted["duplicate"] - tally.dead_lettered,
        "repeated_scores": tally.repeated,
        "throughput_tps": round(tally.published / duration, 1),
        "latency_ms": {
            name: round(float(value), 1) for name, value in zip(("p50", "p99", "p999"), latency, strict=True)
        },
        "models": sorted(models, key=lambda model: (model["role"], model["name"])),
        "duration_s": round(everything, 1),
    }


def show(found: dict[str, Any]) -> None:
    """The summary for people."""
    console = Console()
    table = Table(show_header=False, box=None)
    for name in ("transactions", "scored", "duplicates", "late", "alerts", "dead_lettered", "unaccounted"):
        table.add_row(name.replace("_", " "), f"{found[name]:,}")
    table.add_row("throughput", f"{found['throughput_tps']:,.0f} transactions/s")
    table.add_row(
        "latency p50 / p99 / p99.9", " / ".join(f"{v:.0f}" for v in found["latency_ms"].values()) + " ms"
    )
    table.add_row("duration", f"{found['duration_s']} s")
    console.print(table)
    models = Table("role", "model", "version", "outcomes learned", "average precision (second half)")
    for model in found["models"]:
        precision = model["average_precision"]
        models.add_row(
            model["role"], model["name"], str(model["version"]), f"{model['learned']:,}",
            "–" if precision is None else f"{precision:.3f}",
        )  # fmt: skip
    console.print(models)
