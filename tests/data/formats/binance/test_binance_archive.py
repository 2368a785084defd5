"""Samples are lines of the archive's own files, as its README and issue 283 show them."""

import gzip
import zipfile
from datetime import UTC, datetime, timedelta

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from polars.testing import assert_frame_equal

from margincast.core.errors import InputError
from margincast.data.formats.binance.archive import (
    FORMATS,
    NO_SIDE,
    NO_SYMBOL,
    OTHER_SYMBOL,
    REPEATED,
)
from margincast.data.formats.format import ROW, TRANSLATED, Hints
from margincast.data.formats.registry import recognise
from margincast.data.formats.source import Source, members_of
from margincast.data.formats.testing import check_format, read_whole
from margincast.data.formats.text import HEADER_IN_THE_MIDDLE, RAGGED

KLINES_HEADER = (
    "open_time,open,high,low,close,volume,close_time,quote_volume,count,"
    "taker_buy_volume,taker_buy_quote_volume,ignore\n"
)
USD_M_KLINES = KLINES_HEADER + (
    "1690848000000,4.255,4.256,4.252,4.252,25259.1,1690848059999,107451.0165,208,5452.3,23199.1103,0\n"
    "1690848060000,4.251,4.253,4.251,4.253,2476.0,1690848119999,10527.7466,92,1334.3,5673.4734,0\n"
)
OLD_USD_M_KLINES = (
    "1577836860000,7182.43,7182.44,7178.75,7179.01,70.909,1577836919999,"
    "509145.78482,140,32.597,234063.27884,0\n"
    "1577836920000,7179.01,7179.01,7175.25,7177.93,99.420,1577836979999,"
    "713539.55348,148,16.311,117066.92118,0\n"
)
COIN_M_KLINES = KLINES_HEADER + (
    "1698364800000,34161.6,34182.5,33977.4,34024.2,409953,1698368399999,1202.97118037,15095,"
    "192220,564.12041453,0\n"
    "1698368400000,34024.2,34060.1,33776.4,33848.4,740960,1698371999999,2183.75671155,23938,"
    "368266,1085.17080793,0\n"
)
SPOT_KLINES = (
    "1698364800000,34151.66000000,34171.28000000,33972.39000000,34015.27000000,908.27901000,"
    "1698368399999,30937869.62302600,41459,416.48838000,14187002.70550060,0\n"
    "1698368400000,34015.27000000,34054.48000000,33780.00000000,33848.47000000,1439.61708000,"
    "1698371999999,48834748.13159950,63969,583.65349000,19801364.63410430,0\n"
)
FINE_SPOT_KLINES = (
    "1735689600000000,93576.00000000,95151.15000000,92888.00000000,94591.79000000,10373.32613000,"
    "1735775999999999,975444098.91770420,1622494,5054.01550000,475410101.63900330,0\n"
)
INDEX_KLINES = (
    "1577836800000,7195.36581933,7195.97491024,7181.16863636,7181.31409091,0,1577837099999,"
    "0,300,0,0,0\n"
)
PREMIUM_KLINES = KLINES_HEADER + (
    "1704067200000,-0.00012300,0.00054321,-0.00100000,0.00000000,0,1704070799999,0,720,0,0,0\n"
)
USD_M_AGGREGATE_TRADES = (
    "agg_trade_id,price,quantity,first_trade_id,last_trade_id,transact_time,is_buyer_maker\n"
    "26129,0.01633102,4.70443515,27781,27783,1698793709153,true\n"
    "26130,0.01633103,1.5,27784,27784,1698793709160,false\n"
)
SPOT_AGGREGATE_TRADES = (
    "0,0.20000000,50.00000000,0,0,1608872400000,False,True\n"
    "1,0.20010000,5.00000000,1,3,1608872400500,True,True\n"
)
USD_M_TRADES = (
    "id,price,qty,quote_qty,time,is_buyer_maker\n"
    "173525189,11343.67,0.467,5297.49,1698793709153,true\n"
    "173525190,11343.68,1.428,16198.76,1698793709153,false\n"
)
OLD_USD_M_TRADES = USD_M_TRADES.partition("\n")[2]
COIN_M_TRADES = (
    "id,price,qty,base_qty,time,is_buyer_maker\n28457,9635.0,1,0.01037883,1591250192508,true\n"
)
SPOT_TRADES = "51175358,17.80180000,5.69000000,101.29224200,1583709433583,True,True\n"
FINE_SPOT_TRADES = "6172995294,68284.49,0.00007,4.77991430,1775001600062762,False,True\n"
BOOK_TICKER = (
    "update_id,best_bid_price,best_bid_qty,best_ask_price,best_ask_qty,transaction_time,event_time\n"
    "4321,42313.90,5.0,42314.00,3.25,1704067200017,1704067200021\n"
)
BOOK_DEPTH = (
    "timestamp,percentage,depth,notional\n"
    "2023-01-01 00:00:09,-5.00,6245.85700000,101243345.28420000\n"
    "2023-01-01 00:00:09,-0.20,551.25300000,9116541.41930000\n"
    "2023-01-01 00:00:09,0.20,403.93100000,6688331.21160000\n"
)
METRICS = (
    "create_time,symbol,sum_open_interest,sum_open_interest_value,"
    "count_toptrader_long_short_ratio,sum_toptrader_long_short_ratio,count_long_short_ratio,"
    "sum_taker_long_short_vol_ratio\n"
)
USD_M_METRICS = METRICS + (
    "2026-07-11 00:05:01,BTCUSDT,103887.929,6655883739.441257,1.39895175,1.34758900,1.26964914,"
    "0.40791800\n"
)
COIN_M_METRICS = METRICS + (
    '2023-06-25 00:00:00,BTCUSD_PERP,5578700.00000000,18265.00911826,"","","",0.00855776\n'
    '2023-06-25 00:05:00,BTCUSD_PERP,5578209.00000000,18261.90678854,"","","",1.19645130\n'
)
FUNDING_RATE = (
    "calc_time,funding_interval_hours,last_funding_rate\n"
    "1780272000001,8,0.00005703\n1780300800000,8,-0.00011000\n"
)
LIQUIDATIONS = (
    "time,side,order_type,time_in_force,original_quantity,price,average_price,order_status,"
    "last_fill_quantity,accumulated_fill_quantity\n"
    "1687656471926,BUY,LIMIT,IOC,7,30741.3,30631.6,FILLED,6,7\n"
    "1687656471926,BUY,LIMIT,IOC,7,30741.3,30631.6,FILLED,6,7\n"
    "1687656473356,SELL,LIMIT,IOC,43,30756.6,30631.5,FILLED,1,43\n"
)
UM, CM = "data/futures/um/daily", "data/futures/cm/daily"

