"""Every NaN has one cause: hand-made cases of each, and counts that add up on random markets."""

from collections import Counter
from datetime import UTC, datetime, timedelta

import numpy as np
import pandas as pd
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from margincast.data.bars import BarTable, regular_bars
from margincast.data.book import BookTable
from margincast.data.schemas import book_columns
from margincast.data.states import StateTable
from margincast.data.trades import TradeTable
from margincast.features import causes
from margincast.features.pipeline import build_features
from margincast.features.presence import Rows
from margincast.features.sources import Sources
from margincast.features.tables import readings_of
from margincast.features.trade_flow import reduction
from margincast.specs.features import FeatureSet
from margincast.specs.loading import validate_spec

MINUTE = timedelta(minutes=1)
START = datetime(2026, 1, 5, tzinfo=UTC)
STAMP = pl.Datetime("us", "UTC")
LEVELS = 2


def feature_set(warm_up="3m", share=1.0, **sections):
    raw = {
        "name": "test",
        "description": "test",
        "grid": {
            "interval": "1m", "warm_up": warm_up, "minimum_present": share, "leader": "BTCUSDT"
        },
        "standing": {"funding": "5m", "implied_vol": "5m"},
    }  # fmt: skip
    return validate_spec(raw | sections, FeatureSet, "test")


def bars_of(count, gaps=(), first=0, seed=0, **columns):
    """Regular minute bars, null at gaps."""
    rng = np.random.default_rng(seed)
    close = 100 * np.exp(np.cumsum(rng.normal(0, 0.001, count)))
    frame = pl.DataFrame(
        {
            "ts": [START + (first + row) * MINUTE for row in range(count)],
            "open": close,
            "high": close * 1.001,
            "low": close * 0.999,
            "close": close,
            "volume": np.ones(count),
            **columns,
        },
        schema_overrides={"ts": STAMP},
    )
    return frame.filter(~pl.int_range(pl.len()).is_in(list(gaps)))


def table_of(**frames):
    regular = {name: regular_bars(frame, name, MINUTE)[0] for name, frame in frames.items()}
    return BarTable(regular, MINUTE, ())


def times(minutes):
    return pl.Series([START + minute * MINUTE for minute in minutes], dtype=STAMP)


def funding_at(*minutes):
    frame = pl.DataFrame({"ts": times(minutes), "known_at": times(minutes)}).with_columns(
        funding_rate=pl.lit(1e-4)
    )
    return {"funding": StateTable({"BTCUSDT": frame}, ())}


def book_at(minutes, *, locked=False, size=1.0):
    half = 0.0 if locked else 0.1
    sides = {"bid": -1, "ask": 1}
    values = {
        f"{side}_{what}_{level}": 100 + sign * (half + level) if what == "price" else size
        for side, sign in sides.items()
        for what in ("price", "size")
        for level in range(LEVELS)
    }
    frame = pl.DataFrame({"ts": times(minutes), "known_at": times(minutes)}).with_columns(
        *(pl.lit(float(values[name])).alias(name) for name in book_columns(LEVELS)),
        symbol=pl.lit("BTCUSDT"),
    )
    return BookTable({"BTCUSDT": frame.lazy()}, {"BTCUSDT": LEVELS}, ())


def trades_at(minutes, side="buy"):
    frame = pl.DataFrame({"ts": times(minutes), "known_at": times(minutes)}).with_columns(
        price=pl.lit(100.0), size=pl.lit(1.0), side=pl.lit(side, dtype=pl.String)
    )
    return TradeTable({"BTCUSDT": frame.lazy()}, ())


def counted(table, column):
    """Counts of a column by cause; they add up to its NaN."""
    counts = {
        finding.what: finding.count
        for finding in table.findings
        if finding.table == "features" and finding.symbol == column
    }
    assert sum(counts.values()) == int(table.frame[column].isna().sum())
    assert all(count > 0 for count in counts.values())
    return counts


BARS = [{"function": "log_return", "windows": ["1m", "4m"]}]


# --- one case a cause -----------------------------------------------------------------------------


def test_history_then_rows_missing():
    bars = table_of(BTCUSDT=bars_of(20, gaps=[10]))
    table = build_features(feature_set(bars=BARS), Sources(bars))
    # decisions at rows 2..19 but 10; four minutes' return needs five closes
    assert counted(table, "log_return_4m") == {causes.SHORT: 2, causes.INCOMPLETE: 1}
    assert counted(table, "log_return_1m") == {causes.INCOMPLETE: 1}


