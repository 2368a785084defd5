"""Read candles as freqtrade stores them: trade, mark, index and premium prices, and funding rates.

Files are named ``BTC_USDT-5m.json`` (spot), ``futures/BTC_USDT_USDT-1h-futures.feather``,
``...-mark``, ``...-index``, ``...-premiumIndex`` or ``...-funding_rate`` and lie in a folder named
by the exchange (freqtrade documentation, "Data Downloading", "Data format"). JSON files are lists
of ``[ms, open, high, low, close, volume]``. A funding rate stands in ``open`` of its candle, in
newer files in a column of its own.
"""

import json
import re
from collections.abc import Iterator

import polars as pl

from margincast.core.time import parse_duration
from margincast.data.formats.flat_file import read_records, with_kinds
from margincast.data.formats.format import BATCH_ROWS, ROW, Account, Batch, Format, Match, Sample
from margincast.data.formats.json_text import elements_of
from margincast.data.formats.source import Source
from margincast.data.formats.tabular import canonical_batches
from margincast.data.formats.text import Column
from margincast.data.schemas import stored_name

NO_NUMBER = "a candle with a field that is no number"
MORE_THAN_A_RATE = "funding candle with more than an opening value"

_CANDLE = ("date", "open", "high", "low", "close", "volume")
_RATE = ("date", "funding_rate")
_NAME = re.compile(
    r"^(?P<pair>[A-Za-z\d]+(?:_[A-Za-z\d-]+){1,2})-(?P<timeframe>\d+[A-Za-z]{1,2})"
    r"(?:-(?P<kind>futures|mark|index|premiumIndex|funding_rate))?$"
)
_TABLES = {
    "futures": "bars",
    "mark": "mark_bars",
    "index": "index_bars",
    "premiumIndex": "premium_bars",
    "funding_rate": "funding",
}
_SUFFIXES = (".feather", ".parquet", ".json")
_VENUES = {
    "binance": ("binance", "binance-futures"),
    "binanceus": ("binance-us", "binance-us"),
    "bitget": ("bitget", "bitget-futures"),
    "bybit": ("bybit-spot", "bybit"),
    "gate": ("gate-io", "gate-io-futures"),
    "gateio": ("gate-io", "gate-io-futures"),
    "htx": ("huobi", "huobi-dm-linear-swap"),
    "huobi": ("huobi", "huobi-dm-linear-swap"),
    "hyperliquid": ("hyperliquid", "hyperliquid"),
    "kraken": ("kraken", "kraken"),
    "krakenfutures": ("kraken-futures", "kraken-futures"),
    "kucoin": ("kucoin", "kucoin-futures"),
    "okx": ("okx", "okx"),
}
_CANDLES_BEGIN = re.compile(r"^\s*\[\s*\[\s*\d{12,14}\s*,")


def _match(sample: Sample) -> Match | str:
    named = _NAME.match(sample.source.stem)
    if named is None or not sample.source.name.endswith(_SUFFIXES):
        return "the file name is not as BTC_USDT-1h.json or BTC_USDT_USDT-1h-futures.feather"
    is_text = sample.source.name.endswith(".json")
    names = _names_of_json(sample) if is_text else tuple(sample.columns)
    if names not in (_CANDLE, _RATE):
        return f"its fields are not {', '.join(_CANDLE)}"
    table = _TABLES[named["kind"] or "futures"]
    if (names == _RATE) != (table == "funding") and names == _RATE:
        return "two fields a record are a funding rate, but the file name does not say so"
    if table != "funding":
        try:
            table = stored_name(table, parse_duration(named["timeframe"]))
        except ValueError as error:
            return f"the interval in its name is of no fixed length: {error}"
    pair = named["pair"].replace("_", "/", 1).replace("_", ":", 1)
    return Match(table, _venue(sample.source, pair), pair, {"names": names, "is_text": is_text})


def _names_of_json(sample: Sample) -> tuple[str, ...]:
    head = sample.head.decode("utf-8", errors="replace")
    if not _CANDLES_BEGIN.match(head):
        return ()
    fields = head.partition("]")[0].count(",") + 1
    return next((names for names in (_CANDLE, _RATE) if len(names) == fields), ())


def _venue(source: Source, pair: str) -> str:
    folders = [name.lower() for name in source.folders[-2:]]
    exchange = folders[0] if folders[-1:] == ["futures"] else folders[-1] if folders else ""
    if exchange not in _VENUES:
        return "freqtrade"
    spot, futures = _VENUES[exchange]
    quote, _, settle = pair.partition("/")[2].partition(":")
    if exchange == "binance" and settle and not settle.startswith(quote):
        return "binance-delivery"  # margined in the coin itself
    return futures if settle else spot


def _read(source: Source, match: Match, account: Account) -> Iterator[Batch]:
    names = match.details["names"]
    columns = {name: Column(name, "number") for name in names} | {"date": Column("ts", "time")}
    frames = (
        (
            with_kinds(frame, columns, account, str(source))
            for frame in _json_records(source, names, account)
        )
        if match.details["is_text"]
        else read_records(source, columns, account)
    )
    for frame in frames:
        yield from canonical_batches(_with_meaning(frame, match, account), match, account)


def _with_meaning(frame: pl.DataFrame, match: Match, account: Account) -> pl.DataFrame:
    """Take off the fields that a candle of this kind only fills."""
    if match.table.startswith("bars_") or "open" not in frame.columns:
        return frame
    if match.table == "funding":
        filled = ["high", "low", "close", "volume"]
        used = frame.select(pl.any_horizontal(pl.col(filled).fill_null(0.0) != 0.0))
        account.note(MORE_THAN_A_RATE, int(used.to_series().sum()))
        return frame.drop(filled).rename({"open": "funding_rate"})
    idle = not (frame["volume"].fill_nan(None).fill_null(0.0) != 0.0).any()
    return frame.drop("volume") if idle else frame


def _json_records(
    source: Source, names: tuple[str, ...], account: Account
) -> Iterator[pl.DataFrame]:
    """Read a list of lists of numbers in batches.

    Raises:
        InputError: the text is no such list, or ends before the list does.
    """
    rows: list[list[float | None]] = []
    for number, element in elements_of(source):
        if not isinstance(element, list) or len(element) != len(names):
            account.reject(number, f"no list of {len(names)} numbers", json.dumps(element))
        elif not all(value is None or type(value) in (int, float) for value in element):
            account.reject(number, NO_NUMBER, json.dumps(element))
        else:
            rows.append([number, *element])
        if len(rows) == BATCH_ROWS:
            yield _frame(rows, names)
            rows = []
    if rows:
        yield _frame(rows, names)


def _frame(rows: list[list[float | None]], names: tuple[str, ...]) -> pl.DataFrame:
    # a time in milliseconds is whole, and far below the 2**53 up to which floats are exact
    schema = {ROW: pl.Int64} | dict.fromkeys(names, pl.Float64)
    return pl.DataFrame(rows, schema=schema, orient="row", strict=False)


FORMATS: tuple[Format, ...] = (Format("freqtrade candles", _match, _read),)
