"""The simulated market: the embedded default on which a margin can be computed without any data.

One call draws bars, books, trades and funding of several contracts as canonical tables, together
with the latent volatility from which :mod:`margincast.data.oracle` computes the true quantile
that a margin forecast should have found.
"""

import uuid
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import polars as pl

from margincast.core.errors import InputError
from margincast.core.types import FloatArray
from margincast.data.simulated_book import (
    MINIMUM_PRICE_TICKS,
    MINUTE_MICROSECONDS,
    ContractPath,
    Trades,
    simulate_book,
    simulate_trades,
    trades_table,
    usd_of_ticks,
    utc_timestamps,
)
from margincast.data.simulated_parameters import ContractParameters, MarketParameters
from margincast.data.simulated_process import (
    MINUTES_PER_DAY,
    SimulatedPaths,
    simulate_paths,
    stationary_state,
)

FUNDING_HOURS = 8
_FUNDING_BASE = 1e-4
_FUNDING_PER_RETURN = 0.005
_FUNDING_NOISE = 5e-5
_FUNDING_CAP = 0.0075
_TABLES = ("bars", "book", "trades", "funding")
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


@dataclass(frozen=True)
class SimulatedMarket:
    """A simulated market as canonical tables, each sorted by contract, then time.

    Attributes:
        parameters: the law it was drawn from.
        bars: one-minute bars; ``ts`` is the open. Prices are those of the mid price on the tick
            grid; volumes and counts are those of ``trades``.
        book: one ten-level snapshot for each minute; ``ts`` is the minute's end.
        trades: every trade, with the aggressor's side.
        funding: ``funding_rate`` every eight hours, a fraction of notional.
        state: latent state at each bar's close, for the oracle only: ``symbol``, ``ts`` (the
            close, a decision time), ``log_price``, ``slow_common``, ``fast_common``, ``slow_own``,
            ``fast_own`` (parts of log-volatility) and ``minute_volatility`` (per square root of a
            minute, in force in the minute that opens at ``ts``).
    """

    parameters: MarketParameters
    bars: pl.DataFrame
    book: pl.DataFrame
    trades: pl.DataFrame
    funding: pl.DataFrame
    state: pl.DataFrame


def simulate_market(
    parameters: MarketParameters, *, days: int, seed: int, start: datetime
) -> SimulatedMarket:
    """Draw a market; the same arguments give identical tables.

    Args:
        parameters: the law of the market and its contracts.
        days: length, whole days, at least 1.
        seed: seed of the random numbers, zero or more.
        start: open of the first bar, with a time zone, on a whole minute.

    Returns:
        The market's tables and its latent state.

    Raises:
        InputError: an argument is out of range, or a price fell so low that its tick is too
            coarse for a book.
    """
    _require_arguments(days, seed, start)
    first_minute = (start - _EPOCH) // timedelta(minutes=1)
    contracts = parameters.contracts
    # One stream a table, so that a change to books or funding leaves prices as they were.
    streams = np.random.SeedSequence(seed).spawn(4)
    price_stream, book_stream, trade_stream, funding_stream = map(np.random.default_rng, streams)
    paths = simulate_paths(
        parameters,
        contracts,
        stationary_state(parameters, contracts, 1, price_stream),
        first_minute=first_minute,
        minute_count=days * MINUTES_PER_DAY,
        generator=price_stream,
    )
    bars, book, trades, funding, state = [], [], [], [], []
    for index, contract in enumerate(contracts):
        path = _contract_path(paths, index, contract, first_minute)
        contract_trades = simulate_trades(path, trade_stream)
        contract_bars = _bars(path, contract_trades)
        bars.append(contract_bars)
        book.append(simulate_book(path, book_stream))
        trades.append(trades_table(contract.symbol, contract_trades))
        funding.append(_funding(contract_bars, funding_stream))
        state.append(_state(paths, index, contract, first_minute))
    return SimulatedMarket(
        parameters,
        pl.concat(bars),
        pl.concat(book),
        pl.concat(trades),
        pl.concat(funding),
        pl.concat(state),
    )


