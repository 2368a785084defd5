"""No trade counts twice and none is lost: repetitions within and between sources."""

from datetime import UTC, datetime, timedelta

import polars as pl
from hypothesis import given
from hypothesis import strategies as st

from margincast.data.ingestion.duplicates import HOLDS_MORE, settle, settle_against
from margincast.data.ingestion.hard_rules import REASON
from margincast.data.schemas import BARS, SCHEMAS, TIMESTAMP, TRADES

START = datetime(2024, 1, 1, tzinfo=UTC)


def trades(rows, ids=None):
    """Rows are (second, price)."""
    frame = pl.DataFrame(
        {
            "symbol": ["BTC"] * len(rows),
            "ts": [START + timedelta(seconds=second) for second, _ in rows],
            "price": [float(price) for _, price in rows],
            "size": [1.0] * len(rows),
            "side": ["buy"] * len(rows),
        },
        schema={
            "symbol": pl.String,
            "ts": TIMESTAMP,
            "price": pl.Float64,
            "size": pl.Float64,
            "side": pl.String,
        },
    )
    return frame if ids is None else frame.with_columns(trade_id=pl.Series(ids, dtype=pl.Int64))


def bars(rows):
    """Rows are (hour, close)."""
    return pl.DataFrame(
        {
            "symbol": ["BTC"] * len(rows),
            "ts": [START + timedelta(hours=hour) for hour, _ in rows],
            **{name: [float(close) for _, close in rows] for name in ("open", "high", "low")},
            "close": [float(close) for _, close in rows],
            "volume": [1.0] * len(rows),
        },
        schema={"symbol": pl.String, "ts": TIMESTAMP}
        | dict.fromkeys(("open", "high", "low", "close", "volume"), pl.Float64),
    )


def test_two_equal_trades_without_an_id_are_two_trades():
    settled = settle(trades([(0, 10), (0, 10), (1, 10)]), TRADES)
    assert (len(settled.kept), settled.duplicates, len(settled.set_aside)) == (3, 0, 0)


def test_a_trade_id_that_comes_again_is_the_same_trade_whenever_it_was_received():
    frame = trades([(0, 10), (0, 10), (0, 10)], ids=[1, 1, 2]).with_columns(
        received_at=pl.Series([START, START + timedelta(seconds=9), START], dtype=TIMESTAMP)
    )
    settled = settle(frame, TRADES)
    assert settled.kept["trade_id"].to_list() == [1, 2]
    assert settled.duplicates == 1


def test_a_bar_that_comes_again_unchanged_is_a_duplicate_and_changed_a_conflict():
    settled = settle(bars([(0, 10), (1, 11), (1, 11), (1, 12), (2, 13)]), BARS)
    assert settled.kept["close"].to_list() == [10, 11, 13]
    assert settled.duplicates == 1
    assert settled.set_aside["close"].to_list() == [12]


def test_a_book_may_change_and_change_back_within_one_time_stamp():
    # the last state of a time is what a reader acts on, so A, A, B, A must not become A, B
    frame = trades([(0, 10), (0, 10), (0, 11), (0, 10)]).select("symbol", "ts", bid_price_0="price")
    settled = settle(frame, SCHEMAS["book"])
    assert settled.kept["bid_price_0"].to_list() == [10, 11, 10]
    assert settled.duplicates == 1
    assert settled.set_aside.is_empty()


def test_ids_are_compared_row_by_row():
    settled = settle(trades([(0, 10), (0, 10), (0, 10), (0, 10)], ids=[1, 1, None, None]), TRADES)
    assert settled.kept["trade_id"].to_list() == [1, None, None]
    assert settled.duplicates == 1


def test_a_feed_s_own_columns_do_not_make_another_trade():
    plain = trades([(0, 10), (1, 11)])
    marked = plain.with_columns(venue_note=pl.lit("x"))
    assert settle_against(marked, [plain], TRADES).duplicates == 2
    assert settle_against(plain, [marked], TRADES).duplicates == 2
    other = trades([(2, 12)]).with_columns(venue_note=pl.lit("y"))
    # whatever else lies beside it in the store
    assert settle_against(marked, [plain, other], TRADES).kept.is_empty()


