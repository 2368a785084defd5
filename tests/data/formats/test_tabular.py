import gzip
from datetime import UTC, datetime, timedelta
from pathlib import Path

import polars as pl
import pyarrow as pa
import pyarrow.feather
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from polars.testing import assert_frame_equal

from margincast.core.errors import InputError
from margincast.data.formats import flat_file
from margincast.data.formats.format import ROW, TRANSLATED, Hints
from margincast.data.formats.registry import recognise
from margincast.data.formats.source import Source
from margincast.data.formats.tabular import symbol_in_name
from margincast.data.formats.testing import Reading, check_format, read_whole
from margincast.data.formats.text import HEADER_IN_THE_MIDDLE, RAGGED

NAME = "canonical table"
HOUR = 3_600_000_000
START = 1_700_000_000_000_000 // HOUR * HOUR
BARS = "timestamp,open,high,low,close,volume\n"


def hourly(count: int = 6) -> list[int]:
    return [START + HOUR * step for step in range(count)]


def bar_lines(count: int = 6) -> str:
    return "".join(f"{ts // 1000},1.5,2.5,1.0,2.0,7\n" for ts in hourly(count))


def bars_frame(count: int = 6) -> pl.DataFrame:
    return pl.DataFrame(
        {
            "ts": pl.Series(hourly(count)).cast(pl.Datetime("us", "UTC")),
            "open": [1.5] * count,
            "high": [2.5] * count,
            "low": [1.0] * count,
            "close": [2.0] * count,
            "volume": [7.0] * count,
        }
    )


def written(folder: Path, name: str, text: str) -> Source:
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return Source(path)


def stored(folder: Path, name: str, frame: pl.DataFrame) -> Source:
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    frame.write_parquet(path)
    return Source(path)


def check(source: Source, **hints: str) -> Reading:
    return check_format(source, NAME, Hints(**hints))


def refusal(source: Source, **hints: str) -> str:
    with pytest.raises(InputError) as caught:
        recognise(source, Hints(**hints))
    return next(line for line in str(caught.value).splitlines() if line.startswith(f"  {NAME}"))


# ---------------------------------------------------------------- real files


@pytest.mark.parametrize(
    ("folder", "table", "files"),
    [
        ("bars/binance_perp_1h", "bars_1h", 5),
        ("bars/binance_alts_1h", "bars_1h", 24),
        ("bars/binance_spot_5m", "bars_5m", 2),
        ("bars/binance_perp_1m_months", "bars_1m", 2),
        ("funding/binance_perp_8h", "funding", 4),
    ],
)
def test_the_shared_tables_are_known_by_columns_and_spacing(shared_data, folder, table, files):
    paths = sorted((shared_data / "data" / folder).glob("*.parquet"))
    assert len(paths) == files
    for path in paths:
        reading = read_whole(Source(path))
        rows = pq.read_metadata(path).num_rows
        assert reading.tables == {table: rows}
        assert reading.account.outcomes == {TRANSLATED: rows}
        assert reading.match.venue == path.parent.name
        assert reading.table(table)["symbol"].unique().to_list() == [path.stem]


def test_trade_counts_of_minute_bars_get_their_canonical_name(shared_data):
    path = shared_data / "data" / "bars" / "binance_perp_1m_months" / "AVAXUSDT.parquet"
    frame = check(Source(path)).table("bars_1m")
    assert len(frame) == 41_760
    assert_frame_equal(
        frame.select(pl.col("trade_count").alias("count"), pl.col("volume")),
        pl.read_parquet(path, columns=["count", "volume"]).cast(pl.Float64),
    )


