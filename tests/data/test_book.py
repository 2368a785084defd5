from datetime import UTC, datetime, timedelta

import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from margincast.core.errors import InputError
from margincast.data.book import (
    BookTable,
    mended_book,
    read_books,
)
from margincast.data.intervals import bar_open, interval_batches
from margincast.data.mid_bars import mid_bars
from margincast.data.schemas import TIMESTAMP, book_columns
from margincast.data.trades import TradeTable, read_trades

START = datetime(2026, 1, 5, 12, tzinfo=UTC)
SECOND = timedelta(seconds=1)
MINUTE = timedelta(minutes=1)
GOOD = (99.0, 1.0, 101.0, 2.0, 98.0, 3.0, 102.0, 4.0)
"""One snapshot of two levels, in the order of ``book_columns(2)``."""


def book_of(rows, seconds=None, **extra):
    seconds = range(len(rows)) if seconds is None else seconds
    frame = pl.DataFrame(
        rows, schema=dict.fromkeys(book_columns(2), pl.Float64), orient="row"
    ).with_columns(pl.Series("ts", [START + second * SECOND for second in seconds]))
    return frame.with_columns(pl.Series(name, values) for name, values in extra.items())


def changed(**values):
    return tuple({**dict(zip(book_columns(2), GOOD, strict=True)), **values}.values())


def mend(frame):
    mended, levels, findings = mended_book(frame.lazy(), "X", "x.parquet", SECOND)
    counts = {finding.what: finding.count for finding in findings if finding.count}
    return mended.collect(), levels, counts


def known(frame, delay=SECOND):
    """A book table of one contract from an already clean frame."""
    return BookTable(
        {"X": frame.lazy().with_columns((pl.col("ts") + delay).alias("known_at"))}, {"X": 2}, ()
    )


def test_a_book_without_faults_passes_through_untouched():
    frame = book_of([GOOD, GOOD, GOOD], venue_sequence=[7, 8, 9])
    mended, levels, counts = mend(frame)
    assert mended.equals(frame.with_columns((pl.col("ts") + SECOND).alias("known_at")))
    assert levels == 2
    assert counts == {}


@pytest.mark.parametrize(
    ("bad", "what"),
    [
        ({"bid_price_0": 101.5}, "crossed (best bid > best ask)"),
        ({"bid_price_0": None}, "empty side (best price or size missing or not above 0)"),
        ({"ask_size_0": 0.0}, "empty side (best price or size missing or not above 0)"),
        ({"ask_price_0": float("nan")}, "empty side (best price or size missing or not above 0)"),
        ({"bid_size_0": -1.0}, "empty side (best price or size missing or not above 0)"),
        ({"bid_size_0": float("inf")}, "empty side (best price or size missing or not above 0)"),
        ({"bid_price_1": 99.5}, "levels not best first"),
        ({"ask_price_1": 100.5}, "levels not best first"),
    ],
)
def test_a_snapshot_that_cannot_be_is_dropped_and_counted(bad, what):
    mended, _, counts = mend(book_of([GOOD, changed(**bad), GOOD]))
    assert counts == {what: 1}
    assert mended["ts"].to_list() == [START, START + 2 * SECOND]


def test_a_locked_book_is_kept_and_counted():
    mended, _, counts = mend(book_of([GOOD, changed(bid_price_0=101.0)]))
    assert counts == {"locked (best bid = best ask)": 1}
    assert mended["bid_price_0"].to_list() == [99.0, 101.0]


@pytest.mark.parametrize(
    "bad", [{"bid_price_1": None}, {"bid_size_1": 0.0}, {"bid_size_1": float("nan")}]
)
def test_a_deeper_level_that_holds_nothing_is_null(bad):
    mended, _, counts = mend(book_of([GOOD, changed(**bad)]))
    assert counts == {"deeper levels missing": 1}
    assert mended["bid_price_1"].to_list() == [98.0, None]
    assert mended["bid_size_1"].to_list() == [3.0, None]
    assert mended["ask_price_1"].to_list() == [102.0, 102.0]