def write_market(market: SimulatedMarket, directory: Path) -> list[Path]:
    """Write ``bars``, ``book``, ``trades`` and ``funding`` as one Parquet file a contract.

    A file appears under its name only when it is complete. The latent state is not written: no
    real market publishes it.

    Args:
        market: the market.
        directory: where the folders ``bars/``, ``book/``, ``trades/`` and ``funding/`` go; created
            when absent.

    Returns:
        The files written, ``<directory>/<table>/<symbol>.parquet``.

    Raises:
        InputError: the directory cannot be written.
    """
    written = []
    for table in _TABLES:
        frame: pl.DataFrame = getattr(market, table)
        for contract in market.parameters.contracts:
            target = directory / table / f"{contract.symbol}.parquet"
            _write_parquet(frame.filter(pl.col("symbol") == contract.symbol), target)
            written.append(target)
    return written


def grid_ticks(log_price: FloatArray, contract: ContractParameters) -> FloatArray:
    """Return log prices as whole ticks of the contract, as float64 (any shape).

    Bars and oracle both come through here, so that rounding is the same in both.
    """
    ticks: FloatArray = np.rint(np.exp(log_price) / contract.tick_size_usd)
    return ticks


def _require_arguments(days: int, seed: int, start: datetime) -> None:
    if days < 1:
        raise InputError(f"a simulated market needs at least 1 day, found {days}")
    if seed < 0:
        raise InputError(f"the seed of a simulated market must be zero or more, found {seed}")
    if start.tzinfo is None:
        raise InputError(
            f"the start of a simulated market needs a time zone, found {start.isoformat()}; "
            f"write {start.isoformat()}+00:00 for UTC"
        )
    if (start - _EPOCH) % timedelta(minutes=1):
        raise InputError(
            f"the start of a simulated market must lie on a whole minute, found {start.isoformat()}"
        )


def _contract_path(
    paths: SimulatedPaths, index: int, contract: ContractParameters, first_minute: int
) -> ContractPath:
    log_price = np.log(contract.start_price_usd) + paths.log_moves[0, index]
    points = grid_ticks(log_price, contract)
    first = grid_ticks(np.log(np.array([contract.start_price_usd])), contract)
    opens = np.concatenate([first, points[:-1, -1]])
    ticks = np.concatenate([opens[:, np.newaxis], points], axis=1)
    if ticks.min() < MINIMUM_PRICE_TICKS:
        raise InputError(
            f"the simulated price of {contract.symbol} fell to {ticks.min():.0f} ticks of "
            f"{contract.tick_size_usd:g} USD, and a ten-level book needs {MINIMUM_PRICE_TICKS}; "
            "take a smaller tick_size_usd, a higher start_price_usd, fewer days or another seed"
        )
    return ContractPath(contract, first_minute, ticks.astype(np.int64), paths.volatility[0, index])


def _bars(path: ContractPath, trades: Trades) -> pl.DataFrame:
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


def _funding(bars: pl.DataFrame, generator: np.random.Generator) -> pl.DataFrame:
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


def _state(
    paths: SimulatedPaths, index: int, contract: ContractParameters, first_minute: int
) -> pl.DataFrame:
    log_price = np.log(contract.start_price_usd) + paths.log_moves[0, index, :, -1]
    closes = (first_minute + 1 + np.arange(len(log_price))) * MINUTE_MICROSECONDS
    return pl.DataFrame(
        {
            "ts": utc_timestamps(closes),
            "log_price": log_price,
            "slow_common": paths.state.slow_common[0, 0, 1:],
            "fast_common": paths.state.fast_common[0, 0, 1:],
            "slow_own": paths.state.slow_own[0, index, 1:],
            "fast_own": paths.state.fast_own[0, index, 1:],
            "minute_volatility": paths.volatility[0, index, 1:],
        }
    ).select(pl.lit(contract.symbol).alias("symbol"), pl.all())


def _write_parquet(frame: pl.DataFrame, target: Path) -> None:
    # The temporary name has another suffix: a reader that lists *.parquet never sees it.
    temporary = target.with_name(f".{target.name}.{uuid.uuid4().hex}.part")
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        try:
            frame.write_parquet(temporary, compression="zstd")
            temporary.replace(target)
        finally:
            temporary.unlink(missing_ok=True)
    except OSError as error:
        raise InputError(
            f"cannot write {target}: {error}; choose a directory that can be written"
        ) from error
