"""The faults that a simulated stream can have: at producers, in the world, with the people."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

#: Share of the purchases that are frauds of the new pattern.
NEW_SHARE: Final = 0.03
SHIFT: Final = 2.5

#: What each fault does, as `fraudstream traffic --help` says it.
KINDS: Final[dict[str, str]] = {
    "unit-change": "amounts come in units of the currency instead of minor units",
    "optional-field": "country is not sent any more",
    "required-field": "a producer with three terminals in sixteen sends no terminal_id",
    "amount-shift": f"amounts are {SHIFT} times as large",
    "new-pattern": f"{NEW_SHARE:.0%} of the purchases are frauds that look like any other purchase",
    "slow-labels": "frauds are reported after twice the time",
    "alerts-ignored": "analysts open none of the alerts that they are shown",
}


@dataclass(frozen=True, slots=True)
class Fault:
    """One of `KINDS`, from `at` milliseconds of event time after the start of the stream on."""

    kind: str
    at: int

    def __post_init__(self) -> None:
        if self.kind not in KINDS or self.at < 0:
            raise ValueError(f"no fault is named {self.kind}; there are {', '.join(KINDS)}")


def ignored_from(faults: tuple[Fault, ...], start: int) -> int | None:
    """Event time (epoch ms) from which alerts are not opened any more; None if they are."""
    return min((start + fault.at for fault in faults if fault.kind == "alerts-ignored"), default=None)
