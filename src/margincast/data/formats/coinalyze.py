"""Read Coinalyze open interest: the positions that a fall in price could force to close.

Daily bars of the open interest in USD, one line a contract and day, contracts in Coinalyze's names
(``BTCUSD_PERP.A``: ``.A`` is Binance). ``rank`` is that of the coin when the file was made, not of
the day: a feature must not use it.
"""

from collections.abc import Iterator
from datetime import timedelta

import polars as pl

from margincast.data.formats.flat_file import commonest_step, sample_records
from margincast.data.formats.format import Account, Batch, Format, Match, Sample
from margincast.data.formats.records import reject_rows
from margincast.data.formats.source import Source
from margincast.data.formats.tabular import canonical_batches
from margincast.data.formats.text import Column, read_text
from margincast.data.schemas import stored_name

CLOCKS_DISAGREE = "timestamp is not of the date"

_COLUMNS = {
    "rank": Column("rank", "integer"),
    "coin_name": Column("coin_name", "text"),
    "coin_symbol": Column("coin_symbol", "text"),
    "symbol": Column("symbol", "text"),
    "date": Column("date", "time"),
    "timestamp": Column("ts", "time"),
    "oi_open": Column("open", "number"),
    "oi_high": Column("high", "number"),
    "oi_low": Column("low", "number"),
    "oi_close": Column("close", "number"),
}
_DAY = timedelta(days=1)


def _match(sample: Sample) -> Match | str:
    lacking = sample.lacks(*_COLUMNS)
    if lacking:
        return lacking
    times = sample_records(sample, {"timestamp": _COLUMNS["timestamp"]})["ts"]
    interval = commonest_step(times)
    if interval != _DAY:
        return f"a row is a day, but the commonest step between its times is {interval}"
    return Match(
        stored_name("open_interest_bars", _DAY),
        "coinalyze",
        details={"delimiter": sample.delimiter},
    )


def _read(source: Source, match: Match, account: Account) -> Iterator[Batch]:
    for frame in read_text(source, _COLUMNS, account, delimiter=match.details["delimiter"]):
        differ = pl.col("ts").dt.truncate("1d").ne_missing(pl.col("date"))
        agreed = reject_rows(frame, differ, CLOCKS_DISAGREE, account)
        yield from canonical_batches(agreed.drop("date"), match, account)


FORMATS: tuple[Format, ...] = (Format("Coinalyze open interest", _match, _read),)