def test_the_20_level_book_keeps_every_value(shared_data):
    path = shared_data / "data" / "book" / "standx_BTC-USD_book20_1s.parquet"
    reading = check(Source(path), venue="standx")
    frame = reading.table("book")
    original = pl.read_parquet(path)
    assert len(frame) == 147_941
    assert frame.columns[:2] == ["symbol", "ts"]
    renamed = original.rename(lambda name: name.replace("_qty_", "_size_"))
    levels = [name for name in renamed.columns if name.startswith(("bid_", "ask_"))]
    assert len(levels) == 80
    assert_frame_equal(frame.select(levels), renamed.select(levels))
    assert frame["is_valid"].dtype == pl.Boolean
    assert (frame["ts"].dt.timestamp("ns") == original["timestamp"].dt.timestamp("ns")).all()
    assert frame[ROW].to_list() == list(range(1, len(frame) + 1))
    assert {batch.venue for batch in reading.batches} == {"standx"}


def test_trades_of_a_vendor_s_parquet(shared_data):
    path = shared_data / "data" / "trades" / "standx_BTC-USD_trades.parquet"
    frame = check(Source(path), venue="standx").table("trades")
    assert len(frame) == 306_657
    # the feed says SELL of every trade: what a feed says is kept, to judge it is for the check
    assert frame["side"].unique().to_list() == ["sell"]
    assert frame["quote_quantity"].null_count() == len(frame)
    assert (frame["received_at"] >= frame["ts"]).all()


@pytest.mark.parametrize(
    ("name", "table", "symbol", "first"),
    [
        ("samples/1000LUNC_USDT_1h.csv", "bars_1h", "1000LUNC_USDT", "2022-09-09 13:00"),
        (
            "vendor_fixtures/btc-perp-20211231-20220201_1m.csv",
            "bars_1m",
            "btc-perp",
            "2021-12-31 23:01",
        ),
        ("vendor_fixtures/binance/btcusdt-quotes.parquet", "quotes", "BTC/USDT", "2021-01-08"),
    ],
)
def test_small_tables_of_other_tools(shared_data, name, table, symbol, first):
    path = shared_data / "data" / "native" / name
    reading = check(Source(path))
    rows = (
        len(path.read_bytes().splitlines()) - 1
        if path.suffix == ".csv"
        else pq.read_metadata(path).num_rows
    )
    assert reading.tables == {table: rows}
    frame = reading.table(table)
    assert frame["symbol"].unique().to_list() == [symbol]
    assert str(frame["ts"][0]).startswith(first)


def test_trades_whose_side_is_the_maker_s_need_a_mapping(shared_data):
    path = shared_data / "data" / "native" / "vendor_fixtures" / "binance"
    source = Source(path / "btcusdt-trades.parquet")
    assert "made up of its columns" in refusal(source)
    assert "needs the column(s) side" in refusal(source, table="trades")


# ---------------------------------------------------------------- storage does not matter

trades = st.lists(
    st.tuples(
        st.integers(0, 10**12),
        st.floats(0.01, 1e6),
        st.floats(0.0, 1e6),
        st.sampled_from(["buy", "sell", "BUY", "Sell"]),
        st.sampled_from(["BTC-USD", "ETH/USDT:USDT", "1000Ж", "a b"]),
    ),
    min_size=1,
    max_size=30,
)


@given(trades)
@settings(max_examples=20)
def test_parquet_feather_and_text_give_the_same_rows(tmp_path_factory, rows):
    folder = tmp_path_factory.mktemp("trades")
    frame = pl.DataFrame(
        {
            "timestamp": pl.Series([START + row[0] for row in rows]).cast(pl.Datetime("us", "UTC")),
            "price": [row[1] for row in rows],
            "quantity": [row[2] for row in rows],
            "side": [row[3] for row in rows],
            "symbol": [row[4] for row in rows],
            "trade_id": pl.Series(range(len(rows)), dtype=pl.Int64),
        }
    )
    numbers = frame.with_columns(pl.col("timestamp").dt.timestamp("us"))
    frame.write_parquet(folder / "1.parquet")
    pa.feather.write_feather(frame.to_arrow(), str(folder / "2.feather"), compression="lz4")
    numbers.write_parquet(folder / "3.parquet")
    numbers.write_csv(folder / "4.csv")
    numbers.write_csv(folder / "5.csv", separator=";")
    numbers.write_csv(folder / "6.tsv", separator="\t")
    (folder / "7.csv.gz").write_bytes(gzip.compress((folder / "4.csv").read_bytes()))
    with pa.output_stream(str(folder / "8.csv.zst"), compression="zstd") as stream:
        stream.write((folder / "4.csv").read_bytes())
    frame.with_columns(pl.col("timestamp").dt.to_string("iso:strict")).write_csv(folder / "9.csv")
    readings = [read_whole(Source(path)) for path in sorted(folder.iterdir())]
    assert len(readings) == 9
    expected = readings[0].table("trades")
    assert expected["ts"].to_list() == frame["timestamp"].to_list()
    assert expected["side"].to_list() == [row[3].lower() for row in rows]
    assert expected["symbol"].to_list() == [row[4] for row in rows]
    for reading in readings:
        assert reading.account.outcomes == {TRANSLATED: len(rows)}
        assert_frame_equal(reading.table("trades"), expected, check_column_order=False)


