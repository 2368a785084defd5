"""Market features: by hand, beside pandas, and blind to what comes later."""

import math
from datetime import UTC, datetime, timedelta

import numpy as np
import pandas as pd
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from margincast.core.errors import InputError
from margincast.data.bars import BarTable, regular_bars
from margincast.features.library import LIBRARY
from margincast.features.pipeline import build_features
from margincast.features.sources import Sources
from margincast.specs.features import FeatureSet
from margincast.specs.loading import validate_spec

HOUR = timedelta(hours=1)
START = datetime(2024, 1, 1, tzinfo=UTC)
SYMBOLS = ("BTCUSDT", "DOGEUSDT", "ETHUSDT", "SOLUSDT")
PRICES = ("open", "high", "low", "close")
MOVE, SCALE, SHARE = "log_return_1h", "realised_volatility_6h", "downside_share_6h"
FUNCTIONS = {name: function for (family, name), function in LIBRARY.items() if family == "market"}
RELATIVE = [name for name, one in FUNCTIONS.items() if one.argument == "columns and windows"]


def lines():
    """One line for every market function there is."""
    arguments = {
        "columns": {"columns": [MOVE, SCALE]},
        "pairs": {"columns": [MOVE, SCALE]},
        "columns and windows": {"columns": [MOVE], "windows": ["7h"]},
    }
    return [{"function": name, **arguments[one.argument]} for name, one in FUNCTIONS.items()]


def feature_set(market=None, minimum_present=0.6):
    bars = [(MOVE, "1h"), (SCALE, "6h"), (SHARE, "6h")]
    raw = {
        "name": "test",
        "description": "test",
        "grid": {
            "interval": "1h",
            "warm_up": "3h",
            "minimum_present": minimum_present,
            "leader": "BTCUSDT",
        },
        "bars": [{"function": n.rsplit("_", 1)[0], "windows": [window]} for n, window in bars],
        "market": lines() if market is None else market,
        "calendar": [],
    }
    return validate_spec(raw, FeatureSet, "test")


def bars_of(close, start=START):
    close = np.asarray(close, dtype=float)
    return pl.DataFrame(
        {
            "ts": [start + i * HOUR for i in range(len(close))],
            **dict.fromkeys(PRICES, close),
            "volume": np.ones(len(close)),
        },
        schema_overrides={"ts": pl.Datetime("us", "UTC")},
    )


def table_of(raw):
    frames = {name: regular_bars(frame, name, HOUR)[0] for name, frame in raw.items()}
    return BarTable(frames, HOUR, ())


def random_market(seed, count=40, gaps=0.08):
    """Contracts that follow the market to differing degrees, with bars missing here and there."""
    generator = np.random.default_rng(seed)
    common = generator.standard_t(3, count) * 0.01
    raw = {}
    for number, symbol in enumerate(SYMBOLS):
        own = generator.standard_t(3, count) * 0.01
        frame = bars_of(100 * np.exp(np.cumsum(common * (0.5 + number / 2) + own)))
        kept = pl.Series(generator.random(count) >= gaps)
        kept[0] = kept[-1] = True
        raw[symbol] = frame.filter(kept)
    return raw


def built(raw, *market, **grid):
    return build_features(feature_set(list(market) or None, **grid), Sources(table_of(raw))).frame


# --- by hand --------------------------------------------------------------------------------------

# log returns of the last hour: 1 %, -3 %, 5 %, and one contract without a bar before
LAST = {"BTCUSDT": 0.01, "DOGEUSDT": -0.03, "ETHUSDT": 0.05}


