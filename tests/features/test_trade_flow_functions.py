"""Every trade-flow function: by hand, against its slow twin, and on markets of known truth."""

import math
from datetime import UTC, datetime, timedelta

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from margincast.core.errors import InputError
from margincast.features import trade_flow
from margincast.features.library import LIBRARY, Window
from margincast.features.trade_flow import execution, pressure
from margincast.features.trade_flow.summaries import ADDITIVE, OTHERS, summarise_trades
from margincast.specs.features import Feature

START = datetime(2026, 1, 5, 12, tzinfo=UTC)
MINUTE = timedelta(minutes=1)
STAMP = pl.Datetime("us", "UTC")
FUNCTIONS = [
    name
    for (family, name), function in LIBRARY.items()
    if family == "trades" and function.build.__module__ != execution.__name__
]
"""Functions of trades alone; those that meet the book stand in ``test_execution``."""
SIGNED = ("signed_flow_imbalance", "signed_count_imbalance", "kyle_lambda")
FROM_A_ROOT = ("roll_spread", "duration_variation")
"""Their squares are equal to 1e-9: a root near zero doubles the digits lost."""


def trades_of(rows):
    """Trades at seconds after the start; the first second belongs to the first minute."""
    return pl.LazyFrame(
        [(START + timedelta(seconds=second), *rest) for second, *rest in rows],
        schema={"known_at": STAMP, "price": pl.Float64, "size": pl.Float64, "side": pl.String},
        orient="row",
    )


def book_of_minutes(minutes):
    return pl.LazyFrame(
        {"known_at": [START + minute * MINUTE + timedelta(seconds=9) for minute in minutes]},
        schema_overrides={"known_at": STAMP},
    )


def reduce_all(trades, minutes, windows=(5 * MINUTE,), share=0.6, functions=FUNCTIONS):
    entries = [Feature(function=name, windows=windows) for name in functions]
    book = None if minutes is None else book_of_minutes(minutes)
    return trade_flow.reduce_trades(trades, book, entries, MINUTE, share)


def random_trades(seed, minutes=14, unsided=0.02):
    """Trades in bursts, a few without a side, as (second, price, size, side)."""
    generator = np.random.default_rng(seed)
    rows = []
    price = 100.0
    for minute in range(minutes):
        count = generator.choice([0, 1, 2, 8, 30])
        for second in np.sort(generator.uniform(0.001, 59.999, count)):
            price *= math.exp(generator.normal() * 0.001)
            side = None if generator.random() < unsided else generator.choice(["buy", "sell"])
            rows.append((60 * minute + float(second), price, generator.lognormal(0, 2), side))
    return rows


# --- by hand --------------------------------------------------------------------------------------

# (second, price, size, side), a minute a line. Notionals: 100 bought, 100 sold, 200 bought;
# nothing; 400 sold; 100 bought, 900 bought, 100 sold, 100 bought.
ROWS = [
    (10, 100.0, 1.0, "buy"), (20, 50.0, 2.0, "sell"), (50, 100.0, 2.0, "buy"),
    (150, 100.0, 4.0, "sell"),
    (181, 100.0, 1.0, "buy"), (190, 200.0, 4.5, "buy"), (195, 100.0, 1.0, "sell"),
    (240, 200.0, 0.5, "buy"),
]  # fmt: skip
LOG2 = math.log(2)
BY_HAND = {
    "log_traded_notional_usd": math.log1p(2000 / 4),
    "trade_count": 8 / 4,
    # bought 100 + 200 + 100 + 900 + 100, sold 100 + 400 + 100
    "signed_flow_imbalance": (1400 - 600) / 2000,
    "signed_count_imbalance": (5 - 3) / 8,
    # minutes of 400 (0.5 bought net), 400 (all sold) and 1200 (5 / 6 bought net): 10, 10 and 30
    # buckets of 40 USD, none across two minutes
    "vpin": (200 + 400 + 1000) / 2000,
    # ten times its minute's median: 900 < 10 * 100 in the fourth, none elsewhere
    "large_trade_share": 0.0,
    # medians 100, 400, 100 with 3, 1 and 4 trades
    "log_trade_notional_usd_median": math.log((3 * 100 + 400 + 4 * 100) / 8),
    # 0.9 quantiles: 100 + 0.8 * 100, 400, 100 + 0.7 * 800
    "log_trade_notional_usd_p90": math.log((3 * 180 + 400 + 4 * 660) / 8),
    "log_trade_notional_usd_p99": math.log((3 * 198 + 400 + 4 * 876) / 8),
    "log_trade_count_deviation": math.log(5) - (math.log(4) + 0 + math.log(2) + math.log(5)) / 4,
    # counts 3, 0, 1, 4: sample variance 10 / 3, mean 2
    "count_fano_factor": (1 + 4 + 1 + 4) / 3 / 2,
    # 10, 30 seconds; 9, 5, 45 seconds
    "duration_variation": float(np.std([10, 30, 9, 5, 45]) / np.mean([10, 30, 9, 5, 45])),
    # the last price of the third minute has none before it; the fourth: log 2 on 1200 USD
    "amihud_illiquidity": LOG2 / 1200 * 1e6,
    # pairs of changes (-log 2, log 2); (log 2, -log 2), (-log 2, log 2)
    # (later, earlier) changes (L, -L); (-L, L), (L, -L): products -L^2, means L / 3 and -L / 3
    "roll_spread": 2 * LOG2 * math.sqrt(1 - 1 / 9),
}


