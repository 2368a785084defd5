"""Volatilities equal their definitions, do not hang on the price's unit, and respect gaps."""

import math
from datetime import timedelta

import numpy as np
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from margincast.features import volatility
from margincast.features.library import Window

HOUR = timedelta(hours=1)
WINDOWED = {
    name: getattr(volatility, name)
    for name in (
        "parkinson_volatility",
        "garman_klass_volatility",
        "realised_volatility",
        "downside_share",
        "drawdown",
        "run_up",
        "log_return",
        "log_volume_deviation",
    )
}
NON_NEGATIVE = ("parkinson_volatility", "garman_klass_volatility", "realised_volatility", "run_up")


def random_bars(seed: int, count: int = 120, gaps: float = 0.0) -> pl.DataFrame:
    """Bars of a random walk with jumps; a share of them missing (nulls on a full grid)."""
    rng = np.random.default_rng(seed)
    steps = rng.standard_t(3, size=(count, 12)) * 0.004 * np.exp(rng.normal(0, 0.5, (count, 1)))
    path = 100 * np.exp(np.cumsum(steps).reshape(count, 12))
    opens = np.concatenate([[100.0], path[:-1, -1]])
    frame = pl.DataFrame(
        {
            "open": opens,
            "high": np.maximum(path.max(axis=1), opens),
            "low": np.minimum(path.min(axis=1), opens),
            "close": path[:, -1],
            "volume": rng.lognormal(3, 1, count),
        }
    )
    missing = pl.Series(rng.random(count) < gaps)
    return frame.select(pl.when(~missing).then(pl.col(name)).alias(name) for name in frame.columns)


def evaluate(frame: pl.DataFrame, expression: pl.Expr) -> np.ndarray:
    """A column as float64, NaN where it is null; a value that is NaN itself would be a defect."""
    column = frame.select(expression.cast(pl.Float64).alias("value"))["value"]
    assert not column.is_nan().any()
    return column.fill_null(float("nan")).to_numpy()


def window(rows: int, share: float = 1.0) -> Window:
    return Window.over(rows * HOUR, HOUR, share)


# --- the slow twins: one row at a time, straight from the definition ------------------------------


def slow_mean(values: np.ndarray, over: Window) -> float:
    known = values[~np.isnan(values)]
    return float(known.mean()) if len(known) >= over.minimum else math.nan


def slow_extreme(name: str, bars: dict[str, np.ndarray], t: int, over: Window) -> float:
    column, extreme = ("high", np.max) if name == "drawdown" else ("low", np.min)
    values = bars[column][max(t + 1 - over.rows, 0) : t + 1]
    known = values[~np.isnan(values)]
    if len(known) < over.minimum:
        return math.nan
    return float(bars["close"][t] / extreme(known) - 1)


def slow_variance(name: str, bars: dict[str, np.ndarray], t: int, over: Window) -> float:
    rows = slice(max(t + 1 - over.rows, 0), t + 1)
    log_range = np.log(bars["high"] / bars["low"])[rows]
    body = np.log(bars["close"] / bars["open"])[rows]
    if name == "parkinson_volatility":
        return slow_mean(log_range**2 / (4 * math.log(2)), over)
    if name == "garman_klass_volatility":
        return max(slow_mean(0.5 * log_range**2 - (2 * math.log(2) - 1) * body**2, over), 0.0)
    returns = np.diff(np.log(bars["close"]), prepend=math.nan)[rows]
    if name == "downside_share":
        returns = np.where(returns < 0, returns, 0 * returns)
    return slow_mean(returns**2, over)


def slow_value(name: str, bars: dict[str, np.ndarray], t: int, over: Window) -> float:
    if name in ("drawdown", "run_up"):
        return slow_extreme(name, bars, t, over)
    if name == "log_return":
        back = t - over.rows
        return math.log(bars["close"][t] / bars["close"][back]) if back >= 0 else math.nan
    if name == "log_volume_deviation":
        volume = np.log1p(bars["volume"])
        return float(volume[t] - slow_mean(volume[max(t + 1 - over.rows, 0) : t + 1], over))
    variance = slow_variance(name, bars, t, over)
    if name == "downside_share":
        return variance / slow_variance("realised_volatility", bars, t, over)
    return math.sqrt(variance)


@pytest.mark.parametrize("name", list(WINDOWED))
@given(
    seed=st.integers(0, 2**32),
    rows=st.integers(1, 30),
    share=st.sampled_from([0.5, 0.8, 1.0]),
    gaps=st.sampled_from([0.0, 0.1, 0.4]),
)
def test_every_row_equals_the_definition_with_and_without_gaps(name, seed, rows, share, gaps):
    frame = random_bars(seed, 50, gaps)
    over = window(rows, share)
    fast = evaluate(frame, WINDOWED[name](over))
    bars = {column: frame[column].fill_null(float("nan")).to_numpy() for column in frame.columns}
    slow = np.array([slow_value(name, bars, t, over) for t in range(len(frame))])
    # where the bar itself is missing there is no decision, so only the others are held
    decided = ~np.isnan(bars["close"])
    np.testing.assert_allclose(fast[decided], slow[decided], rtol=1e-9, atol=1e-12)


