"""Features hold what was known at the decision and nothing later; a planted leak is caught."""

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import pandas as pd
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from margincast.core.errors import InputError
from margincast.data.bars import BarTable, regular_bars
from margincast.data.quality import found
from margincast.data.states import StateTable
from margincast.features.library import LIBRARY, Window, feature
from margincast.features.pipeline import FeatureTable, build_features
from margincast.features.plan import reduced_column_units
from margincast.features.sources import Sources
from margincast.models.scale import hour_of_week
from margincast.specs.features import FeatureSet
from margincast.specs.loading import load_spec, validate_spec

HOUR = timedelta(hours=1)
START = datetime(2024, 1, 1, tzinfo=UTC)
WORKSPACE = Path(__file__).resolve().parents[2]
SYMBOLS = ("BTCUSDT", "ETHUSDT", "SOLUSDT")
COUNT = 60
PRICES = ("open", "high", "low", "close")
WINDOWED = (
    "parkinson_volatility", "garman_klass_volatility", "realised_volatility", "downside_share",
    "drawdown", "run_up", "log_return", "log_volume_deviation",
)  # fmt: skip


def feature_set(**sections: object) -> FeatureSet:
    """A small set on hourly bars with every bar function, the market and the clock."""
    raw = {
        "name": "test",
        "description": "test",
        "grid": {
            "interval": "1h", "warm_up": "6h", "minimum_present": 0.5, "leader": "BTCUSDT"
        },
        "bars": [
            *[{"function": name, "windows": ["2h", "6h"]} for name in WINDOWED],
            {"function": "ewma_volatility", "values": [0.9]},
        ],
        "market": [
            {"function": "market_median", "columns": ["parkinson_volatility_6h", "log_return_2h"]},
            {"function": "leader", "columns": ["parkinson_volatility_6h", "drawdown_6h"]},
        ],
        "calendar": [{"function": "hour_of_day"}, {"function": "hour_of_week"}],
    }  # fmt: skip
    return validate_spec(raw | sections, FeatureSet, "test")


def raw_bars(seed: int, count: int = COUNT, start: datetime = START) -> pl.DataFrame:
    """Bars as a file holds them, without gaps."""
    rng = np.random.default_rng(seed)
    path = 100 * np.exp(np.cumsum(rng.standard_t(3, (count, 6)) * 0.004).reshape(count, 6))
    opens = np.concatenate([[100.0], path[:-1, -1]])
    return pl.DataFrame(
        {
            "ts": [start + i * HOUR for i in range(count)],
            "open": opens,
            "high": np.maximum(path.max(axis=1), opens),
            "low": np.minimum(path.min(axis=1), opens),
            "close": path[:, -1],
            "volume": rng.lognormal(3, 1, count),
        },
        schema_overrides={"ts": pl.Datetime("us", "UTC")},
    )


def table_of(raw: dict[str, pl.DataFrame]) -> BarTable:
    """Put raw bars on their grid, as reading a file does."""
    frames = {
        symbol: regular_bars(frame, symbol, HOUR)[0]
        for symbol, frame in raw.items()
        if not frame.is_empty()
    }
    return BarTable(frames, HOUR, ())


def market(seed: int = 0) -> dict[str, pl.DataFrame]:
    return {symbol: raw_bars(seed + i) for i, symbol in enumerate(SYMBOLS)}


# --- the look-ahead check: one function, used on ours and on a planted leak -----------------------


