"""The tally of a record: bets settled so far, and the evidence they left.

Responsible for which outcomes an alarm may hang on. A bet is placed on all decisions of one moment;
the next bet takes the first decisions after its outcomes are known, so that no two bets' horizons
overlap and each is made by somebody who knows the result of the last. Contracts of one moment fall
together, so together they are one bet, on the share of them that is exceeded.
"""

from dataclasses import dataclass, replace
from datetime import datetime, timedelta

import numpy as np

from margincast.core.time import instant64
from margincast.core.types import FloatArray, Side, Times
from margincast.serving.monitoring.betting import DIRECTIONS, Direction, Evidence
from margincast.serving.monitoring.record import Record


@dataclass(frozen=True)
class Rates:
    """Exceedances that are tolerated, as multiples of what a level promises.

    Attributes:
        most: a higher rate is too many.
        least: a lower one is too few.
    """

    most: float
    least: float

    def of(self, direction: Direction, levels: tuple[float, ...]) -> FloatArray:
        """Return the rates bet against, one a level."""
        share = self.most if direction == "too many" else self.least
        return share * (1.0 - np.array(levels))


@dataclass(frozen=True)
class Tally:
    """Settled bets on one record.

    Attributes:
        subject: whose promises; another subject begins a tally anew.
        sides: S sides.
        levels: L levels.
        symbols: C contracts that had a bet.
        last: moment of the last settled bet; NaT before the first.
        shares: share exceeded at every settled bet, shape (bets, S * L); NaN where no contract had
            a promise and an outcome.
        pooled: by direction, evidence of all contracts together, streams S * L.
        own: by direction, evidence of every contract, streams C * S * L.
        reached: by direction, largest mean of the pooled e-values so far; a mean of e-processes
            that are settled together is one itself.
        lost: promises that were bet on and whose outcome was not known in time.
    """

    subject: str
    sides: tuple[Side, ...]
    levels: tuple[float, ...]
    symbols: tuple[str, ...]
    last: np.datetime64
    shares: FloatArray
    pooled: dict[Direction, Evidence]
    own: dict[Direction, Evidence]
    reached: dict[Direction, float]
    lost: int

    @classmethod
    def begin(cls, record: Record) -> "Tally":
        """Return the tally of a record before its first bet."""
        streams = len(record.sides) * len(record.levels)
        return cls(
            record.subject,
            record.sides,
            record.levels,
            (),
            np.datetime64("NaT", "us"),
            np.empty((0, streams)),
            {direction: Evidence.none(direction, streams) for direction in DIRECTIONS},
            {direction: Evidence.none(direction, 0) for direction in DIRECTIONS},
            dict.fromkeys(DIRECTIONS, 1.0),
            0,
        )

    def continues(self, record: Record) -> bool:
        """Whether a record is of the same promises as this tally."""
        return (self.subject, self.sides, self.levels) == (
            record.subject, record.sides, record.levels
        )  # fmt: skip

    def with_symbols(self, symbols: tuple[str, ...]) -> "Tally":
        """Return the same with room for more contracts."""
        every = tuple(sorted({*self.symbols, *symbols}))
        if every == self.symbols:
            return self
        streams = len(self.sides) * len(self.levels)
        place = {symbol: number for number, symbol in enumerate(every)}
        rows = np.array([place[symbol] for symbol in self.symbols], dtype=np.intp)
        rows = (rows[:, None] * streams + np.arange(streams)).ravel()
        own = {}
        for direction, kept in self.own.items():
            wider = Evidence.none(direction, len(every) * streams)
            wider.bets[rows], wider.wealth[rows], wider.largest[rows] = (
                kept.bets, kept.wealth, kept.largest
            )  # fmt: skip
            own[direction] = wider
        return replace(self, symbols=every, own=own)


def bet_times(decided: Times, horizon: timedelta, last: np.datetime64) -> Times:
    """Return the moments at which bets are placed after the last one.

    The first moment, then always the first decision later than the horizon's end of the bet before:
    not at that end itself, so that with a horizon of 8 hours and hourly decisions bets wander
    through the hours of the day.

    Args:
        decided: decision times, not decreasing.
        horizon: liquidation horizon.
        last: moment of the last bet; NaT for none.
    """
    every = np.unique(decided)
    span = np.timedelta64(horizon)
    place = 0 if np.isnat(last) else int(np.searchsorted(every, last + span, side="right"))
    chosen = []
    while place < len(every):
        chosen.append(place)
        place = int(np.searchsorted(every, every[place] + span, side="right"))
    return np.asarray(every[chosen])


def settle(tally: Tally, record: Record, at: datetime, rates: Rates, patience: timedelta) -> Tally:
    """Settle every bet that can be settled at a moment.

    Done again for the same moment, or from the start for the same record, the result is the same to
    the last bit.

    Args:
        tally: bets settled before.
        record: promises and outcomes, of the tally's subject.
        at: the moment; outcomes of horizons that end later are not looked at.
        rates: that are bet against.
        patience: how long a bet waits for outcomes that are late; those that are not known then
            are counted as lost.
    """
    known = record.as_of(at)
    tally = tally.with_symbols(record.symbols)
    place = np.searchsorted(np.array(tally.symbols, dtype=str), np.array(record.symbols, dtype=str))
    shape = (len(record.sides), len(record.levels))
    exceeded = known.exceeded
    moment, span = instant64(at), np.timedelta64(record.horizon)
    shares = [*tally.shares]
    pooled, own, reached = dict(tally.pooled), dict(tally.own), dict(tally.reached)
    last, lost = tally.last, tally.lost
    against = {
        direction: np.tile(rates.of(direction, record.levels), shape[0]) for direction in DIRECTIONS
    }
    for bet in bet_times(known.decided, record.horizon, tally.last):
        if bet + span > moment:
            break
        first, end = np.searchsorted(known.decided, [bet, bet + np.timedelta64(1, "us")])
        found = exceeded[first:end]
        waiting = np.isnan(found) & ~np.isnan(known.promised[first:end])
        if waiting.any() and moment < bet + span + np.timedelta64(patience):
            break
        lost += int(waiting.sum())
        have = ~np.isnan(found)
        count = have.sum(axis=0)
        beyond = np.where(have, found, 0.0).sum(axis=0)
        share = np.where(count > 0, beyond / np.maximum(count, 1), np.nan).ravel()
        of_contract = np.full((len(tally.symbols), *shape), np.nan)
        of_contract[place[known.contract[first:end]]] = found
        for direction in DIRECTIONS:
            rate = against[direction]
            pooled[direction] = pooled[direction].settle(share, rate)
            own[direction] = own[direction].settle(
                of_contract.ravel(), np.tile(rate, len(tally.symbols))
            )
            reached[direction] = max(reached[direction], float(pooled[direction].e_values.mean()))
        shares.append(share)
        last = bet
    return replace(
        tally,
        last=last,
        shares=np.array(shares).reshape(-1, shape[0] * shape[1]),
        pooled=pooled,
        own=own,
        reached=reached,
        lost=lost,
    )
