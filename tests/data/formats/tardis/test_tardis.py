"""Samples follow docs.tardis.dev, "Downloadable CSV files: Data types" (columns and first rows)."""

import gzip
from datetime import UTC, datetime

import polars as pl
import pytest

from margincast.core.errors import InputError
from margincast.data.formats.format import APPLIED, ROW, TRANSLATED, Hints
from margincast.data.formats.registry import recognise
from margincast.data.formats.source import Source
from margincast.data.formats.tardis import files as tardis
from margincast.data.formats.testing import check_format, read_whole
from margincast.data.formats.text import HEADER_IN_THE_MIDDLE, RAGGED
from margincast.data.schemas import TIMESTAMP, book_columns

TRADES = """exchange,symbol,timestamp,local_timestamp,id,side,price,amount
bitmex,XBTUSD,1585699202957000,1585699203089980,d6dc2a7e-3e3d-8c5d-0c2c-2d0c3c5c1b11,buy,6425.5,12
bitmex,XBTUSD,1585699206937000,1585699207051221,e7c1c2d0-0b5c-7a0e-1f0a-0c3e5d7b9f22,unknown,6425,3
bitmex,XBTUSD,1585699207014000,1585699207153450,f0e0f3f1-5e5a-9f17-2a3b-1d4f6e8c0a33,sell,6425,11
"""
LIQUIDATIONS = """exchange,symbol,timestamp,local_timestamp,id,side,price,amount
ftx,BTC-PERP,1625097603551000,1625097603557398,,sell,35052,0.0179
ftx,ETH-PERP,1625097603701000,1625097603720184,,buy,2273.1,1.5
"""
QUOTES = """exchange,symbol,timestamp,local_timestamp,ask_amount,ask_price,bid_price,bid_amount
huobi-dm-swap,BTC-USD,1588291201099000,1588291201234268,5494,8629.3,8629.2,806
huobi-dm-swap,BTC-USD,1588291201133000,1588291201454126,,,8629.2,806
"""
TICKER_HEADER = (
    "exchange,symbol,timestamp,local_timestamp,funding_timestamp,funding_rate,"
    "predicted_funding_rate,open_interest,last_price,index_price,mark_price\n"
)
TICKERS = (
    "bitmex,XBTUSD,1585699201147000,1585699201333000,1585713600000000,-0.003105,0.000185,"
    "581204399,6425,6424.19,6421.7\n"
    "deribit,BTC-PERPETUAL,1585699201193000,1585699201211000,,0.00000459,,705041730,6425.5,"
    "6420.53,6422.13\n"
)
OPTIONS_HEADER = (
    "exchange,symbol,timestamp,local_timestamp,type,strike_price,expiration,open_interest,"
    "last_price,bid_price,bid_amount,bid_iv,ask_price,ask_amount,ask_iv,mark_price,mark_iv,"
    "underlying_index,underlying_price,delta,gamma,vega,theta,rho\n"
)
DERIBIT_OPTION = (
    "deribit,BTC-9JUN20-9875-P,1591574399413000,1591574400196008,put,9875,1591689600000000,0.1,"
    "0.0295,0.0205,15.0,55.91,0.0235,15.0,68.94,0.02210436,62.89,SYN.BTC-9JUN20,9756.36,-0.61752,"
    "0.00103,2.24964,-53.05655,-0.22796\n"
)
SNAPSHOT = (
    "exchange,symbol,timestamp,local_timestamp,asks[0].price,asks[0].amount,bids[0].price,"
    "bids[0].amount,asks[1].price,asks[1].amount,bids[1].price,bids[1].amount\n"
    "binance-futures,BTCUSDT,1598918403696000,1598918403810979,11657.08,1.714,11657.07,10.896,"
    "11657.54,5.4,,\n"
)


@pytest.fixture
def save(tmp_path):
    def write(name, content):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        data = content.encode()
        path.write_bytes(gzip.compress(data) if name.endswith(".gz") else data)
        return Source(path)

    return write


def at(microseconds):
    return datetime.fromtimestamp(microseconds // 10**6, UTC).replace(
        microsecond=microseconds % 10**6
    )


