"""Simulated trades: the flow that features read, and the liquidation orders among it.

Like books, trades depend only on what is known at their time and on noise of their own. A
liquidation order is a trade too, of the size and at the price the process made it.
"""

from dataclasses import dataclass

import numpy as np
import polars as pl

from margincast.core.types import BoolArray, FloatArray
from margincast.core.units import BPS
from margincast.data.simulated.book import MAXIMUM_SPREAD, SPREAD_ELASTICITY
from margincast.data.simulated.ticks import (
    MINUTE_MICROSECONDS,
    ContractPath,
    IntArray,
    usd_of_ticks,
    utc_timestamps,
)

# Chosen, not fitted.
_TRADE_COUNT_ELASTICITY = 0.7
_MAXIMUM_ACTIVITY = 20.0
_BUY_LOGIT_PER_SIGMA = 1.2
_TRADE_SIZE_DEVIATION = 1.0


@dataclass(frozen=True)
class Trades:
    """Trades of one contract in time order, each array of shape (trades,).

    Attributes:
        minute: index of the minute in the path.
        microsecond: time since 1970-01-01 UTC, microseconds.
        price_usd: price, USD.
        size: contracts of the underlying.
        is_buy: whether the aggressor bought; of a liquidation, the order itself.
    """

    minute: IntArray
    microsecond: IntArray
    price_usd: FloatArray
    size: FloatArray
    is_buy: BoolArray


def simulate_trades(path: ContractPath, generator: np.random.Generator) -> Trades:
    """Draw the trades of each minute: at least one, more when volatile, sided with the return.

    A trade takes place half a spread away from the path's last point, inside the range of its
    minute, so that bars contain their trades.

    Args:
        path: the contract's price and volatility.
        generator: the source of randomness.

    Returns:
        The trades, sorted by time.
    """
    contract = path.contract
    current = path.volatility[:-1]
    relative = current / contract.minute_volatility
    activity = np.minimum(relative**_TRADE_COUNT_ELASTICITY, _MAXIMUM_ACTIVITY)
    counts = 1 + generator.poisson((contract.trades_per_minute - 1.0) * activity)
    minute = np.repeat(np.arange(path.minute_count), counts)
    offset = generator.integers(MINUTE_MICROSECONDS, size=minute.size)
    microsecond = np.sort((path.first_minute + minute) * MINUTE_MICROSECONDS + offset)
    offset = microsecond - (path.first_minute + minute) * MINUTE_MICROSECONDS

    sigmas = np.clip(path.log_returns / current, -5.0, 5.0)
    buy_probability = 1.0 / (1.0 + np.exp(-_BUY_LOGIT_PER_SIGMA * sigmas))
    is_buy = generator.random(minute.size) < buy_probability[minute]

    substeps = path.ticks.shape[1] - 1
    point = path.ticks[minute, offset * substeps // MINUTE_MICROSECONDS]
    spread = np.minimum(contract.spread_bps * BPS * relative**SPREAD_ELASTICITY, MAXIMUM_SPREAD)
    half_spread_ticks = np.rint(0.5 * spread[minute] * point).astype(np.int64)
    ticks = np.clip(
        point + np.where(is_buy, half_spread_ticks, -half_spread_ticks),
        path.ticks.min(axis=1)[minute],
        path.ticks.max(axis=1)[minute],
    )
    price_usd = usd_of_ticks(ticks, contract.tick_size_usd)
    deviation = _TRADE_SIZE_DEVIATION
    noise = deviation * generator.standard_normal(minute.size) - 0.5 * deviation**2
    size = contract.trade_size_usd * activity[minute] * np.exp(noise) / price_usd
    return Trades(minute, microsecond, price_usd, size, is_buy)


def liquidation_trades(
    path: ContractPath, minute: IntArray, substep: IntArray, is_sell: BoolArray, size: FloatArray
) -> Trades:
    """Return a contract's liquidation orders as trades.

    Args:
        path: the contract's price.
        minute: index of each order's minute, shape (orders,), in order of time.
        substep: index of its substep.
        is_sell: whether it closes a long.
        size: contracts of the underlying.

    Returns:
        The trades, in the middle of their substep, at the price they pressed the path to.
    """
    substeps = path.ticks.shape[1] - 1
    offset = (2 * substep + 1) * MINUTE_MICROSECONDS // (2 * substeps)
    microsecond = (path.first_minute + minute) * MINUTE_MICROSECONDS + offset
    price_usd = usd_of_ticks(path.ticks[minute, substep + 1], path.contract.tick_size_usd)
    return Trades(minute, microsecond, price_usd, size, ~is_sell)


def merged(first: Trades, second: Trades) -> Trades:
    """Return both lots of trades in order of time; at one time those of ``first`` come first."""
    microsecond = np.concatenate([first.microsecond, second.microsecond])
    order = np.argsort(microsecond, kind="stable")
    return Trades(
        np.concatenate([first.minute, second.minute])[order],
        microsecond[order],
        np.concatenate([first.price_usd, second.price_usd])[order],
        np.concatenate([first.size, second.size])[order],
        np.concatenate([first.is_buy, second.is_buy])[order],
    )


def trades_table(symbol: str, trades: Trades) -> pl.DataFrame:
    """Return trades of one contract as the columns of ``trades`` and of ``liquidations``."""
    sides = pl.Series(trades.is_buy)
    return pl.DataFrame(
        {
            "ts": utc_timestamps(trades.microsecond),
            "price": trades.price_usd,
            "size": trades.size,
        }
    ).select(
        pl.lit(symbol).alias("symbol"),
        "ts",
        "price",
        "size",
        pl.when(sides).then(pl.lit("buy")).otherwise(pl.lit("sell")).alias("side"),
    )
