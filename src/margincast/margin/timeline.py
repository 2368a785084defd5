"""A policy through time: every publication from the forecasts that were there at its moment.

Responsible for the one loop that backtests and serving share: at each moment of publication the
latest forecast of every contract that is not stale goes through the chain, with what the policy
remembers from the publication before.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import timedelta

import numpy as np
import numpy.typing as npt

from margincast.core.types import BoolArray, FloatArray, Times
from margincast.margin.chain import Chain, Inputs, Memory, advance
from margincast.margin.parameters import Parameters
from margincast.margin.reference import References


@dataclass(frozen=True)
class Forecasts:
    """Forecasts of C contracts and S sides at n decisions.

    Attributes:
        decided: decision times, not falling, shape (n,), UTC.
        contract_of: number of each decision's contract, shape (n,).
        wanted: the forecast that margins each side, fractions, shape (S, n); NaN where none.
    """

    decided: Times
    contract_of: npt.NDArray[np.intp]
    wanted: FloatArray


@dataclass(frozen=True)
class Rows:
    """What is the same at every moment, a row a tier, side and contract in this order of depth.

    Row ``(t * S + s) * C + c`` is tier t, side s, contract c; k = T * S * C rows.

    Attributes:
        contracts: C.
        sides: S.
        base_mmr: shape (k,).
        cost: of closing the tier's notional, shape (k,).
        under: place of the tier below each row, -1 where there is none; None where none has one.
    """

    contracts: int
    sides: int
    base_mmr: FloatArray
    cost: FloatArray
    under: npt.NDArray[np.intp] | None = None

    @property
    def tiers(self) -> int:
        """T."""
        return len(self.base_mmr) // (self.sides * self.contracts)


@dataclass(frozen=True)
class Moment:
    """A moment at which decisions were taken.

    Attributes:
        at: UTC.
        decisions: the decisions taken at it.
        published: margins published at it; None where it is no moment of publication.
        memory: what the policy remembers of the last publication.
        first: rows whose first margin made of a forecast this is, shape (k,).
    """

    at: np.datetime64
    decisions: slice
    published: Chain | None
    memory: Memory
    first: BoolArray


def through_time(
    forecasts: Forecasts,
    rows: Rows,
    policy: Parameters,
    *,
    references: References | None,
    publish_every: timedelta | None,
    max_data_age: timedelta,
) -> Iterator[Moment]:
    """Yield every decision time, with what was published at it.

    Args:
        forecasts: in order of time.
        rows: base rates and costs.
        policy: numbers of the policy.
        references: long-run and stressed rates, a row a side and contract; None where not used.
        publish_every: margins are published at the first decision time of every such period,
            counted from the start of 1970; None publishes at every decision time.
        max_data_age: a contract whose latest decision is older falls back.
    """
    ticks, tick_of = np.unique(forecasts.decided, return_inverse=True)
    edges = np.searchsorted(tick_of, np.arange(len(ticks) + 1))
    publishes = np.ones(len(ticks), dtype=bool)
    if publish_every is not None:
        publishes = first_of_periods(ticks, publish_every)
    latest = np.full((rows.sides, rows.contracts), np.nan)
    latest_at = np.full(rows.contracts, np.datetime64("NaT", "us"))
    memory = Memory.blank(len(rows.base_mmr))
    for number, at in enumerate(ticks):
        decisions = slice(int(edges[number]), int(edges[number + 1]))
        own = forecasts.contract_of[decisions]
        latest[:, own] = forecasts.wanted[:, decisions]
        latest_at[own] = at
        chain = None
        never = np.isnan(memory.limited)
        if publishes[number]:
            fresh = at - latest_at <= np.timedelta64(max_data_age)
            usable = np.where(fresh, latest, np.nan).ravel()
            inputs = inputs_at(at, np.tile(usable, rows.tiers), rows, references)
            memory, chain = advance(memory, inputs, at, policy, under=rows.under)
        yield Moment(at, decisions, chain, memory, never & ~np.isnan(memory.limited))


def inputs_at(
    at: np.datetime64, forecast: FloatArray, rows: Rows, references: References | None
) -> Inputs:
    """Return what margins are made of at one moment; ``forecast`` has shape (k,)."""
    if references is None:
        unknown = np.full(len(forecast), np.nan)
        return Inputs(forecast, rows.cost, rows.base_mmr, unknown, unknown)
    place = int(references.at(np.array([at]))[0])
    long_run = np.tile(references.long_run[place], rows.tiers)
    stressed = np.tile(references.stressed[place], rows.tiers)
    return Inputs(forecast, rows.cost, rows.base_mmr, long_run, stressed)


def first_of_periods(ticks: Times, every: timedelta) -> BoolArray:
    """Return which of some increasing moments are the first of their period, shape (n,)."""
    period = ticks.astype("datetime64[us]").astype(np.int64) // (every // timedelta(microseconds=1))
    return np.append(True, np.diff(period) != 0)[: len(ticks)]
