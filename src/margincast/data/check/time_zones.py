"""Feeds of one underlying that are shifted by whole hours: somebody's clock was not UTC.

Returns of two feeds of one underlying move together. If they do so best when one of them is moved
by some hours, its times are in another zone, and every decision made on it looks into the future
or at the past. Ranks of the returns are compared: one price that is wrong, or a unit that changes,
is one return of many and cannot decide.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

import numpy as np
import polars as pl

from margincast.core.types import FloatArray

MOST_HOURS = 14
"""UTC-12 to UTC+14 are the zones there are."""

FEWEST_COMMON = 100
"""Hours in common from which a correlation says something: its error is about 0.1."""

CLEAR_CORRELATION = 0.5
CLEAR_MARGIN = 0.2
"""The best lag counts if its correlation is this high, and this much above that at no lag."""

_HOUR = timedelta(hours=1)
_OF_HOUR = (pl.col("price").last(), pl.col("low").min(), pl.col("high").max())


@dataclass(frozen=True)
class HourlyPrices:
    """Last price of each hour.

    Attributes:
        hours: hours since 1970, shape (n,), increasing.
        prices: last price known in the hour, shape (n,).
        lows: lowest price of the hour, shape (n,); None where it is not known.
        highs: highest price of the hour, shape (n,); None where it is not known.
    """

    hours: np.ndarray
    prices: FloatArray
    lows: FloatArray | None = None
    highs: FloatArray | None = None


@dataclass(frozen=True)
class Shift:
    """How two feeds lie to each other.

    Attributes:
        hours: by how many hours the second feed's times are late (negative: early).
        correlation: rank correlation of hourly returns at that lag.
        unshifted: the same at no lag.
        common: hours compared.
        ratio: median of second over first price at that lag.
        steady: share of the hours in which the ratio is within a factor of three of the median.
    """

    hours: int
    correlation: float
    unshifted: float
    common: int
    ratio: float
    steady: float


class HourlyCloses:
    """Collects the last, lowest and highest price of each hour from blocks.

    Args:
        price: the price.
        low: the lowest price of a row; the price itself when None.
        high: the highest price of a row; the price itself when None.
    """

    def __init__(
        self, price: pl.Expr, low: pl.Expr | None = None, high: pl.Expr | None = None
    ) -> None:
        self.price = price
        self._low, self._high = (price if one is None else one for one in (low, high))
        self._pieces: list[pl.DataFrame] = []

    def add(self, block: pl.DataFrame) -> None:
        """Take a block with ``ts`` and the columns of the price."""
        self._pieces.append(
            block.select(
                pl.col("ts").dt.truncate("1h").alias("hour"),
                self.price.alias("price"),
                self._low.alias("low"),
                self._high.alias("high"),
            )
            .filter(pl.col("price") > 0)
            .group_by("hour", maintain_order=True)
            .agg(_OF_HOUR)
        )

    def prices(self) -> HourlyPrices:
        """Return what was collected."""
        joined = pl.concat(self._pieces).group_by("hour", maintain_order=True).agg(_OF_HOUR)
        hours = joined["hour"].dt.timestamp("ms").to_numpy() // 3_600_000
        columns = (joined[name].to_numpy() for name in ("price", "low", "high"))
        return HourlyPrices(hours, *(column.astype(np.float64) for column in columns))


def find_shift(one: HourlyPrices, other: HourlyPrices) -> Shift | None:
    """Find the lag at which the hourly returns of two feeds agree best.

    Returns:
        The shift, of no hours where they agree as they are; None where they do not agree clearly
        at any lag, or have too little in common.
    """
    own = _returns(one)
    best: tuple[float, int, int] | None = None
    unshifted = 0.0
    for lag in range(-MOST_HOURS, MOST_HOURS + 1):
        moved = _returns(HourlyPrices(other.hours - lag, other.prices))
        left, right = _common(own, moved)
        if len(left) < FEWEST_COMMON:
            continue
        left, right = _ranks(left), _ranks(right)
        if not (left.std() > 0 and right.std() > 0):
            continue
        correlation = float(np.corrcoef(left, right)[0, 1])
        if lag == 0:
            unshifted = correlation
        if best is None or correlation > best[0]:
            best = (correlation, lag, len(left))
    if best is None or best[0] < CLEAR_CORRELATION:
        return None
    correlation, lag, common = best
    if lag and correlation < unshifted + CLEAR_MARGIN:
        lag, correlation = 0, unshifted
    left, right = _common((one.hours, one.prices), (other.hours - lag, other.prices))
    ratios = right / left
    ratio = float(np.median(ratios))
    steady = float((np.abs(np.log(ratios / ratio)) < np.log(3)).mean())
    return Shift(lag, correlation, unshifted, common, ratio, steady)


def agree_on(shifts: Mapping[str, int]) -> dict[str, int]:
    """Tell shifted feeds from right ones by majority; the first is the reference of all shifts.

    Returns:
        Per feed its hours relative to what most feeds show; in a tie to the reference.
    """
    votes: dict[int, int] = {}
    for hours in shifts.values():
        votes[hours] = votes.get(hours, 0) + 1
    most = max(votes.items(), key=lambda item: (item[1], item[0] == 0))[0]
    return {name: hours - most for name, hours in shifts.items()}


def underlying(symbol: str) -> str:
    """Spell a symbol as others may: upper case, letters and digits only."""
    return "".join(letter for letter in symbol.upper() if letter.isalnum())


def hour_of(prices: HourlyPrices, row: int) -> datetime:
    """Time of an hour."""
    return datetime(1970, 1, 1, tzinfo=UTC) + int(prices.hours[row]) * _HOUR


def _returns(prices: HourlyPrices) -> tuple[np.ndarray, FloatArray]:
    """Log returns between consecutive hours, by the hour in which they end."""
    consecutive = np.diff(prices.hours) == 1
    returns = np.diff(np.log(prices.prices))
    return prices.hours[1:][consecutive], returns[consecutive]


def _ranks(values: FloatArray) -> FloatArray:
    """Ranks from 1 on; equal values share the mean of theirs."""
    return pl.Series(values).rank("average").to_numpy()


def _common(
    one: Sequence[np.ndarray], other: Sequence[np.ndarray]
) -> tuple[FloatArray, FloatArray]:
    _, left, right = np.intersect1d(one[0], other[0], assume_unique=True, return_indices=True)
    return one[1][left], other[1][right]
