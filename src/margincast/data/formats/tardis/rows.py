"""What all files of Tardis have in common, and their longest ones, book updates, read fast.

A day of a contract's book updates is some 50 million rows, of which the cost of closing a position
is made, so rows that are plainly sound are parsed a block at a time. From the first block on that
is not, every row is parsed and judged by itself; both ways give the same rows.
"""

from collections.abc import Generator, Iterator

import polars as pl

from margincast.data.formats.format import ROW, Account, Match
from margincast.data.formats.records import reject_rows
from margincast.data.formats.source import Source
from margincast.data.formats.text import Column, read_text
from margincast.data.schemas import TIMESTAMP

COMMON_CELLS = {
    "exchange": Column("exchange", "text"),
    "symbol": Column("symbol", "text"),
    "timestamp": Column("ts", "time"),
    "local_timestamp": Column("received_at", "received"),
}
"""Columns that every file has."""

UPDATE_CELLS = {
    **COMMON_CELLS,
    "is_snapshot": Column("is_snapshot", "boolean"),
    "side": Column("side", "text"),
    "price": Column("price", "number"),
    "amount": Column("size", "number"),
}
"""Columns of book updates."""

_BLOCK_BYTES = 8 * 1024**2
_PLAIN_HEADER = (",".join(UPDATE_CELLS) + "\n").encode()
_PLAIN_TYPES = {
    "exchange": pl.String(),
    "symbol": pl.String(),
    "ts": pl.Int64(),
    "received_at": pl.Int64(),
    "is_snapshot": pl.Boolean(),
    "side": pl.Enum(["bid", "ask"]),
    "price": pl.Float64(),
    "size": pl.Float64(),
}
# what could make a cell mean something else than its bytes
_NOT_PLAIN = (b'"', b"\r", b" ", b"\t")
# a number of this size counts microseconds, see margincast.data.formats.times
_MICROSECONDS = (10**14, 10**17 - 1)


def venue_of(exchange: str, match: Match | None = None) -> str:
    """Name the venue of an exchange as Tardis calls it, or as the user says.

    Args:
        exchange: cell of the column ``exchange``.
        match: what the source was recognised as, where the user may have named another venue.
    """
    if match is not None and match.venue != venue_of(match.details["exchange"]):
        return match.venue
    if exchange == "cryptofacilities":
        return "kraken-futures"
    return exchange.replace("okex", "okx")


def read_update_rows(source: Source, delimiter: str, account: Account) -> Iterator[pl.DataFrame]:
    """Read book updates in batches of some megabytes; reject the faulty ones.

    Yields:
        exchange, symbol, ts, received_at, is_snapshot, price, size, ``_row`` and is_bid; no nulls.

    Raises:
        InputError: see :func:`margincast.data.formats.text.read_text`.
    """
    reader = read_plain_rows(source)
    last_row = 0
    while True:
        try:
            rows = next(reader)
        except StopIteration as stop:
            if stop.value:
                return
            break
        last_row = rows[ROW][-1]
        yield rows
    for rows in read_any_rows(source, delimiter, account):
        yield rows.filter(pl.col(ROW) > last_row)


def read_plain_rows(source: Source) -> Generator[pl.DataFrame, None, bool]:
    """Read book updates up to the first block that is not plainly sound.

    Returns:
        Whether that was the end of the file.
    """
    last_row = 0
    with source.open() as content:
        if content.readline() != _PLAIN_HEADER:
            return False
        while block := content.read(_BLOCK_BYTES):
            rows = _parse_plain(block + content.readline())
            if rows is None:
                return False
            numbers = pl.int_range(last_row + 1, last_row + 1 + pl.len(), dtype=pl.Int64)
            last_row += len(rows)
            yield rows.with_columns(numbers.alias(ROW), is_bid=pl.col("side") == "bid").drop("side")
    return True


def _parse_plain(block: bytes) -> pl.DataFrame | None:
    """Parse whole lines; None where one of them needs a closer look."""
    if any(mark in block for mark in _NOT_PLAIN):
        return None
    try:
        rows = pl.read_csv(block, has_header=False, schema=_PLAIN_TYPES, quote_char=None)
    except pl.exceptions.PolarsError:
        return None
    is_sound = rows.select(
        pl.all_horizontal(
            pl.all().null_count() == 0,
            pl.col("ts", "received_at").is_between(*_MICROSECONDS).all(),
            pl.col("price", "size").is_finite().all(),
        )
    ).item()
    if not is_sound:
        return None
    return rows.with_columns(pl.col("ts", "received_at").cast(TIMESTAMP))


def read_any_rows(source: Source, delimiter: str, account: Account) -> Iterator[pl.DataFrame]:
    """Read book updates, judging every row by itself."""
    faults = {
        f"column '{cell}' is empty": pl.col(column.name).is_null()
        for cell, column in UPDATE_CELLS.items()
    }
    faults["column 'side' is neither bid nor ask"] = ~pl.col("side").is_in(["bid", "ask"])
    faults["column 'price' is not finite"] = ~pl.col("price").is_finite()
    faults["column 'amount' is not finite"] = ~pl.col("size").is_finite()
    for parsed in read_text(source, UPDATE_CELLS, account, delimiter=delimiter):
        rows = parsed
        for reason, faulty in faults.items():
            rows = reject_rows(rows, faulty, reason, account)
        names = [name for name in _PLAIN_TYPES if name != "side"]
        yield rows.select(*names, ROW, (pl.col("side") == "bid").alias("is_bid"))
