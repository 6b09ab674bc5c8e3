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
"""

from __future__ import annotations

import bisect
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from operator import itemgetter

import msgspec
import numpy as np

from streams.contract.records import Feedback, Label
from streams.stages import columns
from streams.stages.alignment import FOREVER, NEVER
from streams.stages.columns import Columns

#: Outcomes keep these columns of the scored rows.
_CARRIED_STRINGS = ("transaction_id", "card_id")
#: A verdict of a source to the right replaces one of a source to the left.
_AUTHORITY = ("analyst", "chargeback")


class Verdict(msgspec.Struct, frozen=True, array_like=True):
    """What a label or an analyst says about a transaction."""

    fraud: bool
    source: str
    labelled_at: int
    revision: int

    @property
    def rank(self) -> tuple[int, int, int, bool, str]:
        """Verdicts of higher rank replace those of lower rank; no two that differ have the same."""
        authority = _AUTHORITY.index(self.source) if self.source in _AUTHORITY else len(_AUTHORITY)
        return (authority, self.revision, self.labelled_at, self.fraud, self.source)


def _with(held: Sequence[Verdict], verdict: Verdict) -> list[Verdict]:
    """Verdicts by time, each of higher rank than those before it: what may count at some maturity.

    Args:
        held: such verdicts; a new one that may never count leaves them as they are.
    """
    verdicts = sorted([*held, verdict], key=lambda each: (each.labelled_at, each.rank))
    kept: list[Verdict] = []
    for each in verdicts:
        if kept and each.rank <= kept[-1].rank:
            continue
        if kept and each.labelled_at == kept[-1].labelled_at:
            kept.pop()
        kept.append(each)
    return kept


def _timely(held: Sequence[Verdict], matured_at: int) -> list[Verdict]:
    """Those of `_with` that were given by maturity; the last one counts."""
    return [each for each in held if each.labelled_at <= matured_at]


class _Alerted(msgspec.Struct, array_like=True):
    """An alerted row, encoded as columns of length one, and the verdict given on it so far."""

    watermark: int
    row: bytes
    score_partition: int
    given: bool | None = None


class _Saved(msgspec.Struct, array_like=True):
    verdicts: dict[str, list[Verdict]]
    alerted: dict[str, _Alerted]
    scored: dict[int, int]
    undecided: dict[int, int]
    late_offset: int
    late_row: int
    labels_until: int


class LabelStep(msgspec.Struct, array_like=True):
    """What one batch changed in the state of the label stage, as its changelog keeps it."""

    verdicts: list[tuple[str, Verdict]] = []
    alerted: list[tuple[str, _Alerted]] = []
    given: list[tuple[str, bool]] = []
    dropped: list[str] = []
    scored: dict[int, int] = {}
    undecided: dict[int, int] = {}
    late_offset: int = 0
    late_row: int = 0
    labels_until: int = NEVER


@dataclass(frozen=True, slots=True)
class LabelPolicy:
    """
    Args:
        maturity_ms: event time after which a transaction without a fraud label is genuine.
        expiry_ms: event time for which a label waits for its transaction.
        soonest_ms: event time after a transaction at which a verdict on it takes effect at the earliest, at
            most `maturity_ms`. So far may scoring be ahead of this stage: a replay faster than life then
            sees every verdict exactly from when it takes effect.
    """

    maturity_ms: int
    expiry_ms: int
    soonest_ms: int = 0


class LabelState:
    """What the label stage holds for one partition of cards."""

    buckets = 1

    def __init__(self) -> None:
        #: verdicts that may count, by transaction and in the order of time
        self.verdicts: dict[str, list[Verdict]] = {}
        self.alerted: dict[str, _Alerted] = {}
        #: scoring watermark, by score partition
        self.scored: dict[int, int] = {}
        #: watermark up to which every row is decided, by score partition
        self.undecided: dict[int, int] = {}
        self.late_offset = 0
        self.late_row = 0
        self.labels_until = NEVER
        #: newest watermark among the rows that a score partition has, scored or waiting; not kept
        self.seen: dict[int, int] = {}
        self._unscored: dict[str, list[int]] = {}
        self._unscored_times: list[tuple[int, str]] = []

    def apply(self, delta: bytes) -> None:
        self.take(_decode_step(delta))

    def take(self, step: LabelStep) -> None:
        for transaction, verdict in step.verdicts:
            self.verdicts[transaction] = _with(self.verdicts.get(transaction, ()), verdict)
            self._expect(transaction, verdict.labelled_at)
        self.alerted.update(step.alerted)
        for transaction, fraud in step.given:
            if transaction in self.alerted:
                self.alerted[transaction].given = fraud
        for transaction in step.dropped:
            self.verdicts.pop(transaction, None)
            self.alerted.pop(transaction, None)
            self.met(transaction)
        self.scored.update(step.scored)
        self.undecided.update(step.undecided)
        if (step.late_offset, step.late_row) > (self.late_offset, self.late_row):
            self.late_offset, self.late_row = step.late_offset, step.late_row
        self.labels_until = max(self.labels_until, step.labels_until)

    def dump(self, bucket: int) -> bytes:
        return _encode(
            _Saved(
                self.verdicts, self.alerted, self.scored, self.undecided,
                self.late_offset, self.late_row, self.labels_until,
            )
        )  # fmt: skip

    def load(self, bucket: int, data: bytes) -> None:
        saved = _decode_saved(data)
        self.verdicts, self.alerted = saved.verdicts, saved.alerted
        self.scored, self.undecided = saved.scored, saved.undecided
        self.late_offset, self.late_row = saved.late_offset, saved.late_row
        self.labels_until = saved.labels_until
        self._unscored, self._unscored_times = {}, []
        for transaction, verdicts in self.verdicts.items():
            for verdict in verdicts:
                self._expect(transaction, verdict.labelled_at)

    def _expect(self, transaction: str, labelled_at: int) -> None:
        if transaction not in self.alerted:
            self._unscored.setdefault(transaction, []).append(labelled_at)
            bisect.insort(self._unscored_times, (labelled_at, transaction))

    def met(self, transaction: str) -> None:
        """The transaction of verdicts has been scored: what they do is known."""
        for labelled_at in self._unscored.pop(transaction, ()):
            del self._unscored_times[bisect.bisect_left(self._unscored_times, (labelled_at, transaction))]

    def open_verdict(self, after: int) -> int:
        """When the first verdict after that event time was given whose transaction may still be scored."""
        place = bisect.bisect_right(self._unscored_times, after, key=itemgetter(0))
        return self._unscored_times[place][0] if place < len(self._unscored_times) else FOREVER


_encode = msgspec.msgpack.Encoder().encode
_decode_step = msgspec.msgpack.Decoder(LabelStep).decode
_decode_saved = msgspec.msgpack.Decoder(_Saved).decode


class LabelJoin:
    """The pure core of the label stage: one call per batch, against the state of one partition.

    Every method changes `state`, appends what it changed to `step` and returns outcomes as columns. `counts`
    collects what became of labels, by (source, result).
    """

    def __init__(self, policy: LabelPolicy) -> None:
        self.policy = policy
        self.counts: Counter[tuple[str, str]] = Counter()

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
            alerted = _Alerted(int(rows.ints("watermark")[index]), row, partition)
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

        A label stamped after `believable` (epoch ms) does not move the clock of labels.
        """
        verdicts = [
            (label.transaction_id, Verdict(label.fraud, label.source, label.labelled_at, label.revision))
            for label in labels
        ]
        stamps = (label.labelled_at for label in labels if label.labelled_at <= believable)
        latest = max(stamps, default=NEVER)
        if latest > state.labels_until:
            self._commit(state, step, LabelStep(labels_until=latest))
        return self._verdicts(state, step, verdicts)

    def feedback(self, state: LabelState, step: LabelStep, feedback: Sequence[Feedback]) -> list[Columns]:
        """Analyst actions: `confirmed` and `dismissed` are verdicts."""
        verdicts = [
            (item.transaction_id, Verdict(item.action == "confirmed", "analyst", item.action_time, 0))
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
            known_better = timely and timely[-1].rank >= verdict.rank and verdict.labelled_at <= matured_at
            if known_better or _with(held, verdict) == held:
                self.counts[verdict.source, "duplicate"] += 1
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
            outcomes.append(_outcomes(row, [verdict.fraud], [known_at], [verdict.source]))
        return outcomes

    def ripe(self, state: LabelState, score_partition: int, *, labels_idle: bool) -> int:
        """Transactions scored in the score partition at a watermark up to this can be decided.

        The clock is the last label seen, since labels arrive in the order of `labelled_at`; more may come
        with the same time. While no labels arrive it is the newest transaction that scoring has seen, as far
        as scoring may get next: labels up to then were published before it.
        """
        clock = state.labels_until - 1
        if labels_idle:
            scored = state.scored.get(score_partition, NEVER)
            seen = state.seen.get(score_partition, NEVER)
            clock = max(clock, scored, min(scored + self.policy.soonest_ms, seen))
        return clock - self.policy.maturity_ms

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

        Returns:
            the outcomes, and whether all rows of the message are decided.
        """
        start = state.late_row if offset == state.late_offset else 0
        # The watermark a row was scored at does not fall from row to row, and no odd stamp moves it: no row
        # waits for the maturity of a date in the future, its own or that of the row before it.
        times = rows.ints("watermark") if len(rows) else np.empty(0, np.int64)
        unripe = np.flatnonzero(times[start:] > ripe)
        stop = start + int(unripe[0]) if len(unripe) else len(times)
        done = stop == len(times)
        partition = rows.meta_int("score_partition")
        until = rows.meta_int("watermark") if done else int(times[stop]) - 1
        change = LabelStep(undecided=_risen(state.undecided, partition, until))
        position = (offset + 1, 0) if done else (offset, stop)
        if position > (state.late_offset, state.late_row):
            change.late_offset, change.late_row = position
        keep, fraud, source, known_at = [], [], [], []
        for index in range(start, stop):
            transaction = rows.strings["transaction_id"][index]
            matured_at = int(times[index]) + self.policy.maturity_ms
            alerted = state.alerted.get(transaction)
            held = state.verdicts.get(transaction, [])
            if held or alerted is not None:
                change.dropped.append(transaction)
            timely = _timely(held, matured_at)
            for late in held[len(timely) :]:
                # Too late, whether it happens to be here already or comes after this.
                self.counts[late.source, "unmatched"] += 1
            verdict = timely[-1] if timely else None
            is_fraud = verdict is not None and verdict.fraud
            if alerted is not None and alerted.given is not None:
                continue
            keep.append(index)
            fraud.append(is_fraud)
            known_at.append(matured_at)
            source.append(verdict.source if verdict is not None else "maturity")
            if verdict is not None:
                self.counts[verdict.source, "joined"] += 1
        self._commit(state, step, change)
        if not keep:
            return [], done
        chosen = rows.take(np.array(keep))
        return [_outcomes(chosen, fraud, known_at, source)], done

    def expire(self, state: LabelState, step: LabelStep) -> int:
        """Drop the labels whose transaction has not come within the expiry; returns how many."""
        clock = max(state.scored.values(), default=NEVER)
        old = [
            (transaction, verdicts)
            for transaction, verdicts in state.verdicts.items()
            if verdicts[-1].labelled_at + self.policy.expiry_ms < clock
        ]
        for _, verdicts in old:
            self.counts.update((verdict.source, "unmatched") for verdict in verdicts)
        if old:
            self._commit(state, step, LabelStep(dropped=[transaction for transaction, _ in old]))
        return sum(len(verdicts) for _, verdicts in old)

    @staticmethod
    def _commit(state: LabelState, step: LabelStep, change: LabelStep) -> None:
        state.take(change)
        step.verdicts += change.verdicts
        step.alerted += change.alerted
        step.given += change.given
        step.dropped += change.dropped
        step.scored.update(change.scored)
        step.undecided.update(change.undecided)
        if (change.late_offset, change.late_row) > (step.late_offset, step.late_row):
            step.late_offset, step.late_row = change.late_offset, change.late_row
        step.labels_until = max(step.labels_until, change.labels_until)


def _risen(held: dict[int, int], partition: int, watermark: int) -> dict[int, int]:
    """The change that makes `watermark` that of the partition; none where it is no higher."""
    return {partition: watermark} if partition not in held or watermark > held[partition] else {}


def encode_step(step: LabelStep) -> bytes:
    """The delta for the changelog."""
    return _encode(step)


def _outcomes(
    rows: Columns, fraud: Sequence[bool], known_at: Sequence[int], source: Sequence[str]
) -> Columns:
    arrays = {
        name: rows.arrays[name]
        for name in ("event_time", "transaction", "card", "hop", "features", "champion", "shadows")
    }
    arrays["fraud"] = np.array(fraud, dtype=np.bool_)
    arrays["known_at"] = np.array(known_at, dtype=np.int64)
    strings = {name: rows.strings[name] for name in _CARRIED_STRINGS}
    strings["source"] = list(source)
    return Columns(dict(rows.meta), arrays, strings)