def hand_market():
    return {
        symbol: bars_of(np.exp([0.0, 0.01, 0.0, 0.01, 0.01 + move]))
        for symbol, move in LAST.items()
    } | {"SOLUSDT": bars_of([7.0, 7.1, 7.2, 7.3, 7.4]).filter(pl.int_range(pl.len()) != 3)}


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("market_median", 0.01),
        ("leader", 0.01),
        ("market_root_mean_square", math.sqrt((0.01**2 + 0.03**2 + 0.05**2) / 3)),
        # mean 0.01: deviations 0, -0.04, 0.04
        ("market_dispersion", math.sqrt(2 / 3) * 0.04),
        ("breadth_of_falls", 1 / 3),
    ],
)
def test_cross_sections_by_hand(name, expected):
    frame = built(hand_market(), {"function": name, "columns": [MOVE]})
    last = frame[frame["ts"] == frame["ts"].max()]
    assert list(last["symbol"]) == list(SYMBOLS)
    assert last[MOVE].isna().sum() == 1
    np.testing.assert_allclose(last[f"{name}_{MOVE}"], expected, rtol=1e-10)


def test_large_moves_are_three_of_a_contracts_own_scale():
    # returns of 1 % either way, then 1 %, 5 % and -9 %: the root mean square takes the last one in
    last = (0.01, 0.05, -0.09)
    raw = {
        symbol: bars_of(np.exp(np.cumsum([0.0, *[0.01, -0.01] * 12, move])))
        for symbol, move in zip(SYMBOLS, last, strict=False)
    }
    features = feature_set(
        [{"function": "breadth_of_large_moves", "columns": [MOVE, "realised_volatility_2d"]}]
    )
    features = features.model_copy(
        update={
            "bars": (*features.bars, features.bars[1].model_copy(update={"windows": (24 * HOUR,)}))
        }
    )
    with pytest.raises(
        InputError,
        match=r"does not build: realised_volatility_2d .did you mean 'realised_volatility_1d'",
    ):
        build_features(features, Sources(table_of(raw)))
    line = {"function": "breadth_of_large_moves", "columns": [MOVE, "realised_volatility_1d"]}
    features = features.model_copy(update={"market": feature_set([line]).market})
    table = build_features(features, Sources(table_of(raw)))
    name = f"breadth_of_large_moves_{MOVE}_realised_volatility_1d"
    assert table.units[name] == "number"
    # 5 % against sqrt((23 + 25) / 24) = 1.41 %, and 9 % against 2.08 %
    assert table.frame[name].iloc[-1] == pytest.approx(2 / 3)


def test_a_contract_beside_the_leader_by_hand():
    leader = np.array([0.01, -0.02, 0.03, -0.02])
    # twice the leader's return and one per cent, an hour late
    own = np.array([0.0, 0.03, -0.03, 0.07])
    raw = {
        "BTCUSDT": bars_of(np.exp(np.cumsum([0.0, *leader]))),
        "ETHUSDT": bars_of(np.exp(np.cumsum([0.0, *own]))),
    }
    market = [{"function": name, "columns": [MOVE], "windows": ["3h"]} for name in RELATIVE]
    frame = built(raw, *market, minimum_present=1.0)
    last = frame[frame["symbol"] == "ETHUSDT"].iloc[-1]
    x, y = leader[1:], own[1:]
    beta = np.cov(x, y, ddof=0)[0, 1] / np.var(x)
    assert last[f"beta_to_leader_{MOVE}_3h"] == pytest.approx(beta)
    assert last[f"correlation_to_leader_{MOVE}_3h"] == pytest.approx(np.corrcoef(x, y)[0, 1])
    residual = y - y.mean() - beta * (x - x.mean())
    assert last[f"residual_volatility_{MOVE}_3h"] == pytest.approx(math.sqrt(np.mean(residual**2)))
    # -0.02 + 0.03 - 0.02 less 0.03 - 0.03 + 0.07, over three
    assert last[f"leader_gap_{MOVE}_3h"] == pytest.approx(-0.08 / 3)
    # the contract follows an hour later exactly
    goes_before = np.corrcoef(own[:3], leader[1:])[0, 1]
    assert last[f"lead_lag_{MOVE}_3h"] == pytest.approx(1 - goes_before)


# --- the slow twin --------------------------------------------------------------------------------


