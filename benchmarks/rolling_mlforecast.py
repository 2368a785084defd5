"""How fast rolling statistics are, against mlforecast's compiled ones on the same table.

The 21 rolling features that both have: mean, standard deviation and maximum of a column over seven
windows, from 6 hours to 28 days, of hourly series over years. Ours are the expressions that bar
features are made of, evaluated as the pipeline does, a contract at a time; mlforecast's are lag
transforms by ``MLForecast.preprocess``, warm, on as many threads, from pandas and from Polars, and
the faster counts. Both must agree to 1e-9 before anything is timed. Budget: the time of mlforecast.

mlforecast is no dependency of margincast. In an environment of its own:
``pip install . mlforecast`` (it may ask for an older pandas than a development checkout has).

Run: ``python benchmarks/rolling_mlforecast.py``
"""

import argparse
import sys
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta

import numpy as np
import polars as pl

from margincast.core.types import FloatArray
from margincast.features.library import Window
from margincast.features.rolling import rolling_mean
from margincast.features.sharing import select_sharing

try:
    from mlforecast import MLForecast
    from mlforecast.lag_transforms import RollingMax, RollingMean, RollingStd
except ImportError:
    sys.exit("mlforecast is not installed: pip install mlforecast (in an environment of its own)")

HOUR = timedelta(hours=1)
START = datetime(2020, 1, 1, tzinfo=UTC)
WINDOW_HOURS = (6, 12, 24, 48, 168, 336, 672)
BUDGET = 1.0


def main() -> None:
    """Compare the values, then the fastest time of each."""
    parser = argparse.ArgumentParser(description="rolling features against mlforecast")
    parser.add_argument("--contracts", type=int, default=40, help="contracts")
    parser.add_argument("--years", type=int, default=5, help="years of hourly rows each")
    parser.add_argument("--repeats", type=int, default=5, help="runs of each")
    arguments = parser.parse_args()

    count = arguments.years * 365 * 24
    frames = [_series(seed, count) for seed in range(arguments.contracts)]
    table = pl.concat(frames)
    of_pandas = table.to_pandas()
    candidates: dict[str, Callable[[], object]] = {
        "margincast": lambda: _ours(frames),
        "mlforecast from pandas": lambda: _theirs(of_pandas),
        "mlforecast from Polars": lambda: _theirs(table),
    }
    _require_equal(_ours(frames), _theirs(table))
    best = {name: np.array([np.inf, np.inf]) for name in candidates}
    for _ in range(arguments.repeats):
        for name, run in candidates.items():
            started = _clocks()
            run()
            best[name] = np.minimum(best[name], _clocks() - started)
    print(f"{len(table):,} rows of {len(frames)} contracts, {3 * len(WINDOW_HOURS)} features")
    for name, (seconds, cpu) in best.items():
        print(f"{name} {seconds:.2f} s (CPU {cpu:.2f})")
    wall, work = (
        best["margincast"][clock] / min(best[name][clock] for name in best if name != "margincast")
        for clock in (0, 1)
    )
    kept = "kept" if wall <= BUDGET else "EXCEEDED"
    print(f"ratio {wall:.2f} (of CPU time {work:.2f}), budget {BUDGET:g} ({kept})")


def _clocks() -> FloatArray:
    """Seconds on the wall and seconds of all cores, which a busy machine moves less."""
    return np.array([time.perf_counter(), time.process_time()])


def _series(seed: int, count: int) -> pl.DataFrame:
    """Log returns with heavy tails, without gaps: mlforecast takes no unknown values."""
    returns = np.random.default_rng(seed).standard_t(4, count) * 0.005
    return pl.DataFrame({"y": returns}).select(
        pl.lit(f"C{seed:02}").alias("unique_id"),
        pl.datetime_range(START, START + (count - 1) * HOUR, HOUR, time_unit="us")
        .dt.replace_time_zone(None)
        .alias("ds"),
        "y",
    )


def _ours(frames: list[pl.DataFrame]) -> list[pl.DataFrame]:
    value = pl.col("y")
    expressions = []
    for hours in WINDOW_HOURS:
        window = Window.over(hours * HOUR, HOUR, 1.0)
        expressions += [
            rolling_mean(value, window).alias(f"mean_{hours}"),
            value.rolling_std(hours, min_samples=window.minimum, ddof=1).alias(f"std_{hours}"),
            value.rolling_max(hours, min_samples=window.minimum).alias(f"max_{hours}"),
        ]
    return [select_sharing(frame, ("unique_id", "ds", "y"), expressions) for frame in frames]


def _theirs(table: object) -> object:
    transforms = [
        statistic(hours)
        for hours in WINDOW_HOURS
        for statistic in (RollingMean, RollingStd, RollingMax)
    ]
    forecast = MLForecast(
        models=[], freq="1h", lag_transforms={1: transforms}, num_threads=pl.thread_pool_size()
    )
    return forecast.preprocess(table, static_features=[], dropna=False)


def _require_equal(ours: list[pl.DataFrame], theirs: object) -> None:
    # a lag of one: their row holds what was known one row before
    names = [name for name in ours[0].columns if name not in {"unique_id", "ds", "y"}]
    lagged = pl.concat(frame.select(pl.col(names).shift(1)) for frame in ours)
    if not isinstance(theirs, pl.DataFrame):
        raise TypeError("mlforecast gives a Polars table for one")
    columns = [name for name in theirs.columns if name not in {"unique_id", "ds", "y"}]
    for name, other in zip(names, columns, strict=True):
        np.testing.assert_allclose(
            lagged[name].fill_null(np.nan).to_numpy(),
            theirs[other].fill_null(np.nan).to_numpy(),
            rtol=1e-9,
            atol=1e-12,
            err_msg=f"{name} {other}",
        )


if __name__ == "__main__":
    main()
