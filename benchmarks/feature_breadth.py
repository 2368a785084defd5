"""How fast all bar features are built: every function over bars against plain pandas.

Hourly bars of simulated contracts over years: every ``bars`` function over a day and a week
(seasonality and tail over four weeks), and the ``market`` functions that set a contract's hourly
return beside the leader's over the same windows. Cross-sections and the clock are left out: they
roll over nothing. Ours is timed as the pipeline runs it, contract by contract; the pandas version
is what one writes first (``plain_bar_features.py``). Both must agree before anything is timed.
Budgets: 8 s for 40 contracts x 5 years on two cores, and a twelfth of pandas.

Run: ``python benchmarks/feature_breadth.py --contracts 40``
"""

import argparse
import math
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import numpy as np
import pandas as pd
import polars as pl

from margincast.core.types import FloatArray
from margincast.features.contract import own_columns
from margincast.features.leader import beside_the_leader
from margincast.features.library import LIBRARY, Window
from margincast.features.plan import Plan
from margincast.specs.features import FeatureSet
from margincast.specs.loading import validate_spec
from plain_bar_features import DAY_ROWS, PlainBars, Series

HOUR = timedelta(hours=1)
START = datetime(2020, 1, 1, tzinfo=UTC)
MINIMUM_PRESENT = 0.9
WINDOWS = (timedelta(days=1), timedelta(days=7))
LONG = {
    "intraday_seasonality": (timedelta(days=28),),
    "weekly_seasonality": (timedelta(days=28),),
    "hill_tail_index": (timedelta(days=28),),
}
DECAYS = (0.94, 0.97)
RETURN = "log_return_1h"
"""What the market functions read; a column of ours that is not compared by itself."""
LEADER = "C00"
FAMILIES = ("bars", "market beside the leader")
BUDGET_SECONDS = 8.0
BUDGET_RATIO = 12.0
FULL_CONTRACTS = 40
FULL_YEARS = 5


def main() -> None:
    """Compare the values, then the fastest time of each."""
    parser = argparse.ArgumentParser(description="all bar features against plain pandas")
    parser.add_argument("--contracts", type=int, default=4, help="contracts")
    parser.add_argument("--years", type=int, default=FULL_YEARS, help="years of hourly bars each")
    parser.add_argument("--repeats", type=int, default=3, help="runs of each")
    arguments = parser.parse_args()

    count = arguments.years * 365 * DAY_ROWS
    frames = [_bars(seed, count) for seed in range(arguments.contracts)]
    panel = pd.concat([frame.to_pandas() for frame in frames], ignore_index=True)
    plan = Plan.of(_feature_set())
    _require_equal(_beside(plan, _own(plan, frames)), panel)
    times = np.full((len(FAMILIES), 2, 2), np.inf)
    for _ in range(arguments.repeats):
        times = np.minimum(times, _timed(plan, frames, panel))
    cores = pl.thread_pool_size()
    print(f"{len(panel):,} bars of {len(frames)} contracts, {len(plan.units)} features")
    for name, clocks in (*zip(FAMILIES, times, strict=True), ("both", times.sum(axis=0))):
        (seconds, cpu), (plain_seconds, plain_cpu) = clocks
        print(
            f"{name}: margincast {seconds:.2f} s (CPU {cpu:.2f}), pandas {plain_seconds:.2f} "
            f"({plain_cpu:.2f}), {plain_cpu / cpu:.1f} times as little work (CPU)"
        )
    ratio = plain_seconds / seconds
    print(
        f"{ratio:.1f} times as fast on {cores} cores, budget {BUDGET_RATIO:g} "
        f"({_kept(ratio >= BUDGET_RATIO)})"
    )
    if (arguments.contracts, arguments.years) == (FULL_CONTRACTS, FULL_YEARS):
        kept = _kept(seconds <= BUDGET_SECONDS)
        print(f"{seconds:.2f} s of {BUDGET_SECONDS:g} s on {cores} cores ({kept})")


def _timed(plan: Plan, frames: list[pl.DataFrame], panel: pd.DataFrame) -> FloatArray:
    """Clocks by family, ours and plain, both rows of seconds on the wall and of all cores."""
    started = _clocks()
    own = _own(plan, frames)
    ours_own = _clocks() - started
    started = _clocks()
    _beside(plan, own)
    ours_beside = _clocks() - started
    started = _clocks()
    plain = PlainBars(panel, LEADER)
    for _, _ in _plain_own(plain):
        pass
    plain_own = _clocks() - started
    started = _clocks()
    for _, _ in _plain_beside(plain):
        pass
    plain_beside = _clocks() - started
    return np.array([[ours_own, plain_own], [ours_beside, plain_beside]])


