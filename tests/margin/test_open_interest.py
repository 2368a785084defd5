import math
from datetime import timedelta

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from margincast.margin.open_interest import (
    Held,
    cap_share,
    open_interest_shares,
    scaled_rates,
)
from margincast.specs.beside_maintenance import OpenInterest, OpenInterestDays
from margincast.specs.loading import validate_spec

SECTION = validate_spec(
    {
        "max_age": "2d",
        "unknown_share": 0.5,
        "caps": [
            {"symbols": ["BTCUSDT"], "lower_cap_usd": 1_000_000.0, "upper_cap_usd": 2_000_000.0}
        ],
        "days": {"lower_cap_days": 1.0, "upper_cap_days": 3.0, "window": "30d"},
    },
    OpenInterest,
    "open_interest",
)
PPM = 1e-6


@pytest.mark.parametrize(
    ("open_interest", "ppm"),
    [
        (0, 200_000),
        (1_500_000, 600_000),
        (1_234_567, 387_653),  # 387_653.6: dYdX rounds it down, so do we for the comparison
        (1_000_000, 200_000),
        (2_000_000, 1_000_000),
        (2_500_000, 1_000_000),
    ],
)
def test_the_rates_of_dydx_to_a_millionth(open_interest, ppm):
    # dYdX v4-chain, protocol/x/perpetuals/types/liquidity_tier_test.go,
    # TestGetAdjustedInitialMarginPpm: initial margin 20 %, caps 1,000,000 and 2,000,000
    share = cap_share(np.array([float(open_interest)]), 1_000_000.0, 2_000_000.0)
    assert math.floor(float(0.2 + share[0] * 0.8) / PPM + 1e-6) == ppm
    up = scaled_rates(np.array([0.2]), share, PPM)
    assert 0.0 <= round(up[0] / PPM) - ppm <= 1


@pytest.mark.parametrize(
    ("open_interest", "lower", "upper", "margin"),
    [
        (1_500_000, 1_000_000, 2_000_000, 300_000),
        (80_000_000, 25_000_000, 50_000_000, 500_000),
        (25_000_000, 25_000_000, 50_000_000, 100_000),
        (28_123_456.789123, 25_000_000, 60_000_000, 135_697),
    ],
)
def test_the_margins_of_dydx_to_a_quantum(open_interest, lower, upper, margin):
    # The same file, TestGetInitialMarginQuoteQuantums: 500,000 quote quantums at 20 %; the rate is
    # rounded down to a millionth, the margin up to a quantum.
    share = cap_share(np.array([open_interest]), float(lower), float(upper))[0]
    rate = math.floor(float(0.2 + share * 0.8) / PPM + 1e-6)
    assert math.ceil(500_000 * rate / 1_000_000) == margin


RATES = st.integers(1, 1000).map(lambda number: number / 1000)


@settings(max_examples=40)
@given(RATES, st.floats(0, 3e6), st.floats(0, 3e6))
def test_rates_rise_with_open_interest_between_their_own_and_one(imr, first, second):
    share = cap_share(np.sort([first, second]), 1e6, 2e6)
    low, high = scaled_rates(np.full(2, imr), share, 0.0005)
    assert imr <= low <= high <= 1.0
    assert low == imr or share[0] > 0.0


def said_of(symbol, held):
    found = open_interest_shares([symbol], held, SECTION)
    return found.share[0], found.reason[0], found.usd[0]


FRESH = timedelta(hours=5)


@pytest.mark.parametrize(
    ("symbol", "held", "share", "said"),
    [
        ("BTCUSDT", Held(1.5e6, FRESH, math.nan), 0.5, "1.5e+06 USD, 0.5 of the way from 1e+06"),
        ("BTCUSDT", Held(0.0, FRESH, math.nan), 0.0, ""),
        (
            "ETHUSDT",
            Held(5e6, FRESH, 2e6),
            0.75,
            "2.5 days of trading, 0.75 of the way from 1 to 3",
        ),
        ("ETHUSDT", Held(5e6, FRESH, math.nan), 0.5, "as the contract's trading is not"),
        ("ETHUSDT", Held(5e6, FRESH, 0.0), 0.5, "as the contract's trading is not"),
        ("BTCUSDT", Held(1.5e6, timedelta(days=3), 1.0), 0.5, "stale: 3 days, 0:00:00 old"),
        ("BTCUSDT", Held(1.5e6, -FRESH, 1.0), 0.5, "stale: -1 day"),
        ("BTCUSDT", Held(math.nan, FRESH, 1.0), 0.5, "open interest not known"),
        ("BTCUSDT", Held(-1.0, FRESH, 1.0), 0.5, "of -1 USD is not believed"),
        ("BTCUSDT", Held(math.inf, FRESH, 1.0), 0.5, "of inf USD is not believed"),
    ],
)
def test_what_is_not_known_takes_the_share_of_the_policy(symbol, held, share, said):
    found, reason, _ = said_of(symbol, {symbol: held})
    assert (found, said in reason, bool(reason)) == (share, True, bool(said))


def test_an_absent_contract_is_not_known_and_one_without_caps_is_not_scaled():
    assert said_of("BTCUSDT", {})[:2] == (0.5, "open interest not known: 0.5 of the way to 1")
    named_only = SECTION.model_copy(update={"days": None})
    assert open_interest_shares(["ETHUSDT"], {}, named_only).share.tolist() == [0.0]


def test_real_open_interest_in_days_of_real_trading_is_scaled_in_some_years(shared_data):
    """BTC's open interest (Coinalyze, daily) over a month of trading, 2021-09 to 2024-12."""
    daily = pd.read_csv(shared_data / "data" / "open_interest" / "coinalyze_daily_top10.csv")
    held = daily[daily["coin_symbol"] == "BTC"].set_index("date")["oi_close"]
    bars = pd.read_parquet(
        shared_data / "data" / "bars" / "binance_perp_1h" / "BTCUSDT.parquet",
        columns=["ts", "close", "volume"],
    )
    traded = (bars["close"] * bars["volume"]).groupby(bars["ts"].dt.strftime("%Y-%m-%d")).sum()
    joined = pd.concat([held, traded.rolling(30).mean()], axis=1, keys=["held", "daily"]).dropna()
    assert len(joined) > 1000
    # open interest of the coin-margined contract is a twentieth of a day of the other's trading
    days = {"lower_cap_days": 0.05, "upper_cap_days": 0.1, "window": timedelta(days=30)}
    section = SECTION.model_copy(update={"days": OpenInterestDays(**days)})
    found = np.array(
        [
            open_interest_shares(["BTC"], {"BTC": Held(held, FRESH, day)}, section).share[0]
            for held, day in joined.itertuples(index=False)
        ]
    )
    assert 0.3 < (found == 0.0).mean() < 0.7
    assert 0.0 < (found == 1.0).mean() < 0.1
    rates = scaled_rates(np.full(len(found), 0.05), found, 0.0005)
    order = np.argsort((joined["held"] / joined["daily"]).to_numpy())
    assert np.all(np.diff(rates[order]) >= 0.0)
