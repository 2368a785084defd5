"""The order books that margins of a moment are decided on, off the tables that were read."""

from collections.abc import Mapping
from datetime import UTC, datetime

import numpy as np
import polars as pl

from margincast.core.types import FloatArray
from margincast.data.book import BookTable, latest_snapshots, recent_snapshots
from margincast.margin.liquidation_cost import Book
from margincast.margin.snapshots import Snapshots
from margincast.specs.serving import MarginPolicy


def books_at(policy: MarginPolicy, books: BookTable | None, at: datetime) -> Mapping[str, Book]:
    """Return every contract's latest book, with as much of its past as the policy looks at.

    One older than the policy allows is as good as none.

    Args:
        policy: says whether books are walked, and over which window.
        books: order books; None where there are none.
        at: moment of use.
    """
    walk = policy.liquidation.book
    if walk is None or books is None:
        return {}
    if walk.horizon is None:
        rows = latest_snapshots(books, at)
    else:
        rows = recent_snapshots(books, at, walk.horizon.window, walk.horizon.every)
    oldest = at.astimezone(UTC) - policy.staleness.max_data_age
    return {
        symbol: Book.latest(snapshots_of(table, books.levels[symbol]))
        for symbol, table in rows.items()
        if table["known_at"][-1] >= oldest
    }


def snapshots_of(table: pl.DataFrame, levels: int) -> Snapshots:
    """Return the rows of one contract's book table.

    Args:
        table: as :func:`margincast.data.book.read_books` gives it, collected.
        levels: book levels on each side.
    """

    def columns(what: str) -> FloatArray:
        names = [f"{what}_{level}" for level in range(levels)]
        # a level that is not there is null in the table and NaN in arrays
        return table.select(pl.col(names).fill_null(np.nan)).to_numpy()

    known_at = table["known_at"].dt.replace_time_zone(None).to_numpy().astype("datetime64[us]")
    return Snapshots(
        known_at,
        columns("bid_price"),
        columns("bid_size"),
        columns("ask_price"),
        columns("ask_size"),
    )
