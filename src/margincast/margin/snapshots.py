"""Order books of one contract, moment by moment: what closing would have cost at each of them.

Responsible for walking many books at once; which of these costs is charged is decided in
:mod:`~margincast.margin.liquidation_cost`.
"""

from dataclasses import dataclass
from datetime import timedelta

import numpy as np
import numpy.typing as npt

from margincast.core.errors import InputError
from margincast.core.types import BoolArray, FloatArray, Side, Times

_CELLS = 1_000_000
"""Snapshots x notionals x levels that are walked at once; it bounds memory."""


@dataclass(frozen=True, eq=False)
class Snapshots:
    """Order books of one contract at n moments, best level first.

    Attributes:
        known_at: when each book was known, UTC, not falling, shape (n,).
        bid_prices: shape (n, levels), quote currency (USD), falling along a row; NaN where a level
            is not known.
        bid_sizes: shape (n, levels), base currency.
        ask_prices: shape (n, levels), quote currency (USD), rising along a row.
        ask_sizes: shape (n, levels), base currency.

    Raises:
        InputError: a book without known depth on a side, shapes that differ, prices that are not
            positive or out of order, negative sizes, a crossed book (a locked one is allowed), or
            times that fall; the first such book is named.
    """

    known_at: Times
    bid_prices: FloatArray
    bid_sizes: FloatArray
    ask_prices: FloatArray
    ask_sizes: FloatArray

    def __post_init__(self) -> None:
        for side in ("bid", "ask"):
            prices = _table(getattr(self, f"{side}_prices"))
            sizes = _table(getattr(self, f"{side}_sizes"))
            if prices.shape != sizes.shape or len(prices) != len(self.known_at):
                raise InputError(
                    f"{side} prices and sizes must be two tables of one shape with "
                    f"{len(self.known_at)} row(s), found shapes {prices.shape} and {sizes.shape}"
                )
            self._refuse(
                np.logical_or(sizes < 0.0, np.isinf(sizes)),
                f"{side} sizes must be finite and zero or more",
                sizes,
            )
            known = np.isfinite(prices) & (sizes > 0.0)
            prices, sizes = np.where(known, prices, np.nan), np.where(known, sizes, 0.0)
            self._refuse(
                np.isnan(_best(prices))[:, None],
                f"the order book shows no {side} depth; pass no book instead",
                prices,
            )
            self._refuse(
                (prices <= 0.0) | ~_in_order(prices, rising=side == "ask"),
                f"{side} prices must be positive and ordered best first",
                prices,
            )
            object.__setattr__(self, f"{side}_prices", prices)
            object.__setattr__(self, f"{side}_sizes", sizes)
        best = np.stack([_best(self.bid_prices), _best(self.ask_prices)], axis=1)
        self._refuse(
            best[:, :1] > best[:, 1:],
            "the order book is crossed: best bid above best ask; pass a book that the data checks "
            "have cleaned, or none",
            best,
        )
        if np.any(np.diff(self.known_at) < np.timedelta64(0)):
            raise InputError("snapshots must be in the order in which they were known")

    def _refuse(self, wrong: BoolArray, rule: str, values: FloatArray) -> None:
        rows = np.flatnonzero(wrong.any(axis=1))
        if rows.size:
            at = self.known_at[rows[0]]
            when = "" if np.isnat(at) else f" at {at}"
            raise InputError(f"{rule}, found {values[rows[0]][:5]}{when}")

    def __len__(self) -> int:
        """Return n."""
        return len(self.known_at)

    @property
    def mid_prices(self) -> FloatArray:
        """Mean of best bid and best ask, quote currency (USD), shape (n,)."""
        mid: FloatArray = 0.5 * (_best(self.bid_prices) + _best(self.ask_prices))
        return mid

    def since(self, start: np.datetime64) -> "Snapshots":
        """Return the books known after a moment."""
        first = int(np.searchsorted(self.known_at, start, side="right"))
        if not first:
            return self
        return Snapshots(
            self.known_at[first:],
            self.bid_prices[first:],
            self.bid_sizes[first:],
            self.ask_prices[first:],
            self.ask_sizes[first:],
        )

    def covered(self, every: timedelta) -> timedelta:
        """Return how much time has books: the periods with one, end to end."""
        length = every // timedelta(microseconds=1)
        periods = self.known_at.astype("datetime64[us]").astype(np.int64) // length
        return int(np.unique(periods).size) * every


