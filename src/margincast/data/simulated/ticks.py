"""Published prices of the simulated market: whole ticks, from which excursions are measured."""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import polars as pl

from margincast.core.types import FloatArray
from margincast.data.simulated.contracts import ContractParameters

MINUTE_MICROSECONDS = 60_000_000
_PRICE_DECIMALS = 10

IntArray = npt.NDArray[np.int64]


@dataclass(frozen=True)
class ContractPath:
    """What the book and the trades of one contract are conditioned on.

    Attributes:
        contract: the contract.
        first_minute: open of the first minute, in minutes since 1970-01-01 UTC.
        ticks: the price path in ticks, shape (minutes, substeps + 1); column 0 is the open.
        volatility: per square root of a minute, shape (minutes + 1,); entry m is in force during
            minute m.
    """

    contract: ContractParameters
    first_minute: int
    ticks: IntArray
    volatility: FloatArray

    @property
    def minute_count(self) -> int:
        """Length of the path, minutes."""
        return len(self.ticks)

    @property
    def log_returns(self) -> FloatArray:
        """Close to open log return of each minute, shape (minutes,)."""
        returns: FloatArray = np.log(self.ticks[:, -1] / self.ticks[:, 0])
        return returns


def grid_ticks(log_price: FloatArray, contract: ContractParameters) -> FloatArray:
    """Return log prices as whole ticks of the contract, as float64 (any shape).

    Bars and oracle both come through here, so that rounding is the same in both.
    """
    ticks: FloatArray = np.rint(np.exp(log_price) / contract.tick_size_usd)
    return ticks


def usd_of_ticks(ticks: npt.NDArray[np.int64] | FloatArray, tick_size_usd: float) -> FloatArray:
    """Return prices in USD, the decimal number nearest to a whole number of ticks."""
    prices: FloatArray = np.round(ticks * tick_size_usd, _PRICE_DECIMALS)
    return prices


def utc_timestamps(microsecond: IntArray) -> pl.Series:
    """Return microseconds since 1970-01-01 UTC, shape (rows,), as a UTC time column ``ts``."""
    return pl.Series("ts", microsecond).cast(pl.Datetime("us", "UTC"))
