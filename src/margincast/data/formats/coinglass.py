"""Read CoinGlass liquidation totals: how much was liquidated in an hour, over all venues it covers.

Sums of long and of short positions in USD. Venues throttle what they publish (Binance at most one
liquidation a second and contract), so the totals are a lower bound.
"""

import re
from collections.abc import Iterator

import polars as pl

from margincast.data.formats.flat_file import commonest_step, sample_records
from margincast.data.formats.format import Account, Batch, Format, Match, Sample
from margincast.data.formats.records import reject_rows
from margincast.data.formats.source import Source
from margincast.data.formats.tabular import canonical_batches
from margincast.data.formats.text import Column, read_text
from margincast.data.schemas import stored_name

CLOCKS_DISAGREE = "timestamp and datetime_utc are not the same time"

_COLUMNS = {
    "timestamp": Column("ts", "time"),
    "datetime_utc": Column("datetime_utc", "time"),
    "longUsd": Column("long_usd", "number"),
    "shortUsd": Column("short_usd", "number"),
    "totalUsd": Column("total_usd", "number"),
}
_COIN = re.compile(r"coinglass[_-]([a-z0-9]+)", re.IGNORECASE)


def _match(sample: Sample) -> Match | str:
    lacking = sample.lacks(*_COLUMNS)
    if lacking:
        return lacking
    coin = _COIN.search(sample.source.stem)
    symbol = sample.hints.symbol or (coin[1].upper() if coin else None)
    if symbol is None:
        return "the file name does not say the coin (coinglass_btc_1h); say it by --symbol"
    times = sample_records(sample, {"timestamp": _COLUMNS["timestamp"]})["ts"]
    interval = commonest_step(times)
    if interval is None:
        return "there are no two times from which the interval could be told"
    return Match(
        stored_name("liquidation_totals", interval),
        "coinglass",
        symbol,
        {"delimiter": sample.delimiter},
    )


def _read(source: Source, match: Match, account: Account) -> Iterator[Batch]:
    for frame in read_text(source, _COLUMNS, account, delimiter=match.details["delimiter"]):
        differ = pl.col("ts").ne_missing(pl.col("datetime_utc"))
        agreed = reject_rows(frame, differ, CLOCKS_DISAGREE, account)
        yield from canonical_batches(agreed.drop("datetime_utc"), match, account)


FORMATS: tuple[Format, ...] = (Format("CoinGlass liquidation totals", _match, _read),)
