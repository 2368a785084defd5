"""Venues' tier tables, read: worked examples of their own pages, and what is refused."""

import copy
from fractions import Fraction

import pytest

from margincast.core.errors import InputError, SpecError
from margincast.margin.maintenance import maintenance_margin_usd
from margincast.margin.venues.catalogue import VENUES, parse_text, venue_named
from margincast.margin.venues.check import compare
from margincast.margin.venues.imported import ReadOptions, rate_of_leverage, schedule_of
from margincast.margin.venues.tiers import amounts_of


def bracket(*values):
    keys = (
        "bracket", "initialLeverage", "notionalFloor", "notionalCap", "maintMarginRatio", "cum",
    )  # fmt: skip
    return dict(zip(keys, values, strict=True))


# 1000BONK/USDC as the venue gave it (freqtrade/freqtrade, exchange/binance_leverage_tiers.json, the
# "info" of CCXT), first four brackets. The key and the form of the response are those of
# developers.binance.com, "Notional and Leverage Brackets".
BINANCE = [
    {
        "symbol": "1000BONKUSDC",
        "brackets": [
            bracket(1, 50, 0, 5_000, 0.01, 0.0),
            bracket(2, 25, 5_000, 50_000, 0.02, 50.0),
            bracket(3, 20, 50_000, 600_000, 0.025, 300.0),
            bracket(4, 10, 600_000, 1_200_000, 0.05, 15_300.0),
        ],
    }
]


def limit(*values):
    keys = ("riskLimitValue", "maintenanceMargin", "initialMargin", "maxLeverage", "mmDeduction")
    return {"symbol": "XYZUSDT"} | dict(zip(keys, values, strict=True))


# Bybit help centre, "Maintenance Margin (USDT Contract)", the illustration of XYZUSDT; deductions
# by bybitglobal.com/en/announcement-info/margin-parameters; initial margins are ours.
BYBIT = {
    "retCode": 0,
    "result": {
        "category": "linear",
        "list": [
            limit("1000", "0.02", "0.04", "25.00", ""),
            limit("2000", "0.025", "0.05", "20.00", "5"),
            limit("3000", "0.03", "0.06", "16.67", "15"),
            limit("4000", "0.035", "0.07", "14.29", "30"),
            limit("5000", "0.04", "0.08", "12.50", "50"),
        ],
        "nextPageCursor": "",
    },
}

# hyperliquid.gitbook.io/hyperliquid-docs/trading/margin-tiers: BTC 0-150M 40x, >150M 20x (table 56
# of meta); DOGE on testnet 0-20k 10x, 20-100k 5x, >100k 3x; below id 50 one tier, leverage the id.
HYPERLIQUID = {
    "universe": [
        {"name": "BTC", "szDecimals": 5, "maxLeverage": 40, "marginTableId": 56},
        {"name": "DOGE", "szDecimals": 0, "maxLeverage": 10, "marginTableId": 52},
        {"name": "SMALL", "szDecimals": 0, "maxLeverage": 3, "marginTableId": 3},
    ],
    "marginTables": [
        [
            56,
            {
                "description": "tiered 40x",
                "marginTiers": [
                    {"lowerBound": "0.0", "maxLeverage": 40},
                    {"lowerBound": "150000000.0", "maxLeverage": 20},
                ],
            },
        ],
        [
            52,
            {
                "description": "tiered 10x",
                "marginTiers": [
                    {"lowerBound": "0.0", "maxLeverage": 10},
                    {"lowerBound": "20000.0", "maxLeverage": 5},
                    {"lowerBound": "100000.0", "maxLeverage": 3},
                ],
            },
        ],
    ],
    "collateralToken": 0,
}

