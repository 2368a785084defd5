import gzip
import json

import polars as pl
import pyarrow.feather
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from margincast.core.errors import InputError
from margincast.data.formats import freqtrade
from margincast.data.formats.format import Hints
from margincast.data.formats.freqtrade import MORE_THAN_A_RATE, NO_NUMBER
from margincast.data.formats.registry import recognise
from margincast.data.formats.source import Source
from margincast.data.formats.testing import check_format, read_whole

NAME = "freqtrade candles"
START = 1_700_000_100_000
CANDLES = [[START + 300_000 * step, 1.5, 2.5, 1, 2.0, 10.25] for step in range(5)]


def written(folder, name, candles=CANDLES):
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    content = json.dumps(candles).encode()
    path.write_bytes(gzip.compress(content) if path.suffix == ".gz" else content)
    return Source(path)


def as_feather(folder, name, **columns):
    values = {"open": 1.5, "high": 2.5, "low": 1.0, "close": 2.0, "volume": 10.25} | columns
    times = pl.Series([candle[0] for candle in CANDLES]).cast(pl.Datetime("ms", "UTC"))
    frame = pl.DataFrame({"date": times.cast(pl.Datetime("ns", "UTC"))}).with_columns(
        pl.lit(value).alias(name) for name, value in values.items() if value is not None
    )
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    pyarrow.feather.write_feather(frame.to_arrow(), str(path), compression="lz4")
    return Source(path)


def test_the_shared_funding_rates(shared_data):
    path = shared_data / "data" / "native" / "samples" / "BTC_USDT_USDT-1h-funding_rate.feather"
    reading = check_format(Source(path), NAME)
    frame = reading.table("funding")
    assert len(frame) == 7_323
    assert frame.columns == ["symbol", "ts", "funding_rate", "_row"]
    assert (reading.match.symbol, reading.match.venue) == ("BTC/USDT:USDT", "freqtrade")
    assert not reading.account.events
    # the candle is called 1h; the venue pays every 8 h
    assert set(frame["ts"].dt.hour()) == {0, 8, 16}
    theirs = frame.select("ts", "funding_rate")
    ours = pl.read_parquet(shared_data / "data" / "funding" / "binance_perp_8h" / "BTCUSDT.parquet")
    both = ours.join(theirs, on="ts", suffix="_too")
    assert len(both) > 5_800
    assert (both["funding_rate"] - both["funding_rate_too"]).abs().max() < 1e-7


@pytest.mark.parametrize(
    ("folder", "name", "expected"),
    [
        ("binance", "BTC_USDT-5m.json", "bars_5m BTC/USDT binance"),
        (
            "binance/futures",
            "BTC_USDT_USDT-5m-futures.json",
            "bars_5m BTC/USDT:USDT binance-futures",
        ),
        (
            "binance/futures",
            "BTC_USD_BTC-1h-futures.json.gz",
            "bars_1h BTC/USD:BTC binance-delivery",
        ),
        ("bybit/futures", "ETH_USDT_USDT-8h-mark.json", "mark_bars_8h ETH/USDT:USDT bybit"),
        ("okx/futures", "ETH_USDT_USDT-1d-index.json", "index_bars_1d ETH/USDT:USDT okx"),
        (
            "gateio/futures",
            "1000X_USDT_USDT-1w-premiumIndex.json",
            "premium_bars_7d 1000X/USDT:USDT gate-io-futures",
        ),
        ("elsewhere", "BTC_USDT-5m.json", "bars_5m BTC/USDT freqtrade"),
        (
            "okx/futures",
            "BTC_USDT_USDT-240628-1h-futures.json",
            "bars_1h BTC/USDT:USDT-240628 okx",
        ),
    ],
)
def test_names_and_folders_say_pair_kind_interval_and_venue(tmp_path, folder, name, expected):
    reading = check_format(written(tmp_path, f"{folder}/{name}"), NAME)
    (table,) = reading.tables
    assert reading.tables == {table: 5}
    assert f"{table} {reading.match.symbol} {reading.match.venue}" == expected


def test_json_and_feather_give_the_same_candles(tmp_path):
    text = check_format(written(tmp_path, "BTC_USDT-5m.json"), NAME)
    table = check_format(as_feather(tmp_path, "BTC_USDT-5m.feather"), NAME)
    columns = ["symbol", "ts", "open", "high", "low", "close", "volume", "_row"]
    assert (
        text.table("bars_5m").select(columns).rows()
        == table.table("bars_5m").select(columns).rows()
    )
    assert text.table("bars_5m")["ts"].dt.timestamp("ms").to_list() == [row[0] for row in CANDLES]


