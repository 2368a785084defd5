"""Every volatility feature equals its definition: by hand on a few bars, row by row in numpy."""

import math
from datetime import timedelta

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from margincast.core.errors import InputError
from margincast.features import volatility
from margincast.features.library import LIBRARY, Window
from margincast.features.volatility.returns import OWN_SCALE_MULTIPLE

HOUR = timedelta(hours=1)
PERCENT = 0.01
FLAT_RANGE = 2 * math.sqrt(math.log(2)) * PERCENT
"""Log range of a bar whose Parkinson volatility is 1 %."""


def window(rows, share=1.0, interval=HOUR):
    return Window.over(rows * interval, interval, share)


def evaluate(frame, expression):
    column = frame.select(expression.cast(pl.Float64).alias("value"))["value"]
    assert not column.is_nan().any()
    return column.fill_null(math.nan).to_numpy()


# --- by hand: logs of prices in per cent ----------------------------------------------------------


def bars(logs, **columns):
    """Bars whose close moves as told, by default without a range beyond their body."""
    close = np.exp(PERCENT * np.array(logs, dtype=float)) * 100
    opens = np.concatenate([close[:1], close[:-1]])
    default = {
        "open": opens,
        "high": np.maximum(opens, close),
        "low": np.minimum(opens, close),
        "close": close,
    }
    return pl.DataFrame(default | columns)


def ranged(log_ranges, logs=None):
    """Bars of given log ranges around the close, whatever their bodies."""
    frame = bars([0.0] * len(log_ranges) if logs is None else logs)
    half = np.exp(np.array(log_ranges) / 2)
    return frame.with_columns(high=pl.col("close") * half, low=pl.col("close") / half)


# returns of 1, 2, -3 and 0 per cent; then 0, 4, 0, 0: a lone jump
ZIGZAG = [0, 1, 3, 0, 0]
JUMP = [0, 0, 4, 4, 4]
FOUR = window(4)


@pytest.mark.parametrize(
    ("logs", "expression", "expected"),
    [
        (ZIGZAG, volatility.realised_volatility(FOUR), math.sqrt(14 / 4) * PERCENT),
        (ZIGZAG, volatility.upside_volatility(FOUR), math.sqrt((1 + 4) / 4) * PERCENT),
        (ZIGZAG, volatility.downside_volatility(FOUR), math.sqrt(9 / 4) * PERCENT),
        (
            ZIGZAG,
            volatility.bipower_volatility(FOUR),
            math.sqrt(math.pi / 2 * (2 + 6 + 0) / 3) * PERCENT,
        ),
        # medians of (1, 2, 3) and (2, 3, 0)
        (
            ZIGZAG,
            volatility.median_volatility(FOUR),
            math.sqrt(math.pi / (6 - 4 * math.sqrt(3) + math.pi) * (4 + 4) / 2) * PERCENT,
        ),
        # bipower 4.19 above realised 3.5: no jump
        (ZIGZAG, volatility.jump_share(FOUR), 0.0),
        (ZIGZAG, volatility.jump_volatility(FOUR), 0.0),
        (JUMP, volatility.jump_share(FOUR), 1.0),
        (JUMP, volatility.jump_volatility(FOUR), math.sqrt(16 / 4) * PERCENT),
        (JUMP, volatility.median_volatility(FOUR), 0.0),
        (ZIGZAG, volatility.realised_skewness(FOUR), ((1 + 8 - 27) / 4) / 3.5**1.5),
        (ZIGZAG, volatility.realised_kurtosis(FOUR), ((1 + 16 + 81) / 4) / 3.5**2),
        (JUMP, volatility.realised_kurtosis(FOUR), 4.0),
        (ZIGZAG, volatility.log_realised_volatility(FOUR), math.log(math.sqrt(3.5) * PERCENT)),
        # from 3 down to 0
        (ZIGZAG, volatility.price_range(window(2)), 3 * PERCENT),
        (ZIGZAG, volatility.log_range(window(2)), math.log(3 * PERCENT)),
        (ZIGZAG, volatility.price_range(window(1)), 0.0),
        (ZIGZAG, volatility.log_range(window(1)), None),
    ],
    ids=lambda value: value.meta.root_names()[0] if isinstance(value, pl.Expr) else "",
)
def test_moves_of_whole_per_cents(logs, expression, expected):
    found = bars(logs).select(expression.alias("value"))["value"][-1]
    assert found == (None if expected is None else pytest.approx(expected, rel=1e-12, abs=1e-12))