# dydx.forum, "Liquidity Tier Maintenance": tier 4 (Isolated); docs.dydx.community, "Markets": tier
# 0 with 50000 ppm of which 600000 ppm is "0.03 as is".
DYDX = {
    "liquidity_tiers": [
        {
            "id": 0,
            "name": "Large-Cap",
            "initial_margin_ppm": 50_000,
            "maintenance_fraction_ppm": 600_000,
            "base_position_notional": "1000000000000",
            "impact_notional": "10000000000",
            "open_interest_lower_cap": "0",
            "open_interest_upper_cap": "0",
        },
        {
            "id": 4,
            "name": "Isolated",
            "initial_margin_ppm": 50_000,
            "maintenance_fraction_ppm": 600_000,
            "impact_notional": "2500000000",
            "open_interest_lower_cap": "500000000000",
            "open_interest_upper_cap": "1000000000000",
        },
    ],
    "perpetual": [
        {"params": {"id": 0, "ticker": "BTC-USD", "liquidity_tier": 0}},
        {"params": {"id": 1, "ticker": "NEW-USD", "liquidity_tier": 4}},
    ],
}


def position_tier(*values):
    keys = ("tier", "minSz", "maxSz", "mmr", "imr", "maxLever")
    return {"instFamily": "ETH-USDT", "instId": ""} | dict(zip(keys, values, strict=True))


# OKX announcement "position tiers to be adjusted" (support 4402607424781): ETHUSDT perpetual swap,
# tiers 1 to 3. A contract is 0.1 ETH (public/instruments); the price is ours.
OKX_TIERS = {
    "code": "0",
    "data": [
        position_tier("1", "0", "3000", "0.004", "0.008", "125"),
        position_tier("2", "3001", "6000", "0.005", "0.01", "100"),
        position_tier("3", "6001", "12000", "0.01", "0.015", "66.66"),
    ],
}
OKX_INSTRUMENTS = {
    "data": [
        {
            "instId": "ETH-USDT-SWAP",
            "instFamily": "ETH-USDT",
            "ctType": "linear",
            "ctVal": "0.1",
            "ctMult": "1",
            "ctValCcy": "ETH",
            "settleCcy": "USDT",
        }
    ]
}
OKX_PRICES = {"data": [{"instId": "ETH-USDT-SWAP", "markPx": "2000"}]}
OKX = [OKX_TIERS, OKX_INSTRUMENTS, OKX_PRICES]


def read(venue, *documents, last_cap=None, symbols=None, all_usd=False):
    return VENUES[venue].read(list(documents), ReadOptions(last_cap, symbols, all_usd=all_usd))


def edited(document, path, value):
    """A copy with one value changed, or with one key taken out where the value is None."""
    made = copy.deepcopy(document)
    place = made
    for step in path[:-1]:
        place = place[step]
    if value is None:
        del place[path[-1]]
    else:
        place[path[-1]] = value
    return made


def margin_usd(tiers, notional):
    return maintenance_margin_usd(
        notional,
        [tier.cap_usd for tier in tiers],
        [tier.mmr for tier in tiers],
        amounts_of(tiers),
    )


def test_binance_brackets():
    found = read("binance", BINANCE)
    tiers = found.tiers["1000BONKUSDC"]
    assert [(tier.cap_usd, tier.mmr, tier.imr) for tier in tiers] == [
        (5_000.0, 0.01, 0.02),
        (50_000.0, 0.02, 0.04),
        (600_000.0, 0.025, 0.05),
        (1_200_000.0, 0.05, 0.1),
    ]
    # the venue's formula: notional times rate less maintenance amount
    assert margin_usd(tiers, 100_000.0) == 100_000 * 0.025 - 300
    assert found.margins["1000BONKUSDC"].maintenance_usd(Fraction(100_000)) == 2_200
    assert amounts_of(tiers) == (0.0, 50.0, 300.0, 15_300.0)
    assert found.remarks == ()


def test_binance_tiers_in_the_shape_of_ccxt_and_of_one_contract():
    listed = BINANCE[0]["brackets"]
    as_texts = [{key: str(value) for key, value in one.items()} for one in listed]
    ccxt = {"1000BONK/USDC:USDC": [{"tier": 1.0, "info": one} for one in as_texts]}
    expected = read("binance", BINANCE).tiers
    assert read("binance", ccxt).tiers == expected == read("binance", BINANCE[0]).tiers


