"""How volatile the bar to come usually is: the time of day and of week, learnt from the past only.

Funding times, exchange openings and weekends move volatility by a factor of two; a forecast made at
a decision must know what the clock is about to bring. The clock is the grid's: rows are a grid step
apart, so bars of the same time of day lie a fixed number of rows apart.

Sources: Andersen and Bollerslev (1997) doi:10.1016/S0927-5398(97)00004-2; Boudt, Croux and Laurent
(2011) doi:10.1016/j.jempfin.2010.11.005, who show why one crash must not set the season: hence
means of logarithms.
"""

import math
from datetime import timedelta

import polars as pl

from margincast.core.errors import InputError
from margincast.core.time import format_duration, parse_duration
from margincast.features.library import Window, feature
from margincast.features.rolling import rolling_mean
from margincast.features.volatility.returns import LOG_RANGE, above_zero


@feature("bars", "number")
def intraday_seasonality(window: Window) -> pl.Expr:
    """Usual range of the bar that starts now, by its time of day, over that of all bars.

    exp(mean log range of the window's bars at the same time of day - mean log range of all its
    bars), where the log range of a bar is log(log(high / low)). 1 is an ordinary time of day. The
    window is a whole number of days. Andersen and Bollerslev (1997)
    doi:10.1016/S0927-5398(97)00004-2. Null where too few bars of either kind moved.

    Raises:
        InputError: a window that is not a whole number of days, or a grid without a time of day.
    """
    return _seasonal_factor(window, timedelta(days=1), "intraday_seasonality")


@feature("bars", "number")
def weekly_seasonality(window: Window) -> pl.Expr:
    """Usual range of the bar that starts now, by its time of week, over that of all bars.

    As ``intraday_seasonality`` with the time of week; the window is a whole number of weeks. Boudt,
    Croux and Laurent (2011) doi:10.1016/j.jempfin.2010.11.005. Null where too few bars of either
    kind moved.

    Raises:
        InputError: a window that is not a whole number of weeks, or a grid without a time of week.
    """
    return _seasonal_factor(window, timedelta(weeks=1), "weekly_seasonality")


def _seasonal_factor(window: Window, period: timedelta, what: str) -> pl.Expr:
    length = parse_duration(window.label)
    interval = length / window.rows
    if length % period or period % interval or period == interval:
        raise InputError(
            f"{what} needs a window of a whole number of {format_duration(period)} on a grid that "
            f"divides {format_duration(period)}; found {window.label} on a grid of "
            f"{format_duration(interval)}"
        )
    count, rows_per_period = length // period, period // interval
    minimum = max(1, math.ceil(window.minimum / window.rows * count - 1e-9))
    # a bar that did not move says nothing about the usual size of moves
    log_range = above_zero(LOG_RANGE).log()
    position = pl.int_range(pl.len()) % rows_per_period
    same_time = log_range.rolling_mean(count, min_samples=minimum).over(position)
    # the bar to come is one period after the row ``rows_per_period - 1`` back
    return (same_time.shift(rows_per_period - 1) - rolling_mean(log_range, window)).exp()