def one_bar(*logs):
    values = [100 * math.exp(PERCENT * log) for log in logs]
    return dict(zip(("open", "high", "low", "close"), values, strict=True))


def test_a_bar_with_its_four_prices():
    # open 0, high 2, low -1, close 1: (2 - 1)(2 - 0) + (-1 - 1)(-1 - 0) = 4
    frame = pl.DataFrame([one_bar(0, 2, -1, 1), one_bar(3, 4, 2, 2)])
    found = evaluate(frame, volatility.rogers_satchell_volatility(window(1)))
    # then open 3, high 4, low 2, close 2: (4 - 2)(4 - 3) + (2 - 2)(2 - 3) = 2
    assert found == pytest.approx([2 * PERCENT, math.sqrt(2) * PERCENT])
    # n = 2: k = 0.34 / (1.34 + 3); bodies 1 and -1; the third bar opens 1 above the second's close
    frame = pl.concat([frame, pl.DataFrame([one_bar(3, 3, 3, 3)])])
    found = evaluate(frame, volatility.yang_zhang_volatility(window(2)))
    weight = 0.34 / 4.34
    openings, bodies, ranges = 0.5 * (2 - 1) ** 2, 0.5 * (-1 - 0) ** 2, (2 + 0) / 2
    expected = math.sqrt(openings + weight * bodies + (1 - weight) * ranges) * PERCENT
    # the first bar has no close before it, so the first opening move is that of the second
    assert np.isnan(found[:2]).all()
    assert found[2] == pytest.approx(expected, rel=1e-12)


def test_the_term_structure_of_a_range_that_doubles():
    frame = ranged([FLAT_RANGE] * 15 + [2 * FLAT_RANGE])
    slope = evaluate(frame, volatility.volatility_term_slope(window(1)))
    # variance 4 now, (1 + 1 + 1 + 4) / 4 over four bars, (15 + 4) / 16 over sixteen
    rise = 0.5 * math.log(4 / (7 / 4))
    assert slope[3:-1] == pytest.approx(0, abs=1e-12)
    assert slope[-1] == pytest.approx(rise)
    longer = 0.5 * math.log((7 / 4) / (19 / 16))
    curvature = evaluate(frame, volatility.volatility_term_curvature(window(1)))
    assert curvature[-1] == pytest.approx(rise - longer)
    level = evaluate(frame, volatility.log_parkinson_volatility(window(1)))
    assert level == pytest.approx([math.log(PERCENT)] * 15 + [math.log(2 * PERCENT)])
    wobble = evaluate(frame, volatility.volatility_of_volatility(window(2)))
    assert wobble[1:] == pytest.approx([0] * 14 + [math.log(2) / math.sqrt(2)])
    relative = evaluate(frame, volatility.relative_parkinson_volatility(window(1)))
    assert relative[-1] == pytest.approx(2 / math.sqrt((9 + 4) / 10))
    spread = evaluate(frame, volatility.relative_price_range(window(1)))
    assert spread[-1] == pytest.approx(2 * FLAT_RANGE / PERCENT / math.sqrt((9 + 4) / 10))


