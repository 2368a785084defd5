import polars as pl
import pytest

from margincast.core.errors import InputError
from margincast.data.formats.coinalyze import CLOCKS_DISAGREE
from margincast.data.formats.registry import recognise
from margincast.data.formats.source import Source
from margincast.data.formats.testing import check_format

NAME = "Coinalyze open interest"
HEADER = "rank,coin_name,coin_symbol,symbol,date,timestamp,oi_open,oi_high,oi_low,oi_close\n"
LINES = [
    "1,Bitcoin,BTC,BTCUSD_PERP.A,2021-09-15,1631664000,713650900,751628700,707980200,718741000\n",
    "1,Bitcoin,BTC,BTCUSD_PERP.A,2021-09-16,1631750400,718322500,742657500,708426100,725902800\n",
    "1,Bitcoin,BTC,BTCUSD_PERP.A,2021-09-17,1631836800,725909000,752410700,717693200,739512200\n",
]


def written(folder, content):
    path = folder / "oi.csv"
    path.write_text(content)
    return Source(path)


def test_the_shared_file(shared_data):
    source = Source(shared_data / "data" / "open_interest" / "coinalyze_daily_top10.csv")
    reading = check_format(source, NAME)
    frame = reading.table("open_interest_bars_1d")
    assert len(frame) == 10_293 == len(source.path.read_bytes().splitlines()) - 1
    assert reading.match.venue == "coinalyze"
    counts = dict(frame["symbol"].value_counts().rows())
    assert counts.pop("USDCUSDT_PERP.A") == 661
    assert set(counts.values()) == {1_204}
    assert len(counts) == 8
    # dollars: coin-margined contracts are of 100 USD (BTC) or 10 USD, so their value is whole tens
    coin_margined = frame.filter(pl.col("symbol").str.contains("USD_PERP"))
    assert (coin_margined["close"] % 10 == 0).all()
    assert (coin_margined.filter(pl.col("coin_symbol") == "BTC")["close"] % 100 == 0).all()
    assert (frame["high"] >= frame["low"]).all()


def test_a_line_whose_date_and_timestamp_differ_is_rejected(tmp_path):
    shifted = LINES[1].replace("2021-09-16", "2021-09-18")
    reading = check_format(written(tmp_path, HEADER + LINES[0] + shifted + LINES[2]), NAME)
    assert reading.table("open_interest_bars_1d")["_row"].to_list() == [1, 3]
    assert reading.account.rejected == {CLOCKS_DISAGREE: 1}


def test_a_garbled_cell_is_rejected(tmp_path):
    garbled = LINES[1].replace("742657500", "742,657".replace(",", "_"))
    reading = check_format(written(tmp_path, HEADER + LINES[0] + garbled + LINES[2]), NAME)
    assert reading.account.rejected == {"column 'oi_high' is not a number": 1}


def test_what_is_not_daily_is_refused(tmp_path):
    hourly = [LINES[0].replace("1631664000", str(1631664000 + 3600 * hour)) for hour in range(3)]
    with pytest.raises(InputError, match="a row is a day"):
        recognise(written(tmp_path, HEADER + "".join(hourly)))
    with pytest.raises(InputError, match=f"{NAME}: the header has no column oi_low"):
        recognise(written(tmp_path, HEADER.replace("oi_low", "low") + "".join(LINES)))
