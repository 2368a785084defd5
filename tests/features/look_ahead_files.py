"""The same check through the readers: a market written to files as a feed's recorder leaves them.

Rows stand in the file in the order in which they were received, with the time of reception beside
their own. Whatever a reader makes of late, repeated or disordered rows, it must not see later ones.
"""

import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import polars as pl
from tests.features.look_ahead_market import COLUMNS, HOUR, Market, Rows
from tests.features.look_ahead_rooms import Room

from margincast.features.pipeline import build_features
from margincast.specs.training import Data
from margincast.training.market import read_market


def build_from_files(folder: Path, part: Room, market: Market) -> pd.DataFrame:
    """Write a market to a folder, read it as a job does and build a room's features."""
    shutil.rmtree(folder, ignore_errors=True)
    for symbol, contract in market.items():
        for table in part.tables:
            if len(contract.get(table, ())):
                path = folder / table / f"{symbol}.parquet"
                path.parent.mkdir(parents=True, exist_ok=True)
                _as_recorded(contract[table]).write_parquet(path)
    entries = {table: (table,) for table in part.tables if (folder / table).is_dir()}
    data = Data(**entries, book_known_after="0s")
    return build_features(part.features, read_market(data, part.features, folder).sources).frame


def _as_recorded(rows: Rows) -> pl.DataFrame:
    """A table as its publisher has it, in order of reception."""
    if rows.table == "bars":
        return rows.frame.filter(pl.col("close").is_not_null())
    frame = rows.take(np.argsort(rows.known_at, kind="stable")).frame
    frame = frame.rename({"known_at": "received_at"})
    match rows.table:
        case "liquidations":
            long, short = (pl.col(name) for name in COLUMNS["liquidations"])
            side = pl.when(long > 0).then(pl.lit("sell")).otherwise(pl.lit("buy"))
            return frame.select(
                "ts", "received_at", price=pl.lit(1.0), size=long + short, side=side
            )  # fmt: skip
        case "implied_vol":
            # bars of an index have a grid too, and their publisher percent
            opened = pl.col("ts") - pl.duration(microseconds=4 * HOUR)
            percent = (100 * pl.col("implied_volatility")).clip(20)
            on_grid = opened.dt.truncate("4h") == opened
            return (
                frame.filter(on_grid)
                .unique("ts", keep="first", maintain_order=True)
                .select(
                    opened,
                    "received_at",
                    **dict.fromkeys(("open", "high", "low", "close"), percent),
                )
            )
    return frame
