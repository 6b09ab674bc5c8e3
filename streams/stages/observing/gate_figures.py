"""The figures that gates judge: every candidate (the canary, the shadows) beside the champion; pure.

Scored rows are counted in the tallies of hours, outcomes by the day of their transaction; both by the number
of the last move that was in use, which says who was what. So a pair that begins with a move begins anew
wherever its rows are counted, and however late that is.

A day of outcomes counts once it has matured as a whole: until then only verdicts on alerts are in, which tell
of one model's alerts and not of all transactions.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

import msgspec
import numpy as np
import numpy.typing as npt

from models.arrays import Bools, Floats, Ints
from models.gates import NAN, Evidence, Figures
from monitoring.live_quality import STAND_IN, ScoreSketch
from monitoring.tallies import Tally, add, total
from streams.stages.columns import Columns
from streams.times import DAY, HOUR

#: Days of matured outcomes that count.
MOST_DAYS = 28
#: What marks the names of these figures in a tally.
MARK = "@gate:"
#: Fewer scores do not tell whether they are all alike.
FEWEST_SCORES = 500


@dataclass(frozen=True, slots=True)
class Pair:
    """Names of a candidate and the champion that it is beside, after a move."""

    move: int
    champion: str
    candidate: str

    def __str__(self) -> str:
        return f"{self.move}|{self.champion}|{self.candidate}"

    @classmethod
    def read(cls, text: str) -> Pair:
        move, champion, candidate = text.split("|")
        return cls(int(move), champion, candidate)

    def of(self, whole: Pair) -> bool:
        """Whether these rows are of a pair that is counted since a move."""
        return (self.champion, self.candidate) == (
            whole.champion,
            whole.candidate,
        ) and self.move >= whole.move


def pairs(rows: Columns) -> list[Pair]:
    """The candidates of scored rows, in the order of the columns of `shadows`."""
    models = msgspec.convert(rows.meta.get("models", []), list[tuple[str, str, int]])
    move = msgspec.convert(rows.meta.get("move", 0), int)
    return [Pair(move, models[0][1], name) for _, name, _ in models[1:]]


def champion_scores(rows: Columns) -> Floats:
    """NaN where the rules stood in for the champion."""
    scores = rows.floats("champion")
    return np.full(len(rows), np.nan) if rows.meta.get("stood_in") else scores


def seconds(rows: Columns) -> Floats:
    """What a row took each model, f64[rows, models] in the order of `models`; NaN if that says nothing."""
    models, told = len(pairs(rows)) + 1, rows.meta.get("row_seconds")
    if not told:
        return np.full((len(rows), models), np.nan)
    return np.tile(np.array(msgspec.convert(told, list[float])), (len(rows), 1))


def count_pairs(rows: Columns, times: Ints) -> dict[int, Tally]:
    """Tallies of scored rows by hour: what the candidate of each pair and the champion beside it have given.

    Args:
        rows: of the same models after the same move, with the column `seconds`.
        times: event time at which each is counted.
    """
    hours, place = np.unique(times // HOUR * HOUR, return_inverse=True)
    found: dict[int, Tally] = {hour: {} for hour in hours.tolist()}
    champion, threshold, spent = champion_scores(rows), rows.floats("threshold"), rows.floats("seconds")
    for column, pair in enumerate(pairs(rows)):
        both = spent[:, [column + 1, 0]]
        for name, values in side_by_side(
            rows.floats("shadows")[:, column], champion, threshold, both
        ).items():
            sums = [values.sum()] if len(hours) == 1 else np.bincount(place, values)
            for tally, count in zip(found.values(), sums, strict=True):
                if count:
                    tally[f"{name}{MARK}{pair}"] = int(count)
    return found


def side_by_side(
    candidate: Floats, champion: Floats, threshold: Floats | float, spent: Floats
) -> dict[str, npt.NDArray[np.number | np.bool_]]:
    """What is counted of each row, by figure.

    Args:
        candidate, champion: scores of the same rows, NaN for none.
        threshold: the lowest score that is an alert.
        spent: seconds that a row took the two, f64[rows, 2], NaN if that says nothing.
    """
    timed = np.isfinite(spent.sum(axis=1))
    nanos = np.where(timed[:, None], np.rint(spent * 1e9), 0)
    return {
        "rows": np.ones(len(candidate)),
        "failures": np.isnan(candidate),
        "alerts": candidate >= threshold,
        "nanos": nanos[:, 0],
        "timed": timed,
        "champion_failures": np.isnan(champion),
        "champion_alerts": champion >= threshold,
        "champion_nanos": nanos[:, 1],
    }


class PairHours:
    """The same tallies of all partitions, by hour, and what each pair comes to."""

    def __init__(self) -> None:
        self._hours: dict[int, dict[Pair, Tally]] = {}
        self._sums: dict[Pair, Tally] = {}

    def replace(self, hour: int, tally: Mapping[str, int]) -> None:
        """The hour has these counts now, others among them; none for an hour that is gone."""
        for pair, counted in self._hours.pop(hour, {}).items():
            add(self._sums[pair], {name: -value for name, value in counted.items()})
            if not self._sums[pair]:
                del self._sums[pair]
        now: dict[Pair, Tally] = {}
        for name, value in tally.items():
            figure, mark, told = name.partition(MARK)
            if mark:
                now.setdefault(Pair.read(told), {})[figure] = value
        for pair, counted in now.items():
            add(self._sums.setdefault(pair, {}), counted)
        if now:
            self._hours[hour] = now

    def figures(self, pair: Pair) -> Tally:
        """What has been given since the move of the pair."""
        return total(counted for told, counted in self._sums.items() if told.of(pair))

    def first(self, pair: Pair) -> int | None:
        """The first hour with rows of the pair since its move."""
        return min(
            (hour for hour, held in self._hours.items() if any(each.of(pair) for each in held)), default=None
        )


def output_figures(tally: Mapping[str, int], commonest: tuple[float, float]) -> tuple[Figures, Figures]:
    """Of the candidate and of the champion, from the figures of scored rows.

    Args:
        commonest: of both, the share of the rows in the commonest bin of the score.
    """
    get = tally.get
    rows, timed = get("rows", 0), get("timed", 0)

    def one(prefix: str, share: float) -> Figures:
        return Figures(
            rows=rows,
            failures=get(f"{prefix}failures", 0),
            seconds_per_row=get(f"{prefix}nanos", 0) / 1e9 / timed if timed else NAN,
            alerts=get(f"{prefix}alerts", 0),
            commonest=share,
        )

    return one("", commonest[0]), one("champion_", commonest[1])


def commonest(counts: Ints) -> float:
    """Share of the rows in the commonest bin of the score; NaN of too few."""
    rows = int(counts.sum())
    return float(counts.max() / rows) if rows >= FEWEST_SCORES else NAN


@dataclass(slots=True)
class PairDay:
    """Outcomes of the transactions of one day that both models have scored, of `total` in all; `alerts` are
    the champion's.
    """

    total: int = 0
    alerts: int = 0
    candidate: ScoreSketch = field(default_factory=ScoreSketch)
    champion: ScoreSketch = field(default_factory=ScoreSketch)

    def add(
        self, fraud: Bools, candidate: Floats, champion: Floats, threshold: Floats | float, sign: int = 1
    ) -> None:
        """Take outcomes, or take them back."""
        both = ~(np.isnan(candidate) | np.isnan(champion))
        self.total += sign * len(fraud)
        self.alerts += sign * int((both & (champion >= threshold)).sum())
        self.candidate.update(fraud[both], candidate[both], sign)
        self.champion.update(fraud[both], champion[both], sign)

    def merge(self, other: PairDay) -> None:
        self.total += other.total
        self.alerts += other.alerts
        self.candidate.merge(other.candidate)
        self.champion.merge(other.champion)


#: Places and values of the counts that are not 0.
Sparse = tuple[bytes, bytes]
#: Of `PairDay`: total, alerts, candidate, champion.
PackedDay = tuple[int, int, Sparse, Sparse]


class PairDays:
    """Outcomes by day and pair, of `MOST_DAYS` matured days and those that mature; they can be taken back.

    Args:
        maturity: event time after which a transaction is decided, ms; verdicts on alerts come before.
    """

    def __init__(self, maturity: int) -> None:
        self._kept = MOST_DAYS + 1 + -(-maturity // DAY)
        self._days: dict[int, dict[Pair, PairDay]] = {}

    def update(self, rows: Columns, models: list[str], sign: int) -> None:
        """Take outcomes.

        Args:
            rows: `time` i8, `fraud` bool, `threshold` f8, `scores` f8 (rows, models); `move` and `stood_in`
                in the metadata.
            models: as `ROLE:NAME`, the champion first.
        """
        names = [model.partition(":")[2].removesuffix(STAND_IN) for model in models]
        move, scores = rows.meta_int("move"), rows.floats("scores")
        champion = np.full(len(rows), np.nan) if rows.meta["stood_in"] else scores[:, 0]
        days = rows.ints("time") // DAY
        oldest = max([*self._days, *np.unique(days).tolist()], default=0) - self._kept + 1
        for day in [day for day in self._days if day < oldest]:
            del self._days[day]
        for day in np.unique(days[days >= oldest]).tolist():
            chosen, held = days == day, self._days.setdefault(day, {})
            for column, name in enumerate(names[1:], start=1):
                held.setdefault(Pair(move, names[0], name), PairDay()).add(
                    rows.bools("fraud")[chosen],
                    scores[chosen, column],
                    champion[chosen],
                    rows.floats("threshold")[chosen],
                    sign,
                )

    def until(self, pair: Pair, time: int) -> list[PairDay]:
        """Of the last days that end by then those with outcomes of the pair since its move, oldest first."""
        found, end = [], time // DAY
        for day in sorted(each for each in self._days if end - MOST_DAYS <= each < end):
            whole = None
            for told, counted in self._days[day].items():
                if told.of(pair):
                    whole = whole or PairDay()
                    whole.merge(counted)
            if whole is not None:
                found.append(whole)
        return found

    def dump(self) -> dict[int, dict[str, PackedDay]]:
        """What `load` needs."""
        return {
            day: {
                str(pair): (each.total, each.alerts, _sparse(each.candidate), _sparse(each.champion))
                for pair, each in held.items()
            }
            for day, held in self._days.items()
        }

    def load(self, saved: Mapping[int, Mapping[str, PackedDay]]) -> None:
        self._days = {
            day: {
                Pair.read(pair): PairDay(total, alerts, _sketch(candidate), _sketch(champion))
                for pair, (total, alerts, candidate, champion) in held.items()
            }
            for day, held in saved.items()
        }


def evidence(output: tuple[Figures, Figures], matured: Iterable[PairDay]) -> Evidence:
    """What is known of a candidate and of the champion beside it.

    Args:
        output: figures of scored rows, the candidate's first.
        matured: days of outcomes.
    """
    days = list(matured)
    whole = PairDay()
    for day in days:
        whole.merge(day)
    rows = whole.candidate.rows
    return Evidence(
        candidate=_with_outcomes(output[0], whole.candidate, whole.alerts),
        champion=_with_outcomes(output[1], whole.champion, whole.alerts),
        outcomes=rows,
        frauds=whole.candidate.frauds,
        coverage=rows / whole.total if whole.total else NAN,
        days=float(len(days)),
    )


def _with_outcomes(figures: Figures, outcomes: ScoreSketch, budget: int) -> Figures:
    return Figures(
        figures.rows,
        figures.failures,
        figures.seconds_per_row,
        figures.alerts,
        figures.commonest,
        average_precision=outcomes.average_precision(),
        precision=outcomes.precision(budget),
        calibration_error=outcomes.calibration_error(),
    )


def _sparse(sketch: ScoreSketch) -> Sparse:
    counts = sketch.counts.ravel()
    places = np.flatnonzero(counts)
    return places.astype(np.int32).tobytes(), counts[places].tobytes()


def _sketch(sparse: Sparse) -> ScoreSketch:
    sketch = ScoreSketch()
    places, values = sparse
    sketch.counts.reshape(-1)[np.frombuffer(places, np.int32)] = np.frombuffer(values, np.int64)
    return sketch
