"""Functions of implied volatility over the leader's bars: by hand, in bounds, looking back only."""

import math
from datetime import UTC, datetime, timedelta

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from margincast.data.bars import BarTable, regular_bars
from margincast.data.states import StateTable
from margincast.features.implied_vol.surface import surface_states
from margincast.features.library import LIBRARY, Window
from margincast.features.pipeline import build_features
from margincast.features.sources import Sources
from margincast.specs.features import FeatureSet
from margincast.specs.loading import validate_spec

HOUR = timedelta(hours=1)
START = datetime(2026, 1, 5, tzinfo=UTC)
UTC_TIME = pl.Datetime("us", "UTC")
HOURS_A_YEAR = 365 * 24
INDEX = {name: one for (family, name), one in LIBRARY.items() if family == "implied_vol"}
OPTIONS = {name: one for (family, name), one in LIBRARY.items() if family == "options"}
SURFACE = [
    f"{measure}_{days}d"
    for measure in ("atm_volatility", "skew_25_delta", "butterfly_25_delta")
    for days in (1, 4)
]


def window(hours, minimum=None):
    return Window.over(hours * HOUR, HOUR, 1.0 if minimum is None else minimum / hours)


def value(function, frame, hours, minimum=None):
    return frame.select(function.build(window(hours, minimum)).alias("value"))["value"].to_list()


def random_rows(seed, count=40, gaps=0.1):
    """Bars with an index and a surface beside them, each unknown here and there."""
    generator = np.random.default_rng(seed)

    def holed(values):
        return pl.Series(np.where(generator.random(count) < gaps, np.nan, values)).fill_nan(None)

    columns = {"close": holed(100 * np.exp(np.cumsum(0.01 * generator.standard_normal(count))))}
    for name in ["implied_volatility", *SURFACE]:
        columns[name] = holed(generator.uniform(0.3, 1.2, count))
    return pl.DataFrame(columns)


# --- by hand --------------------------------------------------------------------------------------

# log returns 2 %, -2 %, 2 %: realised variance 0.0004 a bar; implied 50 %, 60 %, 40 %, 60 %
HAND = pl.DataFrame(
    {
        "close": np.exp([0.0, 0.02, 0.0, 0.02]),
        "implied_volatility": [0.5, 0.6, 0.4, 0.6],
    }
)
BAR = 1 / math.sqrt(HOURS_A_YEAR)


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("implied_volatility", 1.6 / 3 * BAR),
        ("log_implied_volatility", math.log(1.6 / 3)),
        ("implied_volatility_change", math.log(0.6 / 0.5)),
        # of 0.6, 0.4, 0.6: a third below, two thirds equal
        ("implied_volatility_rank", 1 / 3 + 1 / 3),
        ("implied_less_realised", 0.6 * BAR - 0.02),
        ("log_implied_over_realised", math.log(0.6 * BAR / 0.02)),
        ("variance_risk_premium", 0.36 - 0.0004 * HOURS_A_YEAR),
    ],
)
def test_the_index_by_hand(name, expected):
    assert value(INDEX[name], HAND, 3)[-1] == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("atm_volatility", 0.8 * BAR),
        ("log_atm_volatility", math.log(0.8)),
        ("skew_25_delta", 0.1 * BAR),
        ("relative_skew_25_delta", 0.125),
        ("butterfly_25_delta", 0.02 * BAR),
        ("relative_butterfly_25_delta", 0.025),
        ("atm_term_slope", math.log(0.8 / 0.6)),
        ("atm_less_realised", 0.8 * BAR - 0.02),
        ("log_atm_over_realised", math.log(0.8 * BAR / 0.02)),
    ],
)
def test_options_by_hand(name, expected):
    frame = pl.DataFrame({"close": np.exp(0.02 * (np.arange(30) % 2))}).with_columns(
        pl.lit(0.8).alias("atm_volatility_1d"),
        pl.lit(0.6).alias("atm_volatility_4d"),
        pl.lit(0.1).alias("skew_25_delta_1d"),
        pl.lit(0.02).alias("butterfly_25_delta_1d"),
    )
    assert value(OPTIONS[name], frame, 24)[-1] == pytest.approx(expected, rel=1e-12)


def test_every_function_stands_in_a_test_by_hand():
    by_hand = {
        case[0]
        for test in (test_the_index_by_hand, test_options_by_hand)
        for mark in test.pytestmark
        for case in mark.args[1]
    }
    assert by_hand == {*INDEX, *OPTIONS}


def test_what_did_not_move_has_no_ratio():
    still = HAND.with_columns(pl.lit(100.0).alias("close"))
    assert value(INDEX["log_implied_over_realised"], still, 3)[-1] is None
    assert value(INDEX["variance_risk_premium"], still, 3)[-1] == pytest.approx(0.36)


# --- properties -----------------------------------------------------------------------------------

FUNCTIONS = st.sampled_from([*INDEX.values(), *OPTIONS.values()])
SEEDS = st.integers(0, 10**6)


@given(FUNCTIONS, SEEDS, st.integers(0, 39))
def test_nothing_at_t_moves_when_the_future_does(function, seed, row):
    frame = random_rows(seed)
    other = pl.concat([frame[: row + 1], random_rows(seed + 1)[row + 1 :]])
    kept = [value(function, rows, 24, 6)[: row + 1] for rows in (frame, other, frame[: row + 1])]
    assert kept[0] == kept[1] == kept[2]


