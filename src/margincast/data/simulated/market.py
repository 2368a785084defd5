"""The simulated market: the embedded default on which a margin can be computed without any data.

One call draws bars, books, trades, funding, open interest and liquidations of several contracts as
canonical tables, together with the latent state from which
:mod:`margincast.data.simulated.oracle` computes the true quantile that a margin forecast should
have found.
"""

import uuid
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

import numpy as np
import polars as pl

from margincast.core.errors import InputError
from margincast.data.simulated.book import MINIMUM_PRICE_TICKS, simulate_book
from margincast.data.simulated.contracts import ContractParameters, minute_of, on_whole_minute
from margincast.data.simulated.parameters import MarketParameters
from margincast.data.simulated.process import SimulatedPaths, burnt_in_state, simulate_paths
from margincast.data.simulated.tables import (
    bars_table,
    funding_table,
    open_interest_table,
    stale_bars,
    state_table,
)
from margincast.data.simulated.ticks import ContractPath, grid_ticks
from margincast.data.simulated.trades import (
    Trades,
    liquidation_trades,
    merged,
    simulate_trades,
    trades_table,
)
from margincast.data.simulated.volatility import MINUTES_PER_DAY

TABLES = ("bars", "book", "trades", "funding", "open_interest", "liquidations")
"""Names of the published tables, which are also those of their folders."""