def test_a_funding_rate_is_the_open_of_its_candle_or_a_column_of_its_own(tmp_path):
    zeros = dict.fromkeys(("high", "low", "close", "volume"), 0.0)
    name = "futures/X_USDT_USDT-1h-funding_rate.feather"
    old = check_format(as_feather(tmp_path / "old", name, open=-1e-4, **zeros), NAME)
    none = dict.fromkeys(("open", "high", "low", "close", "volume"))
    new = check_format(as_feather(tmp_path / "new", name, funding_rate=-1e-4, **none), NAME)
    rates = [[candle[0], -1e-4] for candle in CANDLES]
    text = check_format(written(tmp_path, name.replace("feather", "json"), rates), NAME)
    for reading in (old, new, text):
        assert reading.table("funding")["funding_rate"].to_list() == [-1e-4] * 5
        assert not reading.account.events
    odd = check_format(as_feather(tmp_path / "odd", name, **{**zeros, "close": 2e-4}), NAME)
    assert odd.account.events == {MORE_THAN_A_RATE: 5}


def test_the_empty_volume_of_a_mark_price_is_no_column(tmp_path):
    idle = check_format(as_feather(tmp_path, "X_USDT_USDT-1h-mark.feather", volume=0.0), NAME)
    assert "volume" not in idle.table("mark_bars_1h").columns


def test_records_that_are_no_candles_are_rejected_one_by_one(tmp_path):
    candles = [*CANDLES]
    candles[1] = CANDLES[1][:5]
    candles[2] = [*CANDLES[2][:4], "2.0", 1]
    candles[3] = {"date": 1}
    candles[4] = [*CANDLES[4][:5], None]
    reading = check_format(written(tmp_path, "X_USDT-5m.json", candles), NAME)
    assert {reject.row: reject.reason for reject in reading.account.rejects} == {
        2: "no list of 6 numbers",
        3: NO_NUMBER,
        4: "no list of 6 numbers",
    }
    frame = reading.table("bars_5m")
    assert frame["_row"].to_list() == [1, 5]
    assert frame["volume"].to_list() == [10.25, None]


@given(st.integers(1, 40), st.integers(1, 12))
@settings(max_examples=20)
def test_batches_do_not_change_the_rows(tmp_path_factory, count, size):
    candles = [[START + 60_000 * step, step + 0.5, 2.5, 1, 2.0, 10] for step in range(count)]
    source = written(tmp_path_factory.mktemp("x"), "X_USDT-1m.json", candles)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(freqtrade, "BATCH_ROWS", size)
        reading = read_whole(source)
    assert max(len(batch.frame) for batch in reading.batches) == min(size, count)
    frame = reading.table("bars_1m")
    assert frame["open"].to_list() == [candle[1] for candle in candles]
    assert frame["_row"].to_list() == list(range(1, count + 1))


@pytest.mark.parametrize("name", ["X_USDT-5m.json", "X_USDT-5m.json.gz"])
def test_a_list_that_ends_too_early_is_an_error(tmp_path, name):
    source = written(tmp_path, name, [[START + 300_000 * n, 1, 2, 1, 2, n] for n in range(9_000)])
    source.path.write_bytes(source.path.read_bytes()[:-30])
    with pytest.raises(InputError, match=r"X_USDT-5m\.json"):
        read_whole(source)


@pytest.mark.parametrize(
    ("name", "candles", "words"),
    [
        ("klines.json", CANDLES, "the file name is not as"),
        ("X_USDT-5m.json", [[1, 2, 3]], "its fields are not"),
        ("X_USDT-5m.json", [candle[:5] for candle in CANDLES], "its fields are not"),
        ("X_USDT-5m.json", [candle[:2] for candle in CANDLES], "the file name does not say so"),
        ("X_USDT-1Mo.json", CANDLES, "no fixed length"),
    ],
)
def test_what_is_no_candle_file_is_refused(tmp_path, name, candles, words):
    with pytest.raises(InputError, match=f"{NAME}: .*{words}"):
        recognise(written(tmp_path, name, candles), Hints())