@pytest.mark.parametrize("name", [name for name in FUNCTIONS if name != "kyle_lambda"])
def test_worked_by_hand(name):
    reduced = reduce_all(trades_of(ROWS), range(4), (4 * MINUTE,), 0.1, (name,))
    assert reduced[f"{name}_4m"][-1] == pytest.approx(BY_HAND[name], rel=1e-12)


def test_the_price_impact_of_three_returns_by_hand():
    # last prices 100, 101, 103.02, 102: bought net 1e6, 2e6, then sold 1e6
    flow = [(30, 100.0, 1e4, "buy"), (90, 101.0, 1e6 / 101, "buy")]
    flow += [(150, 103.02, 2e6 / 103.02, "buy"), (210, 102.0, 1e6 / 102, "sell")]
    returns = [math.log(1.01), math.log(1.02), math.log(102 / 103.02)]
    # x = 1, 2, -1 million, mean 2 / 3: deviations 1 / 3, 4 / 3, -5 / 3, their squares 42 / 9
    weights = [1 / 3, 4 / 3, -5 / 3]
    expected = sum(w * r for w, r in zip(weights, returns, strict=True)) / (42 / 9)
    reduced = reduce_all(trades_of(flow), None, (4 * MINUTE,), 0.1, ("kyle_lambda",))
    assert reduced["kyle_lambda_4m"].to_list() == [None, None, None, pytest.approx(expected)]


def test_a_large_trade_is_ten_times_the_median_of_its_minute():
    rows = [(second, 1.0, size, "buy") for second, size in ((1, 1.0), (2, 2.0), (3, 20.0))]
    share = reduce_all(trades_of(rows), None, (MINUTE,), 1.0, ("large_trade_share",))
    assert share["large_trade_share_1m"].to_list() == [20 / 23]


def test_a_bucket_takes_what_the_minute_before_left_over():
    values = pressure.bucket_imbalance(np.array([100.0, 200.0]), np.array([100.0, -80.0]), 2, 1, 2)
    # two buckets of 150: 100 bought net and a quarter of 80 sold net; the rest of the 80
    assert values == pytest.approx([1.0, (abs(100 - 20) + 60) / 300])


# --- the slow twins: one window at a time, straight from the definition ---------------------------


def cut_into_minutes(rows, up):
    """A list of trades a minute; None where the feed was down."""
    return [
        [row for row in rows if 60 * minute < row[0] <= 60 * (minute + 1)] if minute in up else None
        for minute in range(min(up), max(up) + 1)
    ]


def notionals(minute):
    return np.array([price * size for _, price, size, _ in minute])


def signs(minute):
    return np.array([{"buy": 1.0, "sell": -1.0}[side] for *_, side in minute])


def sided(minute):
    return all(side is not None for *_, side in minute)


def slow_vpin(minutes):
    """The paper's procedure: fill one bucket after the other, carrying over what is too much."""
    total = sum(notionals(minute).sum() for minute in minutes)
    size, room, flow, imbalance = total / 50, total / 50, 0.0, 0.0
    for minute in minutes:
        left = notionals(minute).sum()
        mix = (notionals(minute) * signs(minute)).sum() / left if left else 0.0
        while left > 0:
            taken = min(left, room)
            flow, left, room = flow + taken * mix, left - taken, room - taken
            if room <= 1e-12 * size:
                imbalance, flow, room = imbalance + abs(flow), 0.0, size
    return (imbalance + abs(flow)) / total


def slow_kyle(minutes, t, over):
    x, y = [], []
    for i in range(max(1, t + 1 - over.rows), t + 1):
        if minutes[i] and minutes[i - 1] and sided(minutes[i]):
            x.append((notionals(minutes[i]) * signs(minutes[i])).sum() / 1e6)
            y.append(math.log(minutes[i][-1][1] / minutes[i - 1][-1][1]))
    return np.polyfit(x, y, 1)[0] if len(x) >= max(over.minimum, 3) else math.nan