def test_large_moves_are_counted_in_the_scale_known_before_them():
    # the scale is 1 %, so returns in per cent are moves: then 2, -4, 5 and 3.5
    returns = [0.0] * 21 + [2.0, -4.0, 5.0, 3.5]
    frame = ranged([FLAT_RANGE] * 25, np.cumsum(returns))
    two = window(2)
    last = slice(-4, None)
    assert evaluate(frame, volatility.large_move_count(two))[last] == pytest.approx([0, 1, 2, 2])
    size = evaluate(frame, volatility.large_move_size(two))
    assert size[last] == pytest.approx([math.nan, 4, 4.5, 4.25], nan_ok=True)
    assert evaluate(frame, volatility.largest_rise(two))[last] == pytest.approx([2, 2, 5, 5])
    assert evaluate(frame, volatility.largest_fall(two))[last] == pytest.approx(
        [0, 4, 4, 0], abs=1e-12
    )
    # a crash is measured on the scale before it, not on the one it makes
    crash = [FLAT_RANGE] * 24 + [100 * FLAT_RANGE]
    frame = ranged(crash, np.cumsum(returns))
    assert evaluate(frame, volatility.largest_rise(two))[-1] == pytest.approx(5)


def test_a_tail_of_ten_moves_is_known_and_one_of_nine_is_not():
    # 20 returns alternate +-1, so the volatility known before is 1 %; then moves of 2 e^1
    quiet = [1.0, -1.0] * 10
    level = 1.0
    returns = list(quiet)
    for _ in range(10):
        # realised over the 20 returns before each move grows with the moves themselves
        level = math.sqrt(sum(move**2 for move in returns[-20:]) / 20)
        returns.append(2 * math.e * level)
    frame = bars(np.cumsum([0.0, *returns]))
    found = evaluate(frame, volatility.hill_tail_index(window(20, 0.5)))
    assert math.isnan(found[-2])
    assert found[-1] == pytest.approx(1.0, rel=1e-9)


def test_seasonality_is_that_of_the_bar_to_come():
    # six-hour bars: the n-th of a day has e^n times the range of the first
    logs = [PERCENT * math.exp(n % 4) for n in range(60)]
    frame = ranged(logs)
    daily = volatility.intraday_seasonality(window(8, 1.0, 6 * HOUR))
    found = evaluate(frame, daily)
    assert np.isnan(found[:7]).all()
    for row in range(7, 60):
        assert found[row] == pytest.approx(math.exp((row + 1) % 4 - 1.5)), row
    weekly = evaluate(frame, volatility.weekly_seasonality(window(28, 1.0, 6 * HOUR)))
    assert np.isnan(weekly[:27]).all()
    assert weekly[27:] == pytest.approx(found[27:])
    # a single wild day in the window of two moves its time of day by a mean of logarithms
    wild = [*logs[:52], 100 * logs[52], *logs[53:]]
    later = evaluate(ranged(wild), daily)
    # rows 53..55 do not look at that time of day: only the level of all bars has risen
    assert later[54] == pytest.approx(found[54] * 100 ** (-1 / 8))
    assert later[55] == pytest.approx(found[55] * 100 ** (1 / 2 - 1 / 8))


@pytest.mark.parametrize(
    ("build", "rows", "interval", "message"),
    [
        (volatility.yang_zhang_volatility, 1, HOUR, "at least 2 grid steps; 1h is 1"),
        (volatility.bipower_volatility, 1, HOUR, "at least 2 grid steps"),
        (volatility.jump_share, 1, HOUR, "at least 2 grid steps"),
        (volatility.jump_volatility, 1, HOUR, "at least 2 grid steps"),
        (volatility.volatility_of_volatility, 1, HOUR, "at least 2 grid steps"),
        (volatility.median_volatility, 2, HOUR, "at least 3 grid steps; 2h is 2"),
        (volatility.intraday_seasonality, 36, HOUR, "whole number of 1d .* found 36h"),
        (volatility.weekly_seasonality, 24 * 8, HOUR, "whole number of 7d .* found 8d"),
        (volatility.intraday_seasonality, 7, 24 * HOUR, "on a grid of 1d"),
        (volatility.weekly_seasonality, 7, 48 * HOUR, "found 14d on a grid of 2d"),
    ],
)
def test_a_window_that_cannot_hold_the_estimator_is_refused(build, rows, interval, message):
    with pytest.raises(InputError, match=message):
        build(window(rows, 1.0, interval))