SAMPLES = {
    "USD-M klines": ("FILUSDT-1m-2023-08.csv", USD_M_KLINES, "bars_1m", "binance-futures"),
    "old USD-M klines": ("BTCUSDT-1m-2020-01.csv", OLD_USD_M_KLINES, "bars_1m", "binance-futures"),
    "COIN-M klines": ("BTCUSD_PERP-1h-2023-10.csv", COIN_M_KLINES, "bars_1h", "binance-delivery"),
    "spot klines": ("BTCUSDT-1h-2023-10-27.csv", SPOT_KLINES, "bars_1h", "binance"),
    "fine spot klines": ("BTCUSDT-1d-2025-01.csv", FINE_SPOT_KLINES, "bars_1d", "binance"),
    "klines of a dated USD-M contract": (
        "BTCBUSD_210129-1m-2021-01.csv",
        OLD_USD_M_KLINES,
        "bars_1m",
        "binance-futures",
    ),
    "klines of a dated COIN-M contract": (
        "BNBUSD_231229-1h-2023-10.csv",
        COIN_M_KLINES,
        "bars_1h",
        "binance-delivery",
    ),
    "mark price klines": (
        f"{UM}/markPriceKlines/BTCUSDT/5m/BTCUSDT-5m-2020-01-01.csv",
        INDEX_KLINES,
        "mark_bars_5m",
        "binance-futures",
    ),
    "index price klines": (
        f"{CM}/indexPriceKlines/BTCUSD/5m/BTCUSD-5m-2020-01-01.csv",
        INDEX_KLINES,
        "index_bars_5m",
        "binance-delivery",
    ),
    "index price klines outside the archive's folders": (
        "indexPriceKlines/BTCUSD-5m-2020-01-01.csv",
        INDEX_KLINES,
        "index_bars_5m",
        "binance-delivery",
    ),
    "premium index klines": (
        f"{UM}/premiumIndexKlines/BTCUSDT/1h/BTCUSDT-1h-2024-01-01.csv",
        PREMIUM_KLINES,
        "premium_bars_1h",
        "binance-futures",
    ),
    "USD-M aggTrades": (
        "ADAUSDT-aggTrades-2023-11.csv",
        USD_M_AGGREGATE_TRADES,
        "aggregate_trades",
        "binance-futures",
    ),
    "COIN-M aggTrades": (
        "ADAUSD_PERP-aggTrades-2023-11.csv",
        USD_M_AGGREGATE_TRADES,
        "aggregate_trades",
        "binance-delivery",
    ),
    "spot aggTrades": (
        "ADAUSDT-aggTrades-2020-12.csv",
        SPOT_AGGREGATE_TRADES,
        "aggregate_trades",
        "binance",
    ),
    "USD-M trades": ("BTCUSDT-trades-2023-11.csv", USD_M_TRADES, "trades", "binance-futures"),
    "old USD-M trades": (
        "BTCUSDT-trades-2020-08.csv",
        OLD_USD_M_TRADES,
        "trades",
        "binance-futures",
    ),
    "COIN-M trades": (
        "a/BTCUSD_PERP-trades-2020-06.csv",
        COIN_M_TRADES,
        "trades",
        "binance-delivery",
    ),
    "spot trades": ("BNBUSDT-trades-2020-03.csv", SPOT_TRADES, "trades", "binance"),
    "fine spot trades": ("BTCUSDT-trades-2026-04-01.csv", FINE_SPOT_TRADES, "trades", "binance"),
    "bookTicker": ("BTCUSDT-bookTicker-2024-01-01.csv", BOOK_TICKER, "quotes", "binance-futures"),
    "bookDepth": ("BTCUSDT-bookDepth-2023-01-01.csv", BOOK_DEPTH, "depth_bands", "binance-futures"),
    "USD-M metrics": (
        "BTCUSDT-metrics-2026-07-11.csv",
        USD_M_METRICS,
        "open_interest",
        "binance-futures",
    ),
    "COIN-M metrics": (
        "BTCUSD_PERP-metrics-2023-06-25.csv",
        COIN_M_METRICS,
        "open_interest",
        "binance-delivery",
    ),
    "fundingRate": ("BTCUSDT-fundingRate-2026-06.csv", FUNDING_RATE, "funding", "binance-futures"),
    "fundingRate without a header": (
        "BTCUSDT-fundingRate-2020-01.csv",
        FUNDING_RATE.partition("\n")[2],
        "funding",
        "binance-futures",
    ),
    "liquidationSnapshot": (
        "BTCUSD_PERP-liquidationSnapshot-2023-06-25.csv",
        LIQUIDATIONS,
        "liquidations",
        "binance-delivery",
    ),
}