def slow_cross_section(name, frame):
    """Pandas over the contracts of each decision."""
    move, scale = frame[MOVE], frame[SCALE]
    by_time = move.groupby(frame["ts"])
    if name == "breadth_of_large_moves":
        known = move.notna() & scale.notna()
        large = (move.abs() > 3 * scale).where(known).astype(float)
        return large.groupby(frame["ts"]).transform("mean")
    if name == "leader":
        return frame["ts"].map(move[frame["symbol"] == "BTCUSDT"].set_axis(
            frame.loc[frame["symbol"] == "BTCUSDT", "ts"]))  # fmt: skip
    functions = {
        "market_median": lambda x: x.median(),
        "market_root_mean_square": lambda x: math.sqrt((x**2).mean()),
        "market_dispersion": lambda x: x.std(ddof=0) if x.count() > 1 else math.nan,
        "breadth_of_falls": lambda x: (x.dropna() < 0).mean(),
    }
    return by_time.transform(functions[name])


@pytest.mark.parametrize("name", [name for name in FUNCTIONS if name not in RELATIVE])
@settings(max_examples=8)
@given(seed=st.integers(0, 2**32))
def test_every_cross_section_equals_pandas(name, seed):
    columns = [MOVE, SCALE] if FUNCTIONS[name].argument == "pairs" else [MOVE]
    frame = built(random_market(seed), {"function": name, "columns": columns})
    np.testing.assert_allclose(
        frame["_".join([name, *columns])], slow_cross_section(name, frame), rtol=1e-9, atol=1e-14
    )


def slow_relative(name, own, leader, rows, minimum):
    """One window of two returns at a time, straight from the definition; NaN where not known."""

    def together(y, x):
        known = ~np.isnan(y) & ~np.isnan(x)
        return (y[known], x[known]) if known.sum() >= minimum else (np.zeros(1), np.zeros(1))

    def before(x):
        return np.concatenate([[math.nan], x[:-1]])

    values = []
    for t in range(len(own)):
        window = slice(max(0, t + 1 - rows), t + 1)
        y, x = together(own[window], leader[window])
        if name == "lead_lag":
            late = together(own[window], before(leader)[window])
            early = together(before(own)[window], leader[window])
            one, other = (
                np.corrcoef(*pair)[0, 1] if len(pair[0]) > 1 else math.nan for pair in (late, early)
            )
            values.append(one - other)
        elif len(x) == 1:
            values.append(math.nan)
        elif name == "leader_gap":
            values.append(np.mean(x - y))
        elif name == "correlation_to_leader":
            values.append(np.corrcoef(x, y)[0, 1])
        else:
            line = np.polyfit(x, y, 1)
            residual = math.sqrt(np.mean((y - np.polyval(line, x)) ** 2))
            values.append(line[0] if name == "beta_to_leader" else residual)
    return np.array(values)


@pytest.mark.parametrize("name", RELATIVE)
@settings(max_examples=8)
@given(seed=st.integers(0, 2**32))
def test_every_contract_beside_the_leader_equals_numpy(name, seed):
    raw = random_market(seed)
    frame = built(raw, {"function": name, "columns": [MOVE], "windows": ["8h"]})
    grid = pd.date_range(START, periods=40, freq="h") + HOUR
    returns = {
        symbol: np.diff(
            np.log(bars.to_pandas().set_index("ts")["close"].reindex(grid - HOUR)), prepend=math.nan
        )
        for symbol, bars in raw.items()
    }
    for symbol, own in returns.items():
        slow = slow_relative(name, own, returns["BTCUSDT"], 8, 5)
        mine = frame[frame["symbol"] == symbol].set_index("ts")[f"{name}_{MOVE}_8h"]
        expected = pd.Series(slow, grid).loc[mine.index]
        # a residual is a root: where it is zero, as for the leader, half the digits are lost
        tolerance = 1e-8 if name == "residual_volatility" else 1e-11
        np.testing.assert_allclose(mine, expected, rtol=1e-9, atol=tolerance)


# --- properties -----------------------------------------------------------------------------------


