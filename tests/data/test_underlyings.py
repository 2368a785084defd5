"""Tables of different publishers find their contract; what is ambiguous is never guessed."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from margincast.core.errors import InputError
from margincast.data.underlyings import (
    QUOTES,
    symbol_of_contract,
    symbol_of_leader,
    underlying_of,
    unmatched,
)


@pytest.mark.parametrize(
    ("symbol", "asset"),
    [
        ("BTCUSDT", "BTC"),  # Binance
        ("1000SHIBUSDT", "SHIB"),
        ("BTC_USDT", "BTC"),  # Gate.io
        ("BTC-USDT-SWAP", "BTC"),  # OKX
        ("BTC/USDT:USDT", "BTC"),  # ccxt and freqtrade
        ("BTCUSD_PERP.A", "BTC"),  # Coinalyze
        ("BTC-PERPETUAL", "BTC"),  # Deribit
        ("BTC-PERP", "BTC"),  # FTX
        ("ETH", "ETH"),
        ("eth", "ETH"),
        ("USDCUSDT", "USDC"),
        ("ADAUSDT@binance_alts_1h", "ADA"),
        ("SIM-BTC", "SIM-BTC"),
        ("XBTUSD", "BTC"),  # BitMEX and Kraken
        ("XBT", "BTC"),
        ("BTCPERP", "BTC"),  # Bybit, settled in USDC
        ("BTCUSDPERP", "BTC"),
        ("PERPUSDT", "PERP"),  # an asset of that name
        ("PERP", "PERP"),
        ("BTCUSDT-1h-2024-01", "BTC"),  # a file of a month, not a future of it
    ],
)
def test_the_asset_of_a_symbol_as_venues_write_it(symbol, asset):
    assert underlying_of(symbol) == asset


DATED = [
    "BTCUSDT_240329",  # Binance
    "BTCUSD_240329",
    "BTC-USDT-240329",  # OKX
    "BTC-USD-240329-60000-C",
    "BTC/USDT:USDT-240329",  # ccxt
    "BTC-USDT-20240329",
    "BTC-29MAR24",  # Deribit
    "BTC-5APR24",
    "BTCUSDT-29MAR24",  # Bybit
    "BTCUSDH24",
    "XBTH24",  # BitMEX
    "BTC-USDT-CQ",  # HTX
    "BTCUSDT_NEXT_QUARTER",  # Binance, continuous
]


@pytest.mark.parametrize("dated", DATED)
def test_a_dated_future_is_another_market_than_the_perpetual(dated):
    assert underlying_of(dated) == dated
    for perpetual in ("BTCUSDT", "BTC-USDT-SWAP", "BTC", "XBTUSD"):
        assert symbol_of_contract(perpetual, [dated], "open_interest") is None
        assert symbol_of_contract(dated, [perpetual], "open_interest") is None
    assert symbol_of_contract(dated, ["BTCUSDT", dated], "open_interest") == dated


@given(st.from_regex(r"[A-Z]{2,6}", fullmatch=True), st.sampled_from(QUOTES))
def test_a_contract_and_its_asset_find_each_other(asset, quote):
    # A + BUSD and AB + USD are one name
    name = f"{asset}{quote}"
    longer = (ending for ending in QUOTES if len(ending) > len(quote))
    if any(map(asset.endswith, QUOTES)) or any(map(name.endswith, longer)):
        return
    assert symbol_of_contract(f"{asset}{quote}", [asset], "funding") == asset
    assert symbol_of_contract(asset, [f"{asset}-{quote}"], "funding") == f"{asset}-{quote}"
    assert symbol_of_contract(f"X{asset}{quote}", [asset], "funding") is None


def test_its_own_name_comes_before_the_same_asset():
    symbols = ["BTC/USDT:USDT", "BTCUSDT", "BTC"]
    assert symbol_of_contract("BTCUSDT", symbols, "funding") == "BTCUSDT"


def test_several_on_one_asset_are_refused_by_name():
    with pytest.raises(InputError, match=r"data.funding: BTC, BTCUSDT are all on BTC, and none is"):
        symbol_of_contract("BTC-USD", ["BTCUSDT", "BTC"], "funding")


@pytest.mark.parametrize(
    ("symbols", "found"),
    [
        (["BTC", "ETH"], "BTC"),
        (["BTC-USD"], "BTC-USD"),
        (["deribit_btc_dvol_1h"], "deribit_btc_dvol_1h"),
        (["dvol_1h"], "dvol_1h"),
        (["deribit_eth_dvol_1h"], None),  # says another asset
        (["deribit_xbt_dvol_1h"], "deribit_xbt_dvol_1h"),
        (["deribit_btc_dvol_1h", "deribit_eth_dvol_1h"], None),  # one of several is not guessed
        (["dvol_1h", "ETH"], None),
        (["ETH"], None),
        (["ETHUSDT"], None),
        (["LTC"], None),
        ([], None),
    ],
)
def test_a_name_without_an_asset_is_the_leaders_only_where_it_is_alone(symbols, found):
    assert symbol_of_leader("BTCUSDT", symbols, "implied_vol") == found


def test_another_name_of_an_asset_is_the_asset():
    assert symbol_of_leader("ETHUSDT", ["deribit_xbt_dvol_1h"], "implied_vol") is None


def test_contracts_that_a_table_says_nothing_of_are_counted_and_named():
    absent, taken = unmatched(
        "funding", ["BTC", "ETH"], ["BTCUSDT", "XRPUSDT", "ADAUSDT"], "BTCUSDT"
    )
    assert (absent.count, absent.total) == (2, 3)
    assert absent.what == "contracts without rows (XRPUSDT, ADAUSDT)"
    assert (taken.what, taken.count) == ("contracts with another market's rows (BTCUSDT: BTC)", 1)


def test_every_match_by_underlying_is_a_warning_that_names_both():
    contracts = ["BTCUSDT", "1000BONKUSDT", "ETHUSDT"]
    (taken,) = unmatched("open_interest", ["BTCUSD_PERP", "BONK", "ETHUSDT"], contracts, "BTCUSDT")
    assert (taken.severity, taken.count, taken.total) == ("warning", 2, 3)
    assert "(BTCUSDT: BTCUSD_PERP, 1000BONKUSDT: BONK)" in taken.what
    assert "open_interest_usd alone" in taken.action


@pytest.mark.parametrize("table", ["funding", "open_interest", "liquidations"])
def test_a_table_that_names_every_contract_is_not_remarked_on(table):
    assert unmatched(table, ["BTCUSDT", "ETH"], ["BTCUSDT"], "BTCUSDT") == []


def test_a_leader_without_bars_is_looked_for_in_no_table():
    assert unmatched("options", ["dvol_1h"], ["ETHUSDT"], "BTCUSDT") == []
    (taken,) = unmatched("options", ["dvol_1h"], ["BTCUSDT"], "BTCUSDT")
    assert (taken.symbol, taken.action) == ("dvol_1h", "taken for the leader's, BTCUSDT")