# --- the slow twins: one row at a time, straight from the definition ------------------------------


def random_bars(seed, count, gaps=0.0, restless=0.1):
    """A random walk of changing volatility, opening jumps and heavy tails; some bars missing."""
    rng = np.random.default_rng(seed)
    calm = np.exp(np.cumsum(rng.normal(0, restless, count)))
    steps = rng.standard_t(3, (count, 8)) * 0.003 * calm[:, None]
    path = 100 * np.exp(np.cumsum(steps).reshape(count, 8))
    frame = pl.DataFrame(
        {
            "open": path[:, 0],
            "high": path.max(axis=1),
            "low": path.min(axis=1),
            "close": path[:, -1],
        }
    )
    missing = pl.Series(rng.random(count) < gaps)
    return frame.select(pl.when(~missing).then(pl.col(name)).alias(name) for name in frame.columns)


class Slow:
    """Features of one row from the definitions, with loops and nothing rolling."""

    def __init__(self, frame, over):
        self.bars = {name: frame[name].fill_null(math.nan).to_numpy() for name in frame.columns}
        self.over = over
        close = self.bars["close"]
        self.returns = np.array([math.nan, *np.log(close[1:] / close[:-1])])
        self.range = np.log(self.bars["high"] / self.bars["low"])

    def __call__(self, name, t):
        if name.startswith("relative_"):
            own = self.scale(t)
            base = name.removeprefix("relative_")
            if base in {"price_range", "drawdown", "run_up", "log_return"}:
                own *= math.sqrt(self.over.rows)
            return getattr(self, base)(t) / own
        return getattr(self, name)(t)

    def known(self, values, t, times=1, lost=0):
        """The known values of the last window; None where there are too few."""
        rows = self.over.rows * times - lost
        inside = values[max(t + 1 - rows, 0) : t + 1]
        inside = inside[~np.isnan(inside)]
        return inside if len(inside) >= max(self.over.minimum * times - lost, 1) else None

    def mean(self, values, t, times=1, lost=0):
        inside = self.known(values, t, times, lost)
        return math.nan if inside is None else float(np.mean(inside))

    def root(self, variance):
        return math.nan if math.isnan(variance) else math.sqrt(max(variance, 0.0))

    def deviation(self, values, t):
        inside = self.known(values, t)
        return math.nan if inside is None or len(inside) < 2 else float(np.std(inside, ddof=1))

    def parkinson_volatility(self, t, times=1):
        return self.root(self.mean(self.range**2 / (4 * math.log(2)), t, times))

    def scale(self, t):
        return self.parkinson_volatility(t, OWN_SCALE_MULTIPLE) if t >= 0 else math.nan

    def garman_klass_volatility(self, t):
        body = np.log(self.bars["close"] / self.bars["open"])
        return self.root(self.mean(self.range**2 / 2 - (2 * math.log(2) - 1) * body**2, t))

    def rogers_satchell(self, t):
        start, high, low, end = (
            np.log(self.bars[name]) for name in ("open", "high", "low", "close")
        )
        return self.mean((high - end) * (high - start) + (low - end) * (low - start), t)

    def rogers_satchell_volatility(self, t):
        return self.root(self.rogers_satchell(t))

    def yang_zhang_volatility(self, t):
        o, c = np.log(self.bars["open"]), np.log(self.bars["close"])
        n = self.over.rows
        k = 0.34 / (1.34 + (n + 1) / (n - 1))
        opening = self.deviation(o - np.array([math.nan, *c[:-1]]), t) ** 2
        body = self.deviation(c - o, t) ** 2
        return self.root(opening + k * body + (1 - k) * self.rogers_satchell(t))

    def realised_volatility(self, t):
        return self.root(self.mean(self.returns**2, t)) if t >= 0 else math.nan

    def upside_volatility(self, t):
        return self.root(self.mean(np.maximum(self.returns, 0) ** 2, t))

    def downside_volatility(self, t):
        return self.root(self.mean(np.minimum(self.returns, 0) ** 2, t))

    def bipower(self, t):
        absolute = np.abs(self.returns)
        pairs = absolute * np.array([math.nan, *absolute[:-1]])
        return math.pi / 2 * self.mean(pairs, t, lost=1)

    def bipower_volatility(self, t):
        return self.root(self.bipower(t))

    def median_volatility(self, t):
        # numpy's median of a triple with a missing return is missing
        threes = np.lib.stride_tricks.sliding_window_view(np.abs(self.returns), 3)
        triples = [math.nan, math.nan, *np.median(threes, axis=1)]
        factor = math.pi / (6 - 4 * math.sqrt(3) + math.pi)
        return self.root(factor * self.mean(np.array(triples) ** 2, t, lost=2))

    def jump_volatility(self, t):
        return self.root(self.mean(self.returns**2, t) - self.bipower(t))

    def jump_share(self, t):
        return float(np.clip(1 - self.bipower(t) / self.mean(self.returns**2, t), 0, 1))

    def price_range(self, t):
        high, low = self.known(self.bars["high"], t), self.known(self.bars["low"], t)
        return math.nan if high is None else math.log(np.max(high) / np.min(low))

    def log_range(self, t):
        return math.log(self.price_range(t))

    def drawdown(self, t):
        high = self.known(self.bars["high"], t)
        return math.nan if high is None else self.bars["close"][t] / np.max(high) - 1

    def run_up(self, t):
        low = self.known(self.bars["low"], t)
        return math.nan if low is None else self.bars["close"][t] / np.min(low) - 1

    def log_return(self, t):
        back = t - self.over.rows
        close = self.bars["close"]
        return math.log(close[t] / close[back]) if back >= 0 else math.nan

    def realised_skewness(self, t):
        return self.mean(self.returns**3, t) / self.mean(self.returns**2, t) ** 1.5

    def realised_kurtosis(self, t):
        return self.mean(self.returns**4, t) / self.mean(self.returns**2, t) ** 2

    def log_realised_volatility(self, t):
        return math.log(self.realised_volatility(t))

    def log_parkinson_volatility(self, t):
        return math.log(self.parkinson_volatility(t))

    def volatility_term_slope(self, t):
        return math.log(self.parkinson_volatility(t) / self.parkinson_volatility(t, 4))

    def volatility_term_curvature(self, t):
        middle, long = self.parkinson_volatility(t, 4), self.parkinson_volatility(t, 16)
        return self.volatility_term_slope(t) - math.log(middle / long)

    def volatility_of_volatility(self, t):
        return self.deviation(np.log(self.range), t)

    def moves(self, t):
        """The moves of the window's bars and of no other."""
        first = max(t + 1 - self.over.rows, 0)
        every = [self.returns[i] / self.scale(i - 1) for i in range(first, t + 1)]
        return self.known(np.array(every), len(every) - 1)

    def large_move_count(self, t):
        moves = self.moves(t)
        return math.nan if moves is None else np.mean(np.abs(moves) > 3) * self.over.rows

    def large_move_size(self, t):
        moves = self.moves(t)
        large = [] if moves is None else [abs(move) for move in moves if abs(move) > 3]
        return float(np.mean(large)) if large else math.nan

    def largest_rise(self, t):
        moves = self.moves(t)
        return math.nan if moves is None else max(0.0, *moves)

    def largest_fall(self, t):
        moves = self.moves(t)
        return math.nan if moves is None else max(0.0, *(-moves))

    def hill_tail_index(self, t):
        first = max(t + 1 - self.over.rows, 0)
        moves = [
            abs(self.returns[i]) / self.realised_volatility(i - 1) for i in range(first, t + 1)
        ]
        known = self.known(np.array(moves), len(moves) - 1)
        tail = [] if known is None else [math.log(move / 2) for move in known if move > 2]
        return float(np.mean(tail)) if len(tail) >= 10 else math.nan