@settings(max_examples=12)
@given(
    seed=st.integers(0, 2**32),
    last_known=st.integers(6, 38),
    change=st.sampled_from(["crash", "delete", "cut", "list"]),
    symbol=st.sampled_from(SYMBOLS),
)
def test_no_function_at_or_before_a_decision_moves_when_later_bars_change(
    seed, last_known, change, symbol
):
    before = random_market(seed)
    after = dict(before)
    later = pl.col("ts") > START + last_known * HOUR
    match change:
        case "crash":
            after[symbol] = before[symbol].with_columns(
                pl.when(later).then(pl.col(name) * 0.3).otherwise(pl.col(name)) for name in PRICES
            )
        case "delete":
            after[symbol] = before[symbol].filter(~later | (pl.int_range(pl.len()) % 2 == 0))
        case "cut":
            after[symbol] = before[symbol].filter(~later)
        case _:
            late = bars_of(np.linspace(1, 2, 40 - last_known), START + (last_known + 1) * HOUR)
            after = {"AAAUSDT": late} | before
    decided = pd.Timestamp(START + (last_known + 1) * HOUR)
    left, right = (
        frame[frame["ts"] <= decided].reset_index(drop=True)
        for frame in (built(before), built(after))
    )
    assert len(left) > 0
    assert left.equals(right)


@settings(max_examples=6)
@given(seed=st.integers(0, 2**32))
def test_the_order_in_which_contracts_come_changes_nothing(seed):
    raw = random_market(seed)
    turned = {symbol: raw[symbol] for symbol in reversed(SYMBOLS)}
    assert built(raw).equals(built(turned))


@settings(max_examples=6)
@given(seed=st.integers(0, 2**32))
def test_prices_in_another_unit_have_the_same_features(seed):
    raw = random_market(seed)
    other = {
        symbol: frame.with_columns(pl.col(*PRICES) * (1000.0 if symbol == "DOGEUSDT" else 1.0))
        for symbol, frame in raw.items()
    }
    one, two = (built(market).drop(columns=["symbol", "ts", "close"]) for market in (raw, other))
    np.testing.assert_allclose(two, one, rtol=1e-6, atol=1e-8)


@settings(max_examples=6)
@given(seed=st.integers(0, 2**32))
def test_in_a_mirrored_market_long_and_short_trade_places(seed):
    raw = random_market(seed)
    mirrored = {s: frame.with_columns(pl.col(*PRICES).pow(-1)) for s, frame in raw.items()}
    one, two = built(raw), built(mirrored)
    unsigned = [f"{name}_{MOVE}" for name in ("market_root_mean_square", "market_dispersion")]
    unsigned += [
        f"{name}_{MOVE}_7h"
        for name in ("correlation_to_leader", "beta_to_leader", "residual_volatility", "lead_lag")
    ]
    for name in (*unsigned, f"breadth_of_large_moves_{MOVE}_{SCALE}"):
        np.testing.assert_allclose(two[name], one[name], rtol=1e-6, atol=1e-8)
    for name in (f"market_median_{MOVE}", f"leader_{MOVE}", f"leader_gap_{MOVE}_7h"):
        np.testing.assert_allclose(two[name], -one[name], rtol=1e-6, atol=1e-8)
    # no return is exactly zero here: what does not fall, rises
    falls = f"breadth_of_falls_{MOVE}"
    np.testing.assert_allclose(two[falls], 1 - one[falls], rtol=1e-12)


@settings(max_examples=6)
@given(seed=st.integers(0, 2**32))
def test_values_stay_within_their_bounds_and_the_leader_is_its_own_measure(seed):
    frame = built(random_market(seed))
    for name, low, high in (
        (f"market_root_mean_square_{MOVE}", 0, math.inf),
        (f"market_dispersion_{MOVE}", 0, math.inf),
        (f"breadth_of_falls_{MOVE}", 0, 1),
        (f"breadth_of_large_moves_{MOVE}_{SCALE}", 0, 1),
        (f"correlation_to_leader_{MOVE}_7h", -1, 1),
        (f"residual_volatility_{MOVE}_7h", 0, math.inf),
        (f"lead_lag_{MOVE}_7h", -2, 2),
    ):
        known = frame[name].dropna()
        assert len(known) > 0
        assert known.between(low, high).all()
    # a spread about the mean is at most one about zero
    spread, size = (frame[f"market_{n}_{MOVE}"] for n in ("dispersion", "root_mean_square"))
    assert (spread.dropna() <= size[spread.notna()] + 1e-12).all()
    leader = frame[frame["symbol"] == "BTCUSDT"]
    for name, value in (
        ("beta_to_leader", 1),
        ("correlation_to_leader", 1),
        ("residual_volatility", 0),
        ("leader_gap", 0),
        ("lead_lag", 0),
    ):
        known = leader[f"{name}_{MOVE}_7h"].dropna()
        assert len(known) > 0
        np.testing.assert_allclose(known, value, atol=1e-7)