@pytest.mark.parametrize(
    ("unit", "per_second"), [("s", 1), ("ms", 10**3), ("us", 10**6), ("ns", 10**9)]
)
def test_whole_numbers_are_times_whose_unit_shows_in_their_size(tmp_path, unit, per_second):
    moments = [ts * per_second // 10**6 for ts in hourly()]
    frame = bars_frame().with_columns(pl.Series("ts", moments, dtype=pl.Int64))
    found = check(stored(tmp_path, f"{unit}.parquet", frame)).table("bars_1h")
    assert found["ts"].dt.timestamp("us").to_list() == hourly()


def test_a_time_without_a_zone_is_utc_and_another_zone_is_converted(tmp_path):
    naive = bars_frame().with_columns(pl.col("ts").dt.replace_time_zone(None))
    tokyo = bars_frame().with_columns(pl.col("ts").dt.convert_time_zone("Asia/Tokyo"))
    for name, frame in (("naive", naive), ("tokyo", tokyo)):
        found = check(stored(tmp_path, f"{name}.parquet", frame)).table("bars_1h")
        assert found["ts"].dt.timestamp("us").to_list() == hourly()


def test_dates_are_the_midnights_that_open_them(tmp_path):
    days = [datetime(2024, 1, day, tzinfo=UTC).date() for day in range(1, 6)]
    frame = bars_frame(5).drop("ts").with_columns(pl.Series("date", days))
    found = check(stored(tmp_path, "X.parquet", frame)).table("bars_1d")
    assert found["ts"][1] == datetime(2024, 1, 2, tzinfo=UTC)


def test_receive_times_are_rounded_up_and_exchange_times_down(tmp_path):
    moments = pl.Series([1_700_000_000_000_000_001, 1_700_000_000_000_001_000]).cast(
        pl.Datetime("ns", "UTC")
    )
    frame = pl.DataFrame(
        {"ts": moments, "received_at": moments, "price": 1.0, "size": 1.0, "side": "buy"}
    )
    found = check(stored(tmp_path, "X.parquet", frame)).table("trades")
    assert (found["ts"].dt.timestamp("us") % 1000).to_list() == [0, 1]
    assert (found["received_at"].dt.timestamp("us") % 1000).to_list() == [1, 1]


def test_numbers_that_are_stored_narrow_or_as_text_are_read_as_numbers(tmp_path):
    frame = bars_frame().with_columns(
        pl.col("volume").cast(pl.Int32), pl.col("open").cast(pl.Float32), pl.col("close").cast(str)
    )
    found = check(stored(tmp_path, "X.parquet", frame)).table("bars_1h")
    assert found.select("open", "close", "volume").dtypes == [pl.Float64] * 3
    assert found["close"].to_list() == [2.0] * 6


def test_batches_are_bounded_and_rows_do_not_depend_on_them(tmp_path, monkeypatch):
    source = stored(tmp_path, "X.parquet", bars_frame(5_000))
    whole = read_whole(source)
    monkeypatch.setattr(flat_file, "BATCH_ROWS", 1_000)
    parts = read_whole(source)
    assert [len(batch.frame) for batch in parts.batches] == [1_000] * 5
    assert_frame_equal(parts.table("bars_1h"), whole.table("bars_1h"))


def test_a_feather_file_is_read_in_pieces(tmp_path, monkeypatch):
    path = tmp_path / "X.feather"
    pa.feather.write_feather(bars_frame(2_500).to_arrow(), str(path), compression="zstd")
    monkeypatch.setattr(flat_file, "BATCH_ROWS", 1_000)
    reading = check(Source(path))
    assert [len(batch.frame) for batch in reading.batches] == [1_000, 1_000, 500]
    assert reading.table("bars_1h")["ts"].dt.timestamp("us").to_list() == hourly(2_500)


def test_codes_of_a_dictionary_become_text(tmp_path):
    frame = pl.DataFrame(
        {
            "ts": pl.Series(hourly(4)).cast(pl.Datetime("us", "UTC")),
            "price": 1.0,
            "size": 1.0,
            "side": pl.Series(["BUY", "SELL", "BUY", "BUY"], dtype=pl.Categorical),
            "liquidity": pl.Series(["taker"] * 4, dtype=pl.Categorical),
        }
    )
    found = check(stored(tmp_path, "X.parquet", frame)).table("trades")
    assert found["side"].to_list() == ["buy", "sell", "buy", "buy"]
    assert found["liquidity"].dtype == pl.String


# ---------------------------------------------------------------- names, folders, partitions


@pytest.mark.parametrize(
    ("stem", "interval", "symbol"),
    [
        ("BTCUSDT", None, "BTCUSDT"),
        ("BTCUSDT-trades-2024-01-31", None, "BTCUSDT"),
        ("BTC-USD_20240131", None, "BTC-USD"),
        ("BTCUSDT_2024-01_1h", timedelta(hours=1), "BTCUSDT"),
        ("BTCUSDT-5m", timedelta(hours=1), "BTCUSDT-5m"),
        ("BTCUSDT_201225", None, "BTCUSDT_201225"),  # a quarterly contract, no date
        ("BTC-27JUN25-100000-C", None, "BTC-27JUN25-100000-C"),
        ("trades", None, "trades"),
    ],
)
def test_the_contract_is_what_is_left_of_a_file_name(stem, interval, symbol):
    assert symbol_in_name(stem, interval) == symbol


def test_partition_folders_give_what_the_columns_lack(tmp_path):
    name = "table=bars_1h/venue=kraken/symbol=XBT%2FUSD/desk=a/date=2024-01/part-0.parquet"
    reading = check(stored(tmp_path, name, bars_frame(1)))
    frame = reading.table("bars_1h")
    assert reading.match.venue == "kraken"
    assert frame["symbol"].to_list() == ["XBT/USD"]
    assert frame["desk"].to_list() == ["a"]
    assert "date" not in frame.columns


def test_hints_stand_over_names_but_never_merge_contracts(tmp_path):
    plain = stored(tmp_path, "some_folder/X.parquet", bars_frame())
    assert check(plain).match.venue == "some_folder"
    reading = check(plain, venue="bybit", symbol="XBT")
    assert reading.match.venue == "bybit"
    assert reading.table("bars_1h")["symbol"].unique().to_list() == ["XBT"]
    two = pl.concat(
        bars_frame(3).with_columns(pl.lit(symbol).alias("symbol")) for symbol in ("A", "B")
    )
    several = check(stored(tmp_path, "both.parquet", two), symbol="XBT")
    assert several.table("bars_1h")["symbol"].to_list() == ["A"] * 3 + ["B"] * 3


def test_rows_of_several_venues_are_kept_apart(tmp_path):
    frame = bars_frame().with_columns(
        pl.Series("venue", ["bybit", "okx", None, "bybit", "okx", "okx"])
    )
    reading = check(stored(tmp_path, "folder/X.parquet", frame))
    rows = {batch.venue: batch.frame[ROW].to_list() for batch in reading.batches}
    assert rows == {"bybit": [1, 4], "okx": [2, 5, 6], "folder": [3]}
    assert reading.account.outcomes == {TRANSLATED: 6}


def test_rows_without_a_contract_are_rejected(tmp_path):
    frame = bars_frame().with_columns(pl.Series("symbol", ["A", None, "A", "", "A", "A"]))
    reading = check(stored(tmp_path, "X.parquet", frame))
    assert reading.tables == {"bars_1h": 4}
    assert [(reject.row, reject.reason) for reject in reading.account.rejects] == [
        (2, "no symbol"),
        (4, "no symbol"),
    ]


def test_sides_that_are_none_are_rejected_and_missing_ones_noted(tmp_path):
    sides = "ts,price,size,side\n" + "".join(
        f"{START + second},1,1,{side}\n" for second, side in enumerate(["BUY", "", "left", "sell"])
    )
    reading = check(written(tmp_path, "X.csv", sides))
    assert reading.table("trades")["side"].to_list() == ["buy", None, "sell"]
    assert [reject.row for reject in reading.account.rejects] == [3]
    assert reading.account.events == {"trade without an aggressor side": 1}


# ---------------------------------------------------------------- intervals


def test_gaps_do_not_change_the_interval_and_mixed_contracts_do_not_shorten_it(tmp_path):
    gappy = bars_frame(200).filter(~pl.int_range(pl.len()).is_between(40, 160))
    both = pl.concat(
        [gappy.with_columns(symbol=pl.lit("A")), gappy.with_columns(symbol=pl.lit("B"))]
    )
    assert check(stored(tmp_path, "a.parquet", gappy)).tables == {"bars_1h": 79}
    assert check(stored(tmp_path, "b.parquet", both.sort("ts"))).tables == {"bars_1h": 158}


def test_one_bar_does_not_say_its_interval_but_the_user_may(tmp_path):
    source = written(tmp_path, "X.csv", BARS + bar_lines(1))
    assert "--table bars_1h" in refusal(source)
    assert check(source, table="bars_1h").tables == {"bars_1h": 1}


def test_an_interval_that_the_rows_contradict_is_refused(tmp_path):
    source = written(tmp_path, "X.csv", BARS + bar_lines())
    assert "rows are 1h apart, which cannot be bars_1d" in refusal(source, table="bars_1d")
    with pytest.raises(InputError, match="there is no table 'bar_1h'"):
        recognise(source, Hints(table="bar_1h"))


# ---------------------------------------------------------------- faults


def test_garbled_short_and_repeated_header_lines_are_rejected_with_number_and_text(tmp_path):
    lines = bar_lines(8).splitlines(keepends=True)
    lines[2] = lines[2].replace("2.5", "n/a")
    lines[4] = BARS
    lines[6] = "1,2\n"
    reading = check(written(tmp_path, "X.csv", BARS + "".join(lines)))
    assert reading.tables == {"bars_1h": 5}
    assert {reject.row: reject.reason for reject in reading.account.rejects} == {
        3: "column 'high' is not a number",
        5: HEADER_IN_THE_MIDDLE,
        7: RAGGED,
    }
    assert reading.account.records == 8
    assert "n/a" in next(reject.text for reject in reading.account.rejects if reject.row == 3)
    assert reading.table("bars_1h")[ROW].to_list() == [1, 2, 4, 6, 8]


def test_text_in_a_table_file_that_is_no_number_is_rejected_with_the_whole_row(tmp_path):
    frame = bars_frame().with_columns(pl.Series("close", ["2", "2", "two", "2", None, "2"]))
    reading = check(stored(tmp_path, "X.parquet", frame))
    assert reading.table("bars_1h")[ROW].to_list() == [1, 2, 4, 5, 6]
    (reject,) = reading.account.rejects
    assert (reject.row, reject.reason) == (3, "column 'close' is not a number")
    assert '"close": "two"' in reject.text
    assert '"high": 2.5' in reject.text


def test_a_column_of_a_type_that_cannot_hold_it_is_an_error(tmp_path):
    frame = bars_frame().with_columns(pl.lit(value=True).alias("close"))
    with pytest.raises(InputError, match="'close' is Boolean, not a number"):
        read_whole(stored(tmp_path, "X.parquet", frame))


@pytest.mark.parametrize("kept", [0.3, 0.9])
def test_truncated_archives_and_tables_are_errors(tmp_path, kept):
    text = (BARS + bar_lines(50_000)).encode()
    packed = gzip.compress(text)
    (tmp_path / "X.csv.gz").write_bytes(packed[: int(len(packed) * kept)])
    with pytest.raises(InputError, match="damaged or incomplete"):
        read_whole(Source(tmp_path / "X.csv.gz"))
    whole = stored(tmp_path, "X.parquet", bars_frame(2_000)).path.read_bytes()
    (tmp_path / "X.parquet").write_bytes(whole[: int(len(whole) * kept)])
    with pytest.raises(InputError, match="cannot be read"):
        read_whole(Source(tmp_path / "X.parquet"))


def test_a_damaged_page_of_a_parquet_file_is_an_error(tmp_path):
    source = stored(tmp_path, "X.parquet", bars_frame(2_000))
    content = bytearray(source.path.read_bytes())
    content[50:4000] = bytes(3950)
    source.path.write_bytes(content)
    with pytest.raises(InputError, match=r"X\.parquet"):
        read_whole(source)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (bar_lines(), "no canonical table"),  # no header line
        (BARS.replace("volume", "close") + bar_lines(), "is there 2 times"),
        (BARS.replace("volume", "_row") + bar_lines(), "_row"),
        ("date,time,open,high,low,close,volume\n2024-01-01,00:00,1,1,1,1,1\n", "two columns"),
        ("ts,price,qty,amount,side\n1,1,1,1,buy\n", "may each be the size"),
        ("ts,open,high,low,close\n1700000000,1,1,1,1\n", "more than one"),
        ('{"a": 1}\n', "no canonical table"),
    ],
)
def test_what_is_not_certain_is_refused(tmp_path, text, words):
    table = {"table": "trades"} if "amount" in text else {}
    source = written(tmp_path, "X.csv", text)
    tried = (
        refusal(source, **table) if "two columns" not in words else refusal(source, table="bars")
    )
    assert words in tried


