"""Faults of real feeds, injected into clean tables: what a quality check must find, and no more.

A fault that slips through becomes a wrong price or depth, hence a wrong margin. Here each one is
put in on purpose, one at a time and apart from the others, and its place written down, so that the
truth about a faulty feed is known.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import datetime, timedelta
from typing import Literal, get_args

import numpy as np
import polars as pl

from margincast.core.errors import InputError

FaultKind = Literal[
    "missing_stretch",
    "duplicated_rows",
    "out_of_order_rows",
    "locked_book",
    "crossed_book",
    "empty_book_side",
    "unit_change",
    "price_spike",
    "negative_size",
    "time_zone_shift",
]

UNIT_FACTOR = 1_000.0
"""A unit change multiplies prices by this and divides sizes by it, as a redenomination does."""

_SPIKE_FACTOR = 1.5
_SHIFTS_HOURS = (-8, -5, 1, 8, 9)
_LEAST_SLOT_ROWS = 12
_PRICES = ("open", "high", "low", "close", "price")
_SIZES = ("volume", "size", "open_interest")
_QUOTED = ("taker_buy_volume",)


@dataclass(frozen=True)
class InjectedFault:
    """One fault and where it is.

    Attributes:
        table: name of the table.
        symbol: contract.
        kind: what was done.
        first_ts: earliest time of the rows concerned, as it stood in the clean table.
        last_ts: latest time of these rows, likewise.
        row_count: rows concerned: removed, added, moved or changed.
        rows: their positions among the contract's rows of the faulty table; none where removed.
        detail: the size of the fault, in words.
    """

    table: str
    symbol: str
    kind: FaultKind
    first_ts: datetime
    last_ts: datetime
    row_count: int
    rows: tuple[int, ...]
    detail: str


@dataclass(frozen=True)
class _Spoiled:
    """A stretch of rows with a fault in it: the rows now, and which of them it concerns."""

    rows: pl.DataFrame
    concerned: tuple[int, ...]
    first_row: int
    """First and last row of the stretch before, that were removed, repeated, moved or changed."""
    last_row: int
    detail: str


def inject_faults(
    tables: Mapping[str, pl.DataFrame],
    *,
    faults_per_feed: int,
    seed: int,
    kinds: Sequence[FaultKind] | None = None,
) -> tuple[dict[str, pl.DataFrame], tuple[InjectedFault, ...]]:
    """Spoil clean tables; the same arguments give the same faults.

    A feed is one contract's rows of one table. Its time is cut into as many stretches as it gets
    faults and each fault lies within a stretch of its own, so faults never touch. The kinds go
    round in random order among those that the table's columns allow. A shifted time zone spoils a
    whole feed: where asked for, one feed drawn at random gets it and nothing else.

    Args:
        tables: canonical tables with a column ``symbol``, each contract's rows in order of time.
        faults_per_feed: faults in each feed, zero or more; fewer where it has too few rows, or
            too many of one time, to hold them apart.
        seed: seed of the random numbers, zero or more.
        kinds: kinds to choose among; all by default.

    Returns:
        The faulty tables, contracts in their order, and the faults in the order of tables,
        contracts and time.

    Raises:
        InputError: an argument is out of range or a kind is unknown.
    """
    if faults_per_feed < 0 or seed < 0:
        raise InputError(
            "faults of a feed and their seed must be zero or more, "
            f"found {faults_per_feed} and {seed}"
        )
    known: tuple[FaultKind, ...] = get_args(FaultKind)
    wanted = known if kinds is None else tuple(kinds)
    unknown = [kind for kind in wanted if kind not in known]
    if unknown:
        raise InputError(f"no fault is called {unknown[0]!r}; choose among {', '.join(known)}")
    generator = np.random.default_rng(seed)
    feeds = [
        (table, str(symbol), rows)
        for table, frame in tables.items()
        for (symbol,), rows in frame.partition_by(
            "symbol", as_dict=True, maintain_order=True
        ).items()
    ]
    shifted = -1
    if faults_per_feed and feeds and "time_zone_shift" in wanted:
        shifted = int(generator.integers(len(feeds)))
    faults: list[InjectedFault] = []
    parts: dict[str, list[pl.DataFrame]] = {table: [] for table in tables}
    for index, (table, symbol, rows) in enumerate(feeds):
        if index == shifted:
            spoiled, fault = _shifted(table, symbol, rows, generator)
            found = [fault]
        else:
            spoiled, found = _spoil(
                table, symbol, rows, generator, wanted=wanted, count=faults_per_feed
            )
        parts[table].append(spoiled)
        faults += found
    faulty = {
        table: pl.concat(parts[table]) if parts[table] else frame for table, frame in tables.items()
    }
    return faulty, tuple(faults)


def faults_table(faults: Sequence[InjectedFault]) -> pl.DataFrame:
    """Return faults as a table, one row a fault, columns as :class:`InjectedFault`."""
    time = pl.Datetime("us", "UTC")
    return pl.DataFrame(
        [asdict(fault) for fault in faults],
        schema={
            "table": pl.String,
            "symbol": pl.String,
            "kind": pl.String,
            "first_ts": time,
            "last_ts": time,
            "row_count": pl.Int64,
            "rows": pl.List(pl.Int64),
            "detail": pl.String,
        },
    )


def _spoil(
    table: str,
    symbol: str,
    rows: pl.DataFrame,
    generator: np.random.Generator,
    *,
    wanted: Sequence[FaultKind],
    count: int,
) -> tuple[pl.DataFrame, list[InjectedFault]]:
    kinds = [kind for kind in wanted if kind in _SPOILERS and _possible(kind, rows)]
    count = min(count, len(rows) // _LEAST_SLOT_ROWS) if kinds else 0
    if not count:
        return rows, []
    order = generator.permutation(len(kinds))
    bounds = np.linspace(0, len(rows), count + 1).astype(int)
    pieces, faults, written = [], [], 0
    for number in range(count):
        kind = kinds[order[number % len(kinds)]]
        slot = rows[int(bounds[number]) : int(bounds[number + 1])]
        spoiled = _SPOILERS[kind](slot, generator)
        if spoiled is None:
            pieces.append(slot)
            written += len(slot)
            continue
        pieces.append(spoiled.rows)
        span = slot["ts"][spoiled.first_row : spoiled.last_row + 1]
        faults.append(
            InjectedFault(
                table,
                symbol,
                kind,
                span[0],
                span[-1],
                len(spoiled.concerned) or len(span),
                tuple(written + row for row in spoiled.concerned),
                spoiled.detail,
            )
        )
        written += len(spoiled.rows)
    return pl.concat(pieces), faults


def _possible(kind: FaultKind, rows: pl.DataFrame) -> bool:
    needed: dict[FaultKind, tuple[str, ...]] = {
        "locked_book": ("bid_price_0", "ask_price_0"),
        "crossed_book": ("bid_price_0", "ask_price_0"),
        "empty_book_side": ("bid_price_0", "ask_price_0"),
        "price_spike": _PRICES,
        "unit_change": (*_PRICES, "bid_price_0"),
        "negative_size": (*_SIZES, "bid_size_0"),
    }
    return kind not in needed or any(name in rows.columns for name in needed[kind])


def _stretch(rows: pl.DataFrame, generator: np.random.Generator, longest: int) -> tuple[int, int]:
    """Draw a stretch that leaves the first and the last two rows of its slot alone."""
    length = int(generator.integers(1, min(longest, len(rows) - 6) + 1))
    begin = int(generator.integers(2, len(rows) - 2 - length))
    return begin, begin + length


def _missing_stretch(rows: pl.DataFrame, generator: np.random.Generator) -> _Spoiled:
    begin, end = _stretch(rows, generator, longest=max(1, len(rows) // 4))
    kept = pl.concat([rows[:begin], rows[end:]])
    return _Spoiled(kept, (), begin, end - 1, f"{end - begin} rows removed")


def _duplicated_rows(rows: pl.DataFrame, generator: np.random.Generator) -> _Spoiled:
    begin, end = _stretch(rows, generator, longest=20)
    # Each row right after its twin, so that the order stays as it was.
    order = np.sort(np.concatenate([np.arange(len(rows)), np.arange(begin, end)]))
    repeated = rows[order]
    added = tuple(range(begin + 1, 2 * end - begin, 2))
    return _Spoiled(repeated, added, begin, end - 1, f"{end - begin} rows written again")


def _out_of_order_rows(rows: pl.DataFrame, generator: np.random.Generator) -> _Spoiled | None:
    begin, end = _stretch(rows, generator, longest=5)
    # They move behind the next row of a later time: rows of one time have no order to break.
    later = rows["ts"] > rows["ts"][end - 1]
    if not later.any():
        return None
    behind = int(later.arg_max() or 0) + 1
    moved = pl.concat([rows[:begin], rows[end:behind], rows[begin:end], rows[behind:]])
    places = tuple(range(behind - (end - begin), behind))
    return _Spoiled(moved, places, begin, end - 1, f"{end - begin} rows written late")


def _changed(
    rows: pl.DataFrame, begin: int, end: int, changes: Sequence[pl.Expr], detail: str
) -> _Spoiled:
    changed = pl.concat([rows[:begin], rows[begin:end].with_columns(changes), rows[end:]])
    return _Spoiled(changed, tuple(range(begin, end)), begin, end - 1, detail)


def _locked_book(rows: pl.DataFrame, generator: np.random.Generator) -> _Spoiled:
    begin, end = _stretch(rows, generator, longest=10)
    best_ask = pl.col("ask_price_0").alias("bid_price_0")
    return _changed(rows, begin, end, [best_ask], "best bid at the best ask")


def _crossed_book(rows: pl.DataFrame, generator: np.random.Generator) -> _Spoiled:
    begin, end = _stretch(rows, generator, longest=10)
    exchanged = [
        pl.col("ask_price_0").alias("bid_price_0"),
        pl.col("bid_price_0").alias("ask_price_0"),
    ]
    return _changed(rows, begin, end, exchanged, "best bid and best ask exchanged")


def _empty_book_side(rows: pl.DataFrame, generator: np.random.Generator) -> _Spoiled:
    begin, end = _stretch(rows, generator, longest=10)
    side = str(generator.choice(["bid", "ask"]))
    emptied = [
        pl.lit(None, rows.schema[name]).alias(name)
        for name in rows.columns
        if name.startswith((f"{side}_price_", f"{side}_size_"))
    ]
    return _changed(rows, begin, end, emptied, f"no {side}s")


def _unit_change(rows: pl.DataFrame, generator: np.random.Generator) -> _Spoiled:
    begin, end = _stretch(rows, generator, longest=max(1, len(rows) // 2))
    prices, sizes = _columns(rows)
    changes = [pl.col(name) * UNIT_FACTOR for name in prices]
    changes += [pl.col(name) / UNIT_FACTOR for name in sizes]
    return _changed(rows, begin, end, changes, f"prices x {UNIT_FACTOR:g}, sizes / {UNIT_FACTOR:g}")


def _price_spike(rows: pl.DataFrame, generator: np.random.Generator) -> _Spoiled:
    begin, _ = _stretch(rows, generator, longest=1)
    # A bar's extreme goes astray with its open and close in place; a trade has one price only.
    name = "high" if "high" in rows.columns else "price"
    spiked = [pl.col(name) * _SPIKE_FACTOR]
    return _changed(rows, begin, begin + 1, spiked, f"{name} x {_SPIKE_FACTOR:g}")


def _negative_size(rows: pl.DataFrame, generator: np.random.Generator) -> _Spoiled:
    begin, end = _stretch(rows, generator, longest=3)
    name = next(name for name in (*_SIZES, "bid_size_0") if name in rows.columns)
    # One is taken off as well: a size of zero would stay what it is.
    negative = [-pl.col(name) - 1.0]
    return _changed(rows, begin, end, negative, f"{name} below zero")


def _shifted(
    table: str, symbol: str, rows: pl.DataFrame, generator: np.random.Generator
) -> tuple[pl.DataFrame, InjectedFault]:
    hours = int(generator.choice(_SHIFTS_HOURS))
    fault = InjectedFault(
        table,
        symbol,
        "time_zone_shift",
        rows["ts"][0],
        rows["ts"][-1],
        len(rows),
        tuple(range(len(rows))),
        f"{hours:+d} hours",
    )
    return rows.with_columns(pl.col("ts") + timedelta(hours=hours)), fault


def _columns(rows: pl.DataFrame) -> tuple[list[str], list[str]]:
    """Return names of the price and of the size columns."""
    book = [name for name in rows.columns if name.startswith(("bid_", "ask_"))]
    prices = [name for name in rows.columns if name in _PRICES]
    sizes = [name for name in rows.columns if name in (*_SIZES, *_QUOTED)]
    prices += [name for name in book if "_price_" in name]
    sizes += [name for name in book if "_size_" in name]
    return prices, sizes


_SPOILERS: dict[FaultKind, Callable[[pl.DataFrame, np.random.Generator], _Spoiled | None]] = {
    "missing_stretch": _missing_stretch,
    "duplicated_rows": _duplicated_rows,
    "out_of_order_rows": _out_of_order_rows,
    "locked_book": _locked_book,
    "crossed_book": _crossed_book,
    "empty_book_side": _empty_book_side,
    "unit_change": _unit_change,
    "price_spike": _price_spike,
    "negative_size": _negative_size,
}
