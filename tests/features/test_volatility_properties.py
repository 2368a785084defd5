"""What must hold for every volatility feature on any bars: no look-ahead, a bound, units, sides."""

import math
from datetime import UTC, datetime, timedelta

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from margincast.core.time import parse_duration
from margincast.data.bars import BarTable, regular_bars
from margincast.features import volatility
from margincast.features.library import LIBRARY, Window
from margincast.features.pipeline import build_features
from margincast.features.sources import Sources
from margincast.specs.features import FeatureSet
from margincast.specs.loading import validate_spec

HOUR = timedelta(hours=1)
START = datetime(2024, 1, 1, tzinfo=UTC)
PRICES = ("open", "high", "low", "close")
BARS = {name: function for (family, name), function in LIBRARY.items() if family == "bars"}
WINDOWS = {
    "intraday_seasonality": ("3d",), "weekly_seasonality": ("7d",), "hill_tail_index": ("100h",),
}  # fmt: skip
"""Where 3 and 5 hours cannot do: whole days, whole weeks, ten moves in the tail."""
DECAYS = (0.7, 0.85)
COUNT = 260


def lines():
    """One line of a feature set for every function."""
    written = []
    for name, function in BARS.items():
        key = "values" if function.argument == "values" else "windows"
        arguments = DECAYS if key == "values" else WINDOWS.get(name, ("3h", "5h"))
        written.append({"function": name, key: list(arguments)})
    return written


def random_bars(seed, count=COUNT, gaps=0.0):
    """A random walk of heavy tails, with a crash now and then; some bars missing."""
    rng = np.random.default_rng(seed)
    steps = rng.standard_t(2.5, (count, 6)) * 0.004
    path = 100 * np.exp(np.cumsum(np.clip(steps, -0.5, 0.5)).reshape(count, 6))
    frame = pl.DataFrame(
        {
            "open": path[:, 0],
            "high": path.max(axis=1),
            "low": path.min(axis=1),
            "close": path[:, -1],
            "volume": rng.lognormal(3, 1, count),
        }
    )
    missing = pl.Series(rng.random(count) < gaps)
    return frame.select(pl.when(~missing).then(pl.col(name)).alias(name) for name in frame.columns)


def columns(share=0.8):
    """Every function over its windows or values, named as the pipeline names them."""
    expressions = {}
    for name, function in BARS.items():
        if function.argument == "values":
            expressions |= {f"{name}_{decay}": function.build(decay) for decay in DECAYS}
            continue
        for text in WINDOWS.get(name, ("3h", "5h")):
            over = Window.over(parse_duration(text), HOUR, share)
            expressions[f"{name}_{over.label}"] = function.build(over)
    return expressions


ALL = columns()


def evaluate(frame):
    return frame.select(expression.alias(name) for name, expression in ALL.items())


# --- no look-ahead --------------------------------------------------------------------------------


@st.composite
def changed_futures(draw):
    """Bars, the last row that is known, and the same bars with anything done to later rows."""
    frame = random_bars(draw(st.integers(0, 2**32)), gaps=draw(st.sampled_from([0.0, 0.1])))
    known = draw(st.integers(170, COUNT - 2))
    later = pl.int_range(pl.len()) > known
    match draw(st.sampled_from(["delete", "forget", "crash", "stale", "volume"])):
        case "delete":
            return frame, frame.head(known + 1), known
        case "forget":
            other = [pl.when(~later).then(pl.col(name)).alias(name) for name in frame.columns]
        case "crash":
            factor = draw(st.floats(1e-6, 1e6))
            other = [pl.when(later).then(pl.col(n) * factor).otherwise(n).alias(n) for n in PRICES]
        case "stale":
            other = [pl.when(later).then(1.0).otherwise(n).alias(n) for n in PRICES]
        case _:
            other = [pl.when(later).then(0.0).otherwise("volume").alias("volume")]
    return frame, frame.with_columns(other), known


@given(changed_futures())
def test_no_feature_moves_by_a_bit_when_later_bars_change(case):
    before, after, known = case
    one, other = (evaluate(frame).head(known + 1) for frame in (before, after))
    assert one.equals(other, null_equal=True)


