from datetime import UTC, datetime

import polars as pl
import pytest
from polars.testing import assert_frame_equal

from margincast.core.errors import InputError
from margincast.data.formats.registry import recognise
from margincast.data.formats.source import Source
from margincast.data.formats.testing import check_format

CHAIN, INDEX = "Deribit option chain", "Deribit volatility index"
HEADER = (
    "timestamp,instrument_name,underlying,option_type,strike,expiry_datetime,bid_price,"
    "implied_volatility,currency\n"
)
LINE = (
    "2025-12-30T17:31:15.944181+00:00,BTC-25DEC26-40000-P,92617.64,put,40000.0,"
    "2026-12-25T08:00:00+00:00,{bid},{volatility},BTC\n"
)


def written(folder, content, name="chain.csv"):
    path = folder / name
    path.write_text(content)
    return Source(path)


@pytest.fixture(scope="module")
def chains(shared_data):
    path = shared_data / "data" / "options" / "deribit_chain_snapshots.parquet"
    return check_format(Source(path), CHAIN).table("options")


def test_all_chains_of_the_shared_snapshots(shared_data, chains):
    frame = chains
    original = pl.read_parquet(shared_data / "data" / "options" / "deribit_chain_snapshots.parquet")
    assert frame["symbol"].value_counts().sort("symbol").rows() == [
        ("BTC", 128_176),
        ("ETH", 135_622),
    ]
    assert frame["ts"].n_unique() == 184
    assert frame.select("ts", "symbol", "instrument").is_duplicated().sum() == 0
    assert_frame_equal(
        frame.select("underlying_price", "expiry", "bid_price", "open_interest", "delta"),
        original.select(
            pl.col("underlying").alias("underlying_price"),
            pl.col("expiry_datetime").alias("expiry"),
            "bid_price",
            "open_interest",
            "delta",
        ),
    )
    # fractions a year: a tenth to a few hundred percent, also in the crash of 5 February 2026
    assert 0.1 < frame["implied_volatility"].min() < frame["implied_volatility"].max() < 4.0
    assert set(frame["option_type"]) == {"call", "put"}


def test_the_instrument_s_name_agrees_with_its_columns(chains):
    frame = chains.head(20_000)
    parts = frame.select(
        pl.col("instrument").str.split("-").list.to_struct(fields=["coin", "day", "strike", "kind"])
    ).unnest("instrument")
    assert (parts["coin"] == frame["symbol"]).all()
    assert (parts["strike"].cast(pl.Float64) == frame["strike"]).all()
    assert (parts["kind"] == frame["option_type"].str.slice(0, 1).str.to_uppercase()).all()
    days = parts["day"].str.to_titlecase().str.to_date("%e%b%y", strict=False)
    assert (days == frame["expiry"].dt.date()).all()
    assert set(frame["expiry"].dt.hour()) == {8}


def test_one_snapshot_as_text_agrees_with_the_table_of_all(shared_data, chains):
    folder = shared_data / "data"
    source = Source(folder / "native" / "samples" / "deribit_options_snapshot_20251230T173115Z.csv")
    text = check_format(source, CHAIN).table("options")
    assert len(text) == 1_304 == len(source.path.read_bytes().splitlines()) - 1
    assert text["ts"].unique().to_list() == [datetime(2025, 12, 30, 17, 31, 15, 944_181, UTC)]
    assert_frame_equal(text, chains.head(1_304), check_column_order=False)


def test_volatilities_in_percent_are_not_taken_for_fractions(tmp_path):
    sound = written(tmp_path, HEADER + LINE.format(bid=0.01, volatility=0.58))
    assert check_format(sound, CHAIN).tables == {"options": 1}
    percent = written(tmp_path, HEADER + LINE.format(bid=0.01, volatility=58.2))
    with pytest.raises(InputError, match=r"no fraction a year: the median is 58\.2"):
        recognise(percent)


def test_an_empty_price_is_not_known_and_a_garbled_one_is_rejected(tmp_path):
    lines = [LINE.format(bid=bid, volatility=0.5) for bid in ("", "0.01", "-", "0.02")]
    reading = check_format(written(tmp_path, HEADER + "".join(lines)), CHAIN)
    assert reading.table("options")["bid_price"].to_list() == [None, 0.01, 0.02]
    assert reading.account.rejected == {"column 'bid_price' is not a number": 1}


def test_the_shared_volatility_index(shared_data):
    path = shared_data / "data" / "implied_vol" / "deribit_btc_dvol_1h.parquet"
    reading = check_format(Source(path), INDEX)
    frame = reading.table("implied_vol_1h")
    assert (len(frame), reading.match.venue) == (32_107, "deribit")
    assert frame["symbol"].unique().to_list() == ["BTC"]
    assert frame.select("open", "high", "low", "close").row(0) == (84.8, 85.41, 84.67, 84.88)
    assert (frame["high"] >= frame["low"]).all()


def test_the_index_of_an_unnamed_currency_is_refused(tmp_path):
    content = "timestamp,dvol_open,dvol_high,dvol_low,dvol_close\n" + "".join(
        f"{1_700_000_000 + 3_600 * hour},50,51,49,50\n" for hour in range(3)
    )
    named = check_format(written(tmp_path, content, "eth_dvol.csv"), INDEX)
    assert named.match.symbol == "ETH"
    with pytest.raises(InputError, match="does not say whose volatility"):
        recognise(written(tmp_path, content, "index.csv"))
    with pytest.raises(InputError, match="Deribit volatility index: there is no column dvol_low"):
        recognise(written(tmp_path, content.replace("dvol_low", "low"), "eth_dvol.csv"))