def test_the_exact_time_wins_over_the_date(tmp_path):
    text = "date,timestamp,price,size,side\n" + "".join(
        f"2023-11-14,{START // 1000 + second},1,2,buy\n" for second in range(3)
    )
    found = check(written(tmp_path, "X.csv", text)).table("trades")
    assert found["ts"].dt.timestamp("ms").to_list() == [START // 1000 + n for n in range(3)]
    assert found["date"].to_list() == ["2023-11-14"] * 3


def test_trade_ids_are_numbers_only_where_the_venue_s_are(tmp_path):
    text = "ts,price,size,side,trade_id\n1700000000000000,1,2,buy,{}\n1700000000000001,1,2,buy,{}\n"
    numbers = check(written(tmp_path, "a.csv", text.format(17, 18))).table("trades")
    names = check(written(tmp_path, "b.csv", text.format("17", "0f-a1"))).table("trades")
    assert numbers["trade_id"].to_list() == [17, 18]
    assert names["trade_id"].to_list() == ["17", "0f-a1"]


def test_columns_that_mean_something_else_are_refused_until_the_table_is_said(tmp_path):
    liquidations = (
        "exchange,symbol,timestamp,local_timestamp,id,side,price,amount\n"
        "bybit,BTCUSDT,1700000000000000,1700000000000000,1,buy,1,2\n"
    )
    source = written(tmp_path, "renamed.csv", liquidations)
    assert "those of Tardis" in refusal(source)
    assert read_whole(source, Hints(table="liquidations")).form.name == "Tardis liquidations"
    updates = "symbol,timestamp,first_update_id,side,price,qty\nX,1700000000000,1,buy,1,2\n"
    assert "updates of an order book" in refusal(written(tmp_path, "depth.csv", updates))