def walk_books(
    books: Snapshots,
    side: Side,
    notional_usd: FloatArray,
    *,
    least_rate: float,
    unshown_rate: float,
) -> FloatArray:
    """Return what closing a position by walking each book costs, in USD against its mid price.

    A long is sold into the bids, a short is bought back from the asks. Level i is filled at a
    distance ``d_i = max(|price_i - mid| / mid, least_rate)``, and what the book does not show at
    ``max(unshown_rate, d_last)``. The cost is therefore convex in notional, and zero at zero.

    Args:
        books: n order books.
        side: side of the position that is closed.
        notional_usd: position notionals at the mid price, shape (m,), USD, zero or more.
        least_rate: least distance from the mid price (a locked or one-tick book shows none).
        unshown_rate: distance assumed for notional beyond the last level.

    Returns:
        Shape (n, m).

    Raises:
        InputError: a notional or a rate is negative or not finite.
    """
    notional_usd = np.asarray(notional_usd, dtype=np.float64)
    for name, values in (
        ("notional_usd", notional_usd),
        ("least_rate", np.asarray(least_rate)),
        ("unshown_rate", np.asarray(unshown_rate)),
    ):
        if not np.all(np.isfinite(values) & (values >= 0.0)):
            raise InputError(f"{name} must be finite and zero or more, found {values}")
    distance, depth_usd = level_distances(books, side, least_rate)
    beyond_rate = np.maximum(unshown_rate, distance[:, -1])
    shown_usd = np.cumsum(depth_usd, axis=1)
    before_usd = np.concatenate((np.zeros((len(books), 1)), shown_usd[:, :-1]), axis=1)
    cost = np.empty((len(books), notional_usd.size))
    rows = max(1, _CELLS // max(1, distance.shape[1] * notional_usd.size))
    for first in range(0, len(books), rows):
        some = slice(first, first + rows)
        left_usd = notional_usd[:, None] - before_usd[some, None, :]
        filled_usd = np.clip(left_usd, 0.0, depth_usd[some, None, :])
        beyond_usd = np.maximum(notional_usd - shown_usd[some, -1:], 0.0)
        cost[some] = (filled_usd * distance[some, None, :]).sum(axis=2)
        cost[some] += beyond_usd * beyond_rate[some, None]
    return cost


def level_distances(
    books: Snapshots, side: Side, least_rate: float
) -> tuple[FloatArray, FloatArray]:
    """Return every level's distance from the mid price, a fraction, and its depth, USD.

    Both have shape (n, levels). A level that is not known has no depth, and the distance of the
    last known one before it, so that distances rise along a row.
    """
    prices = books.bid_prices if side == "long" else books.ask_prices
    sizes = books.bid_sizes if side == "long" else books.ask_sizes
    mid = books.mid_prices[:, None]
    distance = np.fmax(np.abs(prices - mid) / mid, least_rate)
    return np.maximum.accumulate(distance, axis=1), sizes * mid


def _table(values: npt.ArrayLike) -> FloatArray:
    """Return one row a book; a single book may come as a list."""
    return np.atleast_2d(np.asarray(values, dtype=np.float64))


def _best(prices: FloatArray) -> FloatArray:
    """Return each row's first known price."""
    first = np.argmax(np.isfinite(prices), axis=1)
    best: FloatArray = prices[np.arange(len(prices)), first]
    return best


def _in_order(prices: FloatArray, *, rising: bool) -> BoolArray:
    """Say where a price stands beyond all known ones before it; unknown ones do."""
    signed = prices if rising else -prices
    before = np.fmax.accumulate(np.where(np.isnan(signed), -np.inf, signed), axis=1)
    good = np.ones(prices.shape, dtype=bool)
    good[:, 1:] = np.isnan(signed[:, 1:]) | (signed[:, 1:] > before[:, :-1])
    return good
