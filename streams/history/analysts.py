"""Simulated analysts: what they do with an alert, and when; the same alert always meets the same fate."""

from __future__ import annotations

from collections.abc import Container

import xxhash

from streams.contract.records import Action, Feedback
from streams.times import MINUTE


class Analysts:
    """Looks at every alert; opens most; confirms frauds and dismisses the rest, with errors.

    Args:
        frauds: ids of the transactions that are frauds.
        opened: share of the alerts that are opened; only these are decided.
        accuracy: share of the decisions that are right.
        team: analysts, named `analyst-1` and so on.
        absent_from: event time (epoch ms) of the alerts from which none is opened any more.
    """

    def __init__(
        self,
        frauds: Container[str],
        seed: int = 1,
        opened: float = 0.9,
        accuracy: float = 0.97,
        team: int = 4,
        absent_from: int | None = None,
    ) -> None:
        self._frauds, self._seed = frauds, seed
        self._opened, self._accuracy, self._team = opened, accuracy, team
        self._absent_from = absent_from

    def review(self, alert_id: str, transaction_id: str, card_id: str, alerted_at: int) -> list[Feedback]:
        """The feedback on one alert in the order of its times (epoch ms, all after `alerted_at`).

        Shown within 2 minutes, opened within 20 more, decided within 30 more.
        """
        luck = xxhash.xxh3_128_intdigest(f"{self._seed}/{alert_id}".encode())
        opens, errs = _share(luck), _share(luck >> 32)
        shown_at = alerted_at + 1 + (luck >> 64) % (2 * MINUTE)
        opened_at = shown_at + 1 + (luck >> 80) % (20 * MINUTE)
        decided_at = opened_at + 1 + (luck >> 96) % (30 * MINUTE)
        actor = f"analyst-{1 + luck % self._team}"

        feedback = [Feedback(alert_id, transaction_id, card_id, "shown", actor, shown_at)]
        absent = self._absent_from is not None and alerted_at >= self._absent_from
        if absent or opens >= self._opened:
            return feedback
        feedback.append(Feedback(alert_id, transaction_id, card_id, "opened", actor, opened_at))
        confirmed = (transaction_id in self._frauds) == (errs < self._accuracy)
        decision: Action = "confirmed" if confirmed else "dismissed"
        feedback.append(Feedback(alert_id, transaction_id, card_id, decision, actor, decided_at))
        return feedback


def _share(bits: int) -> float:
    return (bits & 0xFFFFFFFF) / 2**32
