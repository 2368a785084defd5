from datetime import UTC, datetime, timedelta

import polars as pl
import pytest

from margincast.core.errors import InputError
from margincast.data.trades import ALL_ON_ONE_SIDE, read_trades

START = datetime(2026, 1, 5, 12, tzinfo=UTC)
SECOND = timedelta(seconds=1)


def trades_of(count=3, **columns):
    return pl.DataFrame(
        {
            "timestamp": [START + second * SECOND for second in range(count)],
            "price": [100.0] * count,
            "quantity": [1.0] * count,
            "side": ["SELL", *["Buy"] * (count - 1)],
        }
    ).with_columns(pl.Series(name, values) for name, values in columns.items())


def read(frame, folder):
    frame.write_parquet(folder / "X.parquet")
    table = read_trades(folder, ["."], [])
    counts = {finding.what: finding.count for finding in table.findings if finding.count}
    return table.frames["X"].collect(), counts


def test_venue_names_and_sides_become_canonical(tmp_path):
    frame, counts = read(trades_of(), tmp_path)
    assert frame["side"].to_list() == [None, "buy", "buy"]
    assert frame["size"].to_list() == [1.0] * 3
    assert frame["ts"].dtype == pl.Datetime("us", "UTC")
    assert frame["known_at"].equals(frame["ts"])
    assert counts == {ALL_ON_ONE_SIDE: 1}


def test_a_trade_is_known_when_received_and_never_before_it_happened(tmp_path):
    received = [START + 5 * SECOND, None, START]
    frame, counts = read(trades_of(received_at=received), tmp_path)
    # In the order they were known: the second at its own time, so does the third, then the first.
    assert frame["ts"].to_list() == [START + SECOND, START + 2 * SECOND, START]
    assert frame["known_at"].to_list() == [
        START + SECOND,
        START + 2 * SECOND,
        START + 5 * SECOND,
    ]
    assert counts == {"received after a trade received later": 2, ALL_ON_ONE_SIDE: 2}


def test_reception_without_a_time_zone_is_utc(tmp_path):
    naive = [(START + 5 * SECOND).replace(tzinfo=None)] * 3
    frame, _ = read(trades_of(received_at=naive), tmp_path)
    assert frame["known_at"].to_list() == [START + 5 * SECOND] * 3


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        ({"price": [1.0, 0.0, -1.0]}, r"'price' holds 0.0 at row 1 .*above zero \(2 such"),
        ({"price": [1.0, 1.0, float("nan")]}, "'price' holds nan at row 2"),
        ({"quantity": [1.0, None, 1.0]}, "'size' holds None at row 1"),
        ({"quantity": [-1.0, 0.0, 1.0]}, "'size' holds -1.0 at row 0 .*zero or above"),
        ({"side": ["buy", "sell", "unknown"]}, "'side' holds 'unknown' at row 2 .*buy or sell"),
        ({"side": [1, -1, 1]}, "'side' holds 1 at row 0"),
        ({"price": ["1", "2", "3"]}, "'price' is String, not a number"),
        ({"received_at": [1, 2, 3]}, "'received_at' is Int64, not a timestamp"),
        ({"timestamp": [START, None, START]}, "'ts' holds None at row 1"),
    ],
)
def test_a_value_that_cannot_be_is_refused_with_its_row(tmp_path, columns, message):
    with pytest.raises(InputError, match=message):
        read(trades_of(**columns), tmp_path)


def test_a_trade_without_a_side_is_kept_and_counted(tmp_path):
    frame, counts = read(trades_of(4, side=["buy", "sell", None, "sell"]), tmp_path)
    assert frame["side"].to_list() == [None, "sell", None, "sell"]
    assert counts == {"without an aggressor side": 1, ALL_ON_ONE_SIDE: 1}


def test_a_missing_column_and_an_empty_table_are_refused(tmp_path):
    with pytest.raises(InputError, match=r"needs the column.*'side'"):
        read(trades_of().drop("side"), tmp_path)
    with pytest.raises(InputError, match="no rows"):
        read(trades_of().clear(), tmp_path)


@pytest.mark.parametrize("count", [1, 1500])
def test_a_feed_on_one_side_has_no_aggressor(tmp_path, count):
    frame, counts = read(trades_of(count, side=["SELL"] * count), tmp_path)
    assert frame["side"].null_count() == count
    assert counts == {ALL_ON_ONE_SIDE: count}


def test_sides_count_once_both_have_been_seen(tmp_path):
    sides = ["sell", None, "sell", "buy", "buy", "sell"]
    frame, counts = read(trades_of(len(sides), side=sides), tmp_path)
    assert frame["side"].to_list() == [None, None, None, "buy", "buy", "sell"]
    assert counts == {ALL_ON_ONE_SIDE: 2, "without an aggressor side": 1}


def test_standx_aggressors_are_found_out(shared_data):
    table = read_trades(shared_data / "data", ["trades"], [])
    found = {finding.what: finding.count for finding in table.findings if finding.count}
    assert found == {
        ALL_ON_ONE_SIDE: 306_657,
        "received after a trade received later": 2_790,
    }
    frame = table.frames["BTC-USD"].collect()
    assert frame["side"].null_count() == len(frame)
    assert frame["known_at"].is_sorted()
    assert (frame["known_at"] > frame["ts"]).all()
