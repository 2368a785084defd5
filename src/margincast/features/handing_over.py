"""The feature table as models take it: what a margin is forecast from, one row a decision."""

from collections.abc import Iterable
from functools import lru_cache

import numpy as np
import pandas as pd
import polars as pl


def to_models(table: pl.DataFrame, features: Iterable[str]) -> pd.DataFrame:
    """Hand a feature table over to pandas, its numbers as one block.

    Column by column it takes longer to hand over a row of a hundred features than to compute it.

    Args:
        table: ``symbol``, ``ts`` (UTC), ``close`` and the features.
        features: their names.

    Returns:
        These columns in this order, all numbers float64; NaN where a feature is null.
    """
    numbers = ["close", *features]
    values = table[numbers].to_numpy().astype(np.float64, copy=False)
    frame = pd.DataFrame(values, copy=False)
    times = table["ts"].to_physical().to_numpy().view("datetime64[us]")
    frame.insert(0, "ts", pd.DatetimeIndex(times, tz="UTC"))
    frame.insert(0, "symbol", pd.Index(table["symbol"].to_list(), dtype="str"))
    frame.columns = _names("symbol", "ts", *numbers)
    return frame


@lru_cache(maxsize=16)
def _names(*names: str) -> "pd.Index[str]":
    # it hashes the names once, and not at every decision
    return pd.Index(names)
