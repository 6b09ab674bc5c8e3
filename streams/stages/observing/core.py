"""The core of the observe stage, for one partition of cards: scored rows and feedback become tallies:

* `transactions`, `late`: scored rows, and those that came too late for the feature windows;
* `alerts`, `control`: rows that raised an alert, and those of the control group;
* `amount@exponent:E`, `flagged@exponent:E`: minor units of all rows and of alerts, for E digits;
* `…@by:MODEL|ARM`: transactions, alerts and the funnel by the model that decided and its arm;
* `compared@shadow:NAME`, `differs`, `gap_millionths`: rows with a score of the shadow, those where it is on
  the other side of the threshold, the distance of the scores;
* `…@gate:MOVE|CHAMPION|CANDIDATE`, by the hour alone: what gates judge (`gate_figures.py`);
* `shown`, `opened`, `confirmed`, `dismissed`, `decision_ms`, …: the funnel (`monitoring/funnel.py`).

A row belongs to the slot of its event time, but never after the watermark it was admitted at: one that is
stamped ahead counts when it came. So does one too late for the windows. Minutes are counted of live rows
alone. What is too late for its slot is known when a message is read, so that it does not depend on how many
are counted at once.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import msgspec
import numpy as np
import numpy.typing as npt

from models.admission import FUTURE, LATE
from monitoring.funnel import Alert, Progress, funnel_change
from monitoring.live_quality import STAND_IN
from monitoring.shapes import shape_of
from monitoring.tallies import Tally, add
from streams.contract.records import Feedback
from streams.stages.alignment import NEVER
from streams.stages.columns import Columns, concat
from streams.stages.observing.gate_figures import count_pairs, seconds
from streams.stages.observing.reading import HOURS, MINUTES, SLOT_MS
from streams.stages.observing.shapes import PackedShape, ShapesTold, add_up, pack
from streams.stages.observing.state import MOST_ACTIONS, Held, ObserveState, ObserveStep, Part, Waiting
from streams.times import HOUR

Ints = npt.NDArray[np.int64]
Bools = npt.NDArray[np.bool_]
#: No transaction counts for more: a sum stays a 64-bit number, whatever is sent.
MOST_AMOUNT = 10**12
#: Rows that came later than this are history: they are counted by the hour alone, for a replay passes through
#: the minutes of a day in no time.
LIVE_WITHIN = 2 * HOUR
#: Features are counted for one transaction in so many.
SAMPLED_OF = 4
#: What a row still counts in, as the column `counts`.
IN_HOUR, IN_MINUTE, IN_SHAPE = 1, 2, 4


def slot_times(rows: Columns) -> Ints:
    """The event time at which each scored row is counted."""
    watermark, status = rows.ints("watermark"), rows.codes("status")
    time = np.minimum(rows.ints("event_time"), watermark)
    time[(status == LATE) | (status == FUTURE)] = watermark[(status == LATE) | (status == FUTURE)]
    return time


def roles(rows: Columns) -> list[tuple[str, str]]:
    """Role and name of every model that scored the rows: `champion`, `canary`, `shadow:<name>`.

    The champion comes first, the others in the order of the columns of `shadows`.
    """
    models = msgspec.convert(rows.meta.get("models", []), list[tuple[str, str, int]])
    return [(f"shadow:{name}" if role == "shadow" else role, name) for role, name, _ in models]


def by_model(rows: Columns) -> dict[str, npt.NDArray[np.float64]]:
    """Scores by role and name: `champion:<name>`, `canary:<name>`, `shadow:<name>`.

    NaN where a model gave none. `STAND_IN` is at the end where rules stood in, before the model had
    learned or because it failed.
    """
    if not len(rows):
        return {}
    models = msgspec.convert(rows.meta.get("models", []), list[tuple[str, str, int]])
    scores = [rows.floats("champion"), *rows.floats("shadows").T][: len(models)]
    found = {}
    for (role, name, version), each in zip(models, scores, strict=True):
        stood_in = not version or (role == "champion" and rows.meta.get("stood_in"))
        found[f"{role}:{name}{STAND_IN if stood_in else ''}"] = each
    return found


def arms(rows: Columns) -> dict[str, tuple[str, Bools]]:
    """By arm, the name of the model that decided and its rows; arms without rows are left out."""
    canary = rows.bools("arm") if "arm" in rows.arrays else np.zeros(len(rows), dtype=np.bool_)
    names = dict(roles(rows))
    chosen = {"champion": ~canary, "canary": canary}
    return {arm: (names.get(arm, ""), which) for arm, which in chosen.items() if which.any()}


class ObserveCore:
    """One call per batch, against the state of one partition; what changes is also appended to a step."""

    def scored(self, state: ObserveState, step: ObserveStep, rows: Columns) -> Columns:
        """Scored rows of one score partition: remembers their alerts.

        Returns:
            those that have not come before, to be counted, with the columns `counts` and `seconds`.
        """
        source, watermark = rows.meta_int("score_partition"), rows.meta_int("watermark")
        change = ObserveStep(watermarks={source: watermark})
        if len(rows):
            rows = rows.take(state.seen.unseen(str(source), rows.ints("offset")))
        if len(rows):
            times = slot_times(rows)
            lively = live(rows, times)
            rows = Columns(rows.meta, dict(rows.arrays), rows.strings)
            rows.arrays["counts"] = _counts(state, times, lively)
            rows.arrays["seconds"] = seconds(rows)
            change.seen[str(source)] = rows.meta_int("settled"), rows.ints("offset").tobytes()
            if rows.bools("alert").any():
                self._alerts(state, change, rows, times, lively)
        if state.watermark == NEVER < watermark:
            # They came before anything told the time.
            acted = dict(change.waiting)
            change.waiting += [
                (name, msgspec.structs.replace(each, since=watermark))
                for name, each in state.waiting.items()
                if name not in acted
            ]
        _commit(state, step, change)
        return rows

    def count(self, state: ObserveState, step: ObserveStep, parts: Iterable[Columns]) -> None:
        """Count the rows that `scored` gave: many messages at once, for each takes its time."""
        alike: dict[str, list[Columns]] = {}
        for rows in parts:
            if len(rows):
                key = repr([rows.meta.get(name) for name in ("models", "move", "stood_in")])
                alike.setdefault(key, []).append(Columns(rows.meta, rows.arrays))
        for group in alike.values():
            rows = concat(group)
            _commit(state, step, ObserveStep(tallies=count_rows(rows), shapes=shapes(rows)))

    def feedback(self, state: ObserveState, step: ObserveStep, actions: Iterable[Feedback]) -> None:
        """What analysts did; it counts in the slot of the alert, or waits for it."""
        for item in actions:
            change = ObserveStep()
            held = state.alerts.get(item.transaction_id)
            if held is not None:
                _act(state, change, item.transaction_id, held, [(item.action, item.action_time)])
            else:
                waiting = state.waiting.get(item.transaction_id)
                actions_held = waiting.actions if waiting else []
                if len(actions_held) < MOST_ACTIONS:
                    since = waiting.since if waiting else state.watermark
                    more = Waiting(since, [*actions_held, (item.action, item.action_time)])
                    change.waiting.append((item.transaction_id, more))
            _commit(state, step, change)

    def move(self, state: ObserveState, step: ObserveStep, source: str, offset: int) -> None:
        """The input has been read up to before `offset`."""
        if offset > state.positions.get(source, 0):
            _commit(state, step, ObserveStep(positions={source: offset}))

    def parts(self, state: ObserveState, step: ObserveStep, partition: int) -> list[Part]:
        """The parts that have changed since they were sent; they count as sent."""
        told = sorted(state.untold)
        if not told:
            return []
        parts = [
            Part(kind, slot, partition, state.position, NEVER, dict(state.tallies[kind].get(slot, {})))
            for kind, slot in told
        ]
        parts[-1] = msgspec.structs.replace(parts[-1], watermark=state.reached)
        _commit(state, step, ObserveStep(told=told))
        return parts

    def shapes_told(self, state: ObserveState, step: ObserveStep, partition: int) -> ShapesTold:
        """The shapes of hours in which nothing counts any more; they count as sent, and are gone."""
        until = state.shapes_over
        hours = sorted(hour for hour in state.shapes if hour <= until)
        told = ShapesTold(partition, [(hour, pack(state.shapes[hour])) for hour in hours], until)
        if hours:
            _commit(state, step, ObserveStep(shapes_told=hours))
        return told

    def age(self, state: ObserveState, step: ObserveStep) -> None:
        """Let go of what is too old, or too much; after everything has been told."""
        _commit(state, step, state.aged())

    def _alerts(
        self, state: ObserveState, change: ObserveStep, rows: Columns, times: Ints, lively: Bools
    ) -> None:
        names = [name for _, name in roles(rows)[1:]]
        decided = [(arm, name, which) for arm, (name, which) in arms(rows).items()]
        for index in np.flatnonzero(rows.bools("alert")).tolist():
            transaction = rows.strings["transaction_id"][index]
            scores = rows.floats("shadows")[index].tolist()
            threshold = float(rows.floats("threshold")[index])
            arm, model = next((arm, name) for arm, name, which in decided if which[index])
            alert = Held(
                time=int(times[index]),
                model=model,
                arm=arm,
                amount=min(int(rows.ints("amount_minor")[index]), MOST_AMOUNT),
                exponent=int(rows.codes("exponent")[index]),
                seconded={
                    name: score >= threshold
                    for name, score in zip(names, scores, strict=True)
                    if score == score
                },
                live=bool(lively[index]),
            )
            change.alerts.append((transaction, alert))
            waiting = state.waiting.get(transaction)
            if waiting is not None:
                change.waiting.append((transaction, None))
                _act(state, change, transaction, alert, waiting.actions)


def _counts(state: ObserveState, times: Ints, lively: Bools) -> npt.NDArray[np.uint8]:
    """What each row counts in by what was known before it: a message may go further than slots are kept."""
    in_hour = times >= _first_slot(state, HOURS)
    in_minute = (times >= _first_slot(state, MINUTES)) & lively
    in_shape = times >= state.shapes_over + SLOT_MS[HOURS]
    counts: npt.NDArray[np.int64] = in_hour * IN_HOUR + in_minute * IN_MINUTE + in_shape * IN_SHAPE
    return counts.astype(np.uint8)


def _first_slot(state: ObserveState, kind: str) -> int:
    """Start of the first slot of that kind that is kept as a whole."""
    return -(-state.oldest(kind) // SLOT_MS[kind]) * SLOT_MS[kind]


def shapes(rows: Columns) -> dict[int, PackedShape]:
    """Distributions of scored rows, by hour: scores of all, features of one in `SAMPLED_OF`."""
    rows = rows.take((rows.codes("counts") & IN_SHAPE) > 0)
    hours = slot_times(rows) // SLOT_MS[HOURS] * SLOT_MS[HOURS]
    # By the hash of the transaction: the same rows, however they come.
    sampled = rows.words("transaction") % np.uint64(SAMPLED_OF) == 0
    scores = by_model(rows)
    found = {}
    for hour in np.unique(hours).tolist():
        chosen = hours == hour
        these = {role: each[chosen] for role, each in scores.items()}
        found[hour] = pack(shape_of(rows.floats("features")[chosen], these, sampled[chosen]))
    return found


def live(rows: Columns, times: Ints) -> Bools:
    """Rows that came soon after where they are counted, by the Kafka timestamp of the transaction."""
    return rows.ints("record_time") - times <= LIVE_WITHIN


def count_rows(rows: Columns) -> dict[str, dict[int, Tally]]:
    """Tallies of scored rows: by hour, and of live rows by minute, too."""
    counts = rows.codes("counts")
    by_minute = (counts & IN_MINUTE) > 0
    by_hour = (counts & IN_HOUR > 0) & ~by_minute
    minutes = _tallies(rows.take(by_minute), SLOT_MS[MINUTES]) if by_minute.any() else {}
    hours = _tallies(rows.take(by_hour), SLOT_MS[HOURS]) if by_hour.any() else {}
    for slot, tally in minutes.items():
        add(hours.setdefault(slot - slot % SLOT_MS[HOURS], {}), tally)
    in_hour = (counts & IN_HOUR) > 0
    counted = rows if in_hour.all() else rows.take(in_hour)
    for hour, tally in count_pairs(counted, slot_times(counted)).items():
        add(hours.setdefault(hour, {}), tally)
    return {MINUTES: minutes, HOURS: hours}


def _tallies(rows: Columns, length: int) -> dict[int, Tally]:
    """Tallies by slots of `length` ms."""
    slots, place = np.unique(slot_times(rows) // length * length, return_inverse=True)
    alert = rows.bools("alert")
    amount = np.minimum(rows.ints("amount_minor"), MOST_AMOUNT)
    counts: dict[str, Ints] = {}

    def count(name: str, which: Bools) -> None:
        if which.any():
            counts[name] = np.bincount(place[which], minlength=len(slots))

    def money(name: str, which: Bools) -> None:
        if which.any():
            sums = np.zeros(len(slots), dtype=np.int64)
            np.add.at(sums, place[which], amount[which])
            counts[name] = sums

    count("transactions", np.ones(len(rows), dtype=np.bool_))
    count("alerts", alert)
    for arm, (model, decided) in arms(rows).items():
        for name, which in (("transactions", decided), ("alerts", decided & alert)):
            count(f"{name}@by:{model}|{arm}", which)
    count("late", rows.codes("status") == LATE)
    if "control" in rows.arrays:
        count("control", rows.bools("control"))
    exponents = rows.codes("exponent")
    for exponent in np.unique(exponents).tolist():
        money(f"amount@exponent:{exponent}", exponents == exponent)
        money(f"flagged@exponent:{exponent}", (exponents == exponent) & alert)
    above = rows.floats("champion") >= rows.floats("threshold")
    for column, (_, name) in enumerate(roles(rows)[1:]):
        scores = rows.floats("shadows")[:, column]
        known = np.isfinite(scores)
        count(f"compared@shadow:{name}", known)
        count(f"differs@shadow:{name}", known & ((scores >= rows.floats("threshold")) != above))
        gaps = np.where(known, np.abs(scores - rows.floats("champion")), 0.0)
        counts[f"gap_millionths@shadow:{name}"] = np.bincount(place, np.round(gaps * 1e6)).astype(np.int64)
    tallies: dict[int, Tally] = {slot: {} for slot in slots.tolist()}
    for name, values in counts.items():
        for slot, value in zip(tallies, values.tolist(), strict=True):
            if value:
                tallies[slot][name] = value
    return tallies


def _act(
    state: ObserveState,
    change: ObserveStep,
    transaction: str,
    held: Held,
    actions: Sequence[tuple[str, int]],
) -> None:
    """Count the actions in the slots of the alert."""
    alert = Alert(held.time, held.model, held.arm, held.amount, held.exponent, held.seconded)
    progress = dict(held.progress)
    for kind, length in SLOT_MS.items():
        if kind == MINUTES and not held.live:
            continue
        before = after = progress.get(kind, Progress())
        for action, action_time in actions:
            if action_time - held.time <= state.counts_until(kind):
                after = after.after(action, action_time)
        if after != before:
            progress[kind] = after
            slot = held.time - held.time % length
            if slot >= state.oldest(kind):
                slots = change.tallies.setdefault(kind, {})
                add(slots.setdefault(slot, {}), funnel_change(alert, before, after))
    if progress != held.progress:
        change.alerts.append((transaction, msgspec.structs.replace(held, progress=progress)))


def _commit(state: ObserveState, step: ObserveStep, change: ObserveStep) -> None:
    state.take(change)
    merge_steps(step, change)


def merge_steps(step: ObserveStep, change: ObserveStep) -> None:
    """Append what came after."""
    step.follow(change)
    for kind, slots in change.tallies.items():
        held = step.tallies.setdefault(kind, {})
        for slot, tally in slots.items():
            add(held.setdefault(slot, {}), tally)
    step.alerts += change.alerts
    step.waiting += change.waiting
    step.told += change.told
    for hour, packed_shape in change.shapes.items():
        before = [step.shapes[hour]] if hour in step.shapes else []
        step.shapes[hour] = add_up([*before, packed_shape])
    step.shapes_told += change.shapes_told
    step.gone.update(change.gone)
    step.alerts_gone += change.alerts_gone
    step.generation = max(step.generation, change.generation)