def test_most_features_are_known_in_that_check():
    values = evaluate(random_bars(0))[170:]
    unknown = {name: values[name].null_count() / len(values) for name in values.columns}
    rare = {name for name, share in unknown.items() if share > 0.02}
    assert rare <= {"large_move_size_3h", "large_move_size_5h", "hill_tail_index_100h"}
    assert all(unknown[name] < 1 for name in unknown)


def test_the_same_check_catches_a_leak():
    frame = random_bars(0)
    leak = pl.col("low").rolling_min(5, center=True, min_samples=1)
    one = frame.select(leak).head(200)
    assert not one.equals(frame.head(200).select(leak), null_equal=True)


@settings(max_examples=10)
@given(seed=st.integers(0, 2**32), known=st.integers(170, COUNT - 2))
def test_the_pipeline_builds_all_of_them_without_a_look_ahead(seed, known):
    features = validate_spec(
        {
            "name": "all",
            "description": "every bars function",
            "grid": {
                "interval": "1h",
                "warm_up": "6h",
                "minimum_present": 0.8,
                "leader": "BTCUSDT",
            },
            "bars": lines(),
        },
        FeatureSet,
        "test",
    )
    raw = random_bars(seed).with_columns(
        ts=pl.datetime_range(
            START, START + (COUNT - 1) * HOUR, HOUR, time_unit="us", eager=True
        ).alias("ts")
    )
    tables = [
        build_features(
            features,
            Sources(BarTable({"BTCUSDT": regular_bars(rows, "BTCUSDT", HOUR)[0]}, HOUR, ())),
        )
        for rows in (raw, raw.head(known + 1))
    ]
    whole, cut = (table.frame for table in tables)
    assert whole.head(len(cut)).equals(cut)
    assert tables[0].units == {name: BARS[name.rpartition("_")[0]].unit for name in tables[0].units}


# --- the bound ------------------------------------------------------------------------------------


def look_back(name):
    """Bars a column says it hangs on, itself included: what a stream must keep."""
    function, _, label = name.rpartition("_")
    entry = BARS[function]
    if entry.argument == "values":
        return entry.look_back(float(label))
    return entry.look_back(Window.over(parse_duration(label), HOUR, 0.8))


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("gaps", [0.0, 0.05])
def test_the_last_bars_within_the_bound_give_the_value_of_the_whole_history(seed, gaps):
    count = max(map(look_back, ALL)) + 200
    frame = random_bars(seed, count, gaps)
    whole = evaluate(frame)
    for row in (count - 150, count - 1):
        for name, expression in ALL.items():
            recent = frame[row + 1 - look_back(name) : row + 1].select(expression.alias(name))
            one, other = recent[name][-1], whole[name][row]
            assert (one is None) == (other is None), name
            assert one is None or abs(one - other) <= 1e-9 * max(1, abs(other)), name


# --- units and sides ------------------------------------------------------------------------------


def compare(found, expected, names, absolute=1e-9):
    for name in names:
        one, other = found[name], expected[name]
        assert one.is_null().equals(other.is_null()), name
        np.testing.assert_allclose(
            one.drop_nulls().to_numpy(),
            other.drop_nulls().to_numpy(),
            rtol=1e-6,
            atol=absolute,
            err_msg=name,
        )


def of(*functions):
    return [name for name in ALL if name.rpartition("_")[0] in functions]


@settings(max_examples=12)
@given(seed=st.integers(0, 2**32), factor=st.sampled_from([1e-3, 0.37, 1000.0]))
def test_a_price_in_another_unit_has_the_same_features(seed, factor):
    frame = random_bars(seed)
    other = frame.with_columns(pl.col(PRICES) * factor)
    compare(evaluate(other), evaluate(frame), ALL, 1e-7)


SIMPLE = ("drawdown", "run_up", "relative_drawdown", "relative_run_up")
"""Simple returns, which do not scale with log returns."""


