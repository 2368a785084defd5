"""Years and bars: how annual volatilities of options compare with those of a contract's bars.

Crypto markets never close, so a year is 365 days of them, as venues count it.
"""

import math
from datetime import timedelta

import polars as pl

from margincast.core.time import parse_duration
from margincast.features.library import Window

DAYS_PER_YEAR = 365.0
"""Deribit's volatilities and its index DVOL count 365 days a year."""


def years_a_bar(window: Window) -> float:
    """Length of one grid step in years.

    >>> round(1 / years_a_bar(Window(24, 24, "1d")))
    8760
    """
    return days_of(window) / window.rows / DAYS_PER_YEAR


def days_of(window: Window) -> float:
    """Length of a window in days."""
    return parse_duration(window.label) / timedelta(days=1)


def per_bar(annual_volatility: pl.Expr, window: Window) -> pl.Expr:
    """Turn a volatility per square root of a year into one per square root of a bar."""
    return annual_volatility * math.sqrt(years_a_bar(window))