def _clocks() -> FloatArray:
    """Seconds on the wall and seconds of all cores, which a busy machine moves less."""
    return np.array([time.perf_counter(), time.process_time()])


def _kept(within: bool) -> str:
    return "kept" if within else "EXCEEDED"


def _bars(seed: int, count: int) -> pl.DataFrame:
    """Hourly bars of changing volatility and heavy tails; one in a hundred is missing."""
    rng = np.random.default_rng(seed)
    calm = np.exp(0.98 ** np.arange(200))
    calm = np.exp(np.convolve(rng.normal(0, 0.05, count), calm - 1, mode="full")[:count])
    steps = np.clip(rng.standard_t(4, (count, 4)) * 0.002 * calm[:, None], -0.2, 0.2)
    path = 100 * np.exp(np.cumsum(steps - steps.mean()).reshape(count, 4))
    missing = pl.Series(rng.random(count) < 0.01)
    columns = {
        "open": path[:, 0],
        "high": path.max(axis=1),
        "low": path.min(axis=1),
        "close": path[:, -1],
        "volume": rng.lognormal(3, 1, count),
    }
    return pl.DataFrame(columns).select(
        pl.lit(f"C{seed:02}").alias("symbol"),
        pl.datetime_range(START, START + (count - 1) * HOUR, HOUR, time_unit="us").alias("ts"),
        *(pl.when(~missing).then(pl.col(name)).alias(name) for name in columns),
    )


def _functions(family: str, *arguments: str) -> list[str]:
    return [
        name
        for (of, name), function in LIBRARY.items()
        if of == family and function.argument in arguments
    ]


def _windows(name: str) -> list[Window]:
    return [Window.over(length, HOUR, MINIMUM_PRESENT) for length in LONG.get(name, WINDOWS)]


def _feature_set() -> FeatureSet:
    def lengths(name: str) -> list[str]:
        return [window.label for window in _windows(name)]

    raw: dict[str, Any] = {
        "name": "breadth",
        "description": "every function over bars",
        "grid": {
            "interval": "1h", "warm_up": "28d", "leader": LEADER,
            "minimum_present": MINIMUM_PRESENT,
        },
        "bars": [
            *[{"function": f, "windows": lengths(f)} for f in _functions("bars", "windows")],
            *[{"function": f, "values": list(DECAYS)} for f in _functions("bars", "values")],
            {"function": "log_return", "windows": ["1h"]},
        ],
        "market": [
            {"function": f, "columns": [RETURN], "windows": lengths(f)}
            for f in _functions("market", "columns and windows")
        ],
    }  # fmt: skip
    return validate_spec(raw, FeatureSet, "feature_breadth")


def _own(plan: Plan, frames: list[pl.DataFrame]) -> list[pl.DataFrame]:
    return [own_columns(plan, frame, {}) for frame in frames]


def _beside(plan: Plan, own: list[pl.DataFrame]) -> list[pl.DataFrame]:
    return [beside_the_leader(plan, part, own[0]) for part in own]


def _plain_own(plain: PlainBars) -> Iterator[tuple[str, Series]]:
    functions = plain.functions()
    for name in _functions("bars", "windows"):
        for window in _windows(name):
            yield f"{name}_{window.label}", functions[name](window)
    for name in _functions("bars", "values"):
        for decay in DECAYS:
            yield f"{name}_{decay:g}", functions[name](decay)
    yield RETURN, plain.returns


def _plain_beside(plain: PlainBars) -> Iterator[tuple[str, Series]]:
    functions = plain.against_leader()
    for name in _functions("market", "columns and windows"):
        for window in _windows(name):
            yield f"{name}_{RETURN}_{window.label}", functions[name](window)


def _require_equal(ours: list[pl.DataFrame], panel: pd.DataFrame) -> None:
    table = pl.concat(ours)
    decided = panel["close"].notna().to_numpy()
    compared = set()
    plain = PlainBars(panel, LEADER)
    for label, column in (*_plain_own(plain), *_plain_beside(plain)):
        found = table[label].fill_null(math.nan).to_numpy()[decided]
        np.testing.assert_allclose(
            found, column.to_numpy()[decided], rtol=1e-7, atol=1e-8, err_msg=label
        )
        compared.add(label)
    if compared != set(table.columns) - {"symbol", "ts", "close"}:
        raise SystemExit("not every feature has a plain version")


if __name__ == "__main__":
    main()
