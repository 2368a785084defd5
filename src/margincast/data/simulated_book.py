"""Simulated order books and trades: what closing a position in the simulated market would cost.

Spreads widen and depth thins as volatility rises, and lean after the last move. Books and trades
depend only on what is known at their time and on noise of their own: given the latent volatility
they say nothing more about later prices, so the oracle that knows the volatility stays exact.
"""

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import polars as pl
from scipy.signal import lfilter

from margincast.core.types import FloatArray
from margincast.core.units import BPS
from margincast.data.simulated_parameters import ContractParameters

BOOK_LEVELS = 10
MINIMUM_PRICE_TICKS = 1_000
"""Below this price the grid is too coarse for ten levels inside the widest spread."""

MINUTE_MICROSECONDS = 60_000_000
_PRICE_DECIMALS = 10

# The shape of a calm book and how it answers to volatility. Chosen, not fitted: with elasticities
# near one, tenfold volatility takes about nine tenths of the depth.
_SPREAD_ELASTICITY = 0.8
_DEPTH_ELASTICITY = 1.0
_MAXIMUM_SPREAD = 0.05
_LEVEL_GAP_IN_SPREADS = 0.3
_DEPTH_GROWTH_PER_LEVEL = 0.35
_SPREAD_NOISE = 0.25
_DEPTH_NOISE = 0.35
_LEVEL_NOISE = 0.4
_NOISE_HALF_LIFE_MINUTES = 10.0
_LEAN_ON_RETURN = 0.4
_LEAN_NOISE = 0.3
_TRADE_COUNT_ELASTICITY = 0.7
_MAXIMUM_ACTIVITY = 20.0
_BUY_LOGIT_PER_SIGMA = 1.2
_TRADE_SIZE_DEVIATION = 1.0

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


@dataclass(frozen=True)
class Trades:
    """Trades of one contract in time order, each array of shape (trades,).

    Attributes:
        minute: index of the minute in the path.
        microsecond: time since 1970-01-01 UTC, microseconds.
        price_usd: price, USD.
        size: contracts of the underlying.
        is_buy: whether the aggressor bought.
    """

    minute: IntArray
    microsecond: IntArray
    price_usd: FloatArray
    size: FloatArray
    is_buy: npt.NDArray[np.bool_]


def usd_of_ticks(ticks: npt.NDArray[np.int64] | FloatArray, tick_size_usd: float) -> FloatArray:
    """Return prices in USD, the decimal number nearest to a whole number of ticks."""
    prices: FloatArray = np.round(ticks * tick_size_usd, _PRICE_DECIMALS)
    return prices


def utc_timestamps(microsecond: IntArray) -> pl.Series:
    """Return microseconds since 1970-01-01 UTC, shape (rows,), as a UTC time column ``ts``."""
    return pl.Series("ts", microsecond).cast(pl.Datetime("us", "UTC"))


def simulate_book(path: ContractPath, generator: np.random.Generator) -> pl.DataFrame:
    """Draw one ten-level snapshot for each minute, as it stands at the minute's end.

    Args:
        path: the contract's price and volatility.
        generator: the source of randomness.

    Returns:
        The canonical ``book`` table; ``ts`` is the end of the minute, the time of the snapshot.
        Prices are whole ticks, strictly ordered, never locked or crossed; sizes are positive.
    """
    contract = path.contract
    close_ticks = path.ticks[:, -1]
    last_return = path.log_returns
    next_volatility = path.volatility[1:]
    stress = _log_stress(contract, next_volatility, last_return)

    spread_noise = _SPREAD_NOISE * _persistent_noise(path.minute_count, generator)
    depth_noise = _DEPTH_NOISE * _persistent_noise(path.minute_count, generator)
    lean_noise = _LEAN_NOISE * _persistent_noise(path.minute_count, generator)

    calm_spread = contract.spread_bps * BPS
    spread = calm_spread * np.exp(_SPREAD_ELASTICITY * stress + spread_noise)
    spread_in_ticks = np.minimum(spread, _MAXIMUM_SPREAD) * close_ticks
    spread_ticks = np.maximum(1, np.rint(spread_in_ticks)).astype(np.int64)
    best_bid = close_ticks - (spread_ticks + 1) // 2
    best_ask = best_bid + spread_ticks

    depth_usd = contract.depth_usd * np.exp(-_DEPTH_ELASTICITY * stress + depth_noise)
    lean = _LEAN_ON_RETURN * np.tanh(last_return / path.volatility[:-1]) + lean_noise
    profile = 1.0 + _DEPTH_GROWTH_PER_LEVEL * np.arange(BOOK_LEVELS)
    gap_mean = _LEVEL_GAP_IN_SPREADS * spread_in_ticks

    end = _end_of_minutes(path)
    columns: dict[str, pl.Series | FloatArray] = {"ts": utc_timestamps(end)}
    for side, best, direction in (("bid", best_bid, -1), ("ask", best_ask, 1)):
        gaps = 1 + generator.poisson(gap_mean, size=(BOOK_LEVELS - 1, path.minute_count))
        offsets = np.concatenate([np.zeros_like(best)[np.newaxis], gaps.cumsum(axis=0)])
        prices = usd_of_ticks(best + direction * offsets, contract.tick_size_usd)
        noise = generator.standard_normal((BOOK_LEVELS, path.minute_count))
        side_depth_usd = depth_usd * np.exp(-direction * lean)
        notionals = side_depth_usd * profile[:, np.newaxis] * np.exp(_LEVEL_NOISE * noise)
        sizes = notionals / prices
        columns |= {f"{side}_price_{level}": prices[level] for level in range(BOOK_LEVELS)}
        columns |= {f"{side}_size_{level}": sizes[level] for level in range(BOOK_LEVELS)}
    return pl.DataFrame(columns).select(
        pl.lit(contract.symbol).alias("symbol"),
        "ts",
        *(
            f"{side}_{field}_{level}"
            for side in ("bid", "ask")
            for field in ("price", "size")
            for level in range(BOOK_LEVELS)
        ),
    )


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
    spread = np.minimum(contract.spread_bps * BPS * relative**_SPREAD_ELASTICITY, _MAXIMUM_SPREAD)
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


def trades_table(symbol: str, trades: Trades) -> pl.DataFrame:
    """Return the canonical ``trades`` table of one contract."""
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


def _log_stress(
    contract: ContractParameters, volatility: FloatArray, last_return: FloatArray
) -> FloatArray:
    """Return log of volatility ahead and last move together, near zero in an ordinary minute."""
    stress: FloatArray = np.log(
        np.hypot(volatility, last_return) / (math.sqrt(2.0) * contract.minute_volatility)
    )
    return stress


def _persistent_noise(minute_count: int, generator: np.random.Generator) -> FloatArray:
    """Draw a first-order autoregression with unit variance and a half-life of some minutes."""
    decay = 0.5 ** (1.0 / _NOISE_HALF_LIFE_MINUTES)
    shocks = generator.standard_normal(minute_count)
    shocks[1:] *= math.sqrt(1.0 - decay**2)
    noise: FloatArray = lfilter([1.0], [1.0, -decay], shocks)
    return noise


def _end_of_minutes(path: ContractPath) -> IntArray:
    ends: IntArray = (path.first_minute + 1 + np.arange(path.minute_count)) * MINUTE_MICROSECONDS
    return ends
