"""The label join: scored transactions, labels and analyst feedback in, outcomes out.

An *outcome* says of one scored transaction whether it was a fraud, with the features and scores as they were
when it was scored.

* A label or a verdict of an analyst about an **alerted** transaction is an outcome at once: the features of
  alerts are held.
* Every other transaction is decided at **maturity**, a fixed event-time delay after it was scored: with a
  fraud label by then it is a fraud, without one it is genuine. Its features are not held meanwhile; the
  scored rows are read again, late.

So only labels (rare) and alerted rows (few) are state. A later verdict that contradicts an earlier one is
given as a new outcome. Of several verdicts the one of highest rank by maturity counts, in whatever order they
are read: labels may be read long before their transaction. Effect time: `known_at` is when the verdict was
given for an alert, never before the scoring watermark that had been reached, and the time of maturity for the
others. A verdict given after maturity changes nothing.

The **clock of labels** says up to when labels have been read; maturity follows it. It moves as the watermark
of transactions does (`models/admission.py`): a label up to `jump_ms` ahead moves it at once. One further
ahead is a claim, which a label of another card has to confirm; it is forgotten when the clock moves in the
ordinary way, so that two odd stamps months apart confirm nothing. The first label is measured against what
has been scored.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from models.arrays import Bools
from streams.contract.records import Feedback, Label
from streams.stages import columns
from streams.stages.alignment import FOREVER, NEVER
from streams.stages.columns import Columns
from streams.stages.label_state import ANALYST, Alerted, LabelState, LabelStep, Verdict, with_verdict
from streams.times import DAY

#: Outcomes keep these columns of the scored rows.
_CARRIED = (
    "event_time", "watermark", "transaction", "card", "hop", "features", "champion", "shadows", "arm",
    "alert", "control", "propensity",
)  # fmt: skip
#: And these, for the observe stage; a backtest has not all of them.
_OBSERVED = ("offset", "status", "amount_minor", "exponent", "threshold")
_CARRIED_STRINGS = ("transaction_id", "card_id")
#: Source of an outcome about which nobody has said anything.
MATURITY = "maturity"
#: How far behind, in event time, a score partition keeps a day from being over.
_PATIENCE = DAY
#: Verdicts kept of one transaction: changes of mind in time, each of higher rank than those before it.
MOST_VERDICTS = 16


@dataclass(frozen=True, slots=True)
class LabelPolicy:
    """
    Args:
        maturity_ms: event time after which a transaction without a fraud label is genuine.
        expiry_ms: event time for which a label waits for its transaction.
        soonest_ms: event time after a transaction at which a verdict on it takes effect at the earliest, at
            most `maturity_ms`. So far may scoring be ahead of this stage: a replay faster than life then
            sees every verdict exactly from when it takes effect.
        jump_ms: a longer step of the clock of labels needs a second card.
        max_held: transactions with verdicts, and alerted rows, held at most; the oldest go first.
    """

    maturity_ms: int
    expiry_ms: int
    soonest_ms: int = 0
    jump_ms: int = 3_600_000
    max_held: int = 200_000


class LabelJoin:
    """The pure core of the label stage: one call per batch, against the state of one partition.

    Every method changes `state`, appends what it changed to `step` and returns outcomes as columns. `counts`
    collects what became of labels, by (source, result), `contradictions` those that say the opposite of what
    was known, by source, `released` the alerted rows given up.
    """

    def __init__(self, policy: LabelPolicy) -> None:
        self.policy = policy
        self.counts: Counter[tuple[str, str]] = Counter()
        self.contradictions: Counter[str] = Counter()
        self.released = 0

    def scored(self, state: LabelState, step: LabelStep, rows: Columns) -> list[Columns]:
        """Scored rows, read promptly: keeps alerted ones and moves the scoring watermark."""
        partition = rows.meta_int("score_partition")
        watermark = rows.meta_int("watermark")
        if "seen" in rows.meta:
            state.seen[partition] = max(rows.meta_int("seen"), state.seen.get(partition, NEVER))
        change = LabelStep(scored=_risen(state.scored, partition, watermark))
        outcomes: list[tuple[str, Verdict]] = []
        alerts = np.flatnonzero(rows.bools("alert")) if len(rows) else np.empty(0, np.intp)
        for index in alerts.tolist():
            transaction = rows.strings["transaction_id"][index]
            if transaction in state.alerted:
                continue
            row = rows.take(np.array([index])).encode()
            alerted = Alerted(int(rows.ints("watermark")[index]), row, partition)
            change.alerted.append((transaction, alerted))
            # As if they had come after the alert, one after the other.
            held = _timely(state.verdicts.get(transaction, ()), alerted.watermark + self.policy.maturity_ms)
            outcomes += [(transaction, verdict) for verdict in held]
        if state.verdicts and len(rows):
            for transaction in state.verdicts.keys() & set(rows.strings["transaction_id"]):
                state.met(transaction)
        self._commit(state, step, change)
        return self._answer(state, step, outcomes)

    def labels(
        self, state: LabelState, step: LabelStep, labels: Sequence[Label], *, believable: int = FOREVER
    ) -> list[Columns]:
        """Labels: kept until their transaction matures, outcomes at once for alerted transactions.

        A label stamped after `believable` (epoch ms) is nothing to the clock of labels, and as old as that
        when the oldest have to go.
        """
        verdicts = [
            (
                label.transaction_id,
                Verdict(
                    label.fraud,
                    label.source,
                    label.labelled_at,
                    label.revision,
                    believable if label.labelled_at > believable else FOREVER,
                ),
            )
            for label in labels
        ]
        reached = state.labels_until
        for label in labels:
            if reached < label.labelled_at <= believable:
                reached = self._confirmed(state, reached, label.labelled_at, label.card_id)
        if reached > state.labels_until:
            self._commit(state, step, LabelStep(labels_until=reached))
        return self._verdicts(state, step, verdicts)

    def _confirmed(self, state: LabelState, clock: int, time: int, card: str) -> int:
        """The clock of labels after a label of that card, stamped after `clock`."""
        jump, claim = self.policy.jump_ms, state.claim
        near = clock if clock > NEVER else max(state.scored.values(), default=NEVER)
        if near > NEVER and time <= near + jump:
            state.claim = None
            return time
        if claim is None or claim[1] == card:
            state.claim = time, card
            return clock
        smaller, larger = sorted([claim, (time, card)])
        if larger[0] > smaller[0] + jump:
            state.claim = larger
            return smaller[0]
        state.claim = None
        return larger[0]

    def feedback(self, state: LabelState, step: LabelStep, feedback: Sequence[Feedback]) -> list[Columns]:
        """Analyst actions: `confirmed` and `dismissed` are verdicts."""
        verdicts = [
            (item.transaction_id, Verdict(item.action == "confirmed", ANALYST, item.action_time, 0))
            for item in feedback
            if item.action in ("confirmed", "dismissed")
        ]
        return self._verdicts(state, step, verdicts)

    def _verdicts(
        self, state: LabelState, step: LabelStep, verdicts: Iterable[tuple[str, Verdict]]
    ) -> list[Columns]:
        answers = []
        for transaction, verdict in verdicts:
            held = state.verdicts.get(transaction, [])
            alerted = state.alerted.get(transaction)
            matured_at = alerted.watermark + self.policy.maturity_ms if alerted is not None else NEVER
            timely = _timely(held, matured_at)
            if held and held[-1].fraud != verdict.fraud:
                self.contradictions[verdict.source] += 1
            known_better = timely and timely[-1].rank >= verdict.rank and verdict.labelled_at <= matured_at
            kept = with_verdict(held, verdict)
            if known_better or kept == held:
                self.counts[verdict.source, "duplicate"] += 1
                continue
            if len(kept) > MOST_VERDICTS:
                self.counts[verdict.source, "dropped"] += 1
                continue
            self._commit(state, step, LabelStep(verdicts=[(transaction, verdict)]))
            if verdict.labelled_at <= matured_at:
                answers.append((transaction, verdict))
            else:
                self.counts[verdict.source, "pending"] += 1
        return self._answer(state, step, answers)

    def _answer(
        self, state: LabelState, step: LabelStep, answers: Sequence[tuple[str, Verdict]]
    ) -> list[Columns]:
        """Outcomes of alerted transactions whose verdict is new or has changed."""
        outcomes = []
        for transaction, verdict in answers:
            alerted = state.alerted[transaction]
            if alerted.given == verdict.fraud:
                self.counts[verdict.source, "duplicate"] += 1
                continue
            self.counts[verdict.source, "joined" if alerted.given is None else "revised"] += 1
            self._commit(state, step, LabelStep(given=[(transaction, verdict.fraud)]))
            row = columns.decode(alerted.row)
            known_at = max(verdict.labelled_at, alerted.watermark + self.policy.soonest_ms)
            told = [verdict.labelled_at]
            outcomes.append(_outcomes(row, [verdict.fraud], [known_at], told, [verdict.source]))
        return outcomes

    def ripe(self, state: LabelState, score_partition: int, *, labels_idle: bool) -> int:
        """Transactions scored in the score partition at a watermark up to this can be decided.

        The clock is that of labels, since they arrive in the order of `labelled_at`; more may come with the
        same time. While no labels arrive it is the newest transaction that scoring has seen, as far
        as scoring may get next: labels up to then were published before it. None is decided before it has
        been read promptly, too: until then nobody knows whether it is an alert, whose verdicts act at once.
        """
        clock = state.labels_until - 1
        scored = state.scored.get(score_partition, NEVER)
        if labels_idle:
            seen = state.seen.get(score_partition, NEVER)
            clock = max(clock, scored, min(scored + self.policy.soonest_ms, seen))
        return min(clock - self.policy.maturity_ms, scored)

    def decided(self, state: LabelState, score_partitions: Iterable[int], *, labels_idle: bool) -> int:
        """Everything that matures up to this event time has been given as outcomes.

        A score partition more than a day behind another one is not waited for.
        """
        reached = [
            # Of one without rows for long, the next row says nothing of what may be decided.
            min(state.undecided.get(each, NEVER), self.ripe(state, each, labels_idle=labels_idle))
            for each in score_partitions
        ]
        return max(min(reached), max(reached) - _PATIENCE) + self.policy.maturity_ms

    def told(self, state: LabelState, score_partition: int, *, labels_idle: bool) -> int:
        """All that takes effect in the score partition up to this event time has been given as outcomes."""
        read = FOREVER if labels_idle else state.labels_until - 1
        decided = state.undecided.get(score_partition, NEVER) + self.policy.maturity_ms
        scored = state.scored.get(score_partition, NEVER)
        # The transaction of an open verdict may be about to raise an alert.
        return min(read, decided, max(scored + self.policy.soonest_ms, state.open_verdict(scored) - 1))

    def mature(
        self, state: LabelState, step: LabelStep, rows: Columns, offset: int, ripe: int
    ) -> tuple[list[Columns], bool]:
        """Decide the scored rows at `offset`, read late, as far as they are ripe.

        A row that the score stage has sent again after a crash is not decided again: its labels are gone.

        Returns:
            the outcomes, and whether all rows of the message are decided.
        """
        partition = rows.meta_int("score_partition")
        reached = state.late.get(partition, (0, 0))
        start = reached[1] if offset == reached[0] else 0
        # The watermark a row was scored at does not fall from row to row, and no odd stamp moves it: no row
        # waits for the maturity of a date in the future, its own or that of the row before it.
        times = rows.ints("watermark") if len(rows) else np.empty(0, np.int64)
        unripe = np.flatnonzero(times[start:] > ripe)
        stop = start + int(unripe[0]) if len(unripe) else len(times)
        watermark = rows.meta_int("watermark")
        # One without rows waits, too: what comes after it is not needed sooner.
        done = stop == len(times) and (stop > 0 or watermark <= ripe)
        until = watermark if done else (int(times[stop]) if stop < len(times) else watermark) - 1
        change = LabelStep(undecided=_risen(state.undecided, partition, until))
        position = (offset + 1, 0) if done else (offset, stop)
        if position > reached:
            change.late[partition] = position
        new = self._undecided(state, change, rows, start, stop)
        keep, fraud, source, known_at, labelled_at = [], [], [], [], []
        for index in range(start, stop):
            transaction = rows.strings["transaction_id"][index]
            matured_at = int(times[index]) + self.policy.maturity_ms
            alerted = state.alerted.get(transaction)
            held = state.verdicts.get(transaction, [])
            if held or alerted is not None:
                change.dropped.append(transaction)
            if not new[index - start]:
                continue
            timely = _timely(held, matured_at)
            for late in held[len(timely) :]:
                # Whether it happens to be here already or comes after this.
                self.counts[late.source, "too_late"] += 1
            verdict = timely[-1] if timely else None
            is_fraud = verdict is not None and verdict.fraud
            if alerted is not None and alerted.given is not None:
                continue
            keep.append(index)
            fraud.append(is_fraud)
            known_at.append(matured_at)
            labelled_at.append(verdict.labelled_at if verdict is not None else matured_at)
            source.append(verdict.source if verdict is not None else MATURITY)
            if verdict is not None:
                self.counts[verdict.source, "joined"] += 1
        self._commit(state, step, change)
        if not keep:
            return [], done
        chosen = rows.take(np.array(keep))
        outcomes = _outcomes(chosen, fraud, known_at, labelled_at, source)
        outcomes.arrays["matured"] = np.ones(len(keep), dtype=np.bool_)
        return [outcomes], done

    @staticmethod
    def _undecided(state: LabelState, change: LabelStep, rows: Columns, start: int, stop: int) -> Bools:
        """Which of these rows are the first of their transaction; a backtest sends none again."""
        if "settled" not in rows.meta or start == stop:
            return np.ones(stop - start, np.bool_)
        source, offsets = str(rows.meta_int("score_partition")), rows.ints("offset")[start:stop]
        change.decided[source] = rows.meta_int("settled"), offsets.tobytes()
        return state.decided.unseen(source, offsets)

    def passed(self, state: LabelState, step: LabelStep, places: Mapping[int, int]) -> None:
        """The late reading has nothing of these score partitions left before these offsets."""
        change = LabelStep()
        for partition, offset in places.items():
            if (offset, 0) > state.late.get(partition, (0, 0)):
                change.late[partition] = offset, 0
        self._commit(state, step, change)

    def expire(self, state: LabelState, step: LabelStep) -> int:
        """Drop the verdicts whose transaction has not come within the expiry, and what is beyond `max_held`.

        A transaction whose alerted row goes is decided at maturity, like one without an alert.

        Returns:
            how many verdicts were dropped.
        """
        count = 0
        expired_before = max(state.scored.values(), default=NEVER) - self.policy.expiry_ms
        while (oldest := state.oldest_verdict()) is not None:
            labelled_at, transaction = oldest
            expired = labelled_at < expired_before
            if not expired and len(state.verdicts) <= self.policy.max_held:
                break
            verdicts = state.verdicts[transaction]
            result = "unmatched" if expired else "dropped"
            self.counts.update((verdict.source, result) for verdict in verdicts)
            count += len(verdicts)
            self._commit(state, step, LabelStep(expired=[transaction]))
        while len(state.alerted) > self.policy.max_held and (oldest := state.oldest_alert()) is not None:
            self.released += 1
            self._commit(state, step, LabelStep(released=[oldest[1]]))
        return count

    @staticmethod
    def _commit(state: LabelState, step: LabelStep, change: LabelStep) -> None:
        state.take(change)
        step.add(change)


def _timely(held: Sequence[Verdict], matured_at: int) -> list[Verdict]:
    """Those of `with_verdict` that were given by maturity; the last one counts."""
    return [each for each in held if each.labelled_at <= matured_at]


def _risen(held: dict[int, int], partition: int, watermark: int) -> dict[int, int]:
    """The change that makes `watermark` that of the partition; none where it is no higher."""
    return {partition: watermark} if partition not in held or watermark > held[partition] else {}


def _outcomes(
    rows: Columns,
    fraud: Sequence[bool],
    known_at: Sequence[int],
    labelled_at: Sequence[int],
    source: Sequence[str],
) -> Columns:
    arrays = {name: rows.arrays[name] for name in _CARRIED}
    arrays |= {name: rows.arrays[name] for name in _OBSERVED if name in rows.arrays}
    arrays["fraud"] = np.array(fraud, dtype=np.bool_)
    arrays["known_at"] = np.array(known_at, dtype=np.int64)
    # A label of a transaction without an alert takes effect at maturity, whenever it came before.
    arrays["labelled_at"] = np.array(labelled_at, dtype=np.int64)
    arrays["matured"] = np.zeros(len(fraud), dtype=np.bool_)
    strings = {name: rows.strings[name] for name in _CARRIED_STRINGS}
    strings["source"] = list(source)
    return Columns(dict(rows.meta), arrays, strings)
