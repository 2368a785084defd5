"""Read Deribit option chains and its volatility index (DVOL), what the market pays for tail risk.

Chains are snapshots of the book summaries of all options of a currency, one line an instrument and
time, as ``public/get_book_summary_by_currency`` and ``public/ticker`` give them (Deribit API,
Market Data): prices are fractions of a coin of the underlying, implied volatility is a fraction a
year (Deribit itself says percent; a file that does is refused), expiry is 08:00 UTC of its day.
DVOL keeps the publisher's unit, percent a year.
"""

import re
from collections.abc import Iterable, Iterator

from margincast.data.formats.flat_file import commonest_step, read_records, sample_records
from margincast.data.formats.format import Account, Batch, Format, Match, Sample
from margincast.data.formats.source import Source
from margincast.data.formats.tabular import canonical_batches
from margincast.data.formats.text import Column
from margincast.data.schemas import stored_name

_CHAIN = {
    "timestamp": Column("ts", "time"),
    "instrument_name": Column("instrument", "text"),
    "currency": Column("symbol", "text"),
    "option_type": Column("option_type", "text"),
    "strike": Column("strike", "number"),
    "expiry_datetime": Column("expiry", "time"),
    "underlying": Column("underlying_price", "number"),
    "implied_volatility": Column("implied_volatility", "number"),
}
_FURTHER = (
    "time_to_maturity",
    "bid_price",
    "ask_price",
    "mark_price",
    "mid_price",
    "futures_price",
    "delta",
    "vega",
    "open_interest",
    "volume",
    "bid_ask_spread",
    "index_price",
    "volume_usd",
)
_INDEX = {f"dvol_{name}": Column(name, "number") for name in ("open", "high", "low", "close")}
_CURRENCY = re.compile(r"(?:^|[_-])([a-z]{3,5})[_-]dvol", re.IGNORECASE)

LARGEST_MEDIAN_VOLATILITY = 5.0
"""500 % a year: no chain's median option is above it, and in percent every chain's is."""


def _names(sample: Sample) -> tuple[str, ...]:
    return tuple(sample.columns) or sample.header


def _lacking(sample: Sample, wanted: Iterable[str]) -> str:
    present = _names(sample)
    missing = [name for name in wanted if name not in present]
    return f"there is no column {', '.join(missing)}" if missing else ""


def _match_chain(sample: Sample) -> Match | str:
    lacking = _lacking(sample, _CHAIN)
    if lacking:
        return lacking
    column = {"implied_volatility": _CHAIN["implied_volatility"]}
    median = sample_records(sample, column)["implied_volatility"].median()
    if isinstance(median, float) and median > LARGEST_MEDIAN_VOLATILITY:
        return f"implied_volatility is no fraction a year: the median is {median:g}"
    return Match("options", "deribit", details={"delimiter": sample.delimiter})


def _read_chain(source: Source, match: Match, account: Account) -> Iterator[Batch]:
    columns = {**_CHAIN, **{name: Column(name, "number") for name in _FURTHER}}
    for frame in read_records(source, columns, account, delimiter=match.details["delimiter"]):
        yield from canonical_batches(frame, match, account)


def _match_index(sample: Sample) -> Match | str:
    lacking = _lacking(sample, _INDEX)
    if lacking:
        return lacking
    time = next((name for name in ("ts", "timestamp") if name in _names(sample)), None)
    if time is None:
        return "there is no column ts or timestamp"
    currency = _CURRENCY.search(sample.source.stem)
    symbol = sample.hints.symbol or (currency[1].upper() if currency else None)
    if symbol is None:
        return "the file name does not say whose volatility it is (btc_dvol); say it by --symbol"
    columns = {time: Column("ts", "time"), **_INDEX}
    interval = commonest_step(sample_records(sample, {time: columns[time]})["ts"])
    if interval is None:
        return "there are no two times from which the interval could be told"
    details = {"columns": columns, "delimiter": sample.delimiter}
    return Match(stored_name("implied_vol", interval), "deribit", symbol, details)


def _read_index(source: Source, match: Match, account: Account) -> Iterator[Batch]:
    details = match.details
    for frame in read_records(source, details["columns"], account, delimiter=details["delimiter"]):
        yield from canonical_batches(frame, match, account)


FORMATS: tuple[Format, ...] = (
    Format("Deribit option chain", _match_chain, _read_chain),
    Format("Deribit volatility index", _match_index, _read_index),
)