@dataclass(frozen=True)
class SimulatedMarket:
    """A simulated market as canonical tables, each sorted by contract, then time.

    Attributes:
        parameters: the law it was drawn from.
        bars: one-minute bars; ``ts`` is the open. Prices are those of the mid price on the tick
            grid; volumes and counts are those of ``trades``.
        book: one ten-level snapshot for each minute; ``ts`` is the minute's end.
        trades: every trade, with the aggressor's side; liquidation orders are among them.
        funding: ``funding_rate`` every eight hours, a fraction of notional.
        open_interest: ``open_interest`` (contracts) and ``open_interest_usd`` every five minutes.
        liquidations: ``price``, ``size`` (contracts) and ``side`` of every liquidation order; a
            sell closes a long.
        state: latent state at each bar's close, for the oracle only: ``symbol``, ``ts`` (the
            close, a decision time), ``log_price``, the parts of log-volatility (``regime``,
            ``slow_common``, ``fast_common``, ``slow_own``, ``fast_own``), ``common_excitation`` and
            ``own_excitation`` (jump intensity above the baseline, per minute), ``pressure`` (part
            of the log price that liquidations left), positions by leverage class (``long_size``,
            ``short_size`` in contracts; ``long_edge``, ``short_edge``, logs of the nearest
            liquidation price) and ``minute_volatility`` (per square root of a minute, in force in
            the minute that opens at ``ts``).
    """

    parameters: MarketParameters
    bars: pl.DataFrame
    book: pl.DataFrame
    trades: pl.DataFrame
    funding: pl.DataFrame
    open_interest: pl.DataFrame
    liquidations: pl.DataFrame
    state: pl.DataFrame

    @property
    def tables(self) -> dict[str, pl.DataFrame]:
        """The published tables by name; the latent state is not among them."""
        return {name: getattr(self, name) for name in TABLES}


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
        InputError: an argument is out of range, a contract is never listed in these days, or a
            price fell so low that its tick is too coarse for a book.
    """
    _require_arguments(days, seed, start)
    first_minute = minute_of(start)
    minute_count = days * MINUTES_PER_DAY
    contracts = parameters.contracts
    spans = [_listed_span(contract, first_minute, minute_count) for contract in contracts]
    # One stream a table, so that a change to books or funding leaves prices as they were.
    streams = np.random.SeedSequence(seed).spawn(4)
    price_stream, book_stream, trade_stream, funding_stream = map(np.random.default_rng, streams)
    paths = simulate_paths(
        parameters,
        contracts,
        burnt_in_state(parameters, contracts, first_minute=first_minute, generator=price_stream),
        first_minute=first_minute,
        minute_count=minute_count,
        generator=price_stream,
        keep=True,
    )
    hedged_share = 1.0 - sum(each.share for each in parameters.leverage_classes)
    parts: dict[str, list[pl.DataFrame]] = {name: [] for name in (*TABLES, "state")}
    for index, (contract, (listed, delisted)) in enumerate(zip(contracts, spans, strict=True)):
        path = _contract_path(paths, index, contract, first_minute, span=(listed, delisted))
        orders = _orders(paths, index, path, listed)
        trades = merged(simulate_trades(path, trade_stream), orders)
        bars = bars_table(path, trades)
        state = state_table(paths, index, contract, first_minute)[listed:delisted]
        parts["funding"].append(funding_table(bars, funding_stream))
        parts["book"].append(simulate_book(path, book_stream))
        parts["trades"].append(trades_table(contract.symbol, trades))
        parts["liquidations"].append(trades_table(contract.symbol, orders))
        parts["open_interest"].append(open_interest_table(state, contract, hedged_share))
        parts["state"].append(state)
        if contract.stale_after_delisting and delisted < minute_count:
            bars = pl.concat([bars, stale_bars(bars, minute_count - delisted)])
        parts["bars"].append(bars)
    return SimulatedMarket(parameters, **{name: pl.concat(each) for name, each in parts.items()})


def write_market(market: SimulatedMarket, directory: Path) -> list[Path]:
    """Write the published tables as one Parquet file a contract.

    A file appears under its name only when it is complete. The latent state is not written: no
    real market publishes it.

    Args:
        market: the market.
        directory: where the folders ``bars/``, ``book/`` and so on go; created when absent.

    Returns:
        The files written, ``<directory>/<table>/<symbol>.parquet``.

    Raises:
        InputError: the directory cannot be written.
    """
    return write_tables(market.tables, directory)


def write_tables(tables: Mapping[str, pl.DataFrame], directory: Path) -> list[Path]:
    """Write tables with a column ``symbol`` as one Parquet file a contract, rows as they stand.

    Args:
        tables: the tables by name.
        directory: where a folder for each table goes; created when absent.

    Returns:
        The files written, ``<directory>/<table>/<symbol>.parquet``.

    Raises:
        InputError: the directory cannot be written.
    """
    symbols = {
        str(symbol): None
        for frame in tables.values()
        for symbol in frame["symbol"].unique(maintain_order=True)
    }
    written = []
    for table, frame in tables.items():
        for symbol in symbols:
            target = directory / table / f"{symbol}.parquet"
            write_parquet(frame.filter(pl.col("symbol") == symbol), target)
            written.append(target)
    return written


def write_parquet(frame: pl.DataFrame, target: Path) -> None:
    """Write one file that appears under its name only when it is complete.

    Raises:
        InputError: it cannot be written.
    """
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
    if not on_whole_minute(start):
        raise InputError(
            f"the start of a simulated market must lie on a whole minute, found {start.isoformat()}"
        )


def _listed_span(
    contract: ContractParameters, first_minute: int, minute_count: int
) -> tuple[int, int]:
    """Return the first minute in which the contract trades and the one after the last."""
    begin, end = 0, minute_count
    if contract.listed_at is not None:
        begin = max(begin, minute_of(contract.listed_at) - first_minute)
    if contract.delisted_at is not None:
        end = min(end, minute_of(contract.delisted_at) - first_minute)
    if begin >= end:
        raise InputError(
            f"{contract.symbol} does not trade on any of the simulated days: it is listed at "
            f"{contract.listed_at} and delisted at {contract.delisted_at}; "
            "take other days, or leave the contract out"
        )
    return begin, end


def _contract_path(
    paths: SimulatedPaths,
    index: int,
    contract: ContractParameters,
    first_minute: int,
    *,
    span: tuple[int, int],
) -> ContractPath:
    listed, delisted = span
    points = grid_ticks(paths.log_price[0, index, listed:delisted], contract)
    first = grid_ticks(np.log(np.array([contract.start_price_usd])), contract)
    opens = np.concatenate([first, points[:-1, -1]])
    ticks = np.concatenate([opens[:, np.newaxis], points], axis=1)
    if ticks.min() < MINIMUM_PRICE_TICKS:
        raise InputError(
            f"the simulated price of {contract.symbol} fell to {ticks.min():.0f} ticks of "
            f"{contract.tick_size_usd:g} USD, and a ten-level book needs {MINIMUM_PRICE_TICKS}; "
            "take a smaller tick_size_usd, a higher start_price_usd, fewer days or another seed"
        )
    volatility = paths.volatility[0, index, listed : delisted + 1]
    return ContractPath(contract, first_minute + listed, ticks.astype(np.int64), volatility)


def _orders(paths: SimulatedPaths, index: int, path: ContractPath, listed: int) -> Trades:
    """Return the contract's liquidation orders while it traded."""
    found = paths.liquidations
    minute = found.minute - listed
    own = (found.row == index) & (minute >= 0) & (minute < path.minute_count)
    return liquidation_trades(
        path, minute[own], found.substep[own], found.is_sell[own], found.size[own]
    )