@given(
    seed=st.integers(0, 2**32),
    decay=st.sampled_from([0.8, 0.94, 0.97]),
    gaps=st.sampled_from([0.0, 0.2]),
)
def test_the_exponential_volatility_equals_its_weighted_mean(seed, decay, gaps):
    frame = random_bars(seed, 80, gaps)
    fast = evaluate(frame, volatility.ewma_volatility(decay))
    squared = np.diff(np.log(frame["close"].fill_null(float("nan")).to_numpy()), prepend=math.nan)
    squared **= 2
    for t in np.flatnonzero(~np.isnan(squared)):
        past = squared[: t + 1]
        weights = np.where(np.isnan(past), 0.0, decay ** np.arange(t, -1.0, -1.0))
        if np.count_nonzero(weights) < 24:
            assert math.isnan(fast[t])
        else:
            expected = math.sqrt(np.nansum(weights * past) / weights.sum())
            assert fast[t] == pytest.approx(expected, rel=1e-9)


@pytest.mark.parametrize("name", [name for name in WINDOWED if name != "log_volume_deviation"])
@given(
    seed=st.integers(0, 2**32), rows=st.integers(1, 30), factor=st.sampled_from([1e-6, 0.37, 5e4])
)
def test_a_price_in_another_unit_has_the_same_features(name, seed, rows, factor):
    frame = random_bars(seed)
    other = frame.with_columns(pl.col("open", "high", "low", "close") * factor)
    expression = WINDOWED[name](window(rows))
    np.testing.assert_allclose(
        evaluate(other, expression), evaluate(frame, expression), rtol=1e-6, atol=1e-9
    )


@given(seed=st.integers(0, 2**32), factor=st.sampled_from([1e-6, 0.37, 5e4]))
def test_a_price_in_another_unit_has_the_same_exponential_volatility(seed, factor):
    frame = random_bars(seed)
    expression = volatility.ewma_volatility(0.94)
    np.testing.assert_allclose(
        evaluate(frame.with_columns(pl.col("close") * factor), expression),
        evaluate(frame, expression),
        rtol=1e-9,
    )


@pytest.mark.parametrize("name", NON_NEGATIVE)
@given(seed=st.integers(0, 2**32), rows=st.integers(1, 30))
def test_volatilities_and_run_up_are_never_negative(name, seed, rows):
    values = evaluate(random_bars(seed, gaps=0.1), WINDOWED[name](window(rows, 0.5)))
    assert (values[~np.isnan(values)] >= 0).all()


@given(seed=st.integers(0, 2**32), rows=st.integers(1, 30))
def test_drawdown_is_a_loss_and_the_downside_a_share(seed, rows):
    frame = random_bars(seed, gaps=0.1)
    loss = evaluate(frame, volatility.drawdown(window(rows, 0.5)))
    share = evaluate(frame, volatility.downside_share(window(rows, 0.5)))
    assert ((loss[~np.isnan(loss)] <= 0) & (loss[~np.isnan(loss)] > -1)).all()
    assert ((share[~np.isnan(share)] >= 0) & (share[~np.isnan(share)] <= 1)).all()


@given(seed=st.integers(0, 2**32), rows=st.integers(1, 30))
def test_parkinson_bounds_garman_klass(seed, rows):
    # 0.5 range^2 is 2 log 2 times Parkinson's term, and the body only takes away
    frame = random_bars(seed)
    parkinson = evaluate(frame, volatility.parkinson_volatility(window(rows)))
    garman_klass = evaluate(frame, volatility.garman_klass_volatility(window(rows)))
    known = ~np.isnan(parkinson)
    bound = parkinson[known] * math.sqrt(2 * math.log(2)) * (1 + 1e-9)
    assert (garman_klass[known] <= bound).all()


def test_a_price_that_never_moves_has_no_volatility_and_no_downside():
    still = pl.DataFrame(
        dict.fromkeys(("open", "high", "low", "close"), [7.0] * 40) | {"volume": [1.0] * 40}
    )
    for name in ("parkinson_volatility", "garman_klass_volatility", "realised_volatility"):
        assert evaluate(still, WINDOWED[name](window(5)))[10:].tolist() == [0.0] * 30
    assert np.isnan(evaluate(still, volatility.downside_share(window(5)))).all()


@given(seed=st.integers(0, 2**32))
def test_a_still_market_does_not_remember_the_crash_before_it(seed):
    # sums that are updated by adding and subtracting would leave a residue of the crash behind
    wild = random_bars(seed, 60)["close"].to_list()
    close = [*wild, wild[-1] * 0.3, *[41.0] * 20]
    frame = pl.DataFrame(dict.fromkeys(("open", "high", "low", "close"), close))
    assert evaluate(frame, volatility.realised_volatility(window(5)))[-1] < 1e-9
    assert math.isnan(evaluate(frame, volatility.downside_share(window(5)))[-1])
