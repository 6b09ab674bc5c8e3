"""Outcomes of alerted transactions as they are kept, to be taken back should the verdict be revised.

There are many: of each only the numbers that were counted, 58 bytes and 8 for each candidate; what most of
them share is one text.
"""

from __future__ import annotations

import struct
import sys
from collections.abc import Mapping

import msgspec
import numpy as np

from streams.stages.columns import Columns

#: Time that places it, card, delay of the label, amount, propensity, threshold, score of the champion;
#: exponent and what is true of it.
_NUMBERS = struct.Struct("<qqqqdddBB")
_FRAUD, _CONTROL, _CANARY = 1, 2, 4
#: By lineup: transactions u64 and their numbers, one after the other.
Packed = dict[str, tuple[bytes, bytes]]


class Judged(msgspec.Struct, array_like=True, frozen=True):
    """What was counted for an alerted transaction.

    Args:
        numbers: of the row.
        lineup: the models that had scored it after which move, and where the verdict is from.
    """

    numbers: bytes
    lineup: str

    @property
    def time(self) -> int:
        """Event time that places it, epoch ms."""
        return int(_NUMBERS.unpack_from(self.numbers)[0])

    @property
    def fraud(self) -> bool:
        """The verdict."""
        return bool(self.numbers[_NUMBERS.size - 1] & _FRAUD)


def keep(row: Columns, time: int) -> Judged:
    """The outcome of one alerted transaction, placed at this event time."""
    # Of a version it only matters whether there was one.
    models = [
        (role, name, min(version, 1))
        for role, name, version in msgspec.convert(row.meta["models"], list[tuple[str, str, int]])
    ]
    in_use = [row.meta.get("move", 0), bool(row.meta.get("stood_in"))]
    arm = bool(row.bools("arm")[0]) if "arm" in row.arrays else False
    true = _FRAUD * bool(row.bools("fraud")[0]) | _CONTROL * bool(row.bools("control")[0]) | _CANARY * arm
    numbers = _NUMBERS.pack(
        time,
        int(row.words("card").view(np.int64)[0]),
        int(row.ints("labelled_at")[0] - row.ints("event_time")[0]),
        int(row.ints("amount_minor")[0]),
        float(row.floats("propensity")[0]),
        float(row.floats("threshold")[0]),
        float(row.floats("champion")[0]),
        int(row.codes("exponent")[0]),
        true,
    )
    lineup = _encode([models, *in_use, row.strings["source"][0]]).decode()
    return Judged(numbers + row.floats("shadows")[0].tobytes(), sys.intern(lineup))


def recall(judged: Judged) -> Columns:
    """The row again, as far as it was counted; its event time is 0."""
    models, move, stood_in, source = _decode(judged.lineup)
    _, card, delay, amount, propensity, threshold, champion, exponent, true = _NUMBERS.unpack_from(
        judged.numbers
    )
    floats = {"propensity": propensity, "threshold": threshold, "champion": champion}
    ints = {"event_time": 0, "labelled_at": delay, "amount_minor": amount}
    bools = {"alert": True, "fraud": true & _FRAUD, "control": true & _CONTROL, "arm": true & _CANARY}
    return Columns(
        {"models": [list(model) for model in models], "move": move, "stood_in": stood_in},
        {
            "card": np.array([card], dtype=np.int64).view(np.uint64),
            "exponent": np.array([exponent], dtype=np.uint8),
            "shadows": np.frombuffer(judged.numbers, np.float64, offset=_NUMBERS.size)[None, :],
            **{name: np.array([value], dtype=np.float64) for name, value in floats.items()},
            **{name: np.array([value], dtype=np.int64) for name, value in ints.items()},
            **{name: np.array([bool(value)]) for name, value in bools.items()},
        },
        {"source": [source]},
    )


def pack(judged: Mapping[int, Judged]) -> Packed:
    """Verdicts by transaction, for `unpack`; the same whatever their order."""
    alike: dict[str, list[int]] = {}
    for transaction in sorted(judged):
        alike.setdefault(judged[transaction].lineup, []).append(transaction)
    return {
        lineup: (np.array(names, np.uint64).tobytes(), b"".join(judged[name].numbers for name in names))
        for lineup, names in alike.items()
    }


def unpack(packed: Packed) -> dict[int, Judged]:
    """By transaction."""
    found: dict[int, Judged] = {}
    for lineup, (names, numbers) in packed.items():
        transactions = np.frombuffer(names, np.uint64).tolist()
        size, shared = len(numbers) // len(transactions), sys.intern(lineup)
        for place, transaction in enumerate(transactions):
            found[transaction] = Judged(numbers[place * size : (place + 1) * size], shared)
    return found


_encode = msgspec.json.Encoder().encode
_decode = msgspec.json.Decoder(tuple[list[tuple[str, str, int]], int, bool, str]).decode