def test_brackets_of_one_account_are_told_from_the_venues():
    found = read("binance", [BINANCE[0] | {"notionalCoef": 1.5}])
    assert "brackets of the account" in found.remarks[0]


def test_bybit_risk_limits():
    found = read("bybit", BYBIT)
    tiers = found.tiers["XYZUSDT"]
    # 100 contracts at 35 USDT: 1,000 x 2 % + 1,000 x 2.5 % + 1,000 x 3 % + 500 x 3.5 %
    assert margin_usd(tiers, 3_500.0) == 92.5
    assert found.margins["XYZUSDT"].maintenance_usd(Fraction(3_500)) == Fraction(925, 10)
    assert [tier.floor_usd for tier in tiers] == [0.0, 1_000.0, 2_000.0, 3_000.0, 4_000.0]


def test_bybit_rates_in_per_cent_are_told_by_the_leverage():
    per_cent = copy.deepcopy(BYBIT)
    for row in per_cent["result"]["list"]:
        for key in ("maintenanceMargin", "initialMargin"):
            row[key] = f"{float(row[key]) * 100:g}"
    assert read("bybit", per_cent).tiers == read("bybit", BYBIT).tiers


def test_pages_of_bybit_are_read_together_and_a_missing_one_is_remarked_on():
    page = edited(BYBIT, ("result", "nextPageCursor"), "first%3DYZ")
    last = copy.deepcopy(BYBIT)
    for row in last["result"]["list"]:
        row["symbol"] = "ZYXUSDT"
    assert "contracts may be missing" in read("bybit", page).remarks[0]
    both = read("bybit", [page, last])
    assert set(both.tiers) == {"XYZUSDT", "ZYXUSDT"}
    assert both.remarks == ()


def test_hyperliquid_margin_tables():
    found = read("hyperliquid", HYPERLIQUID, last_cap=500e6)
    btc = found.tiers["BTC"]
    # the page's example: at 20x the maintenance margin rate is 2.5 %
    assert [(tier.cap_usd, tier.mmr, tier.imr) for tier in btc] == [
        (150e6, 0.0125, 0.025),
        (500e6, 0.025, 0.05),
    ]
    # maintenance_deduction(1) = 0 + 150M x (2.5 % - 1.25 %)
    assert amounts_of(btc) == (0.0, 1_875_000.0)
    margin = found.margins["BTC"]
    assert (
        margin.maintenance_usd(Fraction(200_000_000)) == 200_000_000 * Fraction(1, 40) - 1_875_000
    )
    assert margin.initial_rate(Fraction(150_000_000)) == Fraction(1, 40)
    assert margin.initial_rate(Fraction(150_000_001)) == Fraction(1, 20)
    doge = found.margins["DOGE"]
    # 20k x 5 % + 80k x 10 % + 20k x 1/6
    assert doge.maintenance_usd(Fraction(120_000)) == 1_000 + 8_000 + Fraction(20_000, 6)
    assert [tier.mmr for tier in found.tiers["SMALL"]] == [rate_of_leverage(6)]


def test_hyperliquid_tables_come_with_market_data_too_and_the_delisted_are_left_out():
    meta = edited(HYPERLIQUID, ("universe", 2, "isDelisted"), value=True)
    found = read("hyperliquid", [meta, []], last_cap=500e6)
    assert set(found.tiers) == {"BTC", "DOGE"}
    assert found.remarks == ("SMALL is delisted and was left out",)


def test_dydx_liquidity_tiers():
    found = read("dydx", DYDX, last_cap=5e6)
    (btc,) = found.tiers["BTC-USD"]
    assert (btc.cap_usd, btc.mmr, btc.imr) == (5e6, 0.03, 0.05)
    (new,) = found.tiers["NEW-USD"]
    assert new.cap_usd == 1e6
    assert "open interest" in found.remarks[0]


