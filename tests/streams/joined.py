"""A label join for the tests: its state, a second state that is only told the deltas, and both reloaded."""

from __future__ import annotations

import numpy as np

from streams.contract.records import Feedback, Label
from streams.stages.alignment import FOREVER
from streams.stages.columns import Columns
from streams.stages.label_core import LabelJoin, LabelPolicy
from streams.stages.label_state import LabelState, LabelStep, encode_step

MATURITY, EXPIRY = 100, 1000
Outcome = tuple[str, bool, int, str]


class Joined:
    """A join with its state, and a second state that is only told the deltas."""

    def __init__(self) -> None:
        self.join = LabelJoin(LabelPolicy(MATURITY, EXPIRY))
        self.state, self.follower = LabelState(), LabelState()
        self.log: list[tuple[int, Columns]] = []
        self.steps: list[bytes] = []
        self.position = 0
        #: by transaction with an outcome, when it was labelled
        self.labelled_at: dict[str, int] = {}

    def score(
        self,
        rows: dict[str, tuple[int, bool]],
        event_times: dict[str, int] | None = None,
        *,
        settled: int | None = None,
        first: int = 0,
    ) -> list[Outcome]:
        """Rows by transaction: the watermark each was scored at and whether it was alerted; all transactions
        up to the offset `settled` are in messages before, the first of these is at the offset `first`.
        """
        watermarks = np.array([watermark for watermark, _ in rows.values()], np.int64)
        times = [(event_times or {}).get(name, watermark) for name, (watermark, _) in rows.items()]
        n = len(rows)
        message = Columns(
            {"score_partition": 0, "watermark": int(watermarks[-1]), "models": []}
            | ({} if settled is None else {"settled": settled}),
            {
                "event_time": np.array(times, np.int64),
                "offset": np.arange(first, first + n),
                "watermark": watermarks,
                "alert": np.array([alert for _, alert in rows.values()]),
                "control": np.zeros(n, np.bool_),
                "propensity": np.ones(n),
                "transaction": np.arange(n, dtype=np.uint64),
                "card": np.zeros(n, np.uint64),
                "hop": np.zeros(n, np.uint64),
                "features": watermarks[:, None].astype(np.float64),
                "champion": np.zeros(n),
                "arm": np.zeros(n, np.bool_),
                "shadows": np.zeros((n, 0)),
            },
            {"transaction_id": list(rows), "card_id": ["c"] * n},
        )
        self.log.append((len(self.log), message))
        step = LabelStep()
        return self._done(step, self.join.scored(self.state, step, message))

    def label(
        self,
        name: str,
        fraud: bool,
        at: int,
        source: str = "chargeback",
        revision: int = 0,
        card: str = "",
        believable: int = FOREVER,
    ) -> list[Outcome]:
        """A label; every transaction is of a card of its own unless said otherwise."""
        step = LabelStep()
        label = Label(name, card or f"card of {name}", fraud, source, at, revision)
        return self._done(step, self.join.labels(self.state, step, [label], believable=believable))

    def feedback(self, name: str, action: str, at: int) -> list[Outcome]:
        step = LabelStep()
        item = Feedback("a", name, "c", action, "x", at)  # type: ignore[arg-type]
        return self._done(step, self.join.feedback(self.state, step, [item]))

    def mature(self, ripe: int) -> list[Outcome]:
        """Everything scored at a watermark up to `ripe`."""
        step, outcomes = LabelStep(), []
        while self.position < len(self.log):
            offset, rows = self.log[self.position]
            given_, done = self.join.mature(self.state, step, rows, offset, ripe)
            outcomes += given_
            if not done:
                break
            self.position += 1
        return self._done(step, outcomes)

    def expire(self) -> int:
        step = LabelStep()
        count = self.join.expire(self.state, step)
        self._done(step, [])
        return count

    def _done(self, step: LabelStep, outcomes: list[Columns]) -> list[Outcome]:
        self.steps.append(encode_step(step))
        self.follower.apply(self.steps[-1])
        reloaded = LabelState()
        for bucket in range(LabelState.buckets):
            dumped = self.state.dump(bucket)
            assert self.follower.dump(bucket) == dumped
            reloaded.load(bucket, dumped)
        for bucket in range(LabelState.buckets):
            assert reloaded.dump(bucket) == self.state.dump(bucket)
        for name in ("verdict", "alert"):
            expected = getattr(self.state, f"oldest_{name}")()
            assert getattr(self.follower, f"oldest_{name}")() == expected
            assert getattr(reloaded, f"oldest_{name}")() == expected
        for rows in outcomes:
            given_at = rows.ints("labelled_at").tolist()
            self.labelled_at |= dict(zip(rows.strings["transaction_id"], given_at, strict=True))
        return [
            (name, bool(fraud), int(at), source)
            for rows in outcomes
            for name, fraud, at, source in zip(
                rows.strings["transaction_id"], rows.bools("fraud"), rows.ints("known_at"),
                rows.strings["source"], strict=True,
            )
        ]  # fmt: skip