def format_of(table):
    names = {"aggregate_trades": "aggTrades", "trades": "trades", "quotes": "bookTicker"}
    names |= {"depth_bands": "bookDepth", "open_interest": "metrics", "funding": "fundingRate"}
    names |= {"liquidations": "liquidationSnapshot"}
    return f"Binance {names.get(table, 'klines')}"


def write(folder, name, text):
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return Source(path)


def check(folder, kind, hints=None):
    name, text, table, _ = SAMPLES[kind]
    return check_format(write(folder, name, text), format_of(table), hints)


def records_in(text):
    lines = text.splitlines()
    return len(lines) - (0 if lines[0][0].isdigit() else 1)


def first_row(reading):
    (batch,) = reading.batches
    return batch.frame.drop(ROW).row(0, named=True)


def utc(*parts):
    return datetime(*parts, tzinfo=UTC)


@pytest.mark.parametrize("kind", SAMPLES)
def test_each_kind_is_known_and_every_record_accounted_for(tmp_path, kind):
    name, text, table, venue = SAMPLES[kind]
    reading = check(tmp_path, kind)
    assert set(reading.tables) == {table}
    assert {batch.venue for batch in reading.batches} == {venue}
    symbol = name.rpartition("/")[2].partition("-")[0]
    assert set(reading.table(table)["symbol"]) == {symbol}
    assert reading.account.records == records_in(text)
    assert not reading.account.rejects
    assert reading.match.details["venue_from"]


