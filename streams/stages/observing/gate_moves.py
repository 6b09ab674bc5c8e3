"""What is made of the judgements of gates: the moves that follow; pure.

Since when a candidate is counted follows from the moves alone: since the champion has changed, since it has
become a candidate, and for a canary since it has become that.
"""

from __future__ import annotations

from models.gates import Judgement
from models.registry import Kind, Move, Pin, Registry


def counted_since(registry: Registry) -> dict[Pin, int]:
    """By candidate, the number of the move since which its rows count; 0 before the first."""
    before = registry.initial
    since = dict.fromkeys(before.pins()[1:], 0)
    for entry in registry.history:
        after, number = entry.aliases, entry.move.number
        crowned, canary = after.champion != before.champion, after.canary != before.canary
        since = {
            pin: number if crowned or pin not in since or (canary and pin == after.canary) else since[pin]
            for pin in after.pins()[1:]
        }
        before = after
    return since


def automatic_move(
    registry: Registry, canary: Judgement, *, abort: bool, promote: bool, now_ms: int
) -> Move | None:
    """What the gates do about the present canary, if anything.

    The move bears the number after the last one: where several observers come to the same end, or one comes
    to it again after a restart, one of the moves counts and the others are stale.

    Args:
        abort: whether a failed gate ends the canary.
        promote: whether one that has passed all of them becomes the champion.
    """
    model = registry.aliases.canary
    if model is None:
        return None
    if canary.failed:
        reason = f"failed: {', '.join(each.gate for each in canary.failed)}"
        kind: Kind = "canary"
    elif canary.all_passed:
        reason, kind = "passed every gate", "promote"
    else:
        return None
    if not (abort if canary.failed else promote):
        return None
    return Move(registry.last + 1, kind, model, 0.0, "gate", now_ms, reason, canary.as_evidence())


def automatic_rollback(
    registry: Registry, champion: Judgement, *, probation_ms: int, now_ms: int
) -> Move | None:
    """The way back from a promotion that turns out to be a mistake, if it does within its probation.

    Args:
        champion: the present champion, judged beside the former one.
    """
    promotion, former = registry.promotion, registry.aliases.former
    if promotion is None or not former or not champion.failed:
        return None
    if now_ms - promotion.at > probation_ms or promotion.evidence.get("forced"):
        return None
    reason = f"failed: {', '.join(each.gate for each in champion.failed)}"
    return Move(
        registry.last + 1, "rollback", former[-1], 0.0, "gate", now_ms, reason, champion.as_evidence()
    )