@settings(max_examples=12)
@given(seed=st.integers(0, 2**32), factor=st.sampled_from([0.25, 3.0]))
def test_a_contract_some_times_as_volatile_has_the_same_scale_free_features(seed, factor):
    frame = random_bars(seed)
    logs = pl.col(PRICES).log() - math.log(100)
    found, plain = (
        evaluate(one) for one in (frame.with_columns((logs * factor).exp() * 100), frame)
    )
    logged = ("log_realised_volatility", "log_parkinson_volatility", "log_range")
    for function, entry in BARS.items():
        if function in SIMPLE:
            continue
        names = of(function)
        if function in logged:
            expected = plain.with_columns(pl.col(names) + math.log(factor))
        elif entry.unit == "fraction":
            expected = plain.with_columns(pl.col(names) * factor)
        else:
            expected = plain
        compare(found, expected, names, 1e-6)


SIDES = {
    "upside_volatility": "downside_volatility",
    "relative_upside_volatility": "relative_downside_volatility",
    "largest_rise": "largest_fall",
}
ODD = ("log_return", "relative_log_return", "realised_skewness")


@settings(max_examples=12)
@given(seed=st.integers(0, 2**32))
def test_an_upside_down_market_swaps_the_sides_and_nothing_else(seed):
    frame = random_bars(seed)
    mirror = frame.with_columns(
        open=1e4 / pl.col("open"),
        high=1e4 / pl.col("low"),
        low=1e4 / pl.col("high"),
        close=1e4 / pl.col("close"),
    )
    found, plain = evaluate(mirror), evaluate(frame)
    swapped = SIDES | {other: one for one, other in SIDES.items()}
    for name in ALL:
        function, _, label = name.rpartition("_")
        if function in SIMPLE:
            continue
        expected = plain[f"{swapped.get(function, function)}_{label}"]
        expected = -expected if function in ODD else expected
        expected = 1 - expected if function == "downside_share" else expected
        compare(found, plain.with_columns(expected.alias(name)), [name], 1e-6)
    for label in ("3h", "5h"):
        product = (1 + found[f"drawdown_{label}"]) * (1 + plain[f"run_up_{label}"])
        np.testing.assert_allclose(product.drop_nulls().to_numpy(), 1.0, rtol=1e-9)


@given(seed=st.integers(0, 2**32), gaps=st.sampled_from([0.0, 0.1]))
def test_bounds(seed, gaps):
    values = evaluate(random_bars(seed, gaps=gaps))
    slack = 1e-9
    for name in ALL:
        function, _, label = name.rpartition("_")
        column = values[name].drop_nulls()
        assert column.is_finite().all(), name
        if function.endswith(("volatility", "range", "run_up", "rise", "fall")) and (
            "log_" not in function
        ):
            assert (column >= 0).all(), name
        if function.endswith("drawdown"):
            assert (column <= 0).all(), name
        if function in {"jump_share", "downside_share"}:
            assert column.is_between(0, 1).all(), name
        if function.endswith("seasonality") or function == "hill_tail_index":
            assert (column > 0).all(), name
        rows = 0 if label[-1] != "h" else int(label[:-1])
        if function == "realised_kurtosis":
            assert column.is_between(1 - slack, rows + slack).all(), name
        if function == "realised_skewness":
            assert column.abs().max() <= math.sqrt(rows) + slack, name
        if function == "large_move_count":
            assert column.is_between(-slack, rows + slack).all(), name
        if function == "large_move_size":
            assert (column > 3 - slack).all(), name


@given(seed=st.integers(0, 2**32))
def test_semivariances_and_jumps_add_up(seed):
    frame = evaluate(random_bars(seed))
    for label in ("3h", "5h"):
        total = frame[f"realised_volatility_{label}"] ** 2
        sides = (
            frame[f"upside_volatility_{label}"] ** 2 + frame[f"downside_volatility_{label}"] ** 2
        )
        np.testing.assert_allclose(sides.drop_nulls(), total.drop_nulls(), rtol=1e-9, atol=1e-15)
        jumps = frame[f"jump_volatility_{label}"] ** 2
        np.testing.assert_allclose(
            jumps.drop_nulls(),
            (frame[f"jump_share_{label}"] * total).drop_nulls(),
            rtol=1e-9,
            atol=1e-15,
        )


