"""The merge of the observe stage: parts and outcomes in, records of windows out. What is counted:

* `outcomes`, `frauds`: transactions whose outcome is known;
* `alerts_known`, `caught`: alerts among them, and frauds among those, also `…@by:MODEL|ARM`;
  `…@shadow:NAME` for what a shadow would have flagged;
* `fraud_amount@exponent:E`: minor units of the frauds;
* `labels@source:S`, `label_ms@source:S`: outcomes that a label gave, and how long after the transaction.

An outcome belongs to the hour of its transaction, however late it comes. A revised verdict takes the one
before it back.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import numpy.typing as npt

from monitoring.concept import expected_precision
from monitoring.live_quality import (
    DAY_MS,
    DAYS,
    DayQuality,
    ScoreSketch,
    by_role,
    card_precision,
    merged,
    role_of,
)
from monitoring.metrics import bounded_source
from monitoring.tallies import Tally, add
from monitoring.window_report import figures
from streams.stages.alignment import NEVER
from streams.stages.columns import Columns
from streams.stages.label_core import MATURITY
from streams.stages.observing.core import MOST_AMOUNT, arms, by_model, roles, slot_times
from streams.stages.observing.merge_state import BY_NAME, Due, MergeState, MergeStep
from streams.stages.observing.reading import HOURS, SLOT_MS
from streams.stages.observing.shapes import ShapesTold
from streams.stages.observing.state import Part
from streams.stages.observing.verdicts import keep, recall

Bools = npt.NDArray[np.bool_]
_HOUR = SLOT_MS[HOURS]
#: Wide columns that nothing here looks at.
_UNUSED = ("features", "hop")


class MergeCore:
    """One call per batch; what changes in the state is also appended to a step."""

    def parts(self, state: MergeState, step: MergeStep, parts: list[Part]) -> None:
        """Parts in the order in which they came."""
        # By what was known before: they may go further than slots are kept.
        oldest = {kind: state.oldest(kind) for kind in state.parts}
        for part in parts:
            change = MergeStep()
            if part.watermark > state.watermarks.get(part.partition, NEVER):
                change.watermarks[part.partition] = part.watermark
            position, tally = state.parts[part.kind].get(part.slot, {}).get(part.partition, (-1, {}))
            # One that was restored from may still send what it knew then.
            if part.slot >= oldest[part.kind] and part.position >= position:
                change.parts.append(part)
                if part.tally != tally:
                    change.due.update(state.changed(part.kind, part.slot))
            _commit(state, step, change)

    def shapes(self, state: MergeState, step: MergeStep, told: ShapesTold) -> None:
        """Shapes of hours in a partition."""
        _commit(state, step, MergeStep(shapes=[state.drift.wanted(told)]))

    @staticmethod
    def age(state: MergeState, step: MergeStep) -> None:
        """Let go of what is too old, or too much."""
        _commit(state, step, state.aged())

    @staticmethod
    def drift(state: MergeState) -> Iterator[tuple[MergeStep, dict[str, Any] | None]]:
        """Evaluate the hours that are due.

        Yields what makes each evaluated, and its record if there is a reference.
        """
        for hour in state.drift.due():
            evaluated, record = state.drift.evaluate(hour)
            step = MergeStep(evaluated=[evaluated])
            state.take(step)
            yield step, record

    @staticmethod
    def days(state: MergeState) -> Iterator[tuple[MergeStep, dict[str, Any]]]:
        """Evaluate the days whose outcomes are in; what makes each evaluated, and its record."""
        for day in state.days.due():
            judged, record = state.days.evaluate(day, state.quality)
            step = MergeStep(days=[judged])
            state.take(step)
            yield step, record

    @staticmethod
    def days_again(state: MergeState) -> tuple[MergeStep, list[dict[str, Any]]]:
        """The days judged whose outcomes have changed: what makes them told, and their records."""
        found = [state.days.again(day, state.quality) for day in state.days.due_again()]
        step = MergeStep(days=[judged for judged, _ in found])
        state.take(step)
        return step, [record for _, record in found]

    @staticmethod
    def estimates(state: MergeState) -> dict[str, tuple[float, float]]:
        """By role, the share of frauds and the average precision to be expected of the last day's scores.

        Of the model that has the role now, by its own outcomes, whatever its role was then.
        """
        recent = state.drift.last_day().scores
        return {
            role_of(model): expected_precision(recent[model], _of_model(state, model))
            for model in sorted(state.drift.scoring())
            if _of_model(state, model).rows
        }

    def outcomes(self, state: MergeState, step: MergeStep, rows: Columns) -> None:
        """Outcomes of one label partition."""
        label_partition = rows.meta_int("label_partition")
        change = MergeStep(decided={label_partition: rows.meta_int("decided")})
        if not len(rows):
            _commit(state, step, change)
            return
        arrays = {name: array for name, array in rows.arrays.items() if name not in _UNUSED}
        rows = Columns(rows.meta, arrays, {"source": rows.strings["source"]})
        source = f"{label_partition}/{rows.meta_int('score_partition')}"
        alert = rows.bools("alert")
        # A transaction that was scored twice is decided twice; one with an alert is known by its verdict.
        genuine = rows.take(~alert & state.seen.unseen(source, rows.ints("offset")))
        if len(genuine):
            change.seen[source] = rows.meta_int("settled"), genuine.ints("offset").tobytes()
            times = slot_times(genuine)
            for hour, chosen in _by_hour(times):
                _count(state, change, hour, _tally(genuine.take(chosen)))
            change.scores.append(_scores(genuine, times))
        _commit(state, step, change)
        for index in np.flatnonzero(alert).tolist():
            self._judge(state, step, rows.take(np.array([index])))

    def _judge(self, state: MergeState, step: MergeStep, row: Columns) -> None:
        """The outcome of an alerted transaction, which may take an earlier one back."""
        transaction, fraud = int(row.words("transaction")[0]), bool(row.bools("fraud")[0])
        before = state.judged.get(transaction)
        if before is not None and before.fraud == fraud:
            return
        change, time = MergeStep(), int(slot_times(row)[0])
        if before is not None:
            self._count_verdict(state, change, recall(before), before.time, sign=-1)
        self._count_verdict(state, change, row, time, sign=1)
        change.judged.append((transaction, keep(row, time)))
        _commit(state, step, change)

    @staticmethod
    def _count_verdict(state: MergeState, change: MergeStep, row: Columns, time: int, *, sign: int) -> None:
        """Count the outcome of an alerted transaction, or take it back."""
        tally = {name: sign * value for name, value in _tally(row).items()}
        _count(state, change, time - time % _HOUR, tally)
        change.scores.append(_scores(row, np.array([time]), sign))

    def publish(self, state: MergeState, most: int) -> Iterator[tuple[MergeStep, list[dict[str, Any]]]]:
        """The windows that are over and have changed since they were published, at most `most` at once.

        Yields what makes them published, and their records.
        """
        over = sorted((end, name) for name, end in state.due if end <= state.reached)
        for start in range(0, len(over), most):
            chosen: list[Due] = [(name, end) for end, name in over[start : start + most]]
            records = [self._record(state, due) for due in chosen]
            step = MergeStep(published=chosen)
            state.take(step)
            yield step, records

    @staticmethod
    def _record(state: MergeState, due: Due) -> dict[str, Any]:
        name, end = due
        kind, window = BY_NAME[name]
        return {
            "metric": "window",
            "window": name,
            "start": end - window.length,
            "end": end,
            **figures(state.tally(window, kind, end)),
        }

    @staticmethod
    def current(state: MergeState) -> dict[str, dict[str, Any]]:
        """The figures of each window that ends with the slot that is under way."""
        result = {}
        newest = max(state.watermarks.values())
        for name, (kind, window) in BY_NAME.items():
            end = newest - newest % window.slot + window.slot
            result[name] = figures(state.tally(window, kind, end))
        return result

    @staticmethod
    def alerts_of_a_day(state: MergeState) -> int:
        """Alerts in the last 24 full hours of event time."""
        kind, window = BY_NAME["24h"]
        newest = max(state.watermarks.values())
        return state.tally(window, kind, newest - newest % _HOUR).get("alerts", 0)

    @staticmethod
    def quality(state: MergeState) -> dict[str, dict[str, float]]:
        """By role, how well the scores of the last days with outcomes rank and calibrate."""
        found: dict[str, dict[str, float]] = {}
        days = [by_role(models) for _, models in _last_days(state)]
        for role in sorted({role for held in days for role in held}):
            held = [each[role] for each in days if role in each]
            sketch = merged(held)
            found[role] = {
                "outcomes": sketch.rows,
                "frauds": sketch.frauds,
                "average_precision": sketch.average_precision(),
                "roc_auc": sketch.roc_auc(),
                "calibration_error": sketch.calibration_error(),
                # The newest day is not complete.
                "card_precision": card_precision(held[:-1]),
            }
        return found


def _count(state: MergeState, change: MergeStep, hour: int, tally: Tally) -> None:
    """Add the tally of outcomes of an hour, or what is taken back of it."""
    add(change.outcomes.setdefault(hour // DAY_MS, {}), tally)
    if hour >= state.oldest(HOURS):
        add(change.tallies.setdefault(hour, {}), tally)
        change.due.update(state.changed(HOURS, hour))


def _scores(rows: Columns, times: npt.NDArray[np.int64], sign: int = 1) -> bytes:
    """What `MergeState.count_scores` needs of outcomes."""
    scores = by_model(rows)
    reduced = {
        "time": times,
        "card": rows.words("card").view(np.int64),
        "fraud": rows.bools("fraud"),
        "alert": rows.bools("alert"),
        "control": rows.bools("control"),
        "propensity": rows.floats("propensity"),
        "threshold": rows.floats("threshold"),
        "scores": np.stack(list(scores.values()), axis=1),
    }
    in_use = {"move": rows.meta.get("move", 0), "stood_in": bool(rows.meta.get("stood_in"))}
    return Columns({"models": list(scores), "sign": sign, **in_use}, reduced).encode()


def _last_days(state: MergeState) -> list[tuple[int, dict[str, DayQuality]]]:
    """The last days with outcomes, oldest first."""
    first = max(state.quality, default=0) - DAYS
    return [(day, held) for day, held in sorted(state.quality.items()) if day > first]


def _of_model(state: MergeState, model: str) -> ScoreSketch:
    """Outcomes of the last days under a model's scores; of days in which it had another role, from there."""
    name, found = model.partition(":")[2], []
    for _, held in _last_days(state):
        others = [each for key, each in held.items() if key.partition(":")[2] == name]
        found += [held[model]] if model in held else others
    return merged(found)