ELSEWHERE = {
    # twins in test_volatility.py, or of another argument or window, below
    "downside_share", "log_volume_deviation", "ewma_volatility", "relative_ewma_volatility",
    "hill_tail_index", "intraday_seasonality", "weekly_seasonality",
}  # fmt: skip
TWINS = sorted({name for family, name in LIBRARY if family == "bars"} - ELSEWHERE)


ROOTS = ("downside_volatility", "upside_volatility", "jump_volatility")
"""Roots of variances that can be zero in a market that moves."""


def equal_where_decided(frame, name, over, rows):
    fast = evaluate(frame, getattr(volatility, name)(over))
    slow = Slow(frame, over)
    decided = [t for t in rows if frame["close"][t] is not None]
    expected = np.array([slow(name, t) for t in decided])
    # a variance that is zero keeps the rounding of those before it, whose root is not so small
    rounding = 0.0 if not name.endswith(ROOTS) else 1e-6 if name.startswith("relative") else 1e-9
    np.testing.assert_allclose(fast[decided], expected, rtol=1e-9, atol=max(rounding, 1e-12))
    return expected


@pytest.mark.parametrize("name", TWINS)
@settings(max_examples=10)
@given(
    seed=st.integers(0, 2**32),
    rows=st.integers(3, 9),
    share=st.sampled_from([0.5, 0.8, 1.0]),
    gaps=st.sampled_from([0.0, 0.05, 0.3]),
)
def test_every_row_equals_the_definition_with_and_without_gaps(name, seed, rows, share, gaps):
    frame = random_bars(seed, 170, gaps)
    expected = equal_where_decided(frame, name, window(rows, share), [*range(12), *range(60, 170)])
    if gaps == 0.0 and name != "large_move_size":
        assert not np.isnan(expected[-10:]).any()


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("gaps", [0.0, 0.05])
def test_the_tail_index_equals_its_definition(seed, gaps):
    frame = random_bars(seed, 1000, gaps, restless=0.02)
    expected = equal_where_decided(frame, "hill_tail_index", window(300, 0.8), range(300, 1000, 13))
    assert np.mean(~np.isnan(expected)) > 0.1


