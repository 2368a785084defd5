"""The open interest that initial margins of a moment are decided on, off the tables read."""

import math
from datetime import UTC, datetime, timedelta
from pathlib import Path

import polars as pl

from margincast.data.bars import BarTable
from margincast.data.states import read_states
from margincast.data.underlyings import symbol_of_contract
from margincast.margin.open_interest import Held
from margincast.specs.serving import MarginPolicy
from margincast.specs.training import Data

_DAY = timedelta(days=1)


def open_interest_at(
    policy: MarginPolicy, places: Data, root: Path, bars: BarTable, at: datetime
) -> dict[str, Held]:
    """Return what is known of every contract's open interest; empty for a policy without caps.

    Args:
        policy: says over which window a day's trading is averaged.
        places: where the table lies; without it nothing is known.
        root: folder that its paths start at.
        bars: of the contracts.
        at: moment of use.
    """
    section = policy.open_interest
    if section is None or not places.open_interest:
        return {}
    moment = at.astimezone(UTC)
    frames = read_states(root, places.open_interest, "open_interest").frames
    found = {}
    for contract, prices in bars.frames.items():
        # a bar is known at its close
        past = prices.filter(pl.col("ts") + bars.interval <= moment)
        symbol = symbol_of_contract(contract, frames, "open_interest")
        if symbol is None or past.is_empty():
            continue
        rows = frames[symbol].filter(pl.col("known_at") <= moment)
        if rows.is_empty():
            continue
        last = rows.row(-1, named=True)
        usd = last.get("open_interest_usd")
        if usd is None and symbol == contract and last.get("open_interest") is not None:
            close = past["close"].drop_nulls()
            usd = last["open_interest"] * close[-1] if len(close) else None
        found[contract] = Held(
            math.nan if usd is None else float(usd),
            moment - last["known_at"],
            math.nan
            if section.days is None
            else _daily_usd(past, moment - section.days.window, bars.interval),
        )
    return found


def _daily_usd(bars: pl.DataFrame, since: datetime, interval: timedelta) -> float:
    """Return the mean notional traded in a day; missing bars are left out, NaN where all are."""
    traded = pl.col("volume") * pl.col("close")
    if "quote_volume" in bars.columns:
        traded = pl.coalesce("quote_volume", traded)
    mean = bars.filter(pl.col("ts") >= since).select(traded.mean()).item()
    return math.nan if mean is None else float(mean) * (_DAY / interval)
