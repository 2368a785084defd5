from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import polars as pl
import pytest

from margincast.core.errors import InputError, SpecError
from margincast.data.formats.format import TRANSLATED, Account
from margincast.data.formats.mapping import ColumnMapping, MappedColumn, mapped_format, mapping_from
from margincast.data.formats.registry import FORMATS, recognise
from margincast.data.formats.source import Source
from margincast.data.formats.testing import check_format
from margincast.specs.loading import load_spec
from margincast.specs.mapping import MappingSpec

EXAMPLES = Path(__file__).resolve().parents[3] / "examples"
EXAMPLE = EXAMPLES / "mapping-quotes.toml"
NAME = "mapped table"
TRADES = ColumnMapping(
    table="trades",
    venue="desk",
    symbol="BTC-USD",
    columns={
        "ts": MappedColumn("time"),
        "price": MappedColumn("px"),
        "size": MappedColumn("qty", times=0.001),
        "side": MappedColumn("maker", values={"true": "sell", "false": "buy"}),
    },
)


def loaded(path):
    return mapping_from(load_spec(path, MappingSpec).fields())


def read(source, mapping):
    return check_format(source, NAME, formats=(mapped_format(mapping), *FORMATS))


def refusal(source, mapping):
    with pytest.raises(InputError) as caught:
        recognise(source, formats=(mapped_format(mapping),))
    return str(caught.value)


def written(folder, content, name="fills.csv"):
    path = folder / name
    path.write_text(content)
    return Source(path)


def test_the_example_reads_the_shared_quotes_without_a_header(shared_data):
    path = shared_data / "data" / "native" / "vendor_fixtures" / "quote_tick_data.csv"
    reading = read(Source(path), loaded(EXAMPLE))
    frame = reading.table("quotes")
    assert len(frame) == 9_500 == len(path.read_bytes().splitlines())
    assert reading.account.outcomes == {TRANSLATED: 9_500}
    assert frame["symbol"].unique().to_list() == ["EUR-USD"]
    # 17:00 in New York's winter, when the week's trade begins, is 22:00 UTC
    assert frame["ts"][0] == datetime(2020, 1, 1, 22, 0, 0, 65_000, UTC)
    assert frame.select("bid_price_0", "ask_price_0", "bid_size_0").row(0) == (1.1212, 1.12172, 0.0)
    assert (frame["ts"].diff() >= timedelta(0)).sum() == len(frame) - 1


def test_the_maker_s_side_of_a_shared_table_becomes_the_aggressor_s(shared_data):
    folder = shared_data / "data" / "native" / "vendor_fixtures" / "binance"
    path = folder / "btcusdt-trades.parquet"
    mapping = ColumnMapping(
        "trades",
        "binance",
        {
            "ts": MappedColumn("timestamp"),
            "price": MappedColumn("price"),
            "size": MappedColumn("quantity"),
            "trade_id": MappedColumn("trade_id"),
            "side": MappedColumn("buyer_maker", values={"True": "sell", "False": "buy"}),
        },
        symbol="BTCUSDT",
    )
    frame = read(Source(path), mapping).table("trades")
    original = pl.read_parquet(path)
    assert len(frame) == 2_001
    assert (frame["side"] == "sell").sum() == (original["buyer_maker"] == "True").sum()
    assert frame["trade_id"].to_list() == original["trade_id"].to_list()
    assert frame["size"].to_list() == original["quantity"].to_list()


def test_factors_values_and_further_columns(tmp_path):
    content = (
        "time,px,qty,maker,side,fee\n1700000000,10,2500,true,X,0.1\n1700000001,11,1,false,Y,\n"
    )
    reading = read(written(tmp_path, content), TRADES)
    frame = reading.table("trades")
    assert frame["size"].to_list() == pytest.approx([2.5, 0.001])
    assert frame["side"].to_list() == ["sell", "buy"]
    assert frame["side_in_source"].to_list() == ["X", "Y"]
    assert frame["fee"].to_list() == ["0.1", None]
    assert not {"time", "px", "qty", "maker"} & set(frame.columns)


def test_values_that_the_mapping_does_not_name_and_cells_that_do_not_parse_are_rejected(tmp_path):
    content = (
        "time,px,qty,maker\n1700000000,10,1,true\n1700000001,10,1,maybe\n1700000002,x,1,true\n"
        "1700000003,10,1,\n1700000004,10\n"
    )
    reading = read(written(tmp_path, content), TRADES)
    assert reading.table("trades")["_row"].to_list() == [1, 4]
    assert {reject.row: reject.reason for reject in reading.account.rejects} == {
        2: "column 'maker' holds a value that the mapping does not name",
        3: "column 'price' is not a number",
        5: "a line with another number of fields than the header",
    }
    assert "maybe" in next(reject.text for reject in reading.account.rejects if reject.row == 2)