def test_trades(save):
    source = save("bitmex_trades_2020-04-01_XBTUSD.csv.gz", TRADES)
    reading = check_format(source, "Tardis trades")
    trades = reading.table("trades")
    assert reading.batches[0].venue == "bitmex"
    assert trades["side"].to_list() == ["buy", None, "sell"]
    assert reading.account.events == {"trade without an aggressor side": 1}
    assert reading.account.outcomes == {TRANSLATED: 3}
    assert trades.row(0, named=True) == {
        "symbol": "XBTUSD",
        "ts": at(1585699202957000),
        "received_at": at(1585699203089980),
        "trade_id": "d6dc2a7e-3e3d-8c5d-0c2c-2d0c3c5c1b11",
        "side": "buy",
        "price": 6425.5,
        "size": 12.0,
        ROW: 1,
    }


def test_the_side_of_a_liquidation_is_that_of_the_order(save):
    # documented: "buy" says that a short position was liquidated, so by an order that buys
    source = save("ftx_liquidations_2021-07-01_PERPETUALS.csv", LIQUIDATIONS)
    reading = check_format(source, "Tardis liquidations")
    rows = reading.table("liquidations")
    assert rows["side"].to_list() == ["sell", "buy"]
    assert rows["symbol"].to_list() == ["BTC-PERP", "ETH-PERP"]
    assert rows["trade_id"].null_count() == 2


@pytest.mark.parametrize(
    ("name", "known_as"),
    [
        ("ftx_liquidations_2021-07-01_BTC-PERP.csv", "Tardis liquidations"),
        ("ftx_trades_2021-07-01_BTC-PERP.csv", "Tardis trades"),
        ("ftx/liquidations/2021/07/01/BTC-PERP.csv", "Tardis liquidations"),
        ("ftx/trades/2021/07/01/BTC-PERP.csv", "Tardis trades"),
        ("trades/ftx_liquidations_2021-07-01_BTC-PERP.csv", "Tardis liquidations"),
    ],
)
def test_trades_and_liquidations_are_told_apart_by_their_names(save, name, known_as):
    assert check_format(save(name, LIQUIDATIONS), known_as).account.records == 2


def test_nothing_is_guessed_of_a_file_that_may_hold_trades_or_liquidations(save):
    source = save("BTC-PERP.csv", LIQUIDATIONS)
    with pytest.raises(InputError, match="trades or liquidations: name the file as Tardis does"):
        recognise(source, formats=tardis.FORMATS)
    said = check_format(source, "Tardis liquidations", Hints(table="liquidations"))
    assert said.tables == {"liquidations": 2}


@pytest.mark.parametrize(
    ("exchange", "identity", "kind"),
    [("binance-futures", "5048917", pl.Int64), ("bybit", "0c4b-11", pl.String)],
)
def test_trade_ids_are_numbers_where_the_venue_counts(save, exchange, identity, kind):
    header, row, *_ = TRADES.splitlines()
    cells = row.split(",")
    cells[0], cells[4] = exchange, identity
    source = save(f"{exchange}_trades_2020-04-01_X.csv", f"{header}\n{','.join(cells)}\n")
    assert check_format(source, "Tardis trades").table("trades")["trade_id"].dtype == kind


@pytest.mark.parametrize(
    ("exchange", "venue"),
    [("okex-swap", "okx-swap"), ("okex", "okx"), ("cryptofacilities", "kraken-futures")],
)
def test_venues_have_their_names_of_today(save, exchange, venue):
    source = save("some_quotes_file.csv", QUOTES.replace("huobi-dm-swap", exchange))
    assert {batch.venue for batch in check_format(source, "Tardis quotes").batches} == {venue}


def test_quotes_without_a_side(save):
    source = save("huobi-dm-swap_quotes_2020-05-01_BTC-USD.csv", QUOTES)
    quotes = check_format(source, "Tardis quotes").table("quotes")
    assert quotes.select(book_columns(1)).rows() == [
        (8629.2, 806.0, 8629.3, 5494.0),
        (8629.2, 806.0, None, None),
    ]