def slow_amihud(minutes, t, over):
    ratios = [
        abs(math.log(minutes[i][-1][1] / minutes[i - 1][-1][1])) / notionals(minutes[i]).sum()
        for i in range(max(1, t + 1 - over.rows), t + 1)
        if minutes[i] and minutes[i - 1]
    ]
    return np.mean(ratios) * 1e6 if len(ratios) >= over.minimum else math.nan


def slow_roll(known):
    changes = [np.diff(np.log([price for _, price, *_ in minute])) for minute in known]
    later = np.concatenate([change[1:] for change in changes])
    before = np.concatenate([change[:-1] for change in changes])
    if len(later) < 2:
        return math.nan
    covariance = np.mean(later * before) - later.mean() * before.mean()
    return 2 * math.sqrt(-covariance) if covariance <= 0 else math.nan


def slow_quantile(known, level):
    weighted = [np.quantile(notionals(minute), level) * len(minute) for minute in known if minute]
    return math.log(sum(weighted) / sum(map(len, known)))


def slow_pressure(name, known, over):
    known = [minute for minute in known if sided(minute)]
    if len(known) < over.minimum or not any(known):
        return math.nan
    if name == "vpin":
        return slow_vpin(known)
    if name == "signed_count_imbalance":
        return np.mean(np.concatenate([signs(minute) for minute in known]))
    flow = sum((notionals(minute) * signs(minute)).sum() for minute in known)
    return flow / sum(notionals(minute).sum() for minute in known)


def slow_arrivals(name, known):
    if name == "count_fano_factor":
        counts = [len(minute) for minute in known]
        return np.var(counts, ddof=1) / np.mean(counts) if len(counts) > 1 else math.nan
    durations = np.concatenate([np.diff([row[0] for row in minute]) for minute in known])
    return np.std(durations) / np.mean(durations) if len(durations) > 1 else math.nan


def slow_activity(name, known):
    counts = [len(minute) for minute in known]
    if name == "log_traded_notional_usd":
        return math.log1p(sum(notionals(minute).sum() for minute in known) / len(known))
    mean = np.mean(np.log1p(counts))
    return np.mean(counts) if name == "trade_count" else math.log1p(counts[-1]) - mean


def slow_size(name, known):
    if name != "large_trade_share":
        return slow_quantile(known, {"ian": 0.5, "p90": 0.9, "p99": 0.99}[name[-3:]])
    amounts = [notionals(minute) for minute in known if minute]
    large = sum(amount[amount >= 10 * np.median(amount)].sum() for amount in amounts)
    return large / sum(amount.sum() for amount in amounts)


ARRIVALS = ("count_fano_factor", "duration_variation")
ACTIVITY = ("log_traded_notional_usd", "trade_count", "log_trade_count_deviation")


def slow_value(name, minutes, t, over):
    if name in ("kyle_lambda", "amihud_illiquidity"):
        return (slow_kyle if name == "kyle_lambda" else slow_amihud)(minutes, t, over)
    known = [m for m in minutes[max(t + 1 - over.rows, 0) : t + 1] if m is not None]
    if name in ("vpin", "signed_flow_imbalance", "signed_count_imbalance"):
        return slow_pressure(name, known, over)
    blind = name == "log_trade_count_deviation" and minutes[t] is None
    if len(known) < over.minimum or blind or not (name in ACTIVITY or any(known)):
        return math.nan
    if name in ACTIVITY:
        return slow_activity(name, known)
    if name == "roll_spread":
        return slow_roll(known)
    return (slow_arrivals if name in ARRIVALS else slow_size)(name, known)


@pytest.mark.parametrize("name", FUNCTIONS)
@settings(max_examples=12)
@given(
    seed=st.integers(0, 2**32),
    rows=st.integers(3, 9),
    share=st.sampled_from([0.1, 0.6, 1.0]),
    down=st.sets(st.integers(1, 12), max_size=3),
)
def test_every_row_equals_the_definition_with_and_without_holes(name, seed, rows, share, down):
    trades = random_trades(seed)
    up = set(range(14)) - down
    reduced = reduce_all(trades_of(trades), up, (rows * MINUTE,), share, (name,))
    fast = reduced[f"{name}_{rows}m"].fill_null(float("nan")).to_numpy()
    # whole microseconds, as the table holds them
    exact = [(round(second * 1e6) / 1e6, *rest) for second, *rest in trades]
    # a book says nothing of trades before the first of them
    first = math.ceil(exact[0][0] / 60) - 1
    minutes = cut_into_minutes(exact, {minute for minute in up if minute >= first})
    over = Window.over(rows * MINUTE, MINUTE, share)
    slow = np.array([slow_value(name, minutes, t, over) for t in range(len(minutes))])
    before = len(slow) - len(fast)
    assert np.isnan(slow[:before]).all()
    slow = slow[before:]
    power = 2 if name in FROM_A_ROOT else 1
    np.testing.assert_allclose(fast**power, slow**power, rtol=1e-9, atol=1e-12)


