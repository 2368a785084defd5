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
        ("BTC-29MAR24", "BTC-29MAR24"),  # a dated future is not the perpetual
    ],
)
def test_the_asset_of_a_symbol_as_venues_write_it(symbol, asset):
    assert underlying_of(symbol) == asset


@given(st.from_regex(r"[A-Z]{2,6}", fullmatch=True), st.sampled_from(QUOTES))
def test_a_contract_and_its_asset_find_each_other(asset, quote):
    if any(asset.endswith(ending) for ending in QUOTES):
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


def test_contracts_that_a_table_says_nothing_of_are_counted_and_named():
    (finding,) = unmatched("funding", ["BTC", "ETH"], ["BTCUSDT", "XRPUSDT", "ADAUSDT"], "BTCUSDT")
    assert (finding.count, finding.total) == (2, 3)
    assert finding.what == "contracts without rows (XRPUSDT, ADAUSDT)"


def test_a_leader_without_bars_is_looked_for_in_no_table():
    assert unmatched("options", ["dvol_1h"], ["ETHUSDT"], "BTCUSDT") == []
    (taken,) = unmatched("options", ["dvol_1h"], ["BTCUSDT"], "BTCUSDT")
    assert (taken.symbol, taken.action) == ("dvol_1h", "taken for the leader's, BTCUSDT")