def test_an_invalid_snapshot_is_dropped():
    mended, _, counts = mend(book_of([GOOD] * 3, is_valid=[True, False, None]))
    assert counts == {"is_valid not true": 2}
    assert len(mended) == 1


def test_repeats_are_dropped_and_the_last_of_a_time_is_kept():
    other = changed(bid_size_0=5.0)
    mended, _, counts = mend(book_of([GOOD, GOOD, GOOD, other, GOOD], [0, 0, 1, 1, 2]))
    assert counts == {
        "equal to the next row of the same time": 1,
        "several rows of the same time, not equal": 1,
    }
    assert mended["ts"].to_list() == [START, START + SECOND, START + 2 * SECOND]
    assert mended["bid_size_0"].to_list() == [1.0, 5.0, 1.0]


def test_the_last_of_a_time_stands_even_where_it_is_a_fault():
    mended, _, counts = mend(book_of([GOOD, changed(bid_price_0=None), GOOD], [0, 0, 1]))
    assert mended["ts"].to_list() == [START + SECOND]
    assert sum(counts.values()) == 2


def test_rows_out_of_order_are_sorted_and_counted():
    rows = [changed(bid_size_0=size) for size in (1.0, 4.0, 2.0, 3.0)]
    mended, _, counts = mend(book_of(rows, [0, 3, 1, 2]))
    assert counts == {"out-of-order rows": 2}
    assert mended["bid_size_0"].to_list() == [1.0, 2.0, 3.0, 4.0]


def test_a_file_that_holds_everything_twice_is_one_book():
    frame = book_of([changed(bid_size_0=float(size)) for size in range(1, 6)])
    mended, _, counts = mend(pl.concat([frame, frame]))
    assert mended.drop("known_at").equals(frame)
    assert counts["equal to the next row of the same time"] == 5


prices = st.sampled_from([None, float("nan"), -1.0, 0.0, 98.0, 99.0, 100.0, 101.0, 102.0])
sizes = st.sampled_from([None, float("nan"), 0.0, 1.0, 2.0])
snapshots = st.tuples(prices, sizes, prices, sizes, prices, sizes, prices, sizes)


def received(seconds):
    """Times of reception, in seconds from the start; None where the feed does not say."""
    moments = [None if second is None else START + second * SECOND for second in seconds]
    return {"received_at": pl.Series(moments, dtype=TIMESTAMP)}


@given(
    st.lists(
        st.tuples(
            st.integers(0, 9), st.booleans(), snapshots, st.one_of(st.none(), st.integers(-2, 12))
        ),
        min_size=1,
        max_size=12,
    ),
    st.booleans(),
)
def test_what_is_kept_is_a_book_and_every_row_has_one_fate(rows, says_when):
    # A snapshot at a time of its own makes sure that something is usable.
    rows = [*rows, (20, True, GOOD, 20)]
    frame = book_of(
        [row[2] for row in rows],
        [row[0] for row in rows],
        is_valid=[row[1] for row in rows],
        **(received([row[3] for row in rows]) if says_when else {}),
    )
    mended, levels, findings = mended_book(frame.lazy(), "X", "x.parquet", SECOND)
    kept = mended.collect()
    times = kept.select("ts", "known_at")
    assert times.rows() == sorted(set(times.rows()))
    assert kept["known_at"].is_sorted()
    assert says_when or kept["ts"].is_unique().all()
    assert (kept["known_at"] >= kept["ts"]).all()
    assert kept["is_valid"].all()
    assert (kept["bid_price_0"] <= kept["ask_price_0"]).all()
    for name in book_columns(levels):
        values = kept[name].drop_nulls()
        assert (values > 0).all()
        assert values.is_finite().all()
    dropped = sum(
        finding.count
        for finding in findings
        if finding.action.startswith("dropped") or "last in the file" in finding.action
    )
    assert dropped + len(kept) == len(frame)
    assert all(finding.total == len(frame) for finding in findings)
    locked = next(finding for finding in findings if finding.what.startswith("locked"))
    assert locked.count == (kept["bid_price_0"] == kept["ask_price_0"]).sum()


