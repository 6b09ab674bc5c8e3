"""A seeded stream of card transactions with several kinds of fraud, in event order.

Terminals lie on a circle, cards live at a place of it and buy near home, sometimes far away, sometimes online
(the terminals of the first percent). Times follow the hours of the day. Four patterns of fraud run
side by side:

* `LARGE`: a single purchase far above what the card spends;
* `TERMINAL`: a terminal is skimmed for four weeks, nearly all of what happens there is fraud;
* `CARD`: a card's data is stolen; for twelve days two in five of its purchases are far away and inflated;
* `TESTING`: a burst of tiny purchases on one online terminal within minutes, then one large purchase.

With drift, from the middle of the stream on, genuine amounts rise, large frauds hide below the old ones, card
testing becomes three times as frequent and stolen cards are used with moderate amounts. `faults` go wrong
beside that (`fault_injection.py`); the frauds of a new pattern are `UNKNOWN`.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt

from streams.contract.transaction_columns import NEVER, Bools, Floats, Ints, TransactionColumns
from streams.history.fault_injection import inject
from streams.history.faults import Fault
from streams.times import DAY, HOUR

GENUINE, LARGE, TERMINAL, CARD, TESTING, UNKNOWN = range(6)
_BLOCK_ROWS: Final = 50_000
_FOREVER: Final = 2**62

_COUNTRIES = ("DE", "FR", "IT", "ES", "NL", "BE", "AT", "PT", "PL", "CZ", "SE", "IE")
_CATEGORIES = ("5411", "5812", "5541", "5912", "5651", "5732", "4111", "7011", "5999", "5942")
# Purchases by hour of the day, relative.
_HOURS = (1, 0.6, 0.4, 0.3, 0.4, 1, 2.5, 5, 7, 8, 8.5, 9, 10, 9, 8, 8, 8.5, 9.5, 10, 9, 7, 5, 3.5, 2)

_TERMINAL_DAYS, _CARD_DAYS = 28, 12
# Shares of terminals and cards compromised at any time, and of transactions that start one of the other
# patterns.
_TERMINALS_COMPROMISED, _CARDS_COMPROMISED = 0.006, 0.007
_LARGE_SHARE, _TESTING_SHARE, _REPORTED_SHARE = 0.0006, 0.00015, 0.97


@dataclass(frozen=True, slots=True)
class Simulation:
    """What to simulate; equal values give equal streams.

    Attributes:
        start: event time of the first midnight, epoch ms.
        days: length of the stream in event time; with `transactions` it sets the density.
        chargeback_days: median delay until a fraud is reported.
        drift: change the behaviour in the middle of the stream.
        faults: what goes wrong, and when.
    """

    seed: int = 1
    transactions: int = 100_000
    cards: int = 2_000
    terminals: int = 4_000
    start: int = 1_735_689_600_000
    days: int = 30
    chargeback_days: float = 5.0
    drift: bool = False
    faults: tuple[Fault, ...] = ()

    def __post_init__(self) -> None:
        if min(self.transactions, self.cards, self.days) < 1 or self.terminals < 100 or self.seed < 0:
            raise ValueError("a simulation needs transactions, cards, days and at least 100 terminals")

    @property
    def end(self) -> int:
        return self.start + self.days * DAY


class Simulator:
    """The world of a simulation: who lives where, who is compromised when; a few arrays per card and
    terminal.
    """

    def __init__(self, simulation: Simulation) -> None:
        self.simulation = simulation
        random = np.random.default_rng([simulation.seed, 0])
        cards, terminals = simulation.cards, simulation.terminals
        self._home = random.uniform(0, terminals, cards)
        self._spend = random.normal(3.2, 0.6, cards)
        activity = np.cumsum(random.gamma(2.0, 1.0, cards))
        self._activity = activity / activity[-1]
        self._priciness = random.normal(0.0, 0.25, terminals)
        self._category = random.integers(0, len(_CATEGORIES), terminals)
        self._skim_share = random.uniform(0.8, 1.0, terminals)
        self._skimmed = self._compromise(random, terminals, _TERMINALS_COMPROMISED, _TERMINAL_DAYS)
        # Nobody skims an online shop; and the popular ones would decide the share of frauds by themselves.
        self._skimmed[: self._online] = _FOREVER
        self._stolen = self._compromise(random, cards, _CARDS_COMPROMISED, _CARD_DAYS)
        self._card_ids = _tokens("card_", simulation.seed * 3 + 1, np.arange(cards))
        self._terminal_ids = _tokens("term_", simulation.seed * 3 + 2, np.arange(terminals))
        self._cumulative_hours = np.concatenate([[0.0], np.cumsum(_HOURS) / sum(_HOURS)])

    def batches(self) -> Iterator[TransactionColumns]:
        """The stream, at most 50,000 rows a batch, with truth and report time."""
        return (columns for columns, _ in self.patterns())

    def patterns(self) -> Iterator[tuple[TransactionColumns, npt.NDArray[np.int8]]]:
        """The stream with the pattern of each row beside it."""
        total = self.simulation.transactions
        for number, first in enumerate(range(0, total, _BLOCK_ROWS)):
            yield self._block(number, first, min(first + _BLOCK_ROWS, total))

    def _compromise(self, random: np.random.Generator, count: int, share: float, days: int) -> Ints:
        """Start of each entity's compromise, in epoch ms; `_FOREVER` for those that stay clean."""
        simulation = self.simulation
        window = simulation.days + days
        starts = simulation.start + ((random.random(count) * window - days) * DAY).astype(np.int64)
        return np.where(random.random(count) < share * window / days, starts, _FOREVER)

    def _block(self, number: int, first: int, end: int) -> tuple[TransactionColumns, npt.NDArray[np.int8]]:
        simulation = self.simulation
        random = np.random.default_rng([simulation.seed, 1, number])
        rows = end - first
        bounds = np.array([first, end]) / simulation.transactions
        lowest, highest = self._times(bounds).tolist()
        drifted_block = simulation.drift and bounds[0] >= 0.5
        testing = self._testing(random, rows, bounds, highest, 3.0 if drifted_block else 1.0)
        ordinary = self._ordinary(random, rows - len(testing[0]), bounds)
        parts = (np.concatenate(pair) for pair in zip(ordinary, testing, strict=True))
        time, card, terminal, amount, pattern = parts
        order = np.argsort(time, kind="stable")
        time = np.clip(time[order], lowest, max(lowest, highest - 1))
        card, terminal, pattern = card[order], terminal[order], pattern[order].astype(np.int8)
        columns = TransactionColumns(
            transaction_id=_tokens("tx_", simulation.seed * 3, np.arange(first, end)),
            card_id=[self._card_ids[index] for index in card.tolist()],
            terminal_id=[self._terminal_ids[index] for index in terminal.tolist()],
            event_time=time,
            amount_minor=np.maximum(np.rint(amount[order] * 100).astype(np.int64), 1),
            currency=["EUR"] * rows,
            texts=self._texts(terminal),
            fraud=pattern != GENUINE,
            labelled_at=self._reports(random, time, pattern != GENUINE),
        )
        drawn = np.random.default_rng([simulation.seed, 2, number])
        columns = inject(columns, simulation.faults, simulation.start, drawn, simulation.chargeback_days)
        assert columns.fraud is not None
        pattern[columns.fraud & (pattern == GENUINE)] = UNKNOWN
        return columns, pattern

    def _ordinary(
        self, random: np.random.Generator, rows: int, bounds: Floats
    ) -> tuple[Ints, Ints, Ints, Floats, Ints]:
        """Time, card, terminal, amount (major units) and pattern of the purchases outside bursts."""
        time = self._times(np.sort(random.uniform(bounds[0], bounds[1], rows)))
        drifted = self._drifted(time)
        card = np.searchsorted(self._activity, random.random(rows), side="right")
        terminal = self._places(random, card)
        amount = np.exp(self._spend[card] + self._priciness[terminal] + random.normal(0.0, 0.45, rows))
        amount *= np.where(drifted, 1.3, 1.0)
        pattern = np.zeros(rows, dtype=np.int64)
        chance = random.random(rows)

        stolen_for = time - self._stolen[card]
        stolen = (stolen_for >= 0) & (stolen_for < _CARD_DAYS * DAY) & (chance < 0.4)
        pattern[stolen] = CARD
        amount[stolen] *= np.where(drifted[stolen], 3.0, random.uniform(5.0, 10.0, int(stolen.sum())))
        terminal[stolen] = random.integers(0, self.simulation.terminals, int(stolen.sum()))

        skimmed_for = time - self._skimmed[terminal]
        skimmed = (skimmed_for >= 0) & (skimmed_for < _TERMINAL_DAYS * DAY)
        skimmed &= chance < self._skim_share[terminal]
        pattern[skimmed & ~stolen] = TERMINAL

        large = (random.random(rows) < _LARGE_SHARE) & (pattern == GENUINE)
        pattern[large] = LARGE
        amount[large] = random.uniform(350, 1200, int(large.sum())) * np.where(drifted[large], 0.5, 1.0)
        return time, card, terminal, amount, pattern

    def _testing(
        self, random: np.random.Generator, rows: int, bounds: Floats, latest: int, factor: float
    ) -> tuple[Ints, Ints, Ints, Floats, Ints]:
        """The same columns of the card testing bursts that start in a block."""
        simulation = self.simulation
        bursts = min(int(random.poisson(rows * _TESTING_SHARE * factor)), rows // 40)
        sizes = random.integers(5, 16, bursts)
        burst = np.repeat(np.arange(bursts), sizes)
        last = np.cumsum(sizes) - 1
        pauses = random.exponential(25_000.0, len(burst)).astype(np.int64) + 1_000
        since = np.cumsum(pauses)
        since -= np.repeat(since[last - sizes + 1] if bursts else since, sizes)
        time = self._times(random.uniform(bounds[0], bounds[1], bursts))[burst] + since
        card = random.integers(0, simulation.cards, bursts)[burst]
        terminal = random.integers(0, self._online, bursts)[burst]
        amount = random.uniform(0.2, 2.5, len(burst))
        amount[last] = random.uniform(80, 500, bursts)
        return np.minimum(time, latest - 1), card, terminal, amount, np.full(len(burst), TESTING)

    @property
    def _online(self) -> int:
        return self.simulation.terminals // 100

    def _places(self, random: np.random.Generator, card: Ints) -> Ints:
        """A terminal for each purchase: near home, anywhere (3 %) or online (15 %)."""
        rows, terminals = len(card), self.simulation.terminals
        near = np.floor(self._home[card] + random.laplace(0.0, 8.0, rows)).astype(np.int64) % terminals
        kind = random.random(rows)
        elsewhere = random.random(rows)
        away = kind < 0.03
        near[away] = (elsewhere[away] * terminals).astype(np.int64)
        online = kind > 0.85
        # Squared, so that the first online shops are the popular ones.
        near[online] = (elsewhere[online] ** 2 * self._online).astype(np.int64)
        return near

    def _times(self, share: Floats) -> Ints:
        """Event times at which the given shares (0..1) of the stream have passed."""
        day, within = np.divmod(np.asarray(share) * self.simulation.days, 1.0)
        hour = np.interp(within, self._cumulative_hours, np.arange(25.0))
        times: Ints = day.astype(np.int64) * DAY + (hour * HOUR).astype(np.int64)
        return times + self.simulation.start

    def _drifted(self, time: Ints) -> Bools:
        if not self.simulation.drift:
            return np.zeros(len(time), dtype=np.bool_)
        return time >= self.simulation.start + self.simulation.days * DAY // 2

    def _reports(self, random: np.random.Generator, time: Ints, fraud: Bools) -> Ints:
        """When each fraud is charged back; `NEVER` for genuine rows and for the frauds nobody reports."""
        rows = int(fraud.sum())
        delay = np.clip(random.lognormal(np.log(self.simulation.chargeback_days), 0.6, rows), 0.05, 60.0)
        reported = random.random(rows) < _REPORTED_SHARE
        labelled_at = np.full(len(time), NEVER, dtype=np.int64)
        labelled_at[fraud] = np.where(reported, time[fraud] + (delay * DAY).astype(np.int64), NEVER)
        return labelled_at

    def _texts(self, terminal: Ints) -> dict[str, list[str | None]]:
        country = terminal * len(_COUNTRIES) // self.simulation.terminals
        return {
            "mcc": [_CATEGORIES[index] for index in self._category[terminal].tolist()],
            "country": [_COUNTRIES[index] for index in country.tolist()],
            "channel": ["online" if online else "pos" for online in (terminal < self._online).tolist()],
        }


def _tokens(prefix: str, salt: int, numbers: Ints) -> list[str]:
    """One token of 16 hexadecimal digits per number; distinct numbers give distinct tokens of one salt.

    Steele, Lea, Flood: Fast Splittable Pseudorandom Number Generators (OOPSLA 2014): its mixing is a
    bijection.
    """
    mixed = numbers.astype(np.uint64) + np.uint64(salt % 2**32) * np.uint64(2**32)
    mixed = (mixed + np.uint64(0x9E3779B97F4A7C15)).astype(np.uint64)
    mixed = (mixed ^ (mixed >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    mixed = (mixed ^ (mixed >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    mixed ^= mixed >> np.uint64(31)
    text = mixed.astype(">u8").tobytes().hex()
    return [prefix + text[start : start + 16] for start in range(0, len(text), 16)]