def test_a_file_of_several_venues_is_cut_by_venue(save):
    reading = check_format(save("mixed.csv", TICKER_HEADER + TICKERS), "Tardis derivative_ticker")
    assert [(batch.venue, len(batch.frame)) for batch in reading.batches] == [
        ("bitmex", 1),
        ("deribit", 1),
    ]
    rows = reading.table("derivative_ticker")
    assert rows["funding_timestamp"].to_list() == [at(1585713600000000), None]
    assert rows["funding_rate"].to_list() == [-0.003105, 0.00000459]
    assert rows["open_interest"].to_list() == [581204399.0, 705041730.0]
    assert rows.schema["funding_timestamp"] == TIMESTAMP


def test_option_chain_of_the_documentation(save):
    source = save("deribit_options_chain_2020-06-08_OPTIONS.csv", OPTIONS_HEADER + DERIBIT_OPTION)
    reading = check_format(source, "Tardis options_chain")
    (row,) = reading.table("options").to_dicts()
    assert row["symbol"] == "BTC"
    assert row["instrument"] == "BTC-9JUN20-9875-P"
    assert (row["option_type"], row["strike"]) == ("put", 9875.0)
    assert row["expiry"] == datetime(2020, 6, 9, 8, tzinfo=UTC)
    assert row["implied_volatility"] == pytest.approx(0.6289)
    assert row["bid_implied_volatility"] == pytest.approx(0.5591)
    assert row["ask_implied_volatility"] == pytest.approx(0.6894)
    assert (row["bid_price"], row["bid_size"]) == (0.0205, 15.0)
    assert (row["underlying_index"], row["underlying_price"]) == ("SYN.BTC-9JUN20", 9756.36)
    assert (row["delta"], row["rho"]) == (-0.61752, -0.22796)
    assert "mark_iv" not in row


@pytest.mark.parametrize(
    ("exchange", "instrument", "currency", "said", "fraction"),
    [
        ("deribit", "BTC_USDC-26SEP25-100000-P", "BTC", 43.1, 0.431),
        # OKX, Bybit and Binance say fractions, and Tardis passes them on (its mappers are public)
        ("okex-options", "ETH-USD-220930-2000-P", "ETH", 0.431, 0.431),
        ("bybit-options", "SOL-29DEC23-60-P", "SOL", 0.431, 0.431),
        ("binance-european-options", "BNB-231013-200-P", "BNB", 0.431, 0.431),
        ("a-new-venue", "BTC-231013-200-P", "BTC", 43.1, None),
    ],
)
def test_volatilities_have_the_unit_of_their_venue(
    *, save, exchange, instrument, currency, said, fraction
):
    row = DERIBIT_OPTION.replace("deribit", exchange).replace("BTC-9JUN20-9875-P", instrument)
    reading = check_format(
        save("chain.csv", OPTIONS_HEADER + row.replace("62.89", str(said))), "Tardis options_chain"
    )
    (option,) = reading.table("options").to_dicts()
    assert option["symbol"] == currency
    if fraction is None:
        assert option["implied_volatility"] is None
        assert option["mark_iv"] == said
        assert reading.account.events == {tardis.UNKNOWN_UNIT: 1}
    else:
        assert option["implied_volatility"] == pytest.approx(fraction)
        assert not reading.account.events


def test_book_snapshots_of_any_depth_with_missing_levels(save):
    source = save("binance-futures_book_snapshot_2_2020-09-01_BTCUSDT.csv.gz", SNAPSHOT)
    books = check_format(source, "Tardis book_snapshot").table("book")
    assert books.columns == ["symbol", "ts", "received_at", *book_columns(2), ROW]
    assert books.select(book_columns(2)).row(0) == (
        *(11657.07, 10.896, 11657.08, 1.714),
        *(None, None, 11657.54, 5.4),
    )