@pytest.mark.parametrize(
    ("initial", "notional", "expected"),
    # dydxprotocol/v4-chain, liquidity_tier_test.go, TestGetInitialMarginQuoteQuantums
    [(200_000, 500_000, 100_000), (100_000, 1, 1), (567_243, 123_456, 70_030)],
)
def test_dydx_rounds_margins_up_to_a_quote_quantum(initial, notional, expected):
    tier = edited(DYDX, ("liquidity_tiers", 0, "initial_margin_ppm"), initial)
    margin = read("dydx", tier, last_cap=5e6).margins["BTC-USD"]
    quantums = Fraction(notional, 10**6)
    assert margin.initial_rate(quantums) * quantums == Fraction(expected, 10**6)
    # maintenance is 60 % of the rounded initial margin, rounded up again (lib.go)
    assert margin.maintenance_usd(quantums) == Fraction(-(-expected * 6 // 10), 10**6)


def test_dydx_responses_may_lie_in_two_files():
    both = read("dydx", DYDX, last_cap=5e6)
    tiers, markets = ({key: DYDX[key]} for key in ("liquidity_tiers", "perpetual"))
    assert read("dydx", markets, tiers, last_cap=5e6).tiers == both.tiers


def test_okx_position_tiers():
    found = read("okx", *OKX)
    tiers = found.tiers["ETH-USDT-SWAP"]
    # 3,000 contracts of 0.1 ETH at 2,000
    assert [tier.cap_usd for tier in tiers] == [600_000.0, 1_200_000.0, 2_400_000.0]
    assert [(tier.mmr, tier.imr) for tier in tiers] == [
        (0.004, 0.008),
        (0.005, 0.01),
        (0.01, 0.015),
    ]
    margin = found.margins["ETH-USDT-SWAP"]
    # the tier's rate on the whole position
    assert margin.maintenance_usd(Fraction(2_400_000)) == 24_000
    # by the schedule 600,000 x 0.4 % + 600,000 x 0.5 % + 1,200,000 x 1 %: 27.5 % less
    assert margin_usd(tiers, 2_400_000.0) == 17_400.0
    check = compare("ETH-USDT-SWAP", tiers, margin)
    assert check.least == 0.0
    assert check.largest == pytest.approx(12_000 / 5_400 - 1, abs=1e-6)
    assert "large positions pay less than on the venue" in found.remarks[0]


def test_contracts_with_equal_tiers_share_them_in_the_schedule():
    twin = edited(BINANCE[0], ("symbol",), "TWINUSDT")
    found = read("binance", [BINANCE[0], twin])
    (brackets,) = schedule_of(found.tiers, "s", "d").brackets
    assert brackets.symbols == ("1000BONKUSDC", "TWINUSDT")


def test_only_the_wanted_contracts_are_read():
    odd = edited(BINANCE[0], ("symbol",), "ETHBTC")
    assert set(read("binance", [BINANCE[0], odd], symbols=("1000BONKUSDC",)).tiers) == {
        "1000BONKUSDC"
    }
    with pytest.raises(InputError, match=r"has no 1000BONKUSD \(did you mean '1000BONKUSDC'\?\)"):
        read("binance", BINANCE, symbols=("1000BONKUSD",))


FIRST = (0, "brackets")
LIST = ("result", "list")
BAD = [
    # the venue's own arithmetic, broken
    ("binance", [edited(BINANCE, (*FIRST, 2, "cum"), 301.0)],
     r"1000BONKUSDC, bracket 3: cum is 301, but the rates and edges of the tiers give 300"),
    ("bybit", [edited(BYBIT, (*LIST, 3, "mmDeduction"), "31")],
     "XYZUSDT, tier 4: mmDeduction is 31, but .* give 30"),
    ("bybit", [edited(BYBIT, (*LIST, 1, "mmDeduction"), "")], "mmDeduction is 0, but .* give 5"),
    ("bybit", [edited(BYBIT, (*LIST, 1, "maxLeverage"), "25")],
     "an initialMargin of 0.05 goes with a maxLeverage of 20.00, found 25"),
    ("hyperliquid", [edited(HYPERLIQUID, ("universe", 0, "maxLeverage"), 50)],
     "BTC: maxLeverage is 50, its margin table 56 starts with 40"),
    # another currency
    ("binance", [[{"symbol": "BTCUSD_PERP", "brackets": [{"qtyCap": 50, "initialLeverage": 125}]}]],
     "BTCUSD_PERP is not quoted in USD"),
    ("binance", [[{"symbol": "BTCUSDT", "brackets": [{"qtyCap": 50, "initialLeverage": 125}]}]],
     "edges are quantities of coin"),
    ("binance", [[{"pair": "BTCUSD", "brackets": []}]], "coin-margined"),
    ("binance", [{"BTC/USD:BTC": []}], "settles in BTC"),
    ("binance", [edited(BINANCE, (0, "symbol"), "ETHBTC")], "ETHBTC is not quoted in USD"),
    ("bybit", [edited(BYBIT, ("result", "category"), "inverse")], "limits are in coin"),
    ("hyperliquid", [edited(HYPERLIQUID, ("collateralToken",), 268)], "collateralToken is 268"),
    ("okx", [OKX_TIERS, edited(OKX_INSTRUMENTS, ("data", 0, "ctType"), "inverse"), OKX_PRICES],
     "ETH-USDT-SWAP is inverse"),
    ("okx", [OKX_TIERS, edited(OKX_INSTRUMENTS, ("data", 0, "settleCcy"), "ETH"), OKX_PRICES],
     "settles in ETH"),
    ("okx", [OKX_TIERS], "no file says what a contract is worth"),
    ("okx", [OKX_TIERS, OKX_INSTRUMENTS], "no file has its mark price"),
    ("okx", [OKX_TIERS, OKX_INSTRUMENTS, edited(OKX_PRICES, ("data", 0, "markPx"), "0")],
     "cannot be worth nothing"),
    # order
    ("binance", [edited(BINANCE, (*FIRST, 1, "notionalFloor"), 6_000)],
     "tier 2 must start where tier 1 ends, at 5000, found floor_usd = 6000"),
    ("binance", [edited(BINANCE, FIRST, BINANCE[0]["brackets"][::-1])], "tier 1 must start at"),
    ("bybit", [edited(BYBIT, LIST, BYBIT["result"]["list"][::-1])], "cap_usd must lie above"),
    ("okx", [edited(OKX_TIERS, ("data", 1, "minSz"), "3500"), *OKX[1:]],
     "tier 2 starts at 3,500 contracts, the one before ends at 3,000"),
    ("okx", [edited(OKX_TIERS, ("data", 1, "minSz"), "2000"), *OKX[1:]], "must not overlap"),
    ("okx", [edited(OKX_TIERS, ("data", 1, "tier"), "4"), *OKX[1:]], "tier 2 is missing"),
    ("hyperliquid",
     [edited(HYPERLIQUID, ("marginTables", 0, 1, "marginTiers", 1, "maxLeverage"), 50)],
     "mmr must not fall as notional rises"),
    ("hyperliquid",
     [edited(HYPERLIQUID, ("marginTables", 0, 1, "marginTiers", 0, "lowerBound"), "5")],
     "the first tier must start at 0"),
    # contracts
    ("binance", [BINANCE * 2], "1000BONKUSDC stands twice"),
    ("hyperliquid", [edited(HYPERLIQUID, ("universe", 1, "name"), "BTC")], "BTC stands twice"),
    ("hyperliquid", [edited(HYPERLIQUID, ("universe", 0, "marginTableId"), 99)],
     "BTC uses margin table 99, which is not there; found: 52, 56"),
    ("dydx", [edited(DYDX, ("perpetual", 0, "params", "liquidity_tier"), 7)],
     "BTC-USD uses liquidity tier 7, which is not there; found: 0, 4"),
    ("dydx", [{"liquidity_tiers": DYDX["liquidity_tiers"]}], "no market in the files"),
    ("binance", [[]], "no contract in it"),
    # keys and values
    ("binance", [edited(BINANCE, (*FIRST, 0, "cum"), None)], "bracket 1: key 'cum' is missing"),
    ("bybit", [edited(BYBIT, (*LIST, 0, "riskLimitValue"), None)], "'riskLimitValue' is missing"),
    ("hyperliquid", [edited(HYPERLIQUID, ("universe", 0, "marginTableId"), None)],
     "'marginTableId' is missing"),
    ("dydx", [edited(DYDX, ("liquidity_tiers", 0, "maintenance_fraction_ppm"), None)],
     "'maintenance_fraction_ppm' is missing"),
    ("okx", [edited(OKX_TIERS, ("data", 0, "mmr"), None), *OKX[1:]], "'mmr' is missing"),
    ("binance", [edited(BINANCE, (*FIRST, 0, "maintMarginRatio"), "high")], "found 'high'"),
    ("binance", [edited(BINANCE, (*FIRST, 0, "maintMarginRatio"), float("nan"))], "found nan"),
    ("binance", [edited(BINANCE, (*FIRST, 0, "maintMarginRatio"), value=True)], "found True"),
    ("binance", [edited(BINANCE, (*FIRST, 0, "maintMarginRatio"), -0.01)], "found -0.01"),
    ("binance", [edited(BINANCE, (*FIRST, 0, "initialLeverage"), 12.5)], "must be a whole number"),
    ("binance", [edited(BINANCE, (*FIRST, 0, "initialLeverage"), 0)], "at least 1, found 0"),
    ("binance", [edited(BINANCE, (*FIRST, 0, "maintMarginRatio"), 0.02)], "mmr must lie below imr"),
    ("dydx", [edited(DYDX, ("liquidity_tiers", 0, "initial_margin_ppm"), 1_000_001)],
     "at most at 1,000,000, found 1000001"),
    ("dydx", [edited(DYDX, ("liquidity_tiers", 0, "open_interest_lower_cap"), "1")],
     "the chain refuses that"),
    ("dydx", [edited(DYDX, ("liquidity_tiers", 0, "maintenance_fraction_ppm"), 1_000_000)],
     "mmr must lie below imr"),
    ("okx", [{"data": [{"volume": "1"}]}], "is none of position tiers"),
    ("bybit", ["text"], "an object is needed, found 'text'"),
    ("hyperliquid", [edited(HYPERLIQUID, ("marginTables", 0), [56])], "a pair of id and table"),
]  # fmt: skip


@pytest.mark.parametrize(("venue", "documents", "said"), BAD)
def test_what_cannot_be_meant_is_refused_by_name(venue, documents, said):
    with pytest.raises(InputError, match=said):
        read(venue, *documents, last_cap=500e6)


@pytest.mark.parametrize("last_cap", [None, 100e6, float("inf")])
def test_a_last_tier_without_an_end_needs_one(last_cap):
    with pytest.raises(InputError, match="--last-cap"):
        read("hyperliquid", HYPERLIQUID, last_cap=last_cap)


def test_keys_that_venues_add_are_left_alone():
    more = edited(BINANCE, (*FIRST, 0, "newKey"), {"a": 1})
    assert read("binance", more).tiers == read("binance", BINANCE).tiers


def test_a_name_that_says_no_currency_is_read_where_the_user_vouches_for_it():
    own = edited(BINANCE, (0, "symbol"), "SIM-ALT")
    assert set(read("binance", own, all_usd=True).tiers) == {"SIM-ALT"}


def test_a_text_that_is_no_json_says_where():
    with pytest.raises(InputError, match=r"x.json is no response .*line 1 column 3"):
        parse_text(venue_named("binance"), "[1", "x.json")
    with pytest.raises(InputError, match=r"no venue 'binanc' \(did you mean 'binance'\?\)"):
        venue_named("binanc")


def test_all_problems_of_a_contracts_tiers_are_told_at_once():
    broken = edited(
        edited(BINANCE, (*FIRST, 1, "notionalFloor"), 6_000), (*FIRST, 3, "maintMarginRatio"), 0.001
    )
    with pytest.raises(SpecError) as caught:
        read("binance", broken)
    assert caught.value.source == "1000BONKUSDC"
    assert "tier 2 must start" in str(caught.value)
    assert "tier 4: mmr must not fall" in str(caught.value)