@pytest.mark.parametrize(
    ("name", "per_period", "periods"),
    [("intraday_seasonality", 4, 5), ("weekly_seasonality", 28, 3)],
)
@settings(max_examples=8)
@given(seed=st.integers(0, 2**32), gaps=st.sampled_from([0.0, 0.2]))
def test_seasonality_equals_its_definition(name, per_period, periods, seed, gaps):
    frame = random_bars(seed, 130, gaps)
    over = window(per_period * periods, 0.6, 6 * HOUR)
    fast = evaluate(frame, getattr(volatility, name)(over))
    logs = np.log(np.log(frame["high"] / frame["low"]).fill_null(math.nan).to_numpy())
    for t in range(130):
        same = [t + 1 - per_period * k for k in range(1, periods + 1)]
        here = np.array([logs[i] for i in same if i >= 0 and not math.isnan(logs[i])])
        every = logs[max(t + 1 - over.rows, 0) : t + 1]
        every = every[~np.isnan(every)]
        known = len(here) >= math.ceil(0.6 * periods) and len(every) >= over.minimum
        expected = math.exp(here.mean() - every.mean()) if known else math.nan
        assert fast[t] == pytest.approx(expected, rel=1e-9, nan_ok=True), t


@pytest.mark.parametrize("gaps", [0.0, 0.2])
def test_the_relative_exponential_volatility_is_the_ratio_of_two_weighted_means(gaps):
    frame = random_bars(1, 200, gaps)
    fast = evaluate(frame, volatility.relative_ewma_volatility(0.9))
    squared = Slow(frame, window(1)).returns ** 2
    for t in range(60, 200):
        if math.isnan(squared[t]):
            continue
        means = []
        for decay in (0.9, 0.9**0.1):
            known = [i for i in range(t + 1) if not math.isnan(squared[i])]
            weights = np.array([decay ** (t - i) for i in known])
            means.append(np.sum(weights * squared[known]) / np.sum(weights))
        assert fast[t] == pytest.approx(math.sqrt(means[0] / means[1]), rel=1e-9)