def test_faulty_rows_are_rejected_each_with_its_reason(save):
    header, first, second, third = TRADES.splitlines()
    content = "\n".join(
        [
            header,
            first,
            second.replace("6425", "64x25"),
            header,
            third.replace("sell", "sideways"),
            third.replace("XBTUSD", ""),
            "bitmex,XBTUSD,1585699207",
            third,
        ]
    )
    account = check_format(save("bitmex_trades_x.csv", content), "Tardis trades").account
    assert {reject.row: reject.reason for reject in account.rejects} == {
        2: "column 'price' is not a number",
        3: HEADER_IN_THE_MIDDLE,
        4: "column 'side' is neither buy nor sell",
        5: "column 'symbol' is empty",
        6: RAGGED,
    }
    assert account.outcomes == {TRANSLATED: 2}


def test_a_missing_column_is_named(save):
    source = save("bitmex_trades_x.csv", TRADES.replace(",amount", ",volume"))
    with pytest.raises(InputError, match="Tardis trades: the header has no column amount"):
        recognise(source, formats=tardis.FORMATS)


def test_a_truncated_file_is_no_shorter_file(save):
    source = save("bitmex_trades_2020-04-01_XBTUSD.csv.gz", TRADES)
    content = source.path.read_bytes()
    source.path.write_bytes(content[:-12])
    with pytest.raises(InputError, match=r"XBTUSD\.csv\.gz is damaged or incomplete after byte"):
        read_whole(source, formats=tardis.FORMATS)


def test_a_day_without_rows_is_no_fault(save):
    header = LIQUIDATIONS.splitlines()[0]
    source = save("ftx_liquidations_2021-07-01_BTC-PERP.csv.gz", header + "\n")
    reading = check_format(source, "Tardis liquidations")
    assert (reading.match.venue, reading.batches, reading.account.records) == ("ftx", (), 0)


def test_the_word_of_the_user_stands(save):
    source = save("bitmex_trades_x.csv", TRADES)
    reading = check_format(source, "Tardis trades", Hints(venue="mine", symbol="BTC"))
    assert {batch.venue for batch in reading.batches} == {"mine"}
    assert set(reading.table("trades")["symbol"]) == {"BTC"}


@pytest.mark.parametrize(
    ("name", "known_as", "table", "venue"),
    [
        ("binance-futures_book_snapshot_25_BTCUSDT", "book_snapshot", "book", "binance-futures"),
        ("binance-futures_book_snapshot_5_BTCUSDT", "book_snapshot", "book", "binance-futures"),
        ("bitmex_trades_XBTUSD", "trades", "trades", "bitmex"),
        ("huobi-dm-swap_quotes_BTC-USD", "quotes", "quotes", "huobi-dm-swap"),
        ("deribit_incremental_book_L2_BTC-PERPETUAL", "incremental_book_L2", "book", "deribit"),
    ],
)
def test_real_files(shared_data, name, known_as, table, venue):
    path = shared_data / "data" / "native" / "vendor_fixtures" / "tardis" / f"{name}.csv"
    reading = check_format(Source(path), f"Tardis {known_as}")
    lines = path.read_text().splitlines()
    account = reading.account
    assert account.records == len(lines) - 1
    assert not account.rejected
    assert {batch.venue for batch in reading.batches} == {venue}
    if known_as == "incremental_book_L2":
        assert account.outcomes == {APPLIED: 15}
        (book,) = reading.table(table).to_dicts()
        asks = [line.split(",")[-2:] for line in lines[1:]]
        assert [book[f"ask_price_{level}"] for level in range(15)] == [float(p) for p, _ in asks]
        assert [book[f"ask_size_{level}"] for level in range(15)] == [float(s) for _, s in asks]
        assert book["ask_price_15"] is None
        assert book["bid_price_0"] is None
        return
    assert reading.tables == {table: len(lines) - 1}
    if known_as == "book_snapshot":
        books, sides = reading.table(table), {"bid": "bids", "ask": "asks"}
        header, last = lines[0].split(","), lines[-1].split(",")
        for name_of_ours in book_columns(reading.match.details["levels"]):
            side, what, level = name_of_ours.split("_")
            theirs = f"{sides[side]}[{level}].{'price' if what == 'price' else 'amount'}"
            assert books[name_of_ours][-1] == float(last[header.index(theirs)])
