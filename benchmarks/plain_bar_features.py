"""The bar features in plain pandas, as one writes them first: the oracle of the fast ones.

One table of all contracts, a ``groupby`` and a ``rolling`` for each statistic of a window; returns
and ranges are computed once. Nothing is slow on purpose. ``feature_breadth.py`` races against it
and the tests hold the library to it, so both mean the same features.
"""

import math
from collections.abc import Callable
from functools import partial

import numpy as np
import pandas as pd

from margincast.features.library import Window
from margincast.features.volatility.large_moves import LARGE_MOVE, TAIL_MOVES, TAIL_START
from margincast.features.volatility.returns import OWN_SCALE_MULTIPLE

DAY_ROWS = 24
"""Bars of a day: the plain version is of hourly bars."""

Series = pd.Series


class PlainBars:
    """Every function of the families ``bars`` and, against a leader, ``market``.

    Args:
        panel: columns ``symbol``, ``open``, ``high``, ``low``, ``close`` and ``volume`` of all
            contracts, each on the same full hourly grid, NaN where a bar is missing.
        leader: symbol of the leading contract.
    """

    def __init__(self, panel: pd.DataFrame, leader: object) -> None:
        self.symbol = panel["symbol"]
        self.bars = panel
        self.close = np.log(panel["close"])
        self.range = np.log(panel["high"] / panel["low"])
        self.body = np.log(panel["close"] / panel["open"])
        self.opening = np.log(panel["open"] / self._shift(panel["close"], 1))
        self.returns = self.close - self._shift(self.close, 1)
        self.absolute = self.returns.abs()
        self.leader = self.returns[self.symbol == leader].reset_index(drop=True)

    def _shift(self, values: Series, rows: int) -> Series:
        return values.groupby(self.symbol).shift(rows)

    def _roll(self, values: Series, window: Window, how: str, lost: int = 0) -> Series:
        rows, least = window.rows - lost, max(1, window.minimum - lost)
        rolling = values.groupby(self.symbol).rolling(rows, min_periods=least)
        return getattr(rolling, how)().reset_index(level=0, drop=True)

    def _longer(self, window: Window, factor: int) -> Window:
        return Window(window.rows * factor, window.minimum * factor, window.label)

    def _parkinson(self, window: Window) -> Series:
        return np.sqrt(self._roll(self.range**2 / (4 * math.log(2)), window, "mean"))

    def _own(self, window: Window) -> Series:
        return self._parkinson(self._longer(window, OWN_SCALE_MULTIPLE))

    def _variance(self, window: Window) -> Series:
        return self._roll(self.returns**2, window, "mean")

    def _rogers_satchell(self, window: Window) -> Series:
        bars = self.bars
        terms = np.log(bars["high"] / bars["close"]) * np.log(bars["high"] / bars["open"])
        terms += np.log(bars["low"] / bars["close"]) * np.log(bars["low"] / bars["open"])
        return self._roll(terms, window, "mean")

    def _yang_zhang(self, window: Window) -> Series:
        n = window.rows
        k = 0.34 / (1.34 + (n + 1) / (n - 1))
        opening, body = (self._roll(part, window, "var") for part in (self.opening, self.body))
        return np.sqrt(opening + k * body + (1 - k) * self._rogers_satchell(window))

    def _garman_klass(self, window: Window) -> Series:
        terms = self.range**2 / 2 - (2 * math.log(2) - 1) * self.body**2
        return np.sqrt(self._roll(terms, window, "mean").clip(lower=0))

    def _side(self, window: Window, sign: int) -> Series:
        one = (sign * self.returns).clip(lower=0) ** 2
        return np.sqrt(self._roll(one, window, "mean").clip(lower=0))

    def _bipower(self, window: Window) -> Series:
        pairs = self.absolute * self._shift(self.absolute, 1)
        return math.pi / 2 * self._roll(pairs, window, "mean", lost=1)

    def _median(self, window: Window) -> Series:
        three = Window(3, 3, "")
        factor = math.pi / (6 - 4 * math.sqrt(3) + math.pi)
        middle = self._roll(self.absolute, three, "median")
        return np.sqrt(factor * self._roll(middle**2, window, "mean", lost=2))

    def _jump(self, window: Window) -> Series:
        return np.sqrt((self._variance(window) - self._bipower(window)).clip(lower=0))

    def _extent(self, window: Window) -> Series:
        high = self._roll(self.bars["high"], window, "max")
        return np.log(high / self._roll(self.bars["low"], window, "min"))

    def _drawdown(self, window: Window) -> Series:
        return self.bars["close"] / self._roll(self.bars["high"], window, "max") - 1

    def _run_up(self, window: Window) -> Series:
        return self.bars["close"] / self._roll(self.bars["low"], window, "min") - 1

    def _log_return(self, window: Window) -> Series:
        return self.close - self._shift(self.close, window.rows)

    def _move(self, window: Window) -> Series:
        return self.returns / self._shift(self._own(window), 1)

    def _count(self, window: Window) -> Series:
        move = self._move(window).abs()
        return self._roll((move > LARGE_MOVE).where(move.notna()).astype(float), window, "mean")

    def _size(self, window: Window) -> Series:
        move = self._move(window).abs()
        large = move.where((move > LARGE_MOVE) | move.isna(), 0.0)
        count = self._count(window)
        return self._roll(large, window, "mean") / count.where(count > 0.5 / window.rows)

    def _hill(self, window: Window) -> Series:
        before = self._shift(np.sqrt(self._variance(window)), 1)
        multiple = self.absolute / before / TAIL_START
        beyond = (multiple > 1).where(multiple.notna()).astype(float)
        count = self._roll(beyond, window, "sum").round()
        excess = np.log(multiple.where(~(multiple <= 1), 1.0))
        return self._roll(excess, window, "sum") / count.where(count >= TAIL_MOVES)

    def _season(self, window: Window, rows: int) -> Series:
        logs = np.log(self.range.where(self.range > 0))
        slot = self.bars.groupby("symbol").cumcount() % rows
        periods = window.rows // rows
        least = max(1, math.ceil(window.minimum / window.rows * periods - 1e-9))
        same = logs.groupby([self.symbol, slot]).rolling(periods, min_periods=least).mean()
        same = same.reset_index(level=[0, 1], drop=True).sort_index()
        return np.exp(self._shift(same, rows - 1) - self._roll(logs, window, "mean"))

    def _exponential(self, decay: float) -> Series:
        smooth = (self.returns**2).groupby(self.symbol).ewm(alpha=1 - decay, min_periods=24).mean()
        # pandas carries the mean over a missing return, where it is not known
        known = smooth.reset_index(level=0, drop=True).where(self.returns.notna())
        return np.sqrt(known)

    def _slope(self, window: Window, factor: int = 1) -> Series:
        short, long = (self._parkinson(self._longer(window, f)) for f in (factor, 4 * factor))
        return np.log(short / long)

    def functions(self) -> dict[str, Callable[..., Series]]:
        """Functions of the family ``bars``, by window or decay."""
        plain: dict[str, Callable[..., Series]] = {
            "parkinson_volatility": self._parkinson,
            "garman_klass_volatility": self._garman_klass,
            "rogers_satchell_volatility": lambda w: np.sqrt(self._rogers_satchell(w)),
            "yang_zhang_volatility": self._yang_zhang,
            "realised_volatility": lambda w: np.sqrt(self._variance(w)),
            "ewma_volatility": self._exponential,
            "upside_volatility": partial(self._side, sign=1),
            "downside_volatility": partial(self._side, sign=-1),
            "downside_share": lambda w: self._side(w, -1) ** 2 / self._variance(w),
            "bipower_volatility": lambda w: np.sqrt(self._bipower(w)),
            "median_volatility": self._median,
            "jump_volatility": self._jump,
            "price_range": self._extent,
            "drawdown": self._drawdown,
            "run_up": self._run_up,
            "log_return": self._log_return,
        }
        whole = {"price_range", "drawdown", "run_up", "log_return"}
        relative: dict[str, Callable[..., Series]] = {
            f"relative_{name}": lambda w, f=function, n=name: (
                f(w) / self._own(w) / (math.sqrt(w.rows) if n in whole else 1)
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
                    self._exponential(d) / self._exponential(d ** (1 / OWN_SCALE_MULTIPLE))
                ),
                "jump_share": lambda w: (1 - self._bipower(w) / self._variance(w)).clip(0, 1),
                "log_range": lambda w: np.log(self._extent(w)),
                "realised_skewness": lambda w: (
                    self._roll(self.returns**3, w, "mean") / self._variance(w) ** 1.5
                ),
                "realised_kurtosis": lambda w: (
                    self._roll(self.returns**4, w, "mean") / self._variance(w) ** 2
                ),
                "log_realised_volatility": lambda w: np.log(self._variance(w)) / 2,
                "log_parkinson_volatility": lambda w: np.log(self._parkinson(w)),
                "volatility_term_slope": self._slope,
                "volatility_term_curvature": lambda w: self._slope(w) - self._slope(w, 4),
                "volatility_of_volatility": lambda w: self._roll(
                    np.log(self.range.where(self.range > 0)), w, "std"
                ),
                "large_move_count": lambda w: self._count(w) * w.rows,
                "large_move_size": self._size,
                "largest_rise": lambda w: self._roll(self._move(w), w, "max").clip(lower=0),
                "largest_fall": lambda w: (-self._roll(self._move(w), w, "min")).clip(lower=0),
                "hill_tail_index": self._hill,
                "intraday_seasonality": partial(self._season, rows=DAY_ROWS),
                "weekly_seasonality": partial(self._season, rows=7 * DAY_ROWS),
                "log_volume_deviation": lambda w: volume - self._roll(volume, w, "mean"),
            }
        )

    def against_leader(self) -> dict[str, Callable[..., Series]]:
        """Functions of a contract's hourly return beside the leader's, by window."""
        return {
            "correlation_to_leader": self._by_contract(self._correlation),
            "beta_to_leader": self._by_contract(self._beta),
            "residual_volatility": self._by_contract(self._residual),
            "leader_gap": self._by_contract(
                lambda own, leader, w: (leader - own).rolling(w.rows, min_periods=w.minimum).mean()
            ),
            "lead_lag": self._by_contract(
                lambda own, leader, w: (
                    self._correlation(own, leader.shift(1), w)
                    - self._correlation(own.shift(1), leader, w)
                )
            ),
        }

    def _by_contract(self, function: Callable[..., Series]) -> Callable[..., Series]:
        def of_all(window: Window) -> Series:
            parts = [
                function(own.reset_index(drop=True), self.leader, window)
                for _, own in self.returns.groupby(self.symbol, sort=False)
            ]
            return pd.concat(parts, ignore_index=True)

        return of_all

    def _correlation(self, own: Series, leader: Series, window: Window) -> Series:
        return own.rolling(window.rows, min_periods=max(3, window.minimum)).corr(leader)

    def _beta(self, own: Series, leader: Series, window: Window) -> Series:
        over = own.rolling(window.rows, min_periods=max(3, window.minimum))
        known = leader.where(own.notna())
        return over.cov(leader) / known.rolling(window.rows, min_periods=3).var()

    def _residual(self, own: Series, leader: Series, window: Window) -> Series:
        least = max(3, window.minimum)
        own = own.where(leader.notna())
        variance = own.rolling(window.rows, min_periods=least).var(ddof=0)
        covariance = own.rolling(window.rows, min_periods=least).cov(leader, ddof=0)
        explained = self._beta(own, leader, window) * covariance
        return np.sqrt((variance - explained).clip(lower=0))