@st.composite
def changed_futures(
    draw: st.DrawFn,
) -> tuple[int, dict[str, pl.DataFrame], dict[str, pl.DataFrame]]:
    """A market, the same market with bars after a decision changed, and that decision's row."""
    before = market(draw(st.integers(0, 2**32)))
    last_known = draw(st.integers(8, COUNT - 2))
    after = {}
    for symbol, frame in before.items():
        first = draw(st.integers(last_known + 1, COUNT - 1))
        length = draw(st.integers(1, COUNT - first))
        rows = pl.int_range(pl.len()).is_between(first, first + length - 1)
        match draw(st.sampled_from(["keep", "delete", "cut", "stale", "crash", "volume"])):
            case "keep":
                after[symbol] = frame
            case "delete":
                after[symbol] = frame.filter(~rows)
            case "cut":
                after[symbol] = frame.head(first)
            case "stale":
                price = frame["close"][first]
                after[symbol] = frame.with_columns(
                    *[pl.when(rows).then(price).otherwise(pl.col(n)).alias(n) for n in PRICES],
                    volume=pl.when(rows).then(0.0).otherwise(pl.col("volume")),
                )
            case "crash":
                factor = draw(st.floats(0.01, 100))
                after[symbol] = frame.with_columns(
                    pl.when(rows).then(pl.col(n) * factor).otherwise(pl.col(n)).alias(n)
                    for n in PRICES
                )
            case _:
                after[symbol] = frame.with_columns(
                    volume=pl.when(rows).then(pl.col("volume") * 50).otherwise(pl.col("volume"))
                )
    return last_known, before, after


def known_by(table: FeatureTable, row: int) -> pd.DataFrame:
    """Feature rows decided at or before the close of a bar."""
    decided = pd.Timestamp(START + (row + 1) * HOUR)
    return table.frame[table.frame["ts"] <= decided].reset_index(drop=True)


def knows_the_future(
    features: FeatureSet,
    row: int,
    before: dict[str, pl.DataFrame],
    after: dict[str, pl.DataFrame],
) -> bool:
    """Whether changing bars after ``row`` moved any feature, by one bit, at or before it."""
    left = known_by(build_features(features, Sources(table_of(before))), row)
    right = known_by(build_features(features, Sources(table_of(after))), row)
    assert len(left) > 0
    return not left.equals(right)


@settings(max_examples=40)
@given(changed_futures())
def test_no_feature_at_or_before_a_decision_moves_when_later_bars_change(case):
    assert not knows_the_future(feature_set(), *case)


def test_a_contract_listed_later_changes_nothing_before_its_listing():
    before = market()
    late = raw_bars(99, 20, START + 30 * HOUR)
    assert not knows_the_future(feature_set(), 29, before, before | {"NEWUSDT": late})


@pytest.fixture
def leaks() -> Iterator[list[str]]:
    """Register features that look one bar ahead, and take them out again afterwards."""
    known = dict(LIBRARY)

    @feature("bars", "fraction")
    def leaked_low(window: Window) -> pl.Expr:
        return pl.col("low").shift(-window.rows) / pl.col("close") - 1

    @feature("bars", "fraction")
    def leaked_centre(window: Window) -> pl.Expr:
        return pl.col("close").rolling_mean(2 * window.rows + 1, center=True, min_samples=1)

    @feature("bars", "number")
    def leaked_rank(window: Window) -> pl.Expr:
        return pl.col("volume") / pl.col("volume").max()

    yield ["leaked_low", "leaked_centre", "leaked_rank"]
    for key in set(LIBRARY) - set(known):
        del LIBRARY[key]


@pytest.mark.parametrize("position", [0, 1, 2])
def test_a_planted_leak_is_caught_by_the_same_check(leaks, position):
    features = feature_set(bars=[{"function": leaks[position], "windows": ["1h"]}], market=[])
    before = market()
    after = {
        symbol: frame.with_columns(
            pl.when(pl.int_range(pl.len()) > 40).then(pl.col(name) * 1000).otherwise(pl.col(name))
            for name in (*PRICES, "volume")
        )
        for symbol, frame in before.items()
    }
    assert knows_the_future(features, 40, before, after)


def test_the_planted_leaks_are_gone():
    assert not [name for _, name in LIBRARY if name.startswith("leaked")]


# --- what a table holds ---------------------------------------------------------------------------