def test_local_times_follow_the_clock_changes_and_impossible_ones_are_rejected(tmp_path):
    content = "time,px,qty,maker\n" + "".join(
        f"{time},1,1,true\n"
        for time in (
            "09.03.2024 23:00:00",  # winter: UTC-5
            "10.03.2024 02:30:00",  # left out
            "10.03.2024 12:00:00",  # summer: UTC-4
            "03.11.2024 01:30:00",  # twice
            "2024-11-03 12:00:00",  # another form
        )
    )
    mapping = replace(TRADES, time_format="%d.%m.%Y %H:%M:%S", time_zone="America/New_York")
    reading = read(written(tmp_path, content), mapping)
    assert reading.table("trades")["ts"].to_list() == [
        datetime(2024, 3, 10, 4, 0, tzinfo=UTC),
        datetime(2024, 3, 10, 16, 0, tzinfo=UTC),
    ]
    assert [reject.row for reject in reading.account.rejects] == [2, 4, 5]
    assert len(reading.account.rejected) == 1


def test_an_offset_in_the_text_stands(tmp_path):
    content = "time,px,qty,maker\n2024/01/01 00:00 +0900,1,1,true\n"
    mapping = replace(TRADES, time_format="%Y/%m/%d %H:%M %z")
    frame = read(written(tmp_path, content), mapping).table("trades")
    assert frame["ts"][0] == datetime(2023, 12, 31, 15, tzinfo=UTC)


def test_the_contract_comes_from_a_column_or_the_file_name(tmp_path):
    content = "time,px,qty,maker,pair\n1700000000,10,1,true,A/B\n1700000001,10,1,true,C-D\n"
    source = written(tmp_path, content, "XYZ-trades-2024-01-01.csv")
    by_name = replace(TRADES, symbol=None)
    assert read(source, by_name).match.symbol == "XYZ"
    by_column = replace(by_name, columns={**TRADES.columns, "symbol": MappedColumn("pair")})
    assert read(source, by_column).table("trades")["symbol"].to_list() == ["A/B", "C-D"]


def test_bars_have_the_interval_that_the_mapping_says(tmp_path):
    names = ("open", "high", "low", "close", "volume")
    columns = {"ts": MappedColumn("t"), **{name: MappedColumn(name[0]) for name in names}}
    mapping = ColumnMapping("bars", "desk", columns, interval=timedelta(hours=1), delimiter=";")
    content = "t;o;h;l;c;v\n1700000000;1;2;1;2;5\n"
    assert read(written(tmp_path, content, "X_1h.csv"), mapping).tables == {"bars_1h": 1}


def test_what_the_mapping_does_not_fit_is_left_to_the_other_formats(tmp_path):
    assert "there is no column px" in refusal(written(tmp_path, "time,price,qty,maker\n"), TRADES)
    headed = replace(TRADES, header=("time", "px", "qty", "maker"))
    assert "has 2 fields" in refusal(written(tmp_path, "1,2\n"), headed)
    text = written(tmp_path, "time,px,qty,maker\nsoon,1,1,true\n")
    assert "holds no time that can be read" in refusal(text, TRADES)
    assert "fills.csv is empty" in refusal(written(tmp_path, ""), TRADES)


def test_all_contradictions_of_a_mapping_are_told_at_once():
    with pytest.raises(SpecError) as caught:
        ColumnMapping(
            table="bars",
            venue="desk",
            symbol="X",
            header=("a", "b"),
            time_zone="Mars/Olympus",
            columns={
                "ts": MappedColumn("a", times=2.0),
                "symbol": MappedColumn("b"),
                "close": MappedColumn("c"),
            },
        )
    told = str(caught.value)
    for words in (
        "columns.open: missing",
        "columns.volume: missing",
        "interval: missing",
        "symbol: stands in the mapping and in columns.symbol",
        "columns.ts.times",
        "columns.close: 'c' is not in the header",
        "time_zone: needs a time_format",
        "there is no 'Mars/Olympus'",
    ):
        assert words in told
    with pytest.raises(SpecError, match="did you mean 'trades'"):
        replace(TRADES, table="trade")
    with pytest.raises(SpecError, match="covers none"):
        replace(TRADES, interval=timedelta(hours=1))


def test_reading_twice_gives_the_same_account(tmp_path):
    source = written(tmp_path, "time,px,qty,maker\n1700000000,10,1,true\n1700000001,x,1,true\n")
    form = mapped_format(TRADES)
    _, match = recognise(source, formats=(form,))
    accounts = [Account(), Account()]
    for account in accounts:
        assert sum(len(batch.frame) for batch in form.read(source, match, account)) == 1
    assert accounts[0].outcomes == accounts[1].outcomes
    assert accounts[0].rejects == accounts[1].rejects


def test_the_example_of_trades_reads_the_real_file(shared_data):
    path = shared_data / "data/native/vendor_fixtures/binance/btcusdt-trades.parquet"
    reading = read(Source(path), loaded(EXAMPLES / "mapping-trades.toml"))
    trades, given = reading.table("trades"), pl.read_parquet(path)
    assert trades["price"].to_list() == given["price"].to_list()
    assert trades["size"].to_list() == given["quantity"].to_list()
    assert trades["ts"].to_list() == given["timestamp"].to_list()
    sellers = (given["buyer_maker"] == "True").to_list()
    assert [side == "sell" for side in trades["side"]] == sellers
    assert 0 < sum(sellers) < len(sellers)