def _by_hour(times: npt.NDArray[np.int64]) -> Iterator[tuple[int, Bools]]:
    hours = times // _HOUR * _HOUR
    for hour in np.unique(hours).tolist():
        yield hour, hours == hour


def _tally(rows: Columns) -> Tally:
    """The counts of outcomes of one hour."""
    fraud, alert = rows.bools("fraud"), rows.bools("alert")
    tally: Tally = {"outcomes": len(rows), "frauds": int(fraud.sum())}

    def flagged(which: Bools, suffix: str) -> None:
        tally[f"alerts_known{suffix}"] = int(which.sum())
        tally[f"caught{suffix}"] = int((which & fraud).sum())

    flagged(alert, "")
    for arm, (model, decided) in arms(rows).items():
        flagged(decided & alert, f"@by:{model}|{arm}")
        tally[f"frauds@by:{model}|{arm}"] = int((decided & fraud).sum())
    for column, (_, name) in enumerate(roles(rows)[1:]):
        flagged(rows.floats("shadows")[:, column] >= rows.floats("threshold"), f"@shadow:{name}")
    amount, exponents = np.minimum(rows.ints("amount_minor"), MOST_AMOUNT), rows.codes("exponent")
    for exponent in np.unique(exponents[fraud]).tolist():
        tally[f"fraud_amount@exponent:{exponent}"] = int(amount[fraud & (exponents == exponent)].sum())
    delays = np.maximum(rows.ints("labelled_at") - rows.ints("event_time"), 0)
    for index, source in enumerate(rows.strings["source"]):
        if source != MATURITY:
            name = bounded_source(source)
            delay = int(min(delays[index], 400 * DAY_MS))
            add(tally, {f"labels@source:{name}": 1, f"label_ms@source:{name}": delay})
    return {name: value for name, value in tally.items() if value}


def _commit(state: MergeState, step: MergeStep, change: MergeStep) -> None:
    state.take(change)
    merge_steps(step, change)


def merge_steps(step: MergeStep, change: MergeStep) -> None:
    """Append what was read after."""
    step.follow(change)
    step.parts += change.parts
    for tallies, more in ((step.tallies, change.tallies), (step.outcomes, change.outcomes)):
        for slot, tally in more.items():
            add(tallies.setdefault(slot, {}), tally)
    step.due |= change.due
    step.scores += change.scores
    step.judged += change.judged
    step.shapes += change.shapes
    for label_partition, until in change.decided.items():
        step.decided[label_partition] = max(until, step.decided.get(label_partition, until))
    step.gone.update(change.gone)
    step.days_gone = max(step.days_gone, change.days_gone)
    step.judged_gone += change.judged_gone
