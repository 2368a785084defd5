"""Canonical tables of the simulated market, one contract at a time: what its venue would publish.

Features and targets of the embedded default are computed from these, hence its margin.
"""

from datetime import timedelta

import numpy as np
import polars as pl

from margincast.core.types import FloatArray
from margincast.data.simulated.contracts import ContractParameters
from margincast.data.simulated.process import SimulatedPaths
from margincast.data.simulated.ticks import (
    MINUTE_MICROSECONDS,
    ContractPath,
    usd_of_ticks,
    utc_timestamps,
)
from margincast.data.simulated.trades import Trades

FUNDING_HOURS = 8
OPEN_INTEREST_MINUTES = 5
_FUNDING_BASE = 1e-4
_FUNDING_PER_RETURN = 0.005
_FUNDING_NOISE = 5e-5
_FUNDING_CAP = 0.0075


def bars_table(path: ContractPath, trades: Trades) -> pl.DataFrame:
    """Return one-minute bars of a path and of the trades within it."""
    contract, count = path.contract, path.minute_count
    prices = usd_of_ticks(path.ticks, contract.tick_size_usd)
    notional = trades.price_usd * trades.size

    def total(weights: FloatArray) -> FloatArray:
        return np.bincount(trades.minute, weights=weights, minlength=count).astype(np.float64)

    opens = (path.first_minute + np.arange(count)) * MINUTE_MICROSECONDS
    return pl.DataFrame(
        {
            "ts": utc_timestamps(opens),
            "open": prices[:, 0],
            "high": prices.max(axis=1),
            "low": prices.min(axis=1),
            "close": prices[:, -1],
            "volume": total(trades.size),
            "quote_volume": total(notional),
            "trade_count": np.bincount(trades.minute, minlength=count),
            "taker_buy_volume": total(np.where(trades.is_buy, trades.size, 0.0)),
        }
    ).select(pl.lit(contract.symbol).alias("symbol"), pl.all())


def stale_bars(bars: pl.DataFrame, minute_count: int) -> pl.DataFrame:
    """Return what an archive writes after a delisting: bars at the last close, without volume."""
    last = bars.row(-1, named=True)
    after = pl.datetime_range(
        last["ts"] + timedelta(minutes=1),
        last["ts"] + timedelta(minutes=minute_count),
        "1m",
        time_unit="us",
        eager=True,
    )
    price, zero = pl.lit(last["close"]), pl.lit(0.0)
    return pl.DataFrame({"ts": after}).select(
        pl.lit(last["symbol"]).alias("symbol"),
        "ts",
        *(price.alias(name) for name in ("open", "high", "low", "close")),
        *(zero.alias(name) for name in ("volume", "quote_volume")),
        pl.lit(0, pl.Int64).alias("trade_count"),
        zero.alias("taker_buy_volume"),
    )


def funding_table(bars: pl.DataFrame, generator: np.random.Generator) -> pl.DataFrame:
    """Draw funding at 00:00, 08:00 and 16:00 UTC, from the return of the eight hours before."""
    interval = timedelta(hours=FUNDING_HOURS)
    ends = bars.select(
        "symbol",
        (pl.col("ts") + timedelta(minutes=1)).alias("ts"),
        past_return=pl.col("close") / pl.col("open").shift(FUNDING_HOURS * 60 - 1) - 1.0,
    ).filter(
        pl.col("ts") == pl.col("ts").dt.truncate(interval), pl.col("past_return").is_not_null()
    )
    noise = _FUNDING_NOISE * generator.standard_normal(len(ends))
    rate = _FUNDING_BASE + _FUNDING_PER_RETURN * ends["past_return"].to_numpy() + noise
    clipped = np.clip(rate, -_FUNDING_CAP, _FUNDING_CAP)
    return ends.select("symbol", "ts", pl.Series("funding_rate", clipped))


def state_table(
    paths: SimulatedPaths, index: int, contract: ContractParameters, first_minute: int
) -> pl.DataFrame:
    """Return the latent state of one contract at the close of each minute of the only path."""
    states, positions = paths.states, paths.states.positions
    volatility = states.volatility
    log_price = states.log_price[0, index, 1:]
    closes = (first_minute + 1 + np.arange(len(log_price))) * MINUTE_MICROSECONDS
    return pl.DataFrame(
        {
            "ts": utc_timestamps(closes),
            "log_price": log_price,
            "regime": volatility.regime[0, 0, 1:],
            "slow_common": volatility.slow_common[0, 0, 1:],
            "fast_common": volatility.fast_common[0, 0, 1:],
            "slow_own": volatility.slow_own[0, index, 1:],
            "fast_own": volatility.fast_own[0, index, 1:],
            "common_excitation": states.common_excitation[0, 0, 1:],
            "own_excitation": states.own_excitation[0, index, 1:],
            "pressure": positions.pressure[index, 1:],
            "long_size": _array(positions.size[index, 0, :, 1:]),
            "long_edge": _array(positions.edge[index, 0, :, 1:]),
            "short_size": _array(positions.size[index, 1, :, 1:]),
            "short_edge": _array(positions.edge[index, 1, :, 1:]),
            "minute_volatility": paths.volatility[0, index, 1:],
        }
    ).select(pl.lit(contract.symbol).alias("symbol"), pl.all())


def open_interest_table(
    state: pl.DataFrame, contract: ContractParameters, hedged_share: float
) -> pl.DataFrame:
    """Return open interest every five minutes: hedged positions and all leveraged ones.

    Each leveraged position has a hedged or unlevered one against it, which a liquidation closes
    as well: so open interest is a constant plus the leveraged positions of both sides.

    Args:
        state: the contract's latent state, for its positions.
        contract: the contract.
        hedged_share: the constant, as a share of the contract's open interest.

    Returns:
        ``symbol``, ``ts``, ``open_interest`` (contracts of the underlying) and
        ``open_interest_usd``; ``ts`` is the time at which it is so.
    """
    hedged = hedged_share * contract.open_interest_usd / contract.start_price_usd
    return (
        state.filter(pl.col("ts") == pl.col("ts").dt.truncate(f"{OPEN_INTEREST_MINUTES}m"))
        .select(
            "symbol",
            "ts",
            open_interest=hedged
            + pl.col("long_size").arr.sum().cast(pl.Float64)
            + pl.col("short_size").arr.sum().cast(pl.Float64),
            price=pl.col("log_price").exp(),
        )
        .select(
            "symbol",
            "ts",
            "open_interest",
            open_interest_usd=pl.col("open_interest") * pl.col("price"),
        )
    )


def _array(values: FloatArray) -> pl.Series:
    """Return values of shape (classes, minutes) as a column with one array a minute."""
    return pl.Series(np.ascontiguousarray(values.T), dtype=pl.Array(pl.Float64, len(values)))
