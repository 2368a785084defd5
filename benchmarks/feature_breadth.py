"""How fast all bar features are built: every function of the library against plain pandas.

Hourly bars of simulated contracts over years, every ``bars`` function over a day and a week
(seasonality and tail over four weeks). The pandas version is what one writes first: one table of
all contracts, a ``groupby`` for each rolling statistic, returns and ranges computed once; both must
agree before anything is timed. Ours is timed as the pipeline runs it, a select a contract. Budgets:
8 s for 40 contracts x 5 years on two cores, and a twelfth of pandas.

Run: ``python benchmarks/feature_breadth.py --contracts 40``
"""

import argparse
import math
import time
from collections.abc import Callable, Iterator
from datetime import timedelta
from functools import partial

import numpy as np
import pandas as pd
import polars as pl

from margincast.core.types import FloatArray
from margincast.features.library import LIBRARY, Window
from margincast.features.volatility.large_moves import LARGE_MOVE, TAIL_MOVES, TAIL_START
from margincast.features.volatility.returns import OWN_SCALE_MULTIPLE

HOUR = timedelta(hours=1)
DAY_ROWS = 24
MINIMUM_PRESENT = 0.9
WINDOWS = (timedelta(days=1), timedelta(days=7))
LONG = {
    "intraday_seasonality": (timedelta(days=28),),
    "weekly_seasonality": (timedelta(days=28),),
    "hill_tail_index": (timedelta(days=28),),
}
DECAYS = (0.94, 0.97)
BUDGET_SECONDS = 8.0
BUDGET_RATIO = 12.0
FULL_CONTRACTS = 40
FULL_YEARS = 5

type_of_argument = {name: f.argument for (family, name), f in LIBRARY.items() if family == "bars"}


def main() -> None:
    """Compare the values, then the fastest time of each."""
    parser = argparse.ArgumentParser(description="all bar features against plain pandas")
    parser.add_argument("--contracts", type=int, default=4, help="contracts")
    parser.add_argument("--years", type=int, default=FULL_YEARS, help="years of hourly bars each")
    parser.add_argument("--repeats", type=int, default=3, help="runs of each")
    arguments = parser.parse_args()

    frames = [_bars(seed, arguments.years * 365 * DAY_ROWS) for seed in range(arguments.contracts)]
    panel = pd.concat([frame.to_pandas().assign(symbol=i) for i, frame in enumerate(frames)])
    panel = panel.reset_index(drop=True)
    _require_equal(frames, panel)
    ours, plain = [], []
    for _ in range(arguments.repeats):
        started = _clocks()
        columns = sum(part.width for part in _ours(frames)) // len(frames)
        ours.append(_clocks() - started)
        started = _clocks()
        for _, _ in _plain(panel):
            pass
        plain.append(_clocks() - started)
    (seconds, cpu), (plain_seconds, plain_cpu) = (np.min(times, axis=0) for times in (ours, plain))
    ratio = plain_seconds / seconds
    print(f"{len(panel):,} bars of {len(frames)} contracts, {columns} features")
    print(
        f"margincast {seconds:.2f} s (CPU {cpu:.2f}), pandas {plain_seconds:.2f} ({plain_cpu:.2f})"
    )
    print(f"{ratio:.1f} times as fast, budget {BUDGET_RATIO:g} ({_kept(ratio >= BUDGET_RATIO)})")
    if (arguments.contracts, arguments.years) == (FULL_CONTRACTS, FULL_YEARS):
        kept = _kept(seconds <= BUDGET_SECONDS)
        print(f"{seconds:.2f} s of {BUDGET_SECONDS:g} s on {pl.thread_pool_size()} cores ({kept})")


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
        pl.when(~missing).then(pl.col(name)).alias(name) for name in columns
    )


def _arguments(name: str) -> list[tuple[str, Window | float]]:
    if type_of_argument[name] == "values":
        return [(f"{name}_{decay:g}", decay) for decay in DECAYS]
    windows = [Window.over(w, HOUR, MINIMUM_PRESENT) for w in LONG.get(name, WINDOWS)]
    return [(f"{name}_{window.label}", window) for window in windows]


def _ours(frames: list[pl.DataFrame]) -> list[pl.DataFrame]:
    expressions = [
        LIBRARY["bars", name].build(argument).alias(label)
        for name in type_of_argument
        for label, argument in _arguments(name)
    ]
    return [frame.select(expressions) for frame in frames]


# --- plain pandas ---------------------------------------------------------------------------------

Series = pd.Series