def test_nothing_moved_is_not_defined():
    still = bars_of(12).with_columns(
        *(pl.lit(100.0).alias(name) for name in ("open", "high", "low", "close"))
    )
    lines = [{"function": "realised_skewness", "windows": ["4m"]}]
    table = build_features(feature_set(bars=lines), Sources(table_of(BTCUSDT=still)))
    assert counted(table, "realised_skewness_4m") == {causes.SHORT: 2, causes.NOT_DEFINED: 8}


def test_a_table_not_given_and_one_without_the_contract():
    lines = [{"function": "funding_rate"}]
    bars = table_of(BTCUSDT=bars_of(12), XRPUSDT=bars_of(12, seed=1))
    table = build_features(feature_set(derivatives=lines), Sources(bars))
    absent = "no funding for the contract"
    assert counted(table, "funding_rate") == {absent: 20}
    missing = [finding for finding in table.findings if finding.what == "no funding in the data"]
    assert [(finding.symbol, finding.count, finding.severity) for finding in missing] == [
        ("funding", 1, "warning")
    ]
    table = build_features(feature_set(derivatives=lines), Sources(bars, states=funding_at(0, 8)))
    assert counted(table, "funding_rate")[absent] == 10
    assert not [finding for finding in table.findings if finding.what == "no funding in the data"]


def test_a_state_before_its_first_row_and_when_it_is_too_old():
    lines = [{"function": "funding_rate"}, {"function": "funding_mean", "windows": ["3m"]}]
    bars = table_of(BTCUSDT=bars_of(20))
    table = build_features(
        feature_set(derivatives=lines, share=0.9), Sources(bars, states=funding_at(4, 12))
    )
    # known at the decisions of minutes 4..9 and 12..17 of 3..20
    assert counted(table, "funding_rate") == {"funding not there then": 1 + 2 + 3}
    assert counted(table, "funding_mean_3m") == {
        "funding not there then": 1 + 2 + 3,
        causes.SHORT: 2,
        causes.INCOMPLETE: 2,
    }


def test_a_column_that_the_bars_lack():
    lines = [{"function": "mark_basis"}]
    table = build_features(feature_set(derivatives=lines), Sources(table_of(BTCUSDT=bars_of(12))))
    assert counted(table, "mark_basis") == {"no mark_close for the contract": 10}
    mark = [None] * 5 + [100.0] * 5 + [None] * 2
    bars = table_of(BTCUSDT=bars_of(12, mark_close=pl.Series(mark, dtype=pl.Float64)))
    table = build_features(feature_set(derivatives=lines), Sources(bars))
    assert counted(table, "mark_basis") == {"mark_close not there then": 3 + 2}


BOOK = [
    {"function": "relative_spread", "statistics": ["last", "mean"], "windows": ["3m"]},
    {"function": "cost_to_buy", "values": [1e6], "statistics": ["last"]},
]


def test_a_book_that_begins_late_has_a_hole_and_ends():
    bars = table_of(BTCUSDT=bars_of(20))
    # snapshots known at minutes 5..15 but 10; decisions at 3..20
    books = book_at([minute for minute in range(5, 16) if minute != 10])
    table = build_features(feature_set(book=BOOK), Sources(bars, books))
    gone = {"book not there then": 2 + 5}
    assert counted(table, "relative_spread_last") == gone | {causes.INCOMPLETE: 1}
    assert counted(table, "relative_spread_mean_3m") == gone | {
        causes.SHORT: 2,
        causes.INCOMPLETE: 3,
    }
    # never enough depth for a million
    assert counted(table, "cost_to_buy_1000000_last") == gone | {
        causes.INCOMPLETE: 1,
        causes.NOT_DEFINED: 10,
    }


def test_without_a_book_there_is_no_book():
    bars = table_of(BTCUSDT=bars_of(12), XRPUSDT=bars_of(12, seed=1))
    table = build_features(feature_set(book=BOOK), Sources(bars, book_at(range(1, 13))))
    assert counted(table, "relative_spread_last") == {"no book for the contract": 10}
    table = build_features(feature_set(book=BOOK), Sources(bars))
    assert counted(table, "relative_spread_last") == {"no book for the contract": 20}


TRADES = [
    {"function": "trade_count", "windows": ["2m"]},
    {"function": "signed_flow_imbalance", "windows": ["2m"]},
    {"function": "effective_spread_paid", "windows": ["2m"]},
]