@pytest.mark.parametrize("kind", SAMPLES)
def test_a_zip_archive_reads_as_the_file_in_it(tmp_path, kind):
    name, text, table, _ = SAMPLES[kind]
    plain = check(tmp_path, kind)
    path = (tmp_path / "zipped" / name).with_suffix(".zip")
    path.parent.mkdir(parents=True)
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr(f"{path.stem}.csv", text)
    (source,) = members_of(path)
    zipped = check_format(source, format_of(table))
    assert zipped.match == plain.match
    assert_frame_equal(zipped.table(table), plain.table(table))
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("data.csv", text)  # the name of the archive is name enough
    (source,) = members_of(path)
    assert_frame_equal(read_whole(source).table(table), plain.table(table))


def test_usd_m_klines(tmp_path):
    assert first_row(check(tmp_path, "USD-M klines")) == {
        "ts": utc(2023, 8, 1),
        "open": 4.255,
        "high": 4.256,
        "low": 4.252,
        "close": 4.252,
        "volume": 25259.1,
        "quote_volume": 107451.0165,
        "trade_count": 208,
        "taker_buy_volume": 5452.3,
        "taker_buy_quote_volume": 23199.1103,
        "symbol": "FILUSDT",
    }


def test_coin_m_klines_count_contracts_and_coins_not_quote_currency(tmp_path):
    row = first_row(check(tmp_path, "COIN-M klines"))
    assert row["volume"] == 409_953
    assert row["base_volume"] == 1202.97118037
    assert row["taker_buy_volume"] == 192_220
    assert row["taker_buy_base_volume"] == 564.12041453
    assert not {"quote_volume", "taker_buy_quote_volume"} & set(row)
    # a BTCUSD contract is worth 100 dollars, which gives the price back
    assert row["volume"] * 100 / row["base_volume"] == pytest.approx(row["close"], rel=0.005)


def test_prices_at_which_nobody_trades_have_no_volumes(tmp_path):
    assert first_row(check(tmp_path, "index price klines")) == {
        "ts": utc(2020, 1, 1),
        "open": 7195.36581933,
        "high": 7195.97491024,
        "low": 7181.16863636,
        "close": 7181.31409091,
        "observations": 300,
        "symbol": "BTCUSD",
    }


def test_spot_times_in_microseconds(tmp_path):
    row = first_row(check(tmp_path, "fine spot klines"))
    assert row["ts"] == utc(2025, 1, 1)
    assert "close_time" not in row
    assert first_row(check(tmp_path, "fine spot trades"))["ts"] == utc(2026, 4, 1, 0, 0, 0, 62762)


def test_trades_carry_the_side_of_the_aggressor(tmp_path):
    reading = check(tmp_path, "USD-M trades")
    assert first_row(reading) == {
        "trade_id": 173_525_189,
        "price": 11343.67,
        "size": 0.467,
        "quote_size": 5297.49,
        "ts": utc(2023, 10, 31, 23, 8, 29, 153_000),
        "side": "sell",  # the buyer's order was resting
        "symbol": "BTCUSDT",
    }
    assert reading.table("trades")["side"].to_list() == ["sell", "buy"]
    spot = check(tmp_path, "spot aggTrades").table("aggregate_trades")
    assert spot["side"].to_list() == ["buy", "sell"]
    assert spot["trade_id"].to_list() == [0, 1]
    assert spot["last_trade_id"].to_list() == [0, 3]
    assert spot["is_best_match"].to_list() == [True, True]
    assert check(tmp_path, "COIN-M trades").table("trades")["base_size"].item() == 0.01037883


@pytest.mark.parametrize("header", [True, False])
def test_coin_m_trades_name_the_coin_with_and_without_a_header(tmp_path, header):
    text = COIN_M_TRADES if header else COIN_M_TRADES.partition("\n")[2]
    source = write(tmp_path, "BTCUSD_PERP-trades-2020-06.csv", text)
    row = first_row(check_format(source, "Binance trades"))
    assert row["base_size"] == 0.01037883
    assert "quote_size" not in row


def test_quotes_have_the_time_of_the_transaction_and_keep_that_of_the_event(tmp_path):
    assert first_row(check(tmp_path, "bookTicker")) == {
        "sequence": 4321,
        "bid_price_0": 42313.9,
        "bid_size_0": 5.0,
        "ask_price_0": 42314.0,
        "ask_size_0": 3.25,
        "ts": utc(2024, 1, 1, 0, 0, 0, 17_000),
        "event_time": utc(2024, 1, 1, 0, 0, 0, 21_000),
        "symbol": "BTCUSDT",
    }