# --- properties -----------------------------------------------------------------------------------


def values_of(reduced):
    frame = reduced.drop("ts")
    assert not frame.select(pl.all().is_nan().any()).row(0).count(True)
    return {name.rsplit("_", 1)[0]: frame[name].to_numpy() for name in frame.columns}


@settings(max_examples=15)
@given(seed=st.integers(0, 2**32))
def test_a_price_in_another_unit_has_the_same_features(seed):
    trades = trades_of(random_trades(seed))
    other = trades.with_columns(pl.col("price") * 1000, pl.col("size") / 1000)
    one, two = (values_of(reduce_all(frame, range(14))) for frame in (trades, other))
    for name in FUNCTIONS:
        power = 2 if name in FROM_A_ROOT else 1
        np.testing.assert_allclose(two[name] ** power, one[name] ** power, rtol=1e-6, atol=1e-9)


@settings(max_examples=15)
@given(seed=st.integers(0, 2**32))
def test_when_buyers_and_sellers_trade_places_only_the_signed_change_sign(seed):
    trades = trades_of(random_trades(seed))
    swapped = trades.with_columns(
        pl.col("side").replace_strict({"buy": "sell", "sell": "buy"}, default=None)
    )
    one, two = (values_of(reduce_all(frame, range(14))) for frame in (trades, swapped))
    for name in FUNCTIONS:
        np.testing.assert_array_equal(two[name], -one[name] if name in SIGNED else one[name])


@settings(max_examples=15)
@given(seed=st.integers(0, 2**32))
def test_in_a_mirrored_market_impact_and_spread_are_the_same(seed):
    # prices turned upside down, sides swapped, notionals kept
    trades = trades_of(random_trades(seed))
    mirrored = trades.with_columns(
        (1 / pl.col("price")).alias("price"),
        (pl.col("size") * pl.col("price").pow(2)).alias("size"),
        pl.col("side").replace_strict({"buy": "sell", "sell": "buy"}, default=None),
    )
    one, two = (values_of(reduce_all(frame, range(14))) for frame in (trades, mirrored))
    for name in ("kyle_lambda", "amihud_illiquidity", "roll_spread"):
        power = 2 if name in FROM_A_ROOT else 1
        np.testing.assert_allclose(two[name] ** power, one[name] ** power, rtol=1e-6, atol=1e-9)


@settings(max_examples=15)
@given(seed=st.integers(0, 2**32))
def test_shares_and_imbalances_stay_within_their_bounds(seed):
    values = values_of(reduce_all(trades_of(random_trades(seed)), range(14), share=0.1))
    for name, array in values.items():
        known = array[~np.isnan(array)]
        if name in ("vpin", "large_trade_share"):
            assert ((known >= 0) & (known <= 1)).all()
        elif name in ("signed_flow_imbalance", "signed_count_imbalance"):
            assert (np.abs(known) <= 1).all()
        elif name in ("amihud_illiquidity", "roll_spread", *FROM_A_ROOT, "count_fano_factor"):
            assert (known >= 0).all()
    both = ~np.isnan(values["vpin"])
    assert (values["vpin"][both] >= np.abs(values["signed_flow_imbalance"][both]) - 1e-12).all()
    median, p90, p99 = (values[f"log_trade_notional_usd_{q}"] for q in ("median", "p90", "p99"))
    traded = ~np.isnan(median)
    assert (median[traded] <= p90[traded] + 1e-12).all()
    assert (p90[traded] <= p99[traded] + 1e-12).all()


@settings(max_examples=15)
@given(seed=st.integers(0, 2**32), cut=st.integers(1, 13))
def test_a_stretch_of_trades_can_be_reduced_on_its_own(seed, cut):
    trades = trades_of(random_trades(seed))
    names = [*ADDITIVE, *OTHERS]
    border = pl.col("known_at") <= START + cut * MINUTE
    parts = [trades.filter(border), trades.filter(~border)]
    whole = summarise_trades(trades, MINUTE, names).collect()
    reduced = [
        summarise_trades(part, MINUTE, names).collect()
        for part in parts
        if len(part.head(1).collect())
    ]
    assert pl.concat(reduced).equals(whole)