def test_a_row_is_known_after_the_stated_delay(tmp_path):
    book_of([GOOD]).rename({"ts": "timestamp", "bid_size_0": "bid_qty_0"}).write_parquet(
        tmp_path / "X.parquet"
    )
    books = read_books(tmp_path, ["."], [], SECOND)
    frame = books.frames["X"].collect()
    assert frame["ts"].to_list() == [START]
    assert frame["known_at"].to_list() == [START + SECOND]
    assert frame["symbol"].to_list() == ["X"]
    assert frame["known_at"].dtype == pl.Datetime("us", "UTC")


def test_a_row_is_known_when_it_was_received_and_never_before_its_time(tmp_path):
    # not stated: a second after its time; a clock that ran behind: at its time
    frame = book_of([GOOD] * 4, **received([0.25, None, 1, 9]))
    frame.write_parquet(tmp_path / "X.parquet")
    expected = [START + second * SECOND for second in (0.25, 2, 2, 9)]
    made = read_books(tmp_path, ["."], [], SECOND).frames["X"].collect()
    assert made["known_at"].to_list() == expected
    assert made["received_at"].to_list() == frame["received_at"].to_list()
    naive = frame.with_columns(pl.col("received_at").dt.replace_time_zone(None))
    naive.write_parquet(tmp_path / "X.parquet")
    made = read_books(tmp_path, ["."], [], SECOND).frames["X"].collect()
    assert made["known_at"].to_list() == expected


def test_a_late_row_holds_back_no_other_and_is_dropped_where_a_newer_one_was_known():
    rows = [changed(bid_size_0=size) for size in (1.0, 2.0, 3.0, 4.0)]
    # the first comes after the second and third, in whatever order the file has them
    for order in ([0, 1, 2, 3], [1, 2, 0, 3], [3, 0, 2, 1]):
        frame = book_of(rows, **received([5, 1.5, 2.5, 6]))[order]
        mended, _, counts = mend(frame)
        assert mended["bid_size_0"].to_list() == [2.0, 3.0, 4.0]
        assert mended["known_at"].to_list() == [START + s * SECOND for s in (1.5, 2.5, 6)]
        assert counts.pop("received after a snapshot of a later time") == 1
        assert set(counts) <= {"out-of-order rows"}


def test_rows_of_one_time_that_came_at_different_times_count_each_from_its_arrival():
    rows = [changed(bid_size_0=size) for size in (1.0, 2.0, 3.0, 3.0, 4.0)]
    # the second row in the file came last; the last two of the time came together
    frame = book_of(rows, [0, 0, 0, 0, 0], **received([1, 4, 2, 2, 2]))
    mended, _, counts = mend(frame)
    assert mended["bid_size_0"].to_list() == [1.0, 4.0, 2.0]
    assert mended["known_at"].to_list() == [START + s * SECOND for s in (1, 2, 4)]
    assert counts == {
        "out-of-order rows": 3,
        "equal to the next row of the same time": 1,
        "several rows of the same time, not equal": 1,
    }