def test_depth_bands_keep_the_sign_of_their_side(tmp_path):
    bands = check(tmp_path, "bookDepth").table("depth_bands")
    assert bands["percentage"].to_list() == [-5.0, -0.2, 0.2]
    assert bands["ts"].unique().to_list() == [utc(2023, 1, 1, 0, 0, 9)]


def test_open_interest_is_in_dollars_or_in_coins(tmp_path):
    row = first_row(check(tmp_path, "USD-M metrics"))
    assert row["ts"] == utc(2026, 7, 11, 0, 5, 1)
    assert row["open_interest"] == 103_887.929
    assert row["open_interest_usd"] == 6_655_883_739.441257
    assert row["count_long_short_ratio"] == 1.26964914
    coin = first_row(check(tmp_path, "COIN-M metrics"))
    assert coin["open_interest"] == 5_578_700.0
    assert coin["open_interest_base"] == 18_265.00911826
    assert "open_interest_usd" not in coin
    assert coin["count_long_short_ratio"] is None


def test_funding_keeps_the_jitter_of_its_time_and_its_interval(tmp_path):
    for kind in ("fundingRate", "fundingRate without a header"):
        frame = check(tmp_path, kind).table("funding")
        assert frame["funding_rate"].to_list() == [0.00005703, -0.00011]
        assert frame["ts"][0] == utc(2026, 6, 1, 0, 0, 0, 1_000)
        assert frame["funding_interval_hours"].to_list() == [8, 8]


def test_a_liquidation_is_what_its_order_closed_once(tmp_path):
    reading = check(tmp_path, "liquidationSnapshot")
    frame = reading.table("liquidations")
    assert frame["side"].to_list() == ["buy", "sell"]
    assert frame["size"].to_list() == [7.0, 43.0]
    assert frame["price"].to_list() == [30631.6, 30631.5]
    assert frame["order_price"].to_list() == [30741.3, 30756.6]
    assert frame["last_fill_quantity"].to_list() == [6.0, 1.0]
    assert frame["original_quantity"].to_list() == [7.0, 43.0]
    assert frame["order_status"].to_list() == ["FILLED"] * 2
    assert frame[ROW].to_list() == [1, 3]
    assert dict(reading.account.outcomes) == {TRANSLATED: 2, REPEATED: 1}


@pytest.mark.parametrize("block", [150, 200, 300, 10_000])
def test_repeats_are_left_out_wherever_blocks_end(tmp_path, monkeypatch, block):
    monkeypatch.setattr("margincast.data.formats.text._BLOCK_BYTES", block)
    header, one, _, other = LIQUIDATIONS.splitlines()
    text = "\n".join([header, *(line for _ in range(6) for line in (one, one, other, other))])
    source = write(tmp_path, "BTCUSD_PERP-liquidationSnapshot-2023-06-25.csv", text)
    reading = check_format(source, "Binance liquidationSnapshot")
    assert reading.table("liquidations")[ROW].to_list() == list(range(1, 25, 2))
    assert dict(reading.account.outcomes) == {TRANSLATED: 12, REPEATED: 12}


@pytest.mark.parametrize("side", ["", "LONG", "buy or sell"])
def test_a_liquidation_without_a_side_is_rejected(tmp_path, side):
    text = LIQUIDATIONS.replace("SELL", side)
    source = write(tmp_path, "BTCUSD_PERP-liquidationSnapshot-2023-06-25.csv", text)
    reading = check_format(source, "Binance liquidationSnapshot")
    assert [(reject.row, reject.reason) for reject in reading.account.rejects] == [(3, NO_SIDE)]
    assert reading.account.records == 3


DAY = "1690848000000,1,1,1,1,5,1690934399999,5,1,5,5,0\n"


def test_a_close_time_that_is_not_the_end_of_its_bar_is_kept(tmp_path):
    odd = DAY.replace("1690848000000", "1690934400000").replace("1690934399999", "1690999999999")
    source = write(tmp_path, "BTCUSDT-1d-2023-08.csv", KLINES_HEADER + DAY * 2 + odd)
    frame = check_format(source, "Binance klines").table("bars_1d")
    assert frame["close_time"].to_list()[-1] == utc(2023, 8, 2, 18, 13, 19, 999_000)


