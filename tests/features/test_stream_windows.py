"""The book's statistics at one decision are those of the rolling expressions, and the numbers."""

import itertools
from datetime import UTC, datetime, timedelta

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from margincast.data.intervals import bar_open
from margincast.data.schemas import book_columns
from margincast.features import order_book
from margincast.features.library import LIBRARY, look_up
from margincast.features.order_book.statistics import NEEDED, distinct_signals
from margincast.features.stream.book import Book
from margincast.features.stream.book_windows import BookWindows
from margincast.features.stream.last_intervals import LastIntervals, opens_of
from margincast.features.stream.snapshots import Known
from margincast.specs.features import Feature, FeatureSet
from margincast.specs.loading import validate_spec

MINUTE, SECOND = timedelta(minutes=1), timedelta(seconds=1)
START = datetime(2026, 3, 1, tzinfo=UTC)
START_US = int(START.timestamp() * 1e6)
STEP_US = 60_000_000
ENTRIES = [
    Feature(
        function="relative_spread",
        statistics=tuple(NEEDED),
        windows=(MINUTE, 3 * MINUTE, 7 * MINUTE),
    ),
    Feature(
        function="imbalance", values=(1, 2), statistics=("mean", "rank"), windows=(4 * MINUTE,)
    ),
    # the same signal again, with other statistics over another window
    Feature(
        function="imbalance",
        values=(2,),
        statistics=("last", "deviation"),
        windows=(2 * MINUTE,),
    ),
]
NAMES = [
    f"{signal.name} {what}"
    for signal in distinct_signals(ENTRIES, MINUTE)
    for what in signal.summaries
]


def summaries(seed, rows):
    """What snapshots of some intervals may leave behind; a signal is known in part of them."""
    rng = np.random.default_rng(seed)
    columns = {}
    for signal in distinct_signals(ENTRIES, MINUTE):
        # whole numbers sum exactly, so that two ways of adding cannot differ
        samples = [rng.integers(1, 9, rng.integers(0, 4)).astype(float) for _ in range(rows)]
        of = {
            "last": [one[-1] if len(one) else None for one in samples],
            "minimum": [one.min() if len(one) else None for one in samples],
            "count": [float(len(one)) for one in samples],
            "sum": [one.sum() for one in samples],
            "squares": [(one**2).sum() for one in samples],
            "weight": [2.0 * len(one) for one in samples],
            "weighted": [2.0 * one.sum() for one in samples],
        }
        columns |= {f"{signal.name} {what}": of[what] for what in signal.summaries}
    there = rng.random(rows) < 0.8
    there[[0, -1]] = True
    ts = [START + place * MINUTE for place in range(rows)]
    frame = pl.DataFrame(columns, schema=dict.fromkeys(columns, pl.Float64))
    return frame.insert_column(0, pl.Series("ts", ts, pl.Datetime("us", "UTC"))).filter(
        pl.Series(there)
    )


@settings(max_examples=60)
@given(
    seed=st.integers(0, 2**20),
    rows=st.integers(1, 25),
    minimum_present=st.sampled_from([0.3, 0.6, 1.0]),
)
def test_statistics_at_one_decision_are_those_of_the_rolling_expressions(
    seed, rows, minimum_present
):
    frame = summaries(seed, rows)
    expected = order_book.over_windows(frame, ENTRIES, MINUTE, minimum_present).drop("ts")[-1]
    held = LastIntervals(len(NAMES), 9, MINUTE)
    held.go_on_to(START_US + (rows - 1) * STEP_US)
    opens = frame["ts"].to_physical().to_numpy()
    held.put(opens, np.array([frame[name].to_numpy() for name in NAMES]))
    found = BookWindows(ENTRIES, MINUTE, minimum_present).at_end(held.values)
    assert len(found) == expected.width
    whole = expected.select(pl.all().fill_null(np.nan)).row(0)
    np.testing.assert_allclose(found, whole, rtol=1e-12, atol=0)


def test_most_values_of_that_check_are_known():
    table = order_book.over_windows(summaries(1, 200), ENTRIES, MINUTE, 0.6)
    assert max(table.null_count().row(0)) < 160


def test_statistics_by_hand():
    lines = [
        Feature(
            function="relative_spread",
            statistics=("mean", "deviation", "minimum", "rank"),
            windows=(3 * MINUTE,),
        )
    ]
    # of each interval: last, minimum, count, sum, sum of squares
    held = np.array(
        [[4.0, np.nan, 6.0], [2.0, np.nan, 5.0], [2.0, 0.0, 1.0], [6.0, 0.0, 6.0], [20.0, 0.0, 36]]
    )
    mean, deviation, minimum, rank = BookWindows(lines, MINUTE, 0.6).at_end(held)
    assert mean == 12 / 3
    assert deviation == pytest.approx(np.sqrt(56 / 3 - 16))
    assert minimum == 2
    assert rank == 0.75  # above one of two, and itself
    # two of three must be known
    assert np.isnan(BookWindows(lines, MINUTE, 1.0).at_end(held)).all()