def test_columns_are_named_by_function_and_window_and_carry_their_unit():
    features = feature_set()
    table = build_features(features, Sources(table_of(market())))
    assert list(table.frame.columns) == ["symbol", "ts", "close", *table.units]
    assert table.units["parkinson_volatility_6h"] == "fraction"
    assert table.units["downside_share_2h"] == "number"
    assert table.units["ewma_volatility_0.9"] == "fraction"
    assert table.units["market_median_log_return_2h"] == "fraction"
    assert table.units["leader_drawdown_6h"] == "fraction"
    assert table.units["hour_of_day"] == "number"
    assert len(table.units) == 2 * len(WINDOWED) + 1 + 4 + 2
    assert table.feature_set_hash == features.digest()


def test_rows_are_decisions_in_order_of_time_then_contract():
    table = build_features(feature_set(), Sources(table_of(market()))).frame
    assert table[["ts", "symbol"]].equals(
        table[["ts", "symbol"]].sort_values(["ts", "symbol"], ignore_index=True)
    )
    assert not table.duplicated(["ts", "symbol"]).any()
    assert str(table["ts"].dt.tz) == "UTC"
    assert all(table[name].dtype == np.float64 for name in table.columns[2:])
    # warm-up of 6 bars: the first decision is the close of the sixth
    assert table["ts"].min() == pd.Timestamp(START + 6 * HOUR)
    assert table["ts"].max() == pd.Timestamp(START + COUNT * HOUR)


def test_the_market_is_the_median_of_contracts_and_the_leader_its_own_value():
    frame = build_features(feature_set(), Sources(table_of(market()))).frame
    for name in ("parkinson_volatility_6h", "log_return_2h"):
        median = frame.groupby("ts")[name].transform("median")
        np.testing.assert_allclose(frame[f"market_median_{name}"], median, rtol=1e-12)
    own = frame[frame["symbol"] == "BTCUSDT"].set_index("ts")["drawdown_6h"]
    assert (frame["leader_drawdown_6h"] == frame["ts"].map(own)).all()


def test_the_leader_is_unknown_where_it_has_no_bar_and_where_it_is_not_in_the_data():
    raw = market()
    raw["BTCUSDT"] = raw["BTCUSDT"].filter(~pl.int_range(pl.len()).is_between(20, 22))
    frame = build_features(feature_set(), Sources(table_of(raw))).frame
    unknown = frame.loc[frame["leader_drawdown_6h"].isna(), "ts"].unique()
    assert list(unknown) == [pd.Timestamp(START + i * HOUR) for i in (21, 22, 23)]
    del raw["BTCUSDT"]
    frame = build_features(feature_set(), Sources(table_of(raw))).frame
    assert frame["leader_drawdown_6h"].isna().all()
    assert frame["market_median_log_return_2h"].notna().all()


def test_the_clock_is_that_of_the_decision_through_the_whole_week():
    features = feature_set(
        market=[],
        calendar=[
            {"function": f"{name}"} for name in ("hour_of_day", "hour_of_week", "day_of_week")
        ],
    )
    frame = build_features(features, Sources(table_of({"BTCUSDT": raw_bars(0, 200)}))).frame
    ts = frame["ts"].dt
    assert frame["hour_of_day"].tolist() == ts.hour.tolist()
    assert frame["hour_of_week"].tolist() == (ts.day_of_week * 24 + ts.hour).tolist()
    assert frame["day_of_week"].tolist() == (ts.day_of_week + 1).tolist()
    # the model's own clock, on which its seasonality stands, is the same
    np.testing.assert_array_equal(hour_of_week(frame["ts"]), frame["hour_of_week"])


def test_warm_up_missing_bars_and_unknown_values_are_counted():
    raw = market()
    raw["ETHUSDT"] = raw["ETHUSDT"].filter(~pl.int_range(pl.len()).is_in([30, 31]))
    table = build_features(feature_set(), Sources(table_of(raw)))
    counted = {(f.symbol, f.what): f.count for f in found(table.findings)}
    for symbol in SYMBOLS:
        assert counted[symbol, "in the contract's warm-up"] == 5
    assert counted["ETHUSDT", "bar missing or stale"] == 2
    assert len(table.frame) == 3 * (COUNT - 5) - 2
    for name in table.units:
        unknown = int(table.frame[name].isna().sum())
        assert sum(count for (of, _), count in counted.items() if of == name) == unknown
    # 24 returns are needed, decisions start at the sixth bar: 19 without one, and after the gap
    # the first return is not known
    short = "history shorter than the look-back"
    assert counted["ewma_volatility_0.9", short] == 3 * 19 + 1