@pytest.mark.parametrize("interval", ["1s", "1m", "3m", "30m", "2h", "12h", "1d", "3d", "1w"])
@pytest.mark.parametrize("unit", [1, 1000])
def test_the_interval_shows_in_the_records_and_must_agree_with_the_name(tmp_path, interval, unit):
    seconds = (
        int(interval[:-1]) * {"s": 1, "m": 60, "h": 3600, "d": 86400, "w": 604800}[interval[-1]]
    )
    start, length = 1_690_848_000_000 * unit, seconds * 1000 * unit
    text = "".join(
        f"{start + bar * length},4.25000000,4,4,4.25000000,1,{start + (bar + 1) * length - 1},"
        "4,1,1,4,0\n"
        for bar in range(3)
    )
    hints = Hints(symbol="BTCUSDT")
    stored = f"bars_{interval}".replace("1w", "7d")
    for name in ("bars.csv", f"BTCUSDT-{interval}-2023-08.csv"):
        reading = check_format(write(tmp_path, name, text), "Binance klines", hints)
        assert reading.tables == {stored: 3}
        assert reading.match.details["interval"] == timedelta(seconds=seconds)
    other = "4h"
    with pytest.raises(InputError, match=f"name says bars of {other}, its records are bars of"):
        recognise(write(tmp_path, f"BTCUSDT-{other}-2023-08.csv", text))


@pytest.mark.parametrize(
    ("name", "text", "why"),
    [
        (
            "BTCUSDT-1mo-2023-08.csv",
            KLINES_HEADER + "1690848000000,1,1,1,1,5,1693526399999,5,1,5,5,0\n",
            "bars of calendar months have no fixed length",
        ),
        (
            "BTCUSDT-1m-2023-08.csv",
            KLINES_HEADER + "1690848000000,1,1,1,1,5,1690848007999,5,1,5,5,0\n",
            "bars of 0:00:08, which is no interval of the archive",
        ),
        ("BTCUSDT-1h-2023-08.csv", KLINES_HEADER, "no record from whose open and close time"),
        ("bars.csv", USD_M_KLINES, "says the symbol; give it with --symbol"),
        ("BTCUSDT-5m-2020-01.csv", INDEX_KLINES, "--table mark_bars, index_bars or premium_bars"),
        (
            "klines/BTCUSDT-5m-2020-01.csv",
            INDEX_KLINES,
            "--table mark_bars, index_bars or premium_bars",
        ),
        (
            "markPriceKlines/FILUSDT-1m-2023-08.csv",
            USD_M_KLINES,
            "bars with volume in a folder of mark_bars",
        ),
        ("rates.csv", FUNDING_RATE.partition("\n")[2], "says that it is fundingRate"),
    ],
)
def test_a_doubt_is_a_refusal_that_says_what_to_do(tmp_path, name, text, why):
    source = write(tmp_path, name, text)
    with pytest.raises(InputError, match=why):
        recognise(source, formats=FORMATS)


@pytest.mark.parametrize("table", ["mark_bars", "index_bars_5m", "premium_bars"])
def test_the_user_says_which_price_bars_without_volume_are_of(tmp_path, table):
    source = write(tmp_path, "BTCUSDT-5m-2020-01.csv", INDEX_KLINES)
    reading = check_format(source, "Binance klines", Hints(table=table))
    assert reading.tables == {table.removesuffix("_5m") + "_5m": 1}


def test_a_stale_contract_has_bars_without_volume_and_without_trades(tmp_path):
    text = KLINES_HEADER + "1690848000000,1.5,1.5,1.5,1.5,0,1690851599999,0,0,0,0,0\n"
    source = write(tmp_path, "FTTUSDT-1h-2023-08.csv", text)
    frame = check_format(source, "Binance klines").table("bars_1h")
    assert frame["volume"].item() == frame["trade_count"].item() == 0


@pytest.mark.parametrize(
    ("folder", "venue"),
    [
        ("data/futures/um/monthly/klines/BTCUSDT/1h", "binance-futures"),
        ("data/futures/cm/monthly/klines/BTCUSDT/1h", "binance-delivery"),
        ("data/spot/monthly/klines/BTCUSDT/1h", "binance"),
        ("um", "binance"),
    ],
)
def test_the_archives_folders_say_the_market(tmp_path, folder, venue):
    source = write(tmp_path, f"{folder}/BTCUSDT-1h-2023-10.csv", SPOT_KLINES)
    assert check_format(source, "Binance klines").match.venue == venue


