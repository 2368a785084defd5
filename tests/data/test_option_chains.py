from datetime import UTC, datetime, timedelta

import polars as pl
import pytest

from margincast.core.errors import InputError
from margincast.data.option_chains import read_option_chains

START = datetime(2026, 1, 5, 12, tzinfo=UTC)
EXPIRY = datetime(2026, 1, 30, 8, tzinfo=UTC)
HOUR = timedelta(hours=1)


def chain_of(**columns):
    """Three options at one time, in no order."""
    return pl.DataFrame(
        {
            "ts": [START] * 3,
            "instrument": ["BTC-30JAN26-90000-P", "BTC-30JAN26-95000-C", "BTC-30JAN26-80000-P"],
            "option_type": ["put", "CALL", "put"],
            "strike": [90000, 95000, 80000],
            "expiry": [EXPIRY] * 3,
            "underlying_price": [91000.0] * 3,
            "implied_volatility": [0.5, 0.52, 0.6],
            "bid_price": [0.01, None, 0.002],
            "delta": [-0.4, 0.3, -0.1],
            "volume": [1.0, 2.0, 3.0],
        }
    ).with_columns(pl.Series(name, values) for name, values in columns.items())


def read(frame, folder):
    frame.write_parquet(folder / "BTC.parquet")
    table = read_option_chains(folder, ["."])
    counts = {finding.what: finding.count for finding in table.findings if finding.count}
    return table.frames["BTC"], counts


def test_a_chain_is_sorted_typed_and_canonical(tmp_path):
    frame, counts = read(chain_of(), tmp_path)
    assert frame["strike"].to_list() == [80000.0, 90000.0, 95000.0]
    assert frame["option_type"].to_list() == ["put", "put", "call"]
    assert frame["bid_price"].to_list() == [0.002, 0.01, None]
    assert frame["known_at"].equals(frame["ts"])
    assert frame.schema["expiry"] == frame.schema["known_at"] == pl.Datetime("us", "UTC")
    # columns that the files do not have are not made up
    assert {"ask_price", "mark_price", "open_interest"}.isdisjoint(frame.columns)
    assert counts == {}


def test_a_row_is_known_when_received_and_never_before_its_time(tmp_path):
    received = [START + HOUR, None, START - HOUR]
    frame, counts = read(chain_of(received_at=received), tmp_path)
    assert frame["strike"].to_list() == [80000.0, 95000.0, 90000.0]
    assert frame["known_at"].to_list() == [START, START, START + HOUR]
    assert counts == {"received after a row received later": 2, "without a time of reception": 1}


def test_what_makes_no_smile_is_kept_and_counted(tmp_path):
    frame, counts = read(
        chain_of(implied_volatility=[0.5, None, 0.6], expiry=[EXPIRY, EXPIRY, START]), tmp_path
    )
    assert len(frame) == 3
    assert counts == {"listed at or after its expiry": 1, "without an implied volatility": 1}


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        ({"ts": [START, None, START]}, "'ts' holds None at row 1"),
        ({"expiry": [EXPIRY, None, EXPIRY]}, "'expiry' holds None at row 1"),
        ({"expiry": [1, 2, 3]}, "'expiry' is Int64, not a timestamp"),
        ({"strike": [1.0, 0.0, -1.0]}, r"'strike' holds 0.0 at row 1 .*above zero \(2 such"),
        ({"strike": ["1", "2", "3"]}, "'strike' is String, not a number"),
        ({"strike": [1.0, None, 1.0]}, "'strike' holds None at row 1"),
        ({"option_type": ["put", "P", "call"]}, "'option_type' holds 'p' at row 1 .*call or put"),
        ({"instrument": ["A", None, "B"]}, "'instrument' holds None at row 1"),
        ({"instrument": ["A", "B", "A"]}, "'instrument' holds 'A' at row 2 .*one row an instr"),
        ({"underlying_price": [1.0, None, 0.0]}, "'underlying_price' holds 0.0 at row 2"),
        ({"implied_volatility": [0.5, float("nan"), 1.0]}, "'implied_volatility' holds nan at row"),
        ({"implied_volatility": [50.0, 52.0, 60.0]}, "median of 52; .*not percent: divide it by"),
        ({"bid_price": [-0.1, None, 1.0]}, "'bid_price' holds -0.1 at row 0 .*zero or above"),
        ({"delta": [0.1, float("inf"), 1.0]}, "'delta' holds inf at row 1"),
    ],
)
def test_a_value_that_cannot_be_is_refused_with_its_row(tmp_path, columns, message):
    with pytest.raises(InputError, match=message):
        read(chain_of(**columns), tmp_path)


@pytest.mark.parametrize("column", ["strike", "underlying_price", "implied_volatility"])
def test_a_chain_without_a_needed_column_is_refused_with_what_to_do(tmp_path, column):
    with pytest.raises(InputError, match=f"{column}.*margincast data ingest"):
        read(chain_of().drop(column), tmp_path)


def test_an_empty_chain_is_refused(tmp_path):
    with pytest.raises(InputError, match="no rows"):
        read(chain_of().clear(), tmp_path)


def test_a_venues_own_columns_ask_to_be_ingested(shared_data):
    raw = "options/deribit_chain_snapshots.parquet"
    with pytest.raises(InputError, match=r"'instrument'.*margincast data ingest"):
        read_option_chains(shared_data / "data", [raw])