class _Plain:
    """One table of all contracts; every statistic of a window is a groupby and a rolling."""

    def __init__(self, panel: pd.DataFrame) -> None:
        self.symbol = panel["symbol"]
        self.bars = panel
        self.close = np.log(panel["close"])
        self.range = np.log(panel["high"] / panel["low"])
        self.body = np.log(panel["close"] / panel["open"])
        self.opening = np.log(panel["open"] / self.shift(panel["close"], 1))
        self.returns = self.close - self.shift(self.close, 1)
        self.absolute = self.returns.abs()

    def shift(self, values: Series, rows: int) -> Series:
        return values.groupby(self.symbol).shift(rows)

    def roll(self, values: Series, window: Window, how: str, lost: int = 0) -> Series:
        rows, least = window.rows - lost, max(1, window.minimum - lost)
        rolling = values.groupby(self.symbol).rolling(rows, min_periods=least)
        return getattr(rolling, how)().reset_index(level=0, drop=True)

    def longer(self, window: Window, factor: int) -> Window:
        return Window(window.rows * factor, window.minimum * factor, window.label)

    def parkinson(self, window: Window) -> Series:
        return np.sqrt(self.roll(self.range**2 / (4 * math.log(2)), window, "mean"))

    def own(self, window: Window) -> Series:
        return self.parkinson(self.longer(window, OWN_SCALE_MULTIPLE))

    def variance(self, window: Window) -> Series:
        return self.roll(self.returns**2, window, "mean")

    def rogers_satchell(self, window: Window) -> Series:
        bars = self.bars
        terms = np.log(bars["high"] / bars["close"]) * np.log(bars["high"] / bars["open"])
        terms += np.log(bars["low"] / bars["close"]) * np.log(bars["low"] / bars["open"])
        return self.roll(terms, window, "mean")

    def yang_zhang(self, window: Window) -> Series:
        n = window.rows
        k = 0.34 / (1.34 + (n + 1) / (n - 1))
        opening, body = (self.roll(part, window, "var") for part in (self.opening, self.body))
        return np.sqrt(opening + k * body + (1 - k) * self.rogers_satchell(window))

    def garman_klass(self, window: Window) -> Series:
        terms = self.range**2 / 2 - (2 * math.log(2) - 1) * self.body**2
        return np.sqrt(self.roll(terms, window, "mean").clip(lower=0))

    def side(self, window: Window, sign: int) -> Series:
        one = (sign * self.returns).clip(lower=0) ** 2
        return np.sqrt(self.roll(one, window, "mean").clip(lower=0))

    def bipower(self, window: Window) -> Series:
        pairs = self.absolute * self.shift(self.absolute, 1)
        return math.pi / 2 * self.roll(pairs, window, "mean", lost=1)

    def median(self, window: Window) -> Series:
        three = Window(3, 3, "")
        factor = math.pi / (6 - 4 * math.sqrt(3) + math.pi)
        middle = self.roll(self.absolute, three, "median")
        return np.sqrt(factor * self.roll(middle**2, window, "mean", lost=2))

    def jump(self, window: Window) -> Series:
        return np.sqrt((self.variance(window) - self.bipower(window)).clip(lower=0))

    def extent(self, window: Window) -> Series:
        high = self.roll(self.bars["high"], window, "max")
        return np.log(high / self.roll(self.bars["low"], window, "min"))

    def drawdown(self, window: Window) -> Series:
        return self.bars["close"] / self.roll(self.bars["high"], window, "max") - 1

    def run_up(self, window: Window) -> Series:
        return self.bars["close"] / self.roll(self.bars["low"], window, "min") - 1

    def log_return(self, window: Window) -> Series:
        return self.close - self.shift(self.close, window.rows)

    def move(self, window: Window) -> Series:
        return self.returns / self.shift(self.own(window), 1)

    def count(self, window: Window) -> Series:
        move = self.move(window).abs()
        return self.roll((move > LARGE_MOVE).where(move.notna()).astype(float), window, "mean")

    def size(self, window: Window) -> Series:
        move = self.move(window).abs()
        large = move.where((move > LARGE_MOVE) | move.isna(), 0.0)
        count = self.count(window)
        return self.roll(large, window, "mean") / count.where(count > 0.5 / window.rows)

    def hill(self, window: Window) -> Series:
        before = self.shift(np.sqrt(self.variance(window)), 1)
        multiple = self.absolute / before / TAIL_START
        beyond = (multiple > 1).where(multiple.notna()).astype(float)
        count = self.roll(beyond, window, "sum").round()
        excess = np.log(multiple.where(~(multiple <= 1), 1.0))
        return self.roll(excess, window, "sum") / count.where(count >= TAIL_MOVES)

    def season(self, window: Window, rows: int) -> Series:
        logs = np.log(self.range.where(self.range > 0))
        slot = self.bars.groupby("symbol").cumcount() % rows
        periods = window.rows // rows
        least = max(1, math.ceil(window.minimum / window.rows * periods - 1e-9))
        same = logs.groupby([self.symbol, slot]).rolling(periods, min_periods=least).mean()
        same = same.reset_index(level=[0, 1], drop=True).sort_index()
        return np.exp(self.shift(same, rows - 1) - self.roll(logs, window, "mean"))

    def exponential(self, decay: float) -> Series:
        smooth = (self.returns**2).groupby(self.symbol).ewm(alpha=1 - decay, min_periods=24).mean()
        # pandas carries the mean over a missing return, where it is not known
        known = smooth.reset_index(level=0, drop=True).where(self.returns.notna())
        return np.sqrt(known)

    def slope(self, window: Window, factor: int = 1) -> Series:
        short, long = (self.parkinson(self.longer(window, f)) for f in (factor, 4 * factor))
        return np.log(short / long)

    def functions(self) -> dict[str, Callable[..., Series]]:
        plain: dict[str, Callable[..., Series]] = {
            "parkinson_volatility": self.parkinson,
            "garman_klass_volatility": self.garman_klass,
            "rogers_satchell_volatility": lambda w: np.sqrt(self.rogers_satchell(w)),
            "yang_zhang_volatility": self.yang_zhang,
            "realised_volatility": lambda w: np.sqrt(self.variance(w)),
            "ewma_volatility": self.exponential,
            "upside_volatility": partial(self.side, sign=1),
            "downside_volatility": partial(self.side, sign=-1),
            "downside_share": lambda w: self.side(w, -1) ** 2 / self.variance(w),
            "bipower_volatility": lambda w: np.sqrt(self.bipower(w)),
            "median_volatility": self.median,
            "jump_volatility": self.jump,
            "price_range": self.extent,
            "drawdown": self.drawdown,
            "run_up": self.run_up,
            "log_return": self.log_return,
        }
        whole = {"price_range", "drawdown", "run_up", "log_return"}
        relative: dict[str, Callable[..., Series]] = {
            f"relative_{name}": lambda w, f=function, n=name: (
                f(w) / self.own(w) / (math.sqrt(w.rows) if n in whole else 1)
            )
            for name, function in plain.items()
            if name not in {"ewma_volatility", "downside_share"}
        }
        volume = np.log1p(self.bars["volume"])
        return (
            plain
            | relative
            | {
                "relative_ewma_volatility": lambda d: (
                    self.exponential(d) / self.exponential(d ** (1 / OWN_SCALE_MULTIPLE))
                ),
                "jump_share": lambda w: (1 - self.bipower(w) / self.variance(w)).clip(0, 1),
                "log_range": lambda w: np.log(self.extent(w)),
                "realised_skewness": lambda w: (
                    self.roll(self.returns**3, w, "mean") / self.variance(w) ** 1.5
                ),
                "realised_kurtosis": lambda w: (
                    self.roll(self.returns**4, w, "mean") / self.variance(w) ** 2
                ),
                "log_realised_volatility": lambda w: np.log(self.variance(w)) / 2,
                "log_parkinson_volatility": lambda w: np.log(self.parkinson(w)),
                "volatility_term_slope": self.slope,
                "volatility_term_curvature": lambda w: self.slope(w) - self.slope(w, 4),
                "volatility_of_volatility": lambda w: self.roll(
                    np.log(self.range.where(self.range > 0)), w, "std"
                ),
                "large_move_count": lambda w: self.count(w) * w.rows,
                "large_move_size": self.size,
                "largest_rise": lambda w: self.roll(self.move(w), w, "max").clip(lower=0),
                "largest_fall": lambda w: (-self.roll(self.move(w), w, "min")).clip(lower=0),
                "hill_tail_index": self.hill,
                "intraday_seasonality": partial(self.season, rows=DAY_ROWS),
                "weekly_seasonality": partial(self.season, rows=7 * DAY_ROWS),
                "log_volume_deviation": lambda w: volume - self.roll(volume, w, "mean"),
            }
        )


def _plain(panel: pd.DataFrame) -> Iterator[tuple[str, Series]]:
    functions = _Plain(panel).functions()
    for name in type_of_argument:
        for label, argument in _arguments(name):
            yield label, functions[name](argument)


def _require_equal(frames: list[pl.DataFrame], panel: pd.DataFrame) -> None:
    ours = pl.concat(_ours(frames))
    decided = panel["close"].notna().to_numpy()
    for label, column in _plain(panel):
        found = ours[label].fill_null(math.nan).to_numpy()[decided]
        np.testing.assert_allclose(
            found, column.to_numpy()[decided], rtol=1e-7, atol=1e-8, err_msg=label
        )


if __name__ == "__main__":
    main()