def test_folders_inside_an_archive_count(tmp_path):
    path = tmp_path / "all.zip"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr(f"{UM}/markPriceKlines/BTCUSDT/5m/BTCUSDT-5m-2020-01-01.csv", INDEX_KLINES)
        archive.writestr("spot/daily/trades/BTCUSDT/BTCUSDT-trades-2020-01-01.csv", USD_M_TRADES)
    trades, marks = sorted(
        (read_whole(source) for source in members_of(path)), key=lambda reading: reading.match.venue
    )
    assert (trades.match.table, trades.match.venue) == ("trades", "binance")
    assert (marks.match.table, marks.match.venue) == ("mark_bars_5m", "binance-futures")


def test_the_users_word_stands_over_what_was_recognised(tmp_path):
    hints = Hints(venue="binance-delivery", symbol="BTCUSD_PERP")
    reading = check(tmp_path, "USD-M klines", hints)
    assert reading.match.venue == "binance-delivery"
    row = first_row(reading)
    assert row["symbol"] == "BTCUSD_PERP"
    assert row["base_volume"] == 107451.0165


def test_a_record_of_another_symbol_is_noted_and_its_word_kept(tmp_path):
    text = USD_M_METRICS + USD_M_METRICS.splitlines()[1].replace("BTCUSDT", "ETHUSDT") + "\n"
    source = write(tmp_path, "BTCUSDT-metrics-2026-07-11.csv", text)
    reading = check_format(source, "Binance metrics")
    frame = reading.table("open_interest")
    assert frame["symbol"].to_list() == ["BTCUSDT"] * 2
    assert frame["source_symbol"].to_list() == ["BTCUSDT", "ETHUSDT"]
    assert reading.account.events[OTHER_SYMBOL] == 1


def test_the_records_say_the_symbol_where_the_files_name_does_not(tmp_path):
    row = USD_M_METRICS.splitlines()[1] + "\n"
    text = USD_M_METRICS + row.replace("BTCUSDT", "ETHUSDT") + row.replace("BTCUSDT", "")
    reading = check_format(write(tmp_path, "merged.csv", text), "Binance metrics")
    assert reading.match.symbol is None
    assert reading.table("open_interest")["symbol"].to_list() == ["BTCUSDT", "ETHUSDT"]
    assert [(reject.row, reject.reason) for reject in reading.account.rejects] == [(3, NO_SYMBOL)]


@pytest.mark.parametrize("symbol", ["币安人生USDT", "1000SHIBUSDT", "4USDT", "BTCUSDT_240329"])
def test_symbols_with_odd_characters(tmp_path, symbol):
    source = write(tmp_path, f"{symbol}-1m-2023-08.csv", USD_M_KLINES)
    assert check_format(source, "Binance klines").match.symbol == symbol


@pytest.mark.parametrize(
    ("kind", "column"),
    [
        ("USD-M klines", "close"),
        ("USD-M aggTrades", "is_buyer_maker"),
        ("USD-M trades", "price"),
        ("bookTicker", "update_id"),
        ("bookDepth", "notional"),
        ("USD-M metrics", "sum_open_interest_value"),
        ("fundingRate", "last_funding_rate"),
        ("liquidationSnapshot", "accumulated_fill_quantity"),
    ],
)
def test_a_file_that_lacks_a_column_is_refused_by_its_name(tmp_path, kind, column):
    name, text, _, _ = SAMPLES[kind]
    names = text.partition("\n")[0].split(",")
    left_out = names.index(column)
    rows = [line.split(",") for line in text.splitlines()]
    rest = "\n".join(",".join(row[:left_out] + row[left_out + 1 :]) for row in rows) + "\n"
    with pytest.raises(InputError, match=f"the header has no column {column}"):
        recognise(write(tmp_path, name, rest), formats=FORMATS)


def test_headings_in_other_words_are_not_read_by_position(tmp_path):
    text = USD_M_KLINES.replace("open_time", "Open time").replace("low,close", "close,low")
    with pytest.raises(InputError, match="the header has no column open_time"):
        recognise(write(tmp_path, "FILUSDT-1m-2023-08.csv", text), formats=FORMATS)


def test_faulty_lines_are_rejected_and_the_others_read(tmp_path):
    header, first, second = USD_M_KLINES.splitlines()
    text = "\n".join(
        (header, first, "1690848060000,4.2x1" + second[19:], header, second[:30], "", second, "")
    )
    source = write(tmp_path, "FILUSDT-1m-2023-08.csv", text)
    reading = check_format(source, "Binance klines")
    assert reading.table("bars_1m")[ROW].to_list() == [1, 5]
    assert sorted((reject.row, reject.reason) for reject in reading.account.rejects) == [
        (2, "column 'open' is not a number"),
        (3, HEADER_IN_THE_MIDDLE),
        (4, RAGGED),
    ]
    assert reading.account.records == 5


