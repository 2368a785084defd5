"""From a forecast to the margin of one position, with every step on the way.

Takes a forecast (by default 2.5 %), a snapshot of a simulated order book and the policy
``serving/demo.toml``; prints the margin levels of the contract, the steps behind the tier of the
position, and the position's maintenance margin.

Run: ``python examples/margin_of_a_position.py [--forecast 0.025] [--notional 60000]``
"""

import argparse
import math
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import polars as pl

from margincast.core.types import SIDES
from margincast.data.simulated.market import simulate_market
from margincast.data.simulated.parameters import MarketParameters, select_contracts
from margincast.margin.background import Background
from margincast.margin.explanation import chain_of
from margincast.margin.levels import margin_levels, position_margin_usd
from margincast.margin.liquidation_cost import Book
from margincast.margin.tier_rows import tier_rows
from margincast.specs.loading import load_spec
from margincast.specs.schedule import BaseSchedule
from margincast.specs.serving import MarginPolicy

WORKSPACE = Path(__file__).resolve().parents[1]
BOOK_LEVELS = 10


def main() -> None:
    """Print levels, steps and margin."""
    parser = argparse.ArgumentParser(description="the margin of a position, step by step")
    parser.add_argument("--symbol", default="SIM-ALT", help="a simulated contract")
    parser.add_argument("--side", choices=SIDES, default="long", help="side of the position")
    parser.add_argument("--forecast", type=float, default=0.025, help="as a fraction of the price")
    parser.add_argument("--notional", type=float, default=60_000.0, help="of the position, USD")
    arguments = parser.parse_args()

    policy = load_spec(WORKSPACE / "serving" / "demo.toml", MarginPolicy)
    schedule = load_spec(WORKSPACE / policy.schedule.file, BaseSchedule)
    rows = tier_rows([arguments.symbol], schedule, policy)
    both = margin_levels(
        rows,
        {arguments.side: np.array([arguments.forecast])},
        policy,
        data_age=np.array([1], dtype="timedelta64[m]"),
        books={arguments.symbol: latest_book(arguments.symbol)},
        background=Background.none(len(rows), np.datetime64("2026-01-02T00:00", "us")),
    )
    levels = both[both["side"] == arguments.side]
    print(f"{arguments.symbol} {arguments.side}, policy {policy.name}")
    print("tier up to USD      MMR      IMR  leverage  amount USD  binding rule")
    for level in levels.to_dict("records"):
        print(
            f"{level['tier_cap_usd']:14,.0f} {level['mmr']:8.3%} {level['imr']:8.3%} "
            f"{level['max_leverage']:8.1f}x {level['maintenance_amount']:11,.2f}  "
            f"{level['binding_rule']}"
        )

    margin = position_margin_usd(arguments.notional, levels)
    tier = levels[levels["tier_cap_usd"] >= arguments.notional].iloc[0]
    print(f"\nsteps of tier {tier['tier']}")
    for step in chain_of(tier, policy):
        print(f"{step.name:16} {step.value_before:8.3%} -> {step.value_after:8.3%}  {step.reason}")
    print(
        f"\nmaintenance margin of {arguments.notional:,.0f} USD: {arguments.notional:,.0f} x "
        f"{tier['mmr']:.3%} - {tier['maintenance_amount']:,.2f} = {margin:,.2f} USD"
    )


def latest_book(symbol: str) -> Book:
    """Return the last order book of one simulated day."""
    market = simulate_market(
        MarketParameters(contracts=select_contracts([symbol])),
        days=1,
        seed=7,
        start=datetime(2026, 1, 1, tzinfo=UTC),
    )
    row = market.book.tail(1).cast({pl.selectors.numeric(): pl.Float64}).row(0, named=True)
    columns = {
        f"{side}_{what}s": pl.Series(
            [row[f"{side}_{what}_{level}"] for level in range(BOOK_LEVELS)]
        )
        .fill_null(math.nan)
        .to_numpy()
        for side in ("bid", "ask")
        for what in ("price", "size")
    }
    return Book(**columns)


if __name__ == "__main__":
    main()