# --- a still market -------------------------------------------------------------------------------


def test_a_price_that_never_moves_has_no_volatility_and_no_shape():
    still = pl.DataFrame(dict.fromkeys(PRICES, [7.0] * COUNT) | {"volume": [1.0] * COUNT})
    values = evaluate(still)[200:]
    for name in ALL:
        function = name.rpartition("_")[0]
        zero = BARS[function].unit == "fraction" or function == "log_volume_deviation"
        if zero:
            assert values[name].abs().max() <= 1e-15, name
            assert values[name].null_count() == 0, name
        else:
            assert values[name].null_count() == len(values), name


def test_a_market_that_stands_still_after_a_crash_keeps_no_shape_of_it():
    # in one market of two hundred a rolling sum keeps the last bit of the crash
    over = Window.over(5 * HOUR, HOUR, 1.0)
    names = ("realised_skewness", "realised_kurtosis", "jump_share", "log_realised_volatility")
    for seed in range(250):
        wild = 100 * np.exp(np.cumsum(np.random.default_rng(seed).standard_t(3, 60) * 0.02))
        frame = pl.DataFrame({"close": [*wild, wild[-1] * 0.3, *[41.0] * 20]})
        shapes = frame.select(getattr(volatility, name)(over).alias(name) for name in names)
        assert shapes.row(-1) == (None,) * len(names), seed


# --- known truth ----------------------------------------------------------------------------------


def test_estimators_find_the_volatility_of_a_diffusion_and_jumps_fool_only_some():
    rng = np.random.default_rng(5)
    count, steps, daily = 4000, 400, 0.01
    path = np.cumsum(rng.normal(0, daily / math.sqrt(steps), (count, steps)).ravel())
    jumped = path.copy()
    for bar in rng.choice(count, 40, replace=False):
        jumped[bar * steps + steps // 2 :] += rng.choice([-1, 1]) * 0.08
    whole = Window(count - 1, count - 1, "all")

    def estimates(logs):
        bars = np.exp(logs).reshape(count, steps)
        opens = np.concatenate([[1.0], bars[:-1, -1]])
        frame = pl.DataFrame(
            {
                "open": opens,
                "high": np.maximum(bars.max(axis=1), opens),
                "low": np.minimum(bars.min(axis=1), opens),
                "close": bars[:, -1],
            }
        )
        names = ("realised", "bipower", "median", "parkinson", "garman_klass", "rogers_satchell")
        return {
            name: frame.select(getattr(volatility, f"{name}_volatility")(whole)).to_series()[-1]
            for name in (*names, "yang_zhang")
        } | {"share": frame.select(volatility.jump_share(whole)).to_series()[-1]}

    smooth, rough = estimates(path), estimates(jumped)
    # a range of 400 steps misses a little of the continuous one: Rogers-Satchell some 5 %
    for name in ("realised", "bipower", "median", "parkinson"):
        assert smooth[name] == pytest.approx(daily, rel=0.05), name
    for name in ("garman_klass", "rogers_satchell", "yang_zhang"):
        assert smooth[name] == pytest.approx(daily, rel=0.08), name
    assert smooth["share"] < 0.05
    true_share = 40 * 0.08**2 / (40 * 0.08**2 + count * daily**2)
    assert rough["share"] == pytest.approx(true_share, abs=0.15)
    assert rough["realised"] > 1.2 * daily
    assert rough["median"] == pytest.approx(daily, rel=0.08)
    assert rough["bipower"] == pytest.approx(daily, rel=0.12)


def test_the_tail_index_of_pareto_moves_is_found():
    # multiples of the threshold with tail exponent 3, one in five above it
    rng = np.random.default_rng(3)
    multiple = rng.pareto(3, 20_000) + 1
    small = rng.random(20_000) < 0.8
    frame = pl.DataFrame({"multiple": np.where(small, rng.random(20_000), multiple)})
    over = Window(20_000, 20_000, "all")
    found = frame.select(volatility.large_moves.mean_log_excess(pl.col("multiple"), over))
    assert found.to_series()[-1] == pytest.approx(1 / 3, rel=0.05)