@given(FUNCTIONS, SEEDS)
def test_a_value_hangs_on_its_declared_look_back_alone(function, seed):
    frame = random_rows(seed)
    look_back = function.look_back(window(24, 6))
    whole, tail = (value(function, rows, 24, 6)[-1] for rows in (frame, frame.tail(look_back)))
    assert tail == (None if whole is None else pytest.approx(whole, rel=1e-9, abs=1e-12))


@given(SEEDS)
def test_the_rank_is_the_share_below_and_half_the_share_equal(seed):
    frame = random_rows(seed).with_columns(pl.col("implied_volatility").round(1))
    ranks = value(INDEX["implied_volatility_rank"], frame, 12, 4)
    index = frame["implied_volatility"].to_list()
    for row in range(len(index)):
        known = [one for one in index[max(0, row - 11) : row + 1] if one is not None]
        if index[row] is None or len(known) < 4:
            assert ranks[row] is None
            continue
        expected = sum((one < index[row]) + 0.5 * (one == index[row]) for one in known)
        assert ranks[row] == pytest.approx(expected / len(known))
        assert 0 < ranks[row] < 1


@given(FUNCTIONS, SEEDS, st.floats(0.01, 100))
def test_the_price_level_changes_nothing(function, seed, factor):
    frame = random_rows(seed)
    scaled = frame.with_columns(pl.col("close") * factor)
    one, other = (value(function, rows, 24, 6) for rows in (frame, scaled))
    assert [x is None for x in one] == [x is None for x in other]
    known = [pair for pair in zip(one, other, strict=True) if pair[0] is not None]
    np.testing.assert_allclose(*np.reshape(known, (-1, 2)).T, rtol=1e-7, atol=1e-9)


# --- through the pipeline -------------------------------------------------------------------------


def chain_at(times, volatility):
    strikes = 100 * np.exp(np.linspace(-0.4, 0.4, 21))
    rows = [
        (time, f"{days}-{strike}-{kind}", kind, strike, time + timedelta(days=days), level)
        for time, level in zip(times, volatility, strict=True)
        for days in (1, 4, 10)
        for strike in strikes
        for kind in ("call", "put")
    ]
    names = ("ts", "instrument", "option_type", "strike", "expiry", "implied_volatility")
    frame = pl.DataFrame(rows, schema=list(names), orient="row")
    return frame.with_columns(
        pl.col("ts", "expiry").cast(UTC_TIME),
        pl.col("ts").cast(UTC_TIME).alias("known_at"),
        pl.lit(100.0).alias("underlying_price"),
    )


def feature_set():
    return validate_spec(
        {
            "name": "test",
            "description": "test",
            "grid": {
                "interval": "1h",
                "warm_up": "2h",
                "minimum_present": 0.5,
                "leader": "BTCUSDT",
            },
            "standing": {"implied_vol": "2h", "options": "3h"},
            "implied_vol": [{"function": "implied_volatility", "windows": ["1h"]}],
            "options": [
                {"function": "atm_volatility", "windows": ["1d", "2d"]},
                {"function": "atm_term_slope", "windows": ["1d"]},
            ],
        },
        FeatureSet,
        "test",
    )


@settings(max_examples=3)
@given(st.floats(0.2, 1.5), st.floats(0.2, 1.5))
def test_every_contract_sees_the_leaders_surface_while_it_stands(first, second):
    bars = pl.DataFrame(
        {
            "ts": [START + number * HOUR for number in range(12)],
            **dict.fromkeys(("open", "high", "low", "close"), np.linspace(100, 101, 12)),
            "volume": np.ones(12),
        },
        schema_overrides={"ts": UTC_TIME},
    )
    frames = {name: regular_bars(bars, name, HOUR)[0] for name in ("BTCUSDT", "ETHUSDT")}
    # known exactly at the close of the fourth bar, and one microsecond after that of the sixth
    times = [START + 4 * HOUR, START + 6 * HOUR + timedelta(microseconds=1)]
    chain = chain_at(times, (first, second))
    index = pl.DataFrame(
        {
            "ts": [START + 3 * HOUR],
            "known_at": [START + 4 * HOUR],
            "implied_volatility": [0.5],
            "covers": [HOUR],
        },
        schema_overrides={"ts": UTC_TIME, "known_at": UTC_TIME},
    )
    tables = {
        "options": StateTable({"BTC": chain}, ()),
        "implied_vol": StateTable({"BTC": index}, ()),
    }
    built = build_features(feature_set(), Sources(BarTable(frames, HOUR, ()), states=tables))
    for symbol in frames:
        seen = built.frame[built.frame["symbol"] == symbol].set_index("ts")
        hours = {
            number: seen["atm_volatility_1d"].get(START + number * HOUR, np.nan)
            for number in range(2, 13)
        }
        expected = {4: first, 5: first, 6: first, 7: second, 8: second, 9: second}
        for number, annual in hours.items():
            if number in expected:
                assert annual == pytest.approx(expected[number] * BAR, rel=1e-4)
            else:
                assert math.isnan(annual)
        assert seen["atm_term_slope_1d"].dropna().abs().max() < 1e-3
        assert list(seen["implied_volatility_1h"].dropna()) == pytest.approx([0.5 * BAR] * 3)
    found = {one.what: (one.count, one.total) for one in built.findings if one.table == "options"}
    assert found["expiry whose smile misses its quotes"] == (0, 6)
    # a surface fitted before gives the same
    fitted = {**tables, "options": StateTable({"BTC": surface_states(chain, (1, 2, 4))}, ())}
    again = build_features(feature_set(), Sources(BarTable(frames, HOUR, ()), states=fitted))
    assert again.frame.equals(built.frame)
