"""``margincast data simulate``: write a simulated market to work on, and on request its truth."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import datetime
from pathlib import Path

import polars as pl

from margincast.core.errors import InputError, did_you_mean
from margincast.data.simulated.feed_faults import faults_table, inject_faults
from margincast.data.simulated.market import (
    SimulatedMarket,
    simulate_market,
    write_parquet,
    write_tables,
)
from margincast.data.simulated.parameters import (
    ContractParameters,
    MarketParameters,
    select_contracts,
)
from margincast.jobs.console import say

TRUTH = "_truth"
"""Folder of what no market publishes; an ingest passes over names that begin like this."""


def run(
    out: Path,
    *,
    contracts: Sequence[str],
    days: int,
    seed: int,
    start: datetime,
    faults: int = 0,
    truth: bool = False,
    listed_at: Mapping[str, datetime] | None = None,
    delisted_at: Mapping[str, datetime] | None = None,
) -> Path:
    """Write the canonical tables of a simulated market as ``<out>/<table>/<symbol>.parquet``.

    Args:
        out: folder to write to; created when absent, and empty otherwise.
        contracts: names of the simulated contracts.
        days: length, whole days.
        seed: seed of the random numbers, of the market and of the faults.
        start: open of the first bar.
        faults: faults put into each feed; ``_truth/faults.parquet`` lists them.
        truth: whether to write the latent state, the oracle's input, to ``_truth/state/``.
        listed_at: when some of the contracts start to trade.
        delisted_at: when trading of some ends; their bars go on without volume.

    Returns:
        The folder.

    Raises:
        InputError: an argument is out of range, or the folder holds something or cannot be
            written.
    """
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise InputError(
            f"{out} is no empty folder; a market is written whole: choose another one with --out"
        )
    if faults < 0:
        raise InputError(f"faults must be zero or more, found {faults}")
    listings, delistings = listed_at or {}, delisted_at or {}
    for name in (*listings, *delistings):
        if name not in contracts:
            raise InputError(
                f"{name} has a day of listing or delisting but is not simulated"
                f"{did_you_mean(name, contracts)}; simulated are {', '.join(contracts)}"
            )
    chosen: tuple[ContractParameters, ...] = tuple(
        replace(
            contract,
            listed_at=listings.get(contract.symbol),
            delisted_at=delistings.get(contract.symbol),
            stale_after_delisting=True,
        )
        for contract in select_contracts(contracts)
    )
    say(f"simulating {days} days of {', '.join(contracts)} (seed {seed})")
    market = simulate_market(MarketParameters(contracts=chosen), days=days, seed=seed, start=start)
    tables, injected = inject_faults(market.tables, faults_per_feed=faults, seed=seed)
    write_tables(tables, out)
    if truth:
        write_tables({"state": market.state}, out / TRUTH)
    if faults:
        write_parquet(faults_table(injected), out / TRUTH / "faults.parquet")
    for line in summary(market):
        say(line)
    if faults:
        say(f"{len(injected)} faults injected, listed in {out / TRUTH / 'faults.parquet'}")
    say(f"written to {out}")
    return out


def summary(market: SimulatedMarket) -> list[str]:
    """Say in one line a contract how much there is, how far prices went and what was liquidated."""
    lines = []
    for contract in market.parameters.contracts:
        own = pl.col("symbol") == contract.symbol
        bars, orders = market.bars.filter(own), market.liquidations.filter(own)
        lowest, highest = bars["low"].to_numpy().min(), bars["high"].to_numpy().max()
        liquidated = (orders["price"] * orders["size"]).sum()
        lines.append(
            f"{contract.symbol}: {len(bars):,} bars, {len(market.trades.filter(own)):,} trades, "
            f"price {lowest:,.6g} to {highest:,.6g} USD, "
            f"{len(orders):,} liquidation orders of {liquidated:,.0f} USD"
        )
    return lines
