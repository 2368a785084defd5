import pytest

from margincast.data.formats.table_kinds import canonical_names, column_kind, table_of_columns
from margincast.data.schemas import SCHEMAS

OHLC = ["open", "high", "low", "close"]
QUOTE = ["bid_price_0", "bid_size_0", "ask_price_0", "ask_size_0"]
TRADE = ["ts", "price", "size", "side"]


def table(names, words="data x", *, idle=False):
    found = table_of_columns(names, words, idle=lambda _column: idle)
    return found if isinstance(found, str) else found.table


@pytest.mark.parametrize(
    ("names", "words", "expected"),
    [
        (["ts", *OHLC, "volume"], "binance btcusdt", "bars"),
        (["ts", *OHLC, "volume"], "mark btcusdt", "bars"),  # mark prices are not traded
        (["ts", *OHLC], "mark_price btcusdt", "mark_bars"),
        (["ts", *OHLC], "indexpriceklines btcusdt", "index_bars"),
        (["ts", *OHLC], "premium_index btcusdt", "premium_bars"),
        (["ts", *OHLC], "data btc_dvol", "implied_vol"),
        (["ts", *OHLC], "open_interest btc", "open_interest_bars"),
        (["timestamp", "bid", "ask", "bid_size", "ask_size"], "data x", "quotes"),
        (["ts", *QUOTE], "data x", "quotes"),
        (["ts", *QUOTE], "order_book x", "book"),
        (["ts", *QUOTE, "bid_price_1"], "data x", "book"),
        (["ts", "bid_price_0", "bid_qty_0", "ask_price_0", "ask_qty_0"], "book x", "book"),
        (TRADE, "data x", "trades"),
        (["time", "price", "qty", "side"], "data x", "trades"),
        (TRADE, "aggtrades x", "aggregate_trades"),
        ([*TRADE, "first_trade_id"], "data x", "aggregate_trades"),
        (TRADE, "liquidations x", "liquidations"),
        (["ts", "funding_rate"], "data x", "funding"),
        (["ts", "funding_rate", "mark_price"], "data x", "funding"),
        (["ts", "open_interest", "open_interest_usd"], "data x", "open_interest"),
        (["ts", "funding_rate", "last_price", "open_interest"], "x", "derivative_ticker"),
        (["ts", "instrument", "option_type", "strike", "expiry", "bid_price"], "x", "options"),
        (["ts", "percentage", "depth", "notional"], "x", "depth_bands"),
        (["ts", "long_usd", "short_usd"], "x", "liquidation_totals"),
    ],
)
def test_columns_make_up_a_table(names, words, expected):
    assert table(names, words) == expected


def test_an_idle_volume_leaves_the_choice_to_the_name():
    assert table(["ts", *OHLC, "volume"], "mark btcusdt", idle=True) == "mark_bars"
    assert table(["ts", *OHLC, "volume"], "binance btcusdt", idle=True) == "bars"
    assert table(["ts", *OHLC, "volume"], "benchmark btcusdt", idle=True) == "bars"


@pytest.mark.parametrize(
    "names", [["ts", *OHLC], ["ts", "price"], ["ts", "last_price"], ["a"], TRADE[1:]]
)
def test_columns_that_fit_several_tables_or_none_are_of_none(names):
    assert "no canonical table" in table(names)


def test_every_table_is_reachable_by_its_own_columns():
    named = {
        "book": "book",
        "mark_bars": "mark",
        "index_bars": "index",
        "premium_bars": "premium",
        "open_interest_bars": "open_interest",
        "implied_vol": "dvol",
        "aggregate_trades": "aggregate_trades",
        "liquidations": "liquidations",
    }
    for name, schema in SCHEMAS.items():
        columns = [*schema.required, *schema.positive, *schema.non_negative, *schema.finite]
        assert table(list(dict.fromkeys(columns)), named.get(name, "x")) == name


def test_a_canonical_name_is_never_overwritten_and_no_name_is_lost():
    names = ["date", "ts", "amount", "size", "price", "side", "bid_qty_0", "bid_size_0"]
    renames = canonical_names(names, SCHEMAS["trades"])
    assert isinstance(renames, dict)
    assert list(renames) == names
    assert len(set(renames.values())) == len(names)
    assert renames["ts"] == "ts"
    assert renames["date"] == "date"


def test_every_numeric_column_of_every_table_holds_numbers():
    for schema in SCHEMAS.values():
        for name in (*schema.positive, *schema.non_negative, *schema.finite):
            assert column_kind(schema, name) == "number"
        assert column_kind(schema, "ts") == "time"
        assert column_kind(schema, "anything_else") is None