def test_trades_without_a_side_without_a_book_and_where_nothing_was_traded():
    bars = table_of(BTCUSDT=bars_of(12))
    minutes = range(1, 13)
    lines = feature_set(trades=TRADES)
    table = build_features(lines, Sources(bars, None, trades_at(minutes, None)))
    assert counted(table, "trade_count_2m") == {}
    assert counted(table, "signed_flow_imbalance_2m") == {"no aggressor side for the contract": 10}
    assert counted(table, "effective_spread_paid_2m") == {"no book for the contract": 10}
    missing = {finding.symbol for finding in table.findings if " in the data" in finding.what}
    assert missing == {"book"}
    # a book says that the feed was up; three minutes had no trade, two of them a quiet window
    quiet = trades_at([minute for minute in minutes if minute not in (6, 7, 8)])
    table = build_features(lines, Sources(bars, book_at(minutes), quiet))
    assert counted(table, "trade_count_2m") == {}
    assert counted(table, "signed_flow_imbalance_2m") == {causes.NOT_DEFINED: 2}
    table = build_features(lines, Sources(bars, book_at(minutes)))
    assert counted(table, "signed_flow_imbalance_2m") == {"no trades for the contract": 10}


def test_trades_that_end_before_the_book_are_not_known_and_not_zero():
    bars = table_of(BTCUSDT=bars_of(12 * 60))
    minutes = range(1, 12 * 60 + 1)
    # the first trade at 01:00, the last at 05:00; the book is there from 00:01 to 12:00
    traded = range(60, 301, 5)
    lines = feature_set(trades=TRADES[:2])
    table = build_features(lines, Sources(bars, book_at(minutes), trades_at(traded)))
    count = table.frame.set_index("ts")["trade_count_2m"]
    pause = reduction.LONGEST_PAUSE // MINUTE
    known = count[count.notna()]
    assert (known.index[0], known.index[-1]) == (
        START + 61 * MINUTE, START + (300 + pause) * MINUTE,
    )  # fmt: skip
    assert len(known) == 300 + pause - 61 + 1
    assert set(known[known.index > START + 301 * MINUTE]) == {0.0}
    # decisions from minute 3 on: 57 before the first trade; a window of two minutes begins there
    assert counted(table, "trade_count_2m") == {
        "trades not there then": 57 + 720 - 300 - pause,
        causes.SHORT: 1,
    }
    (warning,) = [one for one in table.findings if one.severity == "warning"]
    assert (warning.table, warning.symbol) == ("trades", "BTCUSDT")
    assert (warning.count, warning.total) == (59 + 420, 720)
    assert "trades are there from 2026-01-05 00:59 to 2026-01-05 04:59" in warning.what