def test_functions_that_need_no_aggressor_do_without_one():
    trades = random_trades(3)
    unsided = trades_of(trades).with_columns(pl.lit(None, pl.String).alias("side"))
    one = values_of(reduce_all(trades_of(trades), range(14)))
    two = values_of(reduce_all(unsided, range(14)))
    for name in FUNCTIONS:
        if name in (*SIGNED, "vpin"):
            assert np.isnan(two[name]).all()
        else:
            np.testing.assert_array_equal(two[name], one[name])


def test_a_quiet_window_has_counts_and_nothing_else():
    values = values_of(reduce_all(trades_of([(1, 100.0, 1.0, "buy")]), range(9), share=1.0))
    known = {name for name, array in values.items() if not np.isnan(array[-1])}
    assert known == {"log_traded_notional_usd", "trade_count", "log_trade_count_deviation"}
    assert all(values[name][-1] == 0 for name in known)


def test_the_crash_leaves_no_residue_behind():
    # one minute of 1e12 USD at wild prices, then small even trades
    wild = [(s, 10.0 + s, 1e10, ("buy", "sell")[s % 2]) for s in range(1, 30)]
    calm = [(60 * m + s, 100.0, 1.0, "buy") for m in range(1, 12) for s in (10, 20, 30)]
    values = values_of(reduce_all(trades_of([*wild, *calm]), range(12)))
    assert values["vpin"][-1] == pytest.approx(1.0, abs=1e-12)
    assert values["signed_flow_imbalance"][-1] == 1.0
    assert values["log_trade_notional_usd_p99"][-1] == pytest.approx(math.log(100), abs=1e-6)
    assert values["amihud_illiquidity"][-1] == pytest.approx(0.0, abs=1e-12)
    # the flow never varied
    assert np.isnan(values["kyle_lambda"][-1])


def test_a_regression_over_two_rows_is_refused():
    with pytest.raises(InputError, match=r"window of 2m has 2 row\(s\).*at least 3 grid steps"):
        reduce_all(trades_of(ROWS), None, (2 * MINUTE,), 0.5, ("kyle_lambda",))


# --- markets of known truth -----------------------------------------------------------------------


def test_a_bouncing_price_shows_its_spread_and_a_steady_stream_no_clustering():
    generator = np.random.default_rng(5)
    arrivals = np.cumsum(generator.exponential(0.25, 30_000))
    side = generator.choice([1, -1], len(arrivals))
    spread = 0.002
    price = 100 * np.exp(spread / 2 * side)
    rows = zip(arrivals, price, np.ones(len(price)), np.where(side > 0, "buy", "sell"), strict=True)
    last = {
        name: array[-2]
        for name, array in values_of(
            reduce_all(trades_of(list(rows)), None, (120 * MINUTE,), 0.9)
        ).items()
    }
    assert last["roll_spread"] == pytest.approx(spread, rel=0.03)
    # 120 counts: the standard error of the factor is sqrt(2 / 119), 0.13
    assert last["count_fano_factor"] == pytest.approx(1.0, abs=0.4)
    assert last["duration_variation"] == pytest.approx(1.0, abs=0.03)
    # a bucket is a fiftieth of 120 minutes of 240 trades, whose |buys - sells| is on average:
    assert last["vpin"] == pytest.approx(math.sqrt(2 / math.pi / 576), rel=0.25)


def test_trades_in_bursts_are_seen_as_clustered():
    generator = np.random.default_rng(6)
    centres = np.cumsum(generator.exponential(20, 400))
    arrivals = np.sort((centres[:, None] + generator.exponential(0.5, (400, 20))).ravel())
    rows = [(second, 100.0, 1.0, "buy") for second in arrivals]
    values = values_of(reduce_all(trades_of(rows), None, (100 * MINUTE,), 0.5))
    assert values["count_fano_factor"][-1] > 5
    assert values["duration_variation"][-1] > 2


def test_price_impact_is_recovered():
    generator = np.random.default_rng(7)
    flow = generator.normal(0, 1e6, 400)
    price = 100 * np.exp(np.cumsum(3e-4 * flow / 1e6 + generator.normal(0, 1e-4, 400)))
    rows = [
        (60 * i + 30, price[i], abs(flow[i]) / price[i], "buy" if flow[i] > 0 else "sell")
        for i in range(400)
    ]
    values = values_of(reduce_all(trades_of(rows), None, (400 * MINUTE,), 0.9, ("kyle_lambda",)))
    assert values["kyle_lambda"][-1] == pytest.approx(3e-4, rel=0.06)
