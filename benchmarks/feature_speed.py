"""How fast features are built: the pipeline against a plain pandas version of the same columns.

The volatility features of ``features/bars-1h.toml`` on bars of the simulated market. Its minute
bars are given hourly times, because the cost hangs on the number of bars and not on what they
hold. Both versions must agree to 1e-9 before anything is timed. Budget: the time of pandas.

Run: ``python benchmarks/feature_speed.py``
"""

import argparse
import math
import time
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import pandas as pd
import polars as pl

from margincast.core.time import format_duration
from margincast.data.bars import BarTable, regular_bars
from margincast.data.simulated.market import simulate_market
from margincast.data.simulated.parameters import MarketParameters
from margincast.features.library import Window
from margincast.features.pipeline import build_features
from margincast.features.sources import Sources
from margincast.specs.features import FeatureSet
from margincast.specs.loading import load_spec

WORKSPACE = Path(__file__).resolve().parents[1]
START = datetime(2016, 1, 1, tzinfo=UTC)
VOLATILITIES = (
    "parkinson_volatility",
    "garman_klass_volatility",
    "realised_volatility",
    "ewma_volatility",
    "downside_share",
)
BUDGET = 1.0


def main() -> None:
    """Build both ways, compare the values, then the fastest time of each."""
    parser = argparse.ArgumentParser(description="feature pipeline against plain pandas")
    parser.add_argument("--days", type=int, default=30, help="days of minutes, a bar each")
    parser.add_argument("--repeats", type=int, default=15, help="runs of each")
    arguments = parser.parse_args()

    whole = load_spec(WORKSPACE / "features" / "bars-1h.toml", FeatureSet)
    feature_set = whole.model_copy(
        update={
            "bars": tuple(entry for entry in whole.bars if entry.function in VOLATILITIES),
            "market": (),
            "calendar": (),
        }
    )
    bars = _hourly_bars(arguments.days)
    frames = {symbol: frame.to_pandas() for symbol, frame in bars.frames.items()}
    _require_equal(build_features(feature_set, Sources(bars)).frame, _plain(feature_set, frames))
    ours, plain = [], []
    for _ in range(arguments.repeats):
        started = time.process_time()
        table = build_features(feature_set, Sources(bars))
        ours.append(time.process_time() - started)
        started = time.process_time()
        _plain(feature_set, frames)
        plain.append(time.process_time() - started)
    ratio = min(ours) / min(plain)
    print(f"{len(table.frame):,} decisions of {len(frames)} contracts, {len(table.units)} features")
    print(f"build_features {min(ours):.3f} s, plain pandas {min(plain):.3f} s")
    print(f"ratio {ratio:.3f}, budget {BUDGET} ({'kept' if ratio <= BUDGET else 'EXCEEDED'})")


def _hourly_bars(days: int) -> BarTable:
    market = simulate_market(MarketParameters(), days=days, seed=7, start=START)
    hourly = market.bars.with_columns(
        (START + (pl.col("ts") - START) * 60).dt.cast_time_unit("us").alias("ts")
    )
    interval = timedelta(hours=1)
    frames = {
        contract.symbol: regular_bars(
            hourly.filter(pl.col("symbol") == contract.symbol), contract.symbol, interval
        )[0]
        for contract in market.parameters.contracts
    }
    return BarTable(frames, interval, ())


def _plain(feature_set: FeatureSet, frames: Mapping[str, pd.DataFrame]) -> pd.DataFrame:
    """The same table as a straightforward loop over contracts, functions and windows."""
    grid = feature_set.grid
    parts = []
    for symbol, bars in frames.items():
        squared_range = np.log(bars["high"] / bars["low"]) ** 2
        squared_body = np.log(bars["close"] / bars["open"]) ** 2
        log_return = np.log(bars["close"]).diff()
        variances = {
            "parkinson_volatility": squared_range / (4 * math.log(2)),
            "garman_klass_volatility": 0.5 * squared_range - (2 * math.log(2) - 1) * squared_body,
            "realised_volatility": log_return**2,
        }
        columns: dict[str, object] = {"symbol": symbol, "ts": bars["ts"] + grid.interval}
        for entry in feature_set.bars:
            for decay in entry.values:  # noqa: PD011  # a key of the spec
                smoothed = (log_return**2).ewm(alpha=1 - decay, min_periods=24).mean()
                columns[f"{entry.function}_{decay:g}"] = np.sqrt(smoothed)
            for length in entry.windows:
                window = Window.over(length, grid.interval, grid.minimum_present)
                name = f"{entry.function}_{format_duration(length)}"

                def mean(values: "pd.Series[float]", window: Window = window) -> "pd.Series[float]":
                    return values.rolling(window.rows, min_periods=window.minimum).mean()

                if entry.function == "downside_share":
                    falling = (log_return**2).where(~(log_return >= 0), 0.0)
                    columns[name] = mean(falling) / mean(log_return**2)
                else:
                    columns[name] = np.sqrt(mean(variances[entry.function]).clip(lower=0))
        part = pd.DataFrame(columns)
        parts.append(part.loc[part["ts"] >= part["ts"].iloc[0] + grid.warm_up - grid.interval])
    table: pd.DataFrame = pd.concat(parts)
    return table.sort_values(["ts", "symbol"], ignore_index=True)


def _require_equal(ours: pd.DataFrame, plain: pd.DataFrame) -> None:
    names = [name for name in ours.columns if name not in {"symbol", "ts", "close"}]
    np.testing.assert_array_equal(ours["symbol"], plain["symbol"])
    np.testing.assert_allclose(ours[names], plain[names], rtol=1e-9, atol=1e-9)


if __name__ == "__main__":
    main()
