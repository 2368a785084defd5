"""Read books, best prices and trades that a market maker recorded at Hyperliquid and Gate.

Three kinds of CSV a contract: ``orderbooks_SYMBOL``, ``prices_SYMBOL`` (a bid line and an ask line
make one quote) and ``trades_SYMBOL``. ``timestamp`` is the local receive time in seconds,
``exchange_timestamp`` the venue's in milliseconds; where the venue gave none the local time stands
for it, which is late but never early. Nothing in the files names the venue: the folder does.

Gate sends spot trades with fractions of a millisecond (``create_time_ms`` is text in its spot API)
and whole contracts on its futures; recordings with sizes such as 0.000009 BTC are therefore spot,
and only a folder that says so (``gateio_futures_...``) is taken for futures.
"""

import re
from collections.abc import Iterator
from datetime import timedelta

import polars as pl

from margincast.data.formats.format import (
    MERGED,
    ROW,
    TRANSLATED,
    Account,
    Batch,
    Format,
    Match,
    Sample,
)
from margincast.data.formats.records import reject_rows
from margincast.data.formats.source import Source
from margincast.data.formats.tabular import canonical_batches
from margincast.data.formats.text import Column, read_text

LOCAL_TIME = "local time in place of the venue's, which is not given"
LATE = "trade received more than 2 s after it happened (a backlog sent on subscription)"
HALF = "half a quote: a bid or an ask line without the other"
NO_SIZE = "best price with a size of zero"

_LATE = timedelta(seconds=2)
_DERIVATIVES = re.compile(r"futures|perp|swap")
_TIMES = {
    "timestamp": Column("received_at", "received"),
    "exchange_timestamp": Column("ts", "time"),
}
_BOOK = ("timestamp", "sequence", "exchange_timestamp", "bid_price_0", "bid_size_0", "ask_price_0")
_PRICES = ("timestamp", "price", "size", "side", "exchange_timestamp")
_TRADES = ("timestamp", "price", "size", "side", "trade_id", "exchange_timestamp")
_PRICE = Column("price", "number")
_SIZE = Column("size", "number")


def _recognised(sample: Sample, table: str, prefix: str) -> Match | str:
    if not sample.source.name.startswith(prefix):
        return f"the file name does not begin with {prefix}"
    venue = sample.hints.venue or _venue(sample.source)
    if venue is None:
        return "no folder names the venue (hyperliquid..., gateio...); say it with --venue"
    return Match(
        table,
        venue,
        symbol=sample.source.stem.removeprefix(prefix),
        details={"header": sample.header, "delimiter": sample.delimiter},
    )


def _venue(source: Source) -> str | None:
    for folder in reversed(source.folders):
        name = folder.lower()
        if name.startswith("hyperliquid"):
            return "hyperliquid"
        if name.startswith("gate"):
            return "gate-io-futures" if _DERIVATIVES.search(name) else "gate-io"
    return None


def _match_books(sample: Sample) -> Match | str:
    if sample.header[: len(_BOOK)] != _BOOK:
        return f"the header does not begin with {','.join(_BOOK)}"
    return _recognised(sample, "book", "orderbooks_")


def _match_prices(sample: Sample) -> Match | str:
    if sample.header != _PRICES:
        return f"the header is not {','.join(_PRICES)}"
    return _recognised(sample, "quotes", "prices_")


def _match_trades(sample: Sample) -> Match | str:
    if sample.header != _TRADES:
        return f"the header is not {','.join(_TRADES)}"
    return _recognised(sample, "trades", "trades_")


def _read_books(source: Source, match: Match, account: Account) -> Iterator[Batch]:
    levels = {
        name: Column(name, "number")
        for name in match.details["header"]
        if name.startswith(("bid_", "ask_"))
    }
    columns = {**_TIMES, "sequence": Column("sequence", "integer"), **levels}
    for frame in read_text(source, columns, account, delimiter=match.details["delimiter"]):
        yield from canonical_batches(_with_time(frame, account), match, account)


def _read_trades(source: Source, match: Match, account: Account) -> Iterator[Batch]:
    columns = {
        **_TIMES,
        "price": _PRICE,
        "size": _SIZE,
        "side": Column("side", "text"),
        "trade_id": Column("trade_id", "integer"),
    }
    for lines in read_text(source, columns, account, delimiter=match.details["delimiter"]):
        frame = _with_time(lines, account)
        account.note(LATE, int((frame["received_at"] - frame["ts"] > _LATE).sum()))
        yield from canonical_batches(frame, match, account)


def _with_time(frame: pl.DataFrame, account: Account) -> pl.DataFrame:
    account.note(
        LOCAL_TIME, int((frame["ts"].is_null() & frame["received_at"].is_not_null()).sum())
    )
    return frame.with_columns(pl.coalesce("ts", "received_at").alias("ts"))


def _read_prices(source: Source, match: Match, account: Account) -> Iterator[Batch]:
    columns = {**_TIMES, "price": _PRICE, "size": _SIZE, "side": Column("side", "text")}
    held = pl.DataFrame()
    for frame in read_text(source, columns, account, delimiter=match.details["delimiter"]):
        known = pl.col("side").is_in(["bid", "ask"]).fill_null(value=False)
        sided = reject_rows(frame, ~known, "column 'side' is neither bid nor ask", account)
        sound = _with_time(sided, account)
        lines = pl.concat([held, sound]) if len(held) else sound
        # the ask of a bid at the end of a batch is the first line of the next
        held = lines.tail(1).filter(pl.col("side") == "bid")
        yield from _quotes(lines.head(len(lines) - len(held)), match, account)
    yield from _quotes(held, match, account)


def _quotes(lines: pl.DataFrame, match: Match, account: Account) -> Iterator[Batch]:
    """Join each bid line with the ask line that follows it at the same times."""
    if not len(lines):
        return
    is_bid = pl.col("side") == "bid"
    followed = (
        is_bid
        & (pl.col("side").shift(-1) == "ask")
        & pl.col("ts").eq_missing(pl.col("ts").shift(-1))
        & pl.col("received_at").eq_missing(pl.col("received_at").shift(-1))
    ).fill_null(value=False)
    marked = lines.with_columns(
        followed.alias("pair"), followed.shift(1, fill_value=False).alias("second")
    )
    values = {f"bid_{what}_0": pl.when(is_bid).then(what) for what in ("price", "size")} | {
        f"ask_{what}_0": pl.when("pair").then(pl.col(what).shift(-1)).when(~is_bid).then(what)
        for what in ("price", "size")
    }
    quotes = marked.select(
        pl.lit(match.symbol).alias("symbol"),
        "ts",
        "received_at",
        *(value.alias(name) for name, value in values.items()),
        pl.when("pair").then(pl.col(ROW).shift(-1)).otherwise(ROW).alias(ROW),
        "second",
        "pair",
    ).filter(~pl.col("second"))
    pairs = int(quotes["pair"].sum())
    account.count(MERGED, 2 * pairs)
    account.count(TRANSLATED, len(quotes) - pairs)
    account.note(HALF, len(quotes) - pairs)
    account.note(NO_SIZE, int((lines["size"] == 0.0).sum()))
    yield Batch(match.table, match.venue, quotes.drop("second", "pair"))


FORMATS: tuple[Format, ...] = (
    Format("recorded order books", _match_books, _read_books),
    Format("recorded best prices", _match_prices, _read_prices),
    Format("recorded trades", _match_trades, _read_trades),
)