def test_a_set_that_builds_a_column_twice_is_refused():
    line = {"function": "drawdown", "windows": ["2h"]}
    with pytest.raises(InputError, match="builds twice: drawdown_2h"):
        build_features(feature_set(bars=[line, line], market=[]), Sources(table_of(market())))


def test_a_market_feature_of_a_column_nobody_builds_is_refused():
    line = {"function": "market_median", "columns": ["parkinson_volatility_9h"]}
    with pytest.raises(InputError, match=r"market feature reads a column.*parkinson_volatility_9h"):
        build_features(feature_set(market=[line]), Sources(table_of(market())))


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ({"function": "drawdown"}, "'drawdown' needs windows, and lists none"),
        ({"function": "ewma_volatility"}, "'ewma_volatility' needs values, and lists none"),
        ({"function": "drawdwn", "windows": ["2h"]}, "did you mean 'drawdown'"),
        ({"function": "drawdown", "windows": ["90m"]}, "90m is not a whole number of 1h"),
    ],
)
def test_a_line_that_cannot_be_built_is_refused(line, message):
    with pytest.raises(InputError, match=message):
        build_features(feature_set(bars=[line], market=[]), Sources(table_of(market())))


def test_contracts_shorter_than_the_warm_up_leave_no_decision():
    raw = {symbol: raw_bars(1, 4) for symbol in SYMBOLS}
    with pytest.raises(InputError, match=r"no decision is left.*grid\.warm_up \(6h\)"):
        build_features(feature_set(), Sources(table_of(raw)))


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ({"function": "log_return", "windows": ["2h"], "values": [5]}, "takes windows.*values too"),
        ({"function": "ewma_volatility", "values": [0.9], "statistics": ["rank"]}, "statistics"),
    ],
)
def test_what_a_function_does_not_take_is_refused(line: dict[str, object], message: str) -> None:
    with pytest.raises(InputError, match=message):
        build_features(feature_set(bars=[line], market=[]), Sources(table_of(market())))


def test_the_clock_takes_no_window() -> None:
    lines = [{"function": "hour_of_day", "windows": ["6h"]}]
    with pytest.raises(InputError, match="takes nothing, and the line gives windows too"):
        build_features(feature_set(calendar=lines), Sources(table_of(market())))


@pytest.mark.parametrize(
    "path", sorted((WORKSPACE / "features").glob("*.toml")), ids=lambda p: p.stem
)
def test_every_shipped_set_builds_distinct_columns_of_known_units(path):
    features = load_spec(path, FeatureSet)
    interval = features.grid.interval
    count = 2 * (features.grid.warm_up // interval) + 200
    bars = raw_bars(3, count).with_columns(ts=START + pl.int_range(count) * interval)
    bars = bars.with_columns(pl.col("ts").cast(pl.Datetime("us", "UTC")))
    regular, _ = regular_bars(bars, features.grid.leader, interval)
    index = bars.select("ts", (pl.col("ts") + interval).alias("known_at")).with_columns(
        implied_volatility=0.5 + 0.1 * (pl.int_range(pl.len()) % 7), covers=pl.lit(interval)
    )
    states = {"implied_vol": StateTable({features.grid.leader: index}, ())}
    table = build_features(
        features, Sources(BarTable({features.grid.leader: regular}, interval, ()), states=states)
    )
    assert set(table.units.values()) <= {"fraction", "number"}
    assert set(reduced_column_units(features)) <= set(table.units)
    own = [name for name in table.units if name not in reduced_column_units(features)]
    # the last decision has twice the warm-up behind it: all but longer windows are known
    assert table.frame[own].iloc[-1].notna().mean() > 0.8
