"""What the features are by definition: brute force over the whole raw history, in plain Python.

It reads entities as the mapping a configuration file holds and shares no code with `models/`. Every row looks
at every earlier row; sums are exact (`math.fsum`), moments are two-pass.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

UNITS = {"ms": 1, "s": 1000, "m": 60_000, "h": 3_600_000, "d": 86_400_000}
NEVER = -(1 << 62)
DAY = 86_400_000


@dataclass(frozen=True)
class Row:
    """A transaction: times in epoch ms, `tags` by aggregate name with None for a missing value."""

    id: int
    key: int
    time: int
    record_time: int
    amount: float
    tags: Mapping[str, int | None]


@dataclass(frozen=True)
class Fraud:
    """A report that transaction `id` of `key` is a fraud, or is none after all."""

    id: int
    key: int
    time: int
    known_at: int
    fraud: bool


def ms(text: str) -> int:
    digits = text.rstrip("msdh")
    return int(digits) * UNITS[text[len(digits) :]]


@dataclass
class AdmissionOracle:
    """The rules of docs/features.md, with a list of everything that ever came."""

    lateness: int
    tolerance: int
    jump: int
    horizon: int
    max_ids: int
    watermark: int = NEVER
    claim: tuple[int, int] | None = None
    first_seen_alone: bool = False
    memory: list[tuple[int, int]] = field(default_factory=list)

    def admit(self, row_id: int, card: int, time: int, record_time: int) -> str:
        self.memory = [(i, stamp) for i, stamp in self.memory if self.watermark - stamp <= self.horizon]
        if any(i == row_id for i, _ in self.memory):
            return "duplicate"
        status = self._judge(card, time, record_time)
        self.memory = [*self.memory, (row_id, self.watermark)][-self.max_ids :]
        return status

    def _judge(self, card: int, time: int, record_time: int) -> str:
        if time > record_time + self.tolerance:
            return "future"
        if self.watermark == NEVER:
            self.first_seen_alone = True
            return self._start_at(time)
        second, self.first_seen_alone = self.first_seen_alone, False
        if second and self.watermark - time > self.jump:
            return self._start_at(time)
        if self.watermark - time > self.lateness:
            return "late"
        if 0 < time - self.watermark <= self.jump:
            self.watermark, self.claim = time, None
        elif time > self.watermark:
            if self.claim is None or self.claim[1] == card:
                self.claim = (time, card)
            else:
                low, high = sorted([self.claim, (time, card)], key=lambda claim: claim[0])
                self.watermark = low[0]
                far = high[0] - low[0] > self.jump
                self.claim = high if far else None
                if not far:
                    self.watermark = high[0]
        return "accepted"

    def _start_at(self, time: int) -> str:
        self.watermark = time
        self.memory = [(i, time) for i, _ in self.memory]
        return "accepted"


@dataclass
class WindowOracle:
    """The features of one entity, from the list of all inserted rows and the frauds known of each key."""

    entity: Mapping[str, object]
    lateness: int
    rows: list[Row] = field(default_factory=list)
    known: dict[tuple[int, int], Fraud] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.windows = [ms(text) for text in _texts(self.entity["windows"])]
        risk = self.entity.get("risk")
        self.risk: Mapping[str, object] | None = risk if isinstance(risk, Mapping) else None
        self.reach = self.windows[-1]
        if self.risk is not None:
            delay, windows = ms(str(self.risk["delay"])), [ms(text) for text in _texts(self.risk["windows"])]
            self.reach = max(self.reach, delay + windows[-1])

    def visible(self, row: Row, watermark: int) -> list[Row]:
        """Earlier rows of the key not forgotten, newest last: at most `max_events_per_key` of them."""
        limit = self.entity.get("max_events_per_key", 4096)
        assert isinstance(limit, int)
        if row.key == 0:
            return []
        mine = sorted((r for r in self.rows if r.key == row.key), key=lambda r: r.time)[-limit:]
        return [r for r in mine if r.time > watermark - self.lateness - self.reach]

    def features(self, row: Row, watermark: int) -> dict[str, float]:
        before = [r for r in self.visible(row, watermark) if r.time <= row.time]
        found: dict[str, float] = {}
        for aggregate in _texts(self.entity["aggregates"]):
            if aggregate == "seconds_since_last":
                ages = [row.time - r.time for r in before] + [self.windows[-1]]
                found[aggregate] = min(ages) / 1000
                continue
            for text, window in zip(_texts(self.entity["windows"]), self.windows, strict=True):
                inside = [r for r in before if r.time > row.time - window]
                found[f"{aggregate}_{text}"] = _aggregate(aggregate, inside, row)
        if self.risk is not None:
            self._risk(self.risk, row, before, watermark, found)
        return found

    def _risk(
        self,
        risk: Mapping[str, object],
        row: Row,
        before: Sequence[Row],
        watermark: int,
        found: dict[str, float],
    ) -> None:
        delay = ms(str(risk["delay"]))
        known = {f.id: f for f in self.known.values() if f.key == row.key and row.key != 0}
        for text in _texts(risk["windows"]):
            low, high = row.time - delay - ms(text), row.time - delay
            seen = sum(1 for r in before if low < r.time <= high)
            oldest = max(low, watermark - self.lateness - self.reach)
            bad = sum(1 for f in known.values() if oldest < f.time <= high and f.known_at <= row.time)
            found[f"risk_{text}"] = min(bad / seen, 1.0) if seen else 0.0
            found[f"risk_count_{text}"] = seen
        longest = max(ms(text) for text in _texts(risk["known_windows"]))
        oldest = watermark - self.lateness - longest
        stamps = [f.known_at for f in known.values() if oldest < f.known_at <= row.time]
        for text in _texts(risk["known_windows"]):
            found[f"known_frauds_{text}"] = sum(1 for stamp in stamps if stamp > row.time - ms(text))
        found["seconds_since_fraud"] = min([row.time - stamp for stamp in stamps] + [longest]) / 1000
        if risk.get("runs"):
            found |= self._run(risk, row, before, watermark, known.values())

    def _run(
        self,
        risk: Mapping[str, object],
        row: Row,
        before: Sequence[Row],
        watermark: int,
        reports: Iterable[Fraud],
    ) -> dict[str, float]:
        delay = ms(str(risk["delay"]))
        reach = delay + max(ms(text) for text in _texts(risk["windows"]))
        oldest = max(row.time - reach, watermark - self.lateness - self.reach)
        decided = [r.time for r in before if oldest < r.time <= row.time - delay]
        frauds = sorted(f.time for f in reports if oldest < f.time <= row.time and f.known_at <= row.time)
        run = frauds[-1:]
        for older in reversed(frauds[:-1]):
            if any(older < time < run[-1] for time in decided):
                break
            run.append(older)
        return {
            "fraud_run": len(run),
            "days_since_run": row.time // DAY - run[-1] // DAY if run else reach // DAY + 1,
            "seconds_since_before_run": min(
                [row.time - time for time in decided if run and time < run[-1]] + [reach]
            )
            / 1000,
            "genuine_since_fraud": sum(1 for time in decided if not run or time > run[0]),
            "seconds_since_outcome": min([row.time - time for time in decided] + [reach]) / 1000,
        }

    def report(self, fraud: Fraud, watermark: int) -> None:
        """Remember or take back a fraud, if its key has room beside those not yet forgotten."""
        limit = self.entity.get("max_events_per_key", 4096)
        assert self.risk is not None
        assert isinstance(limit, int)
        oldest = watermark - self.lateness - self.reach
        oldest_known = (
            watermark - self.lateness - max(ms(text) for text in _texts(self.risk["known_windows"]))
        )
        self.known = {
            place: f
            for place, f in self.known.items()
            if f.key != fraud.key or f.time > oldest or f.known_at > oldest_known
        }
        place = (fraud.key, fraud.id)
        if not fraud.fraud:
            self.known.pop(place, None)
        elif place in self.known:
            self.known[place] = min(self.known[place], fraud, key=lambda f: f.known_at)
        elif sum(key == fraud.key for key, _ in self.known) < limit:
            self.known[place] = fraud

    def insert(self, row: Row) -> None:
        if row.key != 0:
            self.rows.append(row)


def _texts(value: object) -> list[str]:
    assert isinstance(value, list)
    return value


def _aggregate(kind: str, before: Sequence[Row], row: Row) -> float:
    amounts = [r.amount for r in before] + [row.amount]
    if kind == "count":
        return len(amounts)
    if kind == "sum":
        return math.fsum(amounts)
    if kind == "mean":
        return math.fsum(amounts) / len(amounts)
    if kind == "std":
        return statistics.pstdev(amounts)
    if kind == "max":
        return max(amounts)
    if kind == "amount_over_mean":
        mean = math.fsum(amounts[:-1]) / len(before) if before else 0.0
        return row.amount / mean if mean else 1.0
    values = {r.tags[kind] for r in [*before, row]} - {None}
    return len(values)