@given(
    st.lists(
        st.tuples(st.integers(0, 9), snapshots, st.one_of(st.none(), st.integers(-2, 12))),
        min_size=1,
        max_size=12,
    ),
    st.integers(0, 12),
)
def test_rows_known_later_change_nothing_of_what_was_known(rows, cut):
    """A book as it was once, and as it is now: they agree on what was known."""
    # a snapshot before all others makes sure that something is usable
    rows = [(-1, GOOD, -1), *rows]
    frame = book_of([row[1] for row in rows], [row[0] for row in rows])
    frame = frame.with_columns(**received([row[2] for row in rows]))
    not_stated = pl.col("ts") + SECOND
    known_at = pl.max_horizontal("ts", pl.col("received_at").fill_null(not_stated))
    until = START + cut * SECOND
    now, _, _ = mended_book(frame.lazy(), "X", "x", SECOND)
    once, _, _ = mended_book(frame.filter(known_at <= until).lazy(), "X", "x", SECOND)
    assert now.filter(pl.col("known_at") <= until).collect().equals(once.collect())


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda frame: frame.select("ts", close=pl.lit(1.0)), r"bid_price_0.*found ts, close"),
        (lambda frame: frame.drop("ask_size_1"), "missing 'ask_size_1'"),
        (lambda frame: frame.drop("ts"), "missing 'ts'"),
        (lambda frame: frame.with_columns(pl.col("bid_price_1").cast(pl.String)), "not a number"),
        (lambda frame: frame.with_columns(pl.lit("yes").alias("is_valid")), "not true or false"),
        (lambda frame: frame.with_columns(pl.lit(None, frame["ts"].dtype).alias("ts")), "no time"),
        (lambda frame: frame.with_columns(pl.lit(1).alias("ts")), "not a timestamp"),
        (
            lambda frame: frame.with_columns(pl.lit(200.0).alias("bid_price_0")),
            r"none of the 2 snapshot\(s\) is usable \(2 are: crossed",
        ),
        (lambda frame: frame.clear(), "no rows"),
        (lambda frame: frame.with_columns(pl.lit(1).alias("received_at")), "'received_at' is Int"),
    ],
)
def test_what_is_no_book_is_refused(spoil, message):
    with pytest.raises(InputError, match=message):
        mended_book(spoil(book_of([GOOD, GOOD])).lazy(), "X", "x.parquet", SECOND)


def test_a_book_known_before_it_was_there_is_refused(tmp_path):
    with pytest.raises(InputError, match="must not be negative"):
        read_books(tmp_path, ["."], [], -SECOND)


def test_mid_bars_worked_by_hand():
    # Known one second later: at 1 s, 60 s (the close: still the first bar), 61 s, 181 s.
    rows = [(bid, 1.0, bid + 2, 1.0, 1.0, 1.0, 900.0, 1.0) for bid in (99.0, 103.0, 98.0, 97.0)]
    bars = mid_bars(known(book_of(rows, [0, 59, 60, 180])), MINUTE)
    assert bars.interval == MINUTE
    expected = pl.DataFrame(
        {
            "ts": [START + minute * MINUTE for minute in range(4)],
            "open": [100.0, 99.0, None, 98.0],
            "high": [104.0, 99.0, None, 98.0],
            "low": [100.0, 99.0, None, 98.0],
            "close": [104.0, 99.0, None, 98.0],
            "volume": [2.0, 1.0, None, 1.0],
        }
    )
    assert bars.frames["X"].select(expected.columns).equals(expected)
    assert {finding.what: finding.count for finding in bars.findings}["missing bars"] == 1


def test_volume_is_what_was_traded_where_trades_are_given():
    frame = book_of([changed(bid_size_0=size) for size in (1.0, 2.0, 3.0)], [0, 60, 120])
    trades = pl.LazyFrame(
        {"known_at": [START + s * SECOND for s in (10, 60, 150)], "size": [0.5, 0.25, 2.0]},
        schema_overrides={"known_at": pl.Datetime("us", "UTC")},
    )
    bars = mid_bars(known(frame), MINUTE, TradeTable({"X": trades}, ()))
    assert bars.frames["X"]["volume"].to_list() == [0.75, 0.0, 2.0]
    with pytest.raises(InputError, match="no trades for X"):
        mid_bars(known(frame), MINUTE, TradeTable({"Y": trades}, ()))


def test_a_frozen_book_is_stale_and_a_quiet_one_is_not():
    # A snapshot a minute, no trade: sizes move in minute 1, nothing at all in minutes 2 and 3.
    quiet = changed(bid_size_0=7.0)
    last = changed(bid_price_0=100.0)
    frame = book_of([GOOD, quiet, quiet, quiet, last], [0, 60, 120, 180, 240])
    bars = mid_bars(known(frame), MINUTE)
    assert bars.frames["X"]["close"].to_list() == [100.0, 100.0, None, None, 100.5]
    assert {finding.what.split()[0]: finding.count for finding in bars.findings} == {
        "stale": 2,
        "missing": 0,
    }