def test_a_pause_of_trades_is_not_zero_for_ever_and_nothing_later_changes_it():
    bars = table_of(BTCUSDT=bars_of(12 * 60))
    book = book_at(range(1, 12 * 60 + 1))
    pause = reduction.LONGEST_PAUSE // MINUTE
    lines = feature_set(trades=TRADES[:1], warm_up="1m")
    tables = [
        build_features(lines, Sources(bars, book, trades_at(traded)))
        for traded in ([1, 2, 3, 400, 720], [1, 2, 3, 400, 401, 402, 720], [1, 2, 3])
    ]
    counts = [table.frame.set_index("ts")["trade_count_2m"] for table in tables]
    # bit for bit up to the first trade that differs
    for other in counts[1:]:
        pd.testing.assert_series_equal(counts[0][:399], other[:399], check_exact=True)
    unknown = counts[0].isna()
    hole = [*range(4 + pause, 400), *range(401 + pause, 720)]
    # both minutes of a window must be known
    expected = {1, *hole, *(minute + 1 for minute in hole)}
    assert {(ts - START) // MINUTE for ts in counts[0][unknown].index} == expected
    # the spans agree: no warning, but counted
    assert not [one for one in tables[0].findings if one.severity == "warning"]
    assert counted(tables[0], "trade_count_2m") == {
        causes.SHORT: 1,
        "trades not there then": len(hole),
        causes.INCOMPLETE: 2,
    }


MARKET = [
    {"function": "leader", "columns": ["log_return_1m"]},
    {"function": "market_median", "columns": ["log_return_1m"]},
    {"function": "market_dispersion", "columns": ["log_return_1m"]},
    {"function": "beta_to_leader", "columns": ["log_return_1m"], "windows": ["4m"]},
]


def test_the_leader_has_no_bar_no_decision_or_no_value():
    # the leader's bars begin at minute 6 and miss one at its eleventh row
    bars = table_of(BTCUSDT=bars_of(20, gaps=[10], first=6), XRPUSDT=bars_of(30, seed=1))
    table = build_features(feature_set(bars=BARS, market=MARKET), Sources(bars))
    of_other = {
        # before minute 6: rows 2..5; its hole; after its end: rows 26..29
        causes.NO_LEADER: 4 + 1 + 4,
        causes.NO_DECISION: 2,
        # the return after the hole, which the leader itself does not know either
        causes.UNREAD: 2,
    }
    assert counted(table, "leader_log_return_1m") == of_other
    assert counted(table, "market_median_log_return_1m") == {}
    # one contract alone has no dispersion: where the leader has no decision or no return
    dispersion = counted(table, "market_dispersion_log_return_1m")
    assert dispersion == {causes.NOT_DEFINED: sum(of_other.values())}
    beta = counted(table, "beta_to_leader_log_return_1m_4m")
    assert beta[causes.SHORT] > 0
    assert beta[causes.NO_LEADER] > 0
    assert causes.NOT_DEFINED not in beta


def test_without_a_leader_there_is_no_bar_of_it():
    bars = table_of(XRPUSDT=bars_of(12))
    lines = [{"function": "log_implied_volatility", "windows": ["1m"]}]
    table = build_features(feature_set(bars=BARS, market=MARKET, implied_vol=lines), Sources(bars))
    assert counted(table, "leader_log_return_1m") == {causes.NO_LEADER: 10}
    # whatever else is missing: a leader that is not there is the first thing to mend
    assert counted(table, "log_implied_volatility_1m") == {causes.NO_LEADER: 10}
    assert counted(table, "beta_to_leader_log_return_1m_4m") == {causes.NO_LEADER: 10}
    (warning,) = [one for one in table.findings if one.symbol == "BTCUSDT"]
    assert (warning.severity, warning.count, warning.total) == ("warning", 3, 7)
    assert "grid.leader BTCUSDT has no bars" in warning.what


def test_a_leader_that_nothing_reads_need_not_be_there():
    bars = table_of(XRPUSDT=bars_of(12))
    lines = [{"function": "market_median", "columns": ["log_return_1m"]}]
    table = build_features(feature_set(bars=BARS, market=lines), Sources(bars))
    assert not [finding for finding in table.findings if finding.severity == "warning"]


def test_a_market_column_of_a_column_nobody_knows():
    bars = table_of(BTCUSDT=bars_of(12), XRPUSDT=bars_of(12, seed=1))
    lines = [{"function": "market_median", "columns": ["funding_rate"]}]
    table = build_features(
        feature_set(derivatives=[{"function": "funding_rate"}], market=lines), Sources(bars)
    )
    assert counted(table, "market_median_funding_rate") == {causes.UNREAD: 20}


def test_the_leaders_states_before_its_bars_and_its_tables():
    lines = [{"function": "log_implied_volatility", "windows": ["1m"]}]
    volatility = pl.DataFrame({"ts": times([8, 12]), "known_at": times([8, 12])}).with_columns(
        implied_volatility=pl.lit(0.5)
    )
    states = {"implied_vol": StateTable({"BTC": volatility}, ())}
    bars = table_of(BTCUSDT=bars_of(10, first=4), XRPUSDT=bars_of(20, seed=1))
    table = build_features(feature_set(implied_vol=lines), Sources(bars, states=states))
    # XRP decides at minutes 3..20, BTC at 7..14; BTC's bars close at 5..14, and what stands beside
    # them goes on standing
    assert counted(table, "log_implied_volatility_1m") == {
        causes.NO_LEADER: 2,
        "implied_vol not there then": 3 + 1 + 3,
    }


# --- totals ---------------------------------------------------------------------------------------


@st.composite
def markets(draw):
    """Three contracts with gaps and different spans, tables that come and go."""
    seed = draw(st.integers(0, 2**32))
    rng = np.random.default_rng(seed)
    frames = {}
    for name in draw(st.sampled_from([("BTCUSDT", "ETHUSDT", "XRPUSDT"), ("ETHUSDT",)])):
        count, first = int(rng.integers(25, 60)), int(rng.integers(0, 20))
        mark = np.where(rng.random(count) < 0.2, None, 100.0)
        frames[name] = bars_of(
            count, rng.choice(count, rng.integers(0, 8)), first, seed,
            mark_close=pl.Series(mark.tolist(), dtype=pl.Float64),
        )  # fmt: skip

    def some(share=0.3):
        return sorted(rng.choice(np.arange(1, 80), int(80 * share), replace=False).tolist())

    given_tables = draw(st.sets(st.sampled_from(["book", "trades", "funding", "implied_vol"])))
    states = {}
    if "funding" in given_tables:
        states |= funding_at(*some(0.05))
    if "implied_vol" in given_tables:
        known = times(some(0.2))
        frame = pl.DataFrame({"ts": known, "known_at": known}).with_columns(
            implied_volatility=pl.lit(0.5)
        )
        states["implied_vol"] = StateTable({"BTC": frame}, ())
    book = book_at(some(0.8), locked=bool(rng.integers(2))) if "book" in given_tables else None
    side = None if rng.random() < 0.3 else "buy"
    trades = trades_at(some(0.7), side) if "trades" in given_tables else None
    return Sources(table_of(**frames), book, trades, states)


WIDE = {
    "bars": [
        *BARS,
        {"function": "realised_skewness", "windows": ["4m"]},
        {"function": "ewma_volatility", "values": [0.8]},
    ],
    "derivatives": [
        {"function": "funding_rate"},
        {"function": "funding_mean", "windows": ["3m", "9m"]},
        {"function": "mark_basis"},
        {"function": "mark_basis_mean", "windows": ["3m"]},
    ],
    "implied_vol": [{"function": "implied_volatility_change", "windows": ["5m"]}],
    "book": [
        {"function": "relative_spread", "statistics": ["last", "deviation"], "windows": ["3m"]},
        {"function": "order_flow_imbalance", "values": [1], "statistics": ["mean"],
         "windows": ["2m"]},
    ],
    "trades": [*TRADES, {"function": "kyle_lambda", "windows": ["5m"]}],
    "market": [
        *MARKET,
        {"function": "lead_lag", "columns": ["log_return_1m"], "windows": ["5m"]},
        {"function": "leader_gap", "columns": ["funding_rate"], "windows": ["2m"]},
        {"function": "leader", "columns": ["relative_spread_last"]},
        {"function": "breadth_of_falls", "columns": ["funding_rate"]},
    ],
    "calendar": [{"function": "hour_of_day"}],
}  # fmt: skip


@settings(max_examples=25)
@given(markets(), st.sampled_from([0.3, 0.7, 1.0]))
def test_counts_by_cause_add_up_to_the_nan_of_every_column(sources, share):
    features = feature_set(share=share, warm_up="10m", **WIDE)
    table = build_features(features, sources)
    assert set(readings_of(features)) == set(table.units)
    for column in table.units:
        counted(table, column)
    assert sum(finding.count for finding in table.findings if finding.symbol in table.units) == int(
        table.frame[list(table.units)].isna().sum().sum()
    )


def test_every_cause_comes_up_in_such_markets():
    """The property above is about something: each cause is met."""
    seen: Counter[str] = Counter()

    @settings(max_examples=12, derandomize=True, database=None)
    @given(markets())
    def run(sources):
        table = build_features(feature_set(share=0.7, warm_up="10m", **WIDE), sources)
        for finding in table.findings:
            if finding.symbol in table.units:
                seen[finding.what] += finding.count

    run()
    general = {
        value for name, value in vars(causes).items()
        if name in {"SHORT", "INCOMPLETE", "UNREAD", "NO_LEADER", "NOT_DEFINED"}
    }  # fmt: skip
    assert general <= set(seen)
    assert {"no book for the contract", "funding not there then"} <= set(seen)


# --- rows on a grid, against a slow twin ----------------------------------------------------------


@given(
    st.lists(st.booleans(), min_size=1, max_size=30),
    st.integers(-5, 35),
    st.integers(1, 12),
    st.booleans(),
)
def test_rows_equal_a_loop(there, place, look_back, trimmed):
    rows = Rows.of(1000, 10, np.array(there))
    if trimmed:
        rows = rows.from_first_to_last()
        known = [n for n, is_there in enumerate(there) if is_there]
        first, last = (known[0], known[-1]) if known else (len(there), len(there) - 1)
    else:
        first, last = 0, len(there) - 1
    at = np.array([1000 + 10 * place])
    assert rows.outside(at)[0] == (not first <= place <= last)
    if first <= place <= last:
        assert rows.short(at, look_back)[0] == (place - first + 1 < look_back)
    wanted = range(place - look_back + 1, place + 1)
    complete = all(first <= n <= last and there[n] for n in wanted)
    assert rows.incomplete(at, look_back)[0] == (not complete)


@pytest.mark.parametrize("name", ["funding_mean_3m", "effective_spread_paid_2m", "hour_of_day"])
def test_readings_name_tables(name):
    reading = readings_of(feature_set(**WIDE))[name]
    expected = {
        "funding_mean_3m": ("derivatives", {"funding": ("funding_rate",)}),
        "effective_spread_paid_2m": ("trades", {"trades": (), "book": ()}),
        "hour_of_day": ("calendar", {}),
    }[name]
    assert (reading.family, reading.names) == expected