def test_a_garbled_first_line_does_not_hide_what_a_file_is(tmp_path):
    text = "16908x,a" + SPOT_KLINES[13:] + SPOT_KLINES * 2
    reading = check_format(write(tmp_path, "BTCUSDT-1h-2023-10.csv", text), "Binance klines")
    assert reading.match.venue == "binance"
    assert reading.account.outcomes[TRANSLATED] == 5
    assert [reject.row for reject in reading.account.rejects] == [1]


@pytest.mark.parametrize("compress", [gzip.compress, None])
def test_a_truncated_file_is_an_error_never_a_shorter_table(tmp_path, compress):
    text = KLINES_HEADER + "".join(
        f"{1_690_848_000_000 + bar * 60_000},4.{bar},5,4,4.5,{bar}.5,"
        f"{1_690_848_059_999 + bar * 60_000},9.{bar},{bar + 1},1,4,0\n"
        for bar in range(20_000)
    )
    path = tmp_path / f"FILUSDT-1m-2023-08.{'csv.gz' if compress else 'zip'}"
    if compress:
        path.write_bytes(compress(text.encode())[:-2000])
        (source,) = members_of(path)
    else:
        with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
            archive.writestr("FILUSDT-1m-2023-08.csv", text)
        whole = bytearray(path.read_bytes())
        whole[len(whole) // 2] ^= 0xFF
        path.write_bytes(bytes(whole))
        (source,) = members_of(path)
    with pytest.raises(InputError, match="is damaged or incomplete after byte"):
        read_whole(source)


TRADE = st.tuples(
    st.integers(1, 2**40),
    st.decimals(1, 10**5, places=2),
    st.decimals(0, 10**4, places=3),
    st.integers(1_577_836_800_000, 1_893_456_000_000),
    st.booleans(),
)


@settings(max_examples=20)
@given(st.lists(TRADE, min_size=1, max_size=20))
def test_every_dialect_of_the_archive_says_the_same(tmp_path_factory, trades):
    def lines(unit, word, tail):
        return "".join(
            f"{number},{price},{size},{price * size},{time * unit},{word(is_maker)}{tail}\n"
            for number, price, size, time, is_maker in trades
        )

    dialects = {
        "futures": "id,price,qty,quote_qty,time,is_buyer_maker\n"
        + lines(1, lambda flag: str(flag).lower(), ""),
        "old futures": lines(1, lambda flag: str(flag).lower(), ""),
        "spot": lines(1, str, ",True"),
        "fine spot": lines(1000, str, ",True"),
    }
    folder = tmp_path_factory.getbasetemp() / "dialects"
    frames = {}
    for dialect, text in dialects.items():
        source = write(folder, f"{dialect}/BTCUSDT-trades-2024-01.csv", text)
        reading = read_whole(source, formats=FORMATS)
        assert reading.match.venue == ("binance" if "spot" in dialect else "binance-futures")
        frames[dialect] = reading.table("trades").drop("is_best_match", strict=False)
    for frame in frames.values():
        assert_frame_equal(frame, frames["futures"])
    expected = ["sell" if is_maker else "buy" for *_, is_maker in trades]
    assert frames["futures"]["side"].to_list() == expected


def test_the_shared_month_of_minutes(shared_data):
    path = shared_data / "data" / "native" / "samples" / "FILUSDT-1m-2023-08.csv"
    if not path.exists():
        pytest.skip(f"{path.name} is not among the shared files")
    reading = check_format(Source(path), "Binance klines")
    assert (reading.match.venue, reading.match.symbol) == ("binance-futures", "FILUSDT")
    lines = path.read_bytes().splitlines()
    assert reading.tables == {"bars_1m": len(lines) - 1}
    assert reading.account.outcomes[TRANSLATED] == reading.account.records == 7999
    bars = reading.table("bars_1m")
    assert bars["ts"].is_sorted()
    assert bars["ts"].diff().drop_nulls().unique().to_list() == [timedelta(minutes=1)]
    assert bars["volume"].sum() == pytest.approx(
        sum(float(line.split(b",")[5]) for line in lines[1:])
    )
    assert (bars["low"] <= bars["high"]).all()
    assert bars.select(pl.all().null_count()).row(0) == (0,) * bars.width
