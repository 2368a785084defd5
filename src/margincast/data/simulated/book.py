"""Simulated order books: what closing a position in the simulated market would cost.

Spreads widen and depth thins as volatility rises, and lean after the last move. Books depend only
on what is known at their time and on noise of their own: given the latent state they say nothing
more about later prices, so the oracle that knows the state stays exact.
"""

import math

import numpy as np
import polars as pl
from scipy.signal import lfilter

from margincast.core.types import FloatArray
from margincast.core.units import BPS
from margincast.data.simulated.contracts import ContractParameters
from margincast.data.simulated.process import DEPTH_ELASTICITY
from margincast.data.simulated.ticks import (
    MINUTE_MICROSECONDS,
    ContractPath,
    IntArray,
    usd_of_ticks,
    utc_timestamps,
)

BOOK_LEVELS = 10
MINIMUM_PRICE_TICKS = 1_000
"""Below this price the grid is too coarse for ten levels inside the widest spread."""

SPREAD_ELASTICITY = 0.8
MAXIMUM_SPREAD = 0.05

# The shape of a calm book and how it answers to volatility. Chosen, not fitted: with elasticities
# near one, tenfold volatility takes about nine tenths of the depth.
_LEVEL_GAP_IN_SPREADS = 0.3
_DEPTH_GROWTH_PER_LEVEL = 0.35
_SPREAD_NOISE = 0.25
_DEPTH_NOISE = 0.35
_LEVEL_NOISE = 0.4
_NOISE_HALF_LIFE_MINUTES = 10.0
_LEAN_ON_RETURN = 0.4
_LEAN_NOISE = 0.3


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
    spread = calm_spread * np.exp(SPREAD_ELASTICITY * stress + spread_noise)
    spread_in_ticks = np.minimum(spread, MAXIMUM_SPREAD) * close_ticks
    spread_ticks = np.maximum(1, np.rint(spread_in_ticks)).astype(np.int64)
    best_bid = close_ticks - (spread_ticks + 1) // 2
    best_ask = best_bid + spread_ticks

    depth_usd = contract.depth_usd * np.exp(-DEPTH_ELASTICITY * stress + depth_noise)
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