def test_intervals_without_rows_are_not_known():
    held = LastIntervals(1, 4, MINUTE)
    held.go_on_to(5 * STEP_US)
    held.put(np.array([0, 3, 5]) * STEP_US, np.array([[7.0, 1.0, 2.0]]))
    np.testing.assert_array_equal(held.values, [[np.nan, 1.0, np.nan, 2.0]])
    held.go_on_to(6 * STEP_US)
    np.testing.assert_array_equal(held.values, [[1.0, np.nan, 2.0, np.nan]])
    held.go_on_to(60 * STEP_US)
    assert np.isnan(held.values).all()


@given(st.lists(st.integers(0, 10**9), min_size=1, max_size=20))
def test_the_open_of_an_interval_is_that_of_the_batch(offsets):
    known_at = START_US + np.sort(np.array(offsets, dtype=np.int64))
    times = pl.Series("known_at", known_at).cast(pl.Datetime("us", "UTC"))
    expected = pl.DataFrame([times]).select(bar_open(MINUTE)).to_series().to_physical()
    np.testing.assert_array_equal(opens_of(known_at, MINUTE), expected.to_numpy())


@settings(max_examples=15)
@given(
    seed=st.integers(0, 2**16),
    cuts=st.lists(st.integers(1, 119), max_size=4, unique=True),
    silent=st.integers(0, 119),
)
def test_sums_of_intervals_are_those_of_the_batch_to_the_last_bit(seed, cuts, silent):
    features = validate_spec(
        {
            "name": "all",
            "description": "every function of the book",
            "grid": {"interval": "1m", "warm_up": "1m", "minimum_present": 0.5, "leader": "A"},
            "book": [
                {"function": name, "statistics": list(NEEDED), "windows": ["3m"]}
                | ({"values": [2.0]} if look_up("book", name).argument == "values" else {})
                for family, name in LIBRARY
                if family == "book"
            ],
        },
        FeatureSet,
        "test",
    )
    book = random_snapshots(seed, 120, silent).with_columns(pl.col("ts").alias("known_at"))
    expected = order_book.summarise_book(book.lazy(), 3, features.book, MINUTE)
    ts = book["ts"].to_physical().to_numpy()
    values = np.array([book[name].to_numpy() for name in book_columns(3)])
    whole = Known(ts, ts, values)
    stream = Book(features, 60)
    opens = opens_of(ts, MINUTE)
    # as decisions come: at the ends of some intervals
    ends = sorted({int(np.searchsorted(opens, opens[cut])) for cut in cuts} | {0, len(ts)})
    for start, end in itertools.pairwise(ends):
        stream.add(whole.between(start, end))
    held = stream._held
    places = -1 - (held.last_us - expected["ts"].to_physical().to_numpy()) // STEP_US
    found = pl.DataFrame(held.values[:, places].T, schema=expected.columns[1:], nan_to_null=True)
    assert found.equals(expected.drop("ts"))


# --- how far back a function of snapshots looks ---------------------------------------------------


def random_snapshots(seed, rows, silent=None, levels=3):
    rng = np.random.default_rng(seed)
    steps = rng.integers(1, 3, rows)
    if silent is not None:
        steps[silent] += 150
    mid = 100 * np.exp(np.cumsum(rng.normal(0, 1e-4, rows)))
    columns = {"ts": [START + int(at) * SECOND for at in np.cumsum(steps)]}
    for name in book_columns(levels):
        side, what, level = name.split("_")
        sign = 1 if side == "ask" else -1
        columns[name] = (
            mid * (1 + sign * 1e-4 * (int(level) + 0.5))
            if what == "price"
            else rng.lognormal(0, 1, rows)
        )
    return pl.DataFrame(columns, schema_overrides={"ts": pl.Datetime("us", "UTC")})


@pytest.mark.parametrize("name", [name for family, name in LIBRARY if family == "book"])
def test_a_function_hangs_on_the_snapshots_it_declares(name):
    function = look_up("book", name)
    arguments = (2.0, 3) if function.argument == "values" else (3,)
    expression = function.build(*arguments)
    back = function.look_back(*arguments)
    moved = 0
    for seed in range(8):
        book = random_snapshots(seed, 40)
        whole = book.select(expression).to_series()
        short = book.tail(back).select(expression).to_series()
        if name != "depth_recovery":  # which looks back over a time: see its memory
            assert short[-1] == whole[-1]
        less = book.tail(back - 1).select(expression).to_series() if back > 1 else None
        moved += less is None or less[-1] != whole[-1]
    assert moved  # none is declared longer than it is