def test_a_contract_that_follows_an_hour_later_is_led():
    generator = np.random.default_rng(1)
    leader = generator.normal(0, 0.01, 400)
    own = np.concatenate([[0.0], leader[:-1]]) + generator.normal(0, 0.005, 400)
    raw = {
        "BTCUSDT": bars_of(np.exp(np.cumsum(leader))),
        "ETHUSDT": bars_of(np.exp(np.cumsum(own))),
    }
    line = {"function": "lead_lag", "columns": [MOVE], "windows": ["300h"]}
    frame = built(raw, line)
    led = frame[frame["symbol"] == "ETHUSDT"].iloc[-1][f"lead_lag_{MOVE}_300h"]
    # corr(own, leader before) is 1 / sqrt(1.25) = 0.894; the other way round it is zero
    assert led == pytest.approx(0.894, abs=0.1)


# --- what the pipeline makes of a line ------------------------------------------------------------


def test_without_the_leader_nothing_beside_it_is_known():
    raw = random_market(4)
    del raw["BTCUSDT"]
    frame = built(raw)
    for name in RELATIVE:
        assert frame[f"{name}_{MOVE}_7h"].isna().all()
    assert frame[f"market_median_{MOVE}"].notna().any()


def test_the_unit_is_that_of_the_column():
    market = [
        {"function": "market_median", "columns": [SCALE, SHARE]},
        {"function": "leader_gap", "columns": [SHARE], "windows": ["5h"]},
        {"function": "residual_volatility", "columns": [MOVE], "windows": ["5h"]},
        {"function": "beta_to_leader", "columns": [MOVE], "windows": ["5h"]},
        {"function": "market_dispersion", "columns": [f"beta_to_leader_{MOVE}_5h"]},
    ]
    units = build_features(feature_set(market), Sources(table_of(random_market(2)))).units
    assert units[f"market_median_{SCALE}"] == "fraction"
    assert units[f"market_median_{SHARE}"] == "number"
    assert units[f"leader_gap_{SHARE}_5h"] == "number"
    assert units[f"residual_volatility_{MOVE}_5h"] == "fraction"
    assert units[f"beta_to_leader_{MOVE}_5h"] == "number"
    # a cross-section of what stands beside the leader
    assert units[f"market_dispersion_beta_to_leader_{MOVE}_5h"] == "number"


@pytest.mark.parametrize(
    ("line", "message"),
    [
        (
            {"function": "leader_gap", "columns": [MOVE]},
            "needs columns and windows, and lists none",
        ),
        ({"function": "breadth_of_large_moves"}, "needs pairs, and lists none"),
        # a cross-section of a cross-section: both are made of the same rows
        (
            {"function": "market_median", "columns": [MOVE, f"market_median_{MOVE}"]},
            "reads a column the set does not build: market_median_log_return_1h",
        ),
        # a price has a unit
        ({"function": "market_median", "columns": ["close"]}, "does not build: close"),
        (
            {"function": "breadth_of_large_moves", "columns": [MOVE, SCALE, SHARE]},
            "reads two columns a line, and lists 3",
        ),
        (
            {"function": "leader_gap", "columns": ["log_return_2h"], "windows": ["5h"]},
            r"reads a column the set does not build: log_return_2h \(did you mean",
        ),
        (
            {"function": "beta_to_leader", "columns": [MOVE], "windows": ["2h"]},
            r"window of 2h has 2 row\(s\)",
        ),
    ],
)
def test_a_line_that_cannot_be_built_is_refused(line, message):
    with pytest.raises(InputError, match=message):
        built(random_market(1), line)