@given(
    st.lists(st.tuples(st.integers(1, 400_000_000), st.integers(-9, 9)), min_size=1, max_size=40)
)
def test_mid_bars_equal_their_slow_twin(moments):
    moments = sorted(dict(moments).items())
    # Each snapshot has a size of its own, so that no bar is stale.
    rows = [
        (100.0 + move, 1.0 + place, 102.0 + move, 1.0, 1.0, 1.0, 900.0, 1.0)
        for place, (_, move) in enumerate(moments)
    ]
    stamps = [known_at / 1_000_000 - 1 for known_at, _ in moments]
    frame = book_of(rows, stamps).with_columns(
        pl.Series("ts", [START + timedelta(microseconds=us) - SECOND for us, _ in moments])
    )
    frame = mid_bars(known(frame), MINUTE).frames["X"]
    found = {row["ts"]: row for row in frame.iter_rows(named=True)}
    expected = {}
    for known_us, move in moments:
        minute = (known_us - 1) // 60_000_000
        expected.setdefault(START + minute * MINUTE, []).append(101.0 + move)
    for ts, row in found.items():
        mids = expected.get(ts)
        bar = (mids[0], max(mids), min(mids), mids[-1]) if mids else (None,) * 4
        assert (row["open"], row["high"], row["low"], row["close"]) == bar
    assert set(expected) <= set(found)


@given(st.lists(st.integers(0, 600), min_size=1, max_size=60), st.integers(1, 70))
def test_batches_never_split_an_interval_and_lose_nothing(seconds, batch_rows):
    rows = pl.DataFrame(
        {"known_at": [START + second * SECOND for second in sorted(seconds)]},
        schema_overrides={"known_at": pl.Datetime("us", "UTC")},
    ).with_row_index("row")
    batches = list(interval_batches(rows.lazy(), MINUTE, batch_rows))
    joined = pl.concat(batches)
    assert joined["row"].to_list() == list(range(len(seconds)))
    opens = [set(batch["ts"]) for batch in batches]
    assert sum(len(some) for some in opens) == len(set.union(*opens))
    assert joined["ts"].to_list() == rows.select(bar_open(MINUTE)).to_series().to_list()


def test_standx_books_vanish_and_lock(shared_data):
    root = shared_data / "data"
    books = read_books(root, ["book"], [], SECOND)
    trades = read_trades(root, ["trades"], [])
    assert books.levels == {"BTC-USD": 20}
    found = {finding.what: finding for finding in books.findings if finding.count}
    assert list(found) == ["locked (best bid = best ask)"]
    locked = found["locked (best bid = best ask)"]
    assert (locked.count, locked.total) == (68_549, 147_941)
    bars = mid_bars(books, MINUTE, trades)
    frame = bars.frames["BTC-USD"]
    assert len(frame) == 49 * 60 + 6
    assert frame["snapshot_count"].sum() == 147_941
    # Of all seconds 84 % are there, yet no minute is without a snapshot.
    assert 147_941 / (len(frame) * 60) == pytest.approx(0.84, abs=0.005)
    assert frame["close"].null_count() == 0
    traded = trades.frames["BTC-USD"].select(pl.col("size").sum()).collect().item()
    assert frame["volume"].sum() == pytest.approx(traded, rel=1e-9)
    # Slow twin of one minute: 2026-01-06 00:00 holds the snapshots stamped 00:00:00 to 00:00:59.
    minute = datetime(2026, 1, 6, tzinfo=UTC)
    rows = (
        books.frames["BTC-USD"]
        .filter(pl.col("ts") >= minute, pl.col("ts") < minute + MINUTE)
        .collect()
    )
    mids = ((rows["bid_price_0"] + rows["ask_price_0"]) / 2).to_list()
    bar = frame.row(by_predicate=pl.col("ts") == minute, named=True)
    assert [bar[name] for name in ("open", "high", "low", "close", "snapshot_count")] == [
        mids[0],
        max(mids),
        min(mids),
        mids[-1],
        len(mids),
    ]