def test_a_trade_counts_once_whether_or_not_a_source_gives_ids():
    without, with_ids = trades([(0, 10), (0, 10)]), trades([(0, 10), (0, 10)], ids=[1, 2])
    assert settle_against(with_ids, [without], TRADES).kept.is_empty()
    assert settle_against(without, [with_ids], TRADES).kept.is_empty()
    some = trades([(0, 10), (0, 10), (0, 10)], ids=[1, 2, 3])
    assert settle_against(some, [with_ids], TRADES).kept["trade_id"].to_list() == [3]


def test_a_row_that_says_more_than_the_one_in_the_store_is_set_aside_and_not_lost():
    short = bars([(0, 10), (1, 11)])
    rich = bars([(0, 10), (1, 11), (2, 12)]).with_columns(quote_volume=pl.lit(5.0))
    settled = settle_against(rich, [short], BARS)
    assert settled.kept["close"].to_list() == [12]
    assert settled.duplicates == 0
    assert settled.set_aside[REASON].unique().to_list() == [HOLDS_MORE]
    assert settle_against(short, [rich], BARS).duplicates == 2
    nothing_more = short.with_columns(quote_volume=pl.lit(None, dtype=pl.Float64))
    assert settle_against(nothing_more, [short], BARS).duplicates == 2


def test_a_deeper_book_is_set_aside_and_a_flatter_one_is_a_duplicate():
    flat = trades([(0, 10)]).select("symbol", "ts", bid_price_0="price", bid_size_0="size")
    deep = flat.with_columns(bid_price_1=pl.lit(9.0), bid_size_1=pl.lit(1.0))
    assert len(settle_against(deep, [flat], SCHEMAS["book"]).set_aside) == 1
    assert settle_against(flat, [deep], SCHEMAS["book"]).duplicates == 1


def test_trades_of_another_file_count_as_often_as_the_file_that_has_most():
    present = trades([(0, 10), (0, 10), (1, 10)])
    new = trades([(0, 10), (0, 10), (0, 10), (1, 11)])
    settled = settle_against(new, [present], TRADES)
    assert settled.kept.select("ts", "price").rows() == [
        (START, 10.0),
        (START + timedelta(seconds=1), 11.0),
    ]
    assert settled.duplicates == 2


def test_a_bar_of_another_file_that_differs_is_a_conflict_and_the_first_stays():
    settled = settle_against(bars([(0, 10), (1, 12), (2, 9)]), [bars([(0, 10), (1, 11)])], BARS)
    assert settled.kept["close"].to_list() == [9]
    assert settled.duplicates == 1
    assert settled.set_aside["close"].to_list() == [12]


def test_rows_with_unknown_values_are_compared_too():
    new = bars([(0, 10)]).with_columns(volume=pl.lit(None, dtype=pl.Float64))
    assert settle_against(new, [new], BARS).duplicates == 1


ROWS = st.lists(st.tuples(st.integers(0, 3), st.integers(1, 3)), max_size=12).map(sorted)


@given(ROWS, ROWS, st.sampled_from(["bars", "book", "trades"]))
def test_every_row_is_kept_or_a_duplicate_or_a_conflict(first, second, table):
    schema = SCHEMAS[table]
    make = bars if table == "bars" else trades
    one, two = settle(make(first), schema), settle(make(second), schema)
    for settled, rows in ((one, first), (two, second)):
        assert len(settled.kept) + settled.duplicates + len(settled.set_aside) == len(rows)
    against = settle_against(two.kept, [one.kept], schema)
    assert len(against.kept) + against.duplicates + len(against.set_aside) == len(two.kept)
    again = settle_against(against.kept, [one.kept, against.kept], schema)
    assert again.kept.is_empty()
    assert again.set_aside.is_empty()
    assert against.kept["ts"].is_sorted()
